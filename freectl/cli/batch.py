"""`freectl batch`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli import options as shared
from freectl.cli import panels
from freectl.cli.app import examples
from freectl.cli.output import Format, FormatOption, emit, quiet_libraries, warn
from freectl.errors import InputError

EXAMPLES = """\b
A row of a manifest has an image and a prompt, and perhaps any option or setting of an
edit: seed (one or several), source_prompt, mask, keep, method, strength, ...
What the command line says holds for rows that do not say otherwise. Paths are relative
to the manifest's folder.

""" + examples(
    'freectl batch --folder photos --prompt "a bronze horse" --out results',
    "freectl batch --manifest edits.jsonl --out results --dry-run",
    "freectl batch --manifest edits.csv --out results --method sdedit --workers 4",
    "freectl batch --manifest edits.csv --out results --resume",
    "freectl batch --manifest s3://bucket/edits.parquet --out results --engine ray --workers 64",
)


def batch(
    context: typer.Context,
    out: Annotated[
        Path, panels.result(help="Folder of the results; results.jsonl in it has a line each.", metavar="DIR")
    ] = ...,  # type: ignore[assignment]
    manifest: Annotated[
        str | None, panels.what(help="Rows to edit.", metavar="FILE.jsonl|FILE.csv|FILE.parquet")
    ] = None,
    folder: Annotated[
        Path | None, panels.what(help="In place of a manifest: all pictures of this folder.", metavar="PICTURES")
    ] = None,
    prompt: shared.Prompt = None,
    method: Annotated[str | None, panels.strong(help="See `freectl methods`.  [default: freecontrol]")] = None,
    model: Annotated[
        str | None,
        panels.model(help="As for edit.  [default: mini]", metavar=shared.MODEL_NAMES),
    ] = None,
    source_prompt: Annotated[str | None, panels.what(help="What the inputs show; used while inverting.")] = None,
    negative_prompt: shared.NegativePrompt = None,
    steps: shared.Steps = None,
    seed: Annotated[
        str | None, panels.strong(help="Seed; several with commas between.  [default: 0]", metavar="N[,N...]")
    ] = None,
    seeds: Annotated[int | None, panels.strong(help="So many results a row, from --seed on.", min=1, max=64)] = None,
    guidance_scale: shared.GuidanceScale = None,
    structure_strength: shared.StructureStrength = None,
    appearance_weight: shared.AppearanceWeight = None,
    background: shared.Background = None,
    lora: shared.Lora = None,
    textual_inversion: shared.TextualInversion = None,
    long_prompts: shared.LongPrompts = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    offload: shared.Offload = None,
    preset: shared.Preset = None,
    set_: shared.Assignments = None,
    name: Annotated[
        str, panels.result(help="Names of results, of {stem} {seed} {row} {shard} {method} {preset} {model} {steps}.")
    ] = "{stem}_{seed}.png",
    resume: Annotated[
        bool, panels.result("--resume", help="Go on: what is done stays, what failed is tried again.")
    ] = False,
    workers: Annotated[int, panels.machine(help="Processes, or Ray actors, each with the model.", min=1)] = 1,
    batch_size: Annotated[
        str, panels.machine(help="Pictures in one batch of the network.  [auto: as memory allows]", metavar="auto|N")
    ] = "auto",
    on_error: Annotated[str, panels.result(help="After a row that fails.", metavar="continue|stop")] = "continue",
    engine: Annotated[
        str, panels.machine(help="Processes of this machine, or actors of a Ray cluster.", metavar="local|ray")
    ] = "local",
    ray_address: Annotated[
        str | None, panels.machine(help="Cluster for --engine ray, such as auto or ray://HOST:10001.")
    ] = None,
    allow_outside: Annotated[
        bool,
        panels.what("--allow-outside", help="Rows may name files outside the manifest's folder, and hub models."),
    ] = False,
    dry_run: Annotated[
        bool, panels.result("--dry-run", help="Check every row and say how long it will take; write nothing.")
    ] = False,
    cache: shared.UseCache = True,
    form: FormatOption = Format.human,
) -> None:
    """Edit many pictures: rows in, a picture and a line of JSON each out; start it again with --resume."""
    from freectl.cli.several import parse_seeds
    from freectl.files import collector
    from freectl.files.paths import is_folder
    from freectl.tasks.batch import run as running
    from freectl.tasks.batch.journal import Journal
    from freectl.tasks.batch.manifest import read_manifest
    from freectl.tasks.batch.places import Places
    from freectl.tasks.options import EditOptions

    options, settings = shared.gathered(context, EditOptions.model_fields, lambda record: (record, {}))
    wanted = parse_seeds(seed, seeds)
    if wanted:
        options["seed"] = wanted
    if (manifest is None) == (folder is None):
        raise InputError("--manifest", "both or neither of --manifest and --folder", "one of them")
    if is_folder(out) and folder is not None and out.resolve() == folder.resolve():
        raise InputError("--out", f"'{out}', the folder of the inputs itself", "another folder")
    Journal(out).check(resume or dry_run)
    way = running.checked_way(
        resume=resume,
        workers=workers,
        batch_size=batch_size,
        on_error=on_error,
        engine=engine,
        ray_address=ray_address,
        cache=cache,
        progress=form is not Format.quiet,
    )
    common = running.common_of({**options, **settings}, Places(manifest or "", allow_outside), name)
    rows = _rows_of(folder) if folder is not None else read_manifest(str(manifest))
    checked = running.check(rows, common, on_error)
    quiet_libraries()
    if dry_run:
        _dry(checked, way, form)
        return
    if way.workers > 1 or way.engine != "local":
        collector.settle()  # no model is loaded here
    result = running.carry_out(checked, out, way, lambda text: warn([text], Format.quiet))
    emit(_summary(result), _said(result), form)
    running.raise_failed(result)


def _rows_of(folder: Path) -> list[dict[str, Any]]:
    from freectl.cli.several import pictures_in
    from freectl.files.paths import is_folder

    if not is_folder(folder):
        raise InputError("--folder", f"no folder '{folder}'", "a folder of pictures")
    return [{"image": str(path)} for path in pictures_in(folder, "--folder")]


def _summary(result: Any) -> dict[str, Any]:
    return {
        "output": str(result.folder),
        "made": result.made,
        "kept": result.kept,
        "failed": result.failed,
        "seconds": round(result.seconds, 3),
        "errors": result.errors,
    }


def _said(result: Any) -> str:
    rate = f", {60 * result.made / result.seconds:.1f} a minute" if result.made and result.seconds else ""
    kept = f", {result.kept} were there" if result.kept else ""
    failed = f", {result.failed} failed" if result.failed else ""
    return f"{result.made} pictures in {result.folder}{kept}{failed}  ({result.seconds:.1f} s{rate})"


def _dry(checked: Any, way: Any, form: Format) -> None:
    from freectl.tasks.batch import estimate

    found = estimate.estimated(checked, way)
    warn([f"row {line['row']}: {line['error']}" for line in found.errors], Format.quiet)
    emit(found.record, found.text, form)
    found.raise_first()
