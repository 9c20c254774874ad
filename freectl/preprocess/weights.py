"""Models of the preprocessors: from a folder or a hub id, safetensors only."""

from collections.abc import Callable
from typing import Any

from PIL import Image

from freectl.errors import FreectlError, InputError
from freectl.files import tensor_files
from freectl.files.paths import at_home, is_file, is_folder
from freectl.pipelines.loading import HUB_ID
from freectl.pipelines.parts import MAKING
from freectl.preprocess.registry import OPTION, Preprocess

MAX_SIDE = 1024
"""Pictures are made this small (px, longer side) first: the models look at 384 to 640 px."""


def check_model(preprocess: Preprocess, name: str = "model") -> None:
    """A folder with a config.json, whose weights are whole, or something that can be a hub id.

    Raises:
        InputError: neither.
    """
    given = preprocess.values[name]
    folder = at_home(given)
    fits = is_file(folder / "config.json") if is_folder(folder) else bool(HUB_ID.fullmatch(given))
    if not fits or (given.startswith(".") and not is_folder(folder)):
        default = preprocess.kind.values[name]
        allowed = f"a folder with config.json and model.safetensors, or a hub id such as {default}"
        raise InputError(f"{OPTION} {preprocess.kind.form}", f"{name} '{given}'", allowed)
    if is_folder(folder):
        tensor_files.check_folder(folder, f"{OPTION} {preprocess.kind.name}={given}")


def load(preprocess: Preprocess, model_class: Any, device: str, name: str = "model") -> tuple[Any, Any]:
    """Model and image processor of a preprocessor; see `load_model`."""
    given, kind = preprocess.values[name], preprocess.kind.name
    skipped = "," * list(preprocess.kind.values).index(name)
    return load_model(given, model_class, device, kind, f"{OPTION} {kind}={given}", f"{OPTION} {kind}={skipped}DIR")


def load_model(given: str, model_class: Any, device: str, purpose: str, label: str, instead: str) -> tuple[Any, Any]:
    """Model (in eval mode) and image processor of transformers. The processor's Pillow form is taken: equal everywhere.

    Args:
        given: a folder or a hub id. purpose: what the model is for, label: what was asked for, instead: the option with
            a folder in its place; for messages.

    Raises:
        InputError: not a model of this kind, or not whole.
        FreectlError: not here and not to be had.
    """
    from transformers import AutoImageProcessor

    source = str(at_home(given))
    folder = is_folder(source)
    try:
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
        with MAKING:
            model = model_class.from_pretrained(source, use_safetensors=True)
    except OSError as error:
        if folder:
            found = f"a folder that cannot be loaded from safetensors ({_first_line(error)})"
            raise InputError(label, found, f"a model for {purpose} with its image processor") from error
        raise FreectlError(
            f"{label}: its weights are not on this machine and cannot be fetched: connect once with "
            f"`hf download {given}`, or name a folder: {instead} ({_first_line(error)})"
        ) from error
    except (ValueError, KeyError, RuntimeError, ImportError) as error:
        found = f"what is not a model for {purpose} ({_first_line(error)})"
        raise InputError(label, found, f"a model for {purpose}, safetensors") from error
    return model.eval().to(device), processor


def small(apply: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], Image.Image]:
    """`apply` on pictures of at most `MAX_SIDE`."""

    def run(image: Image.Image) -> Image.Image:
        scale = MAX_SIDE / max(image.size)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        return apply(image.convert("RGB"))

    return run


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
