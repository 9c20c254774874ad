"""Data that ships with the package."""

from pathlib import Path

from freectl.files.paths import is_file

MODEL_DIR = Path(__file__).parents[1] / "mini" / "model"
"""The embedded model, in Stable Diffusion's layout."""


def prompts_file(name: str) -> Path:
    """A file of `prompts/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "prompts" / name
    return inside if is_file(inside) else package.parent / "prompts" / name
