"""The choices that a training run is made of; the defaults are the shipped model's, found with `compare`."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """What shapes the networks and their loss.

    Attributes:
        vae_widths: channels by level; as many levels as halve the picture one time less.
        latent_channels: channels of the latents.
        widths: UNet channels at 16 x 16, 8 x 8, ... (with three VAE levels).
        attention: which of these levels have attention; the middle always has.
        heads: of every attention.
        prediction: what the UNet is asked for.
        weighting: of the squared error over timesteps; "min_snr" is Hang et al. 2023 with gamma 5.
        drop_caption: share of empty captions, for classifier-free guidance.
        train_text: whether the text encoder learns with the UNet, or stays random.
    """

    vae_widths: tuple[int, ...] = (16, 32, 64)
    latent_channels: int = 8
    widths: tuple[int, ...] = (64, 128, 192)
    attention: tuple[bool, ...] = (True, True, False)
    heads: int = 4
    prediction: Literal["v_prediction", "epsilon"] = "v_prediction"
    weighting: Literal["plain", "min_snr"] = "plain"
    drop_caption: float = 0.10
    train_text: bool = True


SHIPPED = Recipe()
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
