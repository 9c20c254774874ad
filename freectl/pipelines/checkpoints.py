"""What a model is, found out before its weights are read: layout, pipeline class, family, source of configuration."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files import tensor_files
from freectl.pipelines import refused
from freectl.pipelines.accounts import missing_in_single_file, some, unused_of_single_file, without_weights
from freectl.pipelines.parts import MAKING, parts_of

ALLOWED = "Stable Diffusion 1.x, 2.x, XL or 3.x, FLUX, Chroma, PixArt-Sigma, Qwen-Image or Z-Image"
_UNET = "model.diffusion_model."
_TEXT = ("cond_stage_model.", "conditioner.embedders.", "text_encoders.")
_VAE = "first_stage_model."
_BLOCKS = ("double_blocks.0.", "transformer_blocks.0.", "layers.0.adaLN_modulation.")
_OTHERS = (_VAE, "vae.", *_TEXT)


def check_folder(folder: Path, model: str, without: Sequence[str] = ()) -> None:
    """Refuse folders of other kinds of model and folders that are not whole, by index and headers alone.

    Args:
        without: parts that need not be there.

    Raises:
        InputError: no readable model_index.json, no UNet in it, or a part that `parts_of` refuses.
    """
    path = folder / "model_index.json"
    if not path.exists():
        _check_modular(folder, model)
        raise InputError("--model", f"folder '{model}' without model_index.json", f"a folder of {ALLOWED}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        kind = index.get("_class_name")
    except (OSError, ValueError, AttributeError, RecursionError):
        raise InputError(
            "--model", f"folder '{model}' whose model_index.json is damaged", f"a folder of {ALLOWED}"
        ) from None
    _network(index, f"folder '{model}' of a {kind}")
    parts_of(folder, {name: entry for name, entry in index.items() if name not in without}, model)


def check_file(path: Path, model: str) -> None:
    """Refuse files that are no whole checkpoint, by their header alone.

    Raises:
        InputError: damaged, a LoRA, or without UNet, VAE or text encoder.
    """
    shapes = tensor_files.checked(path, "--model", f"file '{model}'", f"a whole safetensors file of {ALLOWED}")
    if any("lora" in name for name in shapes):
        raise InputError("--model", f"file '{model}', a LoRA", f"a file of {ALLOWED}; a LoRA goes to --lora")
    needed = {"UNet": (_UNET,), "VAE": (_VAE,), "text encoder": _TEXT}
    missing = [what for what, prefixes in needed.items() if not any(name.startswith(prefixes) for name in shapes)]
    if missing:
        refused.check_kind(shapes, f"file '{model}'", ALLOWED)
        if transformer_alone(shapes):
            return
        allowed = f"a whole checkpoint of {ALLOWED} in its original layout, or a folder"
        raise InputError("--model", f"file '{model}' without {', '.join(missing)}", allowed)


def transformer_alone(names: Iterable[str]) -> bool:
    """Whether a file's tensors are those of a transformer and of no other part, as most files of such models are."""
    bare = [without_prefix(name) for name in names]
    return any(name.startswith(_BLOCKS) for name in bare) and not any(name.startswith(_OTHERS) for name in bare)


def without_prefix(name: str) -> str:
    """The name of a transformer's tensor without what some files put in front of all."""
    return name.removeprefix(_UNET)


def configuration(path: Path | str) -> str:
    """Where a single file's configuration and tokenizer are: the folder of its name beside it, else a hub id.

    Raises:
        InputError: the file holds no model of a supported family.
    """
    beside = Path(path).with_suffix("")
    if (beside / "model_index.json").exists():
        return str(beside)
    from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS

    from freectl.models import families

    held = tensor_files.shapes(path)
    kind = refused.check_kind(held, f"file '{path}'", ALLOWED)
    made = next((family for family in families.FAMILIES if kind in family.single_files), None)
    if transformer_alone(held) and (made is None or made.component != "transformer"):
        found = f"file '{path}', a transformer alone whose layout does not say of which model"
        raise InputError("--model", found, f"one beside a folder '{beside}' with the other parts of its pipeline")
    if made is None:
        raise InputError("--model", f"file '{path}' of kind '{kind}'", ALLOWED)
    return DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]


