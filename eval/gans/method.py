"""A trained generator of `gan_baselines` as a method of `freectl edit`: neither package knows of the other.

freectl finds `Gan` by its name (`freectl.methods.OUTSIDE`).
"""

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from eval.gans.labels import label_map
from freectl.errors import FreectlError, InputError
from freectl.methods.setting import setting
from freectl.tasks.outside import Outside

OPTION = "--gan-weights"
FOLDER = "a folder of weights that `gan-baselines train` wrote"


@contextmanager
def translated_errors(option: str = OPTION, allowed: str = FOLDER) -> Iterator[None]:
    """Errors of gan_baselines as freectl's, which the command line knows, told of `option`.

    Raises:
        InputError: what the block found wrong with the weights.
    """
    from gan_baselines.errors import GanError
    from gan_baselines.errors import InputError as GanInputError

    try:
        yield
    except GanInputError as error:
        raise InputError(option, error.found, error.allowed) from error
    except GanError as error:
        raise InputError(option, str(error), allowed) from error


def reads_labels(weights: Path | str) -> bool:
    """Whether weights read label maps and no pictures. Reads no weights.

    Raises:
        InputError: no such folder, or damaged files.
    """
    from gan_baselines.config import layout_of
    from gan_baselines.weights import read_record

    with translated_errors():
        record = read_record(weights, OPTION)
    return bool(record["translators"]) and layout_of(str(record["model"].get("name"))) == "labelled"


def direction_of(weights: Path | str, direction: str | None = None, *, labels: bool = False) -> str:
    """The direction that weights are asked for: the given one, else AB, else the only one. Reads no weights.

    Args:
        labels: whether weights that read label maps will do.

    Raises:
        InputError: no such folder, damaged files, no such direction, or weights of a model without a source picture.
    """
    from safetensors import SafetensorError, safe_open

    from gan_baselines.weights import find_weights, read_record

    with translated_errors():
        record = read_record(weights, OPTION)
        names = record["translators"]
    if not labels and reads_labels(weights):
        allowed = "weights that read pictures, or `freectl control`"
        raise InputError(OPTION, f"'{weights}', which reads label maps", allowed)
    chosen = direction or (names or ["AB"])[0]
    if chosen not in names:
        raise InputError(OPTION, f"'{weights}' without a generator {chosen}", "weights that translate that way")
    # where a direction has no network of its own, all of them take part in it
    parts = [chosen] if chosen in record["generators"] else record["generators"]
    for path in (find_weights(weights) / f"generator_{name}.safetensors" for name in parts):
        try:
            with safe_open(path, "pt"):  # reads the header, and sees whether the file is as long as it says
                pass
        except (OSError, SafetensorError) as error:
            raise InputError(OPTION, f"'{path}', missing or damaged ({error})", FOLDER) from error
    return chosen


class Translator:
    """A generator that turns pictures, or label maps, of any size into pictures of the same size.

    Args:
        weights: a folder that `gan-baselines train` or `convert` wrote, or the name of shipped weights.
        direction: "AB" or "BA"; None is AB, or the only one.
        seed: of dropout, which is Pix2Pix's noise.
        device: where it runs, such as "cpu" or "cuda".
        labels: whether it is given label maps where the weights read such: palette pictures.

    Raises:
        InputError: as `direction_of`, or weights that do not fit the model.
    """

    def __init__(
        self,
        weights: Path | str,
        direction: str | None = None,
        seed: int = 0,
        device: str = "cpu",
        *,
        labels: bool = False,
    ) -> None:
        from gan_baselines.weights import load_weights

        chosen = direction_of(weights, direction, labels=labels)
        with translated_errors():
            loaded = load_weights(weights, OPTION, only=chosen)
        if (forms := {loaded.model.form(side) for side in chosen}) != {"rgb"}:
            raise InputError(OPTION, f"weights for {', '.join(sorted(forms))} pictures", "weights for RGB pictures")
        self.labelled = reads_labels(weights)
        self.generator = loaded.translators[chosen].to(device)
        self.multiple, self.seed, self.device = loaded.multiple, seed, device
        self.label = f"{loaded.model.name} {chosen}"
        self.about: dict[str, Any] = {
            "model": str(loaded.model.name),
            "direction": chosen,
            "training": training_of(weights),
        }

    def passes(self, picture: Image.Image) -> int:
        """One, for a picture of any size."""
        return 1

    def __call__(self, picture: Image.Image, after_pass: Callable[[], object] = lambda: None) -> Image.Image:
        """The picture translated, RGB, of the same size; a palette picture is a label map where they are read.

        Raises:
            FreectlError: the generator gives numbers that are not finite.
        """
        import torch

        from gan_baselines.data.pictures import to_image, to_range, to_tensor
        from gan_baselines.errors import GanError
        from gan_baselines.inference import translate

        if self.labelled:
            shown = torch.from_numpy(np.array(picture, dtype=np.float32))[None]
        else:
            shown = to_range(to_tensor(picture.convert("RGB")))
        try:
            made = to_image(translate(self.generator, shown.to(self.device), self.multiple, seed=self.seed))
        except GanError as error:
            raise FreectlError(f"{OPTION}: {error}") from error
        after_pass()
        return made


