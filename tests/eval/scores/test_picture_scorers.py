"""Scores of published layouts and manifests: runs with injected networks against direct calls of the metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer import Typer
from typer.testing import CliRunner

from eval.bench.manifests import load_manifest
from eval.bench.mini import mini_cases
from eval.bench.pie import load_pie
from eval.files import read_picture
from eval.report.command import published_for
from eval.report.page import page
from eval.results.reading import read
from eval.results.store import Store
from eval.results.tables import summary_csv
from eval.run.command import run
from eval.scores import networks
from eval.scores.measures import MEASURES, PSNR_MOST
from eval.scores.metrics import (
    ClipNetwork,
    MetricResult,
    clip_accuracy,
    clip_directional,
    clip_score,
    load_clip,
    lpips,
    mse,
    psnr,
    ssim,
)
from eval.scores.networks import to_keep, to_tensor
from eval.scores.pictures import PictureScorer, PieScorer
from freectl.errors import FreectlError
from freectl.mini.scene import render


def toy_clip() -> ClipNetwork:
    """Mean colour of the picture; a text's embedding is a function of its letters."""

    def encode_text(texts: list[str]) -> Tensor:
        return torch.tensor([[1.0 + text.count(letter) for letter in "dga"] for text in texts])

    return ClipNetwork("toy CLIP", lambda p: p.mean((2, 3)), encode_text)


def toy_lpips(a: Tensor, b: Tensor) -> Tensor:
    """A distance of pictures, -1 to 1."""
    return (a - b).abs().mean((1, 2, 3))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that need no weights."""
    perceptual = networks.PictureDistance("toy LPIPS", lambda a, b, keep: lpips(a, b, toy_lpips, "toy LPIPS", keep))
    structure = networks.PictureDistance("toy ViT", lambda a, b, _keep: mse(a, b))
    monkeypatch.setattr(networks, "clip_scores", lambda _name, _device: networks.ClipScores(toy_clip()))
    monkeypatch.setattr(networks, "dino_structure", lambda _mode, _device: structure)
    monkeypatch.setattr(networks, "lpips_distance", lambda _net: perceptual)
    monkeypatch.setattr("eval.scores.set_scores._features", lambda _layout: (lambda p: p.mean((2, 3)), "toy"))
    monkeypatch.setattr("eval.scores.set_scores.load_clip", lambda _name: toy_clip())


def invoke(*arguments: str) -> list[dict[str, Any]]:
    """Run SDEdit briefly; the result lines."""
    app = Typer()
    app.command()(run)
    result = CliRunner().invoke(app, ["--methods", "sdedit", "--steps", "2", "--threads", "1", *arguments])
    assert result.exit_code == 0, result.output
    return Store(Path(arguments[-1])).lines()


def direct(result: Image.Image, picture: Image.Image, mask: Image.Image) -> dict[str, float]:
    """The background's scores, straight from the metrics."""
    one, other = to_tensor(result), to_tensor(picture)
    keep = 1 - to_keep(mask)
    found = {"lpips_x1e3": 1e3 * lpips(one, other, toy_lpips, "", keep).mean}
    for name, scale, metric in (("psnr", 1, psnr), ("mse_x1e4", 1e4, mse), ("ssim_x1e2", 1e2, ssim)):
        found[name] = scale * metric(one, other, keep, "pie").mean
        found[f"background_{name.partition('_')[0]}"] = metric(one, other, keep, "masked").mean
    return found


