"""Weights folders that describe themselves: config.json beside one safetensors file for each network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gan_baselines.config import ModelConfig
from gan_baselines.errors import InputError
from gan_baselines.files import replace_folder
from gan_baselines.hub import tensors_file
from gan_baselines.models import GanModel, build
from gan_baselines.record import FOLDER, FORMAT, find_weights, read_record, shipped_names

__all__ = ["Weights", "find_weights", "load_discriminators", "load_weights", "read_record", "save_weights",
           "shipped_names", "started", "without_sources"]  # fmt: skip
_MODEL: TypeAdapter[Any] = TypeAdapter(ModelConfig)


@dataclass
class Weights:
    """A read weights folder: what was trained, its generators by name, and the network they belong to."""

    model: Any
    generators: dict[str, nn.Module]
    about: dict[str, Any] = field(default_factory=dict)
    network: GanModel | None = None

    @property
    def multiple(self) -> int:
        """Picture sides the generators take are multiples of this, in px."""
        return self.model.multiple

    @property
    def translators(self) -> dict[str, nn.Module]:
        """Networks from picture to picture, by direction; those whose generators were read."""
        known = self.network.translators if self.network else self.generators
        parts = self.network.parts if self.network else lambda name: (name,)
        return {name: net for name, net in known.items() if set(parts(name)) <= self.generators.keys()}

    @property
    def noise_generator(self) -> Any:
        """The network that draws pictures from noise; None for a model that translates."""
        return self.network.sampler if self.network else self.generators.get("G")


def save_weights(
    folder: Path,
    model: Any,
    generators: Mapping[str, nn.Module],
    discriminators: Mapping[str, nn.Module] | None = None,
    *,
    helpers: Mapping[str, nn.Module] | None = None,
    translators: list[str] | None = None,
    about: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a weights folder, replacing one that is there.

    Args:
        helpers: frozen networks that translating or sampling needs.
        translators: directions that the generators know; None takes the generators named by one.

    Raises:
        GanError: the disk is full or the folder not writable.
        InputError: numbers too large for `dtype`.
    """
    kinds = {"generator": generators, "discriminator": discriminators or {}, "helper": helpers or {}}
    stored = {f"{kind}_{name}": _stored(network.state_dict(), dtype)
              for kind, networks in kinds.items() for name, network in networks.items()}  # fmt: skip
    names: dict[str, Any] = {f"{kind}s": sorted(networks) for kind, networks in kinds.items()}
    if translators is not None:
        names["translators"] = translators
    record = {"format": FORMAT, "model": model.model_dump(mode="json"), **names, "about": about or {}}

    def fill(partial: Path) -> None:
        for name, tensors in stored.items():
            save_file(tensors, partial / f"{name}.safetensors")
        (partial / "config.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    replace_folder(folder, fill)


def load_weights(folder: Path | str, option: str = "--weights", only: str | None = None) -> Weights:
    """Read the generators of a weights folder (or `only` those of one direction), in fp32 on the CPU.

    `folder` may be the name of shipped weights.

    Raises:
        InputError: no such folder, damaged or foreign files, or no generator of that name.
    """
    folder = find_weights(folder)
    record = read_record(folder, option)
    names = record["generators"]
    model = _checked_model(record, folder, option)
    network = build(without_sources(model))
    wanted = names if only is None else network.parts(only)
    if missing := [name for name in wanted if name not in names or name not in network.generators]:
        raise InputError(option, f"'{folder}' with generators {', '.join(names)}", f"one with '{missing[0]}'")
    files = {f"generator_{name}": network.generators[name] for name in wanted}
    files |= {f"helper_{name}": network.helpers[name] for name in network.carried if name in network.helpers}
    for name, net in files.items():
        fill(net, folder / f"{name}.safetensors", option)
    network.requires_grad_(False).eval()
    return Weights(model, {name: network.generators[name] for name in wanted}, record["about"], network)


def started(config: Any) -> GanModel:
    """Return the model as a training begins with it: built, and filled from the folders that its settings name.

    Raises:
        InputError: settings that no network fits, or a folder that lacks a network or has one of another shape.
    """
    network = build(config)
    for source in network.sources():
        folder, option = getattr(config, source.setting), f"model.{source.setting}"
        if folder is None:
            raise InputError(option, "nothing", "weights for a network that stays as it is, or random")
        if source.kind != "helper" or folder != "random":
            _fill_all(source.networks, source.kind, folder, option)
    return network


def load_discriminators(networks: nn.ModuleDict, folder: Path | str, option: str = "model.discriminators_from") -> None:
    """Fill `networks` from the discriminators of an earlier run's weights folder.

    Raises:
        InputError: the folder lacks one of them, or its shape differs.
    """
    _fill_all(networks, "discriminator", folder, option)


def without_sources(model: Any) -> Any:
    """Return the settings without the folders they start from: saved weights carry them, and they may be gone."""
    return model.model_copy(update={name: None for name in type(model).model_fields if name.endswith("_from")})


def _fill_all(networks: nn.ModuleDict, kind: str, folder: Path | str, option: str) -> None:
    if kind == "helper" and (file := tensors_file(folder, option)):
        for network in networks.values():
            fill(network, file, option, partly=True)
        return
    whole = find_weights(folder)  # a comma may be part of a name
    folders = [whole] if whole.exists() else [find_weights(part) for part in str(folder).split(",")]
    # a frozen helper is what another training made as its generator, or carried on as a helper
    kinds = ("helper", "generator") if kind == "helper" else (kind,)
    records = {found: read_record(found, option) for found in folders}
    known = {name: found / f"{k}_{name}.safetensors"
             for k in reversed(kinds) for found, record in records.items() for name in record[f"{k}s"]}  # fmt: skip
    for name, network in networks.items():
        if name not in known:
            has = f"'{folder}' with {kinds[-1]}s {', '.join(sorted(known)) or 'none'}"
            raise InputError(option, has, f"one with '{name}'")
        fill(network, known[name], option)


def _stored(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    stored = {n: (t.to(dtype) if t.is_floating_point() else t).cpu().contiguous().clone() for n, t in tensors.items()}
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError("--dtype", f"'{name}' with numbers that {dtype} does not hold".replace("torch.", ""),
                             "fp32, or weights that are finite")  # fmt: skip
    return stored


def fill(network: nn.Module, path: Path, option: str, partly: bool = False) -> None:
    """Fill `network` from a file; `partly` leaves out what the file has beside it, as a classifier's last layers.

    Raises:
        InputError: no such file, damaged, of another shape, or with numbers that are not finite.
    """
    try:
        tensors = {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
        if partly:
            tensors = {name: tensor for name, tensor in tensors.items() if name in network.state_dict()}
        network.load_state_dict(tensors)
    except FileNotFoundError as error:
        raise InputError(option, f"no file '{path}'", FOLDER) from error
    except (OSError, SafetensorError) as error:
        raise InputError(option, f"'{path}', damaged ({error})", FOLDER) from error
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(option, f"'{path}' of another shape ({first})", "weights of the configured network") from error
    if bad := [name for name, t in tensors.items() if not torch.isfinite(t).all()]:
        raise InputError(option, f"'{path}' whose '{bad[0]}' is infinite or not a number", "weights that are finite")


def _checked_model(record: dict[str, Any], folder: Path | str, option: str) -> Any:
    try:
        return _MODEL.validate_python(record["model"])
    except (ValidationError, KeyError) as error:
        raise InputError(option, f"'{folder}' with model settings that do not fit", FOLDER) from error
