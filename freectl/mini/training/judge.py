"""The judge part: heavy augmentation, so that it judges generated pictures and not only clean ones."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from freectl.mini.domain import PICTURE_SIZE, SAME_OUTLINE, STYLES
from freectl.mini.judge import Judge, load_judge, save_judge
from freectl.mini.scene import Scene, random_scene, render, render_mask
from freectl.mini.tensors import to_tensor
from freectl.mini.training.augment import degrade, distort
from freectl.mini.training.data import batch_rng, scene_batch
from freectl.mini.training.optimizers import hidden_matrices
from freectl.mini.training.vae import tile

JUDGE_STYLES = (*STYLES, *["silhouette"] * 4)
"""Half of the pictures are silhouettes: everything else is told apart early."""
SMOOTHING = 0.05
NOTHING_SHARE = 0.06


class JudgePart:
    """Classifies augmented scenes; noise and mixtures of two scenes are labelled with no class at all.

    Args:
        model_dir: holds `vae`, for round trips; the judge is written to `judge` below it.
        size: side of the pictures.
    """

    name = "judge"

    def __init__(self, model_dir: Path, size: int = PICTURE_SIZE) -> None:
        torch.manual_seed(2)
        self.vae = AutoencoderKL.from_pretrained(model_dir / "vae").float().requires_grad_(False).eval()
        self.judge = Judge(size=size).to(memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"judge": self.judge}
        self.facts: dict[str, object] = {"picture_size": size}

    def matrices(self) -> list[str]:
        """The convolutions of all stages but the first."""
        return hidden_matrices(self.modules, ("stages.0.0", "out", "mask"))

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished judge of the same sizes."""
        self.judge.load_state_dict(load_judge(folder / "judge").state_dict())

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """Cross-entropy of the three heads and of the mask."""
        rng = batch_rng(seed, step)
        size = self.judge.size
        scenes, pictures = scene_batch(rng, batch, held_out=None, styles=JUDGE_STYLES, size=size)
        masks = to_tensor([render_mask(scene, size).convert("RGB") for scene in scenes])[:, :1].add(1).div(2)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        pictures, masks = distort(pictures, masks, generator)
        if step % 4 == 0:
            with torch.no_grad():
                pictures = self.vae.decode(self.vae.encode(pictures).latent_dist.mode()).sample.float()
        pictures = degrade(pictures, generator)
        pictures, nothing = with_nothing(pictures, generator)
        self.judge.train()
        logits, mask = self.judge(pictures.contiguous(memory_format=torch.channels_last))
        targets = self.targets(scenes, nothing)
        terms = {
            name: -(target * values.float().log_softmax(-1)).sum(-1).mean()
            for (name, values), target in zip(logits.items(), targets, strict=True)
        }
        per_picture = functional.binary_cross_entropy_with_logits(mask.float(), masks, reduction="none").mean((1, 2, 3))
        terms["mask"] = (per_picture * ~nothing).mean()
        return {"loss": sum(terms.values(), torch.zeros(())), **{k: v.detach() for k, v in terms.items()}}

    def targets(self, scenes: list[Scene], nothing: Tensor) -> list[Tensor]:
        """Smoothed one-hot targets a head; uniform where the picture shows nothing."""
        found = []
        for name, labels in self.judge.heads.items():
            index = torch.tensor([labels.index(_seen(scene, name)) for scene in scenes])
            target = functional.one_hot(index, len(labels)).float()
            target = target * (1 - SMOOTHING) + SMOOTHING / len(labels)
            target[nothing] = 1 / len(labels)
            found.append(target)
        return found

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Augmented scenes above the masks found in them."""
        self.judge.eval()
        rng = batch_rng(-1, 0)
        scenes = [random_scene(rng) for _ in range(8)]
        pictures = degrade(
            to_tensor([render(scene, self.judge.size) for scene in scenes]), torch.Generator().manual_seed(0)
        )
        _, masks = self.judge(pictures)
        return tile(torch.cat([pictures, (masks.sigmoid() * 2 - 1).expand(-1, 3, -1, -1)]), 8)

    def export(self, folder: Path) -> None:
        """Write the judge; its batch statistics are recomputed for the averaged weights first."""
        self.judge.train()
        for module in self.judge.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        with torch.no_grad():
            for step in range(40):
                self.losses(-3, step, 32)
        save_judge(self.judge, folder)


def _seen(scene: Scene, head: str) -> str:
    """The scene's word; an outline that two objects share is always named after the same one, not by chance."""
    if head == "object" and scene.style == "silhouette":
        return SAME_OUTLINE.get((scene.object, scene.artwork), scene.object)
    return str(getattr(scene, head))


def with_nothing(pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace a share of the pictures by noise or by a mixture of two; returns which ones."""
    batch = pictures.shape[0]
    nothing = torch.rand(batch, generator=generator) < NOTHING_SHARE
    noise = torch.randn(pictures.shape, generator=generator).clamp(-1, 1)
    coarse = functional.interpolate(noise[..., :6, :6], pictures.shape[-2:], mode="bicubic").clamp(-1, 1)
    mixture = (pictures + pictures.roll(1, 0)) / 2
    kind = torch.randint(3, (batch, 1, 1, 1), generator=generator)
    other = torch.where(kind == 0, noise, torch.where(kind == 1, coarse, mixture))
    return torch.where(nothing[:, None, None, None], other, pictures), nothing
