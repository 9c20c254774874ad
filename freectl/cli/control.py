"""`freectl control`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli import options as shared
from freectl.cli import panels
from freectl.cli.explain import Explaining
from freectl.cli.job import Job
from freectl.cli.output import Format, FormatOption, quiet_libraries

# \b keeps the help formatter from breaking commands across lines.
EXAMPLES = """\b
Examples:
  freectl control --condition sketch.png --concept fox \\
    --prompt "a fluent fox on a blue background"
  freectl control --condition photo.jpg --preprocess canny=50,150 --concept cat \\
    --prompt "a noto cat on a blue background" --compare
  freectl control --condition room.png --preprocess canny --prompt "a wooden cabin" \\
    --method controlnet --set inverted=true --controlnet lllyasviel/control_v11p_sd15_canny \\
    --model stable-diffusion-v1-5/stable-diffusion-v1-5
  freectl control --condition chair.glb --view 45,20 --concept chair \\
    --prompt "a wooden chair" --model stable-diffusion-v1-5/stable-diffusion-v1-5
  freectl control --config out.png --output again.png

Options that may repeat pair up with the conditions by position; one value holds for all.
A single condition with several concepts is followed for all of them at once.

\b
Preprocessors: none (the picture as it is), canny[=LOW,HIGH], sketch[=LOW,HIGH],
  depth[=MODEL], normal[=MODEL,BACKGROUND], segmentation[=MODEL],
  pose[=MODEL,DETECTOR]; MODEL is a folder or a hub id of transformers.
"""


def control(
    context: typer.Context,
    condition: Annotated[
        list[str] | None,
        panels.what(help="Picture (- for stdin) or mesh whose structure is followed; may repeat.", metavar="PATH|-"),
    ] = None,
    prompt: shared.Prompt = None,
    concept: Annotated[
        list[str] | None, panels.what(help="Word of the prompt that the condition shows; may repeat.", metavar="WORD")
    ] = None,
    source_prompt: Annotated[
        list[str] | None,
        panels.what(
            help="What the condition shows; may repeat.  [default: the seed template with the concept]", metavar="TEXT"
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        panels.where(
            help="Where the structure holds: white in a picture of the condition's size; may repeat."
            "  [default: attention if the source prompt names the concept]",
            metavar="none|attention|PATH",
        ),
    ] = None,
    preprocess: Annotated[
        list[str] | None,
        panels.what(help="What is made of the condition first, see below; may repeat.", metavar="NAME[=VALUE,...]"),
    ] = None,
    view: Annotated[
        list[str] | None,
        panels.what(
            help="Of a mesh, in degrees: 0,0 looks along its z axis; may repeat.  [default: 30,20]",
            metavar="AZIMUTH,ELEVATION",
        ),
    ] = None,
    output: shared.Output = None,
    width: Annotated[
        int | None, panels.result(help="Of the result, pixels.  [default: of the first condition, fitted to the model]")
    ] = None,
    height: Annotated[int | None, panels.result(help="As --width; one alone keeps the aspect.")] = None,
    method: Annotated[str | None, panels.strong(help="See `freectl methods`.  [default: freecontrol]")] = None,
    model: Annotated[
        str | None,
        panels.model(help="As for `freectl edit`.  [default: mini]", metavar=shared.MODEL_NAMES),
    ] = None,
    negative_prompt: shared.NegativePrompt = None,
    steps: shared.Steps = None,
    seed: shared.Seed = None,
    guidance_scale: shared.GuidanceScale = None,
    structure_strength: shared.StructureStrength = None,
    appearance_weight: shared.AppearanceWeight = None,
    controlnet: Annotated[
        str | None,
        panels.model(
            help="Trained network of the methods controlnet and t2i-adapter.  [default: the model folder's own]",
            metavar="DIR|FILE.safetensors|HUB_ID",
        ),
    ] = None,
    gan_weights: shared.GanWeights = None,
    gan_direction: shared.GanDirection = None,
    background: shared.Background = None,
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
        Path | None, panels.what(help="Options from .json, .yaml, or a PNG of this command; flags override it.")
    ] = None,
    set_: shared.Assignments = None,
    cache: shared.UseCache = True,
    compare: Annotated[
        bool, panels.result("--compare", help="Also write condition, what was made of it, and result side by side.")
    ] = False,
    explain: shared.Explain = None,
    overwrite: shared.Overwrite = False,
    trust_record: shared.TrustRecord = False,
    form: FormatOption = Format.human,
    verbose: shared.Verbose = False,
) -> None:
    """Make a picture of what a sentence says, with the structure of sketches, renders or other condition pictures."""
    from freectl.files.outputs import Outputs
    from freectl.methods import OUTSIDE
    from freectl.tasks.control import split_record
    from freectl.tasks.inputs import input_files
    from freectl.tasks.options import ControlOptions, validated

    given, settings = shared.gathered(context, ControlOptions.model_fields, split_record)
    shared.require(given, "condition", "a path, or - for stdin")
    if str(given.get("method")) not in OUTSIDE:
        shared.require(given, "prompt", "what the result shows, in words")
    options = validated(ControlOptions, given)
    outputs = Outputs(input_files(options, settings, ("--config", config)), overwrite=overwrite)
    target = outputs.check(output or Path("out.png"))
    _run(options, settings, Job(target, outputs, cache, compare, form, verbose, explain))


def _run(options: Any, overrides: dict[str, Any], job: Job) -> None:
    from freectl.tasks import control as controlling
    from freectl.tasks import hints

    if job.sheet:
        job.place("compare", ".png")
    checked = controlling.plan(options.condition, options, overrides)
    explaining = Explaining.of(job, checked)
    quiet_libraries()
    result = explaining.run(controlling.run, checked, job)
    record = job.write(result.image, result.record, job.target, *result.conditions)
    beside = explaining.write(record)
    if job.sheet:
        beside.append(job.write_sheet(_cells(checked, result), Path(record["output"])))
    job.tell(result, record, beside, hints.next_step(checked, result))


def _cells(checked: Any, result: Any) -> list[tuple[str, Any]]:
    """Conditions, what was made of them, and the result, labelled."""
    cells = []
    for one, made in zip(checked.conditions, result.conditions, strict=True):
        if one.picture is not None:
            cells.append(("condition", one.picture))
        if one.label:
            cells.append((one.label, made))
    return [*cells, (checked.options.prompt, result.image)]
