"""What is kept is found again exactly when nothing it depends on has changed, each ingredient alone."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from peft import LoraConfig
from PIL import Image

from freectl.models.engine import Engine
from freectl.models.text_extras import MicroConditioning
from freectl.semantics.store import BasesSpec, key_of, seed_prompts

STEPS = 5
PICTURE = Image.new("RGB", (32, 32), "red")


def copied(pipe: Any) -> Any:
    """A pipeline whose parts may be changed."""
    checker = {} if hasattr(pipe, "text_encoder_2") else {"requires_safety_checker": False}
    return type(pipe)(**copy.deepcopy(pipe.components), **checker)


def inversion(pipe: Any, image: Image.Image = PICTURE, prompt: str = "", steps: int = STEPS, **engine: Any) -> str:
    """The cache key of an inversion; nothing is inverted."""
    made = Engine(pipe, **engine)
    made.cached = lambda kind, key, build: {"clean": torch.zeros(1)}  # type: ignore[method-assign]
    return made.invert(image, prompt, made.path(steps))[1]


def bases(pipe: Any, concept: str = "cat", steps: int = 50, **spec: Any) -> str:
    """The cache key of bases; nothing is built."""
    engine = Engine(pipe)
    prompts = seed_prompts("photos", concept, "a cat")
    given = {"seeds": 4, "components": 8, "features": "sampling", "stop": 0.6}
    sites = tuple(engine.family.structure_sites(pipe.unet))
    return key_of(BasesSpec(**{"prompts": prompts, "sites": sites, "steps": steps} | given | spec).metadata(engine))


def nudge(name: str) -> Callable[[Any], Any]:
    """One weight of a network a little larger, in the way a merged LoRA changes it."""

    def change(pipe: Any) -> None:
        next(getattr(pipe, name).parameters()).data.view(-1)[0] += 1e-3

    return change


def rescheduled(**config: Any) -> Callable[[Any], Any]:
    def change(pipe: Any) -> None:
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **config)

    return change


def lora(pipe: Any) -> None:
    torch.manual_seed(0)
    pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k"]))


def switched_off(pipe: Any) -> None:
    lora(pipe)
    pipe.unet.disable_adapters()


MODEL = {
    "checkpoint": nudge("unet"),
    "text encoder": nudge("text_encoder"),
    "schedule": rescheduled(beta_end=0.013),
    "prediction type": rescheduled(prediction_type="v_prediction"),
    "offset": rescheduled(steps_offset=0),
    "LoRA": lora,
    "LoRA switched off": switched_off,
    "half": lambda pipe: pipe.to(torch.float16),
    "bf16": lambda pipe: pipe.to(torch.bfloat16),
    "learnt word": lambda pipe: pipe.load_textual_inversion({"<a>": torch.ones(16)}, token="<a>"),
    "learnt word of another name": lambda pipe: pipe.load_textual_inversion({"<b>": torch.ones(16)}, token="<b>"),
}


@pytest.mark.parametrize("kind", [inversion, bases])
def test_any_part_of_the_model_alone_changes_the_key(toy_pipe, toy_xl_pipe, kind):
    keys = {"unchanged": kind(toy_pipe), "xl": kind(toy_xl_pipe)}
    assert kind(copied(toy_pipe)) == keys["unchanged"]
    for name, change in MODEL.items():
        pipe = copied(toy_pipe)
        change(pipe)
        keys[name] = kind(pipe)
        assert kind(pipe) == keys[name], name
    xl = copied(toy_xl_pipe)
    nudge("text_encoder_2")(xl)
    keys["second text encoder"] = kind(xl)
    if kind is inversion:
        pipe = copied(toy_pipe)
        nudge("vae")(pipe)
        keys["VAE"] = kind(pipe)
    assert len(set(keys.values())) == len(keys), keys


def test_any_part_of_the_run_alone_changes_an_inversions_key(toy_pipe, toy_xl_pipe):
    other = PICTURE.copy()
    other.putpixel((0, 0), (254, 0, 0))
    keys = [
        inversion(toy_pipe),
        inversion(toy_pipe, other),
        inversion(toy_pipe, PICTURE.resize((32, 40))),
        inversion(toy_pipe, PICTURE.resize((40, 32))),  # as many bytes as the one before
        inversion(toy_pipe, prompt="a cat"),
        inversion(toy_pipe, steps=STEPS + 1),
        inversion(toy_pipe, cross_attention_kwargs={"scale": 0.5}),
        inversion(toy_xl_pipe),
        inversion(toy_xl_pipe, micro=MicroConditioning(original_size=(64, 64))),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "change",
    [
        {"concept": "dog"},
        {"seeds": 5},
        {"components": 9},
        {"features": "inversion"},
        {"stop": 0.7},
        {"steps": 40},
        {"sites": ("up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k",)},
    ],
)
def test_any_part_of_a_spec_alone_changes_the_bases_key(toy_pipe, change):
    assert bases(toy_pipe, **change) != bases(toy_pipe)
