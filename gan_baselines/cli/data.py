"""`gan-baselines data`: make and check folders of pictures."""

from pathlib import Path
from typing import Annotated

import typer

from gan_baselines.cli.output import Format, FormatOption, emit

app = typer.Typer(
    help="""Make and check folders of pictures.

    Unpaired: trainA/ trainB/ testA/ testB/. Paired: train/A train/B test/A test/B with equal names, or train/ test/
    with side-by-side sheets (A left, B right). One collection: train/, pictures/ or the folder itself.

    Labelled: train/labels train/pictures, and train/instances where there are any. Captioned: train/ with pictures and
    metadata.jsonl. Classed: a folder for each class in train/; test/ likewise.""",
    no_args_is_help=True,
)


@app.command()
def split(
    source: Annotated[Path, typer.Option("--input", help="Folder of sheets, or with train/ and test/ of sheets.")],
    out: Annotated[Path, typer.Option(help="New folder for {train,test}/{A,B}.")],
    swap: Annotated[bool, typer.Option("--swap", help="The left half is B.")] = False,
    form: FormatOption = Format.human,
) -> None:
    """Cut side-by-side sheets into pairs."""
    from gan_baselines.data.prepare import split_sheets

    counts = split_sheets(source, out, swap=swap)
    emit({"out": str(out), "pairs": counts}, ", ".join(f"{n} {name} pairs" for name, n in counts.items()), form)


@app.command()
def scenes(
    source: Annotated[Path, typer.Option("--scenes", help="Folder of paired scenes with scenes.jsonl.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    layout: Annotated[str, typer.Option(help="paired, unpaired, labelled, captioned or classed.")] = "paired",
    test_objects: Annotated[str | None, typer.Option(help="Comma-separated objects kept for the test.")] = None,
    test_share: Annotated[
        float, typer.Option(help="Share of objects (or scenes) drawn for the test.", min=0.01, max=0.99)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Of that draw.", min=0)] = 0,
    form: FormatOption = Format.human,
) -> None:
    """Arrange scenes for training and test.

    Paired, unpaired: the objects of the test never occur in training. Labelled, captioned, classed: a share of the
    scenes is the test, or all of --test-objects.
    """
    from gan_baselines.data.scenes import from_scenes

    kind = _layout(layout, ("paired", "unpaired", "labelled", "captioned", "classed"))
    names = [name.strip() for name in test_objects.split(",")] if test_objects else None
    report = from_scenes(source, out, kind, test_objects=names, share=test_share, seed=seed)  # type: ignore[arg-type]
    text = "\n".join(f"{n} pictures in {folder}" for folder, n in report["pictures"].items())
    objects = f"\ntest objects: {', '.join(report['test_objects'])}" if report["test_objects"] else ""
    emit({"out": str(out), **report}, text + objects, form)


@app.command()
def check(
    data: Annotated[Path, typer.Option(help="Folder to check.")],
    layout: Annotated[str, typer.Option(help="single, paired, unpaired, labelled, captioned or classed.")],
    form: FormatOption = Format.human,
) -> None:
    """Decode every picture and report counts and sizes; the first fault ends with exit code 2."""
    from gan_baselines.data.prepare import check_folder

    report = check_folder(data, _layout(layout, ("single", "paired", "unpaired", "labelled", "captioned", "classed")))  # type: ignore[arg-type]
    sides = [(s, side, v) for s in ("train", "test") for side, v in report.get(s, {}).items() if isinstance(v, dict)]
    lines = [f"{s} {side}: {v['pictures']} pictures of {v['size'][0]}x{v['size'][1]} px" for s, side, v in sides]
    emit({"data": str(data), **report}, "\n".join(lines), form)


def _layout(name: str, allowed: tuple[str, ...]) -> str:
    from gan_baselines.errors import unknown

    if name not in allowed:
        raise unknown("--layout", name, allowed)
    return name
