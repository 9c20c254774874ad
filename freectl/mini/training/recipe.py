"""The choices that a training run is made of; `SHIPPED` is the embedded model's."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """What shapes the networks and their loss.

    Attributes:
        picture_size: side of the pictures, pixels.
        vae_widths: channels by level; as many levels as halve the picture one time less.
        latent_channels: channels of the latents.
        edges: weight of the absolute error of neighbouring pixels' differences in the VAE's loss.
        widths: UNet channels at 16 x 16, 8 x 8, ...
        attention: which of these levels have attention; the middle always has.
        heads: of every attention.
        flow_blocks, flow_heads: of the transformer; heads are 32 channels wide.
        prediction: what the UNet is asked for.
        weighting: of the squared error over timesteps; "min_snr" is Hang et al. 2023 with gamma 5.
        drop_caption: share of empty captions, for classifier-free guidance.
        reuse: how often a training latent is seen; 1 draws and encodes fresh scenes at every step.
        train_text: whether the text encoder learns with the UNet, or stays random.
    """

    picture_size: int = 64
    vae_widths: tuple[int, ...] = (16, 32, 64)
    latent_channels: int = 8
    edges: float = 0.0
    widths: tuple[int, ...] = (64, 128, 192)
    attention: tuple[bool, ...] = (True, True, False)
    heads: int = 4
    flow_blocks: int = 6
    flow_heads: int = 8
    prediction: Literal["v_prediction", "epsilon"] = "v_prediction"
    weighting: Literal["plain", "min_snr"] = "plain"
    drop_caption: float = 0.10
    reuse: int = 1
    train_text: bool = True

    def facts(self, part: str) -> dict[str, Any]:
        """The fields that shape a part (a key of `PART_FIELDS`): a run goes on with the same ones only."""
        return {name: getattr(self, name) for name in LATENT_FIELDS + PART_FIELDS[part]}


LATENT_FIELDS = ("picture_size", "vae_widths", "latent_channels")
PART_FIELDS: dict[str, tuple[str, ...]] = {
    "vae": ("edges",),
    "decoder": ("edges",),
    "unet": ("widths", "attention", "heads", "prediction", "weighting", "drop_caption", "reuse", "train_text"),
    "flow": ("flow_blocks", "flow_heads", "drop_caption", "reuse"),
}
SMALL = Recipe()
SHIPPED = Recipe(picture_size=128, vae_widths=(16, 32, 64, 96), latent_channels=8, edges=0.3, reuse=8)
RECIPES: dict[int, Recipe] = {64: SMALL, 128: SHIPPED}
"""By the side of the pictures."""
GAMMA = 5.0


def loss_weights(recipe: Recipe, alpha_bar: Tensor) -> Tensor:
    """Weight of the squared error at each of the timesteps whose alpha-bar is given.

    min-SNR is min(SNR, gamma) in terms of the clean latents, which the error of a predicted noise measures by SNR and
    that of a predicted velocity by SNR + 1.
    """
    if recipe.weighting == "plain":
        return alpha_bar.new_ones(alpha_bar.shape)
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=GAMMA) / (snr if recipe.prediction == "epsilon" else snr + 1)
