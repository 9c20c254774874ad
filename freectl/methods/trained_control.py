"""What methods of a trained control network share: the network beside the model, its window, and plain sampling."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, TypeVar

from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from freectl.denoising.injection import EDIT
from freectl.denoising.sampler import Controller, Denoiser, Lane, Step
from freectl.denoising.taps import More, given_more
from freectl.errors import InputError
from freectl.methods.base import Condition, Method, Outcome, Request, denoise
from freectl.methods.setting import setting
from freectl.models import control_networks
from freectl.models.engine import Engine


class TrainedSettings(BaseModel):
    """The network, how much it counts, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    controlnet: str | None = setting(
        None,
        "the trained network: folder, .safetensors file or hub id; none = the one in the model's folder",
        unit="path",
        source="ours",
    )
    scale: float = setting(
        1.0, "factor of what the network adds", ge=0, le=10, unit="factor", source="1 in both papers' codes"
    )
    control_start: float = setting(0.0, "it adds from here", ge=0, le=1, unit="share of steps", source="diffusers")
    control_stop: float = setting(1.0, "it adds up to here", ge=0, le=1, unit="share of steps", source="diffusers")
    inverted: bool = setting(
        False,
        "give it the negative of the condition: published networks of lines know white lines on black",
        unit="choice",
        source="ours; line networks of both papers",
    )


T = TypeVar("T", bound=TrainedSettings)


class TrainedControl(Method[T]):
    """Base of them; a subclass says what the network is shown and what it adds to the model's inputs.

    The network is one of diffusers', called as diffusers' own pipeline calls it; loop, text, start and schedule are
    those of all methods here, so that methods differ in nothing else.
    """

    needs = ()
    inputs = ("conditions",)
    kind: ClassVar[str]

    def more(self, engine: Engine, network: Any, picture: Image.Image, settings: T) -> More:
        """The control network's additions to a forward of the model's; see `taps.given_more`."""
        raise TypeError(f"{type(self).__name__} does not implement more()")

    def check_files(self, settings: T, model: str | None, family: Any, network: Mapping[str, Any] | None) -> None:
        """Whether the control network is there and fits, before any weights are read.

        Args:
            model: the model's folder, or None. network: configuration of its denoising network, where it is known.

        Raises:
            InputError: it does not.
        """
        place = control_networks.located(settings.controlnet, self.kind, model)
        control_networks.check_fits(place, self.kind, family, network)

    def run(self, engine: Engine, request: Request, settings: T) -> Outcome:
        """Draw the request's prompts under its one condition."""
        picture = one_condition(request, self.name).image
        if settings.inverted:
            picture = Image.eval(picture, lambda value: 255 - value)
        place = control_networks.located(settings.controlnet, self.kind, engine.pipe.config.get("_name_or_path"))
        with engine.cost.stage("load"):
            network = control_networks.loaded(place, self.kind, engine.family, engine.network)
        with engine.cost.counting(engine.network), engine.cost.stage("synthesis"):
            start = request.latents if request.latents is not None else engine.noise(request.size, request.generators)
            lanes = {EDIT: Lane(start, request.prompt, request.guidance_scale)}
            controller = Steered(self.more(engine, network, picture, settings), settings)
            return Outcome(denoise(engine, request, lanes, engine.timesteps(request.steps), controller))

    def row_forwards(self, steps: int, settings: T) -> str:
        """Two rows a step; those of the control network are not the model's."""
        return f"synthesis {2 * steps}"


class Steered(Controller):
    """Plain sampling with further inputs while the settings' window lasts."""

    def __init__(self, more: More, settings: TrainedSettings) -> None:
        self.more, self.settings = more, settings

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided model output of each lane."""
        # as diffusers has it: a step counts that ends within the window too
        first, last = (share * step.count for share in (self.settings.control_start, self.settings.control_stop))
        within = first <= step.index + 1e-9 and step.index + 1 <= last + 1e-9
        with given_more(denoiser.network, self.more) if within else nullcontext():
            return super().predict(step, lanes, denoiser)


def one_condition(request: Request, method: str) -> Condition:
    """The condition that all results follow.

    Raises:
        InputError: none or several, or one with a mask.
    """
    if len(request.conditions) != 1:
        found = f"{len(request.conditions)} for {method}"
        raise InputError("--condition", found, "one; several with freecontrol")
    condition = request.conditions[0]
    if condition.mask is not None:
        allowed = "none, or --method freecontrol"
        raise InputError("--mask", f"one for {method}, which follows all of a condition", allowed)
    return condition
