"""The embedded world and models: pictures of emoji on named colours, and diffusion models trained on them."""

from pathlib import Path

from freectl.files.data import MODEL_DIR

SPRITES = Path(__file__).parent / "sprites.webp"
"""The artwork: a column an object, a row a style, cells of 256 px."""

__all__ = ["MODEL_DIR", "SPRITES"]
