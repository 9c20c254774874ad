"""`gan-baselines evaluate` and `convert`: weights folders measured, imported, stored anew."""

from pathlib import Path
from typing import Annotated

import typer

from gan_baselines.cli.output import Format, FormatOption, columns, emit
from gan_baselines.cli.weights import SeedOption, ThreadsOption, WeightsOption, direction_of, loaded
from gan_baselines.errors import InputError


def evaluate(
    weights: WeightsOption,
    data: Annotated[Path, typer.Option(help="Data folder; its test split where it has one.")],
    limit: Annotated[int | None, typer.Option(help="Pictures a side at most.", min=2)] = None,
    samples: Annotated[int, typer.Option(help="Answers to each picture, for models that have several.", min=1)] = 1,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    form: FormatOption = Format.human,
) -> None:
    """Measure weights on pictures, beside the identity and mean-picture baselines."""
    from gan_baselines.evaluate import evaluate as measure
    from gan_baselines.evaluate import table

    report = measure(loaded(weights, threads), data, limit=limit, seed=seed, samples=samples)
    text = f"kid {report['kid']:.5f}" if "kid" in report else columns(table(report))
    emit({"weights": str(weights), "data": str(data), **report}, f"{text}\nKID with a {report['kid_network']}", form)


def convert(
    source: Annotated[Path, typer.Option("--input", help="A legacy generator (.pth), or a weights folder.")],
    out: Annotated[Path, typer.Option(help="Weights folder to write.")],
    dtype: Annotated[str, typer.Option(help="fp32 or fp16: how numbers are stored.")] = "fp32",
    direction: Annotated[str, typer.Option(help="AB or BA: what a legacy generator translates.")] = "AB",
    dropout: Annotated[
        bool | None,
        typer.Option("--dropout/--no-dropout", help="Whether a legacy U-Net was trained with it.", show_default=False),
    ] = None,
    form: FormatOption = Format.human,
) -> None:
    """Import a legacy generator, or store the generators of a weights folder anew (without discriminators)."""
    from gan_baselines.errors import unknown
    from gan_baselines.files import check_new

    for option, value, allowed in (("--dtype", dtype, ("fp16", "fp32")), ("--direction", direction, ("AB", "BA"))):
        if value not in allowed:
            raise unknown(option, value, allowed)
    check_new(out)
    if out.resolve() == Path.cwd():  # it is replaced, and a shell in it would stay in the old one
        raise InputError("--out", "the working folder", "another new or empty folder")
    import torch

    from gan_baselines.legacy import read_legacy
    from gan_baselines.weights import find_weights, load_weights, save_weights

    source = find_weights(source)
    if source.is_dir():
        stored = load_weights(source, "--input")
        model, nets, about = stored.model, stored.generators, stored.about
        helpers = {name: stored.network.helpers[name] for name in stored.network.carried} if stored.network else {}
        ways: list[str] | None = sorted(stored.translators)
    else:
        model, network = read_legacy(source, dropout=dropout)
        nets, about = {direction_of(direction, ["AB"] if model.name == "pix2pix" else ["AB", "BA"]): network}, {}
        helpers, ways = {}, None
    save_weights(
        out,
        model,
        nets,
        helpers=helpers,
        translators=ways,
        about=about,
        dtype=torch.float16 if dtype == "fp16" else torch.float32,
    )
    report = {"out": str(out), "model": model.name, "generators": sorted(nets), "dtype": dtype}
    emit(report, f"{model.name} generator{'s' if len(nets) > 1 else ''} {', '.join(sorted(nets))} in {out}", form)
