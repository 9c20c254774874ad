"""The embedded CLIP: a small one in open_clip's own format, for CLIP score and self-similarity in this domain.

`open_clip.create_model_and_transforms("local-dir:" + folder)` and `open_clip.get_tokenizer` load it without network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from freectl.errors import FreectlError
from freectl.mini import MODEL_DIR


@dataclass(frozen=True)
class MiniClip:
    """Both towers with their own preprocessing.

    Attributes:
        model: `open_clip.CLIP`. preprocess: PIL picture to tensor. tokenizer: texts to token ids.
    """

    model: Any
    preprocess: Any
    tokenizer: Any

    @torch.no_grad()
    def pictures(self, pictures: list[Image.Image]) -> Tensor:
        """RGB pictures to unit embeddings (B, D)."""
        return self.model.encode_image(torch.stack([self.preprocess(p) for p in pictures]), normalize=True)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Texts to unit embeddings (B, D)."""
        return self.model.encode_text(self.tokenizer(texts), normalize=True)


def load_clip(folder: Path = MODEL_DIR / "clip") -> MiniClip:
    """The CLIP of a folder in open_clip's local-dir format, fp32, eval mode.

    Raises:
        FreectlError: open_clip or the folder is missing.
    """
    try:
        import open_clip
    except ImportError:
        raise FreectlError("the embedded CLIP needs open_clip: pip install 'freectl[eval]'") from None
    if not (folder / "open_clip_config.json").exists():
        raise FreectlError(f"{folder}: no CLIP; train one with `freectl mini train --part clip`")
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return MiniClip(model.eval().requires_grad_(False), preprocess, open_clip.get_tokenizer(name))
