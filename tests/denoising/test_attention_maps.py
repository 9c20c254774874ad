"""Word masks: token positions, attention maps against a naive loop, running means."""

import math

import pytest
import torch
from PIL import Image
from torch import nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.denoising.attention_maps import picture_mask, running_masks, token_positions
from freectl.errors import InputError


class Heads(nn.Module):
    heads = 2
    scale = 1 / math.sqrt(3)


def test_attention_maps_equal_a_naive_loop() -> None:
    torch.manual_seed(0)
    queries, keys, positions = torch.randn(2, 5, 6), torch.randn(2, 4, 6), [1, 3]
    layer, network = AttentionLayer("cross", 2, {"q": "q"}, {"k": "k"}), nn.ModuleDict({"cross": Heads()})
    got = layer.word_map(network, {"q": queries, "k": keys}, slice(None), positions, (1, 5))
    for b in range(2):
        for token in range(5):
            total = 0.0
            for head in range(2):
                part = slice(3 * head, 3 * head + 3)
                scores = [math.exp(float(queries[b, token, part] @ keys[b, j, part]) / math.sqrt(3)) for j in range(4)]
                total += sum(scores[p] for p in positions) / sum(scores)
            assert float(got[b, token]) == pytest.approx(total / 2, rel=1e-5)


def test_running_masks_average_from_the_noisy_end() -> None:
    maps = {900: torch.tensor([[0.0, 1.0, 0.2]]), 500: torch.tensor([[1.0, 1.0, 0.0]])}
    masks = running_masks(maps, threshold=0.3)
    assert masks[900].tolist() == [[0, 1, 0]]
    assert masks[500].tolist() == [[1, 1, 0]]  # means 0.5, 1, 0.1 -> scaled 0.44, 1, 0


def test_a_flat_map_is_an_error_that_says_what_to_try() -> None:
    with pytest.raises(InputError, match="--source-prompt"):
        running_masks({1: torch.full((1, 4), 0.25)})


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_maps_without_a_meaning_are_flat_too(value) -> None:
    with pytest.raises(InputError, match="flat at timestep 7"):
        running_masks({7: torch.tensor([[value, value, value]])})
    with pytest.raises(InputError, match="flat"):
        running_masks({7: torch.tensor([[0.25, 0.25 + 1e-7, 0.25]])})


@pytest.mark.parametrize(
    ("size", "tokens", "grid"),
    [((512, 512), 256, (16, 16)), ((40, 24), 15, (5, 3)), ((72, 56), 20, (5, 4)), ((8, 264), 9, (1, 9))],
)
def test_a_mask_picture_lies_on_the_feature_grid(size, tokens, grid) -> None:
    """Two thirds are white, from the left; grids of odd sizes are the model's rounded halves."""
    picture = Image.new("L", size)
    picture.paste(255, (0, 0, max(1, size[0] * 2 // 3), size[1]))
    mask = picture_mask(picture, tokens, size)
    assert mask.shape == (1, tokens)
    rows = mask.view(grid[1], grid[0])
    assert bool((rows == rows[0]).all())
    expected = torch.tensor([1.0 if (i + 0.5) / grid[0] < 2 / 3 else 0.0 for i in range(grid[0])])
    assert abs(int(rows[0].sum() - expected.sum())) <= 1


def test_a_mask_picture_without_white_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="half white"):
        picture_mask(Image.new("L", (32, 32), 100), 16, (32, 32))


def test_token_positions_count_all_sub_tokens_and_occurrences(toy_pipe) -> None:
    tokenizer = toy_pipe.tokenizer
    ids = tokenizer("a cat and a cat").input_ids
    word = tokenizer("cat").input_ids[1:-1]
    positions = token_positions(tokenizer, "a cat and a cat", "cat")
    assert len(positions) == 2 * len(word)
    assert [ids[p] for p in positions] == word * 2


def test_a_missing_word_lists_the_tokens(toy_pipe) -> None:
    with pytest.raises(InputError, match="dog.*not in"):
        token_positions(toy_pipe.tokenizer, "a cat", "dog")
