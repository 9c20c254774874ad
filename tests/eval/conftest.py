"""Tests of the evaluation need the packages of the `test` extra."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from result_kit import VARIANTS, about, line

from eval.bench import load_mini
from eval.store import Store
from freectl.mini.scene import render


@pytest.fixture(scope="session")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only results of three variants on twelve cases: pictures are answers with noise, scores are made up."""
    bench = load_mini()
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("made-up") / "results"
    with Store(folder).locked() as store:
        store.begin(about(bench), "python -m eval.run --bench mini --out 'a b'")
        for index, case in enumerate(bench.cases[::20]):
            answer = render(case.scenes[1])
            store.save_picture(f"inputs/{case.key}.png", case.picture())
            store.save_picture(f"answers/{case.key}.png", answer)
            for rank, variant in enumerate(VARIANTS):
                noisy = np.clip(np.asarray(answer) + rng.normal(0, 20 * rank, (64, 64, 3)), 0, 255).astype(np.uint8)
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
