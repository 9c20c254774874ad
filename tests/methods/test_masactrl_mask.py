"""MasaCtrl with masks: against two softmaxes and a blend, and its limiting cases."""

from functools import partial
from typing import Any

import pytest
import torch
from method_kit import check_unet_restored, picture, wrap
from PIL import Image
from torch import Tensor

from freectl.denoising.attention_maps import WordMaps, token_positions
from freectl.denoising.injection import row_pairs, row_places
from freectl.denoising.sampler import Controller, Lane, Step, row_keys
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.masactrl.mask import MaskedInjector, positions_of, same_class
from freectl.methods.masactrl.method import MasaCtrl, shared_layers
from freectl.models.engine import Engine

STEPS = 3
SCALE = 4.0
WORDS = {"words": "dog=cat", "start": 0.0, "layer_start": 0.0}


@pytest.fixture(params=["toy_pipe", "toy_pipe_v", "toy_xl_pipe"])
def pipe(request) -> Any:
    return wrap(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def run(pipe: Any, cache: Cache | None = None, prompt: Any = "a cat", image: Any = None, **options: Any):
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "source_prompt": "a dog"} | WORDS | options
    return pipe(prompt, image or picture(), method=MasaCtrl(), cache=cache, output_type="latent", **options)


def near(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_places_read_their_own_class():
    own, other = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    first, second = same_class(own, other)
    assert first.tolist() == [[True, False], [False, True]]
    assert second.tolist() == [[True, True], [True, True]]  # the source has no object: nothing is forbidden


class TwoSoftmaxes:
    """The paper's form: attention to the object, attention to the rest, blended by the edit's mask."""

    def __init__(self, places, pairs, masks) -> None:
        self.places, self.pairs, self.masks = places, pairs, masks

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1) @ v
        if encoder_hidden_states is None:
            own, other = (self.masks(lane, hidden_states.shape[1]) for lane in ("edit", "source"))
            for target, source in self.pairs.items():
                rows, given = self.places[target], self.places[source]
                scores = q[rows] @ k[given].transpose(-1, -2) * attn.scale
                parts = [
                    scores.masked_fill(~keys[:, None, None].bool(), -1e9).softmax(-1) @ v[given]
                    for keys in (other, 1 - other)
                ]
                m = own[:, None, :, None]
                out[rows] = m * parts[0] + (1 - m) * parts[1]
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("toy", ["toy_pipe", "toy_xl_pipe"])
def test_equals_two_softmaxes_and_a_blend(request, toy, monkeypatch):
    pipe = wrap(request.getfixturevalue(toy))
    engine = Engine(pipe)
    latents = [engine.noise((32, 32), [torch.Generator().manual_seed(i)]) for i in range(2)]
    lanes = {
        "edit": Lane(latents[0], engine.encode_prompt(["a cat"], [""]), SCALE),
        "source": Lane(latents[1], engine.encode_prompt(["a dog"], [""]), SCALE),
    }

    def masks(lane: str, tokens: int) -> Tensor:
        share = 0.3 if lane == "edit" else 0.6
        return (torch.arange(tokens) < share * tokens).float()[None]

    monkeypatch.setattr(WordMaps, "__contains__", lambda self, lane: True)
    monkeypatch.setattr(MaskedInjector, "mask", lambda self, lane, tokens, size: masks(lane, tokens))
    positions = positions_of(partial(token_positions, pipe.tokenizer), [("dog", "cat")], ["a dog"], ["a cat"])
    names = engine.family.word_layers(pipe.unet)
    layers = shared_layers(engine.family.self_layers(pipe.unet), 0.0)
    injector = MaskedInjector({501: latents[1]}, layers, 0.0, names, positions, 0.1)
    step = Step(0, STEPS, 501)
    untouched = Controller().predict(step, lanes, engine.denoiser)
    got = injector.predict(step, lanes, engine.denoiser)
    before = pipe.unet.attn_processors
    try:
        places = row_places(lanes, row_keys(lanes))
        pipe.unet.set_attn_processor(TwoSoftmaxes(places, row_pairs(lanes), masks))
        expected = Controller().predict(step, lanes, engine.denoiser)
    finally:
        pipe.unet.set_attn_processor(before)
    for name in lanes:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-5)
    assert torch.equal(got["source"], untouched["source"])
    assert not torch.allclose(got["edit"], untouched["edit"], atol=1e-4)


def test_masks_of_nothing_are_no_masks(pipe, cache):
    """At threshold 1 no place is the object's."""
    engine = Engine(pipe, cache=cache)
    engine.invert(picture(), "a dog", engine.path(STEPS))
    masked, plain = run(pipe, cache, threshold=1.0), run(pipe, cache, words="")
    near(masked.images, plain.images)
    assert masked.cost["row_forwards"] == plain.cost["row_forwards"]
    assert not torch.allclose(run(pipe, cache, threshold=0.5).images, plain.images, atol=1e-5)


def test_batch_equals_singles(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    both = run(pipe, cache, ["a cat", "a red cat"], [picture(), picture(1)]).images
    for i, text in enumerate(("a cat", "a red cat")):
        near(both[i : i + 1], run(pipe, cache, text, picture(i)).images)


@pytest.mark.parametrize(("words", "match"), [("pig=cat", "pig"), ("dog=pig", "pig")])
def test_words_that_are_not_there_are_named(toy_pipe, words, match):
    with pytest.raises(InputError, match=match):
        run(wrap(toy_pipe), words=words)


def test_unet_is_as_before_after_a_failing_callback(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    check_unet_restored(pipe, lambda fail: run(pipe, cache, callback_on_step_end=fail), step=1)


def half(value: int = 255) -> Image.Image:
    mask = Image.new("L", (32, 32), 0)
    mask.paste(value, (0, 0, 16, 32))
    return mask


def test_a_mask_picture_is_the_sources_foreground_and_the_edits(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    everything = Image.new("L", (32, 32), 255)
    near(run(pipe, cache, words="", mask=everything).images, run(pipe, cache, words="").images)
    masked = run(pipe, cache, words="", mask=half()).images
    assert not torch.equal(masked, run(pipe, cache, words="").images)
    assert not torch.equal(masked, run(pipe, cache, mask=half()).images)  # the edit's foreground from its word


def test_a_mask_picture_on_the_grids_of_the_layers():
    given = torch.zeros(1, 8, 8)
    given[:, :, :4] = 1
    injector = MaskedInjector({}, [], 0.0, [], {}, 0.1, given)
    for lane in ("source", "edit"):
        assert torch.equal(injector.mask(lane, 64, (8, 8)), given.flatten(1))
        assert injector.mask(lane, 16, (8, 8)).view(4, 4).tolist() == [[1, 1, 0, 0]] * 4


def test_attention_is_asked_for_by_words(toy_pipe, cache):
    with pytest.raises(InputError, match="words=source=target"):
        run(wrap(toy_pipe), cache, mask="attention")
