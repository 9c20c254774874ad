"""`freectl.compare`: several methods on the same picture, prompt, model and seed, each as a first edit."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Unpack

from PIL import Image

from freectl import methods
from freectl.errors import FreectlError, InputError, python_errors, unknown
from freectl.files import pictures
from freectl.pipelines import loading
from freectl.tasks import edit as editing
from freectl.tasks import options as config
from freectl.tasks.inputs import read_input
from freectl.tasks.options import EditOptions
from freectl.tasks.plan import EditResult, Plan
from freectl.tasks.settings import Settings

ALL = "all"
OWN = ("--method", "--preset", "--set")
"""Options whose errors are one method's; any other error is everybody's."""


@dataclass(frozen=True)
class Entry:
    """What one method gave: a result, or in words why there is none.

    Attributes:
        notes: inputs and settings that were given and that this method does not use.
    """

    method: str
    result: EditResult | None = None
    error: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Method, cost and seconds, or that it failed."""
        if self.result is None:
            return f"{self.method}: failed"
        cost = self.result.cost
        backwards = f" + {cost['row_backwards']} backward" if cost["row_backwards"] else ""
        seconds = cost["seconds"]["analysis"] + cost["seconds"]["synthesis"]
        return f"{self.method}: {cost['row_forwards']:.0f} rows{backwards}, {seconds:.1f} s"

    @property
    def record(self) -> dict[str, Any]:
        """The method's record, with the notes among its warnings."""
        if self.result is None:
            return {"method": self.method, "error": self.error, "warnings": self.notes}
        return {**self.result.record, "warnings": [*self.result.record["warnings"], *self.notes]}


@dataclass(frozen=True)
class Planned:
    """A method's checked plan, or why it cannot run."""

    method: str
    plan: Plan | None
    error: str
    notes: list[str]


class FirstEdits:
    """A cache that keeps what belongs to a model and no picture: every method then pays for its own inversion.

    Args:
        kept: where semantic bases and edit directions are kept; None keeps nothing.
    """

    of_model = ("bases", "direction")

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    @property
    def warnings(self) -> list[str]:
        """Of the cache behind it."""
        return self.kept.warnings if self.kept is not None else []

    def get_or_build(self, kind: str, key: str, build: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any, bool]:
        """As `freectl.files.cache.Cache.get_or_build`; what depends on a picture is built."""
        if self.kept is None or kind not in self.of_model:
            return (*build(), False)
        return self.kept.get_or_build(kind, key, build)


def chosen(
    names: str | Sequence[str], settings: Collection[str] = (), *, appearance: bool = False, model: str | None = None
) -> list[str]:
    """Methods by name: "all", names in a text with commas between, or a sequence of them.

    Args:
        settings: names of the settings that are given; with "all", they call for the outside methods they belong to.
        appearance: whether an appearance picture is given; with "all", it calls for the outside methods that take one.
        model: with "all", the methods that run on it.

    Raises:
        InputError: an unknown name, or none.
    """
    asked = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    if asked == [ALL]:
        owners = {methods.outsider(setting) for setting in settings}
        if appearance:
            owners |= set(methods.of_pictures())
        return [*_running(model), *(name for name in methods.OUTSIDE if name in owners)]
    known = [ALL, *methods.REGISTRY, *methods.OUTSIDE]
    for name in asked:
        if name not in known[1:]:
            raise unknown("--method", name, known)
    if not asked:
        raise InputError("--method", "no name", ", ".join(known))
    return list(dict.fromkeys(asked))


def _running(model: str | None) -> list[str]:
    """The registered methods that a model's family runs; all, where the model is not known."""
    known = None
    if model is not None:
        with suppress(InputError):  # what is wrong with the model is told by the plans
            known = loading.known_family(loading.resolve_model(model))
    if known is None:
        return list(methods.REGISTRY)
    family, few_steps = known
    return [name for name in methods.REGISTRY if family.runs(name, few_steps=few_steps)]


def plans(image: Any, names: Sequence[str], options: EditOptions, overrides: Mapping[str, Any]) -> list[Planned]:
    """Check every method's run before anything loads; a method that cannot run does not stop the others.

    Raises:
        InputError: what is wrong for all methods alike, or no method can run.
    """
    picture = read_input(image, options)
    methods.check_asked(names, overrides)
    found = [methods.get(name) for name in names]
    known = {key for method in found for key in method.settings.model_fields}
    for key in overrides:
        if key not in known:
            raise unknown("--set", key, known)
    made, errors = [], []
    for method in found:
        own, settings, notes = _fitting(method, options, overrides)
        try:
            made.append(Planned(method.name, editing.plan(picture, own, settings), "", notes))
        except InputError as error:
            if error.option.split()[0] not in OWN:
                raise
            errors.append(error)
            made.append(Planned(method.name, None, str(error), notes))
    if len(errors) == len(made):
        raise errors[0]
    return made


