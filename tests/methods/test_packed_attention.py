"""Attention methods where positions are rotated in, text comes first and may be masked: written out."""

from functools import partial
from typing import Any

import pytest
import torch
from attention_oracle import STEP, Explicit, check, copied, scores_of, softmax, values_of, weights_of, written_out
from dit_toys import TOYS
from torch import Tensor

from freectl.denoising.attention_layers import TEXT, picture_sites
from freectl.denoising.attention_maps import word_maps
from freectl.denoising.injection import Injection, SourceInjector, row_pairs, row_places, text_of
from freectl.denoising.inversion import Trajectory
from freectl.denoising.sampler import Controller, Lane, row_keys
from freectl.denoising.taps import tap
from freectl.methods.ctrlx import CtrlXController, CtrlXSettings
from freectl.methods.masactrl.mask import MaskedInjector, same_class
from freectl.methods.p2p.align import align
from freectl.methods.p2p.maps import MapInjector
from freectl.models.engine import Engine
from freectl.semantics.analysis import passing_at

TOKENS = 24
LATENTS = {"flux": (4, 8, 12), "chroma": (4, 8, 12), "klein": (16, 4, 6), "qwen-image": (4, 8, 12)}
SOURCE, TARGET = "a dog", "a red dog"


class Packed(Explicit):
    """A processor of FLUX's kinds of block, Chroma's and Qwen-Image's; copies are of the same places in all rows."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
        encoder_hidden_states_mask: Tensor | None = None,
    ) -> Any:
        fused = hasattr(attn, "to_qkv_mlp_proj")
        if fused:  # called by place: the block, its tokens, a mask, positions
            image_rotary_emb, attention_mask = attention_mask, None
            *found, beside = attn.to_qkv_mlp_proj(hidden_states).tensor_split(
                [attn.inner_dim * i for i in (1, 2, 3)], -1
            )
            found = dict(zip("qkv", found, strict=True))
        else:
            found = {x: getattr(attn, f"to_{x}")(hidden_states) for x in "qkv"}
        found = {x: value.unflatten(-1, (attn.heads, -1)) for x, value in found.items()}
        found |= {x: getattr(attn, f"norm_{x}")(found[x]) for x in "qk"}
        if encoder_hidden_states is not None:
            for x in "qkv":
                text = getattr(attn, f"add_{x}_proj")(encoder_hidden_states).unflatten(-1, (attn.heads, -1))
                text = text if x == "v" else getattr(attn, f"norm_added_{x}")(text)
                found[x] = torch.cat([text, found[x]], 1)
        found |= {x: turned(found[x], *image_rotary_emb) for x in "qk"}
        mask = added(found["q"], attention_mask, encoder_hidden_states_mask)
        rows = {x: value.transpose(1, 2).double() for x, value in found.items()}
        text, own = ({x: value[:, :, part] for x, value in rows.items()}
                     for part in (slice(None, -TOKENS), slice(-TOKENS, None)))  # fmt: skip
        split = mask.shape[-1] - TOKENS
        text["mask"] = mask[:, :, split:].roll(TOKENS, -1)  # the picture's columns in front
        read = self.hidden(self.name, own, text).transpose(1, 2).flatten(2).to(hidden_states.dtype)
        keys = torch.cat([own["k"], text["k"]], 2)
        scores = text["q"] @ keys.transpose(-1, -2) / keys.shape[-1] ** 0.5 + mask[:, :, :split].roll(TOKENS, -1)
        told = softmax(scores) @ values_of(own, text)
        told = told.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        if fused:
            return attn.to_out(torch.cat([torch.cat([told, read], 1), attn.mlp_act_fn(beside)], -1))
        if encoder_hidden_states is None:
            return torch.cat([told, read], 1)
        return attn.to_out[0](read), attn.to_add_out(told)


def added(like: Tensor, attention_mask: Tensor | None, of_text: Tensor | None) -> Tensor:
    """What masks add to the scores of all tokens, (rows, 1, asking, asked), text first."""
    mask = torch.zeros(len(like), 1, like.shape[1], like.shape[1], dtype=torch.float64)
    if attention_mask is not None:
        mask += attention_mask
    if of_text is not None:
        mask[..., : of_text.shape[1]].masked_fill_(~of_text.bool()[:, None, None], -torch.inf)
    return mask


def turned(value: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of channels of (rows, tokens, heads, channels), each turned by its angle at its token's place.

    Of Qwen-Image turns of the picture and of the text are given instead, as complex numbers.
    """
    if cos.is_complex():
        turns = torch.cat([sin, cos])[None, :, None]
        return torch.view_as_real(torch.view_as_complex(value.unflatten(-1, (-1, 2)).contiguous()) * turns).flatten(-2)
    found = value.clone()
    a, b = value[..., 0::2], value[..., 1::2]
    c, s = cos[None, :, None, 0::2], sin[None, :, None, 0::2]
    found[..., 0::2], found[..., 1::2] = a * c - b * s, b * c + a * s
    return found


