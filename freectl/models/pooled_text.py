"""Texts of Stable Diffusion XL: two encoders side by side, pooled text, and the sizes that the network is told."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from freectl.denoising.sampler import Half, Prompt
from freectl.errors import InputError
from freectl.models.conditioning import MicroConditioning, Size, TextConditioner


class PooledTextConditioner(TextConditioner):
    """Two encoders side by side, the second's pooled text, and the sizes that SDXL is told."""

    @property
    def zeroed(self) -> bool:
        """Whether an empty negative prompt is zeros rather than an encoded empty text, as in SDXL's base model."""
        return bool(self.pipe.config.get("force_zeros_for_empty_prompt"))

    def key(self, micro: MicroConditioning) -> str:
        """Sizes, and what an empty negative prompt is."""
        return repr((micro, self.zeroed))

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
        """As `TextConditioner.encode`; second texts default to the first."""
        cond, uncond, pooled, negative_pooled = self._whole(texts, negative, second, negative_second)
        if negative is None:
            return self.assembled(cond, None, pooled, None, working, micro)
        if self.zeroed:
            others = negative if negative_second is None else negative_second
            kept = [bool(a or b) for a, b in zip(negative, others, strict=True)]
            keep = torch.tensor(kept, device=uncond.device)
            uncond, negative_pooled = uncond * keep[:, None, None], negative_pooled * keep[:, None]
        return self.assembled(cond, uncond, pooled, negative_pooled, working, micro)

    def _piece(self, texts: Any, negative: Any, second: Any = None, negative_second: Any = None) -> tuple[Any, ...]:
        options = self._options(negative) | {"prompt_2": None if second is None else list(second)}
        if negative is not None:
            options["negative_prompt_2"] = None if negative_second is None else list(negative_second)
        return self._encoded(texts, options)

    def assembled(
        self,
        cond: Tensor,
        uncond: Tensor | None,
        pooled: Tensor | None,
        negative_pooled: Tensor | None,
        working: Size,
        micro: MicroConditioning,
    ) -> Prompt:
        """Embeddings as a prompt, with pooled text and sizes for each half.

        Raises:
            InputError: no pooled embeddings.
        """
        if pooled is None or (uncond is not None and negative_pooled is None):
            missing = "pooled_prompt_embeds" if pooled is None else "negative_pooled_prompt_embeds"
            raise InputError(missing, "None", "embeddings, since prompt_embeds are given")
        added: dict[Half, dict[str, Tensor]] = {"cond": self._added(pooled, "cond", working, micro)}
        if uncond is not None and negative_pooled is not None:
            added["uncond"] = self._added(negative_pooled, "uncond", working, micro)
        return Prompt(cond, uncond, added)

    def _added(self, pooled: Tensor, half: Half, working: Size, micro: MicroConditioning) -> dict[str, Tensor]:
        sizes = torch.tensor(micro.numbers(half, working), dtype=pooled.dtype, device=pooled.device)
        return {"text_embeds": pooled, "time_ids": sizes.expand(pooled.shape[0], -1)}