def _fitting(
    method: Any, options: EditOptions, overrides: Mapping[str, Any]
) -> tuple[EditOptions, dict[str, Any], list[str]]:
    """The run's options and settings without what a method does not use, and notes of what that is."""
    changed: dict[str, Any] = {"method": method.name}
    notes = []
    outside = method.name in methods.OUTSIDE
    for name in ("concept", "mask", "appearance_image", *(["keep_background", "keep_concept"] if outside else [])):
        unset = EditOptions.model_fields[name].default
        needed = name == "concept" and options.keep_background and options.keep_concept is None and not outside
        if getattr(options, name) != unset and name not in method.inputs and not needed:
            changed[name] = unset
            notes.append(f"{method.name} does not use --{name.replace('_', '-')}")
    if options.preset not in method.presets:
        changed["preset"] = "default"
        notes.append(f"{method.name} has no preset '{options.preset}': its default is used")
    own = {key: value for key, value in overrides.items() if key in method.settings.model_fields}
    # whose an outside method's settings are, their names tell
    notes += [f"{method.name} has no setting {key}" for key in overrides if not (key in own or methods.outsider(key))]
    return options.model_copy(update=changed), own, notes


def run(
    planned: Sequence[Planned],
    *,
    cache: bool = True,
    progress: bool = False,
    each: Callable[[Entry], None] = lambda entry: None,
) -> list[Entry]:
    """Run the plans in turn; what fails is told in its entry.

    Args:
        each: called with every entry as it comes, so that a result is not lost with what runs after it.

    Raises:
        FreectlError: the model cannot be loaded, or every method failed.
    """
    from freectl.files.cache import Cache

    for one in planned:
        if one.plan is not None and one.plan.source is not None:
            editing.opened(one.plan.options, one.plan.source)  # one for all; a model that cannot be loaded ends the run
            break
    store = FirstEdits(Cache() if cache else None)
    entries = []
    for one in planned:
        entries.append(_entry(one, store, progress))
        each(entries[-1])
    if all(entry.result is None for entry in entries):
        raise FreectlError(f"all methods failed; {entries[0].method}: {entries[0].error}")
    return entries


def _entry(planned: Planned, store: FirstEdits, progress: bool) -> Entry:
    if planned.plan is None:
        return Entry(planned.method, None, planned.error, planned.notes)
    try:
        result = editing.run(planned.plan, cache=store, progress=progress)
    except Exception as error:  # whatever one method runs into, the others' results are still wanted
        text = str(error) if isinstance(error, FreectlError) else f"{type(error).__name__}: {error}"
        return Entry(planned.method, None, text, planned.notes)
    return Entry(planned.method, result, "", planned.notes)


def cells(entries: Sequence[Entry], source: Image.Image) -> pictures.Labelled:
    """The input and each method's result, labelled with cost and seconds; a failed method has a grey field."""
    grey = Image.new("RGB", source.size, "lightgray")
    found = [(entry.label, grey if entry.result is None else entry.result.image) for entry in entries]
    return [("input", source), *found]


def sheet(entries: Sequence[Entry], source: Image.Image, columns: int | None = None) -> Image.Image:
    """`cells` as one picture."""
    return pictures.compare_sheet(cells(entries, source), columns)


class CompareOptions(Settings, total=False):
    """Keyword arguments of `compare`: those of `freectl.edit`."""

    model: str
    preset: str
    source_prompt: str
    negative_prompt: str
    concept: str | None
    steps: int
    seed: int
    guidance_scale: float | None
    mask: str
    keep: str
    keep_background: bool
    keep_concept: str | None
    keep_alpha: bool
    background: str
    appearance_image: str | None
    lora: str | Sequence[str]
    textual_inversion: str | Sequence[str]
    long_prompts: bool
    device: str
    dtype: str
    offload: str
    vae_tiling: bool


@python_errors
def compare(
    image: Any,
    prompt: str,
    methods: str | Sequence[str] = ALL,
    *,
    cache: bool = True,
    progress: bool = False,
    **options: Unpack[CompareOptions],
) -> list[Entry]:
    """Edit a picture with several methods, each at its own settings and as a first edit of it.

    Args:
        image: path, "-" for stdin, PIL picture, array or tensor.
        methods: "all", or names.
        options: as for `freectl.edit`; what a method does not use is left out and noted in its entry.

    Raises:
        InputError: an input cannot be used by any method; nothing has been loaded then.
        FreectlError: the model cannot be loaded, or every method failed.
    """
    settings: dict[str, Any] = dict(options)
    own = {name: settings.pop(name) for name in list(settings) if name in EditOptions.model_fields}
    checked = config.validated(EditOptions, {"prompt": prompt, "method": ALL, **own})
    names = chosen(methods, settings, appearance=checked.appearance_image is not None, model=checked.model)
    return run(plans(image, names, checked, settings), cache=cache, progress=progress)
