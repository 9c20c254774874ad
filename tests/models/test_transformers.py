"""Families of packed transformers against diffusers' own pipelines, on tiny random models of their topology."""

import copy
import math

import numpy as np
import pytest
import torch
from diffusers import ChromaTransformer2DModel, Flux2Transformer2DModel, FluxTransformer2DModel
from flux_kinds import KINDS, SIZE, STEPS, calls, picture

from freectl import methods
from freectl.denoising.shares import stored_share
from freectl.errors import InputError
from freectl.methods.freecontrol.method import FreeControl
from freectl.models import families
from freectl.models.engine import Engine

KLEIN_9B = {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}
KLEIN_4B = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}
PUBLISHED = {
    "flux": (FluxTransformer2DModel, {"guidance_embeds": True}, 11.90, (16, 128, 128), range(7, 13), 0.21),
    "flux-schnell": (FluxTransformer2DModel, {}, 11.89, (16, 128, 128), range(7, 13), 0.21),
    "chroma": (ChromaTransformer2DModel, {}, 8.90, (16, 128, 128), range(7, 13), None),
    "flux2": (Flux2Transformer2DModel, {}, 32.2, (128, 64, 64), range(3, 8), None),
    "klein": (Flux2Transformer2DModel, KLEIN_4B | {"guidance_embeds": False}, 3.88, (128, 64, 64), range(2, 5), 0.17),
    "klein-distilled": (
        Flux2Transformer2DModel, KLEIN_9B | {"guidance_embeds": False}, 9.08, (128, 64, 64), range(3, 8), None
    ),
}  # fmt: skip
"""Class, configuration, billions of weights, latents at 1024 px, tapped blocks and executed share at 1024 px."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_transformers_are_recognised(name):
    cls, config, billions, shape, blocks, share = PUBLISHED[name]
    with torch.device("meta"):
        network = cls(**config)
    assert sum(weight.numel() for weight in network.parameters()) / 1e9 == pytest.approx(billions, rel=2e-3)
    family = families.of(network, {"is_distilled": name == "klein-distilled"})
    assert (family.name, family.latent_shape(network)) == (name, shape)
    sites = family.structure_sites(network)
    assert sites == [f"transformer_blocks.{i}.attn.norm_k" for i in blocks]
    assert not set(sites) - set(dict(network.named_modules()))
    keys = [name for name in dict(network.named_modules()) if name.endswith("attn.norm_k")]
    assert [name for name in family.pnp_sites(network)[1] if name.endswith("k")] == keys
    stored = stored_share(cls.__name__, network.config, sites, (4096, 1), 512)
    assert stored is not None
    assert share is None or stored == pytest.approx(share, abs=0.006)


def test_other_transformers_are_refused_in_one_line():
    with torch.device("meta"):
        fill = FluxTransformer2DModel(in_channels=384, out_channels=64, guidance_embeds=True)
    with pytest.raises(InputError, match="found a FluxTransformer2DModel with 19 blocks, 384 channels in and 64 out"):
        families.of(fill)


def test_each_is_its_family(toys):
    assert {name: Engine(toy.ours).family.name for name, toy in toys.items()} == {name: name for name in KINDS}


def test_text_to_image_is_diffusers_own(toys):
    """At strength 1 a flow's start is the noise itself; the first call is told the same to the bit."""
    for toy in toys.values():
        with calls(toy.plain.transformer) as theirs:
            expected = toy.plainly(latents=toy.noise())
        with calls(toy.plain.transformer) as ours:
            got = toy.sdedit(latents=toy.noise())
        assert got.shape == (1, SIZE[1], SIZE[0], 3)
        np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=toy.name)
        assert np.abs(got - got.mean()).max() > 1e-2
        for name in ("hidden_states", "timestep", "guidance", "pooled_projections", "attention_mask"):
            told = theirs[0].get(name)
            assert (told is None and ours[0].get(name) is None) or torch.equal(ours[0][name][-1:], told), name
        for name in ("txt_ids", "img_ids"):
            told = theirs[0][name]
            assert torch.equal(ours[0][name], (told[0] if told.dim() == 3 else told).to(ours[0][name])), name


def test_true_guidance_is_diffusers_own(toys):
    """A row of the negative prompt beside guidance that is embedded, or where there is none."""
    for name in ("flux", "flux-schnell"):
        given = {"negative_prompt": "grey", "true_cfg_scale": 3.0}
        expected = toys[name].plainly(latents=toys[name].noise(), **given)
        got = toys[name].sdedit(latents=toys[name].noise(), **given)
        np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=name)


