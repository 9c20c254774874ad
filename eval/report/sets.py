"""Scores of whole sets of pictures."""

from html import escape
from typing import Any

from eval.report.html import note, table
from eval.results.reading import Results
from eval.scores.measures import DISTRIBUTION, FEWEST, SETS, SMALL_SET, Measure


def set_tables(results: Results) -> str:
    """A table a folder; KID first below 1,000 pictures, else FID: see `eval.scores.metrics.sets.set_summary`."""
    return "".join(_of_folder(about["sets"], about["labels"]) for about in results.abouts if _any(about.get("sets")))


def _any(found: dict[str, Any] | None) -> bool:
    return bool(found and found["variants"])


def _of_folder(found: dict[str, Any], labels: dict[str, str]) -> str:
    fewest = min(row["count"] for row in found["variants"].values())
    order = ("kid", "fid") if fewest < SMALL_SET else ("fid", "kid")
    columns = [SETS[key] for key in (*order, "cmmd", "coverage")]
    columns = [one for one in columns if any(_printed(one, row) is not None for row in found["variants"].values())]
    few = (
        f"KID and FID of fewer than {FEWEST} pictures are not printed: two sets that are drawn alike then differ by as "
        "much as methods do."
    )
    few = few if fewest < FEWEST and any(key in row for row in found["variants"].values() for key in order) else ""
    if not columns:
        return note(" ".join(filter(None, [few, *found["notes"]])))
    lines = [
        [escape(label), str(row["count"]), *(one.text(_printed(one, row)) for one in columns)]
        for variant, label in labels.items()  # in the results' order, not in that of the file
        if (row := found["variants"].get(variant)) is not None
    ]
    texts = [f"Compared with the {found['reference']} of the same cases.", few]
    if fewest < SMALL_SET and SETS["kid"] in columns:
        texts.append(
            f"{fewest} pictures: KID leads, since FID is biased upwards below {SMALL_SET} pictures, by an amount that "
            "differs between methods; KID has no such bias, but is noisy."
        )
    texts += [f"{one.title}: {one.meaning}." for one in columns]
    texts += [f"{what}: {name}." for what, name in found["networks"].items()] + found["notes"]
    return table("Sets of pictures", ["variant", "pictures", *columns], lines) + note(" ".join(filter(None, texts)))


def _printed(one: Measure, row: dict[str, Any]) -> float | None:
    """A set's score, unless it has too few pictures for it."""
    return None if one.key in DISTRIBUTION and row["count"] < FEWEST else row.get(one.key)
