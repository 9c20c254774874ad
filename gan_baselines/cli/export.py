"""`gan-baselines export`: weights as ONNX files."""

from pathlib import Path
from typing import Annotated

import typer

from gan_baselines.cli.output import Format, FormatOption, emit
from gan_baselines.cli.weights import ThreadsOption, WeightsOption, loaded
from gan_baselines.errors import InputError


def export(
    weights: WeightsOption,
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty: a file a direction, or sample.onnx.")],
    size: Annotated[
        int | None, typer.Option(help="Side of the pictures that go in, px.  [default: the model's, else 256]", min=1)
    ] = None,
    threads: ThreadsOption = None,
    form: FormatOption = Format.human,
) -> None:
    """Write generators as ONNX, for runtimes without PyTorch, each compared with PyTorch by running it."""
    from gan_baselines.files import check_new
    from gan_baselines.record import read_record

    check_new(out)
    if out.resolve() == Path.cwd():
        raise InputError("--out", "the working folder", "another new or empty folder")
    read_record(weights)
    from gan_baselines.portable import check_packages, export_onnx

    check_packages()
    told = export_onnx(loaded(weights, threads), out, size)
    lines = [f"{out / name}: {', '.join(f'{one} {shape}' for one, shape in about['inputs'].items())}"
             for name, about in told.items()]  # fmt: skip
    emit({"out": str(out), "files": told}, "\n".join(lines), form)
