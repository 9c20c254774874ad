"""The one denoising loop, and the rows it is made of.

A lane is one trajectory of latents (the edit, its sibling, the source). A row is one latent through the network once; a
lane under classifier-free guidance has two. Methods steer the loop through a `Controller`; none of them owns a loop.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from torch.nn.functional import pad

from freectl.denoising.calls import Call, Parts, Read, Rescale
from freectl.denoising.path import Path, number

Half = Literal["uncond", "cond"]
TEXT_MASK = "text_mask"
"""The added input (rows, tokens) that says which tokens are of the text: texts of several lengths share a forward."""


@dataclass(frozen=True)
class Prompt:
    """Encoded text of a lane.

    Attributes:
        cond: (B, tokens, channels).
        uncond: the same shape, or another number of tokens where masks tell them; None for no classifier-free guidance.
        added: further inputs of the network by half, for models that have them (SDXL: text_embeds, time_ids).
    """

    cond: Tensor
    uncond: Tensor | None = None
    added: Mapping[Half, Mapping[str, Tensor]] = field(default_factory=dict)

    def half(self, half: Half) -> Tensor:
        """The embeddings of one half."""
        embeds = self.cond if half == "cond" else self.uncond
        if embeds is None:
            raise ValueError("this lane has no unconditional half")
        return embeds


@dataclass
class Lane:
    """One trajectory.

    Attributes:
        latents: (B, C, h, w), at the noise level of the next timestep.
        prompt: encoded text, batch B.
        guidance_scale: as in diffusers; eps = uncond + guidance_scale (cond - uncond). Without an unconditional half,
            what a network is told that was distilled on guidance; see `Denoiser`.
        clean: (B, C, h, w), the last step's estimate of the clean picture, for previews; None before the first step.
    """

    latents: Tensor
    prompt: Prompt
    guidance_scale: float = 1.0
    clean: Tensor | None = None

    @property
    def halves(self) -> tuple[Half, ...]:
        """The rows this lane needs for its guided prediction."""
        return ("cond",) if self.prompt.uncond is None else ("uncond", "cond")

    def combine(self, outputs: Mapping[Half, Tensor], rescale: Rescale | None = None) -> Tensor:
        """Classifier-free guidance of the two halves' outputs, rescaled where the family asks for it."""
        if "uncond" not in outputs:
            return outputs["cond"]
        guided = outputs["uncond"] + self.guidance_scale * (outputs["cond"] - outputs["uncond"])
        return guided if rescale is None else rescale(guided, outputs["cond"])


@dataclass(frozen=True)
class Step:
    """Where the loop stands: `index` of `count`, the level's time on the path, and how often it was taken before."""

    index: int
    count: int
    timestep: float
    repeat: int = 0

    def within(self, start: float, stop: float) -> bool:
        """Whether the step lies in a window given as fractions of the schedule, `start` included, `stop` not."""
        return start * self.count <= self.index + 1e-9 and self.index < stop * self.count - 1e-9


RowKey = tuple[str, Half]


def of_lane(outputs: Mapping[RowKey, Tensor], name: str) -> dict[Half, Tensor]:
    """Of the outputs of rows those of one lane, by half."""
    return {half: output for (lane, half), output in outputs.items() if lane == name}


def row_keys(lanes: Mapping[str, Lane]) -> list[RowKey]:
    """All rows of all lanes, in the order in which a plain step stacks them."""
    return [(name, half) for name, lane in lanes.items() for half in lane.halves]


class Denoiser:
    """Runs named rows through the network in one call.

    Args:
        network: the model.
        call: how it is called.
        attention_kwargs: passed on to the attention processors, as in diffusers.
        read: what is captured at a structure site -> features (rows, tokens, C), given the network and the latents'
            (height, width); None = they are that already.
        rescale: of guided outputs; None = they are used as they are.
        parts: site -> the picture's tokens in what passes there, given the same; None = they are all of it.
        told: a lane's guidance scale -> what the network is told of it, as `guidance` (rows,); None = it is told
            nothing.
    """

    def __init__(
        self,
        network: nn.Module,
        call: Call,
        attention_kwargs: dict[str, Any] | None = None,
        read: Read | None = None,
        rescale: Rescale | None = None,
        parts: Parts | None = None,
        told: Callable[[float], float] | None = None,
    ) -> None:
        self.network, self.call, self.attention_kwargs, self.read = network, call, attention_kwargs, read
        self.rescale, self.parts, self.told = rescale, parts, told

    def features(self, captured: Mapping[str, Tensor], latents: Tensor) -> dict[str, Tensor]:
        """What was captured at structure sites, for latents (rows, C, h, w), as features (rows, tokens, C)."""
        if self.read is None:
            return dict(captured)
        size = (latents.shape[-2], latents.shape[-1])
        return {site: self.read(self.network, value, size) for site, value in captured.items()}

    def rows(self, lanes: Mapping[str, Lane], keys: Sequence[RowKey], timestep: float) -> dict[RowKey, Tensor]:
        """The network's outputs (B, C, h, w) of the rows `keys`, stacked in that order."""
        latents = torch.cat([lanes[name].latents for name, _ in keys])
        halves = [(lanes[name].prompt.half(half), self._added(lanes[name], half)) for name, half in keys]
        embeds, added = zip(*of_one_length(halves), strict=True)
        output = self.forward(latents, timestep, torch.cat(embeds), _stack_added(added))
        parts = output.split([lanes[name].latents.shape[0] for name, _ in keys])
        return dict(zip(keys, parts, strict=True))

    def guided(self, lane: Lane, outputs: Mapping[Half, Tensor]) -> Tensor:
        """A lane's guided output from those of its halves, (B, C, h, w)."""
        return lane.combine({half: outputs[half] for half in lane.halves}, self.rescale)

    def _added(self, lane: Lane, half: Half) -> Mapping[str, Tensor] | None:
        added = lane.prompt.added.get(half)
        if self.told is None:
            return added
        shape = (lane.latents.shape[0],)
        scale = torch.full(shape, self.told(lane.guidance_scale), dtype=torch.float32, device=lane.latents.device)
        return {**(added or {}), "guidance": scale}

    def forward(
        self, latents: Tensor, timestep: float | Tensor, embeds: Tensor, added: dict[str, Tensor] | None = None
    ) -> Tensor:
        """One call; `timestep` may be a tensor with one value a row."""
        return self.call(self.network, latents.to(embeds.dtype), timestep, embeds, added, self.attention_kwargs)


