"""Numbers that are none end a run where they arise, before they are cached or become a black picture."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.path import Path
from freectl.errors import FreectlError

TOGETHER = 8
"""Calls whose numbers are looked at together where looking means waiting."""
NO_SIGNAL = 1e-6
"""A share of the picture in a noisy latent below which it is none."""


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are numbers; whole ones always are."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def check_finite(tensor: Tensor, what: str, cause: str) -> None:
    """End a run whose numbers are none.

    Args:
        what: the tensor, in words. cause: what it likely comes from, in words.

    Raises:
        FreectlError: a value is infinite or not a number.
    """
    if not is_finite(tensor):
        raise FreectlError(f"{what}: not finite (NaN or infinite); likely cause: {cause}")


def cause_in(network: Any, dtype: torch.dtype, name: str = "network") -> str:
    """What makes the output of a network, whose `name` is said, not finite though its inputs are."""
    weights = network.state_dict().items()
    broken = next((key for key, weight in weights if not weight.is_meta and not is_finite(weight)), None)
    if broken is not None:
        return f"{name} weights that are not numbers, in the model or a LoRA, such as {broken}"
    if dtype == torch.float16:
        return f"a {name} in fp16, which ends at 65504: try bf16 or fp32, or one made for fp16"
    return f"{name} weights or an adapter far too large"


def cause_of_step(path: Path) -> str:
    """What makes latents that a step led to not finite."""
    last = path.length - 1
    if path.kind == "epsilon" and path.coefficients(last)[0] < NO_SIGNAL:
        return (
            f"a schedule without signal at timestep {last} (zero terminal SNR), which a model that predicts noise "
            "cannot leave: try timestep_spacing 'leading', or prediction_type 'v_prediction' if it was trained so"
        )
    return "a guidance or energy weight far too large, or fp16: try smaller weights, bf16 or fp32"


@dataclass(frozen=True)
class _Called:
    """What one call was given and gave, and where that was."""

    network: nn.Module
    doing: str
    time: float | Tensor
    latents: Tensor
    embeds: Tensor
    output: Tensor

    def place(self) -> str:
        """In words."""
        time = float(torch.as_tensor(self.time).max())
        return f"at timestep {time:g}{f' of {self.doing}' if self.doing else ''}"


class FiniteCall:
    """A network's call (`freectl.denoising.sampler.Call`) that ends the run at the first number that is none.

    To look at numbers of an accelerator is to wait for it: there several calls are looked at together, and `check`
    looks at what is left.

    Args:
        call: the family's own.
        path: the schedule, which tells causes.
        every: calls that are looked at together; None = one on the CPU, `TOGETHER` elsewhere.

    Attributes:
        doing: what the run does at the time, in words.
    """

    def __init__(self, call: Any, path: Path, every: int | None = None) -> None:
        self.call, self.path, self.every, self.doing = call, path, every, ""
        self._open: list[_Called] = []

    def __call__(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor:
        """As the family's call.

        Raises:
            FreectlError: latents, text or output hold values that are not finite, here or in a call shortly before.
        """
        output = self.call(network, latents, time, embeds, added, attention_kwargs)
        self._open.append(_Called(network, self.doing, time, latents.detach(), embeds, output.detach()))
        if len(self._open) >= (self.every or (1 if output.device.type == "cpu" else TOGETHER)):
            self.check()
        return output

    def check(self) -> None:
        """Look at the calls that have not been looked at.

        Raises:
            FreectlError: latents, text or output of one of them, which is named, are not finite.
        """
        calls, self._open = self._open, []
        if not calls or bool(torch.stack([torch.isfinite(one.output).all() for one in calls]).all()):
            return
        one = next(one for one in calls if not is_finite(one.output))
        check_finite(one.latents, f"{one.place()}: latents", cause_of_step(self.path))
        check_finite(one.embeds, f"{one.place()}: text embeddings", "the text encoder or a learnt word, or fp16")
        check_finite(one.output, f"{one.place()}: the network's output", cause_in(one.network, one.output.dtype))
