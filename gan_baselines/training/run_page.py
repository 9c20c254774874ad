"""A run's static page: curves as SVG and a bounded number of sample grids. Works from a file, without scripts."""

import html
import re
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from gan_baselines.data.pictures import save_image, shown, to_image
from gan_baselines.files import replace_text
from gan_baselines.training.monitor import Curves

MAX_GRIDS = 24
_COLOURS = (
    "#1b6ca8",
    "#c8553d",
    "#3a7d44",
    "#8f5da2",
    "#b8860b",
    "#4a4e69",
    "#d1495b",
    "#00798c",
    "#6b705c",
    "#9c6644",
)
_WIDTH, _HEIGHT = 720, 240
_STYLE = "body{font:15px sans-serif;margin:2em;max-width:60em}img{max-width:100%;image-rendering:pixelated}"


def save_grid(columns: list[Tensor], path: Path, gap: int = 2) -> None:
    """Write pictures (N, C, H, W) in [-1, 1], one tensor a column, as one PNG with a white gap."""
    count, _, height, width = columns[0].shape
    sheet = Image.new("RGB", (len(columns) * (width + gap) - gap, count * (height + gap) - gap), "white")
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            sheet.paste(to_image(shown(picture[None])[0]), (x * (width + gap), y * (height + gap)))
    save_image(sheet, path)


def thin_grids(folder: Path, limit: int = MAX_GRIDS) -> list[Path]:
    """Delete grids until at most `limit` are left, keeping the first, the last and an even spread; return them."""
    grids = sorted(folder.glob("step-*.png"))
    if len(grids) <= limit:
        return grids
    kept_indices = set(torch.linspace(0, len(grids) - 1, limit // 2).round().int().tolist())
    for index, path in enumerate(grids):
        if index not in kept_indices:
            path.unlink()
    return [path for index, path in enumerate(grids) if index in kept_indices]


def write_page(folder: Path, title: str, status: str, curves: Curves, settings: str) -> None:
    """Write folder/index.html from the curves and from folder/samples/."""
    grids = thin_grids(folder / "samples")
    figures = "\n".join(
        f'<figure><img src="samples/{grid.name}" alt=""><figcaption>step {_step_of(grid)}</figcaption></figure>'
        for grid in reversed(grids)
    )
    parts = [
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>',
        f"<h1>{html.escape(title)}</h1><p>{html.escape(status)}</p>",
        *(curve_svg(name, curves) for name in groups(curves)),
        f"<h2>Samples</h2>{figures}",
        f"<h2>Settings</h2><pre>{html.escape(settings)}</pre>",
    ]
    replace_text(folder / "index.html", "\n".join(parts))


def groups(curves: Curves) -> dict[str, list[str]]:
    """Names of loss terms by what they belong to: discriminators (D_...) and generators (the rest)."""
    names = sorted({name for values in curves.values for name in values})
    split = {"Discriminator": [n for n in names if n.startswith("D_")]}
    split["Generator"] = [n for n in names if n not in split["Discriminator"]]
    return {title: members for title, members in split.items() if members}


def curve_svg(title: str, curves: Curves) -> str:
    """One chart as HTML: a line for each term of the group `title`, from zero to the largest value."""
    names = groups(curves)[title]
    top, last = _ranges(names, curves)
    legend = (f'<span style="color:{_colour(i)}">{html.escape(name)}</span>' for i, name in enumerate(names))
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" style="border:1px solid #ccc"'
    caption = f"<p>{' · '.join(legend)}; 0 to {top:.3g} over {last} steps</p>"
    return f"<h2>{title} losses</h2><svg {box}>{_lines(names, curves)}</svg>{caption}"


def write_figure(title: str, curves: Curves, path: Path) -> None:
    """Write all terms of a run as one SVG file, on one scale from zero to the largest value."""
    names = [name for members in groups(curves).values() for name in members]
    top, last = _ranges(names, curves)
    texts = [f'<text x="8" y="18" fill="#000">{html.escape(title)}: 0 to {top:.3g} over {last} steps</text>']
    texts += [
        f'<text x="8" y="{36 + 16 * i}" fill="{_colour(i)}">{html.escape(name)}</text>' for i, name in enumerate(names)
    ]
    body = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff" stroke="#ccc"/>{_lines(names, curves)}'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
    replace_text(path, f'{head}font-size="13">{body}{"".join(texts)}</svg>\n')


def _ranges(names: list[str], curves: Curves) -> tuple[float, int]:
    top = max((values.get(name, 0.0) for values in curves.values for name in names), default=0.0) or 1.0
    return top, max(curves.steps[-1], 1)


def _lines(names: list[str], curves: Curves) -> str:
    top, last = _ranges(names, curves)
    lines = []
    for index, name in enumerate(names):
        points = " ".join(
            f"{_WIDTH * step / last:.1f},{_HEIGHT * (1 - max(values[name], 0.0) / top):.1f}"
            for step, values in zip(curves.steps, curves.values, strict=True)
            if name in values
        )
        lines.append(f'<polyline fill="none" stroke="{_colour(index)}" points="{points}"/>')
    return "".join(lines)


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _step_of(path: Path) -> int:
    match = re.search(r"\d+", path.stem)
    return int(match[0]) if match else 0
