"""Pictures of semantic bases: how much variance they explain, and what their first components see."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from freectl.denoising.inversion import Trajectory
from freectl.denoising.sampler import Controller, Lane, Prompt, Step, sample
from freectl.files.pictures import compare_sheet
from freectl.models.engine import Engine
from freectl.semantics.analysis import TOLERANCE, features_at
from freectl.semantics.bases import SemanticBases

COLOURS = 3
"""Components that are shown as red, green and blue."""


def spread(timesteps: Sequence[float], count: int) -> list[float]:
    """At most `count` of the timesteps, evenly from the noisiest to the cleanest."""
    ordered = sorted(set(timesteps), reverse=True)
    count = min(count, len(ordered))
    return [ordered[round(i * (len(ordered) - 1) / max(1, count - 1))] for i in range(count)]


def layers(bases: SemanticBases) -> list[str]:
    """The sites that have bases, in execution order where the bases tell it."""
    stored = {site: None for _, site in bases}
    return [site for site in bases.metadata.get("sites", ()) if site in stored] or list(stored)  # type: ignore[attr-defined]


def variance_plot(bases: SemanticBases, site: str, curves: int = 6) -> Image.Image:
    """Share of the variance over the number of components, one curve a timestep."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    chosen = spread(bases.timesteps(site), curves)
    for i, timestep in enumerate(chosen):
        share = 100 * bases[timestep, site].explained_share().cpu()
        shade = 0.15 + 0.75 * i / max(1, len(chosen) - 1)
        axes.plot(range(1, len(share) + 1), share.tolist(), color=(shade, 0.35, 1 - shade), label=str(timestep))
    known = bases[chosen[0], site].total_variance is not None
    axes.set(
        title=f"Semantic bases of {bases.metadata.get('concept')!r}\n{site}",
        xlabel="components",
        ylabel=f"explained variance, % of {'all directions' if known else 'the kept components'}",
        ylim=(0, 101),
    )
    axes.title.set_fontsize(9)
    axes.grid(alpha=0.3)
    axes.legend(title="timestep", fontsize=8, loc="lower right")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def component_sheet(
    engine: Engine, bases: SemanticBases, site: str, pictures: int = 3, timesteps: int = 5
) -> Image.Image:
    """Seed pictures, each beside its first three coordinates as red, green and blue, as the paper shows them.

    The pictures are sampled as in the build: seed i, the prompts in turn. Colours are scaled by timestep over all
    pictures, so that equal colours in a column mean equal coordinates.
    """
    prompts, negative = list(bases.metadata["prompts"]), str(bases.metadata["negative"])  # type: ignore[call-overload]
    texts = [prompts[i % len(prompts)] for i in range(pictures)]
    size = (engine.base_size, engine.base_size)
    prompt = engine.encode_prompt(texts, [negative] * pictures, size=size)
    noise = engine.noise(size, [torch.Generator().manual_seed(i) for i in range(pictures)])
    lane = Lane(noise, prompt, float(bases.metadata["guidance_scale"]))  # type: ignore[arg-type]
    trajectory = _sampled(engine, lane, int(bases.metadata["steps"]))  # type: ignore[call-overload]
    chosen = spread([t for t in trajectory.levels if _covered(bases, t, site)], timesteps)
    conditional = Prompt(prompt.cond, added=prompt.added)
    found = features_at(engine.denoiser, trajectory, conditional, chosen, [site])
    seen = engine.pipe.image_processor.postprocess(engine.decode(trajectory.clean), output_type="pil")
    cells = []
    columns = [coloured(bases.at(t, site, TOLERANCE).project(found[t, site]), seen[0].size) for t in chosen]
    for i, picture in enumerate(seen):
        cells.append((f"seed {i}: {texts[i]}", picture))
        cells += [(f"t = {t}", column[i]) for t, column in zip(chosen, columns, strict=True)]
    return compare_sheet(cells, columns=1 + len(chosen))


def coloured(coordinates: Tensor, size: tuple[int, int]) -> list[Image.Image]:
    """The first three of coordinates (B, tokens, N) as pictures of `size`, 0 to 1 a component over the whole batch.

    Tokens are the rows of a square grid; a component that is not there is 0.
    """
    shown = coordinates[..., :COLOURS].float().cpu()
    low, high = shown.amin((0, 1)), shown.amax((0, 1))
    scaled = (shown - low) / (high - low).clamp(min=1e-12)
    scaled = torch.nn.functional.pad(scaled, (0, COLOURS - scaled.shape[-1]))
    side = round(scaled.shape[1] ** 0.5)
    grids = (scaled * 255).round().to(torch.uint8).view(len(scaled), side, side, COLOURS).numpy()
    return [Image.fromarray(grid).resize(size, Image.Resampling.NEAREST) for grid in grids]


def _covered(bases: SemanticBases, timestep: float, site: str) -> bool:
    return min(abs(timestep - stored) for stored in bases.timesteps(site)) <= TOLERANCE


def _sampled(engine: Engine, lane: Lane, steps: int) -> Trajectory:
    """Seed pictures with their latents at every timestep of the grid."""
    path = engine.path(steps, size=(engine.base_size, engine.base_size))
    timesteps = path.times
    levels = {timesteps[0]: lane.latents}
    with engine.progress(len(timesteps), "seed pictures") as bar:

        def keep(step: Step, lanes: dict[str, Lane]) -> None:
            bar.update()
            if step.index + 1 < step.count:
                levels[timesteps[step.index + 1]] = lanes["seed"].latents

        sample(engine.denoiser, path, {"seed": lane}, timesteps, Controller(), on_step=keep)
    return Trajectory(lane.latents, levels)
