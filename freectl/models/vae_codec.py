"""Pictures to scaled latents and back, with what single VAEs ask for: fp32, the latents' mean and deviation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from freectl.models.finite import cause_in, check_finite, is_finite
from freectl.models.networks import unwrapped


class VaeCodec:
    """Wraps a pipeline's VAE and image processor.

    Args:
        pipe: a pipeline with `vae` and `image_processor`.
        device: where pictures and latents go. dtype: of latents.
        upcast: run an fp16 VAE that asks for it in fp32; diffusers does so for some families only.
    """

    def __init__(self, pipe: Any, device: torch.device, dtype: torch.dtype, *, upcast: bool = False) -> None:
        self.pipe, self.vae, self.device, self.dtype, self.upcast = pipe, pipe.vae, device, dtype, upcast

    @property
    def factor(self) -> int:
        """Pixels to a latent's side."""
        return factor_of(self.vae)

    @property
    def of_videos(self) -> bool:
        """Whether the VAE takes films (B, C, frames, H, W), of which a picture is one of a single frame."""
        return _halvings_in_time(self.vae) is not None

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of one size to scaled latents (B, C, h, w): the posterior's mode, so that inversion repeats.

        Raises:
            FreectlError: latents that are not finite.
        """
        with self._safe_precision():
            pixels = self.pipe.image_processor.preprocess(list(images)).to(self.device, self.vae.dtype)
            encoded = self.vae.encode(pixels[:, :, None] if self.of_videos else pixels)
            # a distilled VAE has no distribution
            latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
            latents = latents[:, :, 0] if self.of_videos else latents
        self._check(latents, "the encoded picture")
        latents = pixel_unshuffle(latents, cells_of(self.vae))
        shift, scale = self._statistics(latents)
        # pixels come channels-last; a cached inversion does not, and kernels of the two layouts round differently
        return ((latents - shift) * scale).to(self.dtype).contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to pictures (B, 3, H, W), -1 to 1.

        Raises:
            FreectlError: pixels that are not finite.
        """
        with self._safe_precision():
            latents = latents.to(self.vae.dtype)
            shift, scale = self._statistics(latents)
            latents = pixel_shuffle(latents / scale + shift, cells_of(self.vae))
            pixels = self.vae.decode(latents[:, :, None] if self.of_videos else latents).sample
            pixels = pixels[:, :, 0] if self.of_videos else pixels
        self._check(pixels, "the decoded picture")
        return pixels

    def _check(self, tensor: Tensor, what: str) -> None:
        if not is_finite(tensor):  # the cause takes a look at all weights
            check_finite(tensor, what, cause_in(unwrapped(self.vae), self.vae.dtype, "VAE"))

    def _statistics(self, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """(shift, scale): scaled = (latents - shift) * scale."""
        config, norm = self.vae.config, getattr(self.vae, "bn", None)
        if norm is not None:
            mean, variance = (x.view(1, -1, 1, 1).to(latents) for x in (norm.running_mean, norm.running_var))
            return mean, (variance + config.batch_norm_eps).rsqrt()
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if mean is None or deviation is None:
            return config.get("shift_factor") or 0.0, config.scaling_factor
        scale = config.get("scaling_factor", 1.0)
        mean, deviation = (torch.tensor(list(x)).view(1, -1, 1, 1).to(latents) for x in (mean, deviation))
        return mean, scale / deviation

    @contextmanager
    def _safe_precision(self) -> Iterator[None]:
        """Some VAEs overflow in fp16: fp32 inside, fp16 again outside."""
        narrow = self.upcast and self.vae.dtype == torch.float16 and bool(self.vae.config.get("force_upcast"))
        if narrow:
            self.vae.to(dtype=torch.float32)
        try:
            yield
        finally:
            if narrow:
                self.vae.to(dtype=torch.float16)


def tile_of(vae: Any) -> int:
    """Pixels to a side of the tiles of a VAE that has such."""
    return vae.tile_sample_min_height if hasattr(vae, "tile_sample_min_height") else vae.tile_sample_min_size


def factor_of(vae: Any) -> int:
    """Pixels to a latent's side."""
    halvings = _halvings_in_time(vae)
    own = 2 ** (len(vae.config.block_out_channels) - 1 if halvings is None else len(halvings))
    return own * cells_of(vae)


def cells_of(vae: Any) -> int:
    """Cells of a VAE's own to the side of a latent's: FLUX.2 normalises 2 x 2 of them together, as channels."""
    return 1 if getattr(vae, "bn", None) is None else int(vae.config.patch_size[0])


def _halvings_in_time(vae: Any) -> Any:
    """For each halving of the side whether a film's frames are halved too; None in a VAE of pictures."""
    return vae.config.get("temperal_downsample")
