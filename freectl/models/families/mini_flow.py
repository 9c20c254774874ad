"""The embedded transformer: Stable Diffusion 3's layout in small, on the embedded world."""

from dataclasses import dataclass
from typing import Any

from freectl.models.families.sd3 import SD3Family
from freectl.models.families.transformer import EVERY_METHOD, FLOW_FREECONTROL
from freectl.models.joint_text import JointTextConditioner

SHAPE = {"num_layers": 6, "num_attention_heads": 8, "attention_head_dim": 32, "in_channels": 8}
"""What tells it from published networks of its class."""


@dataclass(frozen=True, kw_only=True)
class MiniFlowFamily(SD3Family):
    """Transformers of `freectl mini train --part flow`."""

    def fits(self, network: Any) -> bool:
        """Whether blocks, heads and channels are the trained ones'."""
        return all(network.config.get(name) == value for name, value in SHAPE.items())


MINI_FLOW = MiniFlowFamily(
    name="mini-flow",
    network="SD3Transformer2DModel",
    methods=EVERY_METHOD,
    entry="norm1.norm",
    pipeline="freectl.pipelines.sd3:FreeControl3Pipeline",
    text=JointTextConditioner,
    guidance_scale=4.0,
    freecontrol=FLOW_FREECONTROL,
    square=True,
    words="mini",
)
