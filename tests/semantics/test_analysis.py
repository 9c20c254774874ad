"""Features recorded by hand, truncated forwards against whole ones, and coordinates against their definition."""

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import TEXT_WIDTH, denoiser_of, on_path, toy_inputs, toy_scheduler, toy_unet

from freectl.denoising.inversion import Trajectory, invert
from freectl.denoising.sampler import Lane, Prompt, sample
from freectl.models.families import MINI, SD, SDXL, of
from freectl.semantics import analysis
from freectl.semantics.analysis import features_at, seed_features, solve
from freectl.semantics.bases import GramAccumulator
from freectl.semantics.reference import Reference, reference_coordinates

STEPS = 6
SCALE = 4.0


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scheduler_of(kind: str, steps: int):
    scheduler = toy_scheduler(kind)
    scheduler.set_timesteps(steps)
    return scheduler


class Rows:
    """Stands in for a Gram accumulator and keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        self.rows.append(rows)


class Recorder(dict):
    """A `grams` whose entries keep all rows they are given."""

    def setdefault(self, key, default=None):
        return super().setdefault(key, Rows())

    def tensors(self) -> dict:
        return {key: torch.cat(entry.rows) for key, entry in self.items()}


def record(unet, sites: list[str], x: Tensor, timestep: int | Tensor, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output of a whole forward, and its keys, by plain hooks."""
    seen: dict[str, Tensor] = {}
    modules = dict(unet.named_modules())
    handles = [
        modules[site].register_forward_hook(lambda _m, _a, out, site=site: seen.__setitem__(site, out))
        for site in sites
    ]
    try:
        with torch.no_grad():
            return unet(x, timestep, encoder_hidden_states=text).sample, seen
    finally:
        for handle in handles:
            handle.remove()


def prompt_of(batch: int) -> Prompt:
    return Prompt(normal(batch, 7, TEXT_WIDTH, seed=1), normal(batch, 7, TEXT_WIDTH, seed=2))


@pytest.fixture
def sites(unet) -> list[str]:
    return SD.structure_sites(unet)


def by_hand(unet, sites, kind: str, latents: Tensor, prompt: Prompt, wanted: list[int]) -> tuple[dict, Tensor]:
    """Sample with a loop of the test's own, keeping the conditional forwards' keys."""
    scheduler, expected = scheduler_of(kind, STEPS), {}
    for timestep in scheduler.timesteps.tolist():
        cond, seen = record(unet, sites, latents, timestep, prompt.cond)
        uncond, _ = record(unet, sites, latents, timestep, prompt.uncond)
        if timestep in wanted:
            expected |= {(timestep, site): keys.flatten(0, 1) for site, keys in seen.items()}
        latents = scheduler.step(uncond + SCALE * (cond - uncond), timestep, latents).prev_sample
    return expected, latents


def close(got: dict, expected: dict, relative: float = 1e-5) -> None:
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key].shape == value.shape
        assert (got[key] - value).norm() <= relative * value.norm()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_features_while_sampling_equal_recorded_ones(unet, sites, kind):
    scheduler = scheduler_of(kind, STEPS)
    timesteps = scheduler.timesteps.tolist()
    guided, calls, grams, steps = timesteps[1:3], [], Recorder(), []
    unet.register_forward_pre_hook(lambda _m, args: calls.append(len(args[0])))
    lane = Lane(normal(3, 4, 8, 8), prompt_of(3), SCALE)
    seed_features(
        denoiser_of(unet), on_path(scheduler), lane, timesteps, guided, sites, grams,
        by_inversion=False, on_step=lambda: steps.append(1),
    )  # fmt: skip
    assert calls == [6] * 3  # stops after the last wanted timestep, at index 2
    assert len(steps) == 3
    expected, _ = by_hand(unet, sites, kind, normal(3, 4, 8, 8), prompt_of(3), guided)
    assert len(expected) == 2 * 2
    close(grams.tensors(), expected)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_features_by_inversion_equal_recorded_ones(unet, sites, kind):
    """The paper's way: finished pictures, inverted with the condition only, features at the levels reached."""
    scheduler = scheduler_of(kind, STEPS)
    timesteps = scheduler.timesteps.tolist()
    guided, grams, steps = timesteps[:2], Recorder(), []
    lane = Lane(normal(2, 4, 8, 8), prompt_of(2), SCALE)
    seed_features(
        denoiser_of(unet), on_path(scheduler), lane, timesteps, guided, sites, grams,
        by_inversion=True, on_step=lambda: steps.append(1),
    )  # fmt: skip
    _, finished = by_hand(unet, sites, kind, normal(2, 4, 8, 8), prompt_of(2), [])
    levels = invert(denoiser_of(unet), on_path(scheduler), finished, Prompt(prompt_of(2).cond), timesteps).levels
    expected = {}
    for timestep in guided:
        _, seen = record(unet, sites, levels[timestep], timestep, prompt_of(2).cond)
        expected |= {(timestep, site): keys.flatten(0, 1) for site, keys in seen.items()}
    close(grams.tensors(), expected, 1e-4)
    assert len(steps) == 2 * STEPS


