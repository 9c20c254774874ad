"""Joint attention written out in float64, with what a method makes of the picture's rows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from freectl.denoising.injection import row_pairs, row_places
from freectl.denoising.sampler import Controller, Lane, Step, row_keys
from freectl.models.engine import Engine

STEP = Step(0, 1, 500.0)


Hidden = Callable[[str, dict[str, Tensor], dict[str, Tensor]], Tensor]


def softmax(scores: Tensor) -> Tensor:
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def weights_of(picture: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
    """The picture's attention to itself and, behind that, to the text: (B, heads, tokens, all tokens)."""
    return softmax(scores_of(picture, text))


def scores_of(picture: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
    """Before the softmax, with what a mask adds."""
    keys = torch.cat([picture["k"], text["k"]], 2) if text else picture["k"]
    return picture["q"] @ keys.transpose(-1, -2) / picture["q"].shape[-1] ** 0.5 + text.get("mask", 0)


def values_of(picture: dict[str, Tensor], text: dict[str, Tensor]) -> Tensor:
    return torch.cat([picture["v"], text["v"]], 2) if text else picture["v"]


class Explicit:
    """A processor in float64: projections, one softmax, and what a method makes of the picture's rows.

    Args:
        hidden: (layer, picture's tokens, text's tokens, each (B, heads, tokens, channels) by letter) -> what the
            picture's tokens have read, the tokens changed in place where the text reads others too.
    """

    def __init__(self, name: str, hidden: Hidden) -> None:
        self.name, self.hidden = name, hidden

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Any:
        own = {x: self.tokens(attn, f"to_{x}", f"norm_{x}", hidden_states) for x in "qkv"}
        text = {}
        if encoder_hidden_states is not None:
            text = {x: self.tokens(attn, f"add_{x}_proj", f"norm_added_{x}", encoder_hidden_states) for x in "qkv"}
        read = self.hidden(self.name, own, text).transpose(1, 2).flatten(2).to(hidden_states.dtype)
        if not text:
            return attn.to_out[0](read)
        both = softmax(text["q"] @ torch.cat([own["k"], text["k"]], 2).transpose(-1, -2) / own["q"].shape[-1] ** 0.5)
        told = (both @ values_of(own, text)).transpose(1, 2).flatten(2).to(hidden_states.dtype)
        return attn.to_out[0](read), told if attn.context_pre_only else attn.to_add_out(told)

    def tokens(self, attn: Any, project: str, norm: str, states: Tensor) -> Tensor:
        value = getattr(attn, project)(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        normed = getattr(attn, norm, None)
        return (value if normed is None else normed(value)).double()


def written_out(engine: Engine, lanes: dict[str, Lane], hidden: Hidden, explicit: Any = None) -> dict[str, Tensor]:
    """Guided outputs of all lanes in one step, attention written out."""
    network = engine.network
    before = {name: network.get_submodule(name).processor for name in names_of(engine)}
    try:
        for name in before:
            network.get_submodule(name).processor = (explicit or Explicit)(name, hidden)
        with torch.no_grad():
            return Controller().predict(STEP, lanes, engine.denoiser)
    finally:
        for name, processor in before.items():
            network.get_submodule(name).processor = processor


def names_of(engine: Engine) -> list[str]:
    return [layer.name for layer in engine.family.self_layers(engine.network)]


def check(engine: Engine, lanes: dict[str, Lane], controller: Controller, hidden: Hidden, explicit: Any = None) -> None:
    """The controller's step is the one written out, differs from a plain one, and leaves other lanes alone."""
    with torch.no_grad():
        untouched = Controller().predict(STEP, lanes, engine.denoiser)
        got = controller.predict(STEP, lanes, engine.denoiser)
    expected = written_out(engine, lanes, hidden, explicit)
    for name in lanes:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=2e-5)
    torch.testing.assert_close(got["source"], untouched["source"], rtol=0, atol=1e-6)
    assert not torch.allclose(got["edit"], untouched["edit"], atol=1e-3)
    assert not any(module._forward_hooks for module in engine.network.modules())


def copied(own: dict[str, Tensor], lanes: dict[str, Lane], letters: str, halves: tuple[str, ...]) -> None:
    places, pairs = row_places(lanes, row_keys(lanes)), row_pairs(lanes)
    for (lane, half), source in pairs.items():
        for letter in letters:
            if half in halves:
                own[letter][places[lane, half]] = own[letter][places[source]].clone()