def test_image_to_image_is_diffusers_own(toys):
    """To the bit at equal noise; where diffusers has no such pipeline, to 1e-5 of its own from noised latents.

    Sampled from the picture's mode, as here.
    """
    for toy in toys.values():
        engine = Engine(toy.ours)
        clean, drawn = engine.encode_images([picture()]), toy.noise(3)
        if toy.kind.img2img:
            theirs = toy.kind.img2img.from_pipe(toy.plain)
            theirs.set_progress_bar_config(disable=True)
            options = {"image": clean, "strength": 0.5, "generator": torch.Generator().manual_seed(3)}
            expected = toy.plainly(theirs, **options)
        else:
            engine.size = SIZE
            sigma = engine.path(STEPS).times[STEPS // 2] / 1000
            noised = (1 - sigma) * clean + sigma * drawn
            expected = toy.plainly(latents=noised, sigmas=np.linspace(1.0, 1 / STEPS, STEPS)[STEPS // 2 :])
        got = toy.sdedit(strength=0.5, latents=drawn)
        np.testing.assert_allclose(got, expected, atol=0 if toy.kind.img2img else 1e-5, rtol=0, err_msg=toy.name)


def test_pictures_are_encoded_and_decoded_with_the_vaes_statistics(toys):
    for name in ("flux", "klein"):
        engine, vae = Engine(toys[name].ours), toys[name].plain.vae
        pixels = engine.pipe.image_processor.preprocess([picture()])
        raw, got = vae.encode(pixels).latent_dist.mode(), engine.encode_images([picture()])
        expected = (raw - 0.0609) * 1.5305 if name == "flux" else engine.pipe._encode_vae_image(pixels, None)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(engine.decode(got), vae.decode(raw).sample, rtol=0, atol=1e-4)


def test_bf16_is_diffusers_own(toys):
    for name in ("flux", "klein"):
        narrow = copy.deepcopy(toys[name].ours).to(torch.bfloat16)
        theirs = copy.copy(toys[name].plain)
        theirs.register_modules(**narrow.components)
        expected = toys[name].plainly(theirs, toys[name].noise().bfloat16())
        got = toys[name].sdedit(latents=toys[name].noise(), pipe=narrow)
        off = np.abs(got - expected)
        assert off.max() <= 0.05
        assert off.mean() <= 0.005


def test_inversion_error_shrinks_with_steps(toys):
    """Sampling without guidance from the inverted latents comes back to the picture, nearer with more steps.

    FLUX.2's shift leaves the last of few steps most of the way.
    """
    small = picture(size=(32, 32))
    for name, grids in {"flux": (3, 12), "flux2": (8, 32)}.items():
        engine = Engine(toys[name].ours)
        engine.size = small.size
        clean, prompt, errors = engine.encode_images([small]), engine.encode_prompt(["a dog"]), []
        for steps in grids:
            path = engine.path(steps)
            latents = engine.invert(small, "a dog", path)[0].start
            with torch.no_grad():
                for time in path.times:
                    output = engine.denoiser.forward(latents, time, prompt.cond, dict(prompt.added.get("cond", {})))
                    latents = path.step(output, latents, time)
            errors.append(float((latents - clean).square().mean().sqrt() / clean.std()))
        assert errors[0] > 2 * errors[1], (name, errors)


def test_steps_that_were_distilled_are_not_inverted_and_not_guided(toys):
    for name in ("flux-schnell", "klein-distilled"):
        why = f"on a {name} model"
        with pytest.raises(InputError, match=f"method: found freecontrol {why} distilled to.*sdedit, flowedit"):
            toys[name].run("a cat", picture(), method=FreeControl())
        with pytest.raises(InputError, match=f"guidance_scale: found 3 {why}, whose few.*allowed: 1, or none"):
            toys[name].sdedit(guidance_scale=3.0)
        assert np.isfinite(toys[name].sdedit(guidance_scale=None, strength=0.5)).all()
    for name in ("flux", "klein-distilled"):
        with pytest.raises(InputError, match=f"negative_prompt: found given to a {name} model"):
            toys[name].sdedit(negative_prompt="grey")


@pytest.mark.parametrize(("tokens", "steps", "expected"), [(4096, 4, 2.29), (4096, 28, 2.15), (4096, 50, 2.02)])
def test_the_shift_of_flux_2_depends_on_tokens_and_steps(toys, tokens, steps, expected):
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    got = families.KLEIN.shift(None, tokens, steps)
    assert got == pytest.approx(expected, abs=0.006)
    assert math.isclose(families.KLEIN.shift(None, 5000, steps), compute_empirical_mu(5000, steps))


def test_a_batch_is_its_pictures_one_by_one(toys):
    prompts, pictures = ["a cat", "red dog"], [picture(0), picture(1)]
    for name, method in (
        ("flux", "flowedit"),
        ("chroma", "ddpm-inversion"),
        ("flux2", "sdedit"),
        ("klein", "flowedit"),
        ("klein-distilled", "sdedit"),
        ("flux", "ctrlx"),
        ("chroma", "p2p"),
        ("chroma", "masactrl"),
        ("chroma", "ctrlx"),
        ("flux2", "masactrl"),
        ("flux2", "ctrlx"),
        ("klein", "p2p"),
    ):
        given = {"source_prompt": "a dog", "method": methods.get(method), "num_inference_steps": 2}

        def run(which: list[int], toy=toys[name], given=given) -> torch.Tensor:
            drawn = [torch.Generator().manual_seed(i) for i in which]
            texts, images = ([given_[i] for i in which] for given_ in (prompts, pictures))
            return toy.run(texts, images, generator=drawn, **given).images

        both = run([0, 1])
        for i in range(2):
            torch.testing.assert_close(both[i : i + 1], run([i]), rtol=0, atol=2e-5, msg=f"{name}, {method}")
