"""Numbers that are none end a run where they arise, before they are cached or become a black picture."""

from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.path import Path
from freectl.errors import FreectlError

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


class FiniteCall:
    """A network's call (`freectl.denoising.sampler.Call`) that ends the run at the first number that is none.

    Args:
        call: the family's own.
        path: the schedule, which tells causes.

    Attributes:
        doing: what the run does at the time, in words.
    """

    def __init__(self, call: Any, path: Path) -> None:
        self.call, self.path, self.doing = call, path, ""

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
            FreectlError: latents, text or output hold values that are not finite.
        """
        output = self.call(network, latents, time, embeds, added, attention_kwargs)
        if not is_finite(output):
            place = f"at timestep {float(torch.as_tensor(time).max()):g}{f' of {self.doing}' if self.doing else ''}"
            check_finite(latents, f"{place}: latents", cause_of_step(self.path))
            check_finite(embeds, f"{place}: text embeddings", "the text encoder or a learnt word, or fp16")
            check_finite(output, f"{place}: the network's output", cause_in(network, output.dtype))
        return output
