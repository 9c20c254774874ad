"""Attention methods on joint attention: each against an attention written out in float64, and in limiting cases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attention_oracle import STEP, Explicit, check, copied, softmax, values_of, weights_of, written_out
from flow_toy import small_sd3
from PIL import Image
from torch import Tensor

from freectl.denoising.attention_layers import picture_sites
from freectl.denoising.attention_maps import running_masks
from freectl.denoising.injection import Injection, SourceInjector, row_pairs, row_places
from freectl.denoising.inversion import Trajectory
from freectl.denoising.sampler import Controller, Lane, Prompt, row_keys
from freectl.methods.ctrlx import CtrlXController, CtrlXSettings
from freectl.methods.masactrl.mask import MaskedInjector, same_class
from freectl.methods.p2p.align import align, joined
from freectl.methods.p2p.maps import MapInjector
from freectl.models.engine import Engine
from freectl.semantics.analysis import passing_at
from freectl.semantics.bases import Basis, SemanticBases
from freectl.semantics.reference import ReferenceRecorder

SIZE, LATENT, TOKENS = (48, 32), (8, 12), 24
STEPS = 3
SOURCE, TARGET = "a dog on grass", "a red cat on grass"
KINDS = {"3.5-medium": {}, "medium": {"qk_norm": None, "dual": 0}}


def picture(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=KINDS)
def engine(request, tmp_path_factory) -> Engine:
    made = Engine(small_sd3(tmp_path_factory.mktemp("sd3"), **KINDS[request.param]))
    made.size = SIZE
    return made


def lanes_of(engine: Engine, target: str = TARGET, batch: int = 1) -> dict[str, Lane]:
    drawn = [torch.randn(batch, 4, *LATENT, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    return {
        "edit": Lane(drawn[0], engine.encode_prompt([target] * batch, ["grey"] * batch), 4.0),
        "source": Lane(drawn[1], engine.encode_prompt([SOURCE] * batch, ["grey"] * batch), 4.0),
    }


# One step of each method


def test_plain_attention_written_out_is_the_networks_own(engine):
    lanes = lanes_of(engine)
    expected = written_out(engine, lanes, lambda _, own, text: weights_of(own, text) @ values_of(own, text))
    with torch.no_grad():
        got = Controller().predict(STEP, lanes, engine.denoiser)
    for name in lanes:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("letters", ["qk", "kv"])
def test_copied_tokens_are_the_pictures_alone(engine, letters):
    """Plug-and-Play's queries and keys, MasaCtrl's keys and values: the text goes on reading its own and the copies."""
    lanes = lanes_of(engine, batch=2)

    def hidden(_name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        copied(own, lanes, letters, ("uncond", "cond"))
        return weights_of(own, text) @ values_of(own, text)

    layers = engine.family.self_layers(engine.network)
    sites = engine.family.pnp_sites(engine.network)[1] if letters == "qk" else picture_sites(layers, letters)
    check(engine, lanes, SourceInjector({}, [Injection(sites)]), hidden)


def test_masactrls_classes_are_written_out(engine):
    """A place of the object reads the source's object, the rest the rest, and every place the edit's text."""
    lanes = lanes_of(engine)
    given = torch.zeros(1, *LATENT)
    given[:, :4, :6] = 1
    mask = torch.zeros(4, 6)
    mask[:2, :3] = 1
    apart = same_class(mask.view(1, -1), mask.view(1, -1))[0]
    places, pairs = row_places(lanes, row_keys(lanes)), row_pairs(lanes)

    def hidden(_name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        copied(own, lanes, "kv", ("uncond", "cond"))
        keys = torch.cat([own["k"], text["k"]], 2) if text else own["k"]
        scores = own["q"] @ keys.transpose(-1, -2) / own["q"].shape[-1] ** 0.5
        for target in pairs:
            scores[places[target]][..., :TOKENS].masked_fill_(~apart, -torch.inf)
        return softmax(scores) @ values_of(own, text)

    layers = engine.family.self_layers(engine.network)
    injector = MaskedInjector({}, layers, 0.0, engine.family.word_layers(engine.network), {}, 0.1, given)
    check(engine, lanes, injector, hidden)


@pytest.mark.parametrize("self_area", [0.0, 0.25])
def test_prompt_to_prompts_columns_are_written_out(engine, self_area):
    """Columns of CLIP's and of T5's tokens go by their own alignments; queries and keys are the source's if asked."""
    lanes = lanes_of(engine, "a red dog on grass", batch=2)
    prompts = [SOURCE] * 2, ["a red dog on grass"] * 2
    alignment = joined([align(one, *prompts, "auto", "red=2") for one in engine.text.sequences])
    assert alignment.matrix.shape[-1] == 77 + 16
    places = row_places(lanes, row_keys(lanes))
    edit, source = places["edit", "cond"], places["source", "cond"]

    def hidden(_name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        if self_area:
            copied(own, lanes, "qk", ("cond",))
        weights = weights_of(own, text)
        if text:
            theirs, ours = weights[source][..., TOKENS:], weights[edit][..., TOKENS:]
            shared, factors = (x[:, None, None].double() for x in (alignment.shared, alignment.factors))
            aligned = theirs @ alignment.matrix[:, None].double()
            weights[edit, :, :, TOKENS:] = factors * (shared * aligned + (1 - shared) * ours)
        return weights @ values_of(own, text)

    crossed = engine.family.cross_layers(engine.network)
    injections = [Injection(picture_sites(engine.family.self_layers(engine.network), "qk")),
                  Injection(tuple(layer.name for layer in crossed))]  # fmt: skip
    check(engine, lanes, MapInjector({}, injections, alignment, self_area, crossed), hidden)


def test_ctrlxs_copies_and_statistics_are_written_out(engine):
    """Queries and keys of the structure, S norm(h) + M at the layers' inputs, in the conditional row alone."""
    given = lanes_of(engine)
    lanes = {"edit": given["edit"], "structure": Lane(given["source"].latents, Prompt(
        given["source"].prompt.cond, None, {"cond": given["source"].prompt.added["cond"]})),
        "appearance": Lane(given["source"].latents.flip(-1), given["source"].prompt)}  # fmt: skip
    sites, network = engine.family.ctrlx_sites(engine.network), engine.network
    controller = CtrlXController(engine.path(STEPS), sites, CtrlXSettings(appearance_stop=1.0), {})
    with torch.no_grad():
        got = controller.predict(STEP, lanes, engine.denoiser)["edit"]
        plain = Controller().predict(STEP, lanes, engine.denoiser)["edit"]
    places = row_places(lanes, row_keys(lanes))
    row, structure, appearance = (places[key, "cond"] for key in ("edit", "structure", "appearance"))

    def hidden(name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        if any(site.startswith(f"{name}.") for site in sites.injected):
            for letter in "qk":
                own[letter][row] = own[letter][structure].clone()
        return weights_of(own, text) @ values_of(own, text)

    def statistics(name: str) -> Callable:
        attn = network.get_submodule(name)

        def change(_module: Any, _args: Any, output: Tensor) -> Tensor:
            h, theirs = output[row].double(), output[appearance].double()
            normal, other = ((x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
                             for x in (h, theirs))  # fmt: skip
            tokens = Explicit("", hidden).tokens
            q, k = (
                tokens(attn, f"to_{x}", f"norm_{x}", part.to(output.dtype)) for x, part in (("q", normal), ("k", other))
            )
            share = softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5)
            v = theirs.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            mean, square = ((share @ x).transpose(1, 2).flatten(2) for x in (v, v * v))
            changed = output.clone()
            changed[row] = ((square - mean**2).clamp(min=0).sqrt() * normal + mean).to(output.dtype)
            return changed

        return change

    handles = [network.get_submodule(entry).register_forward_hook(statistics(name))
               for name, entry in sites.transferred.items()]  # fmt: skip
    try:
        expected = written_out(engine, lanes, hidden)["edit"]
    finally:
        for handle in handles:
            handle.remove()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(got, plain, atol=1e-3)


# Words


def test_a_words_map_is_its_share_of_the_text(engine):
    """In CLIP's columns and in T5's, mean over heads and blocks, as FreeControl's reference reads it."""
    positions = engine.token_positions(SOURCE, "dog")
    tokens = engine.pipe.tokenizer(SOURCE).input_ids
    clip = [i for i, token in enumerate(engine.pipe.tokenizer.convert_ids_to_tokens(tokens)) if i in positions]
    (t5,) = [i for i, number in enumerate(engine.pipe.tokenizer_3(SOURCE).input_ids)
             if engine.pipe.tokenizer_3.convert_ids_to_tokens(number) == "▁dog"]  # fmt: skip
    assert "".join(engine.pipe.tokenizer.convert_ids_to_tokens(tokens)[i] for i in clip) == "dog</w>"
    assert positions == [*clip, 77 + t5]
    prompt = engine.encode_prompt([SOURCE])
    latents = torch.randn(1, 4, *LATENT, generator=torch.Generator().manual_seed(0))
    layers, found = engine.family.word_layers(engine.network), []

    def hidden(name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        weights = weights_of(own, text)
        if name in [layer.name for layer in layers]:
            shares = weights[..., TOKENS:].mean(1)
            found.append(shares[..., positions].sum(-1) / shares.sum(-1))
        return weights @ values_of(own, text)

    written_out(engine, {"source": Lane(latents, prompt)}, hidden)
    assert len(found) == len(layers) == 2
    time, sites = 500.0, engine.family.structure_sites(engine.network)
    basis = {(time, site): Basis(torch.zeros(32), torch.eye(32)[:2], torch.ones(2)) for site in sites}
    recorder = ReferenceRecorder(engine, SOURCE, SemanticBases(basis), [time], sites, "none", "dog")
    trajectory = Trajectory(latents, {time: latents})
    seen = passing_at(engine.denoiser, trajectory, prompt, [time], recorder.tapped)
    recorder.take(time, {site: seen[time, site] for site in recorder.tapped}, latents)
    expected = torch.stack(found).mean(0).float()
    torch.testing.assert_close(recorder._read[time][1], expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(recorder.finished(trajectory).masks[time], running_masks({time: expected})[time])
