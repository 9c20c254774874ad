"""The sections of a report as HTML."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from eval.report.pictures import grid
from eval.report.plots import plots
from eval.results.reading import SETTINGS, Results
from eval.results.summary import Row, by_kind, differences, summary
from eval.scores.intervals import Estimate
from eval.scores.measures import BY_KIND, COSTS, MEASURES, SETS, SMALL_SET, Measure, measure

TEMPLATE = Path(__file__).with_name("template.html")


def page(results: Results, *, baseline: str | None, rows: int, published: dict[str, Any] | None) -> str:
    """The whole page: one file, no script, no address of anything outside it.

    Args:
        baseline: variant that the others are compared with; None is the first.
        rows: of the picture grid.
        published: the benchmark's entry of prompts/published.yaml, if it has one.

    Raises:
        InputError: the baseline is not among the variants.
    """
    first = results.abouts[0]
    title = f"{first['bench']}: {len(results.by_variant)} variants on {len(results.cases)} cases"
    base = baseline or next(iter(results.by_variant))
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(first.get('about', ''))}. {escape(_runs(results))}</p>",
        _section("Summary", _summary(results)),
        _section("Trade-off and cost", plots(results)),
        _section(f"Differences from {base}", _differences(results, base)) if len(results.by_variant) > 1 else "",
        _section("By edit type", _kinds(results)) if len(results.kinds) > 1 else "",
        _section("Sets of pictures", _sets(results)),
        _section("Published numbers", published_tables(results, published)) if published else "",
        _section("Pictures", _pictures(results, rows)),
        _section("Machine, versions, commands", _machine(results)),
    ]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(title=escape(title), body="\n".join(parts))


def _runs(results: Results) -> str:
    """What all results were made with, or by folder where that differs."""

    def text(about: dict[str, Any]) -> str:
        made = f"model {about['model']} ({about['dtype']}, weights {about['weights'][:8]})"
        return f"{made}, {about['steps']} steps, seed {about['seed']}"

    if len({tuple(about.get(key) for key in SETTINGS) for about in results.abouts}) == 1:
        first = results.abouts[0]
        made = f"Model {first['model']}, {first['steps']} steps, seed {first['seed']}."
        return f"{made} Every method got the same picture, source prompt, model and seed."
    each = "; ".join(f"{about['folder']}: {text(about)}" for about in results.abouts)
    return f"Every method got the same picture and source prompt, but the folders differ. {each}."


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """An HTML table in a box that scrolls sideways; a cell that starts with "<td" is taken as it is."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(
        "<tr>" + "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row) + "</tr>" for row in rows
    )
    attribute = f' class="{kind}"' if kind else ""
    return f'<div class="wide"><table{attribute}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(one: Measure, found: Estimate | None, kind: str = "", *, sign: bool = False) -> str:
    if found is None:
        return "<td>-</td>"
    plus = "+" if sign and found.mean > 0 else ""
    interval = f"<small>{one.span(found.low, found.high)}</small>" if found.count > 1 else ""
    attribute = f' class="{kind}"' if kind else ""
    return f"<td{attribute}>{plus}{one.text(found.mean)}{interval}</td>"


def _summary(results: Results) -> str:
    rows = summary(results)
    best = {one.key: _best(rows, one) for one in results.measured}
    lines = []
    for row in rows:
        cells = [escape(row.variant), str(row.count)]
        for one in results.measured:
            found = row.scores.get(one.key)
            cells.append(_cell(one, found, "best" if found is not None and found.mean == best[one.key] else ""))
        lines.append([*cells, *(one.text(row.costs[one.key]) for one in COSTS)])
    heads = ["variant", "cases", *(one.head for one in results.measured), *(one.head for one in COSTS)]
    asked = {key for line in results.lines for key in line["scores"]}  # a case without a mask has no background
    missing = [one.title for one in MEASURES[results.layout] if one.key in asked and one not in results.measured]
    meanings = "; ".join(f"{escape(one.title)}: {escape(one.meaning)}" for one in (*results.measured, *COSTS))
    intervals = "Mean, and 95 % interval over cases: Wilson's of shares, else a bootstrap's."
    notes = [f'<p class="note">{intervals} {meanings}.</p>', *_notes(results)]
    notes += _fewer(results, rows)
    if missing:
        notes.append(f'<p class="note">Not measured: {escape(", ".join(missing))}.</p>')
    if len(results.shared) < len(results.cases):
        notes.append(
            f'<p class="note">{len(results.shared)} of {len(results.cases)} cases have every variant: compare '
            "variants by the differences below, which use shared cases only.</p>"
        )
    return table(heads, lines) + "".join(notes)


