"""Semantic bases by name: cached ones by key or concept, exported files, and those of the embedded model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from freectl.errors import FreectlError, InputError
from freectl.files.data import MODEL_DIR

EMBEDDED = "mini"
SUFFIX = ".safetensors"


def cached_entries() -> list[Any]:
    """The cache's entries of bases, most recently used last; reads headers only."""
    from freectl.files.cache import Cache

    return [entry for entry in Cache().entries() if entry.kind == "bases"]


def check_name(name: str, option: str = "bases") -> None:
    """Check that `name` means one set of bases, without reading it.

    Raises:
        InputError: no such file, no cache entry of that key or concept, or several.
    """
    path = embedded_file() if name == EMBEDDED else Path(name)
    if name != EMBEDDED and path.suffix != SUFFIX:
        find(cached_entries(), name, option)
    elif not path.is_file():
        raise InputError(option, f"no file '{path}'", "a .safetensors file of semantic bases")


def load(name: str, option: str = "bases") -> Any:
    """The `SemanticBases` that `name` means.

    Args:
        name: path ending in .safetensors; "mini" for the embedded model's general ones; beginning of a cache key; or
            the concept of one cache entry.

    Raises:
        InputError: see `check_name`.
        FreectlError: damaged.
    """
    from freectl.files.cache import Cache
    from freectl.semantics.bases import SemanticBases

    check_name(name, option)
    if name == EMBEDDED or Path(name).suffix == SUFFIX:
        return SemanticBases.load(embedded_file() if name == EMBEDDED else name)
    entry = find(cached_entries(), name, option)
    found = Cache().get("bases", entry.key)
    if found is None:
        raise FreectlError(f"bases {entry.key[:12]} are damaged: remove them and build them again")
    return SemanticBases.from_tensors(*found)


def embedded_file() -> Path:
    """The file of the embedded model's general bases."""
    return MODEL_DIR / "bases" / "any.safetensors"


def find(entries: Sequence[Any], name: str, option: str = "bases") -> Any:
    """The one cache entry whose key starts with `name` or whose concept is `name`.

    Raises:
        InputError: none, or several.
    """
    hits = [e for e in entries if e.key.startswith(name) or e.metadata.get("concept") == name]
    if len(hits) == 1:
        return hits[0]
    shown = hits or entries
    listed = ", ".join(f"{e.key[:12]} ({e.metadata.get('concept')})" for e in shown[:6]) or "none stored"
    raise InputError(option, f"{len(hits)} entries named '{name}'", f"one of: {listed}")


def check_usable(
    bases: Any, engine: Any, sites: Sequence[str], timesteps: Sequence[float], components: int, option: str = "bases"
) -> None:
    """Check that a run can use bases that were made for another concept or by other settings.

    Raises:
        InputError: another model's, a layer or a timestep that is not covered, or fewer components than wanted.
    """
    from freectl.models import fingerprint
    from freectl.semantics.analysis import TOLERANCE

    if bases.metadata.get("unet") != fingerprint.fingerprint(engine.network):
        made = f"{bases.metadata.get('family', 'unknown')} weights {str(bases.metadata.get('unet'))[:12]}"
        raise InputError(option, f"bases of another model ({made})", "bases made with this model's weights")
    for site in sites:
        for timestep in timesteps:
            try:
                kept = len(bases.at(timestep, site, TOLERANCE).components)
            except InputError as error:
                raise InputError(option, f"bases without {error.option} {error.found}", error.allowed) from error
            if kept < components:
                raise InputError(option, f"{kept} components in '{site}'", f"{components} or more, as the run uses")
