"""The parts of the 128 px world at tiny sizes: they resume to the same weights, and diffusers itself loads them."""

import random
import shutil
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DiffusionPipeline,
    IFPipeline,
    IFSuperResolutionPipeline,
    StableDiffusion3Pipeline,
    T2IAdapter,
)
from PIL import Image
from typer.testing import CliRunner

from freectl.cli import app
from freectl.errors import InputError
from freectl.mini import MODEL_DIR
from freectl.mini.domain import PICTURE_SIZE
from freectl.mini.judge import Judge, judge_pictures, load_judge, save_judge
from freectl.mini.scene import Scene, random_scene, render, render_mask
from freectl.mini.score_control import score_control
from freectl.mini.training import run
from freectl.mini.training.cascade import CascadePart
from freectl.mini.training.clip import ClipPart
from freectl.mini.training.control import ControlPart, condition
from freectl.mini.training.data import batch_rng, scene_batch
from freectl.mini.training.flow import LONG, LONG_EVERY, SHORT, FlowPart, make_transformer
from freectl.mini.training.judge import JudgePart
from freectl.mini.training.networks import make_vae
from freectl.mini.training.recipe import SHIPPED, SMALL, Recipe
from freectl.mini.training.t5 import make_t5_tokenizer
from freectl.mini.training.trainer import TrainConfig, Trainer
from freectl.mini.training.unet import UNetPart
from freectl.mini.training.vae import DecoderPart, VAEPart
from freectl.models import families
from freectl.models.engine import Engine
from freectl.pipelines.sd3 import FreeControl3Pipeline

CONFIG = TrainConfig(pictures=8, batch=2, warmup=1, bf16=False, checkpoint_seconds=1e6)
PARTS = ["decoder", "unet", "flow", "controlnet", "t2i-adapter", "cascade-base", "cascade-sr", "judge"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Path:
    """The tiny model with the first stage of a cascade, whose text encoder the second takes."""
    CascadePart("cascade-base", tiny_model, (8, 32)).export(tiny_model / "cascade" / "base")
    return tiny_model


def make(name: str, model: Path, recipe: Recipe) -> Any:
    made = {
        "decoder": lambda: DecoderPart(model, recipe),
        "unet": lambda: UNetPart(model, recipe),
        "flow": lambda: FlowPart(model, recipe),
        "controlnet": lambda: ControlPart("controlnet", model, recipe),
        "t2i-adapter": lambda: ControlPart("t2i-adapter", model, recipe),
        "cascade-base": lambda: CascadePart("cascade-base", model, (8, 32)),
        "cascade-sr": lambda: CascadePart("cascade-sr", model, (8, 32)),
        "judge": lambda: JudgePart(model, 128),
    }
    return made[name]()


@pytest.mark.parametrize(("name", "muon"), list(zip(PARTS, cycle([True, False]))))
def test_parts_resume_to_the_same_weights(
    tmp_path: Path, model: Path, tiny_recipe: Recipe, name: str, muon: bool
) -> None:
    config = replace(CONFIG, muon=muon)
    straight = Trainer(make(name, model, tiny_recipe), config, tmp_path)
    before = {key: value.detach().clone() for key, value in straight.parameters.items()}
    straight._train_step()
    straight.save()
    straight._train_step()
    resumed = Trainer(make(name, model, tiny_recipe), config, tmp_path)
    resumed._train_step()
    assert all(torch.equal(value, straight.parameters[key]) for key, value in resumed.parameters.items())
    moved = [key for key, value in before.items() if not torch.equal(value, resumed.parameters[key])]
    assert len(moved) > len(before) / 4  # zero-initialised layers hide others from the first steps


def test_a_larger_autoencoder_starts_from_the_layers_next_to_the_pixels(tmp_path: Path) -> None:
    """Names counted by hand: the decoder's blocks are numbered from the latents, the encoder's from the pixels."""
    part = VAEPart(SHIPPED)
    make_vae(SMALL).save_pretrained(tmp_path / "vae")
    old = AutoencoderKL.from_pretrained(tmp_path / "vae").float().state_dict()
    part.start_from(tmp_path)
    new = part.vae.state_dict()
    same = "resnets.0.conv1.weight"
    for index in (0, 1, 2):
        assert torch.equal(new[f"encoder.down_blocks.{index}.{same}"], old[f"encoder.down_blocks.{index}.{same}"])
    for index in (1, 2):
        assert torch.equal(new[f"decoder.up_blocks.{index + 1}.{same}"], old[f"decoder.up_blocks.{index}.{same}"])
    assert torch.equal(new["decoder.conv_out.weight"], old["decoder.conv_out.weight"])


def test_the_decoder_trains_alone(tmp_path: Path, model: Path, tiny_recipe: Recipe) -> None:
    part = DecoderPart(model, tiny_recipe)
    before = AutoencoderKL.from_pretrained(model / "vae").float().state_dict()
    Trainer(part, replace(CONFIG, sheet_steps=100), tmp_path / "run").run()
    part.export(tmp_path / "vae")
    after = AutoencoderKL.from_pretrained(tmp_path / "vae").float()
    for name, value in after.state_dict().items():
        kept = name.startswith(("encoder.", "quant_conv."))
        assert torch.equal(value, before[name].half().float()) == kept or value.abs().sum() == 0, name
    assert (after.config.scaling_factor, after.config.shift_factor) == (0.5, 0.0)


def test_the_flow_model_loads_and_samples_as_stable_diffusion_3(
    tmp_path: Path, model: Path, tiny_recipe: Recipe
) -> None:
    part = FlowPart(model, tiny_recipe)
    part.export(tmp_path)
    pipe = StableDiffusion3Pipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "output_type": "pt", "max_sequence_length": SHORT}
    one, two = (
        some("a fluent fox", generator=torch.Generator().manual_seed(0), **options).images for some in (pipe, part.pipe)
    )
    assert one.shape == (1, 3, 128, 128)
    torch.testing.assert_close(one, two, rtol=0, atol=5e-3)  # half precision of the file
    ours = FreeControl3Pipeline.from_pretrained(tmp_path)
    assert Engine(ours).text.reads == SHORT


