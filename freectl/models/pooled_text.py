"""Texts of Stable Diffusion XL: two encoders side by side, pooled text, and the sizes that the network is told."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from freectl.denoising.sampler import Half
from freectl.models.conditioning import Halves, More, TextConditioner, Texts
from freectl.models.text_extras import MicroConditioning


class PooledTextConditioner(TextConditioner):
    """Two encoders side by side, the second's pooled text, and the sizes that SDXL is told."""

    told_by = "pooled_prompt_embeds"

    @property
    def zeroed(self) -> bool:
        """Whether an empty negative prompt is zeros rather than an encoded empty text, as in SDXL's base model."""
        return bool(self.pipe.config.get("force_zeros_for_empty_prompt"))

    def key(self, micro: MicroConditioning) -> str:
        """Sizes, and what an empty negative prompt is."""
        return repr((micro, self.zeroed))

    def _halves(self, texts: Texts, negative: More, second: More, negative_second: More) -> Halves:
        cond, uncond, pooled, negative_pooled = self._whole(texts, negative, second, negative_second)
        if negative is not None and self.zeroed:
            others = negative if negative_second is None else negative_second
            kept = [bool(a or b) for a, b in zip(negative, others, strict=True)]
            keep = torch.tensor(kept, device=uncond.device)
            uncond, negative_pooled = uncond * keep[:, None, None], negative_pooled * keep[:, None]
        return cond, uncond, pooled, negative_pooled

    def _piece(self, texts: Any, negative: Any, second: Any = None, negative_second: Any = None) -> tuple[Any, ...]:
        options = self._options(negative) | {"prompt_2": None if second is None else list(second)}
        if negative is not None:
            options["negative_prompt_2"] = None if negative_second is None else list(negative_second)
        return self._encoded(texts, options)

    def _told(self, half: Half, embeds: Tensor, own: Any, sizes: tuple[int, ...]) -> Mapping[str, Tensor]:
        numbers = torch.tensor(sizes, dtype=own.dtype, device=own.device)
        return {"text_embeds": own, "time_ids": numbers.expand(own.shape[0], -1)}
