"""`gan-baselines sample`: pictures from noise, with a class, words or latent numbers where the model takes them."""

from pathlib import Path
from typing import Annotated

import typer

from gan_baselines.cli.output import Format, FormatOption, emit
from gan_baselines.cli.weights import SeedOption, ThreadsOption, WeightsOption, loaded, made_folder
from gan_baselines.errors import InputError


def sample(
    weights: WeightsOption,
    output: Annotated[Path, typer.Option(help="Folder for the PNG files; created.")],
    count: Annotated[int, typer.Option(help="Pictures.", min=1, max=1_000_000)] = 16,
    label: Annotated[str | None, typer.Option("--class", help="A class by its name, or its number.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A sentence of the words that the model was trained on.")] = None,
    code: Annotated[str | None, typer.Option(help="Latent numbers, such as -1,0.5.")] = None,
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Move on a line from the noise of --seed to that of --seed + 1.")
    ] = False,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    form: FormatOption = Format.human,
) -> None:
    """Draw pictures from noise: picture i depends on seed + i alone. CoGAN draws pairs, side by side."""
    from gan_baselines.weights import read_record

    read_record(weights)
    numbers = None if code is None else _numbers(code)
    net = loaded(weights, threads)
    if net.network is None or net.noise_generator is None:
        raise InputError("--weights", f"'{weights}', which draws no pictures", "weights of a dcgan or its kin")
    condition = net.network.condition(label, prompt, numbers)

    from gan_baselines import inference
    from gan_baselines.data.pictures import save_image, to_image

    made_folder(output)
    pictures = inference.sample(net.noise_generator, count, seed, condition=condition, line=interpolate)
    for index, picture in enumerate(pictures):
        save_image(to_image(picture), output / f"{seed + index:06d}.png")
    emit({"output": str(output), "pictures": count, "seed": seed}, f"{count} pictures in {output}", form)


def _numbers(code: str) -> list[float]:
    try:
        return [float(part) for part in code.split(",")]
    except ValueError as error:
        raise InputError("--code", f"'{code}'", "numbers between commas, such as -1,0.5") from error
