"""A toy model, some pictures, and manifests of them, each test in a folder of its own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import freectl


@pytest.fixture(scope="session")
def model(toy_pipe, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "toy"
    toy_pipe.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with a.png, b.png, c.png of two shapes."""
    monkeypatch.chdir(tmp_path)
    for index, (name, size) in enumerate([("a", (32, 32)), ("b", (32, 32)), ("c", (40, 32))]):
        small = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(f"{name}.png")
    return tmp_path


@pytest.fixture
def batch(model):
    """`freectl.batch` with the toy model, SDEdit and few steps."""

    def run(rows, out="out", **options):
        usual = {"prompt": "a cat", "method": "sdedit", "steps": 3, "model": model}
        return freectl.batch(rows, out, **(usual | options))

    return run
