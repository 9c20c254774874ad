"""The embedded world and model: pictures of emoji on named colours, and a latent diffusion model trained on them."""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
SPRITES = Path(__file__).parent / "sprites.webp"