def test_two_batches_of_seeds_equal_one(unet, sites):
    scheduler = scheduler_of("epsilon", STEPS)
    timesteps = scheduler.timesteps.tolist()
    start, prompt = normal(4, 4, 8, 8), prompt_of(4)

    def bases(parts: list[slice]):
        grams: dict = {}
        for part in parts:
            lane = Lane(start[part], Prompt(prompt.cond[part], prompt.uncond[part]), SCALE)
            seed_features(
                denoiser_of(unet), on_path(scheduler), lane, timesteps, timesteps[:1], sites, grams, by_inversion=False
            )
        return solve(grams, 3, {})

    one, two = bases([slice(0, 4)]), bases([slice(0, 1), slice(1, 4)])
    for key, basis in one.items():
        torch.testing.assert_close(two[key].mean, basis.mean, rtol=1e-4, atol=1e-5)
        projector = basis.components.T @ basis.components
        torch.testing.assert_close(two[key].components.T @ two[key].components, projector, rtol=0, atol=1e-3)


def inverted(unet, batch: int) -> tuple[Trajectory, Prompt, list[int]]:
    scheduler = scheduler_of("epsilon", STEPS)
    timesteps = scheduler.timesteps.tolist()
    prompt = Prompt(prompt_of(batch).cond)
    return invert(denoiser_of(unet), on_path(scheduler), normal(batch, 4, 8, 8), prompt, timesteps), prompt, timesteps


