"""The CLIP part: contrastive training in which every caption that is true of a picture counts as a match.

Beside the other pictures' captions each picture meets its own with another object, and captions of a single word that
name every object, style and background: whole-picture captions alone leave the objects, the hardest of the three, to
chance meetings. No part of the judge is used.
"""

import json
import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from freectl.mini.domain import BACKGROUNDS, OBJECTS, PICTURE_SIZE, STYLES, caption
from freectl.mini.scene import Scene
from freectl.mini.training.augment import degrade
from freectl.mini.training.data import DROP_WORD, TRAINING_STYLES, batch_rng, scene_batch
from freectl.mini.training.tokenizer import MAX_TOKENS, write_tokenizer
from freectl.mini.training.vae import tile

Words = tuple[str | None, str | None, str | None]
"""Style, object, background of a caption; None is not said."""
WORDS: dict[int, tuple[str, ...]] = {0: STYLES, 1: tuple(OBJECTS), 2: tuple(BACKGROUNDS)}
SINGLE: list[Words] = [
    (word if place == 0 else None, word if place == 1 else None, word if place == 2 else None)
    for place, known in WORDS.items()
    for word in known
]
"""The captions of a single word, in the order of `WORDS`."""
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def clip_config(tokens: int) -> dict[str, Any]:
    """open_clip's model configuration: a ViT/8 of 64 px and a text tower over the domain's words."""
    return {
        "embed_dim": 96,
        "vision_cfg": {"image_size": PICTURE_SIZE, "patch_size": 8, "width": 128, "layers": 5, "head_width": 32},
        "text_cfg": {
            "context_length": MAX_TOKENS,
            "vocab_size": tokens,
            "width": 96,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": "tokenizer beside this file",
        },
    }


class ClipPart:
    """Trains both towers from scratch.

    Args:
        model_dir: holds `vae`, for round trips, and `tokenizer`; the CLIP is written to `clip` below it.
    """

    name = "clip"

    def __init__(self, model_dir: Path) -> None:
        from open_clip.model import CLIP

        torch.manual_seed(3)
        self.vae = AutoencoderKL.from_pretrained(model_dir / "vae").float().requires_grad_(False).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(model_dir / "tokenizer")
        self.config = clip_config(len(self.tokenizer))
        self.clip = CLIP(**self.config)
        self.modules: dict[str, nn.Module] = {"clip": self.clip}

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished CLIP of the same sizes."""
        from freectl.mini.clip import load_clip

        self.clip.load_state_dict(load_clip(folder / "clip").model.state_dict())

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Texts to unit embeddings (B, D)."""
        ids = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.clip.encode_text(ids, normalize=True)

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """InfoNCE in both directions with several matches (Radford et al. 2021, eq. of figure 3, targets shared)."""
        rng = batch_rng(seed, step)
        scenes, pictures = scene_batch(rng, batch, held_out=None, styles=TRAINING_STYLES)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        if step % 4 == 0:
            with torch.no_grad():
                pictures = self.vae.decode(self.vae.encode(pictures).latent_dist.mode()).sample.float()
        if step % 2 == 0:
            pictures = degrade(pictures, generator)
        own = [_said(scene, rng) for scene in scenes]
        captions = own + [_another_object(scene, rng) for scene in scenes]
        texts = self.encode_texts([_caption(words) for words in captions + SINGLE])
        images = self.clip.encode_image(pictures, normalize=True)
        every = self.clip.logit_scale.exp().clamp(max=50) * images.float() @ texts.float().T
        logits, single = every.split([len(captions), len(SINGLE)], dim=1)
        true = torch.tensor([[_holds(words, scene) for words in captions] for scene in scenes])
        by_picture = -_mean(logits.log_softmax(1), true, 1).mean()
        # a caption that is true of no picture here has nothing to be matched with
        columns = true.any(0)
        by_text = -_mean(logits.log_softmax(0), true, 0)[columns].mean()
        named = self._word_loss(single, scenes)
        hits = (logits.argmax(1) == true.float().mul(logits).where(true, -torch.inf).argmax(1)).float().mean()
        return {"loss": (by_picture + by_text) / 2 + named, "words": named.detach(), "top1": hits.detach()}

    def _word_loss(self, logits: Tensor, scenes: list[Scene]) -> Tensor:
        """Mean cross-entropy of object, style and background against the captions of a single word."""
        terms, first = [], 0
        for place, known in WORDS.items():
            index = torch.tensor([known.index(_words(scene)[place]) for scene in scenes])
            terms.append(functional.cross_entropy(logits[:, first : first + len(known)], index))
            first += len(known)
        return torch.stack(terms).mean()

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Eight scenes above the scenes of a pool whose embeddings are nearest to their captions."""
        scenes, pictures = scene_batch(batch_rng(-1, 0), 8)
        _, pool = scene_batch(batch_rng(-1, 1), 512)
        texts = self.encode_texts([scene.caption for scene in scenes])
        nearest = (texts @ self.clip.encode_image(pool, normalize=True).T).argmax(1)
        return tile(torch.cat([pictures, pool[nearest]]), 8)

    def export(self, folder: Path) -> None:
        """Write open_clip's local-dir layout: configuration, fp16 weights, tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        write_tokenizer(folder)
        about = {"model_cfg": self.config, "preprocess_cfg": {"size": PICTURE_SIZE, **PREPROCESS}}
        (folder / "open_clip_config.json").write_text(json.dumps(about, indent=2) + "\n")
        tensors = {name: value.half().contiguous() for name, value in self.clip.state_dict().items()}
        save_file(tensors, folder / "open_clip_model.safetensors")


def _mean(values: Tensor, where: Tensor, dim: int) -> Tensor:
    return (values * where).sum(dim) / where.sum(dim).clamp(min=1)


def _words(scene: Scene) -> tuple[str, str, str]:
    return scene.style, scene.object, scene.background


def _caption(words: Words) -> str:
    return caption(*words)


def _said(scene: Scene, rng: random.Random) -> Words:
    style, object_, background = (None if rng.random() < DROP_WORD else word for word in _words(scene))
    return style, object_, background


def _another_object(scene: Scene, rng: random.Random) -> Words:
    """The full caption with a wrong object."""
    return scene.style, rng.choice([word for word in OBJECTS if word != scene.object]), scene.background


def _holds(words: Words, scene: Scene) -> bool:
    return all(said is None or said == true for said, true in zip(words, _words(scene), strict=True))
