"""Line charts and bars as pictures, for what is measured along the steps of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#0b6fb8", "#c8481c", "#3a8f3a", "#8a4fb0", "#8a6d00", "#555555")
Curve = Sequence[tuple[float, float]]
_LEFT, _RIGHT, _LEGEND, _TOP, _BOTTOM = 76, 18, 110, 34, 52
_GREY, _LIGHT = "#555555", "#dddddd"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart, at most about `most`."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Axes:
    """Where numbers lie in a picture of `size` pixels: `x` and `y` are (low, high), `right` is kept free."""

    size: tuple[int, int]
    x: tuple[float, float]
    y: tuple[float, float]
    right: int

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        across, down = ((value - low) / (high - low) for value, (low, high) in ((x, self.x), (y, self.y)))
        return (
            _LEFT + across * (self.size[0] - _LEFT - self.right),
            self.size[1] - _BOTTOM - down * (self.size[1] - _TOP - _BOTTOM),
        )


def line_chart(
    curves: Mapping[str, Curve],
    title: str,
    x: str,
    y: str,
    *,
    size: tuple[int, int] = (840, 420),
    limits: tuple[float, float] | None = None,
    colours: Sequence[str] = COLOURS,
) -> Image.Image:
    """Curves of points (x, y) with finite coordinates, a legend where there are several, and axes with names.

    Args:
        limits: of the y axis; by default from 0, or the lowest value if that is below, to the highest.

    Raises:
        ValueError: no point.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise ValueError("a chart needs a point")
    low, high = limits or (min(0.0, *(v for _, v in points)), max(v for _, v in points))
    xs = [v for v, _ in points]
    axes = Axes(size, _range(min(xs), max(xs)), _range(low, high), _RIGHT if len(curves) == 1 else _LEGEND)
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    _frame(draw, font, axes, title, x, y)
    for i, (label, curve) in enumerate(curves.items()):
        colour = colours[i % len(colours)]
        places = [axes.place(*point) for point in curve]
        if len(places) > 1:
            draw.line(places, colour, 2, "curve")
        for across, down in places if len(places) < 60 else ():
            draw.ellipse((across - 2, down - 2, across + 2, down + 2), colour)
        if len(curves) > 1:
            draw.text((size[0] - axes.right + 8, _TOP + 18 * i), label, colour, font)
    return image


def _range(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low, low + 1)


def _frame(draw: Any, font: Any, axes: Axes, title: str, x: str, y: str) -> None:
    width, height = axes.size
    draw.text((_LEFT, 8), title, "black", font)
    for value in ticks(*axes.x, most=8):
        place = axes.place(value, axes.y[0])
        draw.line((*place, place[0], place[1] + 4), _GREY)
        draw.text((place[0], place[1] + 6), f"{value:g}", _GREY, font, anchor="ma")
    for value in ticks(*axes.y):
        left, right = axes.place(axes.x[0], value), axes.place(axes.x[1], value)
        draw.line((*left, *right), _LIGHT)
        draw.text((left[0] - 6, left[1]), f"{value:.4g}", _GREY, font, anchor="rm")
    corners = axes.place(axes.x[0], axes.y[1]), axes.place(axes.x[1], axes.y[0])
    draw.rectangle((*corners[0], *corners[1]), outline=_GREY)
    draw.text(((_LEFT + width - axes.right) / 2, height - 8), x, "black", font, anchor="md")
    box = font.getbbox(y)
    name = Image.new("L", (math.ceil(box[2]) + 2, math.ceil(box[3]) + 4), 0)
    ImageDraw.Draw(name).text((0, 0), y, 255, font)
    turned = name.rotate(90, expand=True)
    draw.bitmap((6, max(0, (height - _BOTTOM + _TOP - turned.height) / 2)), turned, "black")


def bars(values: Mapping[str, float], unit: str, *, width: int = 840) -> Image.Image:
    """Horizontal bars, each with its name and its value; no value below 0."""
    row, font = 24, ImageFont.load_default(14)
    image = Image.new("RGB", (width, row * len(values) + 8), "white")
    draw, largest = ImageDraw.Draw(image), max([*values.values(), 1e-12])
    left, right = 120, width - 140
    for i, (name, value) in enumerate(values.items()):
        top = 4 + row * i
        draw.text((8, top + row / 2), name, "black", font, anchor="lm")
        end = left + max(1.0, (right - left) * value / largest)
        draw.rectangle((left, top + 4, end, top + row - 4), COLOURS[i % len(COLOURS)])
        draw.text((end + 8, top + row / 2), f"{value:.3g} {unit}", _GREY, font, anchor="lm")
    return image
