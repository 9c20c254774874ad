"""The plots of a report: target accuracy against structure and against seconds, one curve a method."""

import statistics
from collections.abc import Callable, Sequence
from html import escape

from eval.report import svg
from eval.report.svg import Curve, Point
from eval.report.svg_axes import Axis, axis
from eval.results.reading import Results
from eval.results.summary import Row, summary
from eval.scores.measures import Measure


def curves(rows: Sequence[Row], point: Callable[[Row], Point | None]) -> list[Curve]:
    """Rows grouped by curve, as points in the order of the swept values; rows without a point are left out."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.curve, []).append(row)
    drawn = []
    for name, own in grouped.items():
        points = [made for row in sorted(own, key=lambda row: row.place) if (made := point(row)) is not None]
        drawn += [Curve(name, points)] if points else []
    return drawn


def plots(results: Results) -> str:
    """The trade-off and the cost plot as HTML figures."""
    rows, figures = summary(results), []
    up, across = results.trade_off
    if up is not None and across is not None:
        figures.append(_plot(rows, up, across, _across(across)))
    if results.accuracy is not None:
        figures.append(_plot(rows, results.accuracy, None, "seconds an edit (median, logarithmic)"))
    drawn = "".join(figures)
    return f'<div class="plots">{drawn}</div>' if drawn else ""


def pareto_svg(results: Results) -> str | None:
    """The trade-off plot as a file of its own; None where one of its two scores was not measured."""
    up, across = results.trade_off
    if up is None or across is None:
        return None
    made = _drawn(summary(results), up, across, _across(across))
    return svg.standalone(*made) if made else None


def _across(structure: Measure) -> str:
    what = "is nearer to the exact answer" if structure.key == "mse" else "keeps the structure better"
    return f"{structure.title} ({'higher' if structure.better > 0 else 'lower'} {what})"


def _plot(rows: Sequence[Row], accuracy: Measure, other: Measure | None, title: str) -> str:
    made = _drawn(rows, accuracy, other, title)
    if made is None:
        return ""
    drawn, across, up, name = made
    return (
        f'<figure class="plot">{svg.plot(drawn, across, up, name)}{svg.legend(drawn)}'
        f"<figcaption>{escape(name)}; bars are 95 % intervals.</figcaption></figure>"
    )


def _drawn(
    rows: Sequence[Row], accuracy: Measure, other: Measure | None, title: str
) -> tuple[list[Curve], Axis, Axis, str] | None:
    """Curves, both axes and the name of a plot of accuracy against another score, or against seconds."""

    def point(row: Row) -> Point | None:
        up = row.scores.get(accuracy.key)
        across = row.scores.get(other.key) if other else None
        seconds = row.costs["seconds"]
        if up is None or (other is not None and across is None) or (other is None and not seconds):
            return None
        x = across.mean * other.scale if across and other else float(seconds or 0)
        spread = (across.low * other.scale, across.high * other.scale) if across and other else None
        label = f"{row.variant}: {accuracy.title} {accuracy.text(up.mean)}, {title.partition(' (')[0]} {x:.4g}"
        return Point(x, up.mean * accuracy.scale, spread, (up.low * accuracy.scale, up.high * accuracy.scale), label)

    drawn = curves(rows, point)
    points = [one for curve in drawn for one in curve.points]
    if not points:
        return None
    shown = [p.x for p in points] if other is None else without_outliers([p.x for p in points])
    outside = [f"{p.x:.3g}" for p in points if p.x > max(shown)]
    across = axis(title, shown, log=other is None)
    limits = (0.0, 100.0) if accuracy.scale == 100 else None
    up = axis(accuracy.head, [v for p in points for v in (p.y, *(p.y_interval or ()))], limits=limits)
    beyond = f"; on the right edge, beyond it: {', '.join(outside)}" if outside else ""
    return drawn, across, up, f"{accuracy.title} against {title}{beyond}"


def without_outliers(values: Sequence[float]) -> list[float]:
    """The values but for single ones above three times the median, which would squeeze all others into a corner."""
    limit = 3 * statistics.median(values)
    kept = [value for value in values if value <= limit]
    return kept if len(values) - len(kept) <= len(values) / 8 else list(values)
