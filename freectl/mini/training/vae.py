"""The autoencoder part: L1 + L2, a small KL term, and noise on the latents so that the decoder forgives the UNet."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from freectl.mini.training.data import batch_rng, scene_batch
from freectl.mini.training.networks import make_vae
from freectl.mini.training.recipe import SHIPPED, Recipe

KL_WEIGHT = 2e-4
DECODER_NOISE = 0.1


class VAEPart:
    """64 px pictures to 16 x 16 x 8 latents and back."""

    name = "vae"

    def __init__(self, recipe: Recipe = SHIPPED) -> None:
        torch.manual_seed(0)
        self.vae = make_vae(recipe).to(memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"vae": self.vae}

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished VAE of the same sizes."""
        self.vae.load_state_dict(AutoencoderKL.from_pretrained(folder / "vae").float().state_dict())

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """Reconstruction of fresh scenes through a noisy latent."""
        _, pictures = scene_batch(batch_rng(seed, step), batch)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        posterior = self.vae.encode(pictures).latent_dist
        latents = posterior.mode()
        noise = torch.randn(latents.shape, generator=generator)
        decoded = self.vae.decode(latents + DECODER_NOISE * noise).sample.float()
        error = decoded - pictures
        square, absolute = error.square().mean(), error.abs().mean()
        latents = latents.float()
        # The spread is pulled to 1 in mean and variance; a learned posterior variance is of no use to a mode-only VAE.
        prior = latents.square().mean()
        smooth = (latents[..., 1:] - latents[..., :-1]).square().mean()
        loss = square + 0.2 * absolute + KL_WEIGHT * prior + KL_WEIGHT * smooth
        psnr = 10 * torch.log10(4 / square.detach())
        return {"loss": loss, "mse": square.detach(), "psnr": psnr, "latent_power": prior.detach()}

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Eight scenes above their reconstructions."""
        _, pictures = scene_batch(batch_rng(-1, 0), 8)
        decoded = self.vae.decode(self.vae.encode(pictures).latent_dist.mode()).sample
        return tile(torch.cat([pictures, decoded]), 8)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the VAE in fp16, its scaling factor set so that the latents have unit variance."""
        _, pictures = scene_batch(batch_rng(-2, 0), 512)
        latents = torch.cat([self.vae.encode(part).latent_dist.mode() for part in pictures.split(64)])
        self.vae.register_to_config(scaling_factor=round(float(1 / latents.std()), 4))
        self.vae.half().save_pretrained(folder)
        self.vae.float()


def tile(pictures: Tensor, columns: int, enlarge: int = 2) -> Image.Image:
    """Pictures (B, 3, H, W), -1 to 1, as one picture."""
    rows = [torch.cat(list(part), dim=-1) for part in pictures.split(columns)]
    sheet = torch.cat(rows, dim=-2).add(1).mul(127.5).round().clamp(0, 255).byte()
    picture = Image.fromarray(sheet.permute(1, 2, 0).numpy())
    return picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST)