def snapshot(hub_id: str) -> Path | None:
    """The folder of the hub's local cache in which a model's index lies, if it was fetched."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None


def lacking(path: Path | str, location: str) -> list[str]:
    """Weights of UNet and VAE that a single file does not hold, by its header and their configuration alone."""
    import diffusers
    from accelerate import init_empty_weights

    parts = {}
    for name, cls in (("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL)):
        with MAKING, init_empty_weights():
            parts[name] = cls.from_config(cls.load_config(location, subfolder=name))
    return missing_in_single_file(parts, tensor_files.shapes(path))


def with_own_schedule(pipe: Any, path: Path | str) -> None:
    """Give a pipeline from a single file the prediction type and schedule that the file itself declares.

    Trainers mark v prediction and zero terminal SNR by empty tensors "v_pred" and "ztsnr", or name the prediction type
    in the metadata ("modelspec.prediction_type", https://github.com/Stability-AI/ModelSpec); the configuration that is
    guessed for the file's layout knows neither.
    """
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        names, metadata = set(file.keys()), file.metadata() or {}
    told = {"v": "v_prediction", "epsilon": "epsilon"}.get(metadata.get("modelspec.prediction_type", ""))
    changes: dict[str, Any] = {} if told is None else {"prediction_type": told}
    if "v_pred" in names:
        changes["prediction_type"] = "v_prediction"
    if "ztsnr" in names:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if changes:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **changes)


def family_of(location: str, name: str) -> Any:
    """The model family of a folder or hub id, by its configuration alone.

    Args:
        name: of the model, as the user gave it.

    Raises:
        InputError: its network is of no family that is known, or it has none.
        OSError: the configuration cannot be read.
    """
    import diffusers
    from accelerate import init_empty_weights

    from freectl.models import families

    index = diffusers.DiffusionPipeline.load_config(location)
    kind = _network(index, f"'{name}', a {index.get('_class_name')}")
    cls = getattr(diffusers, kind)
    config = cls.load_config(location, subfolder=families.networks()[kind])
    with MAKING, init_empty_weights():
        return families.of(cls.from_config(config), index)


def few_steps(location: str, family: Any) -> bool:
    """Whether a folder or hub id is distilled to a few steps, by its configuration alone; raises as `family_of`."""
    import diffusers

    index = diffusers.DiffusionPipeline.load_config(location)
    scheduler = getattr(diffusers, index["scheduler"][1])
    return family.few_steps(index, scheduler.load_config(location, subfolder="scheduler"))


def pipeline_class(location: str, name: str) -> Any:
    """The pipeline class of a folder or hub id, which its model family names; as `family_of`."""
    module, _, attribute = family_of(location, name).pipeline.partition(":")
    return getattr(import_module(module), attribute)


def check_complete(pipe: Any, name: str) -> None:
    """Every weight of a loaded pipeline came from its files.

    Raises:
        InputError: some did not.
    """
    missing = without_weights(pipe)
    if missing:
        found = f"'{name}' whose files lack {some(missing)}, of its weights"
        raise InputError("--model", found, "files with all weights of their configuration")


def unused_weights(pipe: Any, path: Path | str) -> tuple[str, ...]:
    """A note where a single file holds weights that the pipeline made of it does not use."""
    unused = unused_of_single_file(pipe, tensor_files.shapes(path))
    return (f"the file holds {len(unused)} tensors that the model does not use: {some(unused)}",) if unused else ()


def _network(index: dict[str, Any], found: str) -> str:
    """Class of the denoising network of a folder with this index."""
    from freectl.models import families

    refused.check_name(index.get("_class_name"), found, ALLOWED)
    for kind, component in families.networks().items():
        entry = index.get(component)
        if isinstance(entry, list | tuple) and kind in entry:
            return kind
    names = [index[name] for name in ("transformer", "unet") if isinstance(index.get(name), list | tuple)]
    network = next((str(name[1])[:100] for name in names if len(name) > 1), None)
    said = found if network is None else f"{found}, whose network, a {network}, is none that freectl opens"
    raise InputError("--model", said, f"a model of {ALLOWED}")


def _check_modular(folder: Path, model: str) -> None:
    """Refuse a folder of modular blocks, by its index alone."""
    path = folder / "modular_model_index.json"
    if not path.exists():
        return
    kind = None
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        index = json.loads(path.read_text(encoding="utf-8"))
        kind = index.get("_blocks_class_name") or index.get("_class_name")
    refused.check_name(kind, f"folder '{model}' of a {kind}", ALLOWED)
    found = f"folder '{model}' of modular blocks, which may be code of its own"
    raise InputError("--model", found, f"a folder with a model_index.json of {ALLOWED}")
