"""Pictures of semantic bases: how much variance they explain, and what their first components see."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from freectl.denoising.attention_maps import nearest_grid
from freectl.denoising.inversion import Trajectory
from freectl.denoising.sampler import Controller, Lane, Prompt, Step, sample
from freectl.files.chart import line_chart
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
    chosen = spread(bases.timesteps(site), curves)
    shares = {f"t = {t}": (100 * bases[t, site].explained_share().cpu()).tolist() for t in chosen}
    shades = [round(40 + 190 * i / max(1, len(chosen) - 1)) for i in range(len(chosen))]
    known = bases[chosen[0], site].total_variance is not None
    return line_chart(
        {name: list(enumerate(share, start=1)) for name, share in shares.items()},
        f"Semantic bases of {bases.metadata.get('concept')!r}, {site}",
        "components",
        f"explained variance, % of {'all directions' if known else 'the kept components'}",
        limits=(0, 100),
        colours=[f"#{shade:02x}59{255 - shade:02x}" for shade in shades],
    )


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

    Tokens are the rows of a grid of the size's aspect; a component that is not there is 0.
    """
    shown = coordinates[..., :COLOURS].float().cpu()
    low, high = shown.amin((0, 1)), shown.amax((0, 1))
    scaled = (shown - low) / (high - low).clamp(min=1e-12)
    scaled = torch.nn.functional.pad(scaled, (0, COLOURS - scaled.shape[-1]))
    rows, columns = nearest_grid(scaled.shape[1], size)
    grids = (scaled * 255).round().to(torch.uint8).view(len(scaled), rows, columns, COLOURS).numpy()
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
