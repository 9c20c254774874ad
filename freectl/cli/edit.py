"""`freectl edit`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli.output import Format, FormatOption, emit

# \b keeps the help formatter from breaking commands across lines.
EXAMPLES = """\b
Examples:
  freectl edit --image fox.png --prompt "a fluent cat on a blue background"
  freectl edit --image photo.jpg --prompt "a bronze horse" \\
    --model stable-diffusion-v1-5/stable-diffusion-v1-5
  freectl edit --image fox.png --prompt "a fluent cat on a blue background" \\
    --source-prompt "a fluent fox on an orange background" --method all --compare
  freectl edit --config out.png --output again.png
"""
Text = Annotated[str | None, typer.Option(show_default=False)]


def edit(
    context: typer.Context,
    image: Annotated[str | None, typer.Option(help="Input picture, or - for stdin.", metavar="PATH|-")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the result shows.")] = None,
    output: Annotated[Path, typer.Option(help="Where the result goes: .png .jpg .jpeg .webp.")] = Path("out.png"),
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
    negative_prompt: Annotated[str | None, typer.Option(help="What the result should not show.")] = None,
    concept: Annotated[str | None, typer.Option(help="Word of the prompt whose seed pictures make the bases.")] = None,
    steps: Annotated[int | None, typer.Option(help="DDIM steps, 1 to 1000.  [default: 50]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the CPU generator.  [default: 0]")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Classifier-free guidance, 0 to 100.  [default: 7.5; mini 4]")
    ] = None,
    structure_weight: Annotated[float | None, typer.Option(help="lambda_s of FreeControl, 0 and up.")] = None,
    appearance_weight: Annotated[float | None, typer.Option(help="lambda_a of FreeControl, 0 and up.")] = None,
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
    appearance_image: Annotated[
        str | None, typer.Option(help="Take the appearance of this picture.", metavar="PATH")
    ] = None,
    lora: Annotated[str | None, typer.Option(help="LoRA weights, .safetensors.", metavar="PATH")] = None,
    textual_inversion: Annotated[
        list[str] | None, typer.Option(help="New word for prompts, .safetensors; may repeat.", metavar="PATH")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.  [default: auto]")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, fp32, fp16, bf16.  [default: auto]")] = None,
    offload: Annotated[str | None, typer.Option(help="none, model, sequential.  [default: none]")] = None,
    preset: Annotated[str | None, typer.Option(help="Named settings of the method.  [default: default]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Options from .json, .yaml, or a PNG that freectl wrote; flags override it.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method; may repeat.", metavar="KEY=VALUE")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep and reuse inversions and bases on disk.")
    ] = True,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write input and result(s) side by side, labelled.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only print how source and target tokens align (p2p); needs no --image.")
    ] = False,
    form: FormatOption = Format.human,
) -> None:
    """Change a picture as a sentence says and keep its structure."""
    from freectl import record as records
    from freectl.config import EditOptions, parse_assignments, validated
    from freectl.errors import InputError

    names = ("prompt", "method", "model", "source_prompt", "negative_prompt", "concept", "steps", "seed",
             "guidance_scale", "mask", "keep", "keep_background", "appearance_image", "lora", "device", "dtype",
             "offload", "preset")  # fmt: skip
    flags = {name: context.params[name] for name in names if context.params[name] is not None}
    flags |= {"textual_inversion": tuple(textual_inversion)} if textual_inversion else {}
    overrides: dict[str, Any] = parse_assignments(set_ or [])
    weights = {"structure_weight": structure_weight, "appearance_weight": appearance_weight}
    overrides |= {name: value for name, value in weights.items() if value is not None}
    from_file: dict[str, Any] = {}
    if config is not None:
        from freectl.api import split_record

        file_image, from_file, file_settings = split_record(records.read_config(config))
        image = image or file_image
        # Settings of another method or preset than the file's would not fit, and are not wanted.
        if not any(
            flags.get(name, from_file[name]) != from_file[name] for name in ("method", "preset") if name in from_file
        ):
            overrides = file_settings | overrides
    if image is None and not explain:
        raise InputError("--image", "nothing", "a path, or - for stdin")
    if "prompt" not in flags | from_file:
        raise InputError("--prompt", "nothing", "what the result shows, in words")
    options = validated(EditOptions, from_file | flags)
    if explain:
        from freectl.explain import as_text
        from freectl.explain import explain as explained

        found = explained(options, overrides)
        emit(found, as_text(found), form)
        return
    target = records.check_output(output)
    if image != "-" and target.exists() and Path(image).exists() and target.samefile(image):
        raise InputError("--output", f"'{target}', the input picture itself", "another file")
    if options.method == "all" or "," in options.method:
        from freectl.cli.compare import run_methods

        run_methods(image, options, overrides, target, cache, compare, form)
        return
    _run(image, options, overrides, target, cache, compare, form)


def _run(
    image: str, options: Any, overrides: dict[str, Any], target: Path, cache: bool, compare: bool, form: Format
) -> None:
    from freectl import api
    from freectl import record as records

    checked = api.plan(image, options, overrides)
    _hush()
    result = api.run(checked, cache=cache, progress=form is not Format.quiet)
    record = {"output": str(target), **result.record}
    records.save_image(result.image, target, record)
    lines = [f"{target}  ({', '.join(result.notes)})", *(f"warning: {text}" for text in record["warnings"])]
    if compare:
        from freectl.image_io import compare_sheet

        beside = target.with_name(f"{target.stem}_compare.png")
        sheet = compare_sheet([("input", result.source), (options.prompt, result.image)])
        records.save_image(sheet, beside)
        lines.append(str(beside))
    cost = record["cost"]
    hits = ", ".join(kind for kind, hit in cost["cached"].items() if hit) or "nothing"
    lines.append(
        f"{cost['row_forwards']:g} row forwards, {cost['row_backwards']} row backwards, "
        f"{cost['seconds']['total']:.1f} s; cached: {hits}"
    )
    if form is not Format.human:
        for text in record["warnings"]:
            typer.echo(f"warning: {text}", err=True)
    emit(record, "\n".join(lines), form)


def _hush() -> None:
    """Libraries' own loading bars and advice do not belong on the terminal of this command."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