def _notes(results: Results) -> list[str]:
    texts = dict.fromkeys(text for line in results.lines for text in line.get("notes", []))
    networks: dict[str, dict[str, dict[str, None]]] = {}
    for line in results.lines:
        for name, network in line.get("networks", {}).items():
            networks.setdefault(name, {}).setdefault(str(network), {})[line["variant"]] = None
    lines = [f'<p class="note">{escape(text)}</p>' for text in texts]
    if networks:
        listed = "; ".join(f"{name}: {_used(own)}" for name, own in networks.items())
        lines.append(f'<p class="note">{escape(f"Networks. {listed}.")}</p>')
    return lines


def _used(own: dict[str, dict[str, None]]) -> str:
    """The network of a score, or which variants have which."""
    if len(own) == 1:
        return next(iter(own))
    return " and ".join(f"{name} ({', '.join(of)})" for name, of in own.items()) + ", which do not compare"


def _fewer(results: Results, rows: Sequence[Row]) -> list[str]:
    """A note on means that leave cases out."""
    alike: dict[str, list[str]] = {}
    for one in results.measured:
        counts = {row.variant: row.scores[one.key].count for row in rows if one.key in row.scores}
        fewer = [
            f"{counts[row.variant]} of {row.variant}" for row in rows if counts.get(row.variant, row.count) < row.count
        ]
        if fewer:
            alike.setdefault(", ".join(fewer), []).append(one.title)
    listed = "; ".join(f"{', '.join(titles)}: {fewer}" for fewer, titles in alike.items())
    text = "Means of fewer cases, since the others lack a background or a source prompt."
    return [f'<p class="note">{escape(f"{text} {listed}.")}</p>'] if alike else []


def _best(rows: Sequence[Row], one: Measure) -> float | None:
    means = [row.scores[one.key].mean for row in rows if one.key in row.scores]
    return None if not one.better or len(means) < 2 else (max if one.better > 0 else min)(means)


def _differences(results: Results, baseline: str) -> str:
    lines = []
    for variant, found in differences(results, baseline).items():
        count = max((one.count for one in found.values()), default=0)
        cells = [escape(variant), str(count)]
        for one in results.measured:
            value = found.get(one.key)
            kind = ""
            if value is not None and one.better and value.clear_of_zero:
                kind = "better" if value.mean * one.better > 0 else "worse"
            cells.append(_cell(one, value, kind, sign=True))
        lines.append(cells)
    intervals = "95 % interval leaves out zero: Bonett and Price's of shares, else a bootstrap's"
    note = f'<p class="note">Case by case; coloured where the {intervals}.</p>'
    return table(["variant", "cases", *(one.head for one in results.measured)], lines) + note


def _kinds(results: Results) -> str:
    parts = []
    measured = {one.key for one in results.measured}
    for key in BY_KIND[results.layout]:
        if key not in measured:
            continue
        one, found = measure(results.layout, key), by_kind(results, key)
        lines = [
            [escape(variant), *(_cell(one, own.get(kind)) for kind in results.kinds)] for variant, own in found.items()
        ]
        parts.append(f"<h3>{escape(one.head)}</h3>" + table(["variant", *results.kinds], lines))
    return "".join(parts)


