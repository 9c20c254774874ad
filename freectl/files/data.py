"""Data that ships with the package."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from freectl.files.paths import is_file

MODEL_DIR = Path(__file__).parents[1] / "mini" / "model"
"""The embedded model, in Stable Diffusion's layout; further generators of its world lie in it."""
_GENERATORS = {"mini": MODEL_DIR, "mini-flow": MODEL_DIR / "flow"}
EMBEDDED: Mapping[str, Path] = MappingProxyType(
    {name: folder for name, folder in _GENERATORS.items() if is_file(folder / "model_index.json")}
)
"""The models that ship with the package, by name."""


def prompts_file(name: str) -> Path:
    """A file of `prompts/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "prompts" / name
    return inside if is_file(inside) else package.parent / "prompts" / name
