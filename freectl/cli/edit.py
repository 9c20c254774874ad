"""`freectl edit`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli import options as shared
from freectl.cli import panels
from freectl.cli.explain import Explaining
from freectl.cli.job import Job
from freectl.cli.output import Format, FormatOption, emit, quiet_libraries
from freectl.errors import InputError

# \b keeps the help formatter from breaking commands across lines.
EXAMPLES = """\b
A prompt describes the result, it is not an instruction: "a bronze horse",
not "make the horse bronze".

\b
Examples:
  freectl edit --image fox.png --prompt "a noto cat on a blue background"
  freectl edit --image photo.jpg --prompt "a bronze horse" \\
    --model stable-diffusion-v1-5/stable-diffusion-v1-5
  freectl edit --image fox.png --prompt "a noto cat on a blue background" \\
    --source-prompt "a fluent fox on an orange background" --method all --compare
  freectl edit --image fox.png --prompt "a noto cat on a blue background" --method sdedit --seeds 4
  freectl edit --image photos --prompt "a bronze horse" --output results
  freectl edit --config out.png --output again.png
  freectl edit --image fox.png --method gan --gan-weights runs/pix2pix/weights
  freectl edit --image photo.jpg --method style-transfer --appearance-image painting.jpg
"""
Text = Annotated[str | None, typer.Option(show_default=False)]


def edit(
    context: typer.Context,
    image: Annotated[
        str | None, panels.what(help="Input picture, a folder of pictures, or - for stdin.", metavar="PATH|-")
    ] = None,
    prompt: shared.Prompt = None,
    output: shared.Output = None,
    method: Annotated[
        str | None,
        panels.strong(
            help="See `freectl methods`; several with commas between, or all, write NAME_METHOD files."
            "  [default: freecontrol]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        panels.model(
            help="Embedded model, folder, single file, or hub id such as stable-diffusion-v1-5/stable-diffusion-v1-5."
            "  [default: mini]",
            metavar=shared.MODEL_NAMES,
        ),
    ] = None,
    source_prompt: Annotated[str | None, panels.what(help="What the input shows; used while inverting it.")] = None,
    negative_prompt: shared.NegativePrompt = None,
    concept: Annotated[str | None, panels.where(help="Word of the prompt whose seed pictures make the bases.")] = None,
    steps: shared.Steps = None,
    seed: Annotated[
        str | None,
        panels.strong(help="Seed of the CPU generator; several with commas between.  [default: 0]", metavar="N[,N...]"),
    ] = None,
    seeds: Annotated[
        int | None, panels.strong(help="So many results, from --seed on, and one sheet of all.", min=1, max=64)
    ] = None,
    guidance_scale: shared.GuidanceScale = None,
    structure_strength: shared.StructureStrength = None,
    appearance_weight: shared.AppearanceWeight = None,
    gan_weights: shared.GanWeights = None,
    gan_direction: shared.GanDirection = None,
    mask: Annotated[
        str | None,
        panels.where(
            help="Where the structure holds: white in a picture of the input's size.", metavar="none|attention|PATH"
        ),
    ] = None,
    keep: Annotated[
        str | None,
        panels.where(help="Where the input stays as it is: white in a picture of its size.", metavar="none|PATH"),
    ] = None,
    keep_background: Annotated[
        bool | None,
        panels.where(
            "--keep-background/--no-keep-background",
            help="Keep the input where the --keep-concept of its --source-prompt is not.",
            show_default=False,
        ),
    ] = None,
    keep_concept: Annotated[
        str | None,
        panels.where(help="Word of --source-prompt that may change, with --keep-background.", metavar="WORD"),
    ] = None,
    background: shared.Background = None,
    keep_alpha: Annotated[
        bool | None,
        panels.where(
            "--keep-alpha/--no-keep-alpha", help="Give the result the input's transparency.", show_default=False
        ),
    ] = None,
    appearance_image: shared.AppearanceImage = None,
    lora: shared.Lora = None,
    textual_inversion: shared.TextualInversion = None,
    long_prompts: shared.LongPrompts = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    offload: shared.Offload = None,
    vae_tiling: shared.VaeTiling = None,
    preset: shared.Preset = None,
    config: Annotated[
        Path | None, panels.what(help="Options from .json, .yaml, or a PNG that freectl wrote; flags override it.")
    ] = None,
    set_: shared.Assignments = None,
    cache: shared.UseCache = True,
    compare: Annotated[
        bool, panels.result("--compare", help="Also write input and result(s) side by side, labelled.")
    ] = False,
    overwrite: shared.Overwrite = False,
    trust_record: shared.TrustRecord = False,
    explain: shared.Explain = None,
    align: Annotated[
        bool, panels.what("--align", help="Only print how source and target tokens align (p2p); needs no --image.")
    ] = False,
    form: FormatOption = Format.human,
    verbose: shared.Verbose = False,
) -> None:
    """Change a picture as a sentence says and keep its structure."""
    from freectl.cli import several
    from freectl.files.outputs import Outputs
    from freectl.files.paths import is_folder
    from freectl.methods import OUTSIDE
    from freectl.tasks.edit import split_record
    from freectl.tasks.inputs import check_alpha, input_files
    from freectl.tasks.options import EditOptions, validated

    given, settings = shared.gathered(context, ["image", *EditOptions.model_fields], split_record)
    if not align:
        shared.require(given, "image", "a path, or - for stdin")
    if str(given.get("method")) not in OUTSIDE:
        shared.require(given, "prompt", "what the result shows, in words")
    path = str(given.pop("image", ""))
    wanted = several.parse_seeds(seed, seeds)
    each = [validated(EditOptions, {**given, "seed": one}) for one in wanted[:1] + wanted[-1:]]
    options = each[0] if each else validated(EditOptions, given)
    if align:
        _align(options, settings, form)
        return
    folder = path != "-" and is_folder(path)
    sources = several.pictures_in(Path(path)) if folder else [Path(path)]
    inputs = input_files(options, settings, ("--image", sources), ("--config", config))
    outputs = Outputs(inputs, overwrite=overwrite)
    target = output or Path("out.png")
    job = Job(target, outputs, cache, compare, form, verbose, explain)
    many = options.method == "all" or "," in options.method
    _check_one_way(folder, len(wanted) > 1, many, compare, explain is not None)
    if folder:
        several.run_folder(sources, options, settings, several.output_folder(output, Path(path)), job)
        return
    check_alpha(options, outputs.check(target))
    if many:
        from freectl.cli.compare import run_methods

        run_methods(path, options, settings, job)
    elif len(wanted) > 1:
        several.run_seeds(path, options, settings, [int(one) for one in wanted], job)
    else:
        _run(path, options, settings, job)


def _check_one_way(folder: bool, seeds: bool, methods: bool, sheet: bool, explain: bool) -> None:
    """Raises InputError: a folder, several seeds and several methods, of which one at a time is run."""
    ways = [("--image", "a folder", folder), ("--seed", "several", seeds), ("--method", "several", methods)]
    several = [(option, what) for option, what, given in ways if given]
    if len(several) > 1:
        option, what = several[1]
        raise InputError(option, f"{what} together with {several[0][1]} for {several[0][0]}", "one of the two")
    if explain and several:
        raise InputError("--explain", f"with {several[0][1]} for {several[0][0]}", "one run")
    if folder and sheet:
        raise InputError("--compare", "with a folder of pictures", "one picture")


def _align(options: Any, settings: dict[str, Any], form: Format) -> None:
    from freectl.cli.alignment import as_text
    from freectl.tasks.alignment import alignment

    found = alignment(options, settings)
    emit(found, as_text(found), form)


def _run(image: str, options: Any, settings: dict[str, Any], job: Job) -> None:
    from freectl.tasks import edit as editing
    from freectl.tasks import hints

    if job.sheet:
        job.place("compare", ".png")
    checked = editing.plan(image, options, settings)
    explaining = Explaining.of(job, checked)
    if checked.source is not None:
        quiet_libraries()
    result = explaining.run(editing.run, checked, job)
    record = job.write(result.image, result.record, job.target, checked.picture.image)
    beside = explaining.write(record)
    if job.sheet:
        cells = [("input", result.source), (options.prompt or options.method, result.image)]
        beside.append(job.write_sheet(cells, Path(record["output"])))
    job.tell(result, record, beside, hints.next_step(checked, result))