def stacked(prompts: Sequence[Prompt]) -> Prompt:
    """Prompts of one length, all with an unconditional half or none, as one of their rows together."""
    first = prompts[0]
    uncond = None if first.uncond is None else torch.cat([one.half("uncond") for one in prompts])
    added = {half: _stack_added([one.added[half] for one in prompts]) or {} for half in first.added}
    return Prompt(torch.cat([one.cond for one in prompts]), uncond, added)


EncodedHalf = tuple[Tensor, Mapping[str, Tensor] | None]
"""Embeddings (B, tokens, C) of one half of a prompt, and its added inputs."""


def of_one_length(halves: Sequence[EncodedHalf]) -> list[EncodedHalf]:
    """The same with as many tokens each: zeros, which no mask tells, behind the shorter ones that have a mask."""
    longest = max(embeds.shape[1] for embeds, _ in halves)
    return [_lengthened(*half, longest - half[0].shape[1]) for half in halves]


def _lengthened(embeds: Tensor, added: Mapping[str, Tensor] | None, more: int) -> EncodedHalf:
    if not more or added is None or TEXT_MASK not in added:
        return embeds, added
    return pad(embeds, (0, 0, 0, more)), {**added, TEXT_MASK: pad(added[TEXT_MASK], (0, more))}


def _stack_added(added: Sequence[Mapping[str, Tensor] | None]) -> dict[str, Tensor] | None:
    present = [entry for entry in added if entry]
    if not present:
        return None
    return {name: torch.cat([entry[name] for entry in present]) for name in present[0]}


class Controller:
    """Plain classifier-free-guided sampling; methods override what they change."""

    def repeats(self, step: Step) -> int:
        """How many more times a step is taken after the first; `before` takes the latents back to its noise level."""
        return 0

    def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
        """Names of the lanes that take this step; a lane that is no longer needed is left out."""
        return tuple(lanes)

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """May change latents before they are denoised."""

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided model output of each active lane."""
        outputs = denoiser.rows(lanes, row_keys(lanes), step.timestep)
        return {name: denoiser.guided(lane, of_lane(outputs, name)) for name, lane in lanes.items()}

    def noise(self, step: Step, name: str, lane: Lane, generators: Sequence[torch.Generator] | None) -> Tensor:
        """Noise that a stochastic step adds to a lane, (B, C, h, w), unit variance."""
        return _noise(lane.latents, generators)

    def after(self, step: Step, lanes: dict[str, Lane]) -> None:
        """May change latents after the step."""


OnStep = Callable[[Step, dict[str, Lane]], bool | None]


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    path: Path,
    lanes: dict[str, Lane],
    timesteps: Sequence[float],
    controller: Controller | None = None,
    *,
    eta: float = 0.0,
    generators: Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> dict[str, Lane]:
    """Denoise all lanes along `timesteps`.

    Args:
        path: with a grid.
        lanes: changed in place and returned.
        timesteps: descending; a tail of the path's grid starts in the middle.
        eta: DDIM's stochasticity, 0 to 1; needs `generators`.
        generators: one CPU generator an image, so that an image does not depend on the batch it is in.
        on_step: called after each step; returning True ends the loop.
    """
    controller = controller or Controller()
    for index, timestep in enumerate(timesteps):
        step = Step(index, len(timesteps), number(timestep))
        for repeat in range(1 + controller.repeats(step)):
            _take(denoiser, path, lanes, replace(step, repeat=repeat), controller, eta, generators)
        if on_step is not None and on_step(step, lanes):
            break
    return lanes


def _take(
    denoiser: Denoiser,
    path: Path,
    lanes: Mapping[str, Lane],
    step: Step,
    controller: Controller,
    eta: float,
    generators: Sequence[torch.Generator] | None,
) -> None:
    """Take one step with the lanes that are active in it."""
    active = {name: lanes[name] for name in controller.active(step, lanes)}
    controller.before(step, active)
    outputs = controller.predict(step, active, denoiser)
    for name, lane in active.items():
        output = outputs[name].to(lane.latents.dtype)
        noise = controller.noise(step, name, lane, generators) if eta > 0 else None
        lane.clean, _ = path.split(output, lane.latents, step.timestep)
        lane.latents = path.step(output, lane.latents, step.timestep, eta=eta, noise=noise)
    controller.after(step, active)


def _noise(latents: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    return randn_tensor(
        latents.shape, generator=list(generators) if generators else None, device=latents.device, dtype=latents.dtype
    )
