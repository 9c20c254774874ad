"""Attention methods on FLUX's layers, whose text comes first and whose positions are rotated in: written out."""

from functools import partial
from typing import Any

import pytest
import torch
from attention_oracle import STEP, Explicit, check, copied, softmax, values_of, weights_of, written_out
from torch import Tensor

from freectl.denoising.attention_layers import picture_sites
from freectl.denoising.attention_maps import word_maps
from freectl.denoising.injection import Injection, SourceInjector, row_pairs, row_places
from freectl.denoising.inversion import Trajectory
from freectl.denoising.sampler import Controller, Lane, row_keys
from freectl.denoising.taps import tap
from freectl.methods.masactrl.mask import MaskedInjector, same_class
from freectl.methods.p2p.align import align
from freectl.methods.p2p.maps import MapInjector
from freectl.models.engine import Engine
from freectl.semantics.analysis import passing_at

LATENT, TOKENS = (8, 12), 24
SOURCE, TARGET = "a dog on grass", "a red dog on grass"


class Packed(Explicit):
    """A processor of FLUX.1's two kinds of block; copies are of places that are the same in all rows."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        found = {x: getattr(attn, f"to_{x}")(hidden_states).unflatten(-1, (attn.heads, -1)) for x in "qkv"}
        found |= {x: getattr(attn, f"norm_{x}")(found[x]) for x in "qk"}
        if encoder_hidden_states is not None:
            for x in "qkv":
                text = getattr(attn, f"add_{x}_proj")(encoder_hidden_states).unflatten(-1, (attn.heads, -1))
                text = text if x == "v" else getattr(attn, f"norm_added_{x}")(text)
                found[x] = torch.cat([text, found[x]], 1)
        found |= {x: turned(found[x], *image_rotary_emb) for x in "qk"}
        rows = {x: value.transpose(1, 2).double() for x, value in found.items()}
        text, own = ({x: value[:, :, part] for x, value in rows.items()}
                     for part in (slice(None, -TOKENS), slice(-TOKENS, None)))  # fmt: skip
        read = self.hidden(self.name, own, text).transpose(1, 2).flatten(2).to(hidden_states.dtype)
        keys = torch.cat([own["k"], text["k"]], 2)
        told = softmax(text["q"] @ keys.transpose(-1, -2) / keys.shape[-1] ** 0.5) @ values_of(own, text)
        told = told.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        if encoder_hidden_states is None:
            return torch.cat([told, read], 1)
        return attn.to_out[0](read), attn.to_add_out(told)


def turned(value: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of channels of (rows, tokens, heads, channels), each turned by its angle at its token's place."""
    found = value.clone()
    a, b = value[..., 0::2], value[..., 1::2]
    c, s = cos[None, :, None, 0::2], sin[None, :, None, 0::2]
    found[..., 0::2], found[..., 1::2] = a * c - b * s, b * c + a * s
    return found


@pytest.fixture(scope="module")
def engine(toys) -> Engine:
    made = Engine(toys["flux"].ours)
    made.size = (48, 32)
    return made


