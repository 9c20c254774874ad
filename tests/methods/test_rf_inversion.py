"""RF-Inversion: its equations stepped by hand, its closed form on a linear field, and its limiting cases."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from flow_toy import small_sd3
from method_kit import picture, wrap
from PIL import Image
from torch import Tensor, nn

from freectl import methods
from freectl.denoising.inversion import invert
from freectl.denoising.sampler import Denoiser, Lane, Prompt, sample
from freectl.denoising.schedules import path_of
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.rf_inversion import Pull, RFInversion, RFInversionSettings, Towards
from freectl.models.engine import Engine
from freectl.models.families import SD, SD3
from freectl.pipelines.loading import check_method, resolve_model
from freectl.tasks.compare import chosen

SIZE, STEPS, SCALE = (48, 32), 4, 3.0


def shown(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory) -> Any:
    return small_sd3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def run(pipe: Any, cache: Cache | None = None, prompt: Any = "a cat", image: Any = None, **options: Any) -> Any:
    given = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"}
    given |= {"generator": torch.Generator().manual_seed(2)} | options
    return pipe(prompt, image or shown(), method=RFInversion(), cache=cache, **given)


def test_its_equations_are_stepped_by_hand(pipe):
    """Up to the seed's noise without words, down towards the picture in the first half of the steps."""
    engine = Engine(pipe)
    engine.size = SIZE
    clean, empty = engine.encode_images([shown()]), engine.encode_prompt([""])
    prompt = engine.encode_prompt(["a cat"], [""])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    levels = [0.0, *(time / 1000 for time in reversed(engine.path(STEPS).times))]

    def velocity(x: Tensor, s: float, one: Prompt, half: str) -> Tensor:
        with torch.no_grad():
            return engine.denoiser.forward(x, 1000 * s, one.half(half), dict(one.added[half]))

    y = clean
    for s, up in zip(levels, levels[1:], strict=False):
        u = velocity(y, s, empty, "cond")
        y = y + (up - s) * (u + 0.4 * ((noise - y) / (1 - s) - u))
    for i, (s, down) in enumerate(zip(levels[:0:-1], levels[-2::-1], strict=True)):
        halves = [velocity(y, s, prompt, half) for half in ("uncond", "cond")]
        v = halves[0] + SCALE * (halves[1] - halves[0])
        eta = 0.7 if i < 2 else 0.0
        y = y + (down - s) * (v + eta * ((y - clean) / s - v))
    out = run(pipe, gamma=0.4, pull=0.7, pull_stop=0.5)
    torch.testing.assert_close(out.images, y, rtol=0, atol=2e-5)
    assert out.cost["row_forwards"] == 3 * STEPS
    assert RFInversion().row_forwards(STEPS, out.settings) == f"inversion {STEPS} + synthesis {2 * STEPS}"


def test_the_controlled_fields_end_where_a_linear_field_says():
    """With u = c n + d the straight part of the walk is known: Y = n + (x_0 - n) (1 - s)^gamma + u's own share.

    For u constant: dY/ds = (1 - gamma) u + gamma (n - Y) / (1 - s), so Y(s) = n + (1 - s)^gamma (x_0 - n)
    + u (1 - s)^gamma (1 - (1 - s)^(1 - gamma)).
    """
    x, n = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64), torch.full((1, 1, 2, 2), -1.2, dtype=torch.float64)
    u, gamma, steps = 0.7, 0.5, 500
    path = path_of(FlowMatchEulerDiscreteScheduler(shift=1.0))
    path = path.on(steps, sigmas=[0.9 * (1 - i / steps) for i in range(steps)])
    denoiser = Denoiser(nn.Identity(), lambda _n, latents, *_: torch.full_like(latents, u))
    prompt = Prompt(torch.zeros(1, 1, 1, dtype=torch.float64))
    adjust = Towards(path, n, gamma).adjustment()
    got = invert(denoiser, path, x, prompt, path.times, adjust=adjust).start
    left = (1 - path.times[0] / 1000) ** gamma
    expected = n + left * (x - n) + u * left * (1 - (1 - path.times[0] / 1000) ** (1 - gamma))
    torch.testing.assert_close(got, expected, rtol=5e-3, atol=0)
    # down with pull 1 is the straight line to the picture, whatever the field says
    pull = Pull(path, x, RFInversionSettings(pull=1.0, pull_stop=1.0))
    end = sample(denoiser, path, {"edit": Lane(got, prompt)}, path.times, pull)["edit"].latents
    torch.testing.assert_close(end, x, rtol=0, atol=1e-6)


def test_without_steering_it_is_inversion_and_sampling(pipe, cache):
    engine = Engine(pipe)
    engine.size = SIZE
    path = engine.path(STEPS)
    start = engine.invert(shown(), "", path)[0].start
    lanes = {"edit": Lane(start, engine.encode_prompt(["a cat"], [""]), SCALE)}
    expected = sample(engine.denoiser, path, lanes, path.times)["edit"].latents
    torch.testing.assert_close(run(pipe, cache, gamma=0.0, pull=0.0).images, expected, rtol=0, atol=1e-6)


def test_its_ends(pipe, cache):
    """Gamma 1 ends in the seed's noise, pull 1 in the picture."""
    engine = Engine(pipe)
    engine.size = SIZE
    noise = engine.noise(SIZE, [torch.Generator().manual_seed(2)])
    got = run(pipe, cache, gamma=1.0, pull=0.0).images
    lanes = {"edit": Lane(noise, engine.encode_prompt(["a cat"], [""]), SCALE)}
    path = engine.path(STEPS)
    expected = sample(engine.denoiser, path, lanes, path.times)["edit"].latents
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    kept = run(pipe, cache, pull=1.0, pull_stop=1.0).images
    torch.testing.assert_close(kept, engine.encode_images([shown()]), rtol=0, atol=1e-5)


def test_a_batch_is_its_pictures_one_by_one_and_seeds_differ(pipe, cache):
    def call(which: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(i) for i in which]
        return run(pipe, cache, ["a cat"] * len(which), [shown(i) for i in which], generator=generators).images

    both = call([0, 1])
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], call([i]), rtol=0, atol=2e-5)
    assert (
        run(pipe, cache).images - run(pipe, cache, generator=torch.Generator().manual_seed(9)).images
    ).abs().max() > 0.01


@pytest.mark.parametrize(("inverter", "rows"), [("midpoint", 2 * STEPS), ("fireflow", STEPS + 1)])
def test_it_takes_other_inverters_at_their_cost(pipe, inverter, rows):
    out = run(pipe, inverter=inverter)
    assert out.cost["row_forwards"] == rows + 2 * STEPS
    assert RFInversion().row_forwards(STEPS, out.settings).startswith(f"inversion {rows} ")


def test_what_has_no_meaning_is_refused(toy_pipe):
    with pytest.raises(InputError, match="inverter: found uniedit with gamma"):
        RFInversion().resolved(RFInversionSettings(inverter="uniedit"), SD3)
    assert RFInversion().resolved(RFInversionSettings(inverter="uniedit", gamma=0.0), SD3).inverter == "uniedit"
    with pytest.raises(InputError, match="method: found rf-inversion, which does not run on mini models"):
        wrap(toy_pipe)("a cat", picture(), method=RFInversion())
    with pytest.raises(InputError, match="method: found rf-inversion, which does not run on mini models"):
        check_method(resolve_model("mini"), RFInversion())  # before weights are read
    assert chosen("all", model="mini") == [name for name in methods.REGISTRY if name != "rf-inversion"]
    assert SD3.runs("rf-inversion")
    assert not SD.runs("rf-inversion")
