"""ControlNet and T2I-Adapter on tiny random networks: diffusers' own pipelines are the oracle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    FluxControlNetModel,
    FluxControlNetPipeline,
    SD3ControlNetModel,
    StableDiffusion3ControlNetPipeline,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from flow_toy import sd3_pipeline
from flux_toy import PACKED, flux_pipeline
from method_kit import picture, wrap
from PIL import Image
from safetensors.torch import load_file, save_file

from freectl import methods
from freectl.errors import FreectlError, InputError
from freectl.methods.base import Condition
from freectl.models import control_networks, families
from freectl.pipelines.flux import FreeControlFluxPipeline
from freectl.pipelines.sd3 import FreeControl3Pipeline

STEPS = 4
GIVEN: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "negative_prompt": "grey"}
CASES = [("sd", "controlnet"), ("sd", "t2i-adapter"), ("sdxl", "controlnet"), ("sdxl", "t2i-adapter"),
         ("sd3", "controlnet"), ("sd3-instantx", "controlnet"), ("flux", "controlnet"), ("flux-hint", "controlnet"),
         ("flux-union", "controlnet"), ("flux-schnell", "controlnet")]  # fmt: skip
UNION: dict[str, dict[str, Any]] = {"flux-union": {"control_mode": 2}}


def lively(network: Any) -> Any:
    """Random numbers in place of the zeros that a control network begins with."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def made(toy: Any, family: str, kind: str) -> Any:
    torch.manual_seed(2)
    if kind == "t2i-adapter":
        xl = family == "sdxl"
        return lively(T2IAdapter(3, [8, 16, 16, 16], 1, 8, "full_adapter_xl") if xl
                      else T2IAdapter(3, [8, 16, 16], 1, 4, "full_adapter"))  # fmt: skip
    if family.startswith("sd3"):
        network = SD3ControlNetModel.from_transformer(toy.transformer, num_layers=2, num_extra_conditioning_channels=0)
        network.register_to_config(force_zeros_for_pooled_projection=family == "sd3-instantx")
        return lively(network)
    if family.startswith("flux"):
        changes = {
            "flux-union": {"num_mode": 4},
            "flux-schnell": {"guidance_embeds": True},
            "flux-hint": {"conditioning_embedding_channels": PACKED},
        }
        config = {**toy.transformer.config, "num_layers": 2, "num_single_layers": 1, **changes.get(family, {})}
        return lively(FluxControlNetModel.from_config(config))
    return lively(ControlNetModel.from_unet(toy.unet, conditioning_embedding_out_channels=(4, 8, 8)))


