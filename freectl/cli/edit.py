"""`freectl edit`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli import options as shared
from freectl.cli.output import Format, FormatOption, emit, emit_run, quiet_libraries

# \b keeps the help formatter from breaking commands across lines.
EXAMPLES = """\b
Examples:
  freectl edit --image fox.png --prompt "a fluent cat on a blue background"
  freectl edit --image photo.jpg --prompt "a bronze horse" \\
    --model stable-diffusion-v1-5/stable-diffusion-v1-5
  freectl edit --image fox.png --prompt "a fluent cat on a blue background" \\
    --source-prompt "a fluent fox on an orange background" --method all --compare
  freectl edit --config out.png --output again.png
  freectl edit --image fox.png --method gan --gan-weights runs/pix2pix/weights
"""
Text = Annotated[str | None, typer.Option(show_default=False)]


def edit(
    context: typer.Context,
    image: Annotated[str | None, typer.Option(help="Input picture, or - for stdin.", metavar="PATH|-")] = None,
    prompt: shared.Prompt = None,
    output: shared.Output = Path("out.png"),
    method: Annotated[
        str | None,
        typer.Option(
            help="See `freectl methods`; several with commas between, or all, write NAME_METHOD files."
            "  [default: freecontrol]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Embedded model, folder, single file, or hub id such as stable-diffusion-v1-5/stable-diffusion-v1-5."
            "  [default: mini]",
            metavar="mini|DIR|FILE.safetensors|HUB_ID",
        ),
    ] = None,
    source_prompt: Annotated[str | None, typer.Option(help="What the input shows; used while inverting it.")] = None,
    negative_prompt: shared.NegativePrompt = None,
    concept: Annotated[str | None, typer.Option(help="Word of the prompt whose seed pictures make the bases.")] = None,
    steps: shared.Steps = None,
    seed: shared.Seed = None,
    guidance_scale: shared.GuidanceScale = None,
    structure_weight: shared.StructureWeight = None,
    appearance_weight: shared.AppearanceWeight = None,
    gan_weights: Annotated[
        str | None,
        typer.Option(help="Trained generator of the method gan: a folder, or a shipped name.", metavar="DIR|NAME"),
    ] = None,
    gan_direction: Annotated[
        str | None, typer.Option(help="Which way it translates.  [default: AB, or its only one]", metavar="AB|BA")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            help="Where the structure holds: white in a picture of the input's size.", metavar="none|attention|PATH"
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Where the input stays as it is: white in a picture of its size.", metavar="none|PATH"),
    ] = None,
    keep_background: Annotated[
        bool | None,
        typer.Option(
            "--keep-background/--no-keep-background",
            help="Keep the input where the --concept of its --source-prompt is not.",
            show_default=False,
        ),
    ] = None,
    appearance_image: shared.AppearanceImage = None,
    lora: shared.Lora = None,
    textual_inversion: shared.TextualInversion = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    offload: shared.Offload = None,
    preset: shared.Preset = None,
    config: Annotated[
        Path | None, typer.Option(help="Options from .json, .yaml, or a PNG that freectl wrote; flags override it.")
    ] = None,
    set_: shared.Assignments = None,
    cache: shared.UseCache = True,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write input and result(s) side by side, labelled.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only print how source and target tokens align (p2p); needs no --image.")
    ] = False,
    form: FormatOption = Format.human,
) -> None:
    """Change a picture as a sentence says and keep its structure."""
    from freectl.files import record as records
    from freectl.methods import OUTSIDE
    from freectl.tasks.edit import split_record
    from freectl.tasks.options import EditOptions, validated

    given, settings = shared.gathered(context, ["image", *EditOptions.model_fields], split_record)
    if not explain:
        shared.require(given, "image", "a path, or - for stdin")
    if str(given.get("method")) not in OUTSIDE:
        shared.require(given, "prompt", "what the result shows, in words")
    path = str(given.pop("image", ""))
    options = validated(EditOptions, given)
    if explain:
        from freectl.cli.alignment import as_text
        from freectl.tasks.explain import explain as explained

        found = explained(options, settings)
        emit(found, as_text(found), form)
        return
    target = records.check_output(output)
    shared.check_not_input(target, path, "input picture")
    if options.method == "all" or "," in options.method:
        from freectl.cli.compare import run_methods

        run_methods(path, options, settings, target, cache, compare, form)
        return
    _run(path, options, settings, target, cache, compare, form)


def _run(
    image: str, options: Any, settings: dict[str, Any], target: Path, cache: bool, compare: bool, form: Format
) -> None:
    from freectl.files import record as records
    from freectl.tasks import edit as editing

    checked = editing.plan(image, options, settings)
    if checked.source is not None:
        quiet_libraries()
    result = editing.run(checked, cache=cache, progress=form is not Format.quiet)
    record = {"output": str(target), **result.record}
    records.save_image(result.image, target, record)
    beside = []
    if compare:
        from freectl.files.pictures import compare_sheet

        sheet = compare_sheet([("input", result.source), (options.prompt or options.method, result.image)])
        beside.append(records.save_image(sheet, target.with_name(f"{target.stem}_compare.png")))
    emit_run(record, result.notes, beside, form)
