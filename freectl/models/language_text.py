"""Texts of Qwen-Image and Z-Image: the hidden states of a language model that is asked by a template."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from freectl.denoising.attention_maps import TextSequence
from freectl.models.language_sequence import language_sequence
from freectl.models.masked_text import MaskedTextConditioner


class QwenImageTextConditioner(MaskedTextConditioner):
    """Qwen2.5-VL's last hidden states, without those of the template's beginning."""

    most = 512

    @property
    def sequences(self) -> list[TextSequence]:
        """The tokens behind that beginning, the template's end counted."""
        pipe: Any = self.pipe
        template, dropped = pipe.prompt_template_encode.format, pipe.prompt_template_encode_start_idx
        return [language_sequence(pipe.tokenizer, self.most, template, dropped=dropped)]

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        device = self.pipe._execution_device
        embeds, mask = self.pipe.encode_prompt(texts, device=device, max_sequence_length=self.most)
        return embeds, torch.ones(embeds.shape[:2]) if mask is None else mask


class ZImageTextConditioner(MaskedTextConditioner):
    """Qwen3's last hidden states but one, of the whole chat."""

    most = 512

    @property
    def before(self) -> int:
        """Tokens of the chat in front of a text; those behind it are cut with it."""
        chat: Any = [{"role": "user", "content": "#"}]
        told: str = self.pipe.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return len(self.pipe.tokenizer(told.partition("#")[0]).input_ids)

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        how = {"device": self.pipe._execution_device, "max_sequence_length": self.most}
        each = self.pipe.encode_prompt(texts, do_classifier_free_guidance=False, **how)[0]
        mask = pad_sequence([torch.ones(len(one)) for one in each], batch_first=True)
        return pad_sequence(each, batch_first=True), mask