@pytest.mark.usefixtures("toys")
def test_pie_bench_fills_the_columns_of_the_papers_table(pie: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = invoke("--bench", "pie", "--data", str(pie), "--out", str(out))
    assert [line["kind"] for line in lines] == ["change object", "change style"]
    for line, case in zip(lines, load_pie(pie).cases, strict=True):
        result, picture, mask = read_picture(out / line["picture"]), case.picture(), case.mask()
        edited = Image.composite(result, Image.new("RGB", mask.size), mask)
        expected = direct(result, picture, mask)
        expected["structure_x1e3"] = 1e3 * mse(to_tensor(result), to_tensor(picture)).mean
        for key, shown in (("clip_whole", result), ("clip_edited", edited)):
            expected[key] = 100 * clip_score(to_tensor(shown), [case.prompt], toy_clip()).mean
        expected["clip_directional"] = clip_directional(
            to_tensor(result), to_tensor(picture), [case.prompt], [case.source_prompt], toy_clip()
        ).mean
        expected["clip_accuracy"] = clip_accuracy(
            to_tensor(result), [case.prompt], [case.source_prompt], toy_clip()
        ).mean
        assert set(line["scores"]) == {measure.key for measure in MEASURES["pie"]}
        assert line["scores"] == pytest.approx(expected, abs=1e-6)
        assert line["networks"] == {"CLIP": "toy CLIP", "structure": "toy ViT", "LPIPS": "toy LPIPS"}
    results = read([out])
    head, row = summary_csv(results).splitlines()
    columns = dict(zip(head.split(","), row.split(","), strict=True))
    published = published_for("pie")
    for key in published["columns"]:
        assert float(columns[key]) == pytest.approx(np.mean([line["scores"][key] for line in lines]))
    text = page(results, baseline=None, rows=2, published=published)
    assert "InstructPix2Pix" in text
    assert "Not measured" not in text


@pytest.mark.usefixtures("toys")
def test_a_manifests_mask_and_source_prompt_are_scored_where_it_has_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 8, 40, 60))
    mask.save(tmp_path / "m.png")
    entries = [{"image": "a.png", "prompt": "a dog", "source_prompt": "a cat", "mask": "m.png"}]
    entries += [{"image": "a.png", "prompt": "a dog"}]
    manifest = tmp_path / "own.jsonl"
    manifest.write_text("\n".join(map(json.dumps, entries)))
    out = tmp_path / "out"
    masked, bare = invoke("--bench", str(manifest), "--out", str(out))
    case = load_manifest(manifest).cases[0]
    result = read_picture(out / masked["picture"])
    expected = direct(result, case.picture(), mask)
    assert {key: masked["scores"][key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert {"clip_directional", "clip_accuracy"} <= set(masked["scores"])
    assert set(masked["scores"]) == {measure.key for measure in MEASURES["plain"]}
    assert set(bare["scores"]) == {"clip", "self_similarity", "lpips"}
    text = page(read([out]), baseline=None, rows=2, published=None)
    assert "bg PSNR (pie)" in text
    assert "bg SSIM x10²" in text


def test_a_change_inside_the_mask_leaves_the_background_scores_alone() -> None:
    case = mini_cases(count=1)[2]
    picture = case.picture()
    changed = Image.composite(Image.new("RGB", picture.size, "red"), picture, case.mask())
    found = PictureScorer(background=networks.background_distances(None))(case, changed).scores
    assert (found["background_mse"], found["mse_x1e4"]) == (0, 0)
    assert found["lpips_x1e3"] is None


def test_pie_scores_are_those_of_the_background_in_the_papers_scales(clip_folder: Path) -> None:
    case = mini_cases(count=1)[2]
    picture = case.picture()
    changed = np.array(picture)
    changed[:2] = 255 - changed[:2]  # the border is background
    result = Image.fromarray(changed)
    clip = networks.ClipScores(load_clip(str(clip_folder)))
    scorer = PieScorer(clip, background=networks.background_distances(None))
    found = scorer(case, result).scores
    outside = np.asarray(case.mask().resize(picture.size)) < 128
    a, b = (np.asarray(p, dtype=np.float64) / 255 for p in (picture, result))
    squares = np.square(a - b).mean(2) * outside
    assert found["mse_x1e4"] == pytest.approx(squares.mean() * 1e4, rel=1e-4)
    assert found["psnr"] == pytest.approx(-10 * np.log10(squares.mean()), rel=1e-4)
    assert found["background_mse"] == pytest.approx(squares.sum() / outside.sum(), abs=1e-6)
    assert found["structure_x1e3"] is None
    assert found["lpips_x1e3"] is None
    same = scorer(case, picture).scores
    assert same["ssim_x1e2"] == pytest.approx(100, abs=0.05)
    assert same["clip_directional"] == 0  # nothing changed


def test_a_kept_background_counts_in_the_mean_of_psnr() -> None:
    case = mini_cases(count=1)[2]
    picture, mask = case.picture(), case.mask()
    scorer = PictureScorer(background=networks.background_distances(None))

    def found(result: Image.Image) -> list[float]:
        scores = scorer(case, result).scores
        return [scores["psnr"], scores["background_psnr"]]

    kept = Image.composite(Image.new("RGB", picture.size, "red"), picture, mask)
    assert found(kept) == [PSNR_MOST, PSNR_MOST]
    nearly = np.array(picture)
    nearly[0, 0, 0] ^= 1  # one level of one channel of one background pixel: 84 dB
    assert found(Image.fromarray(nearly)) == [PSNR_MOST, PSNR_MOST]
    other = np.array(picture)
    other[:2] = 255 - other[:2]
    assert all(0 < value < 30 for value in found(Image.fromarray(other)))


@pytest.mark.parametrize("broken", ["clip", "structure", "lpips"])
def test_a_network_that_gives_no_numbers_fails_the_case(broken: str) -> None:
    def nan(pictures: Tensor, *_others: Any) -> Tensor:
        return torch.full((len(pictures), 3), torch.nan)

    given: dict[str, Any] = {
        "clip": networks.ClipScores(ClipNetwork("NaN", nan, lambda texts: torch.ones(len(texts), 3))),
        "structure": networks.PictureDistance("NaN", lambda a, b, _keep: MetricResult("", nan(a)[:, 0])),
        "lpips": networks.PictureDistance("NaN", lambda a, b, _keep: MetricResult("", nan(a)[:, 0])),
    }
    case = mini_cases(count=1)[0]
    with pytest.raises(FreectlError, match="not finite|is nan"):
        PictureScorer(**{broken: given[broken]})(case, case.picture())


def test_pictures_without_an_answer_are_compared_with_the_original_and_with_what_was_given() -> None:
    source, target = (render(scene) for scene in mini_cases(count=1)[0].scenes)
    shown = type(mini_cases(count=1)[0])("key", "kind", "", "text", lambda: source, original=lambda: target)
    mean = networks.PictureDistance("mean", lambda a, b, _keep: mse(a, b))
    found = PictureScorer(None, mean, mean)(shown, target).scores
    assert found["self_similarity"] == 0
    assert found["lpips"] > 0
    assert found["clip"] is None
    assert set(found) == {"self_similarity", "lpips", "clip"}
