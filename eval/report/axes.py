"""Trained generators against training-free methods: generality, efficiency, quality and diversity.

`python -m eval.axes DIR... --styles noto:fluent` reads folders that eval.run wrote for mini benchmarks (the generators'
own style benchmark with several seeds, and others with --gan-anything) and prints one Markdown table.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from PIL import Image

from eval.bench.cases import Case
from eval.files import PROMPTS, read_picture, write_text
from eval.gans import GAN
from eval.results.reading import checked
from eval.scores.measures import FEWEST
from freectl.errors import InputError, unknown
from freectl.mini.domain import OBJECTS

RUNS = PROMPTS / "gan_runs.yaml"
GROUPS = {
    "trained": "as trained",
    "unseen": "unseen object",
    "style": "other style word",
    "background": "new background",
    "object": "new object word",
}
"""Kinds of wish, by what a generator knows of them: the columns of generality."""
Line = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A result line with its case, its folder and the run's seed."""

    line: Line
    case: Case
    folder: Path
    seed: int

    @property
    def picture(self) -> Image.Image:
        """The result."""
        return read_picture(self.folder / self.line["picture"])


def axes(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that eval.run wrote.")],
    styles: Annotated[str, typer.Option(help="FROM:TO, what the generators were trained for.")] = "noto:fluent",
    unseen: Annotated[
        str | None, typer.Option(help="Objects that no training picture shows.  [default: prompts/gan_runs.yaml]")
    ] = None,
    variants: Annotated[str | None, typer.Option(help="Only these, with semicolons between.  [default: all]")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table here.")] = None,
) -> None:
    """Print the table."""
    from eval.gans.given import parse_styles

    pair = parse_styles(styles, "--styles")
    left_out = _objects(unseen)
    found = read(folders)
    known = list(dict.fromkeys(one.line["variant"] for one in found))
    wanted = [text.strip() for text in variants.split(";")] if variants else known
    for name in wanted:
        if name not in known:
            raise unknown("--variants", name, known)
    found = [one for one in found if one.line["variant"] in wanted]
    text = table(found, group_of(pair or ("", ""), left_out))
    if out is not None:
        write_text(out, text)
    sys.stdout.write(text)


def _objects(text: str | None) -> list[str]:
    if text is None:
        return yaml.safe_load(RUNS.read_text())["data"]["test_objects"]
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in OBJECTS:
            raise unknown("--unseen", word, OBJECTS)
    return words


def read(folders: Sequence[Path]) -> list[Found]:
    """All lines with their cases.

    Raises:
        InputError: a folder without results, or of a benchmark without exact answers.
    """
    from eval.bench.mini_files import load_mini

    found = []
    for folder in folders:
        about, lines = checked(folder)
        if about["layout"] != "mini":
            raise InputError("DIR", f"'{folder}' without results of a mini benchmark", "folders that eval.run wrote")
        bench = load_mini(about["bench"])
        found += [Found(line, bench[line["case"]], folder, about["seed"]) for line in lines]
    return found


def group_of(styles: tuple[str, str], unseen: Sequence[str]) -> Callable[[Case], str | None]:
    """What a case is for a generator trained from one style to another without the `unseen` objects."""

    def group(case: Case) -> str | None:
        if case.scenes is None:
            return None
        source, target = case.scenes
        changed = [w for w in ("object", "style", "background") if getattr(source, w) != getattr(target, w)]
        if changed != ["style"]:
            return changed[0] if len(changed) == 1 else None
        if (source.style, target.style) != styles:
            return "style"
        return "unseen" if source.object in unseen else "trained"

    return group


def table(found: Sequence[Found], group: Callable[[Case], str | None]) -> str:
    """One row a variant, the three axes side by side."""
    by_variant: dict[str, list[Found]] = {}
    for one in found:
        by_variant.setdefault(one.line["variant"], []).append(one)
    gans = {name: own for name, own in by_variant.items() if own[0].line["method"] == GAN}
    heads = ["variant", *(f"{title}, target %" for title in GROUPS.values())]
    heads += ["s / picture", "peak MiB", "training pictures", "training h"]
    heads += [f"pictures until {name} is cheaper" for name in gans]
    heads += ["MSE x10³", "KID x10³", "coverage %", "seeds", "spread over seeds x10³"]
    shared = _shared(by_variant.values(), group)
    rows = []
    for name, own in by_variant.items():
        cells = [name, *(_target(own, key, group) for key in GROUPS), *_cost(own)]
        cells += [_number(break_even(own, gan) if name not in gans else None, 0) for gan in gans.values()]
        rows.append([*cells, *_quality([one for one in own if one.case.scenes in shared])])
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _target(own: Sequence[Found], key: str, group: Callable[[Case], str | None]) -> str:
    values = [one.line["scores"]["target"] for one in own if group(one.case) == key]
    return f"{100 * statistics.mean(values):.0f} (n={len(values)})" if values else "-"


def seconds(own: Sequence[Found]) -> float:
    """Median seconds a picture, without loading."""
    costs = [one.line["cost"]["seconds"] for one in own]
    return statistics.median(cost["total"] - cost["load"] for cost in costs)


def training(own: Sequence[Found]) -> dict[str, Any]:
    """What training cost; nothing for a method without one."""
    return own[0].line["settings"].get("training") or {}


def _cost(own: Sequence[Found]) -> list[str]:
    trained = training(own)
    memory = max(one.line["cost"]["peak_memory_mb"] or 0 for one in own)
    hours = trained["seconds"] / 3600 if trained.get("seconds") else None
    none = "0" if own[0].line["method"] != GAN else "-"
    pictures = f"{trained['pictures']}" if trained.get("pictures") else none
    return [f"{seconds(own):.2f}", f"{memory:.0f}", pictures, none if hours is None else f"{hours:.2f}"]


def break_even(own: Sequence[Found], gan: Sequence[Found]) -> float | None:
    """Pictures after which training the generator has paid: its seconds over the seconds that it saves a picture."""
    cost, saved = training(gan).get("seconds"), seconds(own) - seconds(gan)
    return cost / saved if cost and saved > 0 else None


def _shared(variants: Iterable[Sequence[Found]], group: Callable[[Case], str | None]) -> set[Any]:
    """Scenes of the cases that generators were trained for and that all variants have which have any of them."""
    trained = [{one.case.scenes for one in own if group(one.case) in ("trained", "unseen")} for own in variants]
    kept = [scenes for scenes in trained if scenes]
    return set.intersection(*kept) if kept else set()


def _quality(same: Sequence[Found]) -> list[str]:
    """Of results on the same cases for all variants."""
    if len(same) < 2:
        return ["-"] * 5
    mse = statistics.mean(one.line["scores"]["mse"] for one in same)
    first = [one for one in same if one.seed == min(other.seed for other in same)]
    kid, covered = _sets(first)
    shown = 1e3 * kid if len(first) >= FEWEST else None
    spread, seeds = spread_over_seeds(same)
    return [_number(1e3 * mse, 1), _number(shown, 2), _number(100 * covered, 0), str(seeds),
            "-" if spread is None else _number(1e3 * spread, 2)]  # fmt: skip


def _sets(own: Sequence[Found]) -> tuple[float, float]:
    from eval.scores.metrics import coverage, features_of, kid
    from eval.scores.networks import to_tensor
    from eval.scores.set_scores import judge_features
    from freectl.mini import MODEL_DIR
    from freectl.mini.judge import load_judge
    from freectl.mini.scene import render

    features, name = judge_features(load_judge(MODEL_DIR / "judge"))
    made = to_tensor(*(one.picture for one in own))
    real = to_tensor(*(render(one.case.scenes[1]) for one in own if one.case.scenes))
    one, other = (features_of(pictures, features).detach() for pictures in (real, made))
    return kid(one, other, name).mean, coverage(one, other, name).mean


def spread_over_seeds(own: Sequence[Found]) -> tuple[float | None, int]:
    """Mean squared difference (pixels 0 to 1) of two results of one case with other seeds, and the number of seeds."""
    from eval.scores.base import pixel_mse

    by_case: dict[Any, dict[int, Found]] = {}
    for one in own:
        by_case.setdefault(one.case.scenes, {})[one.seed] = one
    values = [
        pixel_mse(a.picture, b.picture)
        for seeds in by_case.values()
        for a, b in combinations(seeds.values(), 2)
    ]  # fmt: skip
    known = [value for value in values if value is not None]
    return (statistics.mean(known) if known else None), len({one.seed for one in own})


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
