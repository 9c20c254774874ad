"""What the commands on weights folders share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gan_baselines.errors import GanError, InputError

if TYPE_CHECKING:
    from gan_baselines.weights import Weights

WeightsOption = Annotated[
    Path, typer.Option(help="Weights folder, as a training writes it, or the name of shipped weights.")
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads.  [default: all cores]", min=1)]
SeedOption = Annotated[int, typer.Option(help="Of noise and dropout.", min=0, max=2**31 - 1)]


def direction_of(asked: str | None, known: list[str]) -> str:
    """The direction asked for, else AB, else the only one.

    Raises:
        InputError: not one of `known`, or none is known.
    """
    if not known:
        raise InputError(
            "--weights", "a model that starts from noise", "weights that translate, as pix2pix or cyclegan"
        )
    if asked is None:
        return "AB" if "AB" in known else known[0]
    if asked not in known:
        raise InputError("--direction", f"'{asked}'", ", ".join(known))
    return asked


def loaded(weights: Path, threads: int | None, only: str | None = None) -> "Weights":
    """The weights, on as many threads."""
    from gan_baselines.training.device import set_threads
    from gan_baselines.weights import load_weights

    set_threads(threads)
    return load_weights(weights, only=only)


def made_folder(folder: Path) -> None:
    """Make the folder for results.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--output", f"'{folder}' ({error.strerror})", "a folder that can be written") from error
    if not folder.is_dir():
        raise GanError(f"'{folder}' is not a folder")
