"""What of a file's tensors a pipeline took: single files and LoRAs, told by names alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from freectl.pipelines.text_lora import peft_names

if TYPE_CHECKING:  # names are checked before torch is imported
    from torch import Tensor, nn

_OPEN_CLIP = {"text_encoder": "cond_stage_model.model.", "text_encoder_2": "conditioner.embedders.1.model."}
_MARKED_ROWS = 6
"""Rows of a tensor that stands for one of a file: query, key and value are cut out of some."""
_NO_WEIGHTS = ("position_ids", "logit_scale", "text_projection", "denoiser.sigmas", "denoiser.log_sigmas")
"""Ends of names that nobody misses: buffers, and heads of contrastive training."""
_PAIR = frozenset({"A", "B"})


def some(names: Iterable[str], most: int = 2) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def networks(pipe: Any) -> dict[str, nn.Module]:
    """The pipeline's networks by component."""
    from torch import nn

    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def without_weights(pipe: Any) -> list[str]:
    """Weights of a pipeline's networks that no file gave; they are on the meta device still."""
    found = networks(pipe).items()
    return [f"{part}.{name}" for part, one in found for name, weight in one.named_parameters() if weight.is_meta]


def unused_of_single_file(pipe: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of a single file's tensors that no network of a pipeline took; none are told of pipelines without a UNet.

    diffusers' own converters are run on stand-ins, each of which holds the number of its name.

    Args:
        shapes: of the file's tensors, by name.
    """
    from diffusers.loaders.single_file_utils import SD_2_TEXT_ENCODER_KEYS_TO_IGNORE

    if getattr(pipe, "unet", None) is None:
        return []
    names, marked = _stand_ins(shapes)
    taken = set(SD_2_TEXT_ENCODER_KEYS_TO_IGNORE)  # of a layer that the model was not trained to read
    for part, network in networks(pipe).items():
        keys = {_bare(key) for key in network.state_dict()}
        for converted in _conversions(part, network, marked):
            held = (value for key, value in converted.items() if _bare(key) in keys and value.numel())
            taken |= {names[int(value.flatten()[0])] for value in held}
    return [name for name in names if name not in taken and not name.endswith(_NO_WEIGHTS)]


def missing_in_single_file(parts: Mapping[str, nn.Module], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Weights of networks that a single file does not hold; arguments as of `unused_of_single_file`."""
    _, marked = _stand_ins(shapes)
    missing = []
    for part, network in parts.items():
        held = {_bare(key) for converted in _conversions(part, network, marked) for key in converted}
        missing += [f"{part}.{name}" for name, _ in network.named_parameters() if _bare(name) not in held]
    return missing


def _stand_ins(shapes: Mapping[str, tuple[int, ...]]) -> tuple[list[str], dict[str, Tensor]]:
    """Names of a file's weights, and for each a small tensor of its number."""
    import torch

    names = [name for name, shape in shapes.items() if "." in name and shape]  # the noise schedule's have no dots
    sizes = ((_MARKED_ROWS, *[1] * (len(shapes[name]) - 1)) for name in names)
    return names, {name: torch.full(size, float(i)) for i, (name, size) in enumerate(zip(names, sizes, strict=True))}


def _bare(key: str) -> str:
    """CLIP's keys have a prefix in some versions of transformers."""
    return key.removeprefix("text_model.")


def _conversions(part: str, network: nn.Module, marked: dict[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    """A file's tensors under the names that a network may have them by, once for each layout."""
    from diffusers.loaders import single_file_utils as layouts

    kind = type(network).__name__
    if kind == "UNet2DConditionModel":
        yield layouts.convert_ldm_unet_checkpoint(dict(marked), network.config)
    elif kind == "AutoencoderKL":
        yield layouts.convert_ldm_vae_checkpoint(dict(marked), network.config)
    elif part in _OPEN_CLIP:
        yield layouts.convert_open_clip_checkpoint(network, dict(marked), prefix=_OPEN_CLIP[part])
        if part == "text_encoder":
            yield layouts.convert_ldm_clip_checkpoint(dict(marked))


def unused_of_lora(pipe: Any, state: Mapping[str, Tensor], adapter: str) -> tuple[list[str], int]:
    """Layers of a LoRA that a pipeline did not take or that are halves of a pair, and the number of all.

    Args:
        state: as the pipeline's `lora_state_dict` returns it. adapter: the name under which it was loaded.
    """
    parts: dict[str, set[str]] = defaultdict(set)
    taken = set()
    for component, network in networks(pipe).items():
        taken |= {f"{component}.{name}" for name, module in network.named_modules() if _adapted(module, adapter)}
        own = {
            key.removeprefix(f"{component}."): value for key, value in state.items() if key.startswith(f"{component}.")
        }
        for key in _peft_keys(own, component):
            # CLIP's layers have a prefix in some versions of transformers
            name = key if hasattr(network, "text_model") else key.removeprefix("text_model.")
            layer, _, half = name.partition(".lora_")
            parts[f"{component}.{layer}"].add(half[:1])
    foreign = [key for key in state if key.partition(".")[0] not in networks(pipe)]
    unused = [layer for layer, halves in parts.items() if layer not in taken or not halves >= _PAIR]
    return [*unused, *foreign], len(parts) + len(foreign)


def _adapted(module: nn.Module, adapter: str) -> bool:
    return any(adapter in getattr(module, kind, ()) for kind in ("lora_A", "lora_embedding_A"))


def _peft_keys(state: Mapping[str, Tensor], component: str) -> Iterable[str]:
    """A component's keys as diffusers hands them to peft."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    if component.startswith("text_encoder"):
        return peft_names(state)
    if state and "lora_A" not in next(iter(state)):
        return convert_unet_state_dict_to_peft(state)
    return state
