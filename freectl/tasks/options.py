"""Options of a run, closed and checked once; method settings merged in the order defaults, preset, file, flags."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from freectl.errors import InputError, unknown
from freectl.files.seen import check_background
from freectl.methods import OUTSIDE
from freectl.methods.setting import fault

MAX_STEPS = 1000
Several = tuple[str, ...]
M = TypeVar("M", bound=BaseModel)


def several(value: Any) -> Any:
    """A text, or a list of texts, as one option that may repeat takes them.

    Raises:
        ValueError: neither.
    """
    if value is not None and not isinstance(value, str | list | tuple):
        raise ValueError("a text, or a list of texts")
    return (value,) if isinstance(value, str) else tuple(value or ())


class RunOptions(BaseModel):
    """What every run has: target, model, method and machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str = "freecontrol"
    prompt: str = Field("", validate_default=True)
    preset: str = "default"
    model: str = "mini"
    negative_prompt: str = ""
    steps: int = Field(50, ge=1, le=MAX_STEPS)
    seed: int = Field(0, ge=0, lt=2**63)
    guidance_scale: float | None = Field(None, ge=0, le=100)
    appearance_image: str | None = None
    background: str = "white"
    lora: Several = ()
    textual_inversion: Several = ()
    long_prompts: bool = False
    device: str = "auto"
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    vae_tiling: bool = False

    @field_validator("lora", "textual_inversion", mode="before")
    @classmethod
    def _one_is_several(cls, value: Any) -> Any:
        return several(value)

    @field_validator("prompt", "negative_prompt", "source_prompt", "concept", "keep_concept", check_fields=False)
    @classmethod
    def _encodable(cls, words: Any) -> Any:
        for text in (words,) if isinstance(words, str) else words or ():
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError("text: these bytes are no UTF-8")
        return words

    @field_validator("background")
    @classmethod
    def _a_colour(cls, colour: str) -> str:
        return check_background(colour)

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, prompt: str, info: ValidationInfo) -> str:
        if not prompt.strip() and info.data.get("method") not in OUTSIDE:
            raise ValueError("words that say what the result shows")
        return prompt


class EditOptions(RunOptions):
    """Everything of an edit but the method's own settings. Names are those of the command line."""

    source_prompt: str = ""
    concept: str | None = None
    mask: str = "none"
    keep: str = "none"
    keep_background: bool = False
    keep_concept: str | None = None
    keep_alpha: bool = False


class ControlOptions(RunOptions):
    """Everything of spatial control but the method's own settings; what is given once holds for all conditions."""

    condition: Several
    concept: Several = ()
    source_prompt: Several = ()
    mask: Several = ()
    preprocess: Several = ()
    view: Several = ()
    width: int | None = Field(None, ge=8, le=8192, multiple_of=8)
    height: int | None = Field(None, ge=8, le=8192, multiple_of=8)

    @field_validator("condition", "concept", "source_prompt", "mask", "preprocess", "view", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return several(value)

    @field_validator("condition")
    @classmethod
    def _something(cls, value: Several) -> Several:
        if not value:
            raise ValueError("one or more")
        return value


def validated(cls: type[M], values: Mapping[str, Any], prefix: str = "--") -> M:
    """Build a closed settings class.

    Raises:
        InputError: unknown key (the nearest is suggested), wrong type, value out of range. One line, one option.
    """
    for key in values:
        if key not in cls.model_fields:
            raise unknown(
                f"{prefix}{key.replace('_', '-')}" if prefix == "--" else f"{prefix} {key}", key, cls.model_fields
            )
    try:
        return cls(**values)
    except ValidationError as error:
        key, found, allowed = fault(error)
        name = f"--{key.replace('_', '-')}" if prefix == "--" else f"{prefix} {key}"
        raise InputError(name, found, allowed) from None


def method_settings(method: Any, preset: str, overrides: Mapping[str, Any]) -> Any:
    """Settings of a method: its defaults, then the preset's, then `overrides`.

    Raises:
        InputError: unknown preset or setting, value out of range.
    """
    if preset not in method.presets:
        raise unknown("--preset", preset, method.presets)
    return validated(method.settings, {**method.presets[preset], **overrides}, prefix="--set")


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """`key=value` texts to a dict; pydantic converts the values.

    Raises:
        InputError: a text without "=", or a key given twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise InputError("--set", repr(pair), "key=value, such as structure_strength=0.5")
        name = key.strip().replace("-", "_")
        if name in values:
            raise InputError("--set", f"{name} twice ({values[name]!r} and {value.strip()!r})", "each setting once")
        values[name] = value.strip()
    return values


def has_words(text: str, words: str) -> bool:
    """Whether the words are in the text, next to each other; case and punctuation do not matter."""
    line, wanted = (re.findall(r"[\w']+", part.lower()) for part in (text, words))
    return bool(wanted) and any(line[i : i + len(wanted)] == wanted for i in range(len(line)))


def check_concept(concept: str, *prompts: str, option: str = "--concept") -> None:
    """A concept must be words of a prompt.

    Raises:
        InputError: it is in none of them; the words are listed.
    """
    if any(has_words(prompt, concept) for prompt in prompts):
        return
    listed = ", ".join(dict.fromkeys(word for prompt in prompts for word in re.findall(r"[\w']+", prompt.lower())))
    raise InputError(option, repr(concept), f"words of the prompt: {listed}")


def check_kept(concept: str | None, source_prompt: str) -> None:
    """Keeping the background needs the word of the source prompt that is not background.

    Raises:
        InputError: none, or it is not in the source prompt.
    """
    if concept is None:
        raise InputError("--keep-background", "no --keep-concept", "a --keep-concept that is in the --source-prompt")
    if not source_prompt.strip():
        raise InputError("--keep-background", "no --source-prompt", "a --source-prompt that names the --keep-concept")
    check_concept(concept, source_prompt, option="--keep-concept")


def check_attention(concept: str | None, source_prompt: str, option: str = "--mask", given: str = "attention") -> None:
    """What is found by attention needs a concept that the source prompt names.

    Raises:
        InputError: no concept, or it is not in the source prompt.
    """
    if concept is None:
        raise InputError(option, f"{given} without --concept", "a --concept that is in the --source-prompt")
    if not source_prompt.strip():
        raise InputError(option, f"{given} without --source-prompt", "a --source-prompt that names the --concept")
    check_concept(concept, source_prompt)
