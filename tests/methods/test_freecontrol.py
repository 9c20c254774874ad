"""FreeControl's guided step against a plain computation; whole runs are in `test_freecontrol_runs`."""

from collections.abc import Callable
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import TEXT_WIDTH, denoiser_of, on_path, toy_scheduler, toy_unet

from freectl.denoising.cost import Cost
from freectl.denoising.sampler import Controller, Lane, Prompt, Step, sample
from freectl.denoising.schedules import path_of
from freectl.methods.freecontrol.guide import (
    FreeControlGuide,
    Target,
    appearance_vectors,
    ramp,
)
from freectl.methods.freecontrol.settings import PRESETS, FreeControlSettings
from freectl.methods.freecontrol.targets import KeyRecorder
from freectl.models.families import SD
from freectl.semantics.bases import Basis, SemanticBases
from freectl.semantics.reference import Reference, coordinates

STEPS = 8
SCALE = 4.0
BATCH = 2
CHANNELS, TOKENS, COMPONENTS = 16, 16, 5
Settings = partial(
    FreeControlSettings, update="official", normalize="minmax", structure_weight=300.0, appearance_weight=40.0,
    warmup=0.0, components=COMPONENTS,
)  # fmt: skip


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class World:
    """A toy UNet with made-up bases and reference, and what a guide for it is built from."""

    def __init__(self, kind: str = "epsilon", dtype: torch.dtype = torch.float64) -> None:
        self.unet, self.dtype = toy_unet().to(dtype), dtype
        self.scheduler = toy_scheduler(kind)
        self.scheduler.set_timesteps(STEPS)
        self.timesteps = self.scheduler.timesteps.tolist()
        self.sites = SD.structure_sites(self.unet)
        entries, coordinates = {}, {}
        for i, t in enumerate(self.timesteps):
            for j, site in enumerate(self.sites):
                directions = torch.linalg.qr(normal(CHANNELS, COMPONENTS, seed=100 * i + j))[0].T.contiguous()
                entries[t, site] = Basis(normal(CHANNELS, seed=7 + j), directions, torch.ones(COMPONENTS))
                coordinates[t, site] = normal(BATCH, TOKENS, COMPONENTS, seed=50 * i + j).sigmoid()
        self.bases, self.reference = SemanticBases(entries), Reference(coordinates)
        prompt = [normal(BATCH, 7, TEXT_WIDTH, seed=seed, dtype=dtype) for seed in (1, 2)]
        self.prompt = Prompt(*prompt)

    def lanes(self) -> dict[str, Lane]:
        return {"edit": Lane(normal(BATCH, 4, 8, 8, seed=3, dtype=self.dtype), self.prompt, SCALE)}

    def sibling(self) -> Lane:
        """A sibling of other latents: equal ones have zero appearance energy."""
        return Lane(normal(BATCH, 4, 8, 8, seed=4, dtype=self.dtype), self.prompt, SCALE)

    def target(self, settings: FreeControlSettings, mask: Tensor | None = None) -> Target:
        sites = self.sites[:1] if settings.layers == "first" else self.sites
        masks = {} if mask is None else dict.fromkeys(self.timesteps, mask)
        target = Target(self.bases, Reference(self.reference.coordinates, masks))
        if settings.appearance_weight:
            recorder = KeyRecorder(sites, self.timesteps)
            self.run(recorder, STEPS, {"sibling": self.sibling()})
            target.appearance = {
                site: appearance_vectors(settings, keys, coordinates(self.bases, settings.normalize, site, keys))
                for site, keys in recorder.found.items()
            }
        return target

    def guide(self, settings: FreeControlSettings, mask: Tensor | None = None, **options: Any) -> FreeControlGuide:
        sites = self.sites[:1] if settings.layers == "first" else self.sites
        return FreeControlGuide(on_path(self.scheduler), settings, [self.target(settings, mask)], sites, **options)

    def run(self, controller: Controller | None, steps: int, lanes: dict[str, Lane], first: int = 0) -> dict[str, Lane]:
        stop: Callable[[Step, dict], bool] = lambda step, _: step.index + 1 == steps  # noqa: E731
        timesteps = self.timesteps[first:]
        return sample(denoiser_of(self.unet), on_path(self.scheduler), lanes, timesteps, controller, on_step=stop)

    def abar(self, timestep: int) -> float:
        alphas = self.scheduler.alphas_cumprod.double()
        return float(alphas[timestep] if timestep >= 0 else self.scheduler.final_alpha_cumprod)


