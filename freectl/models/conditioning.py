"""Text and sizes as a network takes them: one encoder, or two with pooled embeddings and micro-conditioning."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from freectl.denoising.attention_maps import token_positions
from freectl.denoising.sampler import Half, Prompt
from freectl.errors import InputError
from freectl.models.finite import check_finite
from freectl.models.networks import unwrapped

Size = tuple[int, int]


@dataclass(frozen=True)
class MicroConditioning:
    """Sizes that SDXL is told (Podell et al., arXiv 2307.01952, section 2.2), (height, width) in pixels.

    None is the working size; `negative_*` None is the same as for the conditional half.
    """

    original_size: Size | None = None
    crops_coords_top_left: Size = (0, 0)
    target_size: Size | None = None
    negative_original_size: Size | None = None
    negative_crops_coords_top_left: Size = (0, 0)
    negative_target_size: Size | None = None

    def numbers(self, half: Half, working: Size) -> tuple[int, ...]:
        """The six numbers of a half at a working size (height, width), in the order of SDXL's `time_ids`."""
        given = self.negative_original_size is not None and self.negative_target_size is not None
        if half == "uncond" and given:
            return (*self.negative_original_size, *self.negative_crops_coords_top_left, *self.negative_target_size)  # type: ignore[misc]
        return (*(self.original_size or working), *self.crops_coords_top_left, *(self.target_size or working))


@dataclass(frozen=True)
class TextExtras:
    """What a call may give beyond Stable Diffusion's: embeddings in place of texts, and SDXL's own arguments.

    Attributes:
        embeds, negative_embeds: (N, tokens, C). pooled, negative_pooled: (N, C), SDXL only.
        second, negative_second: texts of SDXL's second encoder; None = those of the first.
        micro: sizes, SDXL only.
    """

    embeds: Tensor | None = None
    negative_embeds: Tensor | None = None
    pooled: Tensor | None = None
    negative_pooled: Tensor | None = None
    second: str | list[str] | None = None
    negative_second: str | list[str] | None = None
    micro: MicroConditioning = field(default_factory=MicroConditioning)


