"""Import of generator files (.pth) of the widely used pytorch-CycleGAN-and-pix2pix project: tensors only."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_baselines.config import CycleGan, Generator, Norm, Pix2Pix
from gan_baselines.errors import InputError
from gan_baselines.networks import picture_generator

_ALLOWED = "a generator file of that project (resnet or unet): a plain dictionary of tensors"
Modules = list[tuple[str, dict[str, Tensor]]]


def read_legacy(path: Path, option: str = "--input", dropout: bool | None = None) -> tuple[Any, nn.Module]:
    """Return the model settings that fit the file, and the generator filled from it.

    The architecture is read off the tensors: kind, width, depth, norm, and of a resnet also its padding, upsampling and
    dropout, which shift the layers' numbers. A resnet becomes a CycleGAN's generator, a unet a Pix2Pix's, both with the
    discriminator left at its default settings.

    Args:
        dropout: whether a U-Net was trained with dropout, of which its file says nothing.

    Raises:
        InputError: unreadable, holding more than tensors, of another network, or computing what ours does not.
    """
    modules = _modules(_read_tensors(path, option))
    model = _model_for(modules, path, option, dropout)
    network = picture_generator(model.generator, model.norm)
    targets = list(_own_modules(network))
    if len(targets) != len(modules):
        raise InputError(option, f"'{path}' with {len(modules)} layers, expected {len(targets)}", _ALLOWED)
    with torch.no_grad():
        for (name, tensors), (own, layer) in zip(modules, targets, strict=True):
            _copy(layer, tensors, f"{name} -> {own}", path, option)
    return model, network


def _read_tensors(path: Path, option: str) -> dict[str, Tensor]:
    try:
        # weights_only: an unpickler that builds tensors and containers and nothing else
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(option, f"no file '{path}'", _ALLOWED) from error
    except Exception as error:  # the unpickler raises what foreign bytes lead it to
        raise InputError(option, f"'{path}', not readable as tensors only", _ALLOWED) from error
    if not isinstance(state, dict) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(option, f"'{path}' without a dictionary of tensors", _ALLOWED)
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _modules(state: dict[str, Tensor]) -> Modules:
    """Tensors grouped by layer, in the order in which the layers run (U-Net: down the encoder, then up).

    Dropout and activation layers shift the numbers in the names but not their order, so the order is what counts.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        found.setdefault(layer, {})[leaf] = tensor
    # instance norms of old files have running statistics and nothing else: they are not used
    kept = {layer: leaves for layer, leaves in found.items() if "weight" in leaves}
    return sorted(kept.items(), key=lambda item: _natural(item[0]))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _model_for(modules: Modules, path: Path, option: str, dropout: bool | None) -> Any:
    convs = [tensors for _, tensors in modules if tensors["weight"].dim() == 4]
    if len(convs) < 2:
        raise InputError(option, f"'{path}' with {len(convs)} convolutions", _ALLOWED)
    norm = _norm(modules, path, option)
    first, side = convs[0]["weight"], convs[0]["weight"].shape[-1]
    channels = (first.shape[1], convs[-1]["weight"].shape[0 if side == 7 else 1])
    if channels != (3, 3):
        raise InputError(option, f"'{path}' of {channels[0]} to {channels[1]} channels", "3 to 3 channels")
    blocks = [name for name, _ in modules if re.fullmatch(r"model\.\d+\.conv_block\.\d+", name)]
    count = len({name.rpartition(".conv_block.")[0] for name in blocks})
    if side == 7 and 3 + 2 * count + 3 == len(convs):
        inside = _block_dropout(modules, path, option)
        if dropout not in (None, inside):
            flag = {True: "--dropout", False: "--no-dropout"}
            raise InputError(flag[not inside], f"'{path}', whose layers say {flag[inside]}", flag[inside])
        _check_deconv(modules, path, option)
        return CycleGan(generator=Generator(width=first.shape[0], blocks=count, dropout=inside), norm=norm)
    if side == 4 and len(convs) % 2 == 0:
        downs = len(convs) // 2
        if dropout is None and downs > 5:
            raise InputError("--dropout", f"nothing for the U-Net '{path}', whose file does not say whether it was "
                             "trained with dropout", "--dropout (as pix2pix is) or --no-dropout")  # fmt: skip
        net = Generator(kind="unet", width=first.shape[0], downs=downs, dropout=bool(dropout))
        return Pix2Pix(generator=net, norm=norm)
    raise InputError(option, f"'{path}' with {len(convs)} convolutions, the first {side}x{side}", _ALLOWED)


def _norm(modules: Modules, path: Path, option: str) -> Norm:
    norms = [tensors for _, tensors in modules if tensors["weight"].dim() == 1]
    if not norms:
        return Norm(kind="instance")  # convolutions without a norm have no bias there, which `_copy` refuses
    if all("running_mean" in tensors for tensors in norms):
        return Norm(kind="batch")
    raise InputError(option, f"'{path}' with norms of weights but no running statistics", "batch or instance norm")


def _block_dropout(modules: Modules, path: Path, option: str) -> bool:
    """Whether the residual blocks have dropout: pad, conv, norm, relu, (dropout), pad, conv, norm, by number."""
    found: dict[str, list[int]] = {}
    for name, tensors in modules:
        block, inside, index = name.rpartition(".conv_block.")
        if inside and tensors["weight"].dim() == 4:
            found.setdefault(block, []).append(int(index))
    kinds = {tuple(places) for places in found.values()}
    if kinds <= {(1, 5)}:
        return False
    if kinds == {(1, 6)}:
        return True
    places = " and ".join(str(list(kind)) for kind in sorted(kinds))
    raise InputError(option, f"'{path}' whose residual blocks have convolutions at {places}, as with zero padding",
                     "blocks with mirrored edges: convolutions at [1, 5], or [1, 6] with dropout")  # fmt: skip


def _check_deconv(modules: Modules, path: Path, option: str) -> None:
    """Refuse upsampling by interpolation: which kind it was, and how its edges were padded, no file says."""
    outer = [tensors["weight"] for name, tensors in modules if "conv_block" not in name]
    doubling = [weight for weight in outer if weight.dim() == 4][3:-1]
    if any(weight.shape[0] < weight.shape[1] for weight in doubling):  # a transposed one stores its inputs first
        raise InputError(option, f"'{path}' that doubles by interpolation and convolution", "transposed convolutions")


def _own_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in network.named_modules():
        if isinstance(getattr(layer, "weight", None), Tensor):
            yield name, layer


def _copy(layer: nn.Module, tensors: dict[str, Tensor], names: str, path: Path, option: str) -> None:
    own = layer.state_dict()
    missing = own.keys() - tensors.keys() - {"num_batches_tracked"}
    if missing or ("bias" in tensors) != ("bias" in own):
        raise InputError(option, f"'{path}': {names} lacks or adds {', '.join(sorted(missing)) or 'bias'}", _ALLOWED)
    for leaf, target in own.items():
        if leaf in tensors and tensors[leaf].shape != target.shape:
            found = f"'{path}': {names}.{leaf} is {tuple(tensors[leaf].shape)}, not {tuple(target.shape)}"
            raise InputError(option, found, _ALLOWED)
        if leaf in tensors:
            target.copy_(tensors[leaf])
