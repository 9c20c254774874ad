"""Labelled pictures side by side."""

import textwrap
from collections.abc import Sequence
from math import ceil
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

Labelled = list[tuple[str, Image.Image]]
_NEAREST = Image.Resampling.NEAREST
LARGEST = 2048
"""Pixels a side of a cell; larger pictures are shown smaller."""


def compare_sheet(pictures: Labelled, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Return the labelled pictures side by side, `columns` a row (default: at most 4), on white.

    `scale` enlarges every picture by that integer; by default small ones grow to about 256 px or the largest one.

    Raises:
        ValueError: no picture, or `columns` or `scale` below 1.
    """
    if not pictures or min(1 if value is None else value for value in (columns, scale)) < 1:
        raise ValueError("a sheet needs a picture, and columns and scale of at least 1")
    columns = min(columns or 4, len(pictures))
    shown = [_shown(picture) for _, picture in pictures]
    target = max(256, *(max(picture.size) for picture in shown))
    cells = [ImageOps.scale(picture, scale or max(1, target // max(picture.size)), _NEAREST) for picture in shown]
    font = ImageFont.load_default(14)
    width = max(cell.width for cell in cells)
    labels = [_wrap(label, font, width) for label, _ in pictures]
    text_height = 18 * max(label.count("\n") + 1 for label in labels) + 4
    height = max(cell.height for cell in cells) + text_height
    gap, rows = 8, ceil(len(cells) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, (cell, label) in enumerate(zip(cells, labels, strict=True)):
        left, top = gap + index % columns * (width + gap), gap + index // columns * (height + gap)
        ImageDraw.Draw(sheet).multiline_text((left, top), label, "black", font, spacing=4)
        sheet.paste(cell, (left, top + text_height))
    return sheet


def stacked(parts: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures below each other, each under its title, on white, as wide as the widest.

    Raises:
        ValueError: no part.
    """
    if not parts:
        raise ValueError("nothing to stack")
    font, gap, head = ImageFont.load_default(18), 8, 30
    width = max(part.width for _, part in parts) + 2 * gap
    titles = [_wrap(title, font, width - 2 * gap) for title, _ in parts]
    heads = [head + 22 * title.count("\n") for title in titles]
    height = sum(part.height for _, part in parts) + sum(heads) + gap * (len(parts) + 1)
    sheet, top = Image.new("RGB", (width, height), "white"), gap
    for (_, part), title, above in zip(parts, titles, heads, strict=True):
        ImageDraw.Draw(sheet).multiline_text((2 * gap, top), title, "black", font, spacing=4)
        sheet.paste(part, (gap, top + above))
        top += above + part.height + gap
    return sheet


def _shown(picture: Image.Image) -> Image.Image:
    if max(picture.size) > LARGEST:
        picture = ImageOps.contain(picture, (LARGEST, LARGEST), Image.Resampling.BOX)
    return picture.convert("RGB")


def _wrap(text: str, font: Any, width: int) -> str:
    for characters in range(max(width // 3, 4), 3, -1):
        lines = textwrap.wrap(text, characters, max_lines=3, placeholder="...")
        if all(font.getlength(line) <= width for line in lines):
            break
    return "\n".join(lines)
