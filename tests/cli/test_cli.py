"""The command line as people and scripts use it: in this process with a toy model folder, and in processes apart."""

import copy
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import CONTRACT, FEW, SAME, files
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

import freectl
from freectl.files.record import read_record
from freectl.tasks import edit as editing

# Processes of their own


def python(code: str) -> subprocess.CompletedProcess:
    here = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, cwd=here
    )


PROBE = """
import sys
sys.argv = ["freectl", {args}]
from freectl.cli import main
try:
    main()
except SystemExit as stop:
    code = stop.code
heavy = {{"torch", "diffusers", "transformers"}} & set(sys.modules)
sys.stderr.write(f"EXIT {{code or 0}} HEAVY {{sorted(heavy)}}\\n")
"""


@pytest.mark.parametrize("args", ['"--help"', '"edit", "--help"'])
def test_help_imports_no_torch(args):
    done = python(PROBE.format(args=args))
    assert done.stderr == "EXIT 0 HEAVY []\n"
    assert "Usage:" in done.stdout
    if "edit" in args:
        assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in "".join(done.stdout.split())


def test_a_missing_picture_fails_before_torch_is_imported():
    done = python(PROBE.format(args='"edit", "--image", "no.png", "--prompt", "a cat"'))
    line, end = done.stderr.splitlines()
    assert line.startswith("freectl: --image: found no file 'no.png'")
    assert end == "EXIT 2 HEAVY []"
    assert done.stdout == ""


# Editing


def test_json_is_one_object_with_the_contracts_keys(edit, model):
    ran = edit("--seed", 3, "--output", "new.png")
    record = ran.json
    assert set(record) == CONTRACT
    assert (record["output"], record["method"], record["model"]) == ("new.png", "freecontrol", str(model))
    assert (record["prompt"], record["seed"], record["steps"]) == ("a cat", 3, 5)
    assert (record["settings"]["seeds"], record["settings"]["image"]) == (4, "in.png")
    cost = record["cost"]
    assert set(cost) == {"row_forwards", "row_backwards", "seconds", "peak_memory_mb", "cached"}
    assert set(cost["seconds"]) == {"load", "analysis", "synthesis", "total"}
    assert set(cost["cached"]) == {"bases", "inversion", "reference"}
    assert read_record("new.png") == record
    assert Image.open("new.png").size == (40, 32)
    assert files() == {"in.png", "new.png"}


def test_python_function_equals_the_command(edit, model):
    record = edit("--seed", 3, "--set", "start=noise").json
    result = freectl.edit("in.png", "a cat", model=str(model), seed=3, start="noise", **SAME)
    assert np.array_equal(np.asarray(result.image), np.asarray(Image.open("out.png")))
    assert result.settings == record["settings"]
    assert result.cost["row_backwards"] == record["cost"]["row_backwards"] == len(result.trace)
    assert result.source.size == (40, 32)
    from_memory = freectl.edit(Image.open("in.png"), "a cat", model=str(model), **SAME)
    assert from_memory.cost["cached"]["inversion"]
    with pytest.raises(freectl.InputError, match="did you mean 'seeds'"):
        freectl.edit("in.png", "a cat", model=str(model), sedes=4)


def test_lora_changes_the_model_and_its_cache(edit, toy_pipe, workplace):
    unet = copy.deepcopy(toy_pipe.unet)
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k", "to_v"]))
    StableDiffusionPipeline.save_lora_weights(workplace, unet_lora_layers=get_peft_model_state_dict(unet))
    plain = edit("--output", "a.png").json
    lora = "pytorch_lora_weights.safetensors"
    changed = edit("--output", "b.png", "--lora", lora).json
    assert not any(changed["cost"]["cached"].values())
    assert changed["settings"]["lora"] == [lora]
    assert not np.array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("b.png")))
    again = edit("--output", "c.png").json  # back to the model as it is
    assert all(again["cost"]["cached"].values())
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("c.png")))
    assert again["settings"] == plain["settings"]


def test_human_output_names_the_file_device_and_cost(cli, model):
    ran = cli("edit", "--image", "in.png", "--prompt", "a cat", "--model", model, *FEW, "-v")
    assert ran.code == 0
    assert "out.png" in ran.out
    assert "no CUDA" in ran.out or "as asked" in ran.out or "device is present" in ran.out
    assert "row forwards" in ran.out
    assert "out.png" in files()


