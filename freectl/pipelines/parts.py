"""The parts that a model folder names: checked by their headers alone, then loaded with an account of every weight."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import RLock
from typing import Any

from freectl.errors import InputError
from freectl.files import tensor_files
from freectl.pipelines.accounts import some

LIBRARIES = {"diffusers": "diffusers", "transformers": "transformers"}
CHECKER = ("stable_diffusion", "StableDiffusionSafetyChecker")
_NEEDED = {
    "Scheduler": (("scheduler_config.json",),),
    "Tokenizer": (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",)),
    "TokenizerFast": (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",)),
    "Processor": (("preprocessor_config.json",), ("processor_config.json",)),
    "Extractor": (("preprocessor_config.json",),),
}
"""Files of what has no weights, by the end of its class name; one of these sets."""
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
MAKING = RLock()
"""Held while networks are loaded or made empty. accelerate's `init_empty_weights`, which diffusers' loaders use too,
swaps a function of torch for the whole process; two threads at once leave it swapped, and no network has weights any
more."""
_STEMS = ("diffusion_pytorch_model", "model")


@dataclass(frozen=True)
class Part:
    """A component of a folder: `library` and `kind` of its class, and the `variant` of its files ("fp16") or None."""

    name: str
    library: str
    kind: str
    weights: bool
    variant: str | None = None


def parts_of(folder: Path, index: dict[str, Any], model: str) -> list[Part]:
    """The parts that an index names, each there and whole by its header.

    Args:
        model: what the user called it.

    Raises:
        InputError: code of others, a part that is missing, pickled or damaged.
    """
    found = []
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list | tuple) or not any(entry):
            continue
        library, kind = _class_of(name, entry, model)
        needed = next((sets for end, sets in _NEEDED.items() if kind.endswith(end)), None)
        at = folder / name
        if not at.is_dir():
            allowed = "the whole folder, or [null, null] in the index where the model does without"
            raise InputError("--model", f"'{model}' without '{name}', which its model_index.json names", allowed)
        if needed is None:
            found.append(Part(name, library, kind, True, _checked_weights(at, f"'{model}'")))
            continue
        if not any(all((at / file).is_file() for file in files) for files in needed):
            files = " or ".join(" and ".join(one) for one in needed)
            raise InputError("--model", f"'{model}' whose {name}/ lacks its files", f"a folder with {files} there")
        found.append(Part(name, library, kind, False))
    return found


def load_parts(folder: str, parts: list[Part], dtype: Any) -> tuple[dict[str, Any], list[str]]:
    """The networks of a folder, and what in their files was not used.

    Raises:
        InputError: a network's file lacks some of its weights, which would be random then.
    """
    made, notes = {}, []
    for part in parts:
        if not part.weights:
            continue
        options = {"subfolder": part.name, "use_safetensors": True, "variant": part.variant, "dtype": dtype}
        network, account = _class(part).from_pretrained(folder, output_loading_info=True, **options)
        missing = sorted([*account["missing_keys"], *map(str, account["mismatched_keys"])])
        if missing:
            found = f"'{folder}' whose file of {part.name} lacks {some(missing)}, of its weights"
            raise InputError("--model", found, "files with all weights of their configuration")
        unused = sorted(key for key in account["unexpected_keys"] if not key.endswith("position_ids"))
        if unused:
            notes.append(f"the file of {part.name} holds weights that its class does not use: {some(unused)}")
        made[part.name] = network
        remember(network, Path(folder) / part.name, part.variant)
    return made, notes


def remembered(load: Callable[..., Any], model: Any, given: dict[str, Any]) -> Any:
    """A pipeline loaded from a folder or hub id with the arguments `given`, its networks known by their files."""
    from torch import nn

    with MAKING:
        pipe = load(model, **given)
    if given.get("use_safetensors") is not False and given.get("quantization_config") is None:
        for name, part in pipe.components.items():
            if isinstance(part, nn.Module) and name not in given:
                remember(part, Path(part.config._name_or_path), given.get("variant"))  # type: ignore[union-attr, arg-type]
    return pipe


def remember(network: Any, at: Path, variant: str | None) -> None:
    """Say that a network just loaded is what its folder's files hold; where there are no such files nothing is said."""
    from freectl.models import fingerprint

    path = dict(_variants(at)).get(variant)
    if path is not None:
        with suppress(InputError):
            fingerprint.from_files(network, _files(path, f"'{at}'"))


def _class_of(name: str, entry: Any, model: str) -> tuple[str, str]:
    allowed = "classes of diffusers and transformers: a model's own code is not run"
    if len(entry) != 2 or not all(isinstance(text, str) and text for text in entry):
        raise InputError("--model", f"'{model}' whose '{name}' is {entry!r}"[:200], allowed)
    library, kind = entry
    if (library not in LIBRARIES and (library, kind) != CHECKER) or not kind.isidentifier():
        raise InputError("--model", f"'{model}' whose '{name}' is '{library}.{kind}'"[:200], allowed)
    return library, kind


def _class(part: Part) -> Any:
    module = LIBRARIES.get(part.library, "diffusers.pipelines.stable_diffusion.safety_checker")
    return getattr(import_module(module), part.kind)


def _checked_weights(at: Path, model: str) -> str | None:
    """The variant of a network's files, None for the plain ones.

    Raises:
        InputError: there are none, only pickled ones, or damaged ones.
    """
    config = at / "config.json"
    if not config.is_file():
        raise InputError("--model", f"{model} whose {at.name}/ has no config.json", "a whole folder")
    variants = dict(_variants(at))
    if not variants:
        pickled = next((file.name for file in sorted(at.iterdir()) if file.suffix.lower() in _PICKLED), None)
        if pickled is not None:
            found = f"{model} whose {at.name}/ holds only pickled weights ({pickled}), which can run any code"
            raise InputError("--model", found, "safetensors only")
        raise InputError("--model", f"{model} whose {at.name}/ has no weights", "a .safetensors file there")
    variant = None if None in variants else min(str(name) for name in variants)
    for file in _files(variants[variant], model):
        tensor_files.checked(file, "--model", f"{model} whose {at.name}/{file.name}")
    return variant


def _variants(at: Path) -> Iterator[tuple[str | None, Path]]:
    """(variant, file or index of shards) of each set of weights in a part's folder."""
    for stem in _STEMS:
        for ending in (".safetensors", ".safetensors.index.json"):
            for file in at.glob(f"{stem}*{ending}"):
                middle = file.name.removeprefix(stem).removesuffix(ending)
                middle = middle.removeprefix(".")
                if "-of-" not in middle and not middle.startswith("_"):
                    yield middle or None, file
    # diffusers writes the variant of an index between its endings
    for file in at.glob("*.safetensors.index.*.json"):
        yield file.name.split(".safetensors.index.")[1].removesuffix(".json"), file


def _files(path: Path, model: str) -> list[Path]:
    if path.suffix != ".json":
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [path.parent / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError("--model", f"{model} whose {path.parent.name}/{path.name} is damaged", "a whole one") from None
    pickled = [file.name for file in files if file.suffix.lower() in _PICKLED]
    missing = [file.name for file in files if not file.is_file()]
    if pickled or missing:
        said = f"names pickled weights ({pickled[0]})" if pickled else f"names {missing[0]}, which is not there"
        raise InputError("--model", f"{model} whose {path.parent.name}/{path.name} {said}", "all shards, safetensors")
    return files
