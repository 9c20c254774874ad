"""Texts of Stable Diffusion 3: two CLIP encoders side by side, T5 behind them, and their pooled texts."""

from typing import Any

import torch

from freectl.denoising.attention_maps import TextSequence
from freectl.models.conditioning import Halves, More, Texts
from freectl.models.networks import unwrapped
from freectl.models.sequence_text import PooledProjections, not_read
from freectl.models.text_extras import MicroConditioning

DEFAULT_LENGTH = 256


class JointTextConditioner(PooledProjections):
    """Tokens of CLIP, then of T5 (zeros without a third encoder), with `pooled_projections` for each half."""

    takes_pieces = False

    def __init__(self, pipe: Any, lora_scale: float | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(pipe, lora_scale, dtype)
        self.length: int = pipe.config.get("max_sequence_length", DEFAULT_LENGTH)

    @property
    def encoders(self) -> list[Any]:
        """The text encoders that the pipeline has."""
        third = getattr(self.pipe, "text_encoder_3", None)
        return super().encoders + ([unwrapped(third)] if third is not None else [])

    @property
    def reads(self) -> int:
        """Of T5 where it is there, else of CLIP."""
        return self.length if self._third else super().reads

    @property
    def embedded(self) -> int:
        """CLIP's tokens and T5's."""
        return super().reads + self.length

    @property
    def sequences(self) -> list[TextSequence]:
        """CLIP's tokens, and T5's where it is there, which have none in front."""
        third = [TextSequence(self.pipe.tokenizer_3, self.length, 0)] if self._third else []
        return [TextSequence(self.pipe.tokenizer, super().reads), *third]

    @property
    def _third(self) -> bool:
        return getattr(self.pipe, "text_encoder_3", None) is not None and self.length > 0

    def unseen(self, text: str) -> str:
        """What T5 does not read; without it, what CLIP does not."""
        if not self._third:
            return super().unseen(text)
        return not_read(self.pipe.tokenizer_3, text, self.length)

    def key(self, micro: MicroConditioning) -> str:
        """The number of T5's tokens."""
        return repr(self.length)

    def _halves(self, texts: Texts, negative: More, second: More, negative_second: More) -> Halves:
        """The third encoder has the first texts."""
        options = self._options(negative) | {"max_sequence_length": self.length, "prompt_3": None}
        options["prompt_2"] = None if second is None else list(second)
        if negative is not None:
            options["negative_prompt_2"] = None if negative_second is None else list(negative_second)
        cond, uncond, pooled, negative_pooled = self._encoded(texts, options)
        return cond, uncond, pooled, negative_pooled