def test_quiet_prints_nothing(edit):
    ran = edit("--format", "quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert "out.png" in files()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_other_formats_have_their_record_beside_them(edit, name):
    record = edit("--output", name).json
    assert json.loads(Path(f"{name}.json").read_text()) == record
    assert Image.open(name).size == (40, 32)


def test_config_of_a_result_repeats_it_bit_for_bit(edit, cli):
    first = edit("--seed", 7, "--set", "start=noise", "--structure-strength", 0.25, "--output", "a.png").json
    again = cli("edit", "--config", "a.png", "--output", "b.png", "--format", "json").json
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("b.png")))
    for name in CONTRACT - {"output", "cost"}:
        assert again[name] == first[name]
    assert again["cost"]["cached"] == {"bases": True, "inversion": True, "reference": True}
    assert again["cost"]["row_forwards"] <= first["cost"]["row_forwards"]
    other = cli("edit", "--config", "a.png", "--seed", 8, "--output", "c.png", "--format", "json").json
    assert (other["seed"], other["settings"]["structure_strength"]) == (8, 0.25)
    assert not np.array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("c.png")))
    without = cli("edit", "--config", "a.png", "--no-cache", "--output", "d.png", "--format", "json").json
    assert not any(without["cost"]["cached"].values())
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("d.png")))


@pytest.fixture
def planned(cli, model, monkeypatch) -> Callable[..., Any]:
    """The checked plan of an edit that is then not run."""

    class EnoughError(Exception):
        pass

    seen: list[editing.Plan] = []

    def stop(checked: editing.Plan, **_options: Any) -> None:
        seen.append(checked)
        raise EnoughError

    monkeypatch.setattr(editing, "run", stop)

    def plan(*args: Any) -> editing.Plan:
        with pytest.raises(EnoughError):
            cli("edit", "--image", "in.png", "--prompt", "a cat", "--model", model, *args)
        return seen.pop()

    return plan


def test_flag_beats_file_beats_preset_beats_default(planned):
    Path("c.yaml").write_text("preset: official\nsteps: 9\nstructure_weight: 111\nwarmup: 0.2\n")
    checked = planned("--config", "c.yaml", "--set", "structure_weight=222", "--set", "seeds=5")
    settings = checked.settings
    assert (checked.options.steps, checked.options.preset) == (9, "official")
    assert (settings.structure_weight, settings.warmup, settings.seeds) == (222, 0.2, 5)
    assert (settings.appearance_weight, settings.background_area) == (60, "all")  # the preset's
    assert settings.window_stop == 0.6  # the default
    assert planned("--config", "c.yaml").settings.structure_weight == 111
    assert planned("--config", "c.yaml", "--steps", 3).options.steps == 3


def test_a_preset_flag_leaves_the_files_settings(planned):
    """A file that names no preset goes on top of the one that a flag names; the same method named again is no other."""
    Path("c.json").write_text(json.dumps({"appearance_weight": 0.7, "settings": {"warmup": 0.2}}))
    for flags in (("--preset", "official"), ("--method", "freecontrol"), ()):
        settings = planned("--config", "c.json", *flags).settings
        assert (settings.appearance_weight, settings.warmup) == (0.7, 0.2)
    assert planned("--config", "c.json", "--preset", "official").settings.background_area == "all"


def test_another_method_drops_the_files_settings(planned):
    Path("c.yaml").write_text("method: freecontrol\nstructure_strength: 0.7\n")
    checked = planned("--config", "c.yaml", "--method", "sdedit")
    assert (checked.method.name, checked.settings.strength) == ("sdedit", 0.75)


def test_dedicated_flags_and_set_agree(planned):
    assert planned("--structure-strength", 0.5).settings == planned("--set", "structure_strength=0.5").settings


def test_compare_writes_a_labelled_sheet(edit):
    assert edit("--compare").code == 0
    assert files() == {"in.png", "out.png", "out_compare.png"}
    sheet = Image.open("out_compare.png")
    assert sheet.width > 2 * 40
    assert sheet.height > 32


def test_stdin_is_a_picture(edit, monkeypatch, source):
    expected = edit("--output", "a.png").json

    class Pipe:
        buffer = io.BytesIO(Path("in.png").read_bytes())

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", Pipe())
    got = edit("--image", "-", "--output", "b.png").json
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("b.png")))
    assert got["cost"]["cached"]["inversion"]
    assert expected["settings"]["image"] == "in.png"


