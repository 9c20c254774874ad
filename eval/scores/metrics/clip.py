"""CLIP score, directional similarity and accuracy, on any open_clip model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.scores.metrics.base import MetricResult, check_count, check_pair, check_pictures, missing_weights
from freectl.errors import FreectlError, InputError

DEFAULT = "ViT-L-14-quickgelu/openai"
"""What PIE-Bench and most papers since report; name the model beside every number: B/32 reads .03 to .05 higher."""

CMMD_DEFAULT = "ViT-L-14-336-quickgelu/openai"
"""CMMD's own network: it takes the whole picture, resized bicubically to 336 px by its preprocessing."""


SAME = 1e-6
"""Distance of unit embeddings in single precision up to which they are equal."""

CONFIG = "open_clip_config.json"
"""Marks a folder in open_clip's local-dir format."""


@dataclass(frozen=True)
class ClipNetwork:
    """Two towers.

    Attributes:
        name: shown with every result.
        encode_image: pictures (B, 3, H, W), 0 to 1, to embeddings (B, D).
        encode_text: texts to embeddings (B, D).
        model: the open_clip model, where there is one.
    """

    name: str
    encode_image: Callable[[Tensor], Tensor]
    encode_text: Callable[[Sequence[str]], Tensor]
    model: Any = None


def load_clip(name: str = DEFAULT, device: str = "cpu") -> ClipNetwork:
    """A CLIP by name.

    Args:
        name: "mini" for the embedded one, a folder in open_clip's local-dir format, or "MODEL/PRETRAINED" of open_clip.

    Raises:
        FreectlError: open_clip or the weights are missing; the message names the command that fetches them.
        InputError: open_clip has no such model.
    """
    try:
        import open_clip
    except ImportError:
        raise FreectlError("CLIP metrics need open_clip: pip install 'freectl[eval]'") from None
    tag, pretrained, shown = _found(name)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(tag, pretrained=pretrained, device=device)
    except (OSError, RuntimeError) as error:
        fetch = f"python -c \"import open_clip; open_clip.create_model('{tag}', '{pretrained}')\""
        raise FreectlError(missing_weights(shown, error, fetch)) from None
    tokenizer = open_clip.get_tokenizer(tag)
    model.eval().requires_grad_(False)
    transform = tensor_transform(preprocess)

    def encode_text(texts: Sequence[str]) -> Tensor:
        return model.encode_text(tokenizer(list(texts)).to(device))

    return ClipNetwork(shown, lambda p: model.encode_image(transform(p.to(device))), encode_text, model)


def _found(name: str) -> tuple[str, str | None, str]:
    """open_clip's tag and weights of a name, and what the network is called."""
    folder = Path(name) if Path(name).is_dir() else None
    if name == "mini":
        from freectl.mini import MODEL_DIR

        folder = MODEL_DIR / "clip"
    if folder is None:
        return *check_clip(name), f"open_clip {name}"
    if not (folder / CONFIG).is_file():
        where = "the embedded model" if name == "mini" else f"'{folder}'"
        raise FreectlError(f"{where} has no CLIP in open_clip's format; `freectl mini train --part clip` makes one")
    return f"local-dir:{folder}", None, f"open_clip {'mini' if name == 'mini' else folder.name}"


def check_clip(name: str) -> tuple[str, str | None]:
    """open_clip's model and weights of a name; of "mini" and folders, which are checked too, they mean nothing.

    Raises:
        InputError: open_clip has no such model, or a folder holds none.
    """
    import open_clip

    tag, _, chosen = name.partition("/")
    if name == "mini":
        return tag, None  # the embedded one, also where a folder is called so
    if Path(name).is_dir() and not (Path(name) / CONFIG).is_file():
        raise InputError("--clip", f"folder '{name}' without {CONFIG}", "a folder in open_clip's format")
    if not Path(name).is_dir() and chosen not in open_clip.list_pretrained_tags_by_model(tag):
        raise InputError("--clip", repr(name), f"mini, a folder, or MODEL/PRETRAINED such as {DEFAULT}")
    return tag, chosen or None


def tensor_transform(preprocess: Any) -> Callable[[Tensor], Tensor]:
    """open_clip's preprocessing as a function of pictures (B, 3, H, W), 0 to 1.

    Pictures go through 8-bit PIL as open_clip's own users do, so that the score is that of the saved file.
    """
    from torchvision.transforms.functional import to_pil_image

    def transform(pictures: Tensor) -> Tensor:
        made = [preprocess(to_pil_image(p.float().clamp(0, 1).cpu())) for p in pictures]
        return torch.stack(made).to(pictures.device)

    return transform


def _unit(x: Tensor) -> Tensor:
    """Embeddings as unit vectors.

    Raises:
        FreectlError: some are not finite.
    """
    if not bool(x.isfinite().all()):
        raise FreectlError("CLIP gives embeddings that are not finite: its weights are damaged, or need more precision")
    return torch.nn.functional.normalize(x.float(), dim=-1)


@torch.no_grad()
def clip_score(pictures: Tensor, texts: Sequence[str], network: ClipNetwork) -> MetricResult:
    """Raw cosine of picture and text embeddings; x100 is `torchmetrics`' scale (Radford et al. 2021).

    Args:
        pictures: (B, 3, H, W), 0 to 1. texts: B.
    """
    pictures = check_pictures(pictures)
    check_count(texts, pictures)
    values = (_unit(network.encode_image(pictures)) * _unit(network.encode_text(texts))).sum(-1)
    return MetricResult("CLIP score", values, network.name, "raw cosine; x100 in some tables")


@torch.no_grad()
def clip_directional(
    pictures: Tensor, sources: Tensor, texts: Sequence[str], source_texts: Sequence[str], network: ClipNetwork
) -> MetricResult:
    """cos(E(picture) - E(source), E(text) - E(source text)) of unit embeddings (Gal et al. 2022, StyleGAN-NADA).

    0 where picture and source have equal embeddings, as `torch.nn.functional.cosine_similarity` has it: an edit that
    changes nothing is not left out of a mean. NaN where the two texts have, and there is no direction to compare with.
    """
    pictures, sources = check_pictures(pictures), check_pictures(sources, "sources")
    for given in (texts, source_texts):
        check_count(given, pictures)
    image = _unit(network.encode_image(pictures)) - _unit(network.encode_image(sources))
    text = _unit(network.encode_text(texts)) - _unit(network.encode_text(source_texts))
    along = torch.nn.functional.normalize(text, dim=-1)
    cosine = (image * along).sum(-1) / image.norm(dim=-1).clamp_min(1e-12)
    changed = image.norm(dim=-1) > SAME
    values = torch.where(text.norm(dim=-1) > SAME, torch.where(changed, cosine, 0.0), torch.nan)
    return MetricResult("CLIP directional similarity", values, network.name)


@torch.no_grad()
def clip_accuracy(
    pictures: Tensor, texts: Sequence[str], source_texts: Sequence[str], network: ClipNetwork
) -> MetricResult:
    """1 where the picture is nearer to its target text than to its source text (Parmar et al. 2023), else 0."""
    target, source = (clip_score(pictures, given, network).values for given in (texts, source_texts))
    return MetricResult("CLIP accuracy", (target > source).float(), network.name)


@torch.no_grad()
def clip_distance(pictures: Tensor, others: Tensor, network: ClipNetwork) -> MetricResult:
    """1 - cosine of the embeddings of two pictures, 0 to 2."""
    one, other = check_pair(pictures, others)
    values = 1 - (_unit(network.encode_image(one)) * _unit(network.encode_image(other))).sum(-1)
    return MetricResult("CLIP image distance", values, network.name)
