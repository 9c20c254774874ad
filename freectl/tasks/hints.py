"""Hints for inputs that can be run but will hardly give what was meant."""

import re
from typing import Any

import numpy as np
from PIL import Image

from freectl.pipelines.loading import HUB_EXAMPLE

IMPERATIVES = ("make", "change", "turn", "replace", "remove", "add", "convert", "transform", "put", "delete", "edit")
FLAT, NEAR = 8.0, 48.0
"""How far (of 255) the border of a toy scene may be from one colour, and that from a colour of the toy world: drawn
scenes are at 0 and 0, photographs at 18 and more or at colours of their own; JPEG needs some room."""
_OTHER_MODEL = f"for photographs add --model {HUB_EXAMPLE}"


DRAWING = ("sdedit", "ddpm-inversion", "flowedit")
"""Methods that draw noise from the seed whatever their settings."""


def unseeded(method: Any) -> str:
    """What to say when a method has drawn nothing from the seed, and how its results vary all the same."""
    fresh = "--set start=noise, --set start_noise=0.2, " if "start_noise" in method.settings.model_fields else ""
    others = f"--method {' or '.join(name for name in DRAWING if name != method.name)}"
    return f"{method.name} draws nothing from the seed with these settings; to vary its results: {fresh}{others}"


def of_prompt(prompt: str) -> list[str]:
    """A hint where a prompt reads like an instruction."""
    first = (re.findall(r"[a-z]+", prompt.lower()) or [""])[0]
    if first not in IMPERATIVES:
        return []
    return [
        f"the prompt starts with '{first}': prompts describe the result and are not instructions;"
        " write 'a bronze horse', not 'make the horse bronze'"
    ]


def of_words(*prompts: str) -> list[str]:
    """A hint where the embedded model does not know the words of prompts."""
    from freectl.mini.domain import vocabulary

    known = set(vocabulary())
    words = {word: None for prompt in prompts for word in re.findall(r"[a-z]+", prompt.lower()) if word not in known}
    if not words:
        return []
    return [
        f"the embedded model, a toy of 16 objects, does not know: {', '.join(words)} (see `freectl mini words`);"
        f" {_OTHER_MODEL}"
    ]


def of_picture(picture: Image.Image) -> list[str]:
    """A hint where a picture is no scene of the embedded model's world: one object on one flat colour."""
    from freectl.mini.domain import BACKGROUNDS

    colour, spread = border(picture)
    nearest = min(float(np.abs(colour - known).max()) for known in BACKGROUNDS.values())
    if spread <= FLAT and nearest <= NEAR:
        return []
    return [
        "this picture is no scene of the embedded model mini, a toy model of 16 objects on flat backgrounds:"
        f" the result will hardly be what you want; {_OTHER_MODEL}"
    ]


def border(picture: Image.Image) -> tuple[np.ndarray, float]:
    """Median RGB colour of the outermost pixels, and how far from it three quarters of them are at most, of 255."""
    small = np.asarray(picture.convert("RGB").resize((64, 64), Image.Resampling.BOX), dtype=np.float64)
    pixels = np.concatenate([small[0], small[-1], small[1:-1, 0], small[1:-1, -1]])
    colour = np.median(pixels, axis=0)
    return colour, float(np.quantile(np.abs(pixels - colour).max(1), 0.75))


def next_step(checked: Any, result: Any) -> str:
    """What people may try after a run: the dial of its method, or another way."""
    options, settings = checked.options, checked.settings
    fields = type(settings).model_fields
    if "structure_strength" in fields:
        return "--structure-strength, 0 to 1, holds the structure more or less; --compare shows it beside the input"
    if "strength" in fields:
        return f"--set strength={max(0.1, settings.strength - 0.2):.1f} stays nearer to the input, more changes more"
    if not getattr(options, "source_prompt", "") and "inversion" in checked.method.needs:
        return "--source-prompt with what the input shows"
    if hasattr(options, "condition"):
        return _next_control(checked, fields)
    return "--method all --compare shows what each method makes of it"


def _next_control(checked: Any, fields: Any) -> str:
    if "scale" in fields:
        return f"--set scale={max(0.1, checked.settings.scale - 0.3):.1f} follows the condition less"
    others = " or ".join(name for name in ("freecontrol", "ctrlx") if name != checked.method.name)
    words = "" if checked.options.prompt.strip() else " and a --prompt"
    return f"--method {others}{words}: another way to follow the same condition"
