"""Attention methods where a text's padding is masked: as if there were no padding (PixArt-Sigma's topology)."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from dit_toys import TOYS
from torch import Tensor

from freectl.denoising.attention_layers import TEXT, picture_sites
from freectl.denoising.attention_maps import word_maps
from freectl.denoising.injection import Injection, text_of
from freectl.denoising.inversion import Trajectory
from freectl.denoising.sampler import Controller, Lane, Prompt, Step
from freectl.methods.p2p.align import Alignment, align
from freectl.methods.p2p.maps import MapInjector
from freectl.models.engine import Engine
from freectl.semantics.analysis import passing_at

SOURCE, TARGET = "a Dog on grass", "a red Dog on grass"
STEP = Step(0, 1, 501)
READ = 6
"""Tokens of the longer text, its end counted."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Engine:
    return Engine(TOYS["pixart"].wrap(TOYS["pixart"].build(tmp_path_factory.mktemp("pixart"))))


def cut(prompt: Prompt) -> Prompt:
    """The prompt without the padding behind `READ` tokens."""
    added: Any = {half: {name: mask[:, :READ] for name, mask in own.items()} for half, own in prompt.added.items()}
    return Prompt(prompt.cond[:, :READ], None if prompt.uncond is None else prompt.uncond[:, :READ], added)


def latents(seed: int) -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_words_map_leaves_padding_out(engine):
    places, words = engine.token_positions(SOURCE, "dog"), engine.pipe.tokenizer.convert_ids_to_tokens
    assert [words(engine.pipe.tokenizer(SOURCE.lower()).input_ids[place]) for place in places] == ["▁dog"]
    layers, found = engine.family.word_layers(engine.network), []
    for prompt in (engine.encode_prompt([SOURCE]), cut(engine.encode_prompt([SOURCE]))):
        sites = [site for layer in layers for site in layer.asked]
        seen = passing_at(engine.denoiser, Trajectory(latents(0), {501: latents(0)}), prompt, [501], sites)
        captured = {site: seen[501, site] for site in sites} | {TEXT: text_of([(prompt, "cond")])}
        found.append(word_maps(engine.network, captured, layers, places, (8, 8)))
    assert found[0].shape == (1, 16)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_prompt_to_prompt_leaves_padding_out(engine):
    (sequence,) = engine.text.sequences
    alignment = align(sequence, [SOURCE], [TARGET], "auto", "red=2")
    short = Alignment(alignment.matrix[:, :READ, :READ], *(getattr(alignment, f.name)[:, :READ]
                                                           for f in fields(alignment)[1:]))  # fmt: skip
    lanes = {"edit": Lane(latents(1), engine.encode_prompt([TARGET], ["grey"]), 4.0),
             "source": Lane(latents(2), engine.encode_prompt([SOURCE], ["grey"]), 4.0)}  # fmt: skip
    crossed = engine.family.cross_layers(engine.network)
    injections = [Injection(picture_sites(engine.family.self_layers(engine.network), "qk")),
                  Injection(tuple(layer.name for layer in crossed))]  # fmt: skip
    shorter = {name: replace(lane, prompt=cut(lane.prompt)) for name, lane in lanes.items()}
    with torch.no_grad():
        plain = Controller().predict(STEP, lanes, engine.denoiser)["edit"]
        got = MapInjector({}, injections, alignment, 1.0, crossed).predict(STEP, lanes, engine.denoiser)["edit"]
        expected = MapInjector({}, injections, short, 1.0, crossed).predict(STEP, shorter, engine.denoiser)["edit"]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert (got - plain).abs().max() > 1e-3