def training_of(weights: Path | str) -> dict[str, Any]:
    """What weights cost: steps, pictures seen, and seconds by the median speed of the run's log, else None."""
    from gan_baselines.weights import find_weights, read_record

    about = read_record(weights).get("about", {})
    steps, batch = about.get("steps"), about.get("batch_size")
    pictures = steps * batch if steps and batch else None
    log = find_weights(weights).parent / "losses.jsonl"
    known = [speed for line in log.read_text().splitlines() if (speed := _speed(line))] if log.exists() else []
    seconds = round(pictures / statistics.median(known), 1) if pictures and known else None
    return {"steps": steps, "pictures": pictures, "seconds": seconds}


def _speed(line: str) -> float | None:
    try:
        speed = json.loads(line)["pictures_per_second"]
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be half written
        return None
    return speed if isinstance(speed, int | float) else None


def named(settings: "GanSettings") -> str:
    """The weights.

    Raises:
        InputError: none are given.
    """
    if settings.gan_weights is None:
        from gan_baselines.weights import shipped_names

        raise InputError(OPTION, "nothing", ", ".join([FOLDER, *shipped_names()]))
    return settings.gan_weights


class GanSettings(BaseModel):
    """Which generator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gan_weights: str | None = setting(
        None, "a weights folder that `gan-baselines` wrote, or the name of shipped weights", unit="text", source="ours"
    )
    gan_direction: Literal["AB", "BA"] | None = setting(
        None,
        "which way it translates; none is AB, or its only one",
        unit="choice",
        source="G: A -> B and F: B -> A, arXiv 1703.10593, section 3",
    )


class Gan(Outside):
    """One pass of a generator; the words are in its training pictures."""

    name = "gan"
    summary = "one pass of a generator trained by gan-baselines; reads no words; needs --gan-weights and a checkout"
    paper = "Isola et al., Pix2Pix, CVPR 2017, arXiv 1611.07004; Zhu et al., CycleGAN, ICCV 2017, arXiv 1703.10593"
    equations = """
y = G(x, z),  z = dropout (Pix2Pix) or nothing (CycleGAN);  trained from pictures of A to pictures of B
"""
    settings = GanSettings
    needs = ("image", "weights", "checkout")
    follows = True

    def resolved(self, settings: GanSettings) -> GanSettings:
        """The settings with the direction that the weights have."""
        direction = direction_of(named(settings), settings.gan_direction)
        return settings.model_copy(update={"gan_direction": direction})

    def following(self, settings: GanSettings, given: Any, picture: Image.Image) -> tuple[GanSettings, Image.Image]:
        """As `Outside.following`; of weights that read label maps the condition is one."""
        from gan_baselines.weights import read_record

        if not reads_labels(named(settings)):
            return self.resolved(settings), picture
        direction = direction_of(named(settings), settings.gan_direction, labels=True)
        shown = label_map(given, read_record(named(settings), OPTION))
        return settings.model_copy(update={"gan_direction": direction}), shown

    def load(self, settings: GanSettings, seed: int, device: str, appearance: Image.Image | None = None) -> Translator:
        """The generator; a run of pictures has been refused by now where it reads label maps."""
        return Translator(settings.gan_weights or "", settings.gan_direction, seed, device, labels=True)