def naive_coordinates(keys: Tensor, basis: Basis, normalize: str) -> Tensor:
    """(tokens, N) of one picture."""
    columns = []
    for component in basis.components.to(keys):
        column = torch.stack([(row - basis.mean.to(keys)) @ component for row in keys])
        if normalize == "minmax":
            low, high = column.detach().min(), column.detach().max()
            column = (column - low) / (high - low + 1e-7)
        columns.append(column)
    return torch.stack(columns, 1)


def naive_structure(s: Tensor, ref: Tensor, mask: Tensor | None, settings: FreeControlSettings) -> Tensor:
    over = torch.mean if settings.reduction == "mean" else torch.sum
    inside = torch.ones(len(s)) if mask is None else mask
    energy = sum(m * over((a - b) ** 2) for m, a, b in zip(inside, s, ref, strict=True)) / inside.sum()
    if mask is None or bool(mask.all()):
        return energy
    tau = torch.stack([r for m, r in zip(mask, ref, strict=True) if m < 0.5]).max(0).values
    excess = sum((1 - m) * over((a - tau).clamp(min=0) ** 2) for m, a in zip(mask, s, strict=True))
    area = (1 - mask).sum() if settings.background_area == "unmasked" else len(mask)
    return energy + settings.background_weight * excess / area


def naive_vectors(keys: Tensor, s: Tensor, settings: FreeControlSettings) -> Tensor:
    found = []
    for k in range(settings.appearance_components):
        if settings.appearance_gate == "sigmoid":
            weights = torch.sigmoid(s[:, k])
        else:
            scaled = (s[:, k] - s[:, k].detach().min()) / (s[:, k].detach().max() - s[:, k].detach().min() + 1e-7)
            weights = torch.where(scaled > settings.appearance_threshold, scaled, 0)
        found.append((weights[:, None] * keys).sum(0) / (weights.sum() + 1e-5))
    return torch.stack(found)


def plain_gradient(world: World, settings: FreeControlSettings, mask: Tensor | None, step: Step) -> Tensor:
    """Weighted energies' gradient: all rows in one call, gradients everywhere, one picture after the other."""
    lanes, unet = world.lanes(), world.unet
    if settings.appearance_weight:
        lanes["sibling"] = world.sibling()
    sites = world.sites[:1] if settings.layers == "first" else world.sites
    names = [(name, half) for name in lanes for half in ("uncond", "cond")]
    x = torch.cat([lanes[name].latents for name, _ in names]).requires_grad_(True)
    text = torch.cat([world.prompt.half(half) for _, half in names])
    seen: dict[str, Tensor] = {}
    handles = [
        unet.get_submodule(site).register_forward_hook(lambda _m, _a, out, site=site: seen.__setitem__(site, out))
        for site in sites
    ]
    unet(x, step.timestep, encoder_hidden_states=text)
    for handle in handles:
        handle.remove()
    total = torch.zeros((), dtype=x.dtype)
    for site in sites:
        rows = dict(zip(names, seen[site].split(BATCH), strict=True))
        basis = world.bases[step.timestep, site]
        for i in range(BATCH):
            keys = rows["edit", "cond"][i]
            s = naive_coordinates(keys, basis, settings.normalize)
            ref = world.reference.coordinates[step.timestep, site][i].to(x)
            g = settings.structure_weight * naive_structure(s, ref, None if mask is None else mask[i], settings)
            if settings.appearance_weight:
                other = rows["sibling", "cond"][i].detach()
                target = naive_vectors(other, naive_coordinates(other, basis, settings.normalize), settings)
                over = torch.mean if settings.reduction == "mean" else torch.sum
                distances = [over((a - b) ** 2) for a, b in zip(naive_vectors(keys, s, settings), target, strict=True)]
                g = g + settings.appearance_weight * sum(distances) / len(distances)
            total = total + g / len(sites)
    (gradient,) = torch.autograd.grad(total, x)
    unet.zero_grad()
    return gradient[names.index(("edit", "cond")) * BATCH :][:BATCH]


