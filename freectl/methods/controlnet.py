"""ControlNet (Zhang et al., ICCV 2023, arXiv 2302.05543): a trained copy of the encoder that reads a condition."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from freectl.denoising.taps import More
from freectl.methods.trained_control import TrainedControl, TrainedSettings
from freectl.models.engine import Engine


class ControlNet(TrainedControl[TrainedSettings]):
    """Residuals of a trained network at each skip connection, or after each block of a transformer."""

    name = "controlnet"
    kind = "controlnet"
    summary = "a network trained for one kind of condition adds to the model's layers; --controlnet names it"
    paper = "Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models, ICCV 2023, arXiv 2302.05543"
    equations = """
h_l <- h_l + w r_l(x_t, t, c, condition),  l = the skip connections and the middle of the UNet (blocks of a transformer)
r_l = zero convolutions of a trained copy of the encoder;  then eps = eps_u + s (eps_c - eps_u), both halves steered
"""
    settings = TrainedSettings

    def more(self, engine: Engine, network: Any, picture: Image.Image, settings: TrainedSettings) -> More:
        """Residuals for the rows of a forward."""
        if type(network).__name__ == "SD3ControlNetModel":
            return _of_transformer(engine, network, picture, settings.scale)
        shown = pixels(engine, picture)

        def more(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
            latents, time = args
            down, middle = network(
                latents,
                time,
                encoder_hidden_states=kwargs["encoder_hidden_states"],
                controlnet_cond=shown.expand(latents.shape[0], -1, -1, -1),
                conditioning_scale=settings.scale,
                added_cond_kwargs=kwargs.get("added_cond_kwargs"),
                return_dict=False,
            )
            return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

        return more


def _of_transformer(engine: Engine, network: Any, picture: Image.Image, scale: float) -> More:
    """Stable Diffusion 3's: the condition is encoded as latents, and some networks see no text."""
    shown, config = engine.encode_images([picture]), network.config
    if config.force_zeros_for_pooled_projection:  # InstantX's networks know latents without the shift
        shown = shown + engine.vae.config.shift_factor * engine.vae.config.scaling_factor

    def more(_args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        latents, pooled = kwargs["hidden_states"], kwargs["pooled_projections"]
        samples = network(
            hidden_states=latents,
            controlnet_cond=shown.to(latents.dtype).expand(latents.shape[0], -1, -1, -1),
            conditioning_scale=scale,
            encoder_hidden_states=None if config.joint_attention_dim is None else kwargs["encoder_hidden_states"],
            pooled_projections=torch.zeros_like(pooled) if config.force_zeros_for_pooled_projection else pooled,
            timestep=kwargs["timestep"],
            return_dict=False,
        )[0]
        return {"block_controlnet_hidden_states": samples}

    return more


def pixels(engine: Engine, picture: Image.Image) -> torch.Tensor:
    """A condition as the networks see it, (1, C, H, W), 0 to 1; C is 1 for a picture of grey levels."""
    values = np.atleast_3d(np.asarray(picture, dtype=np.float32)) / 255
    return torch.from_numpy(values).movedim(-1, 0)[None].to(engine.device, engine.dtype)
