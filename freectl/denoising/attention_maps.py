"""Where a word is in a picture: attention to its tokens (arXiv 2312.07536, section 3.2; the code's threshold)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from freectl.denoising.attention_layers import AttentionLayer
from freectl.errors import InputError

THRESHOLD = 0.3
FLAT = 1e-5
"""A map whose range is below this share of its maximum says nothing of where the word is."""


@dataclass(frozen=True)
class TextSequence:
    """A stretch of encoded text that is one tokenizer's.

    Attributes:
        length: tokens of it. start: special tokens in front of the text's own; one more ends it.
        lower: whether the text is read in small letters.
    """

    tokenizer: Any
    length: int
    start: int = 1
    lower: bool = False

    def ids(self, text: str) -> list[int]:
        """Numbers of a text's tokens that are read, special ones included."""
        return self.tokenizer(self.told(text), truncation=True, max_length=self.length).input_ids

    def told(self, text: str) -> str:
        """The text as it is read."""
        return text.lower() if self.lower else text

    def positions(self, text: str | Sequence[str], words: str, option: str = "--concept") -> list[int]:
        """As `token_positions`, of what lies in it."""
        pieces = [self.told(piece) for piece in ([text] if isinstance(text, str) else text)]
        found = token_positions(self.tokenizer, pieces, self.told(words), option, self.start)
        return [place for place in found if place < self.length]

    def word_spans(self, text: str) -> list[list[int]]:
        """Positions of each word's tokens in the encoded text, special tokens counted."""
        spans, first = [], self.start
        for word in text.split():
            last = first + len(self.ids(word)) - self.start - 1
            spans.append([position for position in range(first, last) if position < self.length - 1])
            first = last
        return spans

    def front(self, text: str) -> int:
        """Tokens of padding in front of an encoded text."""
        return 0


def token_positions(
    tokenizer: Any, prompt: str | Sequence[str], words: str, option: str = "--concept", start: int = 1
) -> list[int]:
    """Positions of all sub-tokens of all occurrences of `words` in the encoded prompt, special tokens counted.

    Args:
        prompt: the text, or its pieces where each is encoded by itself and they lie one behind the other.
        start: special tokens in front of the text's own.

    Raises:
        InputError: the words are not in the prompt; its tokens are listed.
    """
    pieces = [prompt] if isinstance(prompt, str) else list(prompt)
    each = [tokenizer(piece, truncation=True).input_ids[start:-1] for piece in pieces]
    ids = [number for own in each for number in own]
    places = [i * tokenizer.model_max_length + k for i, own in enumerate(each) for k in range(start, len(own) + start)]
    wanted = tokenizer(words).input_ids[start:-1]
    found = [
        places[position + offset]
        for position in range(len(ids) - len(wanted) + 1)
        if wanted and ids[position : position + len(wanted)] == wanted
        for offset in range(len(wanted))
    ]
    if not found:
        tokens = ", ".join(tokenizer.convert_ids_to_tokens(ids)) or "(none)"
        raise InputError(option, f"'{words}', which is not in '{' '.join(pieces)}'", f"words of its tokens: {tokens}")
    return found


