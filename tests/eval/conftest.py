"""Tests of the evaluation need the packages of the `test` extra."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from result_kit import VARIANTS, about, line

from eval.bench.mini_files import load_mini
from eval.bench.world import drawn
from eval.results.store import Store


@pytest.fixture(scope="session")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only results of three variants on twelve cases: pictures are answers with noise, scores are made up."""
    bench = load_mini()
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("made-up") / "results"
    with Store(folder).locked() as store:
        store.begin(about(bench), "python -m eval.run --bench mini --out 'a b'")
        for index, case in enumerate(bench.cases[::20]):
            answer = drawn(case.scenes[1])
            store.save_picture(f"inputs/{case.key}.png", case.picture())
            store.save_picture(f"answers/{case.key}.png", answer)
            for rank, variant in enumerate(VARIANTS):
                noisy = np.clip(np.asarray(answer) + rng.normal(0, 20 * rank, np.asarray(answer).shape), 0, 255).astype(
                    np.uint8
                )
                target = float(index % (rank + 2) > 0)
                scores = {"target": target, "all_right": target, "iou": 0.5 + 0.1 * rank, "mse": 0.01 * (rank + index)}
                made = line(case, variant, scores)
                store.save_picture(made["picture"], Image.fromarray(noisy))
                store.append(made)
    return folder


@pytest.fixture(scope="session")
def gan_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Pix2Pix as `gan-baselines train` stores it, with its log."""
    from gan_baselines.models import build
    from gan_baselines.settings import resolve
    from gan_baselines.weights import save_weights

    sets = ["model.generator.width=4", "model.generator.downs=4", "model.discriminator.width=4"]
    config = resolve("pix2pix", sets=sets)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "weights"
    made = {"steps": 50, "batch_size": 4}
    save_weights(folder, config.model, dict(build(config.model).generators), about=made)
    lines = [json.dumps({"step": step, "losses": {}, "pictures_per_second": speed}) for step, speed in ((1, 4), (2, 5))]
    (folder.parent / "losses.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP in open_clip's local-dir format."""
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    mean = [0.5, 0.5, 0.5]
    folder = tmp_path_factory.mktemp("clip")
    stored = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": mean, "size": 64}}
    (folder / "open_clip_config.json").write_text(json.dumps(stored))
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


TYPES = ("canny edge map", "3D mesh", "photo")


@pytest.fixture
def ctrlx(tmp_path: Path) -> Path:
    """A picture of each of the paper's groups in the layout of Ctrl-X's data, two of them conditions with prompts."""
    folder = tmp_path / "ctrlx"
    (folder / "things").mkdir(parents=True)
    shown = []
    for index, kind in enumerate(TYPES):
        name = f"things/{index}.jpg"
        Image.new("RGB", (96, 96), (60 * index, 90, 200)).save(folder / name)
        said = f"a {kind} of a red truck off-road"
        shown.append({"filename": name, "category": "things", "description": said, "type": kind,
                      "subject": "a red truck", "context": "off-road"})  # fmt: skip
    prompts = [{"prompt": f"a photo of {what}", "subject": what, "id": what} for what in ("a car", "a bus")]
    images = [one | {"prompts": [asked | {"id": f"{one['filename']}_{asked['id']}"} for asked in prompts]}
              for one in shown[:2]]  # fmt: skip
    pairs = [{"id": f"a{i}___b.jpg", "f1_data": one, "f2_data": shown[2], "target_prompt": "a photo of a red truck"}
             for i, one in enumerate(shown)]  # fmt: skip
    (folder / "data_prompt-driven.yaml").write_text(yaml.dump({"images": images}))
    (folder / "data_structure+appearance.yaml").write_text(yaml.dump({"pairs": pairs}))
    return folder


@pytest.fixture
def pie(tmp_path: Path) -> Path:
    """Two entries in PIE-Bench's layout, 512 px."""
    folder = tmp_path / "pie"
    entries: dict[str, Any] = {}
    for index, kind in enumerate((1, 9)):
        path = folder / "annotation_images" / f"{kind}_x" / f"{index}.jpg"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (512, 512), (40 * index, 100, 200)).save(path)
        entries[f"{index:012d}"] = {
            "image_path": f"{kind}_x/{index}.jpg",
            "original_prompt": "a [cat] on a mat",
            "editing_prompt": "a [dog] on a mat",
            "editing_instruction": "make it a dog",
            "editing_type_id": str(kind),
            "blended_word": "cat dog",
            "mask": [512 * 10 + 20, 30, 512 * 11 + 20, 30],
        }
    (folder / "mapping_file.json").write_text(json.dumps(entries))
    return folder