def applied_gradient(world: World, settings: FreeControlSettings, mask: Tensor | None, **options: Any) -> Tensor:
    """What the official update took from the latents in the first step, over its factor."""
    plain = world.run(None, 1, world.lanes())["edit"].latents
    guided = world.run(world.guide(settings, mask, **options), 1, world.lanes())["edit"].latents
    t = world.timesteps[0]
    factor = ((1 - world.abar(t)) * (1 - world.abar(t - 1000 // STEPS))) ** 0.5
    return (plain - guided) / factor


HALF = torch.stack([torch.arange(TOKENS) < 6, torch.arange(TOKENS) % 2 == 0]).double()
CASES = {
    "default": Settings(),
    "structure only": Settings(appearance_weight=0.0),
    "appearance only": Settings(structure_weight=0.0),
    "paper": Settings(**(PRESETS["paper"] | {"update": "official"})),
    "first layer": Settings(layers="first", appearance_components=3),
    "official background": Settings(background_area="all", background_weight=25.0),
}


@pytest.mark.parametrize(
    ("case", "masked", "kind"),
    [*product(CASES, [False, True], ["epsilon"]), ("default", True, "v_prediction")],
)
def test_gradient_equals_the_plain_computation(case, masked, kind):
    """The edit row alone, grad cut after the last site, frozen weights: the same gradient, and the official update."""
    world, mask = World(kind), HALF if masked else None
    settings = CASES[case]
    expected = plain_gradient(world, settings, mask, Step(0, STEPS, world.timesteps[0]))
    got = applied_gradient(world, settings, mask)
    assert expected.norm() > 0
    assert (got - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_paper_update_changes_the_noise_before_the_step(kind):
    """Equation 7: eps + g, in whichever form the network predicts, then the scheduler's own step."""
    world = World(kind)
    settings = Settings(update="paper", structure_weight=3.0, appearance_weight=1.0)
    t = world.timesteps[0]
    gradient = plain_gradient(world, settings, None, Step(0, STEPS, t))
    x = world.lanes()["edit"].latents
    with torch.no_grad():
        halves = [world.unet(x, t, encoder_hidden_states=e).sample for e in (world.prompt.uncond, world.prompt.cond)]
    output = halves[0] + SCALE * (halves[1] - halves[0])
    a, s = world.abar(t) ** 0.5, (1 - world.abar(t)) ** 0.5
    if kind == "epsilon":
        changed = output + gradient
    else:
        noise = a * output + s * x + gradient
        changed = a * noise - s * (x - s * noise) / a
    expected = world.scheduler.step(changed, t, x).prev_sample
    got = world.run(world.guide(settings), 1, world.lanes())["edit"].latents
    plain = world.run(None, 1, world.lanes())["edit"].latents
    assert (got - expected).norm() <= 1e-5 * (expected - plain).norm()


def test_gradient_with_mask_of_everything_equals_no_mask():
    world = World()
    ones = torch.ones(BATCH, TOKENS).double()
    torch.testing.assert_close(applied_gradient(world, Settings(), ones), applied_gradient(world, Settings(), None))


def test_batch_rows_do_not_touch_each_other():
    """Each picture of a batch is guided as it would be alone."""
    world = World()
    together = world.run(world.guide(Settings()), 3, world.lanes())["edit"].latents
    for i in range(BATCH):
        row = slice(i, i + 1)
        alone = Prompt(world.prompt.cond[row], world.prompt.uncond[row])
        lanes = {name: Lane(lane.latents[row], alone, SCALE) for name, lane in world.lanes().items()}
        both = world.target(Settings())
        reference = Reference({key: value[row] for key, value in both.reference.coordinates.items()})
        target = Target(both.bases, reference, {key: value[row] for key, value in both.appearance.items()})
        guide = FreeControlGuide(on_path(world.scheduler), Settings(), [target], world.sites)
        torch.testing.assert_close(together[row], world.run(guide, 3, lanes)["edit"].latents, rtol=0, atol=1e-4)


def test_several_targets_sum_their_energies():
    """Each has its full weight: the gradient of two is the sum of the gradients of each alone."""
    world, settings = World(), Settings()
    left, right = world.target(settings, HALF), world.target(settings, 1 - HALF)
    right.appearance = {}  # as where two conditions share their bases

    def gradient(*targets: Target) -> Tensor:
        guide = FreeControlGuide(on_path(world.scheduler), settings, targets, world.sites)
        lanes = world.lanes()
        guide.predict(Step(0, STEPS, world.timesteps[0]), lanes, denoiser_of(world.unet))
        return guide._change

    alone = [gradient(left), gradient(right)]
    assert all(one.norm() > 0 for one in alone)
    torch.testing.assert_close(gradient(left, right), alone[0] + alone[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient(right, right), 2 * alone[1], rtol=1e-9, atol=1e-9)


def test_a_reference_of_one_holds_for_the_batch():
    world, settings = World(), Settings(appearance_weight=0.0)
    one = Reference(
        {k: v[:1] for k, v in world.reference.coordinates.items()}, dict.fromkeys(world.timesteps, HALF[:1])
    )
    all_alike = Reference(
        {k: v[:1].expand(BATCH, -1, -1) for k, v in world.reference.coordinates.items()},
        dict.fromkeys(world.timesteps, HALF[:1].expand(BATCH, -1)),
    )
    got, want = (
        world.run(
            FreeControlGuide(on_path(world.scheduler), settings, [Target(world.bases, ref)], world.sites),
            2,
            world.lanes(),
        )["edit"].latents
        for ref in (one, all_alike)
    )
    assert torch.equal(got, want)


def test_recorded_keys_are_those_of_plain_sampling():
    """Against hooks of the test's own in a loop with the scheduler's own step."""
    world = World()
    x, wanted = world.sibling().latents, world.timesteps[1:4:2]
    recorder = KeyRecorder(world.sites, wanted)
    world.run(recorder, 4, {"sibling": world.sibling()})
    assert set(recorder.found) == {(t, site) for t in wanted for site in world.sites}
    seen: dict[str, Tensor] = {}
    for site in world.sites:
        world.unet.get_submodule(site).register_forward_hook(lambda _m, _a, out, s=site: seen.__setitem__(s, out))
    for t in world.timesteps[:4]:
        with torch.no_grad():
            uncond = world.unet(x, t, encoder_hidden_states=world.prompt.uncond).sample
            cond = world.unet(x, t, encoder_hidden_states=world.prompt.cond).sample
        for site, keys in seen.items():
            if t in wanted:
                torch.testing.assert_close(recorder.found[t, site], keys, rtol=1e-9, atol=1e-9)
        x = world.scheduler.step(uncond + SCALE * (cond - uncond), t, x).prev_sample


class Pointwise(nn.Module):
    """A network whose keys at a token depend on that token alone, so that a picture can be tiled."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(sample_size=4)
        self.to_k = nn.Linear(4, 6).double()

    def forward(self, sample: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor]:
        self.to_k(sample.flatten(2).transpose(1, 2))
        return (sample,)


def test_a_larger_picture_is_guided_as_strongly():
    """Four tiles of a picture: each pixel's step is that of one tile, whatever energies' means make of the gradient."""
    unet = Pointwise()
    settings = FreeControlSettings(appearance_weight=0.0, components=5, warmup=0.0)
    basis = Basis(normal(6, seed=1), torch.linalg.qr(normal(6, 5, seed=2))[0].T.contiguous(), torch.ones(5))
    bases, site = SemanticBases({(801, "to_k"): basis}), (801, "to_k")
    step, mask = Step(0, STEPS, 801), (torch.arange(16) < 6).double().view(1, 1, 4, 4)
    changes = []
    for tiles in (1, 2):
        x, wanted, inside = (
            one.repeat(1, 1, tiles, tiles)
            for one in (*(normal(1, 4, 4, 4, seed=i, dtype=torch.float64) for i in (3, 4)), mask)
        )
        with torch.no_grad():
            keys = unet.to_k(wanted.flatten(2).transpose(1, 2))
        reference = Reference({site: coordinates(bases, "variance", site, keys)}, {801: inside.flatten(1)})
        guide = FreeControlGuide(path_of(toy_scheduler()).on(STEPS), settings, [Target(bases, reference)], ["to_k"])
        guide.predict(step, {"edit": Lane(x, Prompt(normal(1, 7, 4, seed=5, dtype=torch.float64)))}, denoiser_of(unet))
        changes.append(guide._change)
    small, large = changes
    assert small.norm() > 0
    torch.testing.assert_close(large, small.repeat(1, 1, 2, 2), rtol=1e-6, atol=1e-9)


def test_warmup_grows_from_an_unguided_first_step():
    world, settings = World(), Settings(warmup=0.5, window_stop=1.0)  # 4 of 8 steps
    guide = world.guide(settings)
    ramps = [ramp(settings, Step(i, STEPS, 1)) for i in range(STEPS)]
    assert ramps == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])
    first = world.run(guide, 1, world.lanes())["edit"].latents
    assert guide.trace == []
    assert torch.equal(first, world.run(None, 1, world.lanes())["edit"].latents)
    world.run(guide := world.guide(settings), STEPS, world.lanes())
    assert [entry["timestep"] for entry in guide.trace] == world.timesteps[1:]


@pytest.mark.parametrize(("start", "stop"), [(0.0, 0.5), (0.25, 0.75), (0.5, 1.0), (0.0, 0.0), (0.3, 0.3)])
def test_steps_outside_the_window_are_plain(start, stop):
    world = World()
    guide = world.guide(Settings(window_start=start, window_stop=stop))
    inside = [t for i, t in enumerate(world.timesteps) if start * STEPS <= i < stop * STEPS]
    states: dict[int, Tensor] = {}
    lanes = world.lanes()
    sample(
        denoiser_of(world.unet), on_path(world.scheduler), lanes, world.timesteps, guide,
        on_step=lambda step, now: states.__setitem__(step.timestep, now["edit"].latents),
    )  # fmt: skip
    assert [entry["timestep"] for entry in guide.trace] == inside
    x = world.lanes()["edit"].latents
    for t in world.timesteps:
        lane = {"edit": Lane(x, world.prompt, SCALE)}
        plain = sample(denoiser_of(world.unet), on_path(world.scheduler), lane, [t])["edit"].latents
        assert ((states[t] - plain).abs().max() > 1e-6) == (t in inside)
        x = states[t]


def rows_per_step(world: World, guide: FreeControlGuide, lanes: dict[str, Lane]) -> list[int]:
    """UNet rows of each step, by a hook of the test's own."""
    per_step: list[int] = [0]

    def count(_unet, args, kwargs) -> None:
        per_step[-1] += len(args[0] if args else kwargs["sample"])

    handle = world.unet.register_forward_pre_hook(count, with_kwargs=True)
    sample(
        denoiser_of(world.unet),
        on_path(world.scheduler),
        lanes,
        world.timesteps,
        guide,
        on_step=lambda *_: per_step.append(0),
    )
    handle.remove()
    return per_step[:-1]


def test_a_step_has_two_rows_and_a_guided_one_a_backward():
    world, cost = World(), Cost()
    guide = world.guide(Settings(window_stop=0.5, warmup=0.25), cost=cost)
    assert rows_per_step(world, guide, world.lanes()) == [2 * BATCH] * STEPS
    assert cost.row_backwards == 3 * BATCH  # the first step has weight 0


def test_non_finite_gradient_leaves_the_step_unguided():
    world = World()
    broken = dict(world.reference.coordinates)
    second = world.timesteps[1]
    broken[second, world.sites[0]] = torch.full((BATCH, TOKENS, COMPONENTS), torch.nan)
    target = Target(world.bases, Reference(broken))
    guide = FreeControlGuide(on_path(world.scheduler), Settings(), [target], world.sites)
    states: list[Tensor] = []
    sample(
        denoiser_of(world.unet), on_path(world.scheduler), world.lanes(), world.timesteps[:3], guide,
        on_step=lambda _, now: states.append(now["edit"].latents),
    )  # fmt: skip
    assert guide.non_finite == 1
    assert all(torch.isfinite(state).all() for state in states)
    lane = {"edit": Lane(states[0], world.prompt, SCALE)}
    plain = sample(denoiser_of(world.unet), on_path(world.scheduler), lane, [second])["edit"].latents
    torch.testing.assert_close(states[1], plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fail", [False, True])
def test_unet_is_as_before_after_a_guided_step(fail):
    world = World()
    frozen = world.unet.conv_in.weight.requires_grad_(False)
    flags = [p.requires_grad for p in world.unet.parameters()]
    guide = world.guide(Settings())
    if fail:
        guide.targets[0].reference.coordinates.clear()
        with pytest.raises(KeyError):
            world.run(guide, 1, world.lanes())
    else:
        world.run(guide, 1, world.lanes())
    assert [p.requires_grad for p in world.unet.parameters()] == flags
    assert not frozen.requires_grad
    assert all(p.grad is None for p in world.unet.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in world.unet.modules())
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
