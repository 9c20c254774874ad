"""Data that ships with the package."""

from pathlib import Path


def prompts_file(name: str) -> Path:
    """A file of `prompts/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "prompts" / name
    return inside if inside.exists() else package.parent / "prompts" / name