def test_other_method_and_warnings(edit):
    Image.new("RGBA", (32, 32), (255, 0, 0, 100)).save("glass.png")
    ran = edit("--image", "glass.png", "--method", "sdedit", "--set", "seeds=4")
    assert "strength" in ran.error  # the settings are FreeControl's
    assert ran.code == 2


def test_sdedit_with_a_transparent_picture(cli, model):
    Image.new("RGBA", (32, 32), (255, 0, 0, 100)).save("glass.png")
    ran = cli("edit", "--image", "glass.png", "--prompt", "a cat", "--model", model, "--method", "sdedit",
              "--set", "strength=0.4", "--steps", 5, "--format", "json")  # fmt: skip
    record = ran.json
    assert record["cost"]["row_forwards"] == 4
    assert record["settings"]["strength"] == 0.4
    assert len(record["warnings"]) == 1
    assert "transparent" in ran.err


def test_mask_and_concept(edit):
    mask = Image.new("L", (40, 32))
    mask.paste(255, (0, 0, 20, 32))
    mask.save("mask.png")
    record = edit("--mask", "mask.png", "--concept", "cat").json
    assert (record["settings"]["mask"], record["settings"]["concept"]) == ("mask.png", "cat")


def test_attention_mask_and_appearance_image(edit):
    plain = edit("--output", "plain.png")
    masked = edit("--source-prompt", "a cat", "--concept", "cat", "--mask", "attention", "--output", "masked.png")
    borrowed = edit("--appearance-image", "in.png", "--output", "borrowed.png")
    assert plain.code == masked.code == borrowed.code == 0, masked.err + borrowed.err
    pictures = {name: Image.open(f"{name}.png").tobytes() for name in ("plain", "masked", "borrowed")}
    assert len(set(pictures.values())) == 3


def test_bf16_runs_on_a_cpu(edit):
    assert edit("--dtype", "bf16").json["settings"]["dtype"] == "bf16"


# What is refused: one line, exit 2, nothing loaded, nothing written


