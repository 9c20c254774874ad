"""Generators as ONNX files, for runtimes without PyTorch: numbers in, numbers out, no noise of their own."""

import copy
import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.onnx import OnnxExporterError

from gan_baselines.config import CHANNELS, LEAST_SIDE
from gan_baselines.errors import GanError, InputError
from gan_baselines.files import replace_folder
from gan_baselines.networks.convolutions import Conv2d, ConvTranspose2d
from gan_baselines.networks.norms import InstanceNorm2d
from gan_baselines.weights import Weights

TOLERANCE = 1e-3
"""Of the range [-1, 1], a tenth of a level of 8 bits: what another runtime's rounding may change."""
_PLAIN = {Conv2d: nn.Conv2d, ConvTranspose2d: nn.ConvTranspose2d, InstanceNorm2d: nn.InstanceNorm2d}
_NEEDS = ("onnx", "onnxscript", "onnxruntime")


class _Affine(nn.Module):
    """Batch norm with stored statistics, written out: older exporters do not know it."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        mean, variance = (cast(Tensor, of).detach() for of in (norm.running_mean, norm.running_var))
        scale = norm.weight.detach() / (variance + norm.eps).sqrt()
        self.scale, self.shift = scale[:, None, None], (norm.bias.detach() - mean * scale)[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class _StyleOf(nn.Module):
    def __init__(self, network: Any, direction: str) -> None:
        super().__init__()
        self.network, self.direction = network, direction

    def forward(self, target: Tensor) -> Tensor:
        return self.network.style_of(self.direction, target)


def check_packages() -> None:
    """Raise before anything is read, where packages lack.

    Raises:
        GanError: with the command that installs them.
    """
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise GanError(f"{', '.join(missing)} not installed: pip install 'freectl[onnx]'")


def export_onnx(weights: Weights, out: Path, size: int | None = None) -> dict[str, Any]:
    """Write a folder with one file a direction, or one that draws from noise, each compared with PyTorch by running it.

    AB.onnx takes "picture" (1, C, H, W) in [-1, 1] and gives "translation". A model with several answers
    also takes "style" (1, n), which AB.style.onnx reads off a "target" picture. sample.onnx takes "noise" (N, n), and
    "condition" (N, m) where the model has one, and gives "pictures". Dropout is off; batch norm takes the picture's
    own statistics in translators and stored ones in samplers, as `translate` and `sample` do.

    Args:
        size: side of the pictures that go in, px; other sides need a file of their own. None = the model's, else 256.

    Returns:
        By file: names and shapes of inputs, and the largest difference to PyTorch.

    Raises:
        InputError: a side that does not fit, or a model that is no plain network.
        GanError: a file gives other numbers than PyTorch.
    """
    side = _side(weights, size)
    jobs = _jobs(weights, side)
    if not jobs:
        raise InputError("--weights", f"a {weights.model.name}, which gives no pictures", "weights of another model")
    told: dict[str, Any] = {}

    def fill(folder: Path) -> None:
        for name, (network, inputs, result) in jobs.items():
            told[name] = _written(network, inputs, result, folder / name)
        (folder / "about.json").write_text(json.dumps({"model": weights.model.name, "files": told}, indent=1) + "\n")

    replace_folder(out, fill)
    return told


def _side(weights: Weights, size: int | None) -> int:
    own = weights.model.side
    side = size or own or 256
    if own not in (None, side):
        raise InputError("--size", str(side), f"{own}, the one side of these weights")
    if not weights.translators:
        return side
    if side % weights.multiple or side < LEAST_SIDE:
        raise InputError("--size", str(side), f"multiples of {weights.multiple} from {LEAST_SIDE} px on")
    return side


def _jobs(weights: Weights, side: int) -> dict[str, tuple[nn.Module, dict[str, Tensor], str]]:
    """By file name: a network, inputs by name, and the name of what it gives."""
    rng = torch.Generator().manual_seed(0)
    jobs: dict[str, tuple[nn.Module, dict[str, Tensor], str]] = {}
    if (sampler := weights.noise_generator) is not None:
        inputs = {"noise": torch.randn(2, int(sampler.noise), generator=rng)}
        if weights.network and (condition := weights.network.some_condition()) is not None:
            inputs["condition"] = condition.expand(2, -1).clone()
        jobs["sample.onnx"] = (_plain(sampler, own_statistics=False), inputs, "pictures")
    # a search for the noise of a picture, as CoGAN's, is no network
    for direction, network in ({} if hasattr(weights.model, "search") else weights.translators).items():
        inputs = {"picture": _picture(weights.model, direction, side, rng)}
        if (style := _style_of(weights, direction, side, rng)) is not None:
            of = _plain(_StyleOf(weights.network, direction), own_statistics=True)
            jobs[f"{direction}.style.onnx"] = (of, {"target": style[0]}, "style")
            inputs["style"] = style[1]
        jobs[f"{direction}.onnx"] = (_plain(network, own_statistics=True), inputs, "translation")
    return jobs


def _picture(model: Any, direction: str, side: int, rng: torch.Generator) -> Tensor:
    if not hasattr(model, "labels"):
        return torch.rand(1, CHANNELS[model.form(direction[0])], side, side, generator=rng) * 2 - 1
    return torch.randint(0, model.labels, (1, 1 + int(model.instances), side, side), generator=rng).float()


def _style_of(weights: Weights, direction: str, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor] | None:
    """A picture and its style, for models that have styles."""
    target = torch.rand(1, 3, side, side, generator=rng) * 2 - 1
    try:
        with torch.inference_mode():
            return (target, weights.network.style_of(direction, target).clone()) if weights.network else None
    except InputError:
        return None


def _plain(network: nn.Module, own_statistics: bool) -> nn.Module:
    """A copy of PyTorch's own layers, whose batch norms take the statistics of one picture or the stored ones."""
    made = copy.deepcopy(network).eval().requires_grad_(False)
    for layer in list(made.modules()):
        if parametrize.is_parametrized(layer):
            _settle(layer)
        if type(layer) in _PLAIN:
            layer.__class__ = _PLAIN[type(layer)]
        elif not own_statistics:
            for name, part in layer.named_children():
                if isinstance(part, nn.BatchNorm2d):
                    setattr(layer, name, _Affine(part))
        elif isinstance(layer, nn.BatchNorm2d):  # of one picture: instance norm with its weights
            layer.__class__ = nn.InstanceNorm2d  # type: ignore[assignment]
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    return made


