"""Weights of strangers: headers that claim to be huge, or hold what no tensor has, are one line and nothing else."""

import json
import struct
from pathlib import Path

import pytest
from commands import files


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


@pytest.mark.parametrize("what", HEADERS)
@pytest.mark.parametrize("option", ["--model", "--lora", "--textual-inversion"])
def test_headers_of_strangers(cli, model, option, what):
    body = HEADERS[what]
    framed = struct.pack("<Q", len(body)) + body if body.startswith(b'{"w"') else body
    Path("w.safetensors").write_bytes(framed)
    usual = {"--image": "in.png", "--prompt": "a cat", "--model": model, "--steps": 2, option: "w.safetensors"}
    ran = cli("edit", *(part for pair in usual.items() for part in pair))
    assert ran.code == (1 if option == "--lora" else 2)  # a LoRA is read with the model that it has to fit
    assert option in ran.err
    assert "Traceback" not in ran.err
    assert files() == {"in.png", "w.safetensors"}
