"""Methods that run no diffusion model: networks of another package, found by name, with the same files and records.

`freectl.methods.OUTSIDE` names the class of each; neither package has to know the other.
"""

from collections.abc import Callable, Collection
from typing import Any, ClassVar, Protocol

from PIL import Image
from tqdm.auto import tqdm

from freectl import methods
from freectl.errors import InputError
from freectl.files import pictures
from freectl.files import record as records
from freectl.methods.description import Description
from freectl.pipelines.loading import resolve_device
from freectl.tasks import options as config
from freectl.tasks.inputs import read_input
from freectl.tasks.keep import checked_keep, with_alpha
from freectl.tasks.options import EditOptions
from freectl.tasks.plan import EditResult, Plan

USED = ("method", "preset", "seed", "device", "keep", "background", "keep_alpha")
"""Run options that mean something without a diffusion model."""
_OPTIONAL = ("concept", "mask", "appearance_image", "keep_background", "keep_concept")
"""Inputs whose absence would change what is asked for: a method that does not use them refuses them."""


class Network(Protocol):
    """A loaded network: a picture in, a picture of the same size out.

    Attributes:
        label: in a few words, for people. about: facts for the record, plain JSON.
    """

    label: str
    about: dict[str, Any]

    def passes(self, picture: Image.Image) -> int:
        """How often the network runs for a picture."""

    def __call__(self, picture: Image.Image, after_pass: Callable[[], object] = ...) -> Image.Image:
        """The picture edited, RGB; `after_pass` is called after each pass, and what it raises ends the run."""


class Outside(Description):
    """Base of the methods outside.

    Names of settings start with the first word of the method's name, so that they tell whose they are among several
    methods.

    Attributes:
        follows: whether it also makes a picture of a condition, in `freectl control`.
    """

    follows: ClassVar[bool] = False

    def resolved(self, settings: Any) -> Any:
        """The settings with what their files say filled in; reads no weights.

        Raises:
            InputError: a file is missing, damaged or does not fit.
        """
        raise TypeError(f"{type(self).__name__} does not implement resolved()")

    def check(self, settings: Any, given: Collection[str]) -> None:
        """Refuse optional inputs that the method would ignore, and the lack of one that it needs.

        Raises:
            InputError: see there.
        """
        for name in given:
            if name not in self.inputs:
                option = f"--{name.replace('_', '-')}"
                raise InputError(option, f"given to {self.name}, which does not use it", "nothing, or another --method")

    def following(self, settings: Any, given: Any, picture: Image.Image) -> tuple[Any, Image.Image]:
        """As `resolved`, where a condition is followed; and what of the condition the network is shown.

        Args:
            given: the condition as it was given, such as a path. picture: what was read there, RGB.

        Raises:
            InputError: as `resolved`, or a condition that the network does not read.
        """
        return self.resolved(settings), picture

    def load(self, settings: Any, seed: int, device: str, appearance: Image.Image | None = None) -> Network:
        """The network of resolved settings.

        Args:
            appearance: the picture whose appearance is taken, for methods with that input.

        Raises:
            InputError: its weights cannot be read.
        """
        raise TypeError(f"{type(self).__name__} does not implement load()")

    def row_forwards(self, steps: int, settings: Any) -> str:
        """No UNet runs."""
        return "synthesis 0"

    def progress_bar(self, total: int, *, disable: bool = False) -> Any:
        """A bar of a run's passes, as a pipeline has one of its steps; whoever watches a run puts another in its place.

        One pass alone draws none.
        """
        return tqdm(total=total, disable=disable or total == 1, leave=False)


def plan(image: Any, options: EditOptions, overrides: dict[str, Any]) -> Plan:
    """As `freectl.tasks.edit.plan`; what a diffusion model would read gets a warning.

    Raises:
        InputError: as there; also for inputs whose absence would change what is asked for.
    """
    picture = read_input(image, options, whole=True)
    method = methods.get(options.method)
    fields = EditOptions.model_fields
    given = [name for name, field in fields.items() if getattr(options, name) != field.default and name not in USED]
    inputs = [name for name in _OPTIONAL if name in given]
    settings = config.method_settings(method, options.preset, overrides)
    method.check(settings, inputs)
    keep = checked_keep(options, picture.image.size)
    resolve_device(options.device)
    appearance = None
    if options.appearance_image is not None:
        appearance = pictures.load_image(
            options.appearance_image, "--appearance-image", options.background, reduced=True
        ).image
    settings = method.resolved(settings)
    unused = [f"--{name.replace('_', '-')}" for name in given if name not in inputs]
    ignored = [f"{method.name} does not use {', '.join(unused)}"] if unused else []
    return Plan(options, method, settings, picture, None, appearance, None, [*picture.warnings, *ignored], keep)


def made(method: Any, network: Network, picture: Image.Image, cost: Any, *, progress: bool) -> Image.Image:
    """What a loaded network makes of a picture; its time goes to `cost`."""
    bar = method.progress_bar(total=network.passes(picture), disable=not progress)
    with cost.stage("synthesis"), bar:
        bar.set_description("editing")
        return network(picture, bar.update)


def run(checked: Plan, *, progress: bool = False) -> EditResult:
    """Run a plan of `plan`.

    Args:
        progress: show a progress bar on stderr.

    Raises:
        InputError: the weights cannot be read.
    """
    from freectl.denoising.cost import Cost

    options, picture, cost = checked.options, checked.picture.image, Cost()
    device, reason = resolve_device(options.device)
    with cost.stage("load"):
        network = checked.method.load(checked.settings, options.seed, device, checked.appearance)
    result = made(checked.method, network, picture, cost, progress=progress)
    if isinstance(checked.keep, Image.Image):
        result = Image.composite(picture, result, checked.keep)
    result = with_alpha(result, checked)
    cost.record_memory(device)
    record = {
        **records.head(options),
        "model": None,
        "steps": None,
        "settings": {
            "image": str(checked.picture.source),
            "device": options.device,
            "appearance_image": options.appearance_image,
            "keep": options.keep,
            "background": options.background,
            "keep_alpha": options.keep_alpha,
            **checked.settings.model_dump(),
        },
        "about": network.about,
        "cost": cost.to_dict(),
        "warnings": checked.warnings,
    }
    return EditResult([result], picture, record, [], [f"device {device} ({reason})", network.label])
