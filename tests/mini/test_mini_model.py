"""The shipped model: plain diffusers loads it, it is small, and it knows its words."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

import freectl
from freectl.mini import MODEL_DIR
from freectl.mini.domain import caption, vocabulary
from freectl.mini.judge import HEADS, judge_pictures, load_judge, mask_iou
from freectl.mini.scene import random_scene, render, render_mask
from freectl.mini.score import psnr
from freectl.mini.training.data import batch_rng, scene_batch
from freectl.mini.training.tokenizer import MAX_TOKENS, write_tokenizer


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_every_word_is_one_token(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    ids = {word: tokenizer(word).input_ids for word in vocabulary()}
    assert all(len(found) == 3 for found in ids.values()), ids
    assert len({found[1] for found in ids.values()}) == len(ids)
    assert len(tokenizer("zebra").input_ids) > 3
    assert len(tokenizer(caption("silhouette", "pumpkin", "purple"), padding="max_length").input_ids) == MAX_TOKENS


def test_shipped_tokenizer_is_the_built_one(pipe: StableDiffusionPipeline, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    text = "a fluent fox on a blue background, zebra"
    assert pipe.tokenizer(text).input_ids == CLIPTokenizer.from_pretrained(tmp_path)(text).input_ids


def test_all_shipped_files_are_small_and_not_pickled() -> None:
    files = [path for path in MODEL_DIR.rglob("*") if path.is_file()]
    further = {"controlnet", "t2i-adapter", "flow", "cascade"}
    own = [path for path in files if path.relative_to(MODEL_DIR).parts[0] not in further]
    assert sum(path.stat().st_size for path in own) < 32e6
    assert sum(path.stat().st_size for path in files) < 90e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}


def test_the_autoencoder_reconstructs(pipe: StableDiffusionPipeline) -> None:
    """Its latents have unit variance; the pipelines of Stable Diffusion 3 ask for a shift."""
    _, pictures = scene_batch(batch_rng(95, 0), 24, held_out=None)
    with torch.no_grad():
        latents = pipe.vae.encode(pictures).latent_dist.mode()
        decoded = pipe.vae.decode(latents).sample
    assert psnr(decoded, pictures) >= 29
    assert latents.shape == (24, 8, 16, 16)
    assert float(latents.std()) * pipe.vae.config.scaling_factor == pytest.approx(1, abs=0.05)
    assert pipe.vae.config.shift_factor == 0


def test_samples_show_background_and_style_as_the_judge_sees_them(pipe: StableDiffusionPipeline) -> None:
    rng = batch_rng(99, 0)
    scenes = [random_scene(rng, held_out=False) for _ in range(12)]
    pictures = pipe(
        [scene.caption for scene in scenes],
        num_inference_steps=10,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(i) for i in range(12)],
    ).images
    verdicts = judge_pictures(load_judge(MODEL_DIR / "judge"), pictures)
    right = [v.labels["background"] == s.background for v, s in zip(verdicts, scenes, strict=True)]
    assert sum(right) >= 10


def test_judge_is_right_on_clean_scenes() -> None:
    rng = batch_rng(98, 0)
    scenes = [random_scene(rng) for _ in range(100)]
    verdicts = judge_pictures(load_judge(MODEL_DIR / "judge"), [render(scene) for scene in scenes])
    for head in HEADS:
        assert sum(v.labels[head] == getattr(s, head) for v, s in zip(verdicts, scenes, strict=True)) >= 95
    assert sum(mask_iou(v.mask, render_mask(s)) for v, s in zip(verdicts, scenes, strict=True)) / 100 > 0.85


def test_an_edit_uses_the_shipped_bases_and_a_repeat_does_not_invert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREECTL_HOME", str(tmp_path))
    picture = render(random_scene(batch_rng(97, 0)))
    first, again = (freectl.edit(picture, "a noto cat on a blue background", steps=12) for _ in range(2))
    assert first.cost["cached"] == {"bases": True, "inversion": False, "reference": False}
    assert again.cost["cached"] == {"bases": True, "inversion": True, "reference": True}
    assert again.cost["row_forwards"] == 24
    assert again.image.tobytes() == first.image.tobytes()
    assert first.image.size == picture.size
    assert first.image.tobytes() != picture.tobytes()


def test_unknown_words_are_named() -> None:
    picture = render(random_scene(batch_rng(96, 0)))
    result = freectl.edit(picture, "a zebra", steps=2, cache=False, method="sdedit")
    assert any("zebra" in warning for warning in result.record["warnings"])
