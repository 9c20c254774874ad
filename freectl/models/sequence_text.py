"""Texts of one sequence of given length, as T5 reads them for FLUX.1 and Chroma; pooled texts beside them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from freectl.denoising.attention_maps import TextSequence
from freectl.denoising.sampler import TEXT_MASK, Half
from freectl.models.conditioning import Halves, More, TextConditioner, Texts
from freectl.models.text_extras import MicroConditioning

DEFAULT_LENGTH = 512


def not_read(tokenizer: Any, text: str, length: int) -> str:
    """The words of a text behind the first `length` tokens, the closing one counted; "" if there are none."""
    return tokenizer.decode(tokenizer(text, truncation=False).input_ids[:-1][length - 1 :]).strip()


class PooledProjections(TextConditioner):
    """Whose pooled texts are told the network as `pooled_projections`."""

    told_by = "pooled_prompt_embeds"

    def _told(self, half: Half, embeds: Tensor, own: Any, sizes: tuple[int, ...]) -> Mapping[str, Tensor]:
        return {"pooled_projections": own}


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

    def _halves(self, texts: Texts, negative: More, second: More, negative_second: More) -> Halves:
        """Second texts are T5's and default to the first, CLIP's."""
        cond, pooled = self._texts(texts, second)
        uncond, negative_pooled = (None, None) if negative is None else self._texts(negative, negative_second)
        return cond, uncond, pooled, negative_pooled

    def _texts(self, texts: Sequence[str], second: Sequence[str] | None) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"device": self._device, "lora_scale": self.lora_scale}
        options |= {"prompt_2": None if second is None else list(second), "max_sequence_length": self.length}
        embeds, pooled, _ = self._encoded(texts, options)
        return embeds, pooled


class ChromaTextConditioner(SequenceTextConditioner):
    """T5's tokens, and which of them, `prompt_attention_mask`, count: those of the text and one of padding."""

    told_by = "prompt_attention_mask"

    @property
    def sequences(self) -> list[TextSequence]:
        """T5's tokens, which have none in front."""
        return [TextSequence(self.pipe.tokenizer, self.length, 0)]

    def _halves(self, texts: Texts, negative: More, second: More, negative_second: More) -> Halves:
        options = self._options(negative) | {"max_sequence_length": self.length}
        cond, _, mask, uncond, _, negative_mask = self._encoded(texts, options)
        return cond, uncond, mask, negative_mask

    def _told(self, half: Half, embeds: Tensor, own: Any, sizes: tuple[int, ...]) -> Mapping[str, Tensor]:
        padding = (0, embeds.shape[1] - own.shape[1])
        return {TEXT_MASK: torch.nn.functional.pad(own, padding)}