@pytest.fixture(scope="module")
def toys(toy_pipe: Any, toy_xl_pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    flow = sd3_pipeline(tmp_path_factory.mktemp("sd3"))
    torch.manual_seed(4)
    # diffusers copies no UNet into a ControlNet whose blocks differ in layers
    even = UNet2DConditionModel.from_config({**toy_xl_pipe.unet.config, "layers_per_block": 1}).eval()
    xl = StableDiffusionXLPipeline(**{**toy_xl_pipe.components, "unet": even}, add_watermarker=False)
    flux = flux_pipeline(tmp_path_factory.mktemp("flux"))
    return {"sd": toy_pipe, "sdxl": xl, **dict.fromkeys(("sd3", "sd3-instantx"), flow),
            **dict.fromkeys(("flux", "flux-hint", "flux-union"), flux),
            "flux-schnell": flux_pipeline(tmp_path_factory.mktemp("schnell"), guidance=False)}  # fmt: skip


def ours(toy: Any, kind: str, folder: Path | str | None, **settings: Any) -> torch.Tensor:
    opened = {"StableDiffusion3Pipeline": FreeControl3Pipeline, "FluxPipeline": FreeControlFluxPipeline}
    pipe = opened[type(toy).__name__].from_pipe(toy) if hasattr(toy, "transformer") else wrap(toy)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    given = GIVEN | {"generator": generator, "output_type": "latent", "method": methods.get(kind)} | settings
    if isinstance(pipe, FreeControlFluxPipeline):
        del given["negative_prompt"]
        if not toy.transformer.config.guidance_embeds:
            del given["guidance_scale"]
    conditions = [Condition(picture())]
    return pipe("a cat", conditions=conditions, controlnet=None if folder is None else str(folder), **given).images


def theirs(toy: Any, family: str, kind: str, network: Any, scale: float) -> torch.Tensor:
    parts = dict(toy.components)
    generator = torch.Generator().manual_seed(0)
    shared = GIVEN | {"prompt": "a cat", "generator": generator, "output_type": "latent"}
    if kind == "t2i-adapter":
        cls = StableDiffusionXLAdapterPipeline if family == "sdxl" else StableDiffusionAdapterPipeline
        extra = {} if family == "sdxl" else {"requires_safety_checker": False}
        pipe = cls(**{k: v for k, v in parts.items() if k != "image_encoder"}, adapter=network, **extra)
        given = {"image": picture(), "adapter_conditioning_scale": scale, "height": 32, "width": 32}
        given |= {"adapter_conditioning_factor": 0.5} if family == "sdxl" else {}
    elif family.startswith("sd3"):
        pipe = StableDiffusion3ControlNetPipeline(**parts, controlnet=network)
        given = {"control_image": picture(), "controlnet_conditioning_scale": scale, "control_guidance_end": 0.5}
        given |= {"height": 32, "width": 32}
    elif family.startswith("flux"):
        pipe = FluxControlNetPipeline(**parts, controlnet=network)
        given = {"control_image": picture(), "controlnet_conditioning_scale": scale, "control_guidance_end": 0.5}
        given |= {"height": 32, "width": 32} | UNION.get(family, {})
        del shared["negative_prompt"]
        if family == "flux-schnell":  # the network was distilled on guidance, the model was not
            shared["guidance_scale"] = families.FLUX.guidance_scale
    else:
        xl = family == "sdxl"
        cls = StableDiffusionXLControlNetPipeline if xl else StableDiffusionControlNetPipeline
        extra = {"add_watermarker": False} if xl else {"requires_safety_checker": False}
        pipe = cls(**parts, controlnet=network, **extra)
        given = {"image": picture(), "controlnet_conditioning_scale": scale, "control_guidance_end": 0.5}
    pipe.set_progress_bar_config(disable=True)
    return pipe(**shared, **given).images


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_it_is_diffusers_own_pipeline(
    toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, kind: str
) -> None:
    """Half the steps steered at a scale of 0.7; at scale 0 it is plain sampling; the network comes back bare.

    Diffusers' adapter pipeline for Stable Diffusion 1 has no window.
    """
    toy = toys[family]
    network = made(toy, family, kind)
    network.save_pretrained(tmp_path / kind)
    stop = 1.0 if (family, kind) == ("sd", "t2i-adapter") else 0.5
    told = UNION.get(family, {})
    result = ours(toy, kind, tmp_path / kind, scale=0.7, control_stop=stop, **told)
    # diffusers draws the condition's latents from the global generator
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    expected = families.FLUX.unpacked(None, theirs(toy, family, kind, network, 0.7), (8, 8))
    torch.testing.assert_close(result, expected, rtol=0, atol=5e-5)
    free = ours(toy, kind, tmp_path / kind, scale=0.0, **told)
    assert float((result - free).abs().mean()) > 1e-3
    torch.testing.assert_close(free, ours(toy, kind, tmp_path / kind, control_start=1.0, **told), rtol=0, atol=5e-5)
    assert not any(module._forward_pre_hooks for module in families.network_of(toy).modules())


def test_a_batch_is_its_pictures_and_a_negative_is_the_inverted_picture(toys: Any, tmp_path: Path) -> None:
    toy = toys["sd"]
    for kind in ("controlnet", "t2i-adapter"):
        made(toy, "sd", kind).save_pretrained(tmp_path / kind)
        pipe, negative = wrap(toy), Image.eval(picture(), lambda value: 255 - value)

        def run(prompts: list[str], seeds: list[int], condition: Image.Image, kind: str = kind, **given: Any) -> Any:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            shared = GIVEN | {"output_type": "latent", "method": methods.get(kind), "generator": generators}
            shared |= {"conditions": [Condition(condition)], "controlnet": str(tmp_path / kind)}
            return pipe(prompts, **(shared | given)).images  # noqa: B023 - run at once

        both = run(["a cat", "a dog"], [1, 2], picture())
        torch.testing.assert_close(both[1:], run(["a dog"], [2], picture()), rtol=0, atol=2e-5)
        assert torch.equal(run(["a cat"], [1], negative, inverted=True), run(["a cat"], [1], picture()))


def test_an_adapter_of_one_channel_sees_grey(toys: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    lively(T2IAdapter(1, [8, 16, 16], 1, 4, "full_adapter")).save_pretrained(tmp_path)
    pipe = wrap(toys["sd"])
    same = [
        pipe("a cat", conditions=[Condition(one)], method=methods.get("t2i-adapter"), controlnet=str(tmp_path),
             output_type="latent", generator=torch.Generator().manual_seed(0), **GIVEN).images
        for one in (picture(), picture().convert("L").convert("RGB"))
    ]  # fmt: skip
    assert torch.equal(*same)


def test_where_a_network_is_found(toys: Any, tmp_path: Path) -> None:
    """In the model's folder, as a folder, as a file with its configuration beside it: the same picture."""
    toy = toys["sd"]
    network, folder = made(toy, "sd", "controlnet"), tmp_path / "model" / "controlnet"
    network.save_pretrained(folder)
    expected = ours(toy, "controlnet", folder)
    file = tmp_path / "edges.safetensors"
    save_file(network.state_dict(), file)
    with pytest.raises(FreectlError, match="--controlnet .*edges"):
        ours(toy, "controlnet", file)
    (tmp_path / "edges").mkdir()
    network.save_config(tmp_path / "edges")
    assert torch.equal(ours(toy, "controlnet", file), expected)
    assert control_networks.located(None, "controlnet", str(tmp_path / "model")).path == str(folder)
    assert control_networks.located("lllyasviel/some-net", "controlnet", None).kind == "hub"


def damaged(folder: Path) -> str:
    (folder / "config.json").write_text("{")
    return str(folder)


def lacking(folder: Path) -> str:
    path = folder / "diffusion_pytorch_model.safetensors"
    save_file(dict(list(load_file(path).items())[1:]), path)
    return str(folder)


def pickled(folder: Path) -> str:
    (folder / "net.pth").write_bytes(b"x")
    return str(folder / "net.pth")


def changed(**values: Any) -> Callable[[Path], str]:
    def change(folder: Path) -> str:
        config = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return change


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda folder: str(folder / "no"), "no such folder"),
        (lambda folder: str(folder.parent), "without config.json"),
        (pickled, "pickled"),
        (damaged, "damaged"),
        (lacking, "lacks"),
        (changed(_class_name="FluxControlNetModel"), "a FluxControlNetModel; allowed: a ControlNetModel"),
        (changed(cross_attention_dim=768), "of another model: cross_attention_dim 768"),
        (changed(global_pool_conditions=True), "as a whole"),
        (lambda _folder: None, "nothing, and no controlnet/config.json"),
    ],
)
def test_a_network_that_cannot_be_used_is_told_in_one_line(
    toys: Any, tmp_path: Path, prepare: Callable[[Path], Any], told: str
) -> None:
    made(toys["sd"], "sd", "controlnet").save_pretrained(tmp_path / "net")
    with pytest.raises(FreectlError) as caught:
        ours(toys["sd"], "controlnet", prepare(tmp_path / "net"))
    assert told in str(caught.value)
    assert "controlnet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "given", "told"),
    [
        ("flux", {"control_mode": 1}, "found 1 for a network of one kind of condition; allowed: none"),
        ("flux-union", {}, "found none; allowed: 0 to 3"),
        ("flux-union", {"control_mode": 4}, "found 4; allowed: 0 to 3"),
    ],
)
def test_a_union_network_is_told_its_kind_of_condition(
    toys: Any, tmp_path: Path, family: str, given: dict[str, int], told: str
) -> None:
    """Before weights are read: there are none."""
    made(toys["flux"], family, "controlnet").save_config(tmp_path)
    method = methods.get("controlnet")
    settings = method.settings(controlnet=str(tmp_path), **given)
    with pytest.raises(InputError, match=f"control_mode: {told}"):
        method.check_files(settings, None, families.FLUX, None)


def test_what_diffusers_has_no_network_for_is_refused(toys: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="method: found t2i-adapter, which does not run on sd3"):
        ours(toys["sd3"], "t2i-adapter", tmp_path)
    place = control_networks.located("a/b", "t2i-adapter", None)
    with pytest.raises(InputError, match="none is loaded here"):
        control_networks.check_fits(place, "t2i-adapter", families.SD3, None)
    pipe = wrap(toys["sd"])
    several = [Condition(picture()), Condition(picture(1))]
    for conditions, told in ((several, "2 for controlnet"), ([Condition(picture(), mask="attention")], "mask")):
        with pytest.raises(InputError, match=told):
            pipe("a cat", conditions=conditions, method=methods.get("controlnet"), **GIVEN)
