"""The networks behind the scores: loading, preprocessing, and what a scorer does without them."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_kit import pictures
from PIL import Image

from eval.bench.mini import mini_cases
from eval.scores import networks
from eval.scores.base import optional
from eval.scores.metrics import (
    clip_key_network,
    confusion,
    features_of,
    inception_features,
    judge_label_maps,
    load_clip,
    load_dino,
    load_lpips,
    lpips,
    segmentation_scores,
    self_similarity_distance,
)
from eval.scores.metrics.clip import CMMD_DEFAULT, DEFAULT, check_clip
from eval.scores.metrics.self_similarity import open_clip_keys
from eval.scores.mini import MiniScorer
from eval.scores.scoring import scorer_for
from freectl.errors import FreectlError, InputError
from freectl.mini import MODEL_DIR
from freectl.mini.judge import load_judge
from freectl.mini.scene import render, render_mask


def test_a_folder_in_open_clips_format_scores_as_open_clip_does(clip_folder: Path) -> None:
    import open_clip

    network = load_clip(str(clip_folder))
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(["a cat"])
    picture = Image.fromarray((pictures(0, 1, 64)[0].permute(1, 2, 0) * 255).round().byte().numpy())
    with torch.no_grad():
        image = model.eval().encode_image(preprocess(picture)[None], normalize=True)
        text = model.encode_text(tokens, normalize=True)
    scores = networks.ClipScores(network)
    assert scores.text_cosine(picture, "a cat") == pytest.approx(float((image * text).sum()), abs=1e-5)
    assert scores.picture_cosine(picture, picture) == pytest.approx(1, abs=1e-6)
    assert clip_folder.name in scores.name


def test_keys_of_open_clips_vit_are_those_of_its_attention(clip_folder: Path) -> None:
    visual = load_clip(str(clip_folder)).model.visual
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    attention = visual.transformer.resblocks[-1].attn
    handle = attention.register_forward_pre_hook(lambda _m, inputs, _k: seen.append(inputs[0]), with_kwargs=True)
    with torch.no_grad():
        visual(batch)
    handle.remove()
    width = attention.embed_dim
    expected = seen[0] @ attention.in_proj_weight[width : 2 * width].T + attention.in_proj_bias[width : 2 * width]
    assert torch.allclose(open_clip_keys(visual)(batch), expected, atol=1e-5)
    assert expected.shape == (2, 17, 64)


def test_dino_has_one_key_a_patch_of_eight_pixels_and_the_class_token(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    make = timm.create_model
    # the published network but for its depth and weights: keys of the last block have the same shape
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: make(*a, **{**k, "pretrained": False, "depth": 1}))
    torch.manual_seed(0)
    network = load_dino()
    one = pictures(0, 1, 64)
    assert network.keys(torch.zeros(1, 3, 224, 224)).shape == (1, 785, 768)
    assert (network.size, network.longest) == (224, 480)
    small = type(network)(network.name, network.keys, network.mean, network.std, 64)
    assert self_similarity_distance(one, one, small).mean == pytest.approx(0, abs=1e-9)
    found = self_similarity_distance(one, pictures(1, 1, 64), small)
    assert found.mean > 0
    assert found.network == "timm vit_base_patch8_224.dino"


def test_missing_weights_name_the_command_that_fetches_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm
    from torchmetrics.functional.image import lpips

    def missing(*_args: object, **_options: object) -> None:
        raise OSError("no network. And more")

    monkeypatch.setattr(timm, "create_model", missing)
    monkeypatch.setattr(lpips, "_LPIPS", missing)
    monkeypatch.setattr("open_clip.create_model_and_transforms", missing)
    for load, command in ((load_dino, "timm.create_model"), (load_lpips, "torchvision"), (load_clip, "open_clip")):
        with pytest.raises(FreectlError, match=rf"not here \(no network\); fetch them once.*{command}"):
            load()
    with pytest.raises(FreectlError, match="freectl mini train --part clip"):
        load_clip(str(tmp_path))
    with pytest.raises(InputError, match="--clip"):
        check_clip("ViT-L-14/nobody")


def test_the_published_networks_are_known_to_open_clip_with_the_published_sizes() -> None:
    import open_clip

    for name, side in ((DEFAULT, 224), (CMMD_DEFAULT, 336)):
        tag, weights = check_clip(name)
        assert weights == "openai"
        assert open_clip.get_model_config(tag)["vision_cfg"]["image_size"] == side


def test_a_scorer_without_a_network_says_so_but_a_wrong_name_is_raised() -> None:
    notes: list[str] = []

    def missing() -> None:
        raise FreectlError("weights are not here; fetch them")

    assert optional(missing, "LPIPS", notes) is None
    assert notes == ["LPIPS: not measured. weights are not here; fetch them"]
    with pytest.raises(InputError, match="--clip"):
        scorer_for("mini", "cpu", "nothing/nobody")


def test_the_exact_answer_has_the_best_score_of_each_kind(clip_folder: Path) -> None:
    clip = load_clip(str(clip_folder))
    scorer = MiniScorer(
        load_judge(MODEL_DIR / "judge"), networks.ClipScores(clip), networks.structure(clip_key_network(clip))
    )
    case = mini_cases(count=2)[2]
    answer = scorer(case, render(case.scenes[1])).scores
    assert (answer["mse"], answer["background_mse"], answer["target"]) == (0, 0, 1)
    assert answer["clip_distance"] == pytest.approx(0, abs=1e-6)
    unchanged = scorer(case, render(case.scenes[0])).scores
    assert unchanged["self_similarity"] == pytest.approx(0, abs=1e-9)
    assert unchanged["target"] == 0
    assert unchanged["mse"] > 0
    assert set(scorer.networks) == {"judge", "CLIP", "self-similarity"}


def test_lpips_of_torchmetrics_is_zero_for_equal_pictures_and_blind_outside_the_mask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchmetrics.functional.image import lpips as module

    # the package has the linear layers; the backbone's weights are random here
    monkeypatch.setattr(module, "_LPIPS", partial(module._LPIPS, pnet_rand=True))
    torch.manual_seed(0)
    network, name = load_lpips("squeeze")
    one, other = pictures(0, 2, 64), pictures(1, 2, 64)
    assert name == "torchmetrics LPIPS squeeze"
    assert lpips(one, one, network, name).mean == pytest.approx(0, abs=1e-7)
    values = lpips(one, other, network, name).values
    assert values.shape == (2,)
    assert bool((values > 0).all())
    keep = torch.zeros(2, 1, 64, 64)
    keep[..., :32] = 1
    mixed = torch.cat([one[..., :32], other[..., 32:]], dim=-1)
    assert lpips(one, mixed, network, name, keep).mean == pytest.approx(0, abs=1e-7)
    assert bool(lpips(one, other, network, name, torch.zeros_like(keep)).values.isnan().all())


def test_inception_features_are_pool3s(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3 as module

    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_args, **_options: {})
    monkeypatch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_args, **_options: None)
    features, name = inception_features()
    found = features_of(pictures(0, 2, 32), features)
    assert found.shape == (2, 2048)
    assert found.dtype == torch.float64
    assert "2048" in name


def test_the_judge_is_a_segmenter_of_its_world() -> None:
    scenes = [case.scenes[0] for case in mini_cases(count=2)]
    judge = load_judge(MODEL_DIR / "judge")
    maps = judge_label_maps(judge, [render(scene, judge.size) for scene in scenes])
    labels = list(judge.heads["object"])
    exact = [np.asarray(render_mask(scene, judge.size)) // 255 * (1 + labels.index(scene.object)) for scene in scenes]
    scores = segmentation_scores(confusion(maps, torch.tensor(np.stack(exact)), 1 + len(labels)))
    assert scores.pixel_accuracy > 0.95
    assert scores.mean_iou > 0.8


def test_what_a_library_prints_while_it_loads_stays_out_of_the_tables(capsys: pytest.CaptureFixture) -> None:
    assert optional(lambda: sys.stdout.write("Downloading\n"), "LPIPS", []) == 12
    assert capsys.readouterr() == ("", "Downloading\n")


def test_a_folder_called_mini_does_not_hide_the_embedded_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert check_clip("mini") == ("mini", None)
    with pytest.raises(InputError, match="without open_clip_config.json"):
        check_clip(str(tmp_path / "mini"))
