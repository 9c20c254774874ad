"""The embedded world and models: pictures of emoji on named colours, and diffusion models trained on them."""

from pathlib import Path

from freectl.files.data import MODEL_DIR

MODEL_128_DIR = Path(__file__).parent / "model_128"
"""The autoencoder of the world at 128 px; the parts that learn on its latents are not finished."""
SPRITES = Path(__file__).parent / "sprites.webp"
"""Cells of 96 px, for pictures of up to 64 px: what the shipped weights were trained on."""
SPRITES_FINE = Path(__file__).parent / "sprites_fine.webp"
"""Cells of 256 px, for larger pictures."""

__all__ = ["MODEL_DIR", "SPRITES", "SPRITES_FINE"]
