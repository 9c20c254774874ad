"""Run methods on a benchmark: `python -m eval.run --methods sdedit,freecontrol --bench mini --out DIR`.

Start it again after a kill: what is done stays. Every method gets the same picture, model, seed, step count and source
prompt. Ends with a table; `python -m eval.report DIR` makes the report.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eval.bench.cases import Bench, Case, chosen_cases
from eval.results.store import Store
from eval.run.variants import variants
from freectl.errors import FreectlError, InputError
from freectl.tasks.batch import engines

if TYPE_CHECKING:
    from eval.run.plan import Plan


def run(
    methods: Annotated[
        str, typer.Option(help="Names with commas between, each perhaps NAME:PRESET[key=value,...]; gan.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Results folder; what it already holds is not computed again.")] = ...,  # type: ignore[assignment]
    bench: Annotated[
        str,
        typer.Option(
            help="mini[:SEED], mini-held-out, mini-style:FROM:TO, mini-control[:SEED], pie, imagenet-r-ti2i, ctrl-x, "
            "ctrl-x-pairs, or a manifest."
        ),
    ] = "mini",
    data: Annotated[Path | None, typer.Option(help="Folder of pie, imagenet-r-ti2i, ctrl-x or ctrl-x-pairs.")] = None,
    conditions: Annotated[
        Path | None,
        typer.Option(help="Of imagenet-r-ti2i: a folder of pictures under its names, or with one a condition."),
    ] = None,
    subset: Annotated[int | None, typer.Option(help="This many cases, balanced over edit types.", min=1)] = None,
    kinds: Annotated[str | None, typer.Option(help="Only these edit types, with commas between.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="method.key=value; also mask, concept, appearance.")
    ] = None,
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
    engine: Annotated[str, typer.Option(help="local processes, or ray actors.", metavar="local|ray")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="Cluster for --engine ray; none starts one here.")] = None,
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
    from eval.bench.manifests import load_bench
    from eval.run.plan import Plan

    loaded = load_bench(bench, data, conditions, model)
    if clip is not None:
        from eval.scores.metrics.clip import check_clip

        check_clip(clip)
    if rescore:
        from eval.run.measure import again

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
    way = {"workers": workers, "engine": engine, "ray_address": ray_address}
    _carry_out(plan, loaded, chosen_cases(loaded, kinds, subset), out, way)


def _carry_out(plan: "Plan", bench: Bench, cases: list[Case], out: Path, way: dict[str, Any]) -> None:
    """Do what the folder lacks, and print its table."""
    from eval.results.reading import read
    from eval.results.tables import summary_markdown
    from eval.run.execute import execute
    from eval.run.measure import write_sets

    engines.engine(way["engine"], way["workers"], way["ray_address"])  # refuses what cannot be had
    plan.check(bench)
    if not plan.tasks(cases):
        named = ",".join(one.label for one in plan.variants)
        found = f"'{named}', which fit none of the {len(cases)} cases"
        raise InputError("--methods", found, "methods that fit some; mask=exact fits scenes, concept=source needs one")
    with Store(out).locked() as store:
        store.begin(plan.about(bench), command())
        failed = execute(plan, bench, cases, store, **way)
        write_sets(store, bench.layout, plan.clip)
        if failed:
            raise FreectlError(f"{failed} cases failed, see {store.folder / 'failures.jsonl'}; run again to retry them")
    sys.stdout.write(summary_markdown(read([out])))
    sys.stdout.write(f"{len(store.lines())} results in {out}; report: python -m eval.report {shlex.quote(str(out))}\n")


def command() -> str:
    """The command line as one would type it."""
    return shlex.join(["python", "-m", "eval.run", *sys.argv[1:]])


def _gan_names(texts: list[str]) -> list[str]:
    if not texts:
        return []
    from eval.gans.given import parse_weights

    return list(parse_weights(texts))


def _styles_of(bench: str) -> str | None:
    return bench.partition(":")[2] if bench.startswith("mini-style:") else None
