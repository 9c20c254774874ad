"""The autoencoder part: L1 + L2, a small KL term, and noise on the latents so that the decoder forgives the UNet."""

import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from freectl.mini.training.data import batch_rng, scene_batch
from freectl.mini.training.networks import make_vae
from freectl.mini.training.optimizers import hidden_matrices
from freectl.mini.training.recipe import SHIPPED, Recipe

KL_WEIGHT = 2e-4
DECODER_NOISE = 0.1


class VAEPart:
    """Pictures to latents of 16 x 16 and back."""

    name = "vae"

    def __init__(self, recipe: Recipe = SHIPPED) -> None:
        torch.manual_seed(0)
        self.recipe = recipe
        self.vae = make_vae(recipe).to(memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"vae": self.vae}
        self.facts = recipe.facts(self.name)

    def matrices(self) -> list[str]:
        """Every convolution between the pictures and the latents."""
        return hidden_matrices(self.modules, ("conv_in", "conv_out", "quant_conv"))

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished VAE; of one with fewer levels, the layers next to the pixels."""
        finished = AutoencoderKL.from_pretrained(folder / "vae").float()
        more = len(self.recipe.vae_widths) - len(finished.config.block_out_channels)
        own = self.vae.state_dict()
        given = {_inward(name, more): value for name, value in finished.state_dict().items()}
        own |= {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
        self.vae.load_state_dict(own)

    def pictures(self, seed: int, step: int, count: int) -> Tensor:
        """Fresh scenes (count, 3, H, W)."""
        return scene_batch(batch_rng(seed, step), count, size=self.recipe.picture_size)[1]

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents (B, C, h, w), unscaled: the mode, for a learned variance is of no use here."""
        return self.vae.encode(pictures).latent_dist.mode()

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """Reconstruction of fresh scenes through a noisy latent."""
        pictures = self.pictures(seed, step, batch).contiguous(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        latents = self.encode(pictures)
        noise = torch.randn(latents.shape, generator=generator)
        error = self.vae.decode(latents + DECODER_NOISE * noise).sample.float() - pictures
        square = error.square().mean()
        latents = latents.float()
        prior = latents.square().mean()
        smooth = (latents[..., 1:] - latents[..., :-1]).square().mean()
        loss = square + 0.2 * error.abs().mean() + KL_WEIGHT * prior + KL_WEIGHT * smooth
        if self.recipe.edges:
            loss = loss + self.recipe.edges * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        psnr = 10 * torch.log10(4 / square.detach())
        return {"loss": loss, "mse": square.detach(), "psnr": psnr, "latent_power": prior.detach()}

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Eight scenes above their reconstructions."""
        pictures = self.pictures(-1, 0, 8)
        decoded = self.vae.decode(self.vae.encode(pictures).latent_dist.mode()).sample
        return tile(torch.cat([pictures, decoded]), 8)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the VAE in fp16, its scaling factor set so that the latents have unit variance."""
        pictures = self.pictures(-2, 0, 512)
        latents = torch.cat([self.vae.encode(part).latent_dist.mode() for part in pictures.split(64)])
        # no shift: pipelines of the Stable Diffusion 3 kind read it, and fail on a VAE without one
        self.vae.register_to_config(scaling_factor=round(float(1 / latents.std()), 4), shift_factor=0.0)
        self.vae.half().save_pretrained(folder)
        self.vae.float()


class DecoderPart(VAEPart):
    """Trains the decoder of a finished autoencoder on: latents, and what was trained on them, stay as they are.

    Args:
        model_dir: holds `vae`, which is written anew.
    """

    name = "decoder"

    def __init__(self, model_dir: Path, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.start_from(model_dir)
        self.vae.encoder.requires_grad_(False)
        self.vae.quant_conv.requires_grad_(False)
        self.modules = {"decoder": self.vae.decoder, "post_quant_conv": self.vae.post_quant_conv}

    def start_from(self, folder: Path) -> None:
        """Take a finished autoencoder of the same sizes, encoder and scaling factor with it."""
        finished = AutoencoderKL.from_pretrained(folder / "vae").float()
        self.vae.load_state_dict(finished.state_dict())
        self.vae.register_to_config(scaling_factor=finished.config.scaling_factor, shift_factor=0.0)

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents without a gradient."""
        with torch.no_grad():
            return super().encode(pictures)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the VAE in fp16, its scaling factor as it was."""
        self.vae.half().save_pretrained(folder)
        self.vae.float()


def _inward(name: str, levels: int) -> str:
    """The name of a decoder's layer when so many levels are put in beside the latents; the encoder's stay."""
    return re.sub(r"(decoder\.up_blocks\.)(\d+)", lambda found: f"{found[1]}{int(found[2]) + levels}", name)


def tile(pictures: Tensor, columns: int, enlarge: int = 2) -> Image.Image:
    """Pictures (B, 3, H, W), -1 to 1, as one picture."""
    rows = [torch.cat(list(part), dim=-1) for part in pictures.split(columns)]
    sheet = torch.cat(rows, dim=-2).add(1).mul(127.5).round().clamp(0, 255).byte()
    picture = Image.fromarray(sheet.permute(1, 2, 0).numpy())
    return picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST)
