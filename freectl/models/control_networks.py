"""Trained control networks of diffusers: where one is, whether it fits a model, and how it is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers

from freectl.errors import FreectlError, InputError
from freectl.files import tensor_files
from freectl.files.paths import at_home, is_file, is_folder
from freectl.models.families.base import Family

OPTION = "--controlnet"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_ALLOWED = (
    "a folder or a .safetensors file in diffusers' layout, or a hub id such as lllyasviel/control_v11p_sd15_canny"
)
_SAME = (
    "in_channels",
    "cross_attention_dim",
    "block_out_channels",
    "joint_attention_dim",
    "patch_size",
    "pooled_projection_dim",
    "num_attention_heads",
)
"""Entries of the configuration that a ControlNet has in common with its model."""


@dataclass(frozen=True)
class Place:
    """Where a control network is: a folder, a file with its configuration beside it (None: its layout tells), a hub id.

    Attributes:
        config: folder of config.json, or None.
    """

    kind: Literal["folder", "file", "hub"]
    path: str
    config: Path | None = None

    def configuration(self) -> dict[str, Any]:
        """What its config.json says; empty where it has to be fetched first.

        Raises:
            InputError: it cannot be read.
        """
        if self.config is None:
            return {}
        try:
            return dict(json.loads((self.config / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            raise InputError(OPTION, f"'{self.path}' whose config.json is damaged", _ALLOWED) from None


def located(given: str | None, kind: str, model: str | None) -> Place:
    """Where the control network is; of its weights the headers are read.

    Args:
        given: folder, .safetensors file or hub id; None = the folder named after `kind` in the model's.
        kind: "controlnet" or "t2i-adapter". model: the model's folder, where it has one.

    Raises:
        InputError: pickled, damaged, no network there, or nothing that exists or could.
    """
    if given is None:
        folder = Path(model or "") / kind
        if model is None or not is_file(folder / "config.json"):
            raise InputError(OPTION, f"nothing, and no {kind}/config.json in the model's folder", _ALLOWED)
        tensor_files.check_folder(folder, OPTION)
        return Place("folder", str(folder), folder)
    path = at_home(given)
    if path.suffix.lower() in PICKLED:
        raise InputError(OPTION, f"'{given}', a pickled checkpoint, which can run any code", "safetensors only")
    if is_folder(path):
        if not is_file(path / "config.json"):
            raise InputError(OPTION, f"folder '{given}' without config.json", _ALLOWED)
        tensor_files.check_folder(path, OPTION)
        return Place("folder", str(path), path)
    if is_file(path) and path.suffix.lower() == ".safetensors":
        tensor_files.checked(path, OPTION)
        beside = (path.with_suffix(""), path.parent)
        return Place("file", str(path), next((one for one in beside if is_file(one / "config.json")), None))
    named = given.count("/") == 1 and not given.startswith((".", "/", "~")) and path.suffix != ".safetensors"
    if is_file(path) or not named:
        raise InputError(OPTION, f"'{given}', which is no such folder or file", _ALLOWED)
    return Place("hub", given)


def check_fits(place: Place, kind: str, family: Family, network: Mapping[str, Any] | None) -> None:
    """Whether diffusers runs such a network with a model of the family, and this one with this model.

    Args:
        network: configuration of the model's denoising network, or None where it is not known yet.

    Raises:
        InputError: it does not.
    """
    wanted = family.control_networks.get(kind)
    if wanted is None:
        raise InputError("--method", f"{kind} on a {family.name} model, for which none is loaded here", "another")
    config = place.configuration()
    if config and (found := config.get("_class_name")) != wanted:
        raise InputError(OPTION, f"'{place.path}', a {found}", f"a {wanted}, which {kind} is on {family.name} models")
    if config.get("global_pool_conditions"):
        raise InputError(OPTION, f"'{place.path}', which reads a picture as a whole", "a network of conditions")
    if config and network is not None:
        _check_shapes(place, config, network)


def _check_shapes(place: Place, config: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, list | tuple) else value

    for name in () if "adapter_type" in config else _SAME:  # an adapter's own inputs are pictures
        if name == "patch_size" and config.get("conditioning_embedding_channels"):
            continue  # of the pixels that such a network of FLUX reads, not of latents
        own, other = plain(config.get(name)), plain(network.get(name))
        if own is not None and other is not None and own != other:
            raise InputError(OPTION, f"'{place.path}' of another model: {name} {own}", f"{name} {other}")
    odd = set(config.get("channels") or ()) - set(network.get("block_out_channels") or config.get("channels") or ())
    if odd:
        allowed = f"channels {plain(network['block_out_channels'])}"
        raise InputError(OPTION, f"'{place.path}' of another model: channels {plain(config['channels'])}", allowed)


def loaded(place: Place, kind: str, family: Family, network: Any) -> Any:
    """The control network beside a loaded denoising network: its dtype, its device, evaluating.

    Raises:
        InputError: as `check_fits`.
        FreectlError: it cannot be read, or lacks weights.
    """
    check_fits(place, kind, family, network.config)
    cls = getattr(diffusers, family.control_networks[kind])
    try:
        made = _read(place, cls, network.dtype)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        hint = f"; fetch it once with `hf download {place.path}`" if place.kind == "hub" else ""
        raise FreectlError(f"{OPTION} {place.path}: cannot be loaded as a {cls.__name__}{hint} ({first})") from error
    if not isinstance(made, cls):
        raise FreectlError(f"{OPTION} {place.path}: a {type(made).__name__}; allowed: a {cls.__name__}")
    _check_shapes(place, made.config, network.config)
    if made.config.get("use_pos_embed") is False:  # Stable Diffusion 3.5 large's take the model's own
        made.pos_embed = made._get_pos_embed_from_transformer(network).to(made.dtype)
    return made.to(network.device).eval().requires_grad_(False)


def _read(place: Place, cls: Any, dtype: Any) -> Any:
    if place.kind == "file":
        return _of_file(place, cls, dtype)
    made, account = cls.from_pretrained(
        place.path, use_safetensors=True, dtype=dtype, output_loading_info=True, low_cpu_mem_usage=False
    )
    if missing := sorted([*account["missing_keys"], *map(str, account["mismatched_keys"])]):
        raise ValueError(f"its file lacks {', '.join(missing[:3])}, of its weights")
    return made


def _of_file(place: Place, cls: Any, dtype: Any) -> Any:
    """In diffusers' names by the configuration beside it, else as diffusers reads single files of other layouts."""
    from safetensors.torch import load_file

    if place.config is not None:
        made, weights = cls.from_config(place.configuration()), load_file(place.path)
        if set(weights) == set(made.state_dict()):
            made.load_state_dict(weights)
            return made.to(dtype=dtype)
    if not hasattr(cls, "from_single_file"):
        raise ValueError("weights of other names than its config.json, or no config.json beside it")
    options = {} if place.config is None else {"config": str(place.config)}
    return cls.from_single_file(place.path, torch_dtype=dtype, **options)