def lanes_of(engine: Engine, channels: int = 4, latent: tuple[int, int] = LATENT) -> dict[str, Lane]:
    drawn = [torch.randn(1, channels, *latent, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    pairs = zip(("edit", "source"), (TARGET, SOURCE), drawn, strict=True)
    return {name: Lane(latents, engine.encode_prompt([text]), 3.5) for name, text, latents in pairs}


check_packed = partial(check, explicit=Packed)


@pytest.mark.parametrize("letters", ["qk", "kv"])
def test_copied_tokens_are_the_pictures_alone(engine, letters):
    lanes = lanes_of(engine)

    def hidden(_name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        copied(own, lanes, letters, ("uncond", "cond"))
        return weights_of(own, text) @ values_of(own, text)

    sites = picture_sites(engine.family.self_layers(engine.network), letters)
    assert len(sites) == 2 * (4 + 2)
    check_packed(engine, lanes, SourceInjector({}, [Injection(sites)]), hidden)


def test_masactrls_classes_are_written_out(engine):
    lanes, mask = lanes_of(engine), torch.zeros(4, 6)
    mask[:2, :3] = 1
    apart = same_class(mask.view(1, -1), mask.view(1, -1))[0]
    given = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    places, pairs = row_places(lanes, row_keys(lanes)), row_pairs(lanes)

    def hidden(_name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        copied(own, lanes, "kv", ("cond",))
        keys = torch.cat([own["k"], text["k"]], 2)
        scores = own["q"] @ keys.transpose(-1, -2) / keys.shape[-1] ** 0.5
        for target in pairs:
            scores[places[target]][..., :TOKENS].masked_fill_(~apart, -torch.inf)
        return softmax(scores) @ values_of(own, text)

    layers = engine.family.self_layers(engine.network)
    check_packed(engine, lanes, MaskedInjector({}, layers, 0.0, [], {}, 0.1, given), hidden)


def test_prompt_to_prompts_columns_are_written_out(engine):
    lanes = lanes_of(engine)
    (sequence,) = engine.text.sequences
    alignment = align(sequence, [SOURCE], [TARGET], "auto", "red=2")
    places = row_places(lanes, row_keys(lanes))
    edit, source = places["edit", "cond"], places["source", "cond"]

    def hidden(_name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        copied(own, lanes, "qk", ("cond",))
        weights = weights_of(own, text)
        theirs, ours = weights[source][..., TOKENS:], weights[edit][..., TOKENS:]
        shared, factors = (x[:, None, None].double() for x in (alignment.shared, alignment.factors))
        weights[edit, :, :, TOKENS:] = factors * (
            shared * (theirs @ alignment.matrix[:, None].double()) + (1 - shared) * ours
        )
        return weights @ values_of(own, text)

    crossed = engine.family.cross_layers(engine.network)
    assert len(crossed) == 4 + 2
    injections = [Injection(picture_sites(engine.family.self_layers(engine.network), "qk")),
                  Injection(tuple(layer.name for layer in crossed))]  # fmt: skip
    check_packed(engine, lanes, MapInjector({}, injections, alignment, 1.0, crossed), hidden)


def test_a_words_map_is_its_share_of_the_text(engine):
    positions, prompt = engine.token_positions(SOURCE, "dog"), engine.encode_prompt([SOURCE])
    ids = engine.pipe.tokenizer_2(SOURCE).input_ids
    assert [engine.pipe.tokenizer_2.convert_ids_to_tokens(ids[place]) for place in positions] == ["▁dog"]
    latents = torch.randn(1, 4, *LATENT, generator=torch.Generator().manual_seed(0))
    layers, found = engine.family.word_layers(engine.network), []

    def hidden(name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        weights = weights_of(own, text)
        if name in [layer.name for layer in layers]:
            shares = weights[..., TOKENS:].mean(1)
            found.append(shares[..., positions].sum(-1) / shares.sum(-1))
        return weights @ values_of(own, text)

    written_out(engine, {"source": Lane(latents, prompt)}, hidden, Packed)
    sites = [site for layer in layers for site in layer.asked]
    seen = passing_at(engine.denoiser, Trajectory(latents, {500.0: latents}), prompt, [500.0], sites)
    got = word_maps(engine.network, {site: seen[500.0, site] for site in sites}, layers, positions, LATENT)
    torch.testing.assert_close(got, torch.stack(found).mean(0).float(), rtol=1e-4, atol=1e-6)


def test_of_one_sequence_only_the_pictures_tokens_change(toys):
    """FLUX.2's single-stream blocks: queries and keys of text and picture pass one norm."""
    engine = Engine(toys["klein"].ours)
    lanes, network = lanes_of(engine, 16, (4, 6)), engine.network
    sites = [site for site in engine.family.pnp_sites(network)[1] if site.startswith("single_transformer_blocks.0.")]
    assert [site.rpartition(".")[2] for site in sites] == ["norm_q", "norm_k"]
    places = row_places(lanes, row_keys(lanes))
    edit, source = places["edit", "cond"], places["source", "cond"]
    edits = SourceInjector({}, [Injection(tuple(sites))]).edits(STEP, lanes, engine.denoiser)
    found = []
    for changes in ({}, edits):
        with torch.no_grad(), tap(network, sites, edits=changes) as seen:
            Controller().predict(STEP, lanes, engine.denoiser)
            found.append(seen.pop_all())
    for site in sites:
        before, after = (one[site] for one in found)
        assert torch.equal(after[edit][:, -TOKENS:], before[source][:, -TOKENS:])
        assert torch.equal(after[edit][:, :-TOKENS], before[edit][:, :-TOKENS])
        assert torch.equal(after[source], before[source])
