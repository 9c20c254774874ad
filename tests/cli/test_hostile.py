"""Weights of strangers: headers that claim to be huge, or hold what no tensor has, are one line and nothing else."""

import json
import struct
from pathlib import Path

import pytest
import torch
from commands import files
from safetensors.torch import save_file

from freectl.pipelines import loading
from freectl.tasks import edit as editing


def tensor(shape, end):
    """A header of one tensor."""
    return json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


HEADERS = {
    "2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "2^64 - 1 bytes": b"\xff" * 8,
    "no header": b"",
    "a tensor of 2^62 numbers": tensor([2**31, 2**31], 4),
    "offsets beyond the file": tensor([1], 2**40),
    "a pickle": b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
}  # fmt: skip


FILE, FOLDER = "w.safetensors", "theirs"
EDIT = ("edit", "--image", "in.png", "--prompt", "a cat", "--steps", "2")
CONTROL = ("control", "--condition", "in.png", "--prompt", "a cat")
BATCH = ("batch", "--manifest", "m.jsonl", "--out", "out")
COMMANDS = {
    "--model": (*EDIT, "--model", FILE),
    "--lora": (*EDIT, "--lora", FILE),
    "--lora:": (*EDIT, "--lora", f"{FILE}:0.5"),
    "--textual-inversion": (*EDIT, "--textual-inversion", FILE),
    "--set bases": (*EDIT, "--set", f"bases={FILE}"),
    "--lora::": (*BATCH, "--lora", FILE),
    "--set bases:": (*BATCH, "--set", f"bases={FILE}"),
    "NAME": ("bases", "show", FILE),
    "NAME:": ("bases", "export", FILE, "out.safetensors"),
    "PATH": ("bases", "import", FILE),
    "--preprocess depth": (*CONTROL, "--preprocess", f"depth={FOLDER}"),
    "--controlnet": (*CONTROL, "--method", "controlnet", "--controlnet", FILE),
    "--controlnet:": (*CONTROL, "--method", "controlnet", "--controlnet", FOLDER),
    "--model:": ("mini", "score", "--model", FOLDER),
    "--model::": ("mini", "sample", "a cat", "--out", "out.png", "--model", FOLDER),
    "--init": ("mini", "train", "--out", "out", "--model", "new", "--part", "vae", "--init", FOLDER),
}
"""Every option that takes weights (before the colons), given those of a stranger."""


def written(what):
    """The file, alone and as what a folder of a model or of a training holds."""
    body = HEADERS[what]
    framed = struct.pack("<Q", len(body)) + body if body.startswith(b'{"w"') else body
    Path("m.jsonl").write_text('{"image": "in.png", "prompt": "a cat"}\n')
    for place in (Path(), Path(FOLDER), Path(FOLDER) / "judge"):
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text("{}")
        (place / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
        (place / FILE).write_bytes(framed)


@pytest.mark.parametrize("what", HEADERS)
def test_headers_of_strangers(cli, monkeypatch, what):
    for module in (editing, loading):
        monkeypatch.setattr(module, "load_pipeline", lambda *_, **__: pytest.fail("a model was loaded"))
    written(what)
    before = files()
    for option, command in COMMANDS.items():
        ran = cli(*command)
        assert ran.code == 2, (option, ran.err)
        assert ran.error.startswith(f"freectl: {option.rstrip(':')}"), option
        assert "damaged or truncated" in ran.error, option
        assert files() == before


def test_headers_that_fit_nothing_are_one_line_too(cli, model):
    """Whole files of other things: what they hold is compared with the model, once that is there."""
    save_file({"nowhere": torch.zeros(2, 2)}, FILE)
    for option in ("--model", "--lora", "--textual-inversion", "--set bases"):
        ran = cli(*COMMANDS[option], *(() if option == "--model" else ("--model", model)))
        assert ran.code == 2, (option, ran.err)
        assert ran.err.splitlines()[-1].startswith(f"freectl: {option}: found "), option
    assert files() == {"in.png", FILE}
