"""Commands in this process with a toy model, each test in a folder of its own."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import FEW, Cli, Ran
from PIL import Image

from freectl.cli import main


@pytest.fixture(scope="session")
def model(toy_pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "toy"
    toy_pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def source() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((40, 32), Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch, source) -> Path:
    """Every test runs in a folder of its own that holds in.png."""
    monkeypatch.chdir(tmp_path)
    source.save("in.png")
    return tmp_path


@pytest.fixture
def cli(monkeypatch, capsys) -> Cli:
    """Run `freectl ARGS` in this process."""

    def run(*args: Any) -> Ran:
        monkeypatch.setattr(sys, "argv", ["freectl", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return Ran(code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def edit(cli, model) -> Cli:
    """Run `freectl edit` with the toy model, few steps and JSON output."""

    usual = ["--image", "in.png", "--prompt", "a cat", "--model", model, *FEW, "--format", "json"]

    def run(*args: Any) -> Ran:
        options = {str(arg) for arg in args if str(arg).startswith("--")}
        keys = {str(arg).partition("=")[0] for arg in args}
        pairs = list(zip(usual[::2], usual[1::2], strict=True))
        kept = [pair for pair in pairs if pair[0] not in options - {"--set"}]
        kept = [pair for pair in kept if pair[0] != "--set" or pair[1].partition("=")[0] not in keys]
        return cli("edit", *(part for pair in kept for part in pair), *args)

    return run
