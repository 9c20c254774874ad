"""Attention of a picture to itself and to text, against loops over single tokens, wherever the tokens pass."""

import math

import pytest
import torch
from torch import Tensor, nn

from freectl.denoising.attention_layers import TEXT, WHOLE, AttentionLayer, Part, picture_sites
from freectl.denoising.injection import copies, copy_rows

HEADS, WIDTH, SIZE = 2, 6, (4, 4)
PICTURE, WORDS = 4, 3  # tokens of 2 x 2 cells


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TOKENS = {
    whose: {letter: draw(2, count, WIDTH, seed=10 * count + i) for i, letter in enumerate("qkv")}
    for whose, count in (("picture", PICTURE), ("text", WORDS))
}


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)


def passing(kind: str) -> tuple[AttentionLayer, dict[str, Tensor]]:
    """A layer of a kind, and the same tokens as they pass it: in streams of their own, or in one sequence."""
    if kind == "streams":  # Stable Diffusion 3's: heads are the second axis
        seen = {f"{whose}.norm_{x}": v.unflatten(-1, (HEADS, -1)).transpose(1, 2) for whose in TOKENS
                for x, v in TOKENS[whose].items()}  # fmt: skip
        picture = {x: f"picture.norm_{x}" for x in "qkv"}
        return AttentionLayer("a", HEADS, picture, {x: f"text.norm_{x}" for x in "kv"}, "a.out", "a.out"), seen
    first, filled = kind == "picture first", torch.full((2, 2, WIDTH), 9.0, dtype=torch.float64)
    seen = {}
    for x in "qkv":
        picture, text = TOKENS["picture"][x], TOKENS["text"][x]
        seen[f"to_{x}"] = torch.cat([picture, filled, text] if first else [text, picture], 1)
    for x in "qk":  # FLUX's: heads are the third axis
        seen[f"norm_{x}"] = seen.pop(f"to_{x}").unflatten(-1, (HEADS, -1))
    sites = {"q": "norm_q", "k": "norm_k", "v": "to_v"}
    both = {x: sites[x] for x in "kv"}
    return AttentionLayer("a", HEADS, sites, both, "a.out", "a.out", axis=1, picture_first=first,
                          multiple=6 if first else 1, patch=2), seen  # fmt: skip


def looped(row: int, given: int, place: int, head: int, allowed: list[bool]) -> tuple[list[float], Tensor]:
    """Weights of one place of a row on the given row's picture and its own text, and what it reads."""
    part = slice(3 * head, 3 * head + 3)
    keys = [TOKENS["picture"]["k"][given, j, part] for j in range(PICTURE)]
    keys += [TOKENS["text"]["k"][row, j, part] for j in range(WORDS)]
    values = [TOKENS["picture"]["v"][given, j, part] for j in range(PICTURE)]
    values += [TOKENS["text"]["v"][row, j, part] for j in range(WORDS)]
    q = TOKENS["picture"]["q"][row, place, part]
    exps = [math.exp(float(q @ k) / math.sqrt(3)) * ok for k, ok in zip(keys, allowed, strict=True)]
    weights = [e / sum(exps) for e in exps]
    return weights, sum(w * v for w, v in zip(weights, values, strict=True))


