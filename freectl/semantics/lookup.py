"""Semantic bases by name: cached ones by key or concept, exported files, and those of the embedded model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files import tensor_files
from freectl.files.data import MODEL_DIR
from freectl.files.paths import at_home, check_file

EMBEDDED = "mini"
SUFFIX = ".safetensors"


def cached_entries() -> list[Any]:
    """The cache's entries of bases, most recently used last; reads headers only."""
    from freectl.files.cache import Cache

    return [entry for entry in Cache().entries() if entry.kind == "bases"]


def check_name(name: str, option: str = "bases") -> None:
    """Check that `name` means one set of bases; of a file the header is read.

    Raises:
        InputError: no such file, or one that is not whole; no cache entry of that key or concept, or several.
    """
    if (path := _file(name)) is None:
        find(cached_entries(), name, option)
    else:
        tensor_files.checked(check_file(path, option, tensor_files.BASES), option, allowed=tensor_files.BASES)


def load(name: str, option: str = "bases") -> Any:
    """The `SemanticBases` that `name` means.

    Args:
        name: path ending in .safetensors; "mini" for the embedded model's general ones; beginning of a cache key; or
            the concept of one cache entry.

    Raises:
        InputError: see `check_name`; or damaged.
    """
    from freectl.files.cache import Cache
    from freectl.semantics.bases import SemanticBases

    if (path := _file(name)) is not None:
        return SemanticBases.load(path, option=option)
    entry = find(cached_entries(), name, option)
    found = Cache().get("bases", entry.key)
    if found is None:
        said = f"'{name}', whose cache entry {entry.key[:12]} is damaged"
        raise InputError(option, said, "bases that are removed and built again")
    return SemanticBases.from_tensors(*found, option)


def _file(name: str) -> Path | None:
    """The file that a name means, or None for an entry of the cache."""
    if name == EMBEDDED:
        return embedded_file()
    return at_home(name) if name.endswith(SUFFIX) else None


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
                basis = bases.at(timestep, site, TOLERANCE)
            except InputError as error:
                raise InputError(option, f"bases without {error.option} {error.found}", error.allowed) from error
            _check_basis(basis, f"timestep {timestep:g}, '{site}'", _width(engine, site, option), option)
            kept = len(basis.components)
            if kept < components:
                raise InputError(option, f"{kept} components in '{site}'", f"{components} or more, as the run uses")


def check_whole(bases: Any, engine: Any, option: str = "bases") -> None:
    """Check every basis of a set against the model that it says it was made with, as a file from elsewhere needs.

    Raises:
        InputError: another model's, a layer that the model has not, another width, or values that are not numbers.
    """
    sites = {site for _, site in bases}
    for site in sorted(sites):
        check_usable(bases, engine, [site], bases.timesteps(site), 1, option)


def alike(one: Any, other: Any) -> bool:
    """Whether two sets hold the same bases, to the rounding of a file in 16 bits."""
    if set(one) != set(other):
        return False
    return all(
        one[key].components.shape == other[key].components.shape
        and one[key].components.allclose(other[key].components, atol=1e-3)
        and one[key].mean.allclose(other[key].mean, rtol=1e-3, atol=1e-5)
        for key in one
    )


def _width(engine: Any, site: str, option: str) -> int:
    """Channels of a tapped layer's output."""
    try:
        layer = engine.network.get_submodule(site)
    except AttributeError:
        raise InputError(
            option, f"bases of a layer '{site}', which this model has not", "bases of its layers"
        ) from None
    return int(layer.weight.shape[0])


def _check_basis(basis: Any, where: str, width: int, option: str) -> None:
    """Raises InputError: shapes that do not belong together or to the layer, or values that are not numbers."""
    count = len(basis.components)
    wanted = {"mean": (width,), "components": (count, width), "explained_variance": (count,), "total_variance": ()}
    for name, shape in wanted.items():
        tensor = getattr(basis, name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise InputError(option, f"bases with {name} of the shape {tuple(tensor.shape)} at {where}", str(shape))
        if not tensor.isfinite().all():
            raise InputError(option, f"bases with {name} that is not finite at {where}", "numbers")
