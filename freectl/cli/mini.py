"""`freectl mini`: the embedded world and model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli.app import App, examples
from freectl.cli.options import Overwrite
from freectl.cli.output import Format, FormatOption, emit, table, warn
from freectl.mini.domain import PICTURE_SIZE

CONTROLS = ("controlnet", "t2i-adapter")

app = App(help="The embedded world and model: scenes, training, scores.", no_args_is_help=True)


def _check_model(option: str, folder: Path, file: str) -> None:
    from freectl.errors import InputError
    from freectl.files.paths import there
    from freectl.files.tensor_files import check_folder

    if not there(folder / file):
        raise InputError(option, f"'{folder}', which has no {file}", "a folder that `freectl mini train` wrote")
    check_folder(folder, option)


@app.command(
    epilog=examples(
        "freectl mini words",
        "freectl mini words --format json",
    )
)
def words(form: FormatOption = Format.human) -> None:
    """The objects, styles and backgrounds that the embedded model knows."""
    from freectl.mini.domain import BACKGROUNDS, OBJECTS, STYLES

    value = {"objects": list(OBJECTS), "styles": list(STYLES), "backgrounds": list(BACKGROUNDS)}
    emit(value, "\n".join(f"{name}: {', '.join(known)}" for name, known in value.items()), form)


@app.command(
    epilog=examples(
        "freectl mini scenes --out scenes --count 200",
        "freectl mini scenes --out pairs --layout paired --styles noto,fluent",
    )
)
def scenes(
    out: Annotated[Path, typer.Option(help="Folder to write to; created.")],
    count: Annotated[int, typer.Option(help="Scenes (for unpaired: a side).", min=1, max=1_000_000)] = 100,
    seed: Annotated[int, typer.Option(help="Same seed, same scenes.", min=0)] = 0,
    layout: Annotated[str, typer.Option(help="single, paired or unpaired.")] = "single",
    styles: Annotated[
        str | None, typer.Option(help="Comma-separated; paired and unpaired take two.  [default: all; noto,fluent]")
    ] = None,
    size: Annotated[
        int, typer.Option(help="Side in pixels; 64, 128 and 256 are drawn sharply.", min=16, max=1024)
    ] = PICTURE_SIZE,
    form: FormatOption = Format.human,
) -> None:
    """Write pictures, exact masks and a JSONL of what they show."""
    from freectl.errors import FreectlError, InputError, unknown
    from freectl.mini.domain import STYLES
    from freectl.mini.export import may_write, write_scenes

    if layout not in ("single", "paired", "unpaired"):
        raise unknown("--layout", layout, ("single", "paired", "unpaired"))
    chosen = tuple(styles.split(",")) if styles else (STYLES if layout == "single" else ("noto", "fluent"))
    for style in chosen:
        if style not in STYLES:
            raise unknown("--styles", style, STYLES)
    if layout != "single" and len(chosen) != 2:
        raise InputError("--styles", f"{len(chosen)} styles for layout {layout}", "two, such as noto,fluent")
    asked: dict[str, Any] = {"count": count, "seed": seed, "styles": chosen, "layout": layout, "size": size}
    try:
        if not may_write(out, **asked):
            allowed = "a new or empty folder, or one that the same command has left unfinished"
            raise InputError("--out", f"'{out}', which is not an empty folder", allowed)
        written = write_scenes(out, **asked)
    except OSError as error:
        text = f"--out: could not write to '{out}' ({error.strerror or error}); the same command goes on there"
        raise FreectlError(text) from error
    emit({"out": str(out), "pictures": written, "layout": layout}, f"{written} pictures in {out}", form)


@app.command(
    epilog=examples(
        "freectl mini train --out runs/mini --model models/mini",
        "freectl mini train --out runs/flow --model models/mini --part flow",
    )
)
def train(
    out: Annotated[Path, typer.Option(help="Folder of checkpoints, logs and sheets; run again to go on.")],
    model_dir: Annotated[Path, typer.Option("--model", help="Folder that the finished weights go to.")],
    part: Annotated[
        str,
        typer.Option(
            help="vae, unet, clip, judge or all (in that order); decoder, flow, controlnet, t2i-adapter, "
            "cascade-base, cascade-sr."
        ),
    ] = "all",
    pictures: Annotated[int | None, typer.Option(help="Pictures seen in all.  [default: by part]", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a step.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.", min=0)] = None,
    seed: Annotated[int, typer.Option(help="Of data, noise and initial weights.", min=0)] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
    init: Annotated[
        Path | None, typer.Option(help="Model folder whose weights a new run starts from.  [default: random ones]")
    ] = None,
    bf16: Annotated[
        bool | None,
        typer.Option("--bf16/--fp32", help="Autocast to bfloat16.  [default: where the CPU has AVX-512 BF16 or AMX]"),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the networks: minutes to start, a quarter faster after.")
    ] = False,
    size: Annotated[int, typer.Option(help="Side of the pictures: 64 or 128.")] = PICTURE_SIZE,
) -> None:
    """Train the embedded model, or go on after an interruption: how the shipped weights were made."""
    import os
    import shutil
    from dataclasses import replace

    from freectl.errors import InputError, unknown
    from freectl.mini.training.recipe import RECIPES
    from freectl.mini.training.run import MORE_PARTS, PARTS, check_inputs, defaults, fast_bf16, train_part

    if size not in RECIPES:
        raise InputError("--size", str(size), " or ".join(map(str, RECIPES)))
    if part not in (known := (*PARTS, *MORE_PARTS, "all")):
        raise unknown("--part", part, known)
    if part != "all":
        check_inputs(part, model_dir, size)
    if init is not None:
        _check_model("--init", init, "model_index.json")
    if compiled and not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++")):
        raise InputError("--compile", "no C++ compiler", "g++ or clang++ on the PATH, or one named by CXX")
    given = {"pictures": pictures, "batch": batch, "learning_rate": learning_rate}
    changes = {name: value for name, value in given.items() if value is not None}
    for name in PARTS if part == "all" else (part,):
        precision = fast_bf16() if bf16 is None else bf16
        config = replace(defaults(name, size), seed=seed, bf16=precision, **changes)  # type: ignore[arg-type]
        train_part(name, config, out, model_dir, threads, init, compiled, size)


@app.command(
    epilog=examples(
        "freectl mini score",
        "freectl mini score --model models/mini --captions 50",
    )
)
def score(
    model: Annotated[Path | None, typer.Option(help="Folder of the model.  [default: the embedded one]")] = None,
    captions: Annotated[
        int | None, typer.Option(help="Only the first so many of the fixed captions.  [default: all 300]", min=1)
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)] = 50,
    control: Annotated[
        str | None, typer.Option(help="Measure a control network of the folder: controlnet or t2i-adapter.")
    ] = None,
    form: FormatOption = Format.human,
) -> None:
    """Measure the embedded model: judge agreement, reconstruction, inversion, speed; or its spatial control."""
    from freectl.errors import unknown
    from freectl.mini import MODEL_DIR
    from freectl.mini.sampling import generator_kind
    from freectl.mini.score import judge_folder, score_model

    judge_folder(model or MODEL_DIR)
    generator_kind(model or MODEL_DIR)
    if control not in (None, *CONTROLS):
        raise unknown("--control", str(control), CONTROLS)
    if control:
        from freectl.mini.judge import load_judge
        from freectl.mini.score_control import score_control

        judge = load_judge(judge_folder(model or MODEL_DIR))
        scores = score_control(model or MODEL_DIR, control, judge, captions or 100, steps)  # type: ignore[arg-type]
    else:
        scores = score_model(model or MODEL_DIR, captions, steps)
    emit(scores, table(["measure", "value"], [[name, str(value)] for name, value in scores.items()]), form)


@app.command(
    epilog=examples(
        "freectl mini sample 'a fluent fox on a blue background' --out fox.png",
        "freectl mini sample 'a sketch cat on a white background' --out cat.png --seed 3",
    )
)
def sample(
    prompt: Annotated[str, typer.Argument(help='Such as "a fluent fox on a blue background".')],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a generator, also `flow` or `cascade` in a model folder.  [default: the embedded one]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same picture.", min=0)] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps (of each stage).", min=1, max=1000)] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.", min=0, max=100)] = 4.0,
    overwrite: Overwrite = False,
    form: FormatOption = Format.human,
) -> None:
    """Draw one picture of a text, with any generator of the embedded world."""
    from freectl.files.outputs import Outputs
    from freectl.mini import MODEL_DIR
    from freectl.mini.sampling import Sampler, generator_kind

    outputs = Outputs(overwrite=overwrite)
    outputs.check(out, "--out")
    kind = generator_kind(model or MODEL_DIR)
    picture = Sampler(model or MODEL_DIR).draw([prompt], steps, seed, guidance)[0]
    written = outputs.save(picture, out, option="--out")
    warn(outputs.take_notes(), form)
    facts = {"output": str(written), "prompt": prompt, "kind": kind, "seed": seed, "steps": steps, "guidance": guidance}
    emit(facts, f"{written}", form)


@app.command(
    epilog=examples(
        "freectl mini sheet --out sheet.png",
        "freectl mini sheet --out sheet.png --count 16 --steps 20",
    )
)
def sheet(
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    model: Annotated[Path | None, typer.Option(help="Folder of the model.  [default: the embedded one]")] = None,
    count: Annotated[int, typer.Option(help="The first so many of the fixed captions.", min=1, max=300)] = 64,
    steps: Annotated[int, typer.Option(help="DDIM steps.", min=1, max=1000)] = 50,
    overwrite: Overwrite = False,
    form: FormatOption = Format.human,
) -> None:
    """Draw samples of the first fixed captions, good and bad alike, as one labelled sheet."""
    from freectl.files.outputs import Outputs
    from freectl.mini import MODEL_DIR
    from freectl.mini import score as scores
    from freectl.mini.sampling import Sampler, generator_kind

    outputs = Outputs(overwrite=overwrite)
    outputs.check(out, "--out")
    generator_kind(model or MODEL_DIR)
    drawn = scores.sheet(Sampler(model or MODEL_DIR), count, steps=steps)
    written = outputs.save(drawn, out, option="--out")
    warn(outputs.take_notes(), form)
    emit({"output": str(written), "pictures": count}, f"{count} samples in {written}", form)
