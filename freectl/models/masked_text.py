"""Texts of one encoder, of any length, with a mask by which texts of several lengths share a forward."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from freectl.denoising.sampler import TEXT_MASK, Half, Prompt, of_one_length
from freectl.models.conditioning import Halves, More, TextConditioner, Texts
from freectl.models.text_extras import MicroConditioning, Size


class MaskedTextConditioner(TextConditioner):
    """Embeddings of each half with `text_mask` (B, tokens), true where a token is of the text.

    The masks stay on the CPU, where asking whether one is needed at all costs no waiting.

    Attributes:
        most: tokens of a text that are read.
    """

    takes_pieces = False
    most: ClassVar[int]

    @abstractmethod
    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Embeddings (B, tokens, C) of texts and their mask (B, tokens)."""

    @property
    def reads(self) -> int:
        """A fixed number."""
        return self.most

    @property
    def before(self) -> int:
        """Tokens of a template in front of the text that count among those."""
        return 0

    def unseen(self, text: str) -> str:
        """The end of a text that is longer than what is read."""
        if not text or self.pipe.tokenizer is None:
            return ""
        ids = self.pipe.tokenizer(text, truncation=False, add_special_tokens=False).input_ids
        return self.pipe.tokenizer.decode(ids[self.most - self.before :]).strip()

    def lengthened(self, embeds: Tensor, tokens: int) -> Tensor:
        """As they are: masks let texts of several lengths share a forward."""
        return embeds

    def _halves(self, texts: Texts, negative: More, second: More, negative_second: More) -> Halves:
        self._check_encoders()
        cond, mask = self._read(list(texts))
        if negative is None:
            return self._settled(cond), None, mask, None
        uncond, negative_mask = self._read(list(negative))
        return self._settled(cond), self._settled(uncond), mask, negative_mask

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
            pooled, negative_pooled: masks (B, tokens), 0 and 1; None = every token is of the text.
        """
        made = super().assembled(cond, uncond, pooled, negative_pooled, working, micro)
        if uncond is None:
            return made
        # of one length, as callbacks have them
        own, other = of_one_length([(cond, made.added["cond"]), (uncond, made.added["uncond"])])
        return Prompt(own[0], other[0], {"cond": own[1] or {}, "uncond": other[1] or {}})

    def _told(self, half: Half, embeds: Tensor, own: Any, sizes: tuple[int, ...]) -> Mapping[str, Tensor]:
        return {TEXT_MASK: _mask(embeds, own)}


def _mask(embeds: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones(embeds.shape[:2], dtype=torch.bool) if mask is None else mask.bool().cpu()