@pytest.fixture
def no_loading(monkeypatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(editing, "load_pipeline", fail)
    editing._pipeline.cache_clear()


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize("method", ["sdedit", "pnp", "p2p", "masactrl", "ddpm-inversion"])
@pytest.mark.parametrize(("option", "value"), [("--appearance-image", "in.png"), ("--concept", "cat")])
def test_an_input_that_the_method_would_ignore_is_refused(cli, model, method, option, value):
    before = files()
    ran = cli("edit", "--image", "in.png", "--prompt", "a cat", "--model", model, "--method", method, option, value)
    assert ran.code == 2
    assert option in ran.error
    assert f"{method}, which does not use it" in ran.error
    assert files() == before


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--image", "no.png"], ["--image", "no.png"]),
        (["--image", "bare"], ["--image", "without pictures"]),
        (["--image", "text.png"], ["--image", "not a picture"]),
        (["--image", "empty.png"], ["--image", "0 bytes"]),
        (["--prompt", ""], ["--prompt", "empty"]),
        (["--prompt", "  "], ["--prompt", "empty"]),
        (["--concept", "dog"], ["--concept", "'dog'", "a, cat"]),
        (["--output", "no/such/out.png"], ["--output", "no/such"]),
        (["--output", "out.gif"], ["--output", ".png"]),
        (["--output", "."], ["--output", "folder"]),
        (["--output", "in.png"], ["--output", "the file of --image itself"]),
        (["--appearance-image", "no.png"], ["--appearance-image", "no.png"]),
        (["--appearance-image", "in.png", "--appearance-weight", "0"], ["--appearance-weight", "0"]),
        (["--mask", "attention"], ["--mask", "--concept"]),
        (["--mask", "attention", "--concept", "cat"], ["--mask", "--source-prompt"]),
        (["--mask", "attention", "--concept", "cat", "--source-prompt", "a dog"], ["--concept", "a, dog"]),
        (["--steps", "0"], ["--steps", "0", "1"]),
        (["--steps", "1001"], ["--steps", "1001", "1000"]),
        (["--steps", "few"], ["--steps"]),
        (["--seed", "-1"], ["--seed", "-1"]),
        (["--guidance-scale", "nan"], ["--guidance-scale"]),
        (["--structure-strength", "-3"], ["structure_strength", "-3"]),
        (["--method", "freecontol"], ["--method", "'freecontol'", "did you mean 'freecontrol'"]),
        (["--preset", "oficial"], ["--preset", "did you mean 'official'"]),
        (["--set", "structure_wieght=3"], ["structure_wieght", "did you mean 'structure_weight'"]),
        (["--set", "structure_weight"], ["--set", "key=value"]),
        (["--model", "mimi"], ["--model", "did you mean 'mini'"]),
        (["--model", "weights.ckpt"], ["--model", "pickled", "safetensors"]),
        (["--model", "weights.bin"], ["--model", "pickled"]),
        (["--model", "."], ["--model", "model_index.json"]),
        (["--model", "no.safetensors"], ["--model", "no.safetensors"]),
        (["--lora", "no.safetensors"], ["--lora", "no.safetensors"]),
        (["--lora", "weights.bin"], ["--lora", "safetensors"]),
        (["--model", "lora.safetensors"], ["--model", "a LoRA", "--lora"]),
        (["--textual-inversion", "no.safetensors"], ["--textual-inversion", "no.safetensors"]),
        (["--textual-inversion", "weights.bin"], ["--textual-inversion", "safetensors"]),
        (["--textual-inversion", "lora.safetensors"], ["--textual-inversion", "2 tensors", "clip_g"]),
        (["--mask", "wide.png"], ["--mask", "80x32 px", "40x32 px"]),
        (["--mask", "no.png"], ["--mask", "no.png"]),
        (["--mask", "black.png"], ["--mask", "black"]),
        (["--device", "gpu"], ["--device", "gpu", "cuda"]),
        (["--dtype", "fp8"], ["--dtype", "fp32"]),
        (["--dtype", "fp16", "--device", "cpu"], ["--dtype", "fp16", "bf16"]),
        (["--config", "no.yaml"], ["--config", "no.yaml"]),
        (["--config", "in.png"], ["--config", "in.png", "record"]),
        (["--config", "list.yaml"], ["--config", "list"]),
        (["--config", "typo.yaml"], ["stpes"]),
        (["--format", "xml"], ["--format", "json"]),
        (["--stesp", "4"], ["--stesp"]),
    ],
)
def test_bad_input_is_one_line_and_exit_2(edit, args, named):
    Path("text.png").write_text("no picture")
    Path("empty.png").touch()
    Path("bare").mkdir()
    Image.new("L", (40, 32)).save("black.png")
    Image.new("L", (80, 32), "white").save("wide.png")
    save_file({f"unet.lora_{side}.weight": torch.zeros(1, 1) for side in "AB"}, "lora.safetensors")
    for name in ("weights.ckpt", "weights.bin"):
        Path(name).write_bytes(b"pickle")
    Path("list.yaml").write_text("- 1\n")
    Path("typo.yaml").write_text("stpes: 3\n")
    before = files()
    ran = edit(*args)
    assert ran.code == 2
    for text in named:
        assert text in ran.error
    assert files() == before


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["edit", "--prompt", "a cat"], "--image"),
        (["edit", "--image", "in.png"], "--prompt"),
        (["edit", "--image"], "--image"),
        (["edti"], "edit"),
        (["edit", "extra"], "extra"),
        (["bases", "build", "--features", "sample"], "sampling"),
        (["bases", "build", "--stop", "2"], "--stop"),
        (["bases", "build", "--output", "no/such.safetensors"], "--output"),
        (["bases", "show", "nothing"], "nothing"),
        (["bases", "remove", "nothing"], "nothing"),
        (["bases", "import", "no.safetensors"], "no.safetensors"),
        (["cache", "clear", "--kind", "base"], "did you mean 'bases'"),
        (["methods", "--describe", "sdedt"], "did you mean 'sdedit'"),
        (["methods", "--steps", "0"], "--steps"),
        (["mini", "scenes", "--out", "."], "--out"),
        (["mini", "scenes", "--out", "new", "--layout", "pairs"], "paired"),
        (["mini", "scenes", "--out", "new", "--styles", "nota"], "did you mean 'noto'"),
        (["mini", "scenes", "--out", "new", "--layout", "paired", "--styles", "noto"], "two"),
        (["mini", "scenes", "--out", "new", "--count", "0"], "--count"),
        (["mini", "train", "--out", "new", "--model", "new", "--part", "klip"], "did you mean 'clip'"),
        (["mini", "train", "--out", "new", "--model", "new", "--init", "no"], "--init"),
        (["mini", "sheet", "--out", "no/such/sheet.png"], "--out"),
        (["mini", "score", "--model", "."], "judge"),
    ],
)
def test_bad_usage_of_any_command(cli, monkeypatch, args, named):
    monkeypatch.setenv("FREECTL_HOME", "empty_cache")
    ran = cli(*args)
    assert ran.code == 2
    assert named in ran.error
    assert files() == {"in.png"}


