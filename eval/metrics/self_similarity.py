"""Self-similarity distance: how much the layout of a picture's ViT keys changed (Tumanyan et al. 2022, Splice)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from eval.metrics.base import MetricResult, check_pictures, missing_weights
from freectl.errors import FreectlError

DINO = "vit_base_patch8_224.dino"
Mode = Literal["splice", "pie"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class KeyNetwork:
    """Keys of a ViT's self-attention.

    Attributes:
        name: shown with every result.
        keys: normalised pictures (B, 3, H, W) to keys of all tokens, heads concatenated (B, tokens, C).
        mean, std: of the normalisation. size: the shorter side in pixels that pictures are resized to.
    """

    name: str
    keys: Callable[[Tensor], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int


def load_dino(device: str = "cpu") -> KeyNetwork:
    """DINO ViT-B/8 of timm, keys of the last block: the network of Splice, PnP, FreeControl and PIE-Bench.

    Raises:
        FreectlError: timm or the weights are missing; the message names the command that fetches them.
    """
    try:
        import timm
    except ImportError:
        raise FreectlError("self-similarity needs timm: pip install 'freectl[eval]'") from None
    try:
        model = timm.create_model(DINO, pretrained=True, num_classes=0, dynamic_img_size=True)
    except (OSError, RuntimeError) as error:
        fetch = f"python -c \"import timm; timm.create_model('{DINO}', pretrained=True)\""
        raise FreectlError(missing_weights(DINO, error, fetch)) from None
    return KeyNetwork(
        f"timm {DINO}",
        timm_keys(model.to(device)),
        IMAGENET_MEAN,
        IMAGENET_STD,
        224,
    )


def clip_key_network(network: Any) -> KeyNetwork:
    """The vision tower of an open_clip ViT (`eval.metrics.clip.ClipNetwork`): for the embedded model its mini CLIP."""
    visual = network.model.visual
    side = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    mean, std = tuple(visual.image_mean or IMAGENET_MEAN), tuple(visual.image_std or IMAGENET_STD)
    return KeyNetwork(f"{network.name}, last block", open_clip_keys(visual), mean, std, int(side))


def timm_keys(model: nn.Module, block: int = -1) -> Callable[[Tensor], Tensor]:
    """Keys of one block of a timm ViT: the second third of its `attn.qkv`."""
    model.eval().requires_grad_(False)
    return _reader(model, model.blocks[block].attn.qkv, lambda out: out.chunk(3, dim=-1)[1])  # type: ignore[index, union-attr]


def open_clip_keys(visual: nn.Module, block: int = -1) -> Callable[[Tensor], Tensor]:
    """Keys of one block of an open_clip ViT, whose attention is torch's, with one fused projection.

    Keys are recomputed from the block's normalised input, since the fused kernel never gives them out.
    """
    visual.eval().requires_grad_(False)
    resblock: Any = visual.transformer.resblocks[block]  # type: ignore[index, union-attr]
    attention = resblock.attn

    def project(normed: Tensor) -> Tensor:
        width = attention.embed_dim
        weight, bias = attention.in_proj_weight[width : 2 * width], attention.in_proj_bias[width : 2 * width]
        return functional.linear(normed, weight, bias)

    return _reader(visual, resblock.ln_1, project)


def _reader(model: nn.Module, layer: Any, keys_of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def read(pictures: Tensor) -> Tensor:
        found: list[Tensor] = []
        weight = next(model.parameters())
        handle = layer.register_forward_hook(lambda _m, _i, output: found.append(output))
        try:
            with torch.no_grad():
                model(pictures.to(weight.device, weight.dtype))
        finally:
            handle.remove()
        return keys_of(found[0])

    return read


def self_similarity(keys: Tensor) -> Tensor:
    """Cosine similarity of all pairs of keys (B, tokens, C) -> (B, tokens, tokens)."""
    unit = functional.normalize(keys.float(), dim=-1, eps=1e-8)
    return unit @ unit.transpose(-1, -2)


def self_similarity_distance(one: Tensor, other: Tensor, network: KeyNetwork, mode: Mode = "splice") -> MetricResult:
    """Mean squared difference of the two self-similarity matrices; 0 for equal pictures, lower is better.

    Args:
        one, other: pictures (B, 3, H, W), 0 to 1; both are resized, the first one's shorter side to the network's size.
        mode: "splice" normalises pictures in 0 to 1 (Splice, PnP, FreeControl); "pie" feeds 0 to 255 into the same
            normalisation, as PIE-Bench's code does: its numbers compare with PIE-Bench tables only.

    Raises:
        ValueError: no pictures, or different numbers of them.
    """
    one, other = check_pictures(one), check_pictures(other, "other pictures")
    if one.shape[0] != other.shape[0]:
        raise ValueError(f"{one.shape[0]} pictures and {other.shape[0]} others; expected equal numbers")
    side = _side(one, network.size)
    first, second = (self_similarity(network.keys(prepare(p, network, side, mode))) for p in (one, other))
    values = (first - second).square().mean((-1, -2))
    note = "PIE-Bench's 0 to 255 input" if mode == "pie" else ""
    return MetricResult(f"self-similarity distance ({mode})", values, network.name, note)


def _side(pictures: Tensor, size: int, multiple: int = 8) -> tuple[int, int]:
    """(height, width) with the shorter side at `size`, the longer a multiple of the patch side."""
    height, width = pictures.shape[-2:]
    scale = size / min(height, width)
    return round(height * scale / multiple) * multiple, round(width * scale / multiple) * multiple


def prepare(pictures: Tensor, network: KeyNetwork, side: tuple[int, int], mode: Mode) -> Tensor:
    """Resize to (height, width) and normalise."""
    if pictures.shape[-2:] != side:
        pictures = functional.interpolate(pictures, side, mode="bilinear", antialias=True, align_corners=False)
    scaled = pictures * 255 if mode == "pie" else pictures
    mean, std = (torch.tensor(v, dtype=scaled.dtype, device=scaled.device) for v in (network.mean, network.std))
    return (scaled - mean[:, None, None]) / std[:, None, None]
