"""Picture grids of a report: input, answer and every method on the cases on which the methods disagree most."""

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from eval.files import read_picture
from eval.report.html import boxed
from eval.results.reading import Line, Results
from eval.results.summary import Row, disagreement, summary

THUMBNAIL = 200
"""Longest side of an embedded picture in px."""
COLUMNS = 16
"""Variants in a grid, unless there are more methods: each method has one."""
STUDIED = 9
"""Variants in a study."""


def grid_variants(results: Results) -> list[str]:
    """Variants that get a column: one of every method, then one of every other curve as far as there is room.

    Variants of folders without pictures get none.
    A curve's own is the one with nothing swept, else the one that reaches the target most often; a method's own is
    that of its plain curve, without presets and settings, else of its first.
    """
    own = {curve: _of_curve(results, rows) for curve, rows in _curves(results).items()}
    by_method: dict[str, list[str]] = {}
    for variant in own.values():
        line = next(iter(results.by_variant[variant].values()))
        by_method.setdefault(_method(line), []).append(variant)
    first = [own.get(method, variants[0]) for method, variants in by_method.items()]
    others = [variant for variant in own.values() if variant not in first]
    return [*first, *others[: max(0, COLUMNS - len(first))]]


def _curves(results: Results) -> dict[str, list[Row]]:
    curves: dict[str, list[Row]] = {}
    pictured = set(results.pictured)
    for row in summary(results):
        if row.variant in pictured:
            curves.setdefault(row.curve, []).append(row)
    return curves


def _of_curve(results: Results, rows: list[Row]) -> str:
    plain = [row.variant for row in rows if row.variant == row.curve]
    accuracy = results.accuracy
    means = [row.scores[accuracy.key].mean if accuracy and accuracy.key in row.scores else 0.0 for row in rows]
    return plain[0] if plain else rows[means.index(max(means))].variant


def _method(line: Line) -> str:
    """The method's name; each GAN is one of its own."""
    return f"gan:{line['preset']}" if line["method"] == "gan" and line["preset"] != "default" else line["method"]


def grid(results: Results, rows: int) -> str:
    """The grid as an HTML table, most disputed cases first, those that some variant lacks last.

    Raises:
        FreectlError: a picture that a result line names is missing or damaged.
    """
    variants = grid_variants(results)
    counts = {case: sum(case in results.by_variant[v] for v in variants) for case in results.cases}
    cases = [case for case, count in counts.items() if count]
    cases.sort(key=lambda case: (counts[case] < len(variants), -disagreement(results, case, variants)))
    ranked = cases[:rows]
    answers = any(reference(results, case, "answers") for case in ranked)
    heads = ["case", "input", *(["answer"] if answers else []), *variants]
    lines = ["<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    for case in ranked:
        found = [results.by_variant[v].get(case) for v in variants]
        first = next(line for line in found if line is not None)
        words = f"{escape(first['prompt'])}<small>from: {escape(first['source_prompt'] or '-')}</small>"
        cells = [f"<td>{words}<small>{escape(case)}</small></td>", _cell(reference(results, case, "inputs"), "input")]
        if answers:
            cells.append(_cell(reference(results, case, "answers"), "exact answer"))
        cells += [_result(results, line) for line in found]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return boxed(f'<table class="pictures">{"".join(lines)}</table>', "Pictures")


def reference(results: Results, case: str, kind: str) -> Path | None:
    """The stored input ("inputs") or exact answer ("answers") of a case, if there is one."""
    folders = dict.fromkeys(folder for (own, _), folder in results.pictures.items() if own == case)
    paths = [folder / kind / f"{case}.png" for folder in folders]
    return next((path for path in paths if path.exists()), None)


def _result(results: Results, line: Line | None) -> str:
    if line is None:
        return "<td>-</td>"
    path = results.pictures[line["case"], line["variant"]] / line["picture"]
    return _cell(path, f"{line['variant']}: {line['prompt']}", _caption(results, line))


def _caption(results: Results, line: Line) -> str:
    seen = line.get("facts", {}).get("seen")
    if seen is not None:
        right = line["scores"].get("words" if results.layout == "control" else "all_right")
        kind = "right" if right == 1 else "wrong"
        return f'<small class="{kind}">{escape(seen)}</small>'
    shown = [one for one in (results.accuracy, results.structure) if one is not None]
    texts = [f"{one.title} {one.text(line['scores'].get(one.key))}" for one in shown]
    return f"<small>{escape(', '.join(texts))}</small>"


def _cell(path: Path | None, words: str, caption: str = "") -> str:
    if path is None:
        return "<td>-</td>"
    image = read_picture(path)
    small = ' class="small"' if max(image.size) < 100 else ""
    return f'<td><img src="{data_url(image)}" alt="{escape(words)}"{small}>{caption}</td>'


def data_url(image: Image.Image) -> str:
    """The picture as a data URL: lossless when small, else a WebP thumbnail."""
    stream = io.BytesIO()
    if max(image.size) <= THUMBNAIL:
        image.save(stream, "WEBP", lossless=True)
    else:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        image.save(stream, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
