"""What the sections of a report are written with."""

from collections.abc import Sequence
from html import escape

from eval.scores.intervals import Estimate
from eval.scores.measures import Measure


def section(title: str, body: str) -> str:
    """A section under its title; nothing where there is nothing to say."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def note(text: str) -> str:
    """Small print."""
    return f'<p class="note">{escape(text)}</p>'


def boxed(table: str, name: str) -> str:
    """A table in a box that scrolls sideways where it is wider than the page, by keyboard too."""
    about = f'tabindex="0" role="region" aria-label="{escape(name)}"'
    return f'<div class="box"><div class="wide" {about}>{table}</div></div>'


def table(
    name: str, heads: Sequence[str | Measure], rows: Sequence[Sequence[str]], kind: str = "", better: int = 0
) -> str:
    """An HTML table whose columns sort.

    Args:
        name: what a screen reader says.
        heads: of columns; a measure's also says which of its values come first.
        rows: cells as HTML; one that starts with "<td" is taken as it is.
        kind: CSS class.
        better: of columns under plain words, see `Measure`.
    """
    top = "".join(_head(head, better) for head in heads)
    wrapped = [[one if one.startswith("<td") else f"<td>{one}</td>" for one in row] for row in rows]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in wrapped)
    classes = " ".join(filter(None, ["sorts" if len(rows) > 1 else "", kind]))
    attribute = f' class="{classes}"' if classes else ""
    return boxed(f"<table{attribute}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>", name)


def _head(head: str | Measure, better: int) -> str:
    text, better = (head, better) if isinstance(head, str) else (head.head, head.better)
    return f'<th scope="col" data-better="{better}">{escape(text)}</th>'


def cell(one: Measure, found: Estimate | None, kind: str = "", *, sign: bool = False) -> str:
    """A mean with its interval below it."""
    if found is None:
        return "<td>-</td>"
    plus = "+" if sign and found.mean > 0 else ""
    interval = f"<small>{one.span(found.low, found.high)}</small>" if found.count > 1 else ""
    attribute = f' class="{kind}"' if kind else ""
    return f"<td{attribute}>{plus}{one.text(found.mean)}{interval}</td>"