def word_mask(
    maps: Tensor,
    *,
    threshold: float = THRESHOLD,
    scale: Literal["minmax", "max"] = "minmax",
    grow: int = 1,
    size: tuple[int, int] | None = None,
    smooth: bool = False,
) -> Tensor:
    """Where attention maps are high: the mask of every method that has one.

    Args:
        maps: (B, h, w), or (B, tokens) where neither `grow` nor `size` is given; none negative.
        threshold: share of the scaled map above which a place counts.
        scale: "minmax" scales each map to [0, 1] (FreeControl, MasaCtrl); "max" divides by its maximum
            (Prompt-to-Prompt).
        grow: side of the max-pooling window that the maps go through first, odd; 1 = none.
        size: (height, width) that they are then brought to, before they are scaled.
        smooth: interpolate when bringing them to `size`, instead of repeating the nearest.

    Returns:
        0 and 1, (B, *size) or the maps' own shape. A flat map under "minmax" chooses nothing.
    """
    if grow > 1:
        maps = max_pool2d(maps[:, None], grow, stride=1, padding=grow // 2)[:, 0]
    if size is not None:
        mode = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest"}
        maps = interpolate(maps[:, None], size=size, **mode)[:, 0]
    flat = maps.flatten(1)
    shape = (-1, *[1] * (maps.dim() - 1))
    high = flat.amax(-1).view(shape)
    low = flat.amin(-1).view(shape) if scale == "minmax" else torch.zeros_like(high)
    return (maps - low > threshold * (high - low)).to(maps) * (high > low)


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of a feature grid of `tokens`, for latents of `size` (height, width) halved some times.

    Raises:
        ValueError: no number of halvings gives that many tokens.
    """
    height, width = size
    while height * width > tokens:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != tokens:
        raise ValueError(f"no halving of {size} has {tokens} tokens")
    return height, width


class WordMaps:
    """Running means of attention maps over layers and steps, by name: the recorder of all masks that need one."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, maps: Tensor) -> None:
        """Add one layer's maps (B, tokens) at one step, as `AttentionLayer.word_map` gives them."""
        total = self._sums.get(name)
        self._sums[name] = maps if total is None else total + maps
        self._counts[name] = self._counts.get(name, 0) + 1

    def mean(self, name: str, size: tuple[int, int]) -> Tensor:
        """Mean so far as (B, rows, columns), for latents of `size` (height, width).

        Raises:
            KeyError: nothing was added under that name.
        """
        maps = self._sums[name] / self._counts[name]
        return maps.view(maps.shape[0], *token_grid(maps.shape[1], size))

    def __contains__(self, name: str) -> bool:
        return name in self._sums


def running_masks(maps: Mapping[float, Tensor], threshold: float = THRESHOLD) -> dict[float, Tensor]:
    """Binary masks (B, tokens) by timestep: mean of the maps of all noisier timesteps, min-max scaled, thresholded.

    Raises:
        InputError: a map is flat, so that it says nothing of where the word is.
    """
    total, masks = None, {}
    for count, timestep in enumerate(sorted(maps, reverse=True), start=1):
        total = maps[timestep] if total is None else total + maps[timestep]
        mean = total / count
        low, high = mean.amin(-1, keepdim=True), mean.amax(-1, keepdim=True)
        # asked this way round, NaN counts as flat; differences of rounding do not select a place
        if not bool((high - low > FLAT * high).all()):
            allowed = "a concept that the picture shows, another --source-prompt, a picture as --mask, or --mask none"
            raise InputError("--mask", f"attention, whose map is flat at timestep {timestep}", allowed)
        masks[timestep] = word_mask(mean, threshold=threshold)
    return masks


def word_maps(
    network: nn.Module,
    captured: Mapping[str, Tensor],
    layers: Sequence[AttentionLayer],
    positions: Sequence[int],
    size: tuple[int, int],
) -> Tensor:
    """Mean over layers of `layer_map`, (B, tokens).

    Args:
        captured: at the layers' `asked` sites. positions: of the words. size: the latents' (h, w).
    """
    return torch.stack([layer_map(one, network, captured, slice(None), positions, size) for one in layers]).mean(0)


def layer_map(
    layer: AttentionLayer,
    network: nn.Module,
    seen: Mapping[str, Tensor],
    rows: slice,
    positions: Sequence[int],
    size: tuple[int, int],
) -> Tensor:
    """`AttentionLayer.word_map`, (B, tokens), `turned` where the layer's family asks for it."""
    maps = layer.word_map(network, seen, rows, positions, size)
    return turned(maps, token_grid(maps.shape[1], size)) if layer.framed else maps


def turned(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps (B, tokens) whose border is higher than their inside, turned over within their range; others as they are.

    For a world in which things never fill the border. A network that learnt words from pictures of one thing each may
    as well look at a word where the thing is not: attention to the other words tells the same.
    """
    inside = torch.zeros(grid, dtype=torch.bool, device=maps.device)
    inside[1:-1, 1:-1] = True
    over = maps[:, ~inside.flatten()].mean(1, keepdim=True) > maps[:, inside.flatten()].mean(1, keepdim=True)
    return torch.where(over, maps.amax(1, keepdim=True) + maps.amin(1, keepdim=True) - maps, maps)


def nearest_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of a feature grid of `tokens` for pictures of `size` (width, height).

    The grid's sides are the model's roundings of the picture's: of all factorings, the one nearest in aspect.
    """
    rows = min(
        (r for r in range(1, tokens + 1) if tokens % r == 0),
        key=lambda r: abs(math.log(tokens / r / r * size[1] / size[0])),
    )
    return rows, tokens // rows


def picture_mask(picture: Image.Image, tokens: int, size: tuple[int, int]) -> Tensor:
    """A mask picture on the feature grid, (1, tokens) of 0 and 1: tokens that are more than half white.

    Args:
        size: working (width, height), whose aspect the grid has.

    Raises:
        InputError: no token is.
    """
    rows, columns = nearest_grid(tokens, size)
    small = picture.convert("L").resize((columns, rows), Image.Resampling.BOX)
    mask = torch.tensor(list(small.tobytes()), dtype=torch.float32)[None] / 255
    if not (mask > 0.5).any():
        raise InputError("--mask", "no token of the model's feature grid more than half white", "a larger area")
    return (mask > 0.5).float()