@pytest.mark.parametrize("batch", [1, 3])
def test_truncated_features_equal_whole_forwards(unet, sites, batch):
    trajectory, prompt, timesteps = inverted(unet, batch)
    got = features_at(denoiser_of(unet), trajectory, prompt, timesteps, sites)
    expected = {}
    for timestep in timesteps:
        _, seen = record(unet, sites, trajectory.levels[timestep], timestep, prompt.cond)
        expected |= {(timestep, site): keys for site, keys in seen.items()}
    close(got, expected)


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_grouping_timesteps_changes_nothing(unet, sites, rows, monkeypatch):
    trajectory, prompt, timesteps = inverted(unet, 2)
    expected = {}
    for timestep in timesteps:
        expected |= features_at(denoiser_of(unet), trajectory, prompt, [timestep], sites)
    monkeypatch.setattr(analysis, "BATCH_ROWS", rows)
    calls: list[int] = []
    unet.register_forward_pre_hook(lambda _m, args: calls.append(len(args[0])))
    close(features_at(denoiser_of(unet), trajectory, prompt, timesteps, sites), expected)
    per_call = max(1, rows // 2)
    assert calls == [2 * len(timesteps[i : i + per_call]) for i in range(0, STEPS, per_call)]


def test_truncated_features_of_sdxl_take_its_extra_inputs():
    unet = toy_unet("sdxl")
    inputs = toy_inputs(unet, batch=1)
    added, text = inputs["added_cond_kwargs"], inputs["encoder_hidden_states"]
    levels = {t: normal(1, 4, 8, 8, seed=t) for t in (801, 401, 1)}
    sites = SDXL.structure_sites(unet)
    prompt = Prompt(text, added={"cond": added})
    got = features_at(denoiser_of(unet), Trajectory(levels[1], levels), prompt, list(levels), sites)
    assert len(got) == 3 * len(sites)
    for (timestep, site), value in got.items():
        seen: dict = {}
        handle = unet.get_submodule(site).register_forward_hook(lambda _m, _a, out: seen.update(keys=out))  # noqa: B023
        with torch.no_grad():
            unet(levels[timestep], timestep, encoder_hidden_states=text, added_cond_kwargs=added)
        handle.remove()
        assert (value - seen["keys"]).norm() <= 1e-5 * seen["keys"].norm()


@pytest.mark.parametrize("normalize", ["minmax", "none"])
def test_coordinates_follow_their_definition(normalize):
    """S = (F - mu) B^T; min-max per picture and component."""
    features = {(t, "site"): normal(2, 16, 6, seed=t) for t in (981, 961)}
    grams = {key: GramAccumulator() for key in features}
    for key, value in features.items():
        grams[key].add(value)
    bases = solve(grams, 3, {"made": "here"})
    reference = reference_coordinates(features, bases, normalize)
    for key, value in features.items():
        mean, components = bases[key].mean.numpy(), bases[key].components.numpy()
        rows = value.numpy().reshape(-1, 6).astype(np.float64)
        variances = np.sort(np.linalg.eigvalsh(np.cov(rows.T)))[::-1][:3]
        np.testing.assert_allclose(bases[key].explained_variance, variances, rtol=1e-4)
        expected = np.stack([(picture - mean) @ components.T for picture in value.numpy()])
        if normalize == "minmax":
            low, high = expected.min(1, keepdims=True), expected.max(1, keepdims=True)
            expected = (expected - low) / (high - low)
        np.testing.assert_allclose(reference.coordinates[key], expected, rtol=1e-4, atol=1e-4)


def test_reference_survives_the_cache_format():
    site = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
    reference = Reference({(981, site): normal(1, 4, 2), (1, site): normal(1, 4, 2, seed=1)})
    again = Reference.from_tensors(reference.to_tensors())
    assert again.coordinates.keys() == reference.coordinates.keys()
    assert all(torch.equal(again.coordinates[key], value) for key, value in reference.coordinates.items())


def test_fewer_components_where_channels_or_rows_are_few():
    grams = {(1, "narrow"): GramAccumulator(), (1, "short"): GramAccumulator()}
    grams[1, "narrow"].add(normal(50, 4))
    grams[1, "short"].add(normal(3, 40))
    bases = solve(grams, 8, {})
    assert bases[1, "narrow"].components.shape == (4, 4)
    assert bases[1, "short"].components.shape == (2, 40)


def test_families_and_their_sites(unet):
    xl = toy_unet("sdxl")
    assert (of(unet), of(xl)) == (MINI, SDXL)  # three levels: the embedded model's family
    assert SD.structure_sites(unet, "first") == SD.structure_sites(unet)[:1]
    modules = [name for name, _ in unet.named_modules()]
    expected = [n for n in modules if n.startswith("up_blocks.1.") and n.endswith("attn1.to_k")]
    assert SD.structure_sites(unet) == expected
    assert len(expected) == 2
    assert all(name.startswith("up_blocks.0.") for name in SDXL.structure_sites(xl))


def test_seed_features_leave_no_hooks(unet, sites):
    scheduler = scheduler_of("epsilon", STEPS)
    timesteps = scheduler.timesteps.tolist()

    def fail() -> None:
        raise RuntimeError("stop here")

    lane = Lane(normal(1, 4, 8, 8), prompt_of(1), SCALE)
    with pytest.raises(RuntimeError, match="stop here"):
        seed_features(
            denoiser_of(unet),
            on_path(scheduler),
            lane,
            timesteps,
            timesteps[:2],
            sites,
            {},
            by_inversion=False,
            on_step=fail,
        )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())
    plain = sample(
        denoiser_of(unet), on_path(scheduler), {"seed": Lane(normal(1, 4, 8, 8), prompt_of(1), SCALE)}, timesteps
    )
    assert torch.isfinite(plain["seed"].latents).all()
