"""Weights folders that describe themselves: config.json beside one safetensors file for each network."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gan_baselines.config import ModelConfig
from gan_baselines.errors import InputError
from gan_baselines.files import replace_folder
from gan_baselines.networks import DcganGenerator

FORMAT = "gan_baselines/1"
_FOLDER = "a weights folder (config.json and *.safetensors) that `gan-baselines train` or `convert` wrote"
SHIPPED = Path(__file__).parent / "shipped"
_MODEL: TypeAdapter[Any] = TypeAdapter(ModelConfig)


@dataclass
class Weights:
    """A read weights folder: what was trained, and its generators by name ("AB", "BA", or "G" for noise)."""

    model: Any
    generators: dict[str, nn.Module]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def multiple(self) -> int:
        """Picture sides the generators take are multiples of this, in px."""
        return self.model.generator.stride

    @property
    def noise_generator(self) -> DcganGenerator:
        """The generator of a noise model."""
        return cast(DcganGenerator, self.generators["G"])


def save_weights(
    folder: Path,
    model: Any,
    generators: dict[str, nn.Module],
    discriminators: dict[str, nn.Module] | None = None,
    *,
    about: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a weights folder, replacing one that is there.

    Raises:
        GanError: the disk is full or the folder not writable.
    """

    def fill(partial: Path) -> None:
        for kind, networks in (("generator", generators), ("discriminator", discriminators or {})):
            for name, network in networks.items():
                save_file(_stored(network.state_dict(), dtype), partial / f"{kind}_{name}.safetensors")
        names = {"generators": sorted(generators), "discriminators": sorted(discriminators or {})}
        record = {"format": FORMAT, "model": model.model_dump(mode="json"), **names, "about": about or {}}
        (partial / "config.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    replace_folder(folder, fill)


def load_weights(folder: Path | str, option: str = "--weights", only: str | None = None) -> Weights:
    """Read the generators of a weights folder (or `only` the one so named), in fp32 on the CPU.

    `folder` may be the name of shipped weights.

    Raises:
        InputError: no such folder, damaged or foreign files, or no generator of that name.
    """
    from gan_baselines.models import build

    folder = find_weights(folder)
    record = read_record(folder, option)
    names = record["generators"]
    if only is not None and only not in names:
        raise InputError(option, f"'{folder}' with generators {', '.join(names)}", f"one with '{only}'")
    model = _checked_model(record, folder, option)
    nets = build(without_sources(model)).generators
    wanted = {name: nets[name] for name in names if name in nets and only in (None, name)}
    for name, network in wanted.items():
        _fill(network, folder / f"generator_{name}.safetensors", option)
    return Weights(model, {name: net.eval() for name, net in wanted.items()}, record.get("about", {}))


def load_discriminators(networks: nn.ModuleDict, folder: Path | str, option: str = "model.discriminators_from") -> None:
    """Fill `networks` from the discriminators of an earlier run's weights folder.

    Raises:
        InputError: the folder lacks one of them, or its shape differs.
    """
    folder = find_weights(folder)
    record = read_record(folder, option)
    for name, network in networks.items():
        if name not in record["discriminators"]:
            found = f"'{folder}' with discriminators {', '.join(record['discriminators']) or 'none'}"
            raise InputError(option, found, f"one with '{name}'")
        _fill(network, folder / f"discriminator_{name}.safetensors", option)


def shipped_names() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def find_weights(folder: Path | str) -> Path:
    """Return `folder`, or where the shipped weights of that name lie. A folder of that name comes first."""
    return SHIPPED / folder if not Path(folder).exists() and str(folder) in shipped_names() else Path(folder)


def read_record(folder: Path | str, option: str = "--weights") -> dict[str, Any]:
    """Read the config.json of a weights folder, or of shipped weights by their name.

    Raises:
        InputError: missing, damaged, or of another format.
    """
    try:
        record = json.loads((find_weights(folder) / "config.json").read_text(encoding="utf-8"))
        known = record["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        if (inside := Path(folder) / "weights" / "config.json").is_file():
            raise InputError(option, f"the run '{folder}'", f"its weights folder '{inside.parent}'") from error
        names = ", ".join(shipped_names())
        allowed = f"{_FOLDER}, or the name of shipped weights: {names}" if names else _FOLDER
        raise InputError(option, f"'{folder}' without a readable config.json", allowed) from error
    if not known:
        raise InputError(option, f"'{folder}' of format '{record['format']}'", FORMAT)
    return record


def without_sources(model: Any) -> Any:
    """Return the settings without the folder they start from: saved weights carry it, and the folder may be gone."""
    return model.model_copy(update={"discriminators_from": None}) if hasattr(model, "discriminators_from") else model


def _stored(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: (t.to(dtype) if t.is_floating_point() else t).cpu().contiguous().clone() for name, t in tensors.items()
    }


def _fill(network: nn.Module, path: Path, option: str) -> None:
    try:
        network.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
        )
    except FileNotFoundError as error:
        raise InputError(option, f"no file '{path}'", _FOLDER) from error
    except (OSError, SafetensorError) as error:
        raise InputError(option, f"'{path}', damaged ({error})", _FOLDER) from error
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(option, f"'{path}' of another shape ({first})", "weights of the configured network") from error


def _checked_model(record: dict[str, Any], folder: Path | str, option: str) -> Any:
    try:
        return _MODEL.validate_python(record["model"])
    except (ValidationError, KeyError) as error:
        raise InputError(option, f"'{folder}' with model settings that do not fit", _FOLDER) from error
