"""Where the queries, keys and values of an attention layer pass, and what the layer makes of them.

In UNets a picture's tokens attend to themselves or to the text, in transformers to both in one softmax; the same
quantities are read off all three. A model family states where things pass; methods compute with what passed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from freectl.denoising.taps import Edit

Size = tuple[int, int]
TEXT = "text"
Seen = Mapping[str, Tensor]
"""Site -> what passed it in one forward, (rows, ...). Under `TEXT`, where it is there: which of the text's tokens
count, (rows, tokens) of bool; the others are padding that is not attended to."""
Rotate = Callable[[Tensor, Literal["picture", "text"], Size], Tensor]
"""(queries or keys (rows, heads, tokens, channels), whose, latents' (h, w)) -> the same with positions in them."""
Site = str


@dataclass(frozen=True)
class Part:
    """The picture's tokens in what passes a site, (rows, ...); by default all of it is theirs.

    Attributes:
        axis: of the tokens. start, stop: of the picture's, as in a slice. channels: as in a slice of the last axis.
    """

    axis: int = 1
    start: int | None = None
    stop: int | None = None
    channels: slice | None = None

    def of(self, value: Tensor) -> Tensor:
        """A view of the picture's tokens."""
        tokens = value[(slice(None),) * self.axis + (slice(self.start, self.stop),)]
        return tokens if self.channels is None else tokens[..., self.channels]

    def tokens(self, value: Tensor) -> int:
        """How many there are."""
        return self.of(value).shape[self.axis]


WHOLE = Part()


@dataclass(frozen=True)
class AttentionLayer:
    """A layer in which a picture's tokens ask.

    Attributes:
        name: the module.
        heads: of the attention.
        picture: of "q", "k", "v" -> site where the picture's tokens pass, behind norms and before positions are rotated
            in; without "k" and "v" the picture does not attend to itself.
        text: of "k", "v" -> site of the text's tokens; empty = the picture does not attend to it. The picture's own
            sites where both pass in one sequence.
        output: site where what the picture has read passes: the layer, or the linear layer at its end.
        projection: that linear layer; "" = the layer has none.
        beside: whether it takes more channels than attention gives, behind those: of a feed-forward layer at its side.
        uncounted: what is added to scores of the text's tokens that do not count.
        axis: of the tokens where what passes has four axes: 2 in (rows, heads, tokens, channels).
        channels: of the picture's letters, where several pass one site side by side; of the text's in one sequence.
        picture_first: whether the picture comes first in one sequence.
        multiple: that the tokens of what comes first in one sequence are filled up to.
        patch: latent cells to a token's side; of use in one sequence alone.
        rotate: positions; None = they are in the tokens already.
        framed: whether what words name never fills the picture's border; see `attention_maps.turned`.
    """

    name: str
    heads: int
    picture: Mapping[str, Site]
    text: Mapping[str, Site] = field(default_factory=dict)
    output: Site = ""
    projection: str = ""
    beside: bool = False
    uncounted: float = -torch.inf
    axis: int = 2
    channels: Mapping[str, slice] = field(default_factory=dict)
    picture_first: bool = True
    multiple: int = 1
    patch: int = 1
    rotate: Rotate | None = None
    framed: bool = False

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites of queries, keys and values."""
        return tuple(dict.fromkeys([*self.picture.values(), *self.text.values()]))

    @property
    def asked(self) -> tuple[Site, ...]:
        """Those that attention is computed of: no values."""
        pairs = [*self.picture.items(), *self.text.items()]
        return tuple(dict.fromkeys(site for letter, site in pairs if letter != "v"))

    @property
    def one_sequence(self) -> bool:
        """Whether picture and text pass the same sites."""
        return bool(self.text) and self.text.get("k") == self.picture.get("k")

    def part(self, letter: str, size: Size) -> Part:
        """The picture's tokens at the site of a letter, for latents of `size` (h, w)."""
        # norms see heads by themselves, projections see them side by side
        axis = self.axis if self.picture[letter].rpartition(".")[2].startswith("norm") else 1
        return self._part(axis, self.channels.get(letter), "picture", size)

    def weights(self, network: nn.Module, seen: Seen, rows: slice, size: Size) -> Tensor:
        """Attention that the picture's tokens of some rows pay to the text: its columns of the softmax.

        Returns:
            (B, heads, picture tokens, text tokens), >= 0; rows add up to 1, or less where the picture is attended too.
        """
        q, own = (self._tokens(seen, rows, letter, "picture", size) for letter in "qk")
        text, scale = self._tokens(seen, rows, "k", "text", size), self._scale(network, q)
        bias = self._bias(seen, rows, text)
        if own is None:
            return (q @ text.transpose(-1, -2) * scale + bias[:, None]).softmax(-1)
        found, count = [], own.shape[2]
        for head in range(self.heads):  # one by one: all together are many times the result
            keys = torch.cat([own[:, head], text[:, head]], 1)
            scores = q[:, head] @ keys.transpose(-1, -2) * scale
            scores[..., count:] += bias
            found.append(scores.softmax(-1)[..., count:])
        return torch.stack(found, 1)

    def shares(self, weights: Tensor) -> Tensor:
        """`weights` over what a place's tokens pay to all of the text, mean over heads: comparable between places."""
        if "k" not in self.picture:
            return weights
        return weights / weights.sum(-1).mean(1)[:, None, :, None]

    def word_map(self, network: nn.Module, seen: Seen, rows: slice, positions: Any, size: Size) -> Tensor:
        """Share of the text's attention that each place pays to the tokens at `positions`, (B, tokens), 0 to 1.

        Args:
            positions: of the words' tokens, alike in all rows.
        """
        shares = self.shares(self.weights(network, seen, rows, size))
        return shares[..., list(positions)].sum(-1).mean(1)

    def read(
        self, network: nn.Module, seen: Seen, asking: slice, given: slice, size: Size, allowed: Tensor | None = None
    ) -> Tensor:
        """What the picture's tokens of rows `asking` read of other rows' pictures and of their own text.

        Args:
            given: rows whose keys and values are read. allowed: (B, tokens, tokens) of bool; None = everything.

        Returns:
            (B, tokens, channels), as it passes `output`, fp32 at least.
        """
        q = self._tokens(seen, asking, "q", "picture", size)
        keys, values = ([self._tokens(seen, given, letter, "picture", size)] for letter in "kv")
        if self.text:
            keys.append(self._tokens(seen, asking, "k", "text", size))
            values.append(self._tokens(seen, asking, "v", "text", size))
        k, v = torch.cat(keys, 2), torch.cat(values, 2)
        mask = None
        if allowed is not None or (self.text and TEXT in seen):
            count = values[0].shape[2]
            mask = torch.zeros((len(q), 1, q.shape[2], k.shape[2]), dtype=q.dtype, device=q.device)
            if allowed is not None:
                mask[..., :count].masked_fill_(~allowed[:, None], -torch.inf)
            if self.text:
                mask[..., count:] += self._bias(seen, asking, keys[1])[:, None]
        hidden = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self._scale(network, q))
        return self._projected(network, hidden, seen)

    def added(self, network: nn.Module, change: Tensor, seen: Seen, rows: slice, size: Size) -> Tensor:
        """What a change of `weights` adds to the output of the picture's tokens, (B, tokens, channels)."""
        hidden = change @ self._tokens(seen, rows, "v", "text", size)
        # the projection is linear up to its bias, so the change goes through it alone: what adapters add stays
        nothing = torch.zeros_like(hidden)
        return self._projected(network, hidden, seen) - self._projected(network, nothing, seen)

    def of_picture(self, output: Tensor, rows: slice, size: Size) -> Tensor:
        """A view of the picture's tokens (B, tokens, channels) of some rows in what passes `output`."""
        return self._part(1, None, "picture", size).of(output)[rows]

    def watched(self, at_output: Callable[[Seen, Tensor], Tensor], text: Tensor | None = None) -> dict[Site, Edit]:
        """Edits for `taps.tap` that see all that passes, and change the output.

        Args:
            at_output: (what passed, output) -> output. text: what passed under `TEXT`.
        """
        seen: dict[str, Tensor] = {} if text is None else {TEXT: text}
        edits: dict[str, Edit] = {site: partial(_keep, seen, site) for site in self.sites}
        return edits | {self.output: partial(at_output, seen)}

    def _tokens(self, seen: Seen, rows: slice, letter: str, whose: Literal["picture", "text"], size: Size) -> Any:
        """Tokens (B, heads, tokens, channels) of a letter, fp32 at least; None where there are none."""
        site = (self.picture if whose == "picture" else self.text).get(letter)
        if site is None:
            return None
        value = seen[site][rows]
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        four = value.dim() == 4
        channels = self.channels.get(letter) if whose == "picture" or self.one_sequence else None
        value = self._part(self.axis if four else 1, channels, whose, size).of(value)
        if not four:
            value = value.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        elif self.axis == 1:
            value = value.transpose(1, 2)
        return value if self.rotate is None or letter == "v" else self.rotate(value, whose, size)

    def _part(self, axis: int, channels: slice | None, whose: Literal["picture", "text"], size: Size) -> Part:
        if not self.one_sequence:
            return Part(axis, channels=channels)
        tokens = (size[0] // self.patch) * (size[1] // self.patch)
        if not self.picture_first:
            return Part(axis, -tokens, None, channels) if whose == "picture" else Part(axis, None, -tokens, channels)
        filled = -(-tokens // self.multiple) * self.multiple
        return Part(axis, 0, tokens, channels) if whose == "picture" else Part(axis, filled, None, channels)

    def _bias(self, seen: Seen, rows: slice, text: Tensor) -> Tensor:
        """What is added to the scores of the text's keys (B, heads, tokens, channels): (B, 1, tokens)."""
        bias = torch.zeros(len(text), 1, text.shape[2], dtype=text.dtype, device=text.device)
        if TEXT not in seen:
            return bias
        counted = seen[TEXT][rows, None, : text.shape[2]].to(text.device)  # behind the longest text nothing is passed
        return bias.masked_fill(~counted, self.uncounted)

    def _scale(self, network: nn.Module, queries: Tensor) -> float:
        return float(getattr(network.get_submodule(self.name), "scale", queries.shape[-1] ** -0.5))

    def _projected(self, network: nn.Module, hidden: Tensor, seen: Seen) -> Tensor:
        joined = hidden.transpose(1, 2).flatten(2)
        if not self.projection:
            return joined
        project: Any = network.get_submodule(self.projection)
        # weights may rest in another dtype than they run in (layerwise casting); values are linear layers' outputs
        if self.beside:
            joined = pad(joined, (0, project.in_features - joined.shape[-1]))
        computed = seen[(self.text or self.picture)["v"]].dtype
        # `forward` leaves hooks alone: they are for the batch that the layer sees
        found = project.forward(joined.to(computed)).to(joined.dtype)
        at_layer = self.output == self.name
        return found / getattr(network.get_submodule(self.name), "rescale_output_factor", 1) if at_layer else found


def picture_sites(layers: Sequence[AttentionLayer], letters: str) -> tuple[Site, ...]:
    """Where the picture's queries, keys or values, `letters` of "qkv", pass in layers that have them."""
    found = [layer.picture[letter] for layer in layers for letter in letters if letter in layer.picture]
    return tuple(dict.fromkeys(found))


def _keep(seen: dict[str, Tensor], site: Site, value: Tensor) -> Tensor:
    seen[site] = value
    return value
