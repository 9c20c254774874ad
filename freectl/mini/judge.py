"""The judge: a small classifier of object, style and background with a foreground mask head. For evaluation only.

No method and no other network of this project sees it; it is trained apart from the generator and its helpers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from freectl.mini.domain import BACKGROUNDS, OBJECTS, PICTURE_SIZE, STYLES

HEADS: dict[str, tuple[str, ...]] = {"object": tuple(OBJECTS), "style": STYLES, "background": tuple(BACKGROUNDS)}

SMALLEST = 64
"""Side of the pictures that four stages are made for, px."""


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _double(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Judge(nn.Module):
    """Pictures (B, 3, size, size), -1 to 1, to logits a head and mask logits (B, 1, size, size).

    Args:
        heads: labels by head. size: side of the pictures, a power of two of 64 or more; each doubling is a stage more.
    """

    def __init__(self, heads: dict[str, Sequence[str]] | None = None, size: int = PICTURE_SIZE) -> None:
        super().__init__()
        self.size = size
        self.heads = {name: tuple(labels) for name, labels in (heads or HEADS).items()}
        widths = (*(16 for _ in range((size // SMALLEST).bit_length() - 1)), 32, 64, 96, 160)
        self.stages = nn.ModuleList([_stage(3, widths[0], 2), *(_stage(a, b, 2) for a, b in pairwise(widths))])
        self.up = nn.ModuleList([nn.Conv2d(width, 24, 1) for width in widths])
        self.mask = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(24, 1, 3, 1, 1))
        self.out = nn.ModuleDict({name: nn.Linear(2 * widths[-1], len(labels)) for name, labels in self.heads.items()})

    def forward(self, pictures: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits by head, and mask logits."""
        x, pyramid = pictures, []
        for stage in self.stages:
            x = stage(x)
            pyramid.append(x)
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        y = self.up[-1](pyramid[-1])
        for lateral, features in zip(reversed(self.up[:-1]), reversed(pyramid[:-1]), strict=True):
            y = _double(y) + lateral(features)
        return {name: head(pooled) for name, head in self.out.items()}, _double(self.mask(y))


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in one picture: label and probability a head, and the mask's probability (size, size)."""

    labels: dict[str, str]
    confidence: dict[str, float]
    mask: Tensor


def save_judge(judge: Judge, folder: Path) -> None:
    """Write config.json and fp16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"size": judge.size, "heads": judge.heads}, indent=1))
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")


def load_judge(folder: Path) -> Judge:
    """The judge of a model folder, in fp32 and eval mode."""
    config = json.loads((folder / "config.json").read_text())
    judge = Judge(config["heads"], config.get("size", SMALLEST))
    judge.load_state_dict(load_file(folder / "model.safetensors"))
    return judge.float().eval().requires_grad_(False)


@torch.no_grad()
def judge_pictures(judge: Judge, pictures: Sequence[Image.Image]) -> list[Verdict]:
    """Verdicts on RGB pictures; those of another size than the judge's are resized."""
    from freectl.mini.tensors import to_tensor

    side = (judge.size, judge.size)
    batch = to_tensor([p if p.size == side else p.resize(side, Image.Resampling.LANCZOS) for p in pictures])
    logits, masks = judge(batch)
    found = {name: values.softmax(-1).max(-1) for name, values in logits.items()}
    return [
        Verdict(
            {name: judge.heads[name][int(best.indices[i])] for name, best in found.items()},
            {name: float(best.values[i]) for name, best in found.items()},
            masks[i, 0].sigmoid(),
        )
        for i in range(len(pictures))
    ]


def mask_iou(predicted: Tensor, true: Image.Image) -> float:
    """Intersection over union of a mask probability (H, W) at 0.5 and an exact mask picture of that size."""
    exact = torch.tensor(list(true.convert("L").tobytes())).view(true.height, true.width) >= 128
    mine = predicted >= 0.5
    union = (mine | exact).sum()
    return float((mine & exact).sum() / union) if union else 1.0
