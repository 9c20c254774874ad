"""The methods on packed transformers: what guidance the network is told, features, gradient, cost, hooks."""

import copy
from typing import Any

import pytest
import torch
from flux_kinds import INVERTED, STEPS, calls, of_small_pictures, picture

from freectl import methods
from freectl.denoising.attention_layers import TEXT
from freectl.denoising.injection import text_of
from freectl.denoising.sampler import Lane, Step
from freectl.denoising.taps import tap
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.base import Condition
from freectl.methods.freecontrol.guide import FreeControlGuide, Target
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.freecontrol.settings import FreeControlSettings as Settings
from freectl.models import families
from freectl.models.engine import Engine
from freectl.models.families.transformer import PATH_METHODS
from freectl.semantics.bases import Basis, SemanticBases
from freectl.semantics.reference import Reference

FEW = {"seeds": 2, "seed_steps": STEPS, "components": 3, "concept": "cat", "source_prompt": "a dog"}
SIZE = (128, 32)
"""As many tokens as the square of 8 that seed pictures are: grids of both are the same."""
SHAPES = {"flux": (4, 8, 32), "chroma": (4, 8, 32), "flux2": (16, 4, 16), "klein": (16, 4, 16)}
ROTARY = "diffusers.models.transformers.transformer_{}.apply_rotary_emb"


@pytest.fixture(scope="module")
def cache() -> Cache:
    return Cache()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", of_small_pictures(8))


def guided(toy: Any, cache: Cache | None, prompt: Any = "a cat", image: Any = None, **options: Any) -> Any:
    given = {"method": FreeControl(), "cache": cache, **FEW} | options
    return toy.run(prompt, None if "conditions" in given else image or picture(size=SIZE), **given)


@pytest.mark.parametrize("name", INVERTED)
def test_freecontrol_pulls_towards_the_pictures_structure(toys, cache, name):
    """From one noise, with and without strength."""
    start = {"start": "noise", "appearance_weight": 0.0}
    free, firm = (
        guided(toys[name], cache, structure_strength=w, generator=torch.Generator().manual_seed(0), **start)
        for w in (1e-9, 1.0)
    )
    assert len(firm.trace) == len(free.trace) > 1
    assert firm.trace[-1]["structure"] < free.trace[-1]["structure"]


def test_conditions_give_structure_to_noise(toys, cache):
    conditions = [Condition(picture(size=SIZE), "a dog", "cat")]
    drawn = [torch.Generator().manual_seed(i) for i in range(2)]
    given = {"conditions": conditions, "concept": None, "source_prompt": "", "generator": drawn}
    made = guided(toys["klein"], cache, ["a cat", "a dog"], **given)
    assert made.images.shape == (2, *SHAPES["klein"])
    assert torch.isfinite(made.images).all()
    assert (made.images[0] - made.images[1]).abs().max() > 1e-2


def test_every_method_of_a_family_runs_on_it(toys, cache):
    given = {"source_prompt": "a dog", "cache": cache, "num_inference_steps": 2}
    for name, toy in toys.items():
        clean = Engine(toy.ours).encode_images([picture(size=SIZE)])
        family = Engine(toy.ours).family
        for method in PATH_METHODS:
            if family.runs(method, few_steps=family.guidance == "none"):
                made = toy.run("a cat", picture(size=SIZE), method=methods.get(method), **given)
                assert torch.isfinite(made.images).all(), (name, method)
                assert (made.images - clean).abs().max() > 1e-2, (name, method)


