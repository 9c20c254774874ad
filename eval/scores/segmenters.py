"""Segmenters: a picture and a size (height, width) in, a label map of that size out."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eval.scores.metrics import judge_label_maps
from eval.scores.metrics.self_similarity import IMAGENET_MEAN, IMAGENET_STD
from freectl.errors import InputError
from freectl.files.paths import at_home
from freectl.mini.domain import OBJECTS
from freectl.pipelines.loading import HUB_ID
from freectl.preprocess.weights import load_model

Segmenter = Callable[[Image.Image, tuple[int, int]], Tensor]
OPTION = "--segmenter"
ALLOWED = "judge, a .safetensors file of torchvision's FCN, or a folder or hub id of a transformers segmentation model"
FCN_SIZE = 520
"""Shorter side in px of pictures for torchvision's FCN, as its own weights' transforms have it."""


def load_segmenter(name: str, device: str = "cpu") -> tuple[Segmenter, list[str]]:
    """A segmenter and the names of its classes, by index.

    Args:
        name: "judge", the embedded world's; a file with the tensors of torchvision's `fcn_resnet50` or `fcn_resnet101`;
            or a transformers model for semantic segmentation, safetensors only.

    Raises:
        InputError: nothing of that name, or a file of another network.
        FreectlError: weights that are not here and cannot be fetched.
    """
    path = at_home(name)
    if name == "judge":
        return _judge()
    if path.suffix == ".safetensors":
        return _fcn(path, device)
    if (path / "config.json").is_file() or (HUB_ID.fullmatch(name) and not path.exists()):
        return _transformers(name, device)
    raise InputError(OPTION, f"'{name}'", ALLOWED)


def _judge() -> tuple[Segmenter, list[str]]:
    from freectl.mini import MODEL_DIR
    from freectl.mini.judge import load_judge

    judge = load_judge(MODEL_DIR / "judge")

    def segment(picture: Image.Image, size: tuple[int, int]) -> Tensor:
        return _resized(judge_label_maps(judge, [picture])[0], size)

    return segment, ["background", *OBJECTS]


def _fcn(path: Path, device: str) -> tuple[Segmenter, list[str]]:
    """Fully convolutional network (Long et al. 2015) on a ResNet, as torchvision builds it."""
    from torchvision.models import get_model
    from torchvision.transforms.functional import normalize, resize, to_tensor

    try:
        tensors = load_file(path)
        classes = tensors["classifier.4.weight"].shape[0]
        kind = "fcn_resnet101" if "backbone.layer3.22.conv1.weight" in tensors else "fcn_resnet50"
        network = get_model(kind, weights=None, weights_backbone=None, num_classes=classes)
        network.load_state_dict({key: value for key, value in tensors.items() if not key.startswith("aux_")})
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(OPTION, f"'{path}', no weights of an FCN ({type(error).__name__})", ALLOWED) from error
    network.eval().to(device)

    @torch.no_grad()
    def segment(picture: Image.Image, size: tuple[int, int]) -> Tensor:
        pixels = normalize(resize(to_tensor(picture), [FCN_SIZE], antialias=True), IMAGENET_MEAN, IMAGENET_STD)
        return _largest(network(pixels[None].to(device))["out"], size)

    return segment, [str(index) for index in range(classes)]


def _transformers(name: str, device: str) -> tuple[Segmenter, list[str]]:
    from transformers import AutoModelForSemanticSegmentation

    asked, instead = f"{OPTION} {name}", f"{OPTION} DIR"
    network, processor = load_model(name, AutoModelForSemanticSegmentation, device, "segmentation", asked, instead)

    @torch.no_grad()
    def segment(picture: Image.Image, size: tuple[int, int]) -> Tensor:
        return _largest(network(**processor(images=picture, return_tensors="pt").to(device)).logits, size)

    return segment, [network.config.id2label[index] for index in range(network.config.num_labels)]


def _largest(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (H, W) of logits (1, classes, h, w), resized bilinearly before the choice."""
    return torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)[0].argmax(0).cpu()


def _resized(labels: Tensor, size: tuple[int, int]) -> Tensor:
    if labels.shape == size:
        return labels
    return torch.nn.functional.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long()
