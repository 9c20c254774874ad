"""Texts of PixArt-Sigma: one T5 encoder, whose padding the network's cross-attention is told to leave out."""

from torch import Tensor

from freectl.denoising.attention_maps import TextSequence
from freectl.models.masked_text import MaskedTextConditioner


class T5TextConditioner(MaskedTextConditioner):
    """Always as many tokens as are read; in small letters, as diffusers' pipeline has it without `clean_caption`."""

    most = 300

    @property
    def sequences(self) -> list[TextSequence]:
        """T5's tokens, none in front."""
        return [TextSequence(self.pipe.tokenizer, self.most, 0, lower=True)]

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        device = self.pipe._execution_device
        how = {"do_classifier_free_guidance": False, "device": device, "max_sequence_length": self.most}
        return self.pipe.encode_prompt(texts, **how)[:2]
