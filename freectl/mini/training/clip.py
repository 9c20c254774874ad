"""The CLIP part: contrastive training in which every caption that is true of a picture counts as a match.

A step's pictures come in groups of one style and background, and each meets its own caption with every other object:
captions of other pictures alone leave the objects, the hardest of the three, to chance meetings. Captions of a single
word name every object, style and background. Linear heads that are thrown away afterwards read the drawing and its pose
from the picture's tokens: what tells two outlines apart is finer than a word. No part of the judge is used.
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
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from freectl.mini.domain import ARTWORK, BACKGROUNDS, OBJECTS, PICTURE_SIZE, STYLES, caption
from freectl.mini.scene import Scene, random_scene, render
from freectl.mini.tensors import to_tensor
from freectl.mini.training.augment import degrade
from freectl.mini.training.data import DROP_WORD, batch_rng, scene_batch
from freectl.mini.training.optimizers import hidden_matrices
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
GROUP_STYLES = (*ARTWORK, *["sketch"] * 3, *["silhouette"] * 6)
"""Styles by how often a group has them: artwork is told apart long before outlines are."""
DRAWINGS = [(word, artwork) for word in OBJECTS for artwork in ARTWORK]
POSE_SHARE = 0.3
GROUP = 16
"""Pictures of one style and background in a step."""
DEGRADE_STEPS, ROUND_TRIP_STEPS = 4, 16
"""Every so many steps the pictures are degraded, or decoded from their latents: the CLIP also sees generated ones."""
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def clip_config(tokens: int, size: int = PICTURE_SIZE) -> dict[str, Any]:
    """open_clip's model configuration: a ViT of 8 x 8 patches and a text tower over the domain's words."""
    return {
        "embed_dim": 96,
        "vision_cfg": {"image_size": size, "patch_size": size // 8, "width": 128, "layers": 5, "head_width": 32},
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
        size: side of the pictures.
    """

    name = "clip"

    def __init__(self, model_dir: Path, size: int = PICTURE_SIZE) -> None:
        from open_clip.model import CLIP

        torch.manual_seed(3)
        self.vae = AutoencoderKL.from_pretrained(model_dir / "vae").float().requires_grad_(False).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(model_dir / "tokenizer")
        self.config = clip_config(len(self.tokenizer), size)
        self.clip = CLIP(**self.config)
        self.size = size
        width = self.config["vision_cfg"]["width"]
        sizes = {"drawing": len(DRAWINGS), "drawing_of_patches": len(DRAWINGS), "pose": 5}
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.modules: dict[str, nn.Module] = {"clip": self.clip, "heads": self.heads}
        self.facts = {"clip": self.config}
        self.tokens = torch.empty(0)
        self.clip.visual.ln_post.register_forward_hook(self._keep_tokens)

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished CLIP of the same sizes."""
        from freectl.mini.clip import load_clip

        self.clip.load_state_dict(load_clip(folder / "clip").model.state_dict())

    def matrices(self) -> list[str]:
        """Those of the transformer blocks."""
        found = hidden_matrices({"clip": self.clip})
        return [name for name in found if "resblocks" in name]

    def _keep_tokens(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.tokens = output

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Texts to unit embeddings (B, D)."""
        return self.clip.encode_text(self._ids(texts), normalize=True)

    def _ids(self, texts: list[str]) -> Tensor:
        return self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """InfoNCE in both directions with several matches (Radford et al. 2021, eq. of figure 3, targets shared).

        To it come the object among the captions of the own group, the three words by themselves, and the heads' terms.
        """
        rng = batch_rng(seed, step)
        groups = _groups(rng, batch)
        scenes = [scene for group in groups for scene in group]
        pictures = self._changed(to_tensor([render(scene, self.size) for scene in scenes]), seed, step)
        captions = [words for group in groups for words in _rivals(group[0], rng)]
        # the fused attention's backward pass is slow in bf16 on CPUs
        with sdpa_kernel(SDPBackend.MATH):
            images, texts, scale = self.clip(pictures, self._ids([_caption(words) for words in captions + SINGLE]))[:3]
        with torch.autocast("cpu", enabled=False):
            every = scale.float().clamp(max=50) * images.float() @ texts.float().T
        logits, single = every.split([len(captions), len(SINGLE)], dim=1)
        true = torch.tensor([[_holds(words, scene) for words in captions] for scene in scenes])
        by_picture = -_mean(logits.log_softmax(1), true, 1).mean()
        # a caption that is true of no picture here has nothing to be matched with
        columns = true.any(0)
        by_text = -_mean(logits.log_softmax(0), true, 0)[columns].mean()
        named = self._word_loss(single, scenes)
        own, index = _own_group(logits, groups), _index(1, scenes)
        among = functional.cross_entropy(own, index)
        hits = (own.argmax(1) == index).float().mean()
        loss = (by_picture + by_text) / 2 + named + among + self._head_loss(scenes)
        return {"loss": loss, "words": named.detach(), "objects": among.detach(), "top1": hits.detach()}

    @torch.no_grad()
    def _changed(self, pictures: Tensor, seed: int, step: int) -> Tensor:
        """The pictures as they are, or in a share of the steps as a generator or a poor copy would show them."""
        if step % ROUND_TRIP_STEPS == 0:
            return self.vae.decode(self.vae.encode(pictures).latent_dist.mode()).sample.float()
        if step % DEGRADE_STEPS == 1:
            return degrade(pictures, torch.Generator().manual_seed(seed * 1_000_003 + step))
        return pictures

    def _head_loss(self, scenes: list[Scene]) -> Tensor:
        """The drawing, by the class token and half as much by the mean patch, and the pose in standard deviations."""
        first, patches = self.tokens[:, 0].float(), self.tokens[:, 1:].float().mean(1)
        drawing = torch.tensor([DRAWINGS.index((scene.object, scene.artwork)) for scene in scenes])
        by_token = functional.cross_entropy(self.heads["drawing"](first), drawing)
        by_patches = functional.cross_entropy(self.heads["drawing_of_patches"](patches), drawing)
        pose = functional.mse_loss(self.heads["pose"](first).float(), torch.tensor([_pose(scene) for scene in scenes]))
        return by_token + by_patches / 2 + POSE_SHARE * pose

    def _word_loss(self, logits: Tensor, scenes: list[Scene]) -> Tensor:
        """Mean cross-entropy of object, style and background against the captions of a single word."""
        terms, first = [], 0
        for place, known in WORDS.items():
            terms.append(functional.cross_entropy(logits[:, first : first + len(known)], _index(place, scenes)))
            first += len(known)
        return torch.stack(terms).mean()

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Eight scenes above the scenes of a pool whose embeddings are nearest to their captions."""
        scenes, pictures = scene_batch(batch_rng(-1, 0), 8, size=self.size)
        _, pool = scene_batch(batch_rng(-1, 1), 512, size=self.size)
        texts = self.encode_texts([scene.caption for scene in scenes])
        nearest = (texts @ self.clip.encode_image(pool, normalize=True).T).argmax(1)
        return tile(torch.cat([pictures, pool[nearest]]), 8)

    def export(self, folder: Path) -> None:
        """Write open_clip's local-dir layout: configuration, fp16 weights, tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        write_tokenizer(folder)
        about = {"model_cfg": self.config, "preprocess_cfg": {"size": self.size, **PREPROCESS}}
        (folder / "open_clip_config.json").write_text(json.dumps(about, indent=2) + "\n")
        tensors = {name: value.half().contiguous() for name, value in self.clip.state_dict().items()}
        save_file(tensors, folder / "open_clip_model.safetensors")