class TextConditioner:
    """Encodes texts with a pipeline's own `encode_prompt`: embeddings of one encoder.

    Args:
        pipe: the pipeline.
        lora_scale: strength of LoRA layers in the text encoders.
        dtype: of the embeddings, the network's; None = the encoders' own, which may be others in one folder.
    """

    def __init__(self, pipe: Any, lora_scale: float | None = None, dtype: torch.dtype | None = None) -> None:
        self.pipe, self.lora_scale, self.dtype = pipe, lora_scale, dtype

    @property
    def encoders(self) -> list[Any]:
        """The text encoders that the pipeline has."""
        names = ("text_encoder", "text_encoder_2")
        return [unwrapped(one) for name in names if (one := getattr(self.pipe, name, None)) is not None]

    @property
    def learnt_words(self) -> list[tuple[str, int]]:
        """Words that textual inversion added to the tokenizers, with their numbers."""
        names = ("tokenizer", "tokenizer_2")
        tokenizers = [one for name in names if (one := getattr(self.pipe, name, None))]
        return [pair for one in tokenizers for pair in sorted(one.get_added_vocab().items())]

    @property
    def reads(self) -> int:
        """Tokens of a text that are read, those of start and end counted."""
        return int(self.pipe.tokenizer.model_max_length)

    @property
    def embedded(self) -> int:
        """Tokens of an encoded text."""
        return self.reads

    def unseen(self, text: str) -> str:
        """The words of a text that lie beyond what is read, "" if none do."""
        tokenizer, first = self.pipe.tokenizer, self.reads - 2
        tokens = tokenizer(self._expanded(text), truncation=False).input_ids[1:-1]
        if len(tokens) <= first:
            return ""
        pieces = tokenizer.convert_ids_to_tokens(tokens)
        while first > 0 and not pieces[first - 1].endswith("</w>"):  # a word that is seen in part
            first -= 1
        return tokenizer.decode(tokens[first:]).strip()

    def lengthened(self, embeds: Tensor, tokens: int) -> Tensor:
        """Embeddings (B, n, C) followed by those of an empty text, from its end, up to `tokens`."""
        while embeds.shape[1] < tokens:
            empty = self.encode([""], None, (0, 0), MicroConditioning()).cond.to(embeds)
            more = empty[:, -min(tokens - embeds.shape[1], empty.shape[1]) :]
            embeds = torch.cat([embeds, more.expand(embeds.shape[0], -1, -1)], 1)
        return embeds

    def key(self, micro: MicroConditioning) -> str:
        """What encoded texts depend on besides the encoders' weights, for cache keys."""
        return ""

    def positions(self, text: str, words: str, option: str = "--concept") -> list[int]:
        """Positions of the tokens of `words` in the encoded text.

        Raises:
            InputError: the words are not in the text.
        """
        return token_positions(self.pipe.tokenizer, self._expanded(text), self._expanded(words), option)

    def _expanded(self, text: str) -> str:
        """The text with learnt words of several vectors written out, where the pipeline has such words."""
        convert = getattr(self.pipe, "maybe_convert_prompt", None)
        return text if convert is None else convert(text, self.pipe.tokenizer)

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
        """Encode texts; with `negative` (one each) also the unconditional half.

        Args:
            working: (height, width) of the pictures, where `micro` gives none.
            second, negative_second: texts of a second encoder, for families that have one.
        """
        cond, uncond = self._encoded(texts, self._options(negative))[:2]
        return Prompt(cond, uncond if negative is not None else None)

    def assembled(
        self,
        cond: Tensor,
        uncond: Tensor | None,
        pooled: Tensor | None,
        negative_pooled: Tensor | None,
        working: Size,
        micro: MicroConditioning,
    ) -> Prompt:
        """Embeddings as a prompt, with the added inputs that the network asks for."""
        return Prompt(cond, uncond)

    def _encoded(self, texts: Sequence[str], options: dict[str, Any]) -> tuple[Any, ...]:
        found = self.pipe.encode_prompt(list(texts), **options)
        for embeds in found:
            if embeds is not None:
                check_finite(embeds, "the encoded text", "the text encoder's weights, a learnt word or a LoRA")
        return tuple(None if embeds is None else embeds.to(dtype=self.dtype) for embeds in found)

    def _options(self, negative: Sequence[str] | None) -> dict[str, Any]:
        options: dict[str, Any] = {"device": self.pipe._execution_device, "num_images_per_prompt": 1}
        options |= {"do_classifier_free_guidance": negative is not None, "lora_scale": self.lora_scale}
        if negative is not None:
            options["negative_prompt"] = list(negative)
        return options


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
        options = self._options(negative) | {"prompt_2": None if second is None else list(second)}
        if negative is not None:
            options["negative_prompt_2"] = None if negative_second is None else list(negative_second)
        cond, uncond, pooled, negative_pooled = self._encoded(texts, options)
        if negative is None:
            return self.assembled(cond, None, pooled, None, working, micro)
        if self.zeroed:
            others = negative if negative_second is None else negative_second
            kept = [bool(a or b) for a, b in zip(negative, others, strict=True)]
            keep = torch.tensor(kept, device=uncond.device)
            uncond, negative_pooled = uncond * keep[:, None, None], negative_pooled * keep[:, None]
        return self.assembled(cond, uncond, pooled, negative_pooled, working, micro)

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


def paired(name: str, texts: str | Sequence[str] | None, count: int) -> list[str] | None:
    """One text for each of `count` pictures, or a list whose length divides it, each repeated in place.

    Raises:
        InputError: the number of texts does not fit.
    """
    if texts is None:
        return None
    if isinstance(texts, str):
        return [texts] * count
    repeat = count // max(1, len(texts))
    if repeat * len(texts) != count:
        raise InputError(name, f"{len(texts)} texts", "one text, or one a prompt")
    return [text for text in texts for _ in range(repeat)]
