"""Several methods in one command: the same result as alone, a record each, and one that fails stops no other."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from method_kit import picture, wrap
from PIL import Image

import freectl
from freectl import methods
from freectl.cli import main
from freectl.errors import InputError
from freectl.files.record import read_record
from freectl.methods.pnp import PnP
from freectl.methods.sdedit import SDEdit
from freectl.tasks.compare import FirstEdits, chosen

PROMPT = ("--prompt", "a cat", "--source-prompt", "a dog", "--steps", "3")


@pytest.fixture(scope="module")
def model(toy_pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "toy"
    toy_pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path, model):
    """Run `freectl edit` on in.png with the toy model: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    picture().save("in.png")

    def run(*args):
        argv = ["freectl", "edit", "--image", "in.png", *PROMPT, "--model", str(model), *map(str, args)]
        monkeypatch.setattr(sys, "argv", argv)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


def test_a_file_a_record_and_a_cell_for_each(cli, tmp_path):
    code, out, _ = cli("--method", "sdedit,masactrl,p2p", "--compare", "--format", "json", "--set", "strength=0.5")
    assert code == 0
    assert out.count("\n") == 1
    summary = json.loads(out)
    assert [one["method"] for one in summary["results"]] == ["sdedit", "masactrl", "p2p"]
    assert summary["output"] == "out_compare.png"
    for one in summary["results"]:
        assert read_record(tmp_path / one["output"]) == one
        assert one["settings"]["source_prompt"] == "a dog"
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "in.png", "out_compare.png", "out_sdedit.png", "out_masactrl.png", "out_p2p.png"}  # fmt: skip
    assert summary["results"][0]["settings"]["strength"] == 0.5
    assert "no setting strength" in summary["results"][1]["warnings"][0]
    width, height = Image.open("out_compare.png").size
    assert width > 4 * 256
    assert height < 2 * 256, "four cells make one row"


def test_each_method_gives_what_it_gives_alone_at_a_first_edits_cost(cli):
    code, out, _ = cli("--method", "sdedit,masactrl,p2p", "--format", "json")
    assert code == 0
    for one in json.loads(out)["results"]:
        assert not one["cost"]["cached"]["inversion"]
        together = np.asarray(Image.open(one["output"]))
        code, alone, _ = cli(
            "--method", one["method"], "--format", "json", "--output", "alone.png", "--overwrite", "--no-cache"
        )
        assert code == 0
        assert np.array_equal(np.asarray(Image.open("alone.png")), together)
        assert json.loads(alone)["cost"]["row_forwards"] == one["cost"]["row_forwards"]


def test_a_method_that_fails_is_told_of_and_stops_no_other(cli, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of something")

    monkeypatch.setattr(SDEdit, "run", broken)
    code, out, err = cli("--method", "sdedit,masactrl", "--compare", "--format", "json")
    assert code == 0
    first, second = json.loads(out)["results"]
    assert first == {"method": "sdedit", "error": "RuntimeError: out of something", "warnings": []}
    assert "error" not in second
    assert "sdedit failed: RuntimeError: out of something" in err


def test_when_all_fail_the_command_fails(cli, monkeypatch, tmp_path):
    for method in (SDEdit, PnP):
        monkeypatch.setattr(method, "run", lambda *_: 1 / 0)
    code, out, err = cli("--method", "sdedit,pnp", "--compare")
    assert code == 1
    assert out == ""
    assert "all methods failed; sdedit: ZeroDivisionError" in err
    assert {path.name for path in tmp_path.iterdir()} == {"in.png"}


def test_settings_of_one_method_that_do_not_fit_are_its_own(cli):
    code, out, _ = cli("--method", "sdedit,p2p", "--set", "edit=swap", "--format", "json")
    assert code == 0
    sdedit, p2p = json.loads(out)["results"]
    assert "error" not in sdedit
    assert "--set edit: found 'swap'" in p2p["error"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--method", "sdedit,pmp"), "did you mean 'pnp'"),
        (("--method", "all", "--set", "strenth=1"), "strenth"),
        (("--method", "sdedit,p2p", "--keep", "missing.png"), "--keep"),
        (("--method", "sdedit,p2p", "--steps", "0"), "--steps"),
        (("--method", "p2p,pnp", "--set", "strength=1"), "--set: found unknown name 'strength'"),
    ],
)
def test_what_is_wrong_for_all_is_bad_usage(cli, args, words):
    code, out, err = cli(*args)
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_inputs_that_a_method_does_not_use_are_left_out_and_noted(model):
    found = freectl.compare(
        picture(), "a cat", ["sdedit"], model=str(model), source_prompt="a dog", steps=2, concept="dog", preset="0.85"
    )
    assert found[0].notes == ["sdedit does not use --concept"]
    assert found[0].result.settings["strength"] == 0.85
    assert found[0].label.startswith("sdedit: 2 rows, ")


def test_names():
    assert chosen("all") == list(methods.REGISTRY)
    assert chosen("pnp, sdedit,pnp") == ["pnp", "sdedit"]
    with pytest.raises(InputError, match="no name"):
        chosen([])


def test_first_edits_keep_what_belongs_to_no_picture():
    calls = []
    kept = SimpleNamespace(get_or_build=lambda kind, key, build: calls.append(kind) or (*build(), True), warnings=[])
    store = FirstEdits(kept)

    def build():
        return {"x": torch.zeros(1)}, {}

    assert store.get_or_build("bases", "k", build)[2] is True
    assert store.get_or_build("inversion", "k", build)[2] is False
    assert FirstEdits(None).get_or_build("bases", "k", build)[2] is False
    assert calls == ["bases"]


def test_a_progress_bar_that_draws_does_not_end_an_inversion(toy_pipe, monkeypatch):
    """tqdm's `update` returns True when it has drawn; the loop must not take that for "stop"."""
    pipe = wrap(toy_pipe)

    class Drawing:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def set_description(self, _):
            return None

        def update(self, *_):
            return True

    for name in ("ddpm-inversion", "masactrl"):
        options = {"num_inference_steps": 3, "source_prompt": "a dog", "output_type": "latent"}
        expected = pipe(
            "a cat", picture(), method=methods.get(name), generator=torch.Generator().manual_seed(0), **options
        )
        with monkeypatch.context() as patch:
            patch.setattr(type(pipe), "progress_bar", lambda *_, **__: Drawing())
            got = pipe(
                "a cat", picture(), method=methods.get(name), generator=torch.Generator().manual_seed(0), **options
            )
        assert torch.equal(got.images, expected.images)
