"""What was seen of a run, as one picture and as plain JSON."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from freectl.denoising.attention_maps import nearest_grid
from freectl.denoising.cost import STAGES
from freectl.files.chart import bars, line_chart
from freectl.files.pictures import Labelled, compare_sheet
from freectl.files.sheet import stacked
from freectl.semantics.pictures import coloured, spread
from freectl.tasks.explain import Compared, Explained

COLUMNS, CELL, DECIMALS = 6, 160, 4
Part = tuple[str, Image.Image]


def sheet(explained: Explained) -> Image.Image:
    """Everything that was seen, below each other; what a method does not have is left out."""
    parts = [_overview(explained), *_components(explained), *_energies(explained), *_estimates(explained)]
    return stacked([*parts, *_attention(explained), _cost(explained)])


def facts(explained: Explained) -> dict[str, Any]:
    """The same in numbers: the run's record, and what its sheet shows."""
    inside, size = explained.inside, explained.guidance[0].size
    return {
        "record": explained.result.record,
        "site": inside.site or None,
        "energies": explained.result.trace,
        "compared": [_numbers(one, size) for one in _shown(inside.seen)],
        "masks": [{"guidance": i, **_grid(mask, size)} for i, mask in _masks(inside.seen)],
        "estimates": [{"step": step, "of": count} for step, count, _ in explained.estimates],
        "alignment": explained.alignment,
        "attention": [
            {"lane": lane, "token": token, "position": place, **_grid(inside.maps[lane][:, place], size)}
            for lane, place, token, _ in _tokens(explained)
        ],
    }


