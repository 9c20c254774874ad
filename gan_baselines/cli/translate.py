"""`gan-baselines translate`: pictures, or label maps, through a generator."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gan_baselines.cli.output import Format, FormatOption, emit
from gan_baselines.cli.weights import SeedOption, ThreadsOption, WeightsOption, direction_of, loaded, made_folder
from gan_baselines.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from gan_baselines.weights import Weights


def translate(
    weights: WeightsOption,
    source: Annotated[
        Path, typer.Option("--input", help="A picture or a folder of pictures; label maps for models of those.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the PNG files; created.")],
    direction: Annotated[str | None, typer.Option(help="AB or BA.  [default: AB, or the only one]")] = None,
    dropout: Annotated[bool, typer.Option(help="Keep dropout on, which is Pix2Pix's noise.")] = True,
    samples: Annotated[int, typer.Option(help="Answers to each picture, NAME_0.png and on.", min=1, max=1000)] = 1,
    style: Annotated[Path | None, typer.Option(help="A target picture whose style the answers take.")] = None,
    instances: Annotated[
        Path | None, typer.Option(help="Instance maps for label maps: a file, or a folder of equal names.")
    ] = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    form: FormatOption = Format.human,
) -> None:
    """Translate pictures of any size; each keeps its size and, but for the ending, its name."""
    from gan_baselines.config import layout_of
    from gan_baselines.data import pictures
    from gan_baselines.weights import read_record

    files = [source] if not source.is_dir() else pictures.picture_files(source, "--input")
    pictures.by_stem(files, "--input")
    if output.exists() and (source if source.is_dir() else source.parent).resolve() == output.resolve():
        raise InputError("--output", f"'{output}', where the input lies", "another folder")
    record = read_record(weights)
    chosen = direction_of(direction, record["translators"])
    labelled = layout_of(str(record["model"].get("name"))) == "labelled"
    forms: list[Any] = [record["model"].get(f"form_{side.lower()}", "rgb") for side in chosen]
    for path in files:  # all of them before the first is written: decoding costs little beside a network
        _read(path, labelled, instances, forms[0])
    given = None if style is None else pictures.to_range(pictures.to_tensor(pictures.read_picture(style, "--style")))
    net = loaded(weights, threads, only=chosen)

    from gan_baselines import inference

    wanted = None if given is None else _style(net, chosen, given)
    made_folder(output)
    started = time.perf_counter()
    for path in files:
        picture = _checked(net, _read(path, labelled, instances, forms[0]), path)
        for index in range(samples):
            made = inference.translate(net.translators[chosen], picture, net.multiple, dropout=dropout,
                                       seed=seed + index, style=wanted)  # fmt: skip
            name = path.stem if samples == 1 else f"{path.stem}_{index}"
            pictures.save_image(pictures.to_image(made, forms[1]), output / f"{name}.png")
    seconds = round(time.perf_counter() - started, 3)
    count = len(files) * samples
    value = {"output": str(output), "direction": chosen, "pictures": count, "seconds": seconds}
    emit(value, f"{count} pictures in {output}, {seconds} s", form)


def _read(path: Path, labelled: bool, instances: Path | None, form: Any) -> "Tensor":
    """A picture (C, H, W) in [-1, 1], or a label map (1, H, W) with its instances as a second channel."""
    import torch

    from gan_baselines.data import pictures

    if not labelled:
        if instances is not None:
            raise InputError("--instances", f"'{instances}' for a model of pictures", "weights of pix2pixhd or spade")
        return pictures.to_range(pictures.to_tensor(pictures.read_picture(path, "--input", form)))
    maps = [torch.from_numpy(pictures.read_labels(path, "--input")).float()]
    if instances is not None:
        own = instances / f"{path.stem}.png" if instances.is_dir() else instances
        maps.append(torch.from_numpy(pictures.read_labels(own, "--instances")).float())
        if maps[1].shape != maps[0].shape:
            raise InputError("--instances", f"'{own}' of another size than '{path}'", "equal sizes")
    return torch.stack(maps)


def _checked(net: "Weights", picture: "Tensor", path: Path) -> "Tensor":
    if not hasattr(net.model, "labels"):
        return picture
    if picture[0].max() >= net.model.labels:
        raise InputError("--input", f"the label {int(picture[0].max())} in '{path}'", f"0 to {net.model.labels - 1}")
    if net.model.instances and len(picture) == 1:
        raise InputError("--instances", "none, for weights that were trained with instance maps", "a file or a folder")
    return picture


def _style(net: "Weights", direction: str, picture: "Tensor") -> "Tensor":
    import torch

    if net.network is None:
        raise InputError("--style", "weights without their model", "a weights folder")
    with torch.inference_mode():
        return net.network.style_of(direction, picture[None])
