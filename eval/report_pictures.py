"""Picture grids of a report: input, answer and every method on the cases on which the methods disagree most."""

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from eval.report_data import Line, Results, disagreement, summary

THUMBNAIL = 200
"""Longest side of an embedded picture in px."""
COLUMNS = 9
"""Variants in a grid."""


def grid_variants(results: Results) -> list[str]:
    """Variants that get a column: of each curve the one that reaches the target most often; at most nine."""
    accuracy = results.accuracy
    best: dict[str, tuple[float, str]] = {}
    for row in summary(results):
        mean = row.scores[accuracy.key].mean if accuracy and accuracy.key in row.scores else 0.0
        if row.curve not in best or mean > best[row.curve][0]:
            best[row.curve] = (mean, row.variant)
    return [variant for _, variant in best.values()][:COLUMNS]


def grid(results: Results, rows: int) -> str:
    """The grid as an HTML table, most disputed cases first.

    Raises:
        OSError: a picture that a result line names is missing or damaged.
    """
    variants = grid_variants(results)
    complete = [case for case in results.cases if all(case in results.by_variant[v] for v in variants)]
    ranked = sorted(complete or results.cases, key=lambda case: -disagreement(results, case, variants))[:rows]
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
    return f'<div class="wide"><table class="pictures">{"".join(lines)}</table></div>'


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
        kind = "right" if line["scores"].get("all_right") == 1 else "wrong"
        return f'<small class="{kind}">{escape(seen)}</small>'
    shown = [one for one in (results.accuracy, results.structure) if one is not None]
    texts = [f"{one.title} {one.text(line['scores'].get(one.key))}" for one in shown]
    return f"<small>{escape(', '.join(texts))}</small>"


def _cell(path: Path | None, words: str, caption: str = "") -> str:
    if path is None:
        return "<td>-</td>"
    with Image.open(path) as picture:
        image = picture.convert("RGB")
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