def fitting(picture: Image.Image) -> Image.Image:
    """At the size of a cell: large pictures smaller, small ones whole pixels larger."""
    longest = max(picture.size)
    if longest > CELL:
        scale = CELL / longest
        return picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    return picture.resize([side * max(1, CELL // longest) for side in picture.size], Image.Resampling.NEAREST)


def _row(cells: Labelled, columns: int = COLUMNS) -> Image.Image:
    return compare_sheet([(label, fitting(picture)) for label, picture in cells], columns, scale=1)


def masked(picture: Image.Image, mask: Tensor) -> Image.Image:
    """A picture, pale where the mask (tokens,) is 0."""
    rows, columns = nearest_grid(len(mask), picture.size)
    grid = Image.fromarray((mask.view(rows, columns) * 255).to(torch.uint8).numpy())
    return Image.composite(picture.convert("RGB"), pale(picture), grid.resize(picture.size, Image.Resampling.NEAREST))


def pale(picture: Image.Image) -> Image.Image:
    """Four fifths of the way to white."""
    return Image.blend(picture.convert("RGB"), Image.new("RGB", picture.size, "white"), 0.8)


def _overview(explained: Explained) -> Part:
    record, several = explained.result.record, len(explained.guidance) > 1
    name = "guidance" if record.get("command") == "control" else "input"
    cells = [(f"{name} {i + 1}" if several else name, one) for i, one in enumerate(explained.guidance)]
    cells += [("mask: pale is free", masked(explained.guidance[i], mask)) for i, mask in _masks(explained.inside.seen)]
    if explained.result.kept:
        cells.append(("kept: pale may change", _kept(explained)))
    title = f"{record['method']}, {record['model']}, {record['steps']} steps: {record['prompt']}"
    return title, _row([*cells, ("result", explained.result.image)])


def _kept(explained: Explained) -> Image.Image:
    picture, kept = explained.guidance[0].convert("RGB"), explained.result.kept[0]  # type: ignore[index]
    return Image.composite(picture, pale(picture), kept.resize(picture.size))


def _masks(seen: Sequence[Compared]) -> list[tuple[int, Tensor]]:
    """The mask of each guidance picture that has one, as it was last: attention is averaged over the steps so far."""
    return [(i, mask) for i, mask in {one.guidance: one.mask for one in seen}.items() if mask is not None]


def _shown(seen: Sequence[Compared]) -> list[Compared]:
    chosen = set(spread([one.time for one in seen], COLUMNS))
    return [one for one in seen if one.time in chosen]


def _components(explained: Explained) -> list[Part]:
    found: list[Part] = []
    for i, picture in enumerate(explained.guidance):
        shown = [one for one in _shown(explained.inside.seen) if one.guidance == i]
        pairs = [coloured(torch.stack([one.wanted, one.own]), picture.size) for one in shown]
        guidance = [(f"guidance, t = {one.time:.4g}", pair[0]) for one, pair in zip(shown, pairs, strict=True)]
        own = [(f"picture, off by {one.distance:.2g}", pair[1]) for one, pair in zip(shown, pairs, strict=True)]
        if shown:
            which = f" of guidance {i + 1}" if len(explained.guidance) > 1 else ""
            title = f"Semantic components 1, 2, 3 as red, green, blue{which} (equal colours: equal meaning)"
            # compare_sheet fills rows of COLUMNS: short rows are made their own sheets' width
            found.append(
                (title, compare_sheet([(label, fitting(one)) for label, one in [*guidance, *own]], len(shown), 1))
            )
    return found


def _energies(explained: Explained) -> list[Part]:
    trace = explained.result.trace
    names = [name for name in (trace[0] if trace else ()) if name != "timestep"]
    parts: list[Image.Image] = []
    for name in names:
        curve = [(step, one[name]) for step, one in enumerate(trace, start=1)]
        if any(value for _, value in curve):
            colour = ("#0b6fb8", "#c8481c")[len(parts) % 2]
            parts.append(line_chart({name: curve}, f"{name} energy", "guided step", "energy", size=(500, 280),
                                    colours=[colour]))  # fmt: skip
    return [("Energies at the guided steps", _beside(parts))] if parts else []


def _beside(parts: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (sum(one.width for one in parts), max(one.height for one in parts)), "white")
    left = 0
    for one in parts:
        sheet.paste(one, (left, 0))
        left += one.width
    return sheet


def _estimates(explained: Explained) -> list[Part]:
    cells = [(f"step {step} of {count}", picture) for step, count, picture in explained.estimates]
    return [("Estimate of the clean picture", _row(cells))] if cells else []


def _tokens(explained: Explained) -> list[tuple[str, int, str, str]]:
    """Lane, position, token and what is said of it, for each word of both prompts whose map was read."""
    if explained.alignment is None or not explained.inside.maps:
        return []
    sources: dict[int, str] = {}
    targets = []
    for one in explained.alignment["tokens"]:
        sources |= {source["position"]: source["token"] for source in one["sources"]}
        of = ", ".join(source["token"].removesuffix("</w>") for source in one["sources"])
        said = f"map of {of}" if of else "its own map"
        factor = "" if one["factor"] == 1 else f", times {one['factor']:g}"
        targets.append(("edit", one["position"], one["token"], f"{said}{factor}"))
    return [*(("source", place, token, "") for place, token in sorted(sources.items())), *targets]


def _attention(explained: Explained) -> list[Part]:
    size = explained.guidance[0].size
    cells: dict[str, Labelled] = {"source": [], "edit": []}
    for lane, place, token, said in _tokens(explained):
        values = explained.inside.maps[lane][:, place]
        rows, columns = nearest_grid(len(values), size)
        grid = (values / values.max().clamp(min=1e-12) * 255).to(torch.uint8).view(rows, columns).numpy()
        picture = Image.fromarray(grid).resize(size, Image.Resampling.NEAREST)
        cells[lane].append((f"{token.removesuffix('</w>')}: {said}" if said else token.removesuffix("</w>"), picture))
    titles = {"source": "Attention to each token of the source prompt", "edit": "and of the prompt, as it acts"}
    return [(titles[lane], _row(some)) for lane, some in cells.items() if some]


def _cost(explained: Explained) -> Part:
    cost = explained.result.cost
    hits = ", ".join(name for name, hit in cost["cached"].items() if hit) or "nothing"
    title = f"Cost: {cost['row_forwards']:g} row forwards, {cost['row_backwards']} backwards; from the cache: {hits}"
    return title, bars({name: cost["seconds"][name] for name in STAGES}, "s")


def _rounded(values: Tensor) -> list[Any]:
    return [round(value, DECIMALS) for value in values.flatten().tolist()]


def _grid(values: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """Values (tokens,) row by row."""
    return {"grid": list(nearest_grid(len(values), size)), "values": _rounded(values)}


def _numbers(one: Compared, size: tuple[int, int]) -> dict[str, Any]:
    sides = {name: [_rounded(token) for token in getattr(one, name)] for name in ("wanted", "own")}
    grid = list(nearest_grid(len(one.own), size))
    return {"guidance": one.guidance, "timestep": one.time, "distance": one.distance, "grid": grid, **sides}
