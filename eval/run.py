"""Run methods on a benchmark: `python -m eval.run --methods sdedit,freecontrol --bench mini --out DIR`.

Start it again after a kill: what is done stays. Every method gets the same picture, model, seed, step count and source
prompt. Ends with a table; `python -m eval.report DIR` makes the report.
"""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from eval.cases import Bench, Case, balanced
from eval.store import Store, read_picture
from eval.variants import variants
from freectl.cli.ending import ended
from freectl.errors import FreectlError, InputError, unknown


def run(
    methods: Annotated[
        str, typer.Option(help="Names with commas between, each perhaps NAME:PRESET[key=value,...]; gan.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Results folder; what it already holds is not computed again.")] = ...,  # type: ignore[assignment]
    bench: Annotated[
        str,
        typer.Option(help="mini, mini:SEED, mini-held-out, mini-style:FROM:TO, pie, imagenet-r-ti2i, or a manifest."),
    ] = "mini",
    data: Annotated[Path | None, typer.Option(help="Folder of pie or imagenet-r-ti2i.")] = None,
    conditions: Annotated[
        Path | None, typer.Option(help="Condition pictures of imagenet-r-ti2i, under the pictures' names.")
    ] = None,
    subset: Annotated[int | None, typer.Option(help="This many cases, balanced over edit types.", min=1)] = None,
    kinds: Annotated[str | None, typer.Option(help="Only these edit types, with commas between.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="method.key=value; also mask, concept.")] = None,
    sweeps: Annotated[list[str] | None, typer.Option("--sweep", help="method.key=value,value,... for a curve.")] = None,
    model: Annotated[str, typer.Option(help="mini, a folder, a .safetensors file or a hub id.")] = "mini",
    steps: Annotated[int, typer.Option(help="Sampling steps.", min=1, max=1000)] = 50,
    seed: Annotated[int, typer.Option(help="Of every picture's own generator.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes, each with the model.", min=1, max=64)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads a process.  [default: cores / workers]", min=1)
    ] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Share inversions between edits of a picture: faster.")
    ] = False,
    gan_weights: Annotated[list[str] | None, typer.Option(help="[NAME=]FOLDER for the method gan.")] = None,
    gan_styles: Annotated[str | None, typer.Option(help="FROM:TO, what the generators were trained for.")] = None,
    gan_anything: Annotated[
        bool, typer.Option("--gan-anything", help="Ask generators also for what they were not trained for.")
    ] = False,
    clip: Annotated[
        str | None, typer.Option(help="Of CLIP scores: mini, a folder, MODEL/PRETRAINED.  [default: the benchmark's]")
    ] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Measure the stored pictures again; runs nothing.")
    ] = False,
) -> None:
    """Run methods on a benchmark, resumably: one JSON line a case in OUT/results.jsonl, pictures in OUT/pictures."""
    from eval import set_scores
    from eval.execute import execute
    from eval.manifests import load_bench
    from eval.plan import Plan

    loaded = load_bench(bench, data, conditions)
    if clip is not None:
        from eval.metrics.clip import check_clip

        check_clip(clip)
    if rescore:
        again(Store(out), loaded, device, clip)
        return
    plan = Plan(
        bench=(bench, data, conditions),
        variants=tuple(variants(methods, sets or [], sweeps or [], _gan_names(gan_weights or []))),
        model=model,
        steps=steps,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads or max(1, (os.cpu_count() or 1) // workers),
        reuse=reuse,
        gan_weights=tuple(gan_weights or ()),
        gan_styles=gan_styles or _styles_of(bench),
        clip=clip,
        gan_anything=gan_anything,
    )
    cases = chosen_cases(loaded, kinds, subset)
    plan.check(loaded)
    if not plan.tasks(cases):
        found = f"'{methods}', which fit none of the {len(cases)} cases"
        raise InputError("--methods", found, "methods that fit some; mask=exact fits scenes, concept=source needs one")
    with Store(out).locked() as store:
        store.begin(plan.about(loaded), command())
        failed = execute(plan, loaded, cases, store, workers)
        set_scores.write(store, loaded.layout, clip)
        if failed:
            raise FreectlError(f"{failed} cases failed, see {store.folder / 'failures.jsonl'}; run again to retry them")
    from eval.report import summary_markdown
    from eval.results import read

    sys.stdout.write(summary_markdown(read([out])))
    sys.stdout.write(f"{len(store.lines())} results in {out}; report: python -m eval.report {shlex.quote(str(out))}\n")


def command() -> str:
    """The command line as one would type it."""
    return shlex.join(["python", "-m", "eval.run", *sys.argv[1:]])


def chosen_cases(bench: Bench, kinds: str | None, subset: int | None) -> list[Case]:
    """The cases of these edit types, and `subset` of them.

    Raises:
        InputError: a kind that the benchmark does not have.
    """
    cases = list(bench.cases)
    if kinds is not None:
        wanted = [kind.strip() for kind in kinds.split(",")]
        known = {case.kind for case in cases}
        if odd := [kind for kind in wanted if kind not in known]:
            raise unknown("--kinds", odd[0], known)
        cases = [case for case in cases if case.kind in wanted]
    return cases if subset is None else balanced(cases, subset)


def again(store: Store, bench: Bench, device: str = "auto", clip: str | None = None) -> None:
    """Measure all stored pictures once more, e.g. when a network has become available.

    Raises:
        InputError: no results, or those of another benchmark.
        FreectlError: a network that the stored scores come from is missing now: its scores would be lost.
    """
    from eval import set_scores
    from eval.scoring import scorer_for
    from eval.workshop import scored_part

    if store.about().get("digest") != bench.digest:  # before the lock, which would make the folder
        raise InputError("--out", f"'{store.folder}' without results of this benchmark", "a folder of its results")
    with store.locked():
        scorer = scorer_for(bench.layout, device, clip)
        lines = store.lines()
        if lost := {name for line in lines for name in line["networks"]} - set(scorer.networks):
            raise FreectlError(f"--rescore: would lose scores of {', '.join(sorted(lost))}. {' '.join(scorer.notes)}")
        for line in lines:
            picture = read_picture(store.folder / line["picture"])
            line.update(scored_part(scorer(bench[line["case"]], picture), scorer))
        store.rewrite(lines)
        set_scores.write(store, bench.layout, clip)
    sys.stdout.write(f"{len(lines)} results measured again\n")


def _gan_names(texts: list[str]) -> list[str]:
    if not texts:
        return []
    from eval.gan_adapter import parse_weights

    return list(parse_weights(texts))


def _styles_of(bench: str) -> str | None:
    return bench.partition(":")[2] if bench.startswith("mini-style:") else None


def guarded(command: Callable[..., None]) -> None:
    """Run a typer command: exit 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(command)
    guarded_app(app)


def guarded_app(app: typer.Typer) -> None:
    """As `guarded`, for an app with several commands."""
    sys.exit(ended(app, "interrupted; start again to go on"))


if __name__ == "__main__":
    guarded(run)
