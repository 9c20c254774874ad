"""Text and sizes as a network takes them: one encoder, or two with pooled embeddings and micro-conditioning."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from copy import copy
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from freectl.denoising.attention_maps import TextSequence
from freectl.denoising.sampler import Half, Prompt
from freectl.errors import InputError
from freectl.models.finite import check_finite
from freectl.models.long_text import MOST_PIECES, pieces
from freectl.models.networks import unwrapped
from freectl.models.text_extras import MicroConditioning, Size

Texts = Sequence[str]
More = Sequence[str] | None
Halves = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Embeddings (N, tokens, C) of texts and of negative ones, and what else is told of both."""
CLIP_TOKENS = 77


class TextConditioner:
    """Encodes texts with a pipeline's own `encode_prompt`: embeddings of one encoder.

    Args:
        pipe: the pipeline.
        lora_scale: strength of LoRA layers in the text encoders.
        dtype: of the embeddings, the network's; None = the encoders' own, which may be others in one folder.

    Attributes:
        told_by: argument of a call that has to be given with embeddings; "" = none.
        takes_pieces: whether longer texts than the encoder reads may be read in pieces.
        long: whether they are. pieces: of every text of the run, the shorter ones followed by empty ones.
    """

    told_by: ClassVar[str] = ""
    takes_pieces: ClassVar[bool] = True

    def __init__(self, pipe: Any, lora_scale: float | None = None, dtype: torch.dtype | None = None) -> None:
        self.pipe, self.lora_scale, self.dtype = pipe, lora_scale, dtype
        self.long, self.pieces = False, 1

    @cached_property
    def _device(self) -> torch.device:
        return self.pipe._execution_device  # asks every module of the pipeline

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
        return CLIP_TOKENS if self.pipe.tokenizer is None else int(self.pipe.tokenizer.model_max_length)

    @property
    def embedded(self) -> int:
        """Tokens of an encoded text."""
        return self.reads * self.pieces

    @property
    def sequences(self) -> list[TextSequence]:
        """What an encoded text consists of, as far as it is text, in order."""
        return [TextSequence(self.pipe.tokenizer, self.embedded)]

    def make_room(self, texts: Iterable[str]) -> None:
        """Take as many pieces as the longest of a run's texts needs.

        Raises:
            InputError: more than `long_text.MOST_PIECES`.
        """
        self.pieces = max([len(self.cut(text)) for text in texts], default=1)
        if self.pieces > MOST_PIECES:
            found = f"a text of {self.pieces} times the {self.reads} tokens that the model reads at once"
            raise InputError("--long-prompts", found, f"up to {MOST_PIECES} times")

    def cut(self, text: str) -> list[str]:
        """A text in the pieces that it is read in; itself, if it is short or nothing is read in pieces."""
        several = self.long and text and self.pipe.tokenizer is not None
        return pieces(text, self._counts, self.reads - 2) if several else [text]

    def at_once(self) -> "TextConditioner":
        """The same, which reads no text in pieces."""
        made = copy(self)
        made.long, made.pieces = False, 1
        return made

    def _counts(self, texts: Sequence[str]) -> list[int]:
        expanded = [self._expanded(text) for text in texts]
        return [len(ids) - 2 for ids in self.pipe.tokenizer(expanded, truncation=False).input_ids] if expanded else []

    def unseen(self, text: str) -> str:
        """The words of a text that lie beyond what is read, "" if none do."""
        if self.long or not text or self.pipe.tokenizer is None:
            return ""
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

        Sequences behind the first one cut words otherwise, and may not know them as such.

        Raises:
            InputError: the words are not in the text.
        """
        read, found, first = [self._expanded(piece) for piece in self.cut(text)], list[int](), 0
        for one in self.sequences:
            with suppress(InputError) if found else nullcontext():
                found += [first + place for place in one.positions(read, self._expanded(words), option)]
            first += one.length
        return found

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
            second, negative_second: texts of a second encoder, for families that have one; None = the first's.
        """
        cond, uncond, pooled, negative_pooled = self._halves(texts, negative, second, negative_second)
        if negative is None:
            uncond = negative_pooled = None
        return self.assembled(cond, uncond, pooled, negative_pooled, working, micro)

    def _halves(self, texts: Texts, negative: More, second: More, negative_second: More) -> Halves:
        """What texts are encoded to, as `assembled` takes it; arguments as of `encode`."""
        cond, uncond = self._whole(texts, negative)[:2]
        return cond, uncond, None, None

    def _whole(self, *given: Sequence[str] | None) -> tuple[Any, ...]:
        """Embeddings of texts, piece behind piece, and the first piece's pooled ones.

        Args:
            given: as `_piece` takes them.
        """
        if self.pieces == 1:
            return self._piece(*given)
        cut = [None if texts is None else [self.cut(text) for text in texts] for texts in given]
        found = [self._piece(*(None if one is None else _nth(one, i) for one in cut)) for i in range(self.pieces)]
        cond, uncond = zip(*(one[:2] for one in found), strict=True)
        return torch.cat(cond, 1), None if uncond[0] is None else torch.cat(uncond, 1), *found[0][2:]

    def _piece(self, texts: Any, negative: Any, second: Any = None, negative_second: Any = None) -> tuple[Any, ...]:
        """Embeddings of texts that are read at once, of negative ones, and what the encoders pool of both."""
        return self._encoded(texts, self._options(negative))

    def assembled(
        self,
        cond: Tensor,
        uncond: Tensor | None,
        pooled: Tensor | None,
        negative_pooled: Tensor | None,
        working: Size,
        micro: MicroConditioning,
    ) -> Prompt:
        """Embeddings as a prompt, with the added inputs that the network asks for.

        Args:
            pooled, negative_pooled: of families of whose texts more is told.

        Raises:
            InputError: embeddings without what is told of them.
        """
        added: dict[Half, Mapping[str, Tensor]] = {}
        pairs: dict[Half, tuple[Tensor | None, Tensor | None]] = {
            "cond": (cond, pooled),
            "uncond": (uncond, negative_pooled),
        }
        for half, (embeds, own) in pairs.items():
            if embeds is None:
                continue
            if own is None and self.told_by:
                what = f"{'' if half == 'cond' else 'negative_'}{self.told_by}"
                allowed = f"{'masks' if 'mask' in what else 'embeddings'}, since prompt_embeds are given"
                raise InputError(what, "None", allowed)
            if told := self._told(half, embeds, own, micro.numbers(half, working)):
                added[half] = told
        return Prompt(cond, uncond, added)

    def _told(self, half: Half, embeds: Tensor, own: Any, sizes: tuple[int, ...]) -> Mapping[str, Tensor]:
        """Inputs that are added for a half, of its embeddings (N, tokens, C) and what else is known of its texts."""
        return {}

    def _encoded(self, texts: Sequence[str], options: dict[str, Any]) -> tuple[Any, ...]:
        self._check_encoders()
        found = self.pipe.encode_prompt(list(texts), **options)
        return tuple(None if embeds is None else self._settled(embeds) for embeds in found)

    def _check_encoders(self) -> None:
        if not self.encoders:
            allowed = "prompt_embeds, and a method that needs no other text, such as sdedit"
            raise InputError("prompt", "text for a model without text encoders", allowed)

    def _settled(self, embeds: Tensor) -> Tensor:
        """Embeddings that are numbers, in the network's dtype."""
        check_finite(embeds, "the encoded text", "the text encoder's weights, a learnt word or a LoRA")
        return embeds.to(dtype=self.dtype)

    def _options(self, negative: Sequence[str] | None) -> dict[str, Any]:
        options: dict[str, Any] = {"device": self._device, "num_images_per_prompt": 1}
        options |= {"do_classifier_free_guidance": negative is not None, "lora_scale": self.lora_scale}
        if negative is not None:
            options["negative_prompt"] = list(negative)
        return options


def _nth(cut: Sequence[Sequence[str]], index: int) -> list[str]:
    """The piece of each text at an index, an empty one behind its last."""
    return [own[index] if index < len(own) else "" for own in cut]
