"""The pictures and files that a run reads: how the input is read, and which files a result must not replace."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files import pictures
from freectl.files.paths import at_home
from freectl.pipelines import lora
from freectl.tasks.options import EditOptions, RunOptions

WORDS = ("prompt", "negative_prompt", "source_prompt", "concept", "keep_concept", "method", "preset", "view")
"""Options that name no file, whatever they say."""


def read_input(image: Any, options: EditOptions, *, whole: bool = False) -> pictures.LoadedImage:
    """The picture of an edit; a large one is read reduced unless its own pixels reappear in the result.

    Raises:
        InputError: see `freectl.files.pictures.load_image`.
    """
    whole |= options.keep != "none" or options.keep_background or options.keep_alpha
    return pictures.load_image(image, background=options.background, reduced=not whole)


def input_files(options: RunOptions, settings: Mapping[str, Any], *more: tuple[str, Any]) -> list[tuple[str, Path]]:
    """(option, path) of everything that a run reads: whatever among its options and settings could be a file.

    Args:
        more: options that are no run options, such as the picture and the config file.
    """
    named = [(f"--{name.replace('_', '-')}", value) for name, value in options if name not in WORDS]
    found: list[tuple[str, Path]] = []
    for option, value in [*more, *named, *((f"--set {name}", value) for name, value in settings.items())]:
        for one in _texts(value):
            path = lora.parse(one).path if option == lora.OPTION else at_home(one.partition("=")[2] or one)
            found.append((option, path))
            found += [(option, Path(one))] if "=" in one else []
    return found


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str | Path):
        return [str(value)] if str(value) not in ("", "-") else []
    return [str(one) for one in value if isinstance(one, str | Path)] if isinstance(value, list | tuple) else []


def check_alpha(options: EditOptions, output: Path) -> None:
    """Refuse an output that cannot carry the transparency that is asked for.

    Raises:
        InputError: --keep-alpha with a JPEG.
    """
    if options.keep_alpha and output.suffix.lower() in (".jpg", ".jpeg"):
        raise InputError("--output", f"'{output}', a JPEG, with --keep-alpha", ".png or .webp, which have transparency")
