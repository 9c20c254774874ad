"""Texts of one sequence of given length, as T5 reads them for FLUX.1 and Chroma; pooled texts beside them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from freectl.denoising.attention_maps import TextSequence
from freectl.denoising.sampler import TEXT_MASK, Half, Prompt
from freectl.errors import InputError
from freectl.models.conditioning import MicroConditioning, Size, TextConditioner

DEFAULT_LENGTH = 512


def not_read(tokenizer: Any, text: str, length: int) -> str:
    """The words of a text behind the first `length` tokens, the closing one counted; "" if there are none."""
    return tokenizer.decode(tokenizer(text, truncation=False).input_ids[:-1][length - 1 :]).strip()


class PooledProjections(TextConditioner):
    """Whose pooled texts are told the network as `pooled_projections`."""

    def assembled(
        self,
        cond: Tensor,
        uncond: Tensor | None,
        pooled: Tensor | None,
        negative_pooled: Tensor | None,
        working: Size,
        micro: MicroConditioning,
    ) -> Prompt:
        """Embeddings as a prompt.

        Raises:
            InputError: no pooled embeddings.
        """
        added: dict[Half, dict[str, Tensor]] = {}
        for half, prefix, embeds, own in (("cond", "", cond, pooled), ("uncond", "negative_", uncond, negative_pooled)):
            if embeds is None:
                continue
            if own is None:
                raise InputError(f"{prefix}pooled_prompt_embeds", "None", "embeddings, since prompt_embeds are given")
            added[half] = {"pooled_projections": own}  # type: ignore[index]
        return Prompt(cond, uncond, added)


class SequenceTextConditioner(TextConditioner):
    """One sequence of T5's tokens, as many as the pipeline's `max_sequence_length`.

    Attributes:
        tokenizer: name of T5's tokenizer among the pipeline's components.
    """

    takes_pieces = False
    tokenizer: ClassVar[str] = "tokenizer"

    def __init__(self, pipe: Any, lora_scale: float | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(pipe, lora_scale, dtype)
        self.length: int = pipe.config.get("max_sequence_length", DEFAULT_LENGTH)

    @property
    def reads(self) -> int:
        """Tokens of a text that are read, the closing one counted."""
        return self.length

    @property
    def embedded(self) -> int:
        """As many."""
        return self.length

    def unseen(self, text: str) -> str:
        """What T5 does not read."""
        tokenizer = getattr(self.pipe, self.tokenizer)
        return not_read(tokenizer, text, self.length) if text and tokenizer is not None else ""

    def key(self, micro: MicroConditioning) -> str:
        """The number of tokens."""
        return repr(self.length)


class FluxTextConditioner(PooledProjections, SequenceTextConditioner):
    """T5's tokens, and what CLIP pools of the text."""

    tokenizer = "tokenizer_2"

    @property
    def sequences(self) -> list[TextSequence]:
        """T5's tokens, which have none in front."""
        return [TextSequence(self.pipe.tokenizer_2, self.length, 0)]

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        negative: Sequence[str] | None,
        working: Size,
        micro: MicroConditioning,
        second: Sequence[str] | None = None,
        negative_second: Sequence[str] | None = None,
    ) -> Prompt:
        """As `TextConditioner.encode`; second texts are T5's and default to the first, CLIP's."""
        cond, pooled = self._texts(texts, second)
        uncond, negative_pooled = (None, None) if negative is None else self._texts(negative, negative_second)
        return self.assembled(cond, uncond, pooled, negative_pooled, working, micro)

    def _texts(self, texts: Sequence[str], second: Sequence[str] | None) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"device": self._device, "lora_scale": self.lora_scale}
        options |= {"prompt_2": None if second is None else list(second), "max_sequence_length": self.length}
        embeds, pooled, _ = self._encoded(texts, options)
        return embeds, pooled


class ChromaTextConditioner(SequenceTextConditioner):
    """T5's tokens, and which of them count: those of the text and one of padding."""

    @property
    def sequences(self) -> list[TextSequence]:
        """T5's tokens, which have none in front."""
        return [TextSequence(self.pipe.tokenizer, self.length, 0)]

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        negative: Sequence[str] | None,
        working: Size,
        micro: MicroConditioning,
        second: Sequence[str] | None = None,
        negative_second: Sequence[str] | None = None,
    ) -> Prompt:
        """As `TextConditioner.encode`."""
        options = self._options(negative) | {"max_sequence_length": self.length}
        cond, _, mask, uncond, _, negative_mask = self._encoded(texts, options)
        return self.assembled(cond, uncond, mask, negative_mask, working, micro)

    def assembled(
        self,
        cond: Tensor,
        uncond: Tensor | None,
        pooled: Tensor | None,
        negative_pooled: Tensor | None,
        working: Size,
        micro: MicroConditioning,
    ) -> Prompt:
        """Embeddings as a prompt.

        Args:
            pooled, negative_pooled: masks (N, tokens) of the embeddings; tokens behind theirs do not count.

        Raises:
            InputError: no masks.
        """
        added: dict[Half, dict[str, Tensor]] = {}
        for half, prefix, embeds, mask in (
            ("cond", "", cond, pooled),
            ("uncond", "negative_", uncond, negative_pooled),
        ):
            if embeds is None:
                continue
            if mask is None:
                raise InputError(f"{prefix}prompt_attention_mask", "None", "masks, since prompt_embeds are given")
            padding = (0, embeds.shape[1] - mask.shape[1])
            added[half] = {TEXT_MASK: torch.nn.functional.pad(mask, padding)}  # type: ignore[index]
        return Prompt(cond, uncond, added)