def test_compile_without_a_compiler(cli, monkeypatch):
    monkeypatch.setenv("PATH", "nowhere")
    monkeypatch.delenv("CXX", raising=False)
    ran = cli("mini", "train", "--out", "new", "--model", "new", "--compile")
    assert ran.code == 2
    assert "--compile" in ran.error
    assert not Path("new").exists()


def test_steps_beyond_the_models_schedule(edit):
    ran = edit("--steps", 1000)
    assert ran.code == 2
    assert "--steps" in ran.err.splitlines()[-1]
    assert "out.png" not in files()


def test_hub_id_offline_says_what_to_do(edit):
    ran = edit("--model", "someone/some-model")
    assert ran.code == 1
    assert "someone/some-model" in ran.error
    assert "hf download someone/some-model" in ran.error
    assert "out.png" not in files()


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_damaged_model_folder_is_one_line(edit, model, tmp_path, damage):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    else:
        save_file({"weight": torch.zeros(2)}, weights)
    ran = edit("--model", broken)
    assert ran.code == 2
    assert str(broken) in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert "out.png" not in files()


def test_damaged_single_file_is_one_line(edit):
    Path("weights.safetensors").write_bytes(b"nothing of the kind")
    ran = edit("--model", "weights.safetensors")
    assert ran.code == 2
    assert "'weights.safetensors', damaged" in ran.error


def test_lora_that_fits_nothing_is_one_line(edit):
    save_file({"unet.nowhere.lora_A.weight": torch.zeros(2, 2)}, "odd.safetensors")
    ran = edit("--lora", "odd.safetensors")
    assert ran.code == 2
    assert "--lora" in ran.err.splitlines()[-1]
    assert "out.png" not in files()


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_without_an_accelerator_is_refused(edit, no_loading, offload):
    ran = edit("--offload", offload, "--device", "cpu")
    assert ran.code == 2
    assert "--offload" in ran.error


