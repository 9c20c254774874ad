"""Generators measured by their samples: true scenes are right and near, others are neither; settings of cascades."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline
from PIL import Image
from typer.testing import CliRunner

from eval.showcase import generators
from eval.showcase.generators import Setting
from freectl.errors import InputError
from freectl.mini import MODEL_DIR
from freectl.mini.captions import fixed_captions
from freectl.mini.domain import PICTURE_SIZE
from freectl.mini.judge import load_judge
from freectl.mini.sampling import Sampler
from freectl.mini.scene import random_scene, render
from freectl.mini.training.cascade import CascadePart

WANTED = fixed_captions()[:40]


class Painter:
    """Draws what it is made with, in place of a generator."""

    def __init__(self, pictures: list[Image.Image]) -> None:
        self.pictures = pictures

    def draw(self, *_: Any) -> list[Image.Image]:
        """The pictures."""
        return self.pictures


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    for name, stage in (("cascade-base", "base"), ("cascade-sr", "sr")):
        CascadePart(name, folder, (8, 32)).export(folder / "cascade" / stage)
    return folder / "cascade"


def measured(pictures: list[Image.Image]) -> generators.Sampled:
    judge = load_judge(MODEL_DIR / "judge")
    return generators.measured(Painter(pictures), judge, WANTED, Setting(4.0), 1)  # type: ignore[arg-type]


def test_true_scenes_are_right_and_near_and_others_are_not() -> None:
    rng, words = random.Random(0), ("object", "style", "background")
    own = [random_scene(rng).with_words(**{word: getattr(one, word) for word in words}) for one in WANTED]
    true = measured([render(scene) for scene in own])
    assert true.right["all"].mean > 0.9
    assert true.right["all"].mean <= min(true.right[word].mean for word in words)
    shifted = measured([render(scene) for scene in [*own[1:], own[0]]])  # the same set, each below another caption
    assert shifted.right["object"].mean < 0.3
    assert shifted.kid == pytest.approx(true.kid)
    assert shifted.covered == true.covered
    grey = measured([Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), "grey")] * len(WANTED))
    assert grey.kid > 10 * abs(true.kid)
    assert grey.covered < true.covered


def test_a_cascade_is_kept_in_range_as_diffusers_does(cascade: Path) -> None:
    text = "a fluent fox on a blue background"
    saved = Sampler(cascade).draw([text], steps=3)[0]
    made = {}
    for kind, options in {
        "dynamic": {"thresholding": True, "clip_sample": False},
        "static": {"thresholding": False, "clip_sample": True},
        "none": {"thresholding": False, "clip_sample": False},
    }.items():
        sampler = Sampler(cascade)
        sampler.threshold(kind)  # type: ignore[arg-type]
        made[kind] = sampler.draw([text], steps=3, noise_level=100)[0].tobytes()
        generator = torch.Generator().manual_seed(0)
        given = {"num_inference_steps": 3, "guidance_scale": 4.0, "clean_caption": False, "generator": generator}
        first = IFPipeline.from_pretrained(cascade / "base", safety_checker=None, watermarker=None)
        second = IFSuperResolutionPipeline.from_pretrained(cascade / "sr", safety_checker=None, watermarker=None)
        for stage in (first, second):
            stage.scheduler = DDPMScheduler(**{**stage.scheduler.config, **options})
        small = first(text, output_type="pt", **given).images
        assert second(text, image=small, noise_level=100, **given).images[0].tobytes() == made[kind]
    assert len(set(made.values())) == 3
    sampler = Sampler(cascade)
    sampler.threshold("dynamic")
    assert sampler.draw([text], steps=3)[0].tobytes() == saved.tobytes()  # as it is saved


def test_settings_are_all_combinations_and_latents_have_guidance_alone() -> None:
    made = list(generators.settings_of("cascade", [1, 4], ["static", "none"], [0, 250]))
    assert len(made) == len(set(made)) == 8
    assert list(generators.settings_of("cascade", [4], [], [])) == [Setting(4)]
    assert list(generators.settings_of("StableDiffusionPipeline", [1, 4], ["none"], [0])) == [Setting(1), Setting(4)]
    with pytest.raises(InputError, match="--thresholding: found 'static' of a generator of latents"):
        Sampler(MODEL_DIR).threshold("static")


def test_the_command_prints_a_row_a_setting_or_one_line(cascade: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(generators.main)
    options = ["--captions", "2", "--steps", "1"]
    several = ["--thresholding", "dynamic", "--thresholding", "none", "--noise-level", "100"]
    done = CliRunner().invoke(app, [str(cascade), *several, *options])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split(" | ")[1:4] for line in lines[2:]] == [["4", "dynamic", "100"], ["4", "none", "100"]]
    assert {line.count("|") for line in lines} == {len(generators.COLUMNS) + 1}
    for arguments, message in {
        (str(tmp_path),): "FOLDER: found .*no model_index.json",
        (str(MODEL_DIR), "--noise-level", "1"): "--noise-level: found generators of latents alone",
        (str(cascade), "--thresholding", "hard"): "--thresholding: found 'hard'; allowed",
        (str(MODEL_DIR), "--judge", str(tmp_path)): "--judge: found .*no config.json",
    }.items():
        failed = CliRunner().invoke(app, [*arguments, *options])
        assert isinstance(failed.exception, InputError)
        assert failed.exception.exit_code == 2
        assert re.search(message, str(failed.exception))