@pytest.fixture(scope="module", params=LATENTS)
def engine(request, toys, tmp_path_factory) -> Engine:
    name = request.param
    made = Engine(toys[name].ours if name in toys else TOYS[name].wrap(TOYS[name].build(tmp_path_factory.mktemp(name))))
    made.size = (48, 32)
    return made


def lanes_of(engine: Engine) -> dict[str, Lane]:
    shape = LATENTS[engine.family.name]
    drawn = [torch.randn(1, *shape, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    pairs = zip(("edit", "source"), (TARGET, SOURCE), drawn, strict=True)
    return {name: Lane(latents, engine.encode_prompt([text]), 3.5) for name, text, latents in pairs}


BLOCKS = {"flux": 4 + 2, "chroma": 4 + 2, "klein": 5 + 2, "qwen-image": 3}
check_packed = partial(check, explicit=Packed)


@pytest.mark.parametrize("letters", ["qk", "kv"])
def test_copied_tokens_are_the_pictures_alone(engine, letters):
    lanes = lanes_of(engine)

    def hidden(_name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        copied(own, lanes, letters, ("uncond", "cond"))
        return weights_of(own, text) @ values_of(own, text)

    sites = picture_sites(engine.family.self_layers(engine.network), letters)
    assert len(sites) == 2 * BLOCKS[engine.family.name]
    check_packed(engine, lanes, SourceInjector({}, [Injection(sites)]), hidden)


def test_masactrls_classes_are_written_out(engine):
    lanes, mask = lanes_of(engine), torch.zeros(4, 6)
    mask[:2, :3] = 1
    apart = same_class(mask.view(1, -1), mask.view(1, -1))[0]
    patch = engine.family.patch(engine.network)
    given = mask.repeat_interleave(patch, 0).repeat_interleave(patch, 1)[None]
    places, pairs = row_places(lanes, row_keys(lanes)), row_pairs(lanes)

    def hidden(_name: str, own: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
        copied(own, lanes, "kv", ("cond",))
        scores = scores_of(own, text)
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
        tokens = ours.shape[-1]
        shared, factors = (x[:, None, None, :tokens].double() for x in (alignment.shared, alignment.factors))
        matrix = alignment.matrix[:, :tokens, :tokens]
        weights[edit, :, :, TOKENS:] = factors * (shared * (theirs @ matrix[:, None].double()) + (1 - shared) * ours)
        return weights @ values_of(own, text)

    crossed = engine.family.cross_layers(engine.network)
    assert len(crossed) == BLOCKS[engine.family.name]
    injections = [Injection(picture_sites(engine.family.self_layers(engine.network), "qk")),
                  Injection(tuple(layer.name for layer in crossed))]  # fmt: skip
    check_packed(engine, lanes, MapInjector({}, injections, alignment, 1.0, crossed), hidden)


def test_a_words_map_is_its_share_of_the_text(engine):
    positions, prompt = engine.token_positions(SOURCE, "dog"), engine.encode_prompt([SOURCE])
    (sequence,) = engine.text.sequences
    ids = sequence.ids(SOURCE)
    told = sequence.tokenizer.convert_ids_to_tokens([ids[place] for place in positions])
    assert "".join(told).lstrip("▁Ġ") == "dog"
    latents = lanes_of(engine)["source"].latents
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
    captured, masked = {site: seen[500.0, site] for site in sites}, text_of([(prompt, "cond")])
    captured |= {} if masked is None else {TEXT: masked}
    got = word_maps(engine.network, captured, layers, positions, tuple(latents.shape[-2:]))
    torch.testing.assert_close(got, torch.stack(found).mean(0).float(), rtol=1e-4, atol=1e-6)


def test_what_the_structure_and_the_appearance_give_ctrlx(engine):
    """Copies of an equal row change nothing, those of another and its statistics do."""
    given, path = lanes_of(engine), engine.path(2)
    network, sites = engine.network, engine.family.ctrlx_sites(engine.network)
    settings = CtrlXSettings(structure_stop=1.0, appearance_stop=1.0)
    controller = CtrlXController(path, sites, settings, {})

    def step(**others: Lane) -> Tensor:
        with torch.no_grad():
            return controller.predict(STEP, {"edit": given["edit"], **others}, engine.denoiser)["edit"]

    free = step()
    torch.testing.assert_close(step(structure=given["edit"]), free, rtol=0, atol=1e-5)
    for name in ("structure", "appearance"):
        assert (step(**{name: given["source"]}) - free).abs().max() > 1e-3
    entry = next(iter(sites.transferred.values()))
    with torch.no_grad(), tap(network, [entry]) as seen:
        Controller().predict(STEP, given, engine.denoiser)
        assert seen.pop_all()[entry].shape[1] == TOKENS  # the picture's alone
