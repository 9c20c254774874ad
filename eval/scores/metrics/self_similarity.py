"""Self-similarity distance: how much the layout of a picture's ViT keys changed (Tumanyan et al. 2022, Splice)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from eval.scores.metrics.base import MetricResult, check_pictures, missing_weights
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
        longest: what the longer side is held to; the shorter then falls below `size`.
        classes: normalised pictures to the last block's class tokens (B, C), before the final norm; None where the
            network is read for its keys alone.
    """

    name: str
    keys: Callable[[Tensor], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    longest: int | None = None
    classes: Callable[[Tensor], Tensor] | None = None


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
        size=224,
        longest=480,
        classes=timm_classes(model),
    )


def clip_key_network(network: Any) -> KeyNetwork:
    """The vision tower of an open_clip ViT: for the embedded model its mini CLIP (`metrics.clip.ClipNetwork`)."""
    visual = network.model.visual
    side = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    mean, std = tuple(visual.image_mean or IMAGENET_MEAN), tuple(visual.image_std or IMAGENET_STD)
    return KeyNetwork(f"{network.name}, last block", open_clip_keys(visual), mean, std, int(side))


def timm_keys(model: nn.Module, block: int = -1) -> Callable[[Tensor], Tensor]:
    """Keys of one block of a timm ViT: the second third of its `attn.qkv`."""
    model.eval().requires_grad_(False)
    return _reader(model, model.blocks[block].attn.qkv, lambda out: out.chunk(3, dim=-1)[1])  # type: ignore[index, union-attr]


def timm_classes(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The class tokens (B, C) that the last block of a timm ViT gives."""
    model.eval().requires_grad_(False)
    return _reader(model, model.blocks[-1], lambda out: out[:, 0])  # type: ignore[index]


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

    Splice's and PIE-Bench's codes resize tensors: bilinear, shorter side to 224 px, longer to 480 at most, and without
    antialiasing in the versions of torchvision that they ask for (0.10, 0.13). Their networks ignore what lies beyond
    the last whole patch. Not known: how near timm's position embeddings of pictures that are not square are to theirs,
    and what the FreeControl paper did, which names neither layer nor resizing; "splice" is the code that PnP's author
    points to. Ctrl-X's code resizes to 512 px first, which `eval.scores.pictures.CtrlXScorer` does.

    Args:
        one, other: pictures (B, 3, H, W), 0 to 1; the second is resized to the size of the resized first.
        mode: "splice" normalises pictures in 0 to 1 (Splice, PnP, FreeControl); "pie" feeds 0 to 255 into the same
            normalisation, as PIE-Bench's code does: its numbers compare with PIE-Bench tables only.

    Raises:
        ValueError: no pictures, or different numbers of them.
    """
    one, other = check_pictures(one), check_pictures(other, "other pictures")
    if one.shape[0] != other.shape[0]:
        raise ValueError(f"{one.shape[0]} pictures and {other.shape[0]} others; expected equal numbers")
    from torchvision.transforms.functional import resize

    one, other = (pictures * 255 if mode == "pie" else pictures for pictures in (one, other))
    first = _fitted(one, network)
    second = resize(other, list(first.shape[-2:]), antialias=False)
    one_matrix, other_matrix = (self_similarity(network.keys(_normalised(p, network))) for p in (first, second))
    values = (one_matrix - other_matrix).square().mean((-1, -2))
    note = "PIE-Bench's 0 to 255 input" if mode == "pie" else ""
    return MetricResult(f"self-similarity distance ({mode})", values, network.name, note)


def class_similarity(one: Tensor, other: Tensor, network: KeyNetwork) -> MetricResult:
    """DINO-I (Ruiz et al. 2023): cosine of two pictures' class tokens, higher is nearer in looks.

    As Ctrl-X's evaluation code has it: the last block's token before the final norm, of the network that also gives
    the keys (ViT-B/8); its paper says ViT-S/16.

    Args:
        one, other: pictures (B, 3, H, W), 0 to 1, resized each for itself as for the self-similarity distance.

    Raises:
        ValueError: no pictures, different numbers of them, or a network without class tokens.
    """
    one, other = check_pictures(one), check_pictures(other, "other pictures")
    if network.classes is None or one.shape[0] != other.shape[0]:
        raise ValueError(f"{one.shape[0]} pictures and {other.shape[0]} others of {network.name}; expected equal "
                         "numbers, and a network with class tokens")  # fmt: skip
    a, b = (network.classes(_normalised(_fitted(pictures, network), network)).float() for pictures in (one, other))
    return MetricResult("DINO-I", functional.cosine_similarity(a, b, dim=-1), network.name)


def _fitted(pictures: Tensor, network: KeyNetwork) -> Tensor:
    from torchvision.transforms.functional import resize

    return resize(pictures, [network.size], max_size=network.longest, antialias=False)


def _normalised(pictures: Tensor, network: KeyNetwork, patch: int = 8) -> Tensor:
    height, width = (side // patch * patch for side in pictures.shape[-2:])
    mean, std = (torch.tensor(v, dtype=pictures.dtype, device=pictures.device) for v in (network.mean, network.std))
    return (pictures[..., :height, :width] - mean[:, None, None]) / std[:, None, None]
