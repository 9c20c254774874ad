"""A frozen feature network by the place of its weights, whatever kind of file holds them."""

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from gan_baselines.config import Features
from gan_baselines.errors import InputError
from gan_baselines.hub import tensors_file
from gan_baselines.networks import FeatureNet
from gan_baselines.record import find_weights, read_record
from gan_baselines.weights import fill

_LAST = {"vgg19": "features.34.weight", "vgg16": "features.28.weight"}
PLACES = (
    "a weights folder of a classifier or adain, the name of shipped weights, a safetensors file of torchvision's or "
    "timm's VGG-16 or VGG-19, or a hub id such as timm/vgg19.tv_in1k"
)


def features_of(place: Path | str, option: str = "--features") -> tuple[Features, Path]:
    """What network the weights at `place` belong to, and the file that holds them. Reads no weights.

    Raises:
        InputError: nothing there, damaged, or no feature network.
    """
    file = tensors_file(place, option)
    if file is not None:
        return Features(kind=_kind(file, option), stages=5), file
    folder = find_weights(place)
    record = read_record(place, option)
    names = [f"{kind}_f.safetensors" for kind in ("helper", "generator") if "f" in record[f"{kind}s"]]
    if not names:
        raise InputError(option, f"'{place}', weights of a {record['model'].get('name')}", PLACES)
    try:
        return Features.model_validate(record["model"].get("features")), folder / names[0]
    except ValidationError as error:
        raise InputError(option, f"'{place}' with settings of features that do not fit", PLACES) from error


def feature_network(place: Path | str, option: str = "--features", **changed: Any) -> FeatureNet:
    """The network of `features_of`, frozen. `changed` are settings that take no weights, such as pool="mean".

    Raises:
        InputError: as there, or a file of another shape.
    """
    config, file = features_of(place, option)
    net = FeatureNet(config.model_copy(update=changed))
    fill(net, file, option, partly=True)
    return net.requires_grad_(False).eval()


def _kind(file: Path, option: str) -> Literal["vgg16", "vgg19"]:
    try:
        with safe_open(file, "pt") as tensors:
            names = set(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(option, f"'{file}', missing or damaged ({error})", PLACES) from error
    if _LAST["vgg19"] in names:
        return "vgg19"
    if _LAST["vgg16"] in names:
        return "vgg16"
    raise InputError(option, f"'{file}' without the layers of VGG-16 or VGG-19", PLACES)
