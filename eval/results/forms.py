"""The form of a results folder's files, checked before anybody's numbers go into a report."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError

from eval.bench.cases import Layout
from freectl.errors import InputError


def _plain_name(text: str) -> str:
    """A name that stays in its folder."""
    if text in ("", ".", "..") or "/" in text or "\\" in text or "\0" in text:
        raise ValueError("names no file of the folder")
    return text


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\0" in text:
        raise ValueError("leads out of the folder")
    return text


def _no_text(value: Any) -> Any:
    """Numbers are numbers: pydantic would read them from text too."""
    if isinstance(value, str | bool):
        raise ValueError("no number")
    return value


Number = Annotated[FiniteFloat, BeforeValidator(_no_text)]
Name = Annotated[str, AfterValidator(_plain_name)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Seconds(_Form):
    """Of the stages of one edit."""

    total: Number
    load: Number
    analysis: Number | None = None
    synthesis: Number | None = None


class Cost(_Form):
    """Of one edit; `freectl.denoising.cost` has more."""

    seconds: Seconds
    row_forwards: Number | None = None
    row_backwards: Number | None = None
    peak_memory_mb: Number | None = None


class ResultLine(_Form):
    """One line of results.jsonl, as `eval.run.workshop.Workshop` writes it."""

    case: Name
    kind: str
    variant: str
    curve: str
    method: str
    preset: str
    swept: dict[str, Any]
    settings: dict[str, Any]
    source_prompt: str
    prompt: str
    steps: int
    cost: Cost
    cpu_seconds: Number | None = None
    scores: dict[str, Number | None]
    picture: Annotated[str, AfterValidator(_inside)]
    facts: dict[str, str] = {}
    networks: dict[str, str] = {}
    notes: list[str] = []


class Machine(_Form):
    """Where a run was made."""

    processor: str
    cpu_count: int | None
    memory_mb: Number | None
    platform: str
    python: str
    freectl: str
    packages: dict[str, str | None]
    devices: dict[str, Any] = {}


class About(_Form):
    """run.json."""

    bench: str
    layout: Layout
    about: str = ""
    digest: str
    model: str
    weights: str
    steps: int
    seed: int
    dtype: str
    environment: Machine
    commands: list[str]


class SetRow(_Form):
    """A variant's scores of whole sets."""

    count: int
    kid: Number | None = None
    fid: Number | None = None
    cmmd: Number | None = None
    coverage: Number | None = None


class Sets(_Form):
    """sets.json."""

    reference: str
    variants: dict[str, SetRow]
    networks: dict[str, str]
    notes: list[str]


def check_form(form: type[BaseModel], value: Any, where: str, option: str = "DIR") -> None:
    """Check plain values against a form; they stay as they are.

    Raises:
        InputError: they do not fit; the message names `where` and the first entry that does not.
    """
    try:
        form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "entry"
        found = f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}"
        raise InputError(option, found, "what this version of eval writes") from None