def test_the_shipped_transformer_is_a_family_of_its_own() -> None:
    with torch.device("meta"):
        network = make_transformer(SHIPPED)
    assert families.of(network) is families.MINI_FLOW
    assert families.MINI_FLOW.patch(network) == 2
    assert families.MINI_FLOW.latent_shape(network) == (8, 16, 16)


def test_the_flow_is_straight_from_noise_to_latents(model: Path, tiny_recipe: Recipe) -> None:
    """A transformer that answers n - x0, worked out from its own input and time, has no loss; T5 is long at times."""
    part = FlowPart(model, tiny_recipe)
    seen: list[tuple[int, torch.Tensor]] = []

    class Answer:
        def __call__(self, hidden_states, timestep, encoder_hidden_states, pooled_projections):
            latents = part.latents.batch(0, self.step, 4).latents
            sigma = (timestep / 1000).view(-1, 1, 1, 1)
            seen.append((encoder_hidden_states.shape[1], timestep))
            return type("Out", (), {"sample": (hidden_states - latents) / sigma})

    part.transformer = answer = Answer()
    for answer.step in (0, LONG_EVERY - 1):
        assert part.losses(0, answer.step, 4)["loss"].item() < 1e-6
    assert [tokens - 24 for tokens, _ in seen] == [SHORT, LONG]
    assert all((times.diff() > 0).all() and times.min() > 0 and times.max() < 1000 for _, times in seen)


