"""Texts of PixArt-Sigma: one T5 encoder, whose padding the network's cross-attention is told to leave out."""

from torch import Tensor

from freectl.models.masked_text import MaskedTextConditioner


class T5TextConditioner(MaskedTextConditioner):
    """Always as many tokens as are read; in small letters, as diffusers' pipeline has it without `clean_caption`."""

    most = 300

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        device = self.pipe._execution_device
        how = {"do_classifier_free_guidance": False, "device": device, "max_sequence_length": self.most}
        return self.pipe.encode_prompt(texts, **how)[:2]
