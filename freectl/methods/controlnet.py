"""ControlNet (Zhang et al., ICCV 2023, arXiv 2302.05543): a trained copy of the encoder that reads a condition."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from freectl.denoising.taps import More
from freectl.errors import InputError
from freectl.methods.setting import setting
from freectl.methods.trained_control import TrainedControl, TrainedSettings
from freectl.models import control_networks
from freectl.models.engine import Engine
from freectl.models.families import FLUX


class ControlNetSettings(TrainedSettings):
    """Those of trained networks, and which of its conditions a union network is given."""

    control_mode: int | None = setting(
        None,
        "which of its kinds of condition a union network is shown, by its number on the network's page; else none",
        ge=0,
        unit="number",
        source="diffusers: control_mode of FLUX",
    )


class ControlNet(TrainedControl[ControlNetSettings]):
    """Residuals of a trained network at each skip connection, or after each block of a transformer."""

    name = "controlnet"
    kind = "controlnet"
    summary = "a network trained for one kind of condition adds to the model's layers; --controlnet names it"
    paper = "Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models, ICCV 2023, arXiv 2302.05543"
    equations = """
h_l <- h_l + w r_l(x_t, t, c, condition),  l = the skip connections and the middle of the UNet (blocks of a transformer)
r_l = zero convolutions of a trained copy of the encoder;  then eps = eps_u + s (eps_c - eps_u), both halves steered
"""
    settings = ControlNetSettings

    def check_files(
        self, settings: ControlNetSettings, model: str | None, family: Any, network: Mapping[str, Any] | None
    ) -> None:
        """As the base's; and a kind of condition is said where a network knows several."""
        super().check_files(settings, model, family, network)
        if config := control_networks.located(settings.controlnet, self.kind, model).configuration():
            _check_mode(config, settings)

    def more(self, engine: Engine, network: Any, picture: Image.Image, settings: ControlNetSettings) -> More:
        """Residuals for the rows of a forward."""
        _check_mode(network.config, settings)
        if type(network).__name__ == "SD3ControlNetModel":
            return _of_transformer(engine, network, picture, settings.scale)
        if type(network).__name__ == "FluxControlNetModel":
            return _of_packed(engine, network, picture, settings)
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


def _of_packed(engine: Engine, network: Any, picture: Image.Image, settings: ControlNetSettings) -> More:
    """FLUX's: the condition is encoded and packed as latents are, or read as pixels by the network's own layers."""
    hinted = network.input_hint_block is not None  # such networks have fewer residuals, each for several blocks
    shown = (
        2 * pixels(engine, picture.convert("RGB")) - 1
        if hinted
        else engine.family.packed(engine.network, engine.encode_images([picture]))
    )

    def more(_args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        latents, guidance = kwargs["hidden_states"], None
        rows = latents.shape[0]
        if network.config.guidance_embeds:
            default = torch.full((rows,), FLUX.guidance_scale, device=latents.device)
            guidance = kwargs.get("guidance", default)
        mode = None
        if settings.control_mode is not None:
            mode = torch.full((rows, 1), settings.control_mode, device=latents.device)
        double, single = network(
            hidden_states=latents,
            controlnet_cond=shown.to(latents.dtype).expand(rows, *shown.shape[1:]),
            controlnet_mode=mode,
            conditioning_scale=settings.scale,
            guidance=guidance,
            return_dict=False,
            **{name: kwargs[name] for name in _PACKED},
        )
        return {
            "controlnet_block_samples": double,
            "controlnet_single_block_samples": single,
            "controlnet_blocks_repeat": hinted,
        }

    return more


_PACKED = ("timestep", "pooled_projections", "encoder_hidden_states", "txt_ids", "img_ids")
"""What FLUX's ControlNets are told as the transformer is."""


def _check_mode(config: Mapping[str, Any], settings: ControlNetSettings) -> None:
    """Whether a kind of condition is given where the network knows several, and nowhere else.

    Raises:
        InputError: it is not.
    """
    kinds, given = config.get("num_mode"), settings.control_mode
    if kinds is None and given is not None:
        raise InputError("--set control_mode", f"{given} for a network of one kind of condition", "none")
    if kinds is not None and (given is None or given >= kinds):
        raise InputError("--set control_mode", "none" if given is None else str(given), f"0 to {kinds - 1}")


def pixels(engine: Engine, picture: Image.Image) -> torch.Tensor:
    """A condition as the networks see it, (1, C, H, W), 0 to 1; C is 1 for a picture of grey levels."""
    values = np.atleast_3d(np.asarray(picture, dtype=np.float32)) / 255
    return torch.from_numpy(values).movedim(-1, 0)[None].to(engine.device, engine.dtype)