@pytest.mark.parametrize("kind", ["controlnet", "t2i-adapter"])
def test_control_networks_begin_without_influence_where_they_should(
    tmp_path: Path, model: Path, tiny_recipe: Recipe, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh ControlNet's zero convolutions leave the generator's loss as it is; a step of training does not."""
    monkeypatch.setattr(ControlPart, "sheet", lambda _self: Image.new("RGB", (8, 8)))  # sampled, and made elsewhere
    part = ControlPart(kind, model, tiny_recipe)
    plain = part.base.losses(0, 0, 2)["loss"].item()
    if kind == "controlnet":
        assert part.losses(0, 0, 2)["loss"].item() == pytest.approx(plain, abs=1e-6)
    before = {name: value.clone() for name, value in part.base.unet.state_dict().items()}
    Trainer(part, CONFIG, tmp_path / "run").run()
    assert part.losses(0, 0, 2)["loss"].item() != plain
    assert all(torch.equal(value, before[name]) for name, value in part.base.unet.state_dict().items())
    part.export(tmp_path / kind)
    loaded = {"controlnet": ControlNetModel, "t2i-adapter": T2IAdapter}[kind].from_pretrained(tmp_path / kind)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value.half(), part.network.state_dict()[name].half())


def test_conditions_are_of_the_drawing_itself() -> None:
    scene = Scene("fox", "fluent", "blue", "fluent", rotation=5)
    for style in ("sketch", "silhouette"):
        assert (
            condition(scene, style, 128).tobytes() == render(Scene("fox", style, "white", "fluent", 5), 128).tobytes()
        )


@pytest.mark.parametrize(("name", "kind"), [("cascade-base", IFPipeline), ("cascade-sr", IFSuperResolutionPipeline)])
def test_both_stages_load_as_deepfloyd_if(tmp_path: Path, model: Path, name: str, kind: type) -> None:
    part = CascadePart(name, model, (8, 32))
    texts = ["a fluent fox on a blue background", ""]
    theirs = part.pipeline().encode_prompt(texts, do_classifier_free_guidance=False)[0]
    torch.testing.assert_close(part.encode_text(texts), theirs)
    part.export(tmp_path)
    pipe = DiffusionPipeline.from_pretrained(tmp_path)
    assert isinstance(pipe, kind)
    pipe.set_progress_bar_config(disable=True)
    extra = {"image": torch.zeros(1, 3, 16, 16)} if name == "cascade-sr" else {}
    made = pipe(texts[0], num_inference_steps=2, clean_caption=False, output_type="pt", **extra).images
    assert made.shape == (1, 3, part.side, part.side)
    assert made.abs().max() <= 1.001  # thresholded


def test_the_t5_tokenizer_knows_each_word_as_one_token() -> None:
    tokenizer = make_t5_tokenizer()
    ids = tokenizer("a fluent fox on a blue background").input_ids
    assert len(ids) == 8
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.unk_token_id in tokenizer("a zebra").input_ids


def test_a_judge_of_128_px_sees_pictures_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = Judge(size=128).eval()
    save_judge(judge, tmp_path)
    loaded = load_judge(tmp_path)
    assert loaded.size == 128
    scenes, pictures = scene_batch(batch_rng(0, 0), 2, size=128)
    _, mask = loaded(pictures)
    assert mask.shape == (2, 1, 128, 128)
    assert judge_pictures(loaded, [render(scene, 128) for scene in scenes])[0].mask.shape == (128, 128)
    assert judge_pictures(loaded, [Image.new("RGB", (64, 64))])[0].mask.shape == (128, 128)
    assert load_judge(MODEL_DIR / "judge").size == PICTURE_SIZE


def test_a_clip_of_128_px_has_as_many_patches(tiny_model: Path) -> None:
    part = ClipPart(tiny_model, 128)
    assert part.clip.visual.positional_embedding.shape[0] == 8 * 8 + 1
    assert torch.isfinite(part.losses(0, 1, 4)["loss"])


@pytest.mark.parametrize("kind", ["controlnet", "t2i-adapter"])
def test_control_is_scored_by_outline_and_words(model: Path, tmp_path: Path, tiny_recipe: Recipe, kind: Any) -> None:
    """With a judge that sees the whole picture as the object, the overlap is the share that the true masks cover."""
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    judge = Judge(size=128).eval()
    torch.nn.init.zeros_(judge.mask[-1].weight)
    torch.nn.init.ones_(judge.mask[-1].bias)
    with pytest.raises(InputError, match=f"no {kind}"):
        score_control(folder, kind, judge, 2, 1, tiny_recipe)
    ControlPart(kind, folder, tiny_recipe).export(folder / kind)
    scores = score_control(folder, kind, judge, 3, 1, tiny_recipe)
    rng = random.Random("control/1234")
    scenes = [random_scene(rng, styles=("noto", "twemoji", "fluent"), held_out=False) for _ in range(3)]
    covered = [np.asarray(render_mask(scene, 128)).mean() / 255 for scene in scenes]
    for style in ("sketch", "silhouette"):
        assert scores[f"{style}_outline_iou"] == pytest.approx(np.mean(covered), abs=1e-4)
        assert scores[f"{style}_object_agreement"] in {0, 0.3333, 0.6667, 1}


@pytest.mark.parametrize(
    ("part", "size", "told"),
    [("unet", 128, "no vae/config.json"), ("controlnet", 128, "no vae"), ("cascade-sr", 64, "no cascade/base"),
     ("vae", 100, "--size: found 100")],
)  # fmt: skip
def test_a_part_without_what_it_builds_on_is_refused(tmp_path: Path, part: str, size: int, told: str) -> None:
    command = ["mini", "train", "--part", part, "--size", str(size), "--out", str(tmp_path / "run"), "--model"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "model")])
    assert isinstance(result.exception, InputError)
    assert told in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_part_of_another_picture_size_is_refused(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="autoencoder is of 128 px; allowed: 128"):
        run.check_inputs("flow", tiny_model, 64)
    for part in PARTS[:4]:
        run.check_inputs(part, tiny_model, 128)
    for part in ("unet", "controlnet", "t2i-adapter"):
        run.check_inputs(part, MODEL_DIR, 128)