def _settle(layer: nn.Module) -> None:
    """Keep the weight that spectral or weight norm gives; PyTorch's own way would change the original's class too."""
    weights = {name: getattr(layer, name).detach() for name in layer.parametrizations}  # type: ignore[union-attr]
    del layer.parametrizations
    layer.__class__ = type(layer).__mro__[1]
    for name, weight in weights.items():
        layer.register_buffer(name, weight)


def _written(network: nn.Module, inputs: dict[str, Tensor], result: str, file: Path) -> dict[str, Any]:
    import onnxruntime

    exporting = logging.getLogger("torch.onnx")
    level = exporting.level
    exporting.setLevel(logging.ERROR)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = network(*inputs.values())
            torch.onnx.export(network, tuple(inputs.values()), file, input_names=list(inputs), output_names=[result],
                              dynamo=True, external_data=False, verbose=False)  # fmt: skip
    except OnnxExporterError as error:
        raise InputError("--weights", f"a network for {file.name} that ONNX cannot say", "another model's") from error
    finally:
        exporting.setLevel(level)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run([result], {name: value.numpy() for name, value in inputs.items()})[0])
    far = float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))
    if not far <= TOLERANCE:
        raise GanError(f"'{file.name}' gives numbers up to {far:.3g} from PyTorch's; allowed: {TOLERANCE}")
    shapes = {name: list(value.shape) for name, value in inputs.items()}
    return {"inputs": shapes, "output": {result: list(found.shape)}, "difference": far}
