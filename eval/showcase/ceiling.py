"""What bounds FreeControl here: `python -m eval.ceiling probe` reads outlines from the features that it follows, and
`python -m eval.ceiling oracle` gives it the exact answer's features in place of the input's; `blocks` asks of every
block what its keys know.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
import typer
from PIL import Image

from eval.bench.cases import Case, chosen_cases
from eval.bench.mini_files import answer, load_mini, sized
from eval.bench.world import world_side
from eval.run.runners import BasesOnly, Model, load_model
from eval.scores.intervals import Estimate, difference, estimate, share, share_difference
from eval.scores.measures import measure
from freectl.denoising.sampler import Prompt
from freectl.errors import InputError
from freectl.methods.base import Condition, Request
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.freecontrol.targets import Analyser
from freectl.models.engine import Engine

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False)  # fmt: skip
SHOWN = ("target", "iou", "mse", "background_mse")
Way = Callable[[Model, Case], Image.Image]


def settings_of(engine: Engine) -> Any:
    """FreeControl's default settings on a model."""
    method = FreeControl()
    return method.resolved(method.settings(**method.presets["default"]), engine.family)


def plain(model: Model, case: Case) -> Image.Image:
    """The edit as it is."""
    return _run(model, case.prompt, image=case.picture(), source_prompt=case.source_prompt)


def oracle(model: Model, case: Case) -> Image.Image:
    """The same start and words, following the exact answer's features instead of the input's."""
    return _run(model, case.prompt, conditions=[Condition(_answer(case), case.prompt)], latents=start_of(model, case))


def oracle_and_start(model: Model, case: Case) -> Image.Image:
    """The answer edited to its own words: its features, and its inverted noise."""
    return _run(model, case.prompt, image=_answer(case), source_prompt=case.prompt)


def decoded(model: Model, case: Case) -> Image.Image:
    """The answer through the autoencoder."""
    engine = Engine(model.pipe)
    pixels = engine.decode(engine.encode_images([_answer(case)]))[0].permute(1, 2, 0)
    return Image.fromarray(((pixels + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy())


def unchanged(_model: Model, case: Case) -> Image.Image:
    """The input: an outline that is kept exactly has its IoU."""
    return case.picture()


WAYS: dict[str, Way] = {
    "freecontrol": plain,
    "the input, unchanged": unchanged,
    "reference of the answer": oracle,
    "reference and start of the answer": oracle_and_start,
    "autoencoder alone": decoded,
}


def start_of(model: Model, case: Case) -> torch.Tensor:
    """The noise (1, C, h, w) that the plain edit starts from."""
    engine, picture = Engine(model.pipe, cache=BasesOnly()), case.picture()
    settings = settings_of(engine)
    sites = engine.family.structure_sites(engine.network, settings.layers, settings.features)
    request = Request([], Prompt(torch.empty(0)), [case.prompt], [], picture.size, steps=model.steps)
    (found,) = Analyser(engine, request, settings, sites).analysed([(picture, case.source_prompt)], None, None)
    return found.trajectory.start


def _answer(case: Case) -> Image.Image:
    found = answer(case, case.picture().width)
    if found is None:
        raise InputError("--bench", f"{case.key}, whose answer is not known", "mini, mini:SEED")
    return found


def _run(model: Model, prompt: str, **given: Any) -> Image.Image:
    generator = torch.Generator().manual_seed(model.seed)
    return model.pipe.commanded(prompt, num_inference_steps=model.steps, generator=generator, cache=BasesOnly(),
                                **given).images[0]  # fmt: skip


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Means of each way with intervals, and their differences from the first, paired by case."""
    measures = [measure("mini", key) for key in SHOWN]
    base = next(iter(found))
    lines = ["| way | " + " | ".join(one.head for one in measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for way, rows in found.items():
        values = [[row[one.key] for row in rows] for one in measures]
        cells = [one.spread((share if one.share else estimate)(own)) for one, own in zip(measures, values, strict=True)]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    for way, rows in found.items():
        if way != base:
            apart: list[Estimate] = []
            for one in measures:
                compare = share_difference if one.share else difference
                apart.append(compare([row[one.key] for row in rows], [row[one.key] for row in found[base]]))
            cells = [f"{one.text(own.mean)} ({one.span(own.low, own.high)})"
                     for one, own in zip(measures, apart, strict=True)]  # fmt: skip
            lines.append(f"| {way} - {base} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def measured(model: Model, cases: Sequence[Case], scorer: Any) -> dict[str, list[dict[str, float]]]:
    """Scores of all ways on the cases."""
    return {name: [scorer(case, way(model, case)).scores for case in cases] for name, way in WAYS.items()}


@app.command(name="oracle")
def oracle_command(
    bench: Annotated[str, typer.Option(help="mini:SEED, so that mini stays a test; or mini.")] = "mini:1",
    subset: Annotated[int, typer.Option(help="Edits, balanced over types.", min=1)] = 24,
    steps: Annotated[int, typer.Option(help="Sampling steps.", min=1, max=1000)] = 20,
    model: Annotated[str, typer.Option(help="A model of the embedded world.")] = "mini",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Edit with the exact answer's features in place of the input's, and print what that gains."""
    from eval.scores.scoring import scorer_for

    loaded = load_mini(bench)
    if loaded.layout != "mini":
        raise InputError("--bench", f"'{bench}', without exact answers of edits", "mini, mini:SEED")
    cases = chosen_cases(sized(loaded, world_side(model)), None, subset)
    opened = load_model(model, steps, seed, device="cpu", dtype="fp32")
    sys.stdout.write(table(measured(opened, cases, scorer_for("mini", "cpu"))))


@app.command(name="blocks")
def blocks_command(
    count: Annotated[int, typer.Option(help="Scenes; three quarters are fitted to.", min=8)] = 240,
    model: Annotated[str, typer.Option(help="A model of the embedded world.")] = "mini",
) -> None:
    """Print what each block's keys know: the place alone, the outline, the object and the style."""
    from eval.showcase.blocks import key_sites, known

    engine = Engine(load_model(model, 50, 0, device="cpu", dtype="fp32").pipe)
    lines = ["| keys | level | place % of variance | outline IoU | object % | style % |", "|---" * 6 + "|"]
    for one in known(engine, count, key_sites(engine), world_side(model)):
        cells = [f"{100 * one.place:.0f}", f"{one.outline.mean:.3f}", f"{100 * one.object.mean:.0f}"]
        lines.append(f"| {one.site} | {one.level} | {' | '.join(cells)} | {100 * one.style.mean:.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")


@app.command(name="probe")
def probe_command(
    count: Annotated[int, typer.Option(help="Scenes; three quarters are fitted to.", min=8)] = 240,
    model: Annotated[str, typer.Option(help="A model of the embedded world.")] = "mini",
) -> None:
    """Reconstruct outlines from the features that FreeControl follows, and print how well that goes."""
    from eval.showcase.probe import probe
    from freectl.semantics.lookup import EMBEDDED, load

    engine = Engine(load_model(model, 50, 0, device="cpu", dtype="fp32").pipe)
    settings = settings_of(engine)
    sites = engine.family.structure_sites(engine.network, settings.layers, settings.features)
    lines = ["| read from | level | IoU of unseen masks |", "|---|---|---|"]
    for one in probe(engine, load(EMBEDDED), count, sites, world_side(model)):
        half = (one.iou.high - one.iou.low) / 2
        level = "-" if one.level is None else f"{one.level}"
        lines.append(f"| {one.what} | {level} | {one.iou.mean:.3f} ± {half:.3f} |")
    sys.stdout.write("\n".join(lines) + "\n")
