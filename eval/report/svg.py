"""Plots as inline SVG: points with whiskers, joined to curves, on linear or logarithmic axes. No script, no library."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from eval.report.svg_axes import Axis, Interval

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#444444", "#e6399b")
"""Told apart by colour-blind readers too (after Okabe and Ito); dark enough on white."""
SHAPES = ("circle", "square", "triangle", "diamond")
WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 14, 48


@dataclass(frozen=True)
class Point:
    """A mean with its intervals on both axes, and the words shown on hovering."""

    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    label: str = ""


@dataclass(frozen=True)
class Curve:
    """Points of one method, joined in the given order."""

    name: str
    points: Sequence[Point] = field(default_factory=list)


@dataclass(frozen=True)
class Canvas:
    """The plotting area between two axes."""

    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a value pair; values outside lie on the frame."""
        across, up = (min(max(one.place(value), 0.0), 1.0) for one, value in ((self.x, x), (self.y, y)))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def plot(curves: Sequence[Curve], x: Axis, y: Axis, name: str) -> str:
    """The SVG element; `name` is what a screen reader says."""
    canvas = Canvas(x, y)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">', *_frame(canvas)]
    for index, curve in enumerate(curves):
        colour, shape = style_of(index)
        places = [canvas.at(point.x, point.y) for point in curve.points]
        if len(places) > 1:
            line = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [_point(point, canvas, colour, shape) for point in curve.points]
    return "\n".join([*parts, "</svg>"])


LEGEND_COLUMN, LEGEND_LINE, LONGEST_NAME = 310, 18, 44
_STYLE = (
    'text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #333; } '
    ".grid { stroke: #ececef; } .frame { fill: none; stroke: #b5b5ba; }"
)


def standalone(curves: Sequence[Curve], x: Axis, y: Axis, name: str) -> str:
    """The plot as an SVG file of its own, on white, with the legend below it."""
    inner = plot(curves, x, y, name).split("\n", 1)[1].rsplit("</svg>", 1)[0]
    lines = -(-len(curves) // 2)
    height = HEIGHT + 28 + LEGEND_LINE * lines
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
        f"<title>{escape(name)}</title>",
        f'<style>{_STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        inner,
    ]
    for index, curve in enumerate(curves):
        left = 20 + LEGEND_COLUMN * (index // lines)
        top = HEIGHT + 8 + LEGEND_LINE * (index % lines)
        shown = curve.name if len(curve.name) <= LONGEST_NAME else curve.name[: LONGEST_NAME - 1] + "…"
        mark = _mark(left, top - 4, *style_of(index))
        parts.append(f'{mark}<text x="{left + 12}" y="{top}">{escape(shown)}</text>')
    note = "; ".join(filter(None, ["bars are 95 % intervals", name.partition("; ")[2]]))
    parts.append(f'<text x="20" y="{height - 8}">{escape(note)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def style_of(index: int) -> tuple[str, str]:
    """Colour and shape of the curve with this number; 32 differ."""
    return COLOURS[index % len(COLOURS)], SHAPES[index // len(COLOURS) % len(SHAPES)]


def legend(curves: Sequence[Curve]) -> str:
    """The names with their marks, as an HTML list that wraps."""
    items = []
    for index, curve in enumerate(curves):
        mark = _mark(7, 7, *style_of(index))
        items.append(f'<li><svg viewBox="0 0 14 14" width="14" height="14">{mark}</svg> {escape(curve.name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _frame(canvas: Canvas) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in canvas.x.ticks():
        px, _ = canvas.at(value, canvas.y.low)
        parts.append(f'<line x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{bottom}" class="grid"/>')
        parts.append(f'<text x="{px:.1f}" y="{bottom + 17}" text-anchor="middle">{number(value)}</text>')
    for value in canvas.y.ticks():
        _, py = canvas.at(canvas.x.low, value)
        parts.append(f'<line x1="{LEFT}" y1="{py:.1f}" x2="{right}" y2="{py:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{py + 4:.1f}" text-anchor="end">{number(value)}</text>')
    parts.append(f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" class="frame"/>')
    across, down = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(f'<text x="{across}" y="{HEIGHT - 10}" text-anchor="middle">{escape(canvas.x.title)}</text>')
    turned = f'transform="translate(15 {down}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {turned}>{escape(canvas.y.title)}</text>")
    return parts


def _point(point: Point, canvas: Canvas, colour: str, shape: str) -> str:
    ends = [((x, point.y), (other, point.y)) for x, other in [point.x_interval or (point.x, point.x)]]
    ends += [((point.x, y), (point.x, other)) for y, other in [point.y_interval or (point.y, point.y)]]
    parts = [f"<g><title>{escape(point.label)}</title>"]
    for first, second in ends:
        (x1, y1), (x2, y2) = canvas.at(*first), canvas.at(*second)
        place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        parts.append(f'<line {place} stroke="{colour}" stroke-opacity="0.45"/>')
    return "".join([*parts, _mark(*canvas.at(point.x, point.y), colour, shape), "</g>"])


def _mark(px: float, py: float, colour: str, shape: str) -> str:
    if shape == "circle":
        return f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.5" fill="{colour}"/>'
    if shape == "square":
        return f'<rect x="{px - 4:.1f}" y="{py - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    corners = ((0, -5), (5, 4), (-5, 4)) if shape == "triangle" else ((0, -6), (6, 0), (0, 6), (-6, 0))
    points = " ".join(f"{px + dx:.1f},{py + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" fill="{colour}"/>'


def number(value: float) -> str:
    """Short text of a tick."""
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.0f}"