def test_distilled_guidance_is_told_and_inversion_told_of_none(toys):
    """One row a step: 1 while inverting and for references, the run's own scale elsewhere, each lane's its own."""
    for name in ("flux", "flux2"):
        with calls(toys[name].plain.transformer) as seen:
            guided(toys[name], None, guidance_scale=5.5)
        told = [set(one["guidance"].tolist()) for one in seen]
        scale = families.of_pipe(toys[name].ours).guidance_scale
        assert all(one["hidden_states"].shape[0] <= 2 for one in seen)
        assert {5.5} in told
        assert told.count({1.0}) == STEPS + 1  # the inversion, and the reference of its last level
        assert set().union(*told) == {1.0, scale, 5.5}  # seed pictures are made at the family's own
        with calls(toys[name].plain.transformer) as seen:
            toys[name].run("a cat", picture(size=SIZE), method=methods.get("flowedit"), source_prompt="a dog",
                           guidance_scale=5.5, source_guidance=1.5, strength=0.5)  # fmt: skip
        assert [one["guidance"].tolist() for one in seen] == [[5.5, 1.5]] * (STEPS // 2)


def test_true_guidance_leaves_the_embedded_scale(toys):
    """Two rows a guided step told the embedded scale, one row told 1 while inverting."""
    given = {"true_cfg_scale": 3.0, "negative_prompt": "grey", "guidance_scale": 2.5}
    with calls(toys["flux"].plain.transformer) as seen:
        made = guided(toys["flux"], None, structure_strength=0.0, seeds=1, **given)
    told = [tuple(one["guidance"].tolist()) for one in seen]
    assert told.count((2.5, 2.5)) >= STEPS
    assert told.count((1.0,)) >= STEPS
    assert torch.isfinite(made.images).all()


def test_features_are_the_pictures_keys_before_positions(toys):
    """Normalised keys of the picture's tokens with heads side by side; in single-stream blocks the text is cut off."""
    for name in ("flux", "chroma", "klein"):
        engine, latents = Engine(toys[name].ours), toys[name].noise(0, rows=2)
        prompt = engine.encode_prompt(["a cat", "a dog"])
        tokens = engine.family.packed(engine.network, latents).shape[1]
        site = engine.family.structure_sites(engine.network)[0]
        single = "single_transformer_blocks.0.attn.norm_k"
        before = site.replace("norm_k", "to_k")
        with torch.no_grad(), tap(engine.network, [site, single, before]) as seen:
            engine.denoiser.forward(latents, 500.0, prompt.cond, dict(prompt.added.get("cond", {})))
            captured = seen.pop_all()
        keys = captured[before].unflatten(-1, (2, 16))
        keys = keys / (keys.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        keys = (keys * engine.network.get_submodule(site).weight).flatten(2)
        got = engine.denoiser.features({site: captured[site], single: captured[single]}, latents)
        torch.testing.assert_close(got[site], keys, rtol=0, atol=1e-5)
        assert torch.equal(got[single], captured[single][:, -tokens:].flatten(2))
        assert captured[single].shape[1] == tokens + prompt.cond.shape[1]


def wide_rotary(x: torch.Tensor, places: Any, sequence_dim: int = 1, **_: Any) -> torch.Tensor:
    """Diffusers' own rounds to fp32, too coarse for a difference."""
    cos, sin = (one[None, :, None, :].to(x) for one in places)
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin


def test_the_gradient_is_that_of_finite_differences(toys, monkeypatch):
    """In float64, of both energies, through packing, norms, positions and the stop behind the last site."""
    for module in ("flux", "flux2"):
        monkeypatch.setattr(ROTARY.format(module), wide_rotary)
    for name in ("flux", "chroma", "klein"):
        check_gradient(Engine(copy.deepcopy(toys[name].ours).to(torch.float64)), toys[name])


def check_gradient(engine: Engine, toy: Any) -> None:
    engine.size = SIZE
    generator = torch.Generator().manual_seed(0)
    sites, path = engine.family.structure_sites(engine.network), engine.path(STEPS)
    tokens, time = SIZE[0] * SIZE[1] // 64, path.times[1]

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    basis = {(time, site): Basis(noise(32), torch.linalg.qr(noise(32, 3))[0].T, torch.ones(3)) for site in sites}
    target = Target(
        SemanticBases(basis),
        Reference({key: noise(1, tokens, 3) for key in basis}),
        {key: noise(1, 2, 32) for key in basis},
    )
    settings = Settings(update="official", structure_weight=3.0, appearance_weight=2.0, normalize="none",
                        appearance_gate="sigmoid", warmup=0.0, window_level=0.1)  # fmt: skip
    guide, step = FreeControlGuide(path, settings, [target], sites), Step(1, STEPS, time)
    latents, prompt = noise(1, *SHAPES[toy.name]), engine.encode_prompt(["a cat"])
    lane = Lane(latents, prompt, 3.0)
    _, change = guide._edit_row(step, lane, engine.denoiser)
    gradient = change / path.guidance_length(time)

    def energy(x: torch.Tensor) -> float:
        with torch.no_grad(), tap(engine.network, sites) as seen:
            engine.denoiser.rows({"edit": Lane(x, prompt, 3.0)}, [("edit", "cond")], time)
            return float(guide._energy(step, engine.denoiser.features(seen.pop_all(), x)).sum())

    for place in ((0, 0, 0, 0), (0, 2, 3, 7), (0, 3, 1, 15)):
        nudge = torch.zeros_like(latents)
        nudge[place] = 1e-5
        slope = (energy(latents + nudge) - energy(latents - nudge)) / 2e-5
        assert float(gradient[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8), toy.name


def test_an_exception_leaves_hooks_processors_and_gradients_as_they_were(toys, cache):
    def fail(_pipe, _index, _timestep, _tensors):
        raise RuntimeError("from the callback")

    for name in ("flux", "klein"):
        network = toys[name].ours.transformer
        before = dict(network.attn_processors)
        with pytest.raises(RuntimeError, match="from the callback"):
            guided(toys[name], cache, callback_on_step_end=fail)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        assert network.attn_processors == before
        assert all(weight.requires_grad for weight in network.parameters())


def test_words_are_found(toys, cache):
    """T5's tokens as they are or some masked, and a message inside its template."""
    for name in ("flux", "chroma", "klein"):
        given = {"source_prompt": "a cat", "cache": cache}
        found = guided(toys[name], mask="attention", **given)
        assert torch.isfinite(found.images).all()
        assert (found.images - guided(toys[name], **given).images).abs().max() > 1e-4, name
    with pytest.raises(InputError, match="keep.*: found a flux-schnell model"):
        toys["flux-schnell"].sdedit(keep="background", keep_concept="cat", source_prompt="a cat")


def test_layers_are_where_families_say(toys):
    """What a picture's tokens read, computed from what passes the sites, is what leaves the layer."""
    for name in ("flux", "chroma", "klein"):
        engine, latents = Engine(toys[name].ours), toys[name].noise(0, rows=2)
        prompt, rows, size = engine.encode_prompt(["a cat", "a red dog"]), slice(0, 2), tuple(latents.shape[-2:])
        for layer in engine.family.attentions(engine.network)[-3:]:
            with torch.no_grad(), tap(engine.network, [*layer.sites, layer.output]) as seen:
                engine.denoiser.forward(latents, 500.0, prompt.cond, dict(prompt.added.get("cond", {})))
                passed = seen.pop_all()
            own, masked = layer.of_picture(passed[layer.output], rows, size), text_of([(prompt, "cond")])
            if layer.beside:  # without what passes beside attention
                attn, (fused,) = engine.network.get_submodule(layer.name), {layer.picture["v"]}
                after = attn.mlp_act_fn(passed[fused][:, -own.shape[1] :, 3 * attn.inner_dim :])
                own = own - after @ attn.to_out.weight[:, attn.inner_dim :].T
            got = layer.read(engine.network, passed | ({} if masked is None else {TEXT: masked}), rows, rows, size)
            torch.testing.assert_close(got, own, rtol=0, atol=1e-5)


def test_methods_on_attention_run(toys, cache):
    """Plug-and-Play copies queries and keys; copied everywhere, they change what is made."""
    for name, method, how in (
        ("flux", "pnp", {"attention_stop": 1.0}),
        ("klein", "pnp", {"attention_stop": 1.0}),
        ("chroma", "masactrl", {"words": "dog=cat"}),
        ("klein", "p2p", {"blend": "dog=cat"}),
        ("klein", "masactrl", {"words": "dog=cat"}),
    ):
        given = {"method": methods.get(method), "source_prompt": "a dog", "cache": cache}
        made = toys[name].run("a cat", picture(size=SIZE), **given, **how).images
        assert torch.isfinite(made).all(), (name, method)
        if method == "pnp":
            free = toys[name].run("a cat", picture(size=SIZE), **given, attention_stop=0.0).images
            assert (made - free).abs().max() > 1e-3, name
