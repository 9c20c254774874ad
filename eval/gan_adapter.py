"""A trained generator of `gan_baselines` as one more method: `--methods gan --gan-weights FOLDER`.

A translating generator knows one direction between two sets of pictures and reads no prompt, so it is asked only for
cases that go from its source style to its target style.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from eval.cases import Case
from eval.runners import Made
from freectl.cost import Cost
from freectl.errors import InputError
from freectl.mini.domain import STYLES

_FOLDER = "[NAME=]FOLDER of weights that `gan-baselines train` wrote"


class Translator:
    """A generator that turns pictures of any size into pictures of the same size.

    Args:
        weights: a folder that `gan-baselines train` or `convert` wrote.
        direction: "AB" or "BA"; None is AB, or the only one.
        seed: of dropout, which is Pix2Pix's noise.

    Raises:
        InputError: no such folder, damaged files, no such direction, or weights of a model without a source picture.
    """

    def __init__(self, weights: Path | str, direction: str | None = None, seed: int = 0) -> None:
        from gan_baselines.errors import GanError
        from gan_baselines.weights import load_weights, read_record

        try:
            names = [name for name in read_record(Path(weights), "--gan-weights")["generators"] if name in ("AB", "BA")]
            chosen = direction or (names or ["AB"])[0]
            if chosen not in names:
                raise InputError("--gan-weights", f"'{weights}' without a generator {chosen}", "weights that translate")
            loaded = load_weights(weights, "--gan-weights", only=chosen)
        except GanError as error:
            raise InputError("--gan-weights", str(error).partition("found ")[2] or str(error), _FOLDER) from error
        self.generator, self.multiple, self.seed = loaded.generators[chosen], loaded.multiple, seed
        self.name, self.direction, self.weights = str(loaded.model.name), chosen, str(weights)

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The picture translated, RGB, of the same size."""
        from gan_baselines.data.pictures import to_image, to_range, to_tensor
        from gan_baselines.inference import translate

        pixels = to_range(to_tensor(picture.convert("RGB")))
        return to_image(translate(self.generator, pixels, self.multiple, seed=self.seed))


class GanRunner:
    """A translator as a variant; see `eval.runners.Runner`."""

    def __init__(self, translator: Translator) -> None:
        self.translator = translator
        self.training = training_of(Path(translator.weights))

    def run(self, case: Case) -> Made:
        """Translate the case's input: one pass, no UNet."""
        picture = case.picture()
        cost = Cost()
        with cost.stage("synthesis"):
            image = self.translator(picture)
        cost.record_memory(torch.device("cpu"))
        own = self.translator
        facts = {"model": own.name, "direction": own.direction, "seed": own.seed, "training": self.training}
        return Made(image, cost.to_dict(), facts)


def applies(case: Case, styles: tuple[str, str] | None) -> bool:
    """Whether a generator trained from one style to another can be asked: the style alone changes, in that direction.

    Any case where no scenes or no styles are known.
    """
    if case.scenes is None or styles is None:
        return True
    source, target = case.scenes
    same = (source.object, source.background) == (target.object, target.background)
    return same and (source.style, target.style) == styles


def parse_styles(text: str | None) -> tuple[str, str] | None:
    """ "noto:fluent" as a pair.

    Raises:
        InputError: not two different styles.
    """
    if text is None:
        return None
    first, _, second = text.partition(":")
    if first not in STYLES or second not in STYLES or first == second:
        raise InputError("--gan-styles", repr(text), f"FROM:TO, two of {', '.join(STYLES)}")
    return first, second


def parse_weights(texts: list[str]) -> dict[str, Path]:
    """`[NAME=]FOLDER` texts by name; the default name is the model's.

    Raises:
        InputError: a folder without readable weights, or a name that occurs twice.
    """
    from gan_baselines.errors import GanError
    from gan_baselines.weights import read_record

    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        folder = Path(path if equals else text)
        try:
            record = read_record(folder, "--gan-weights")
        except GanError as error:
            raise InputError("--gan-weights", f"'{folder}' without a readable config.json", _FOLDER) from error
        name = name if equals else str(record["model"]["name"])
        if name in found:
            raise InputError("--gan-weights", f"two folders named '{name}'", _FOLDER)
        found[name] = folder
    return found


def training_of(weights: Path) -> dict[str, Any]:
    """What a weights folder cost: steps, pictures seen, and seconds by the median speed of its run's log, else None."""
    from gan_baselines.weights import find_weights, read_record

    weights = find_weights(weights)

    about = read_record(weights).get("about", {})
    steps, batch = about.get("steps"), about.get("batch_size")
    pictures = steps * batch if steps and batch else None
    log = weights.parent / "losses.jsonl"
    speeds = (
        [json.loads(line).get("pictures_per_second") for line in log.read_text().splitlines()] if log.exists() else []
    )
    known = [speed for speed in speeds if speed]
    seconds = round(pictures / statistics.median(known), 1) if pictures and known else None
    return {"steps": steps, "pictures": pictures, "seconds": seconds}
