"""A report as one HTML page."""

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from eval.report.breakdown import difference_table, kind_tables
from eval.report.html import note, section
from eval.report.overview import overview
from eval.report.pictures import grid
from eval.report.plots import plots
from eval.report.published import published_tables
from eval.report.sets import set_tables
from eval.results.reading import SETTINGS, Results

KINDS = {"control": "By kind of condition", "ti2i": "By kind", "ctrl-x": "By kind", "ctrl-x-pairs": "By kind"}
"""What kinds of cases are called, where they are no edit types."""
TEMPLATE = Path(__file__).with_name("template.html")


def page(results: Results, *, baseline: str | None, rows: int, published: dict[str, Any] | None) -> str:
    """The whole page: one file, no address of anything outside it; without scripts its tables do not sort.

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
        note("A click on a heading sorts its table, the best first."),
        section("Summary", overview(results)),
        section("Trade-off and cost", plots(results)),
        section(f"Differences from {base}", difference_table(results, base)) if len(results.by_variant) > 1 else "",
        section(KINDS.get(results.layout, "By edit type"), kind_tables(results, base))
        if len(results.kinds) > 1
        else "",
        section("Sets of pictures", set_tables(results)),
        section("Published numbers", published_tables(results, published)) if published else "",
        section("Pictures", _pictures(results, rows)),
        section("Machine, versions, commands", _machine(results)),
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


def _pictures(results: Results, rows: int) -> str:
    if not results.pictured:
        return note("None: the folders hold results without their pictures.")
    text = (
        "Cases on which the methods disagree most come first. One variant of every method, then other settings; of a "
        "swept method the default where it was run, else the variant that most reaches targets."
    )
    if results.layout in ("mini", "control"):
        text += " Below each result: what the judge sees in it."
    if bare := [variant for variant in results.by_variant if variant not in results.pictured]:
        text += f" Not shown, since their folders hold no pictures: {', '.join(bare)}."
    return note(text) + grid(results, rows)


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
