"""What FLUX and its kin share: packed latents, text before picture, double-stream blocks, then single-stream ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.models.families.transformer import (
    FLOW_FREECONTROL,
    PATH_METHODS,
    TransformerFamily,
    linear_grid,
    packed,
    times_of,
    unpacked,
)


@dataclass(frozen=True, kw_only=True)
class PackedFamily(TransformerFamily):
    """A family whose network takes tokens, each of `cells` x `cells` latent cells, with the places of all tokens.

    Attributes:
        cells: latent cells to a token's side.
        axes: numbers of a place; the second and third are row and column.
        side: tokens to the side of the square that it was trained at.
        finds_words: whether words have known places in the text.
    """

    methods: tuple[str, ...] | None = (*PATH_METHODS, "freecontrol", "pnp")
    freecontrol: Mapping[str, Any] = field(default_factory=lambda: FLOW_FREECONTROL)
    cells: int = 2
    axes: int = 3
    side: int = 64
    finds_words: bool = False
    entry: str = "norm1.norm"

    def fits(self, network: Any) -> bool:
        """Whether as many channels come out as go in, and guidance is embedded where the family has it so."""
        config = network.config
        embeds = bool(config.get("guidance_embeds"))
        whole = (config.out_channels or config.in_channels) == config.in_channels
        return whole and config.in_channels % self.cells**2 == 0 and embeds == (self.guidance == "embedded")

    def call(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor:
        """One call, told sigma; where the network embeds guidance and `added` has none of it, that of none, 1."""
        size = (latents.shape[-2], latents.shape[-1])
        told = dict(added or {})
        if self.guidance == "embedded":
            told.setdefault("guidance", torch.ones(latents.shape[0], device=latents.device))
        output = network(
            hidden_states=self.packed(network, latents),
            timestep=times_of(time, latents).to(latents.dtype) / 1000,
            encoder_hidden_states=embeds,
            txt_ids=self.text_places(embeds.shape[1], latents.device),
            img_ids=self.places(size, latents.device),
            joint_attention_kwargs=attention_kwargs,
            return_dict=False,
            **self.inputs(told, size),
        )[0]
        return self.unpacked(network, output, size)

    def inputs(self, told: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """What is added to a call, as the network takes it, for latents of `size` (height, width)."""
        return told

    def few_steps(self, index: Mapping[str, Any], schedule: Mapping[str, Any]) -> bool:
        """Whether its networks take no guidance."""
        return self.guidance == "none"

    def packed(self, network: Any, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) as tokens in rows, (B, n, C cells^2)."""
        return packed(latents, self.cells).contiguous()

    def unpacked(self, network: Any, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """As `Family.unpacked`."""
        rows, columns = size[0] // self.cells, size[1] // self.cells
        if latents.dim() != 3 or latents.shape[1] != rows * columns:
            return latents
        return unpacked(latents, size, self.cells).contiguous()

    def places(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """Row and column of each of the picture's tokens, (n, axes)."""
        rows, columns = (torch.arange(side // self.cells, device=device) for side in size)
        grid = torch.zeros(len(rows), len(columns), self.axes, device=device)
        grid[..., 1], grid[..., 2] = rows[:, None], columns
        return grid.flatten(0, 1)

    def text_places(self, tokens: int, device: torch.device) -> Tensor:
        """Places of the text's tokens, (tokens, axes): all the same."""
        return torch.zeros(tokens, self.axes, device=device)

    def attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """Of double-stream blocks, where text and picture have sites of their own, and of single-stream ones."""
        depth: Any = network.config.num_layers  # type: ignore[union-attr]
        rotate = partial(self._rotated, network)
        layers = []
        for name in (f"transformer_blocks.{i}.attn" for i in range(depth)):
            own = {"q": f"{name}.norm_q", "k": f"{name}.norm_k", "v": f"{name}.to_v"}
            text, last = {"k": f"{name}.norm_added_k", "v": f"{name}.add_v_proj"}, f"{name}.to_out.0"
            heads: Any = network.get_submodule(name).heads
            layers.append(AttentionLayer(name, heads, own, text, last, last, axis=1, rotate=rotate))
        return [*layers, *self.single_attentions(network)]

    def single_attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """Of the single-stream blocks, whose one sequence is the text's and then the picture's."""
        depth: Any = network.config.num_single_layers  # type: ignore[union-attr]
        layers = []
        for name in (f"single_transformer_blocks.{i}.attn" for i in range(depth)):
            own = {"q": f"{name}.norm_q", "k": f"{name}.norm_k", "v": f"{name}.to_v"}
            text = {letter: own[letter] for letter in "kv"}
            heads: Any = network.get_submodule(name).heads
            how: dict[str, Any] = {
                "picture_first": False,
                "patch": self.cells,
                "rotate": partial(self._rotated, network),
            }
            layers.append(AttentionLayer(name, heads, own, text, name, axis=1, **how))
        return layers

    def word_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """As `TransformerFamily.word_layers`, where words are found."""
        return super().word_layers(network) if self.finds_words else []

    def _rotated(
        self, network: Any, tokens: Tensor, whose: Literal["picture", "text"], size: tuple[int, int]
    ) -> Tensor:
        picture = whose == "picture"
        places = self.places(size, tokens.device) if picture else self.text_places(tokens.shape[2], tokens.device)
        return apply_rotary_emb(tokens, network.pos_embed(places))

    def image_tokens(self, value: Tensor, count: int) -> Tensor:
        """As `TransformerFamily.image_tokens`; the text, where it is there, comes first."""
        return value.flatten(2)[:, -count:]

    def grid(self, scheduler: Any, network: Any, size: tuple[int, int], steps: int) -> dict[str, Any]:
        """Sigmas in equal distances, shifted by the picture's tokens where the scheduler shifts so."""
        tokens = (size[0] // self.cells) * (size[1] // self.cells)
        return linear_grid(scheduler, tokens, steps, self.shift(scheduler, tokens, steps))

    def shift(self, scheduler: Any, tokens: int, steps: int) -> float | None:
        """The shift mu, where it is not the scheduler's own."""
        return None

    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """Of pictures of 1024 px, as diffusers' pipelines have it; the configuration names no size."""
        return network.config.in_channels // self.cells**2, self.side * self.cells, self.side * self.cells

    def patch(self, network: Any) -> int:
        """A token's cells."""
        return self.cells

    def structure_blocks(self, depth: int) -> range:
        """The double-stream blocks, of `depth`, whose keys are compared.

        7 to 12 of FLUX.1's 19, and the like share of other depths: of those whose attention follows content rather than
        position (arXiv 2503.16153) the ones with good word maps (arXiv 2508.07519). Not measured for this use.
        """
        return range(depth * 7 // 19, depth * 12 // 19 + 1)

    def structure_sites(self, network: nn.Module, layers: str = "all", features: str = "keys") -> list[str]:
        """Normalised keys of the picture's tokens, before positions, in `structure_blocks`; whatever the features."""
        depth: Any = network.config.num_layers  # type: ignore[union-attr]
        sites = [f"transformer_blocks.{block}.attn.norm_k" for block in self.structure_blocks(depth)]
        return {"all": sites, "first": sites[:1], "last": sites[-1:]}[layers]
