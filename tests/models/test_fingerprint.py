"""Networks are known by the files that they came from, whatever dtype they are loaded in, until something changes."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from freectl.files.data import MODEL_DIR
from freectl.files.file_digests import kept_digest
from freectl.models.fingerprint import fingerprint
from freectl.pipelines.loading import load_pipeline, resolve_model
from freectl.pipelines.sd import FreeControlPipeline
from freectl.semantics.bases import SemanticBases


@pytest.fixture(scope="module")
def pipes():
    """The embedded model in two dtypes."""
    return {d: load_pipeline(resolve_model("mini"), device="cpu", dtype=d) for d in (torch.float32, torch.bfloat16)}


def test_the_shipped_bases_fit_every_dtype(pipes):
    made_for = SemanticBases.load(next((MODEL_DIR / "bases").iterdir())).metadata["unet"]
    own = FreeControlPipeline.from_pretrained(str(MODEL_DIR), torch_dtype=torch.bfloat16)
    for pipe in (*pipes.values(), own):
        assert fingerprint(pipe.unet) == made_for
    assert fingerprint(own.vae) == fingerprint(pipes[torch.float32].vae)


def test_values_in_16_bits_are_those_in_32(pipes):
    """Read from memory, not from files: a copy has no files."""
    vae = pipes[torch.float32].vae
    copy = type(vae).from_config(vae.config)
    copy.load_state_dict(vae.state_dict())
    assert fingerprint(copy.half()) == fingerprint(copy.float()) == fingerprint(vae)


def test_a_loaded_network_that_is_changed_is_another(pipes):
    own = FreeControlPipeline.from_pretrained(str(MODEL_DIR), torch_dtype=torch.bfloat16)
    before = fingerprint(own.unet)
    own.unet.conv_in.weight.data += 1
    assert fingerprint(own.unet) != before
    given = FreeControlPipeline.from_pretrained(str(MODEL_DIR), unet=own.unet, torch_dtype=torch.bfloat16)
    assert fingerprint(given.unet) == fingerprint(own.unet)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2)}, path)
    age(path)
    return path


def age(path: Path, seconds: float = 60) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def asked(path: Path, answers: list[str]) -> str:
    """The digest of a file; `answers` are those that are computed, and lose what is used."""
    return kept_digest([path], "letters", lambda: answers.pop(0) * 64)


def test_a_digest_is_computed_once_for_a_file_as_it_is(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("FREECTL_HOME", str(tmp_path / "home"))
    answers = list("abcdef")
    assert asked(weights, answers) == asked(weights, answers) == "a" * 64
    age(weights, 50)
    assert asked(weights, answers) == "b" * 64
    weights.write_bytes(b"longer" * 100)
    assert asked(weights, answers) == "c" * 64  # it may change again in this very second
    assert asked(weights, answers) == "d" * 64
    age(weights)
    assert asked(weights, answers) == asked(weights, answers) == "e" * 64
    (kept,) = (tmp_path / "home" / "digests").iterdir()
    kept.write_text(json.dumps({"files": 1}))
    assert asked(weights, answers) == "f" * 64


def test_without_a_place_for_digests_they_are_computed(weights, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FREECTL_HOME", str(tmp_path / "file"))
    assert (asked(weights, ["a"]), asked(weights, ["b"])) == ("a" * 64, "b" * 64)