def test_interrupt_writes_nothing(edit, monkeypatch):
    def interrupt(*_args: Any, **_kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(editing, "run", interrupt)
    ran = edit()
    assert ran.code == 130
    assert ran.error == "freectl: interrupted; nothing was written\n"
    assert files() == {"in.png"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(edit):
    Path("locked").mkdir(mode=0o500)
    assert "--output" in edit("--output", "locked/out.png").error


# The other commands


def test_bases_build_list_show_export_import_remove(cli, model, monkeypatch, workplace):
    monkeypatch.setenv("FREECTL_HOME", str(workplace / "home"))
    small = ("--seeds", 4, "--components", 4, "--model", model, "--format", "json")
    built = cli("bases", "build", "--concept", "cat", *small, "--output", "fp16.safetensors").json
    assert built["concept"] == "cat"
    assert built["seeds"] == 4
    assert built["cost"]["row_forwards"] == 4 + 4 * 2 * 30  # the time's estimate; 60 % of 50 steps, both halves
    again = cli("bases", "build", "--concept", "cat", *small).json
    assert again["key"] == built["key"]
    assert again["cost"]["cached"]["bases"]
    cli("bases", "build", "--prompt", "a small dog", *small)
    listed = cli("bases", "list", "--format", "json").json
    assert {entry["concept"] for entry in listed} == {"cat", "a small dog"}
    assert built["key"][:12] in cli("bases", "list").out
    shown = cli("bases", "show", "cat", "--format", "json").json
    assert shown["key"] == built["key"]
    for shares in shown["cumulative_share"].values():
        assert shares == sorted(shares)
        assert 0 < shares[0] <= shares[-1] < 1  # 4 of 16 directions
    assert cli("bases", "export", built["key"][:8], "cat.safetensors").code == 0
    removed = cli("bases", "remove", "cat", "--format", "json").json
    assert removed["removed"] == built["key"]
    assert len(cli("bases", "list", "--format", "json").json) == 1
    assert cli("bases", "import", "cat.safetensors", "--model", model, "--format", "json").json["key"] == built["key"]
    found = cli("bases", "build", "--concept", "cat", *small).json
    assert found["cost"]["cached"]["bases"]
    assert found["cost"]["row_forwards"] == 0
    ambiguous = cli("bases", "show", "")
    assert (ambiguous.code, "2 entries" in ambiguous.error) == (2, True)


def test_an_edit_finds_bases_built_before(cli, edit, model, monkeypatch, workplace):
    monkeypatch.setenv("FREECTL_HOME", str(workplace / "home"))
    cli("bases", "build", "--concept", "cat", "--seeds", 4, "--model", model)
    assert edit("--concept", "cat", "--set", "seed_steps=50").json["cost"]["cached"]["bases"]


def test_import_refuses_other_files(cli):
    save_file({"weight": torch.zeros(2)}, "other.safetensors")
    ran = cli("bases", "import", "other.safetensors")
    assert ran.code == 2
    assert "other.safetensors" in ran.error


def test_cache_list_and_clear(cli, edit, monkeypatch, workplace):
    monkeypatch.setenv("FREECTL_HOME", str(workplace / "home"))
    assert cli("cache", "list", "--format", "json").json["entries"] == []
    assert "nothing is cached" in cli("cache", "list").out
    edit("--source-prompt", "a fox")
    listed = cli("cache", "list", "--format", "json").json
    assert sorted(entry["kind"] for entry in listed["entries"]) == ["bases", "inversion", "reference"]
    assert listed["bytes"] == sum(entry["bytes"] for entry in listed["entries"])
    assert listed["folder"] == str(workplace / "home")
    assert "a fox" in cli("cache", "list").out
    gone = cli("cache", "clear", "--kind", "inversion", "--format", "json").json
    assert gone["removed"] == 1
    assert cli("cache", "clear", "--format", "json").json["removed"] == 2
    assert cli("cache", "clear", "--format", "json").json == {"removed": 0, "bytes": 0}


def test_methods(cli):
    listed = cli("methods", "--format", "json").json
    assert max(map(len, cli("methods").out.splitlines())) <= 80
    assert {"freecontrol", "sdedit"} <= {entry["name"] for entry in listed}
    for entry in listed:
        assert entry["name"] in cli("methods").out
        described = cli("methods", "--describe", entry["name"], "--format", "json").json
        assert described == entry
        text = cli("methods", "--describe", entry["name"]).out
        assert all(setting["name"] in text for setting in entry["settings"])
    assert "synthesis 20" in cli("methods", "--describe", "sdedit", "--steps", 14).out  # int(14 * 0.75) steps


def test_methods_tell_on_which_families_they_run(cli):
    """Listed is what an edit's own check lets pass, of few-step models too; the overview names every family."""
    from freectl import methods
    from freectl.models.families import FAMILIES

    for entry in cli("methods", "--format", "json").json:
        for family in FAMILIES if entry["name"] in methods.REGISTRY else ():
            listed = family.name in entry["families"]
            with (
                nullcontext() if listed else pytest.raises(freectl.InputError, match=f"--method: found {entry['name']}")
            ):
                family.check_method(entry["name"], few_steps=family.guidance == "none")
    told = "".join(cli("methods").out.split())  # lines are broken at hyphens too
    assert all(family.name in told for family in FAMILIES)


def test_env(cli):
    facts = cli("env", "--format", "json").json
    assert {"freectl", "python", "packages", "devices", "cache"} <= set(facts)
    assert torch.__version__.startswith(facts["packages"]["torch"].split("+")[0])
    assert "packages" in cli("env").out


def test_mini_words(cli):
    words = cli("mini", "words", "--format", "json").json
    assert "fox" in words["objects"]
    assert "blue" in words["backgrounds"]
    assert "fluent" in words["styles"]


def test_mini_scenes(cli):
    made = cli("mini", "scenes", "--out", "scenes", "--count", 3, "--seed", 1, "--format", "json").json
    assert made["pictures"] == 3
    lines = [json.loads(line) for line in Path("scenes/scenes.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert all((Path("scenes") / line["picture"]).is_file() for line in lines)
