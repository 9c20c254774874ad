"""What `freectl bases` says of a set of bases."""

from typing import Any

from freectl.cli.output import table

SHARES = (1, 2, 3, 8, 16, 32, 64)
TIMESTEPS = 6
FEW = 4
"""Layers that fit on a screen together."""


def facts(bases: Any) -> dict[str, Any]:
    """What bases are made of, and the range and number of their timesteps."""
    keep = ("concept", "prompts", "seeds", "components", "features", "stop", "family", "size", "dtype", "sites", "unet")
    timesteps = sorted({timestep for timestep, _ in bases})
    known = {name: bases.metadata.get(name) for name in keep}
    return {"key": bases.metadata.get("key", ""), **known, "timesteps": [timesteps[0], timesteps[-1], len(timesteps)]}


def explained(bases: Any, sites: list[str], chosen: str) -> tuple[dict, dict[str, list[float]], str]:
    """Facts of the bases, cumulative shares of the variance by timestep and layer, and both as text.

    The text has the shares of all layers if they are few, else of the layer `chosen`.
    """
    from freectl.semantics.pictures import spread

    known = facts(bases)
    kept = max(len(basis.components) for basis in bases.values())
    counts = [count for count in SHARES if count < kept] + [kept]
    shares = {}
    for site in sites:
        for timestep in spread(bases.timesteps(site), TIMESTEPS):
            share = bases[timestep, site].explained_share()
            shares[f"{timestep}/{site}"] = [round(float(share[min(n, len(share)) - 1]), 4) for n in counts]
    whole = all(basis.total_variance is not None for basis in bases.values())
    lines = [f"{key}: {value}" for key, value in known.items()]
    known |= {"components_counted": counts, "share_of": "all directions" if whole else "the kept components"}
    shown = {key: values for key, values in shares.items() if len(sites) <= FEW or key.endswith(f"/{chosen}")}
    rows = [[key, *(f"{100 * share:.1f}%" for share in values)] for key, values in shown.items()]
    head = ["timestep/layer", *map(str, counts)]
    title = f"\nvariance that the first components explain, of {known['share_of']}:"
    return known, shares, "\n".join([*lines, title, table(head, rows)])