def _sets(results: Results) -> str:
    """KID first below 1,000 pictures, else FID: see `eval.scores.metrics.sets.set_summary`."""
    parts = []
    for about in results.abouts:
        found = about.get("sets")
        if not found or not found["variants"]:
            continue
        fewest = min(row["count"] for row in found["variants"].values())
        order = ("kid", "fid") if fewest < SMALL_SET else ("fid", "kid")
        columns = [SETS[key] for key in (*order, "cmmd", "coverage")]
        columns = [one for one in columns if any(one.key in row for row in found["variants"].values())]
        if not columns:
            parts.append(f'<p class="note">{escape(" ".join(found["notes"]))}</p>')
            continue
        lines = [
            [escape(label), str(row["count"]), *(one.text(row.get(one.key)) for one in columns)]
            for variant, label in about["labels"].items()  # in the results' order, not in that of the file
            if (row := found["variants"].get(variant)) is not None
        ]
        parts.append(table(["variant", "pictures", *(one.head for one in columns)], lines))
        texts = [f"Compared with the {found['reference']} of the same cases."]
        if fewest < SMALL_SET:
            texts.append(
                f"{fewest} pictures: KID leads, since FID is biased upwards below {SMALL_SET} pictures, by an amount "
                "that differs between methods; KID has no such bias, but is noisy."
            )
        texts += [f"{one.title}: {one.meaning}." for one in columns]
        texts += [f"{what}: {name}." for what, name in found["networks"].items()] + found["notes"]
        parts.append(f'<p class="note">{escape(" ".join(texts))}</p>')
    return "".join(parts)


def published_tables(results: Results, published: dict[str, Any]) -> str:
    """Our rows above the papers' rows, in the papers' columns."""
    columns = [measure(results.layout, key) for key in published["columns"]]
    ours = [
        [escape(row.variant), "this run", *(_cell(one, row.scores.get(one.key)) for one in columns)]
        for row in summary(results)
    ]
    parts = [table(["method", "evidence", *(one.head for one in columns)], ours)]
    for printed in published["tables"]:
        lines = []
        for row in printed["rows"]:
            unsure = row.get("unsure", [])
            values = [
                ("-" if value is None else f"{value:.{one.digits}f}") + (" (U)" if one.key in unsure else "")
                for one, value in zip(columns, row["values"], strict=True)
            ]
            lines.append([escape(row["method"]), printed["evidence"], *values])
        heads = ["method", "evidence", *(one.head for one in columns)]
        parts.append(f"<h3>{escape(printed['title'])}</h3>" + table(heads, lines, "published"))
        parts.append(f'<p class="note">Source: {escape(printed["source"])}.</p>')
    legend = "Evidence: P read in the paper, S secondary (to be checked before it is quoted), U not verified."
    return "".join([*parts, f'<p class="note">{legend}</p>'])


def _pictures(results: Results, rows: int) -> str:
    if not results.pictured:
        return '<p class="note">None: the folders hold results without their pictures.</p>'
    note = (
        "Cases on which the methods disagree most come first. One variant of every method, then other settings; of a "
        "swept method the default where it was run, else the variant that most reaches targets."
    )
    if results.layout == "mini":
        note += " Below each result: what the judge sees in it."
    if bare := [variant for variant in results.by_variant if variant not in results.pictured]:
        note += f" Not shown, since their folders hold no pictures: {', '.join(bare)}."
    return f'<p class="note">{escape(note)}</p>{grid(results, rows)}'


def _machine(results: Results) -> str:
    parts = []
    for about in results.abouts:
        found = about["environment"]
        cpus = found.get("devices", {}).get("cpu", {})
        cuda = [device["name"] for device in found.get("devices", {}).get("cuda", [])]
        packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items() if version)
        texts = [
            f"{found['processor']}, {found['cpu_count']} cores, {found['memory_mb']} MB"
            + (f", {', '.join(cuda)}" if cuda else "")
            + (f"; {cpus['threads']} threads seen" if cpus else ""),
            f"{found['platform']}; Python {found['python']}; freectl {found['freectl']}; {packages}",
            f"weights sha256 {about['weights'][:16]}, benchmark sha256 {about['digest'][:16]}",
        ]
        commands = "\n".join(about["commands"])
        parts += [f"<p>{escape(text)}</p>" for text in texts] + [f"<pre>{escape(commands)}</pre>"]
    return "".join(parts)
