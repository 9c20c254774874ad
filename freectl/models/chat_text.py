"""Texts of FLUX.2: a language model reads them as a message, and some of its layers side by side are the embeddings."""

from typing import Any

from freectl.denoising.attention_maps import TextSequence
from freectl.models.conditioning import Halves, More, Texts
from freectl.models.language_sequence import language_sequence
from freectl.models.sequence_text import SequenceTextConditioner


class ChatTextConditioner(SequenceTextConditioner):
    """One sequence of the message's tokens, the template's counted, which the pipeline pads to its length."""

    @property
    def learnt_words(self) -> list[tuple[str, int]]:
        """None: textual inversion adds no words to language models."""
        return []

    @property
    def sequences(self) -> list[TextSequence]:
        """The message's tokens, and what they are filled up with."""
        tokenizer = self.pipe.tokenizer
        return [language_sequence(getattr(tokenizer, "tokenizer", tokenizer), self.length, self._message, filled=True)]

    def _message(self, text: str) -> str:
        """A text as diffusers' pipelines ask it: of klein, without a system's message, or of dev."""
        if not hasattr(self.pipe, "system_message"):
            chat = [{"role": "user", "content": text}]
            how = {"add_generation_prompt": True, "enable_thinking": False}
            return self.pipe.tokenizer.apply_chat_template(chat, tokenize=False, **how)
        said = (("system", self.pipe.system_message), ("user", text))
        messages = [{"role": role, "content": [{"type": "text", "text": one}]} for role, one in said]
        return self.pipe.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)

    def unseen(self, text: str) -> str:
        """Words behind the length that is read; those that the template's own tokens push out are not told of."""
        tokenizer = self.pipe.tokenizer
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor's
        if not text or tokenizer is None:
            return ""
        return tokenizer.decode(tokenizer(text, truncation=False).input_ids[self.length :]).strip()

    def _layers(self) -> tuple[int, ...]:
        """A quarter, half and three quarters up: 9, 18, 27 of Qwen3's 36, 10, 20, 30 of Mistral's 40, as diffusers'."""
        if not self.encoders:
            return ()
        config = self.encoders[0].config
        depth = getattr(config, "text_config", config).num_hidden_layers
        return tuple(depth * quarter // 4 for quarter in (1, 2, 3))

    def _halves(self, texts: Texts, negative: More, second: More, negative_second: More) -> Halves:
        options: dict[str, Any] = {"device": self._device, "max_sequence_length": self.length}
        options["text_encoder_out_layers"] = self._layers()
        cond, _ = self._encoded(texts, options)
        return cond, None if negative is None else self._encoded(negative, options)[0], None, None
