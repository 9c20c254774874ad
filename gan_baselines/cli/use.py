"""`gan-baselines translate`, `sample`, `evaluate`, `convert`: commands on weights folders."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gan_baselines.cli.output import Format, FormatOption, columns, emit
from gan_baselines.errors import GanError, InputError

if TYPE_CHECKING:
    from gan_baselines.weights import Weights

WeightsOption = Annotated[
    Path, typer.Option(help="Weights folder, as a training writes it, or the name of shipped weights.")
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads.  [default: all cores]", min=1)]
SeedOption = Annotated[int, typer.Option(help="Of noise and dropout.", min=0, max=2**31 - 1)]


def translate(
    weights: WeightsOption,
    source: Annotated[Path, typer.Option("--input", help="A picture or a folder of pictures.")],
    output: Annotated[Path, typer.Option(help="Folder for the PNG files; created.")],
    direction: Annotated[str | None, typer.Option(help="AB or BA.  [default: AB, or the only one]")] = None,
    dropout: Annotated[bool, typer.Option(help="Keep dropout on, which is Pix2Pix's noise.")] = True,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    form: FormatOption = Format.human,
) -> None:
    """Translate pictures of any size; each keeps its size and, but for the ending, its name."""
    from gan_baselines.data import pictures
    from gan_baselines.weights import read_record

    files = [source] if not source.is_dir() else pictures.picture_files(source, "--input")
    pictures.by_stem(files, "--input")
    if output.exists() and (source if source.is_dir() else source.parent).resolve() == output.resolve():
        raise InputError("--output", f"'{output}', where the input lies", "another folder")
    record = read_record(weights)
    chosen = _direction(direction, record["translators"])
    for path in files:  # all of them before the first is written: decoding costs little beside a network
        pictures.read_picture(path, "--input")
    loaded = _load(weights, threads, only=chosen)

    from gan_baselines import inference

    _make(output)
    started = time.perf_counter()
    for path in files:
        picture = pictures.to_range(pictures.to_tensor(pictures.read_picture(path, "--input")))
        net = loaded.translators[chosen]
        made = inference.translate(net, picture, loaded.multiple, dropout=dropout, seed=seed)
        pictures.save_image(pictures.to_image(made), output / f"{path.stem}.png")
    seconds = round(time.perf_counter() - started, 3)
    value = {"output": str(output), "direction": chosen, "pictures": len(files), "seconds": seconds}
    emit(value, f"{len(files)} pictures in {output}, {seconds} s", form)


def sample(
    weights: WeightsOption,
    output: Annotated[Path, typer.Option(help="Folder for the PNG files; created.")],
    count: Annotated[int, typer.Option(help="Pictures.", min=1, max=1_000_000)] = 16,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    form: FormatOption = Format.human,
) -> None:
    """Draw pictures from noise (DCGAN): picture i depends on seed + i alone."""
    from gan_baselines.weights import read_record

    if read_record(weights)["generators"] != ["G"]:
        raise InputError("--weights", f"'{weights}', which translates pictures", "weights of a dcgan")
    loaded = _load(weights, threads)

    from gan_baselines import inference
    from gan_baselines.data.pictures import save_image, to_image

    _make(output)
    for index, picture in enumerate(inference.sample(loaded.noise_generator, count, seed)):
        save_image(to_image(picture), output / f"{seed + index:06d}.png")
    emit({"output": str(output), "pictures": count, "seed": seed}, f"{count} pictures in {output}", form)


def evaluate(
    weights: WeightsOption,
    data: Annotated[Path, typer.Option(help="Data folder; its test split where it has one.")],
    limit: Annotated[int | None, typer.Option(help="Pictures a side at most.", min=2)] = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    form: FormatOption = Format.human,
) -> None:
    """Measure weights on pictures, beside the identity and mean-picture baselines."""
    from gan_baselines.evaluate import evaluate as measure
    from gan_baselines.evaluate import table

    report = measure(_load(weights, threads), data, limit=limit, seed=seed)
    header = ["direction", "method", "l1", "psnr", "kid", "cycle_l1"]
    text = f"kid {report['kid']:.5f}" if "kid" in report else columns([header, *table(report)])
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
        loaded = load_weights(source, "--input")
        model, nets, about = loaded.model, loaded.generators, loaded.about
        helpers = {name: loaded.network.helpers[name] for name in loaded.network.carried} if loaded.network else {}
        ways: list[str] | None = sorted(loaded.translators)
    else:
        model, network = read_legacy(source, dropout=dropout)
        nets, about = {_direction(direction, ["AB"] if model.name == "pix2pix" else ["AB", "BA"]): network}, {}
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


def _direction(asked: str | None, known: list[str]) -> str:
    if not known:
        raise InputError("--weights", "a model that starts from noise", "pix2pix, cyclegan or modified-cyclegan")
    if asked is None:
        return "AB" if "AB" in known else known[0]
    if asked not in known:
        raise InputError("--direction", f"'{asked}'", ", ".join(known))
    return asked


def _load(weights: Path, threads: int | None, only: str | None = None) -> "Weights":
    from gan_baselines.training.device import set_threads
    from gan_baselines.weights import load_weights

    set_threads(threads)
    return load_weights(weights, only=only)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--output", f"'{folder}' ({error.strerror})", "a folder that can be written") from error
    if not folder.is_dir():
        raise GanError(f"'{folder}' is not a folder")