@pytest.mark.parametrize("whole", [True, False], ids=["all", "padded"])
@pytest.mark.parametrize("kind", ["streams", "picture first", "text first"])
def test_a_layer_equals_loops(kind, whole):
    layer, seen = passing(kind)
    network, row = nn.ModuleDict({"a": Layer()}), slice(1, 2)
    counts = [True, True, whole]
    seen |= {TEXT: torch.tensor([[True] * WORDS, counts])} if not whole else {}
    counts = [True] * PICTURE + counts
    with torch.no_grad():
        weights = layer.weights(network, seen, row, SIZE)
        shares = layer.word_map(network, seen, row, [0, 2], SIZE)
        allowed = torch.tensor([[[True, False, True, True]] * PICTURE])
        read = layer.read(network, seen, row, slice(0, 1), SIZE, allowed)
        change = draw(1, HEADS, PICTURE, WORDS, seed=3)
        added = layer.added(network, change, seen, row, SIZE)
        matrix, bias = network["a"].out.weight, network["a"].out.bias
        for place in range(PICTURE):
            each = [looped(1, 1, place, head, counts) for head in range(HEADS)]
            for head, (expected, _) in enumerate(each):
                torch.testing.assert_close(weights[0, head, place], torch.tensor(expected[PICTURE:]).double())
            text = [sum(one[PICTURE + j] for one, _ in each) for j in range(WORDS)]
            assert float(shares[0, place]) == pytest.approx((text[0] + text[2]) / sum(text))
            other = torch.cat([looped(1, 0, place, h, [True, False, *counts[2:]])[1] for h in range(HEADS)])
            torch.testing.assert_close(read[0, place], matrix @ other + bias)
            moved = torch.cat([sum(change[0, h, place, j] * TOKENS["text"]["v"][1, j, 3 * h : 3 * h + 3]
                                   for j in range(WORDS)) for h in range(HEADS)])  # fmt: skip
            torch.testing.assert_close(added[0, place], matrix @ moved)


@pytest.mark.parametrize("kind", ["streams", "picture first", "text first"])
def test_the_pictures_tokens_alone_are_copied(kind):
    layer, seen = passing(kind)
    places, pairs = {("s", "cond"): slice(0, 1), ("e", "cond"): slice(1, 2)}, {("e", "cond"): ("s", "cond")}
    for letter, site in layer.picture.items():
        part = layer.part(letter, SIZE)
        got = copies([site], places, pairs, {site: part})[site](seen[site])
        assert part.tokens(seen[site]) == PICTURE
        assert torch.equal(part.of(got)[1], part.of(seen[site])[0])
        assert torch.equal(got[0], seen[site][0])
        assert int((got[1] != seen[site][1]).sum()) == PICTURE * WIDTH  # and nothing of the text
    assert picture_sites([layer], "qk") == (layer.picture["q"], layer.picture["k"])


def test_positions_are_rotated_in_and_channels_cut_out():
    """Queries, keys and values side by side in one site, and turned by a quarter in the plane of two channels."""
    tokens = TOKENS["picture"]
    seen = {"qkv": torch.cat([tokens[x] for x in "qkv"], -1), "k": TOKENS["text"]["k"], "v": TOKENS["text"]["v"]}

    def rotate(value: Tensor, whose: str, size: tuple[int, int]) -> Tensor:
        assert size == SIZE
        return value.flip(-1) if whose == "picture" else value

    channels = {letter: slice(WIDTH * i, WIDTH * i + WIDTH) for i, letter in enumerate("qkv")}
    layer = AttentionLayer("a", HEADS, dict.fromkeys("qkv", "qkv"), {"k": "k", "v": "v"}, channels=channels,
                           rotate=rotate)  # fmt: skip
    got = layer.weights(nn.ModuleDict({"a": Layer()}), seen, slice(0, 1), SIZE)
    for head in range(HEADS):
        q, k = (tokens[x][0, :, 3 * head : 3 * head + 3].flip(-1) for x in "qk")
        keys = torch.cat([k, TOKENS["text"]["k"][0, :, 3 * head : 3 * head + 3]])
        expected = torch.stack([torch.exp(q @ one / math.sqrt(3)) for one in keys], 1)
        expected = expected / expected.sum(1, keepdim=True)
        torch.testing.assert_close(got[0, head], expected[:, PICTURE:])


def test_all_of_a_value_is_the_default_part():
    value = draw(2, 5, 3)
    assert torch.equal(WHOLE.of(value), value)
    assert Part(2, -2).tokens(value) == 2
    copied = copy_rows(value, {("a", "cond"): slice(0, 1), ("b", "cond"): slice(1, 2)}, {("a", "cond"): ("b", "cond")})
    assert torch.equal(copied[0], value[1])
