"""Sampling from any generator of the embedded world: the pipelines of diffusers, called alike."""

from pathlib import Path

import pytest
import torch
from diffusers import IFPipeline, IFSuperResolutionPipeline, StableDiffusion3Pipeline
from typer.testing import CliRunner

from freectl.cli import app
from freectl.errors import InputError
from freectl.mini.captions import fixed_captions
from freectl.mini.drawing_distance import mean_distances
from freectl.mini.judge import Judge, judge_pictures, load_judge, save_judge
from freectl.mini.sampling import Sampler, generator_kind
from freectl.mini.score import score_model
from freectl.mini.tensors import to_tensor
from freectl.mini.training.cascade import CascadePart
from freectl.mini.training.flow import FlowPart
from freectl.mini.training.recipe import Recipe

TEXTS = ["a fluent fox on a blue background", "a noto cat"]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pictures_depend_on_their_own_seed_alone(tiny_model: Path) -> None:
    sampler = Sampler(tiny_model)
    both = sampler.draw(TEXTS, steps=2, first_seed=3)
    assert [picture.size for picture in both] == [(128, 128)] * 2
    alone = sampler.draw(TEXTS[1:], steps=2, first_seed=4)[0]
    assert (to_tensor([alone]) - to_tensor(both[1:])).abs().max() <= 2 / 127.5  # rounding of batches
    assert both[0].tobytes() != both[1].tobytes()


def test_the_flow_model_draws_as_diffusers_does(tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe) -> None:
    FlowPart(tiny_model, tiny_recipe).export(tmp_path)
    ours = Sampler(tmp_path).draw(TEXTS[:1], steps=2, first_seed=5, guidance=3.0)[0]
    pipe = StableDiffusion3Pipeline.from_pretrained(tmp_path)
    theirs = pipe(TEXTS[0], num_inference_steps=2, guidance_scale=3.0, generator=generator(5), max_sequence_length=16)
    assert ours.tobytes() == theirs.images[0].tobytes()


def test_the_second_stage_enlarges_what_the_first_drew(tmp_path: Path) -> None:
    for name, stage in (("cascade-base", "base"), ("cascade-sr", "sr")):
        CascadePart(name, tmp_path, (8, 32)).export(tmp_path / "cascade" / stage)
    folder = tmp_path / "cascade"
    assert generator_kind(folder) == "cascade"
    ours = Sampler(folder).draw(TEXTS[:1], steps=2, first_seed=6)[0]
    random, options = generator(6), {"num_inference_steps": 2, "guidance_scale": 4.0, "clean_caption": False}
    first = IFPipeline.from_pretrained(folder / "base", safety_checker=None, watermarker=None)
    second = IFSuperResolutionPipeline.from_pretrained(folder / "sr", safety_checker=None, watermarker=None)
    small = first(TEXTS[0], generator=random, output_type="pt", **options).images
    assert small.shape == (1, 3, 16, 16)
    assert second(TEXTS[0], image=small, generator=random, **options).images[0].tobytes() == ours.tobytes()


def test_the_command_writes_the_same_picture_again(tmp_path: Path, tiny_model: Path) -> None:
    made = []
    for name in ("one.png", "two.png"):
        out = tmp_path / name
        command = ["mini", "sample", TEXTS[0], "--model", str(tiny_model), "--out", str(out), "--steps", "2"]
        assert CliRunner().invoke(app, command).exit_code == 0
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_other_folders_are_refused_before_anything_loads(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--model: found .*no model_index.json"):
        generator_kind(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(InputError, match="FluxPipeline"):
        Sampler(tmp_path)


def test_further_generators_are_scored_by_the_judge_beside_them(tmp_path: Path) -> None:
    """The agreement of a cascade is the share of its own pictures that the judge names as their captions do."""
    for name, stage in (("cascade-base", "base"), ("cascade-sr", "sr")):
        CascadePart(name, tmp_path, (8, 32)).export(tmp_path / "cascade" / stage)
    with pytest.raises(InputError, match="no judge"):
        score_model(tmp_path / "cascade")
    judge = Judge()
    save_judge(judge, tmp_path / "judge")
    scores = score_model(tmp_path / "cascade", captions=5, steps=2)
    wanted = [one for one in fixed_captions() if not one.held_out][:5]
    pictures = Sampler(tmp_path / "cascade").draw([one.caption for one in wanted], steps=2)
    verdicts = judge_pictures(load_judge(tmp_path / "judge"), pictures)
    right = [verdict.labels["background"] == one.background for verdict, one in zip(verdicts, wanted, strict=True)]
    assert scores["background_agreement"] == sum(right) / 5
    assert scores["captions"] == 5
    distances = mean_distances(pictures, wanted)
    assert distances.items() <= scores.items()
    assert len(distances) == len({one.style for one in wanted})
    assert "vae_psnr_db" not in scores