def _mean(values: Tensor, where: Tensor, dim: int) -> Tensor:
    return (values * where).sum(dim) / where.sum(dim).clamp(min=1)


def _words(scene: Scene) -> tuple[str, str, str]:
    return scene.style, scene.object, scene.background


def _caption(words: Words) -> str:
    return caption(*words)


def _index(place: int, scenes: list[Scene]) -> Tensor:
    return torch.tensor([WORDS[place].index(_words(scene)[place]) for scene in scenes])


def _pose(scene: Scene) -> tuple[float, ...]:
    """Rotation, scale, shift and flip, each about -2 to 2."""
    x, y = scene.shift
    return scene.rotation / 8, (scene.scale - 0.775) / 0.1, x / 0.065, y / 0.065, 1.0 if scene.flip else -1.0


def _groups(rng: random.Random, count: int) -> list[list[Scene]]:
    """Scenes in groups of one style and background, `count` in all."""
    groups = []
    for first in range(0, count, GROUP):
        one = random_scene(rng, styles=(rng.choice(GROUP_STYLES),))
        others = [random_scene(rng, styles=(one.style,)) for _ in range(min(GROUP, count - first) - 1)]
        groups.append([one, *(scene.with_words(background=one.background) for scene in others)])
    return groups


def _rivals(scene: Scene, rng: random.Random) -> list[Words]:
    """The scene's caption with each of the objects; style and background are left out at times."""
    style, background = (None if rng.random() < DROP_WORD else word for word in (scene.style, scene.background))
    return [(style, word, background) for word in OBJECTS]


def _own_group(logits: Tensor, groups: list[list[Scene]]) -> Tensor:
    """The logits (B, objects) of each picture for the captions of its own group."""
    place = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    return logits.view(len(place), len(groups), len(OBJECTS))[torch.arange(len(place)), place]


def _holds(words: Words, scene: Scene) -> bool:
    return all(said is None or said == true for said, true in zip(words, _words(scene), strict=True))
