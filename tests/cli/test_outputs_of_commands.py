"""What commands write: over no input, never silently over another result, each result as it comes."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import files
from PIL import Image

from freectl.files.record import read_record
from freectl.tasks import edit as editing


@pytest.fixture
def quick(cli, model):
    """Run `freectl edit` on in.png with SDEdit and few steps, but for what is given."""
    usual = {"--image": "in.png", "--prompt": "a cat", "--model": model, "--method": "sdedit", "--steps": 4}

    def run(*args):
        kept = {option: value for option, value in usual.items() if option not in args}
        return cli("edit", *(part for pair in kept.items() for part in pair), "--format", "json", *args)

    return run


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_repeat_replaces_and_another_run_is_numbered(quick):
    first = quick().json
    assert quick().json["output"] == "out.png"
    assert files() == {"in.png", "out.png"}
    other = quick("--seed", 5).json
    assert other["output"] == "out_2.png"
    assert "--overwrite" in other["warnings"][-1]
    assert read_record("out.png")["seed"] == first["seed"] == 0
    assert read_record("out_2.png")["seed"] == 5
    assert quick("--seed", 6, "--overwrite").json["output"] == "out.png"
    assert read_record("out.png")["seed"] == 6


def test_another_picture_under_the_same_name_is_another_run(quick):
    assert quick().json["output"] == "out.png"
    Image.new("RGB", (40, 32), "teal").save("in.png")
    assert quick().json["output"] == "out_2.png"


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (["--image", "a_pnp.png", "--method", "sdedit,pnp", "--output", "a.png"], "--image"),
        (["--keep", "out_compare.png", "--compare"], "--keep"),
        (["--keep", "k.png", "--output", "k.png"], "--keep"),
        (["--seed", "1,2", "--keep", "out_seed2.png"], "--keep"),
    ],
)
def test_derived_names_and_every_input_are_guarded(quick, args, option):
    mask = Image.new("L", (40, 32))
    mask.paste(255, (0, 0, 20, 32))
    for name in ("out_compare.png", "k.png", "out_seed2.png"):
        mask.save(name)
    Image.open("in.png").save("a_pnp.png")
    before = {name: Path(name).read_bytes() for name in files()}
    assert f"the file of {option} itself" in quick(*args, "--overwrite").error
    assert {name: Path(name).read_bytes() for name in files()} == before


def test_a_config_is_not_overwritten_by_its_repeat(quick, cli):
    quick()
    ran = cli("edit", "--config", "out.png", "--format", "json")
    assert ran.code == 2
    assert "the file of --config itself" in ran.error
    quick("--output", "o.jpg")
    assert "the file of --config itself" in cli("edit", "--config", "o.jpg.json", "--output", "o.jpg").error


def test_each_method_is_on_disk_before_the_next_one_runs(quick, monkeypatch):
    run, seen = editing.run, []

    def watched(checked, **options):
        seen.append((checked.method.name, sorted(files() - {"in.png"})))
        if checked.method.name == "flowedit":
            raise KeyboardInterrupt
        return run(checked, **options)

    monkeypatch.setattr(editing, "run", watched)
    ran = quick("--method", "sdedit,pnp,flowedit", "--compare")
    assert seen == [
        ("sdedit", []),
        ("pnp", ["out_sdedit.png"]),
        ("flowedit", ["out_pnp.png", "out_sdedit.png"]),
    ]
    assert ran.code == 130
    assert "out_sdedit.png, " in ran.err.splitlines()[-1]
    assert "out_pnp.png" in ran.err.splitlines()[-1]


def test_transparency_is_kept_where_it_is_asked_for(quick):
    glass = Image.open("in.png").convert("RGBA")
    alpha = Image.linear_gradient("L").resize((40, 32))
    glass.putalpha(alpha)
    glass.save("glass.png")
    plain = quick("--image", "glass.png", "--background", "#406080").json
    kept = quick("--image", "glass.png", "--background", "#406080", "--keep-alpha", "--output", "kept.png").json
    assert plain["settings"]["background"] == "#406080"
    result = Image.open(kept["output"])
    assert result.mode == "RGBA"
    assert result.getchannel("A").tobytes() == alpha.tobytes()
    below = Image.new("RGBA", result.size, "#406080")
    seen = np.asarray(Image.alpha_composite(below, result).convert("RGB")).astype(int)
    share = np.asarray(alpha)[..., None] / 255
    least = (1 - share) * np.array([0x40, 0x60, 0x80])
    edited = pixels("out.png").astype(int)
    # little shows of a colour that is nearly transparent: not every picture can be had on the background
    within = (edited >= least) & (edited <= least + 255 * share) & (share > 0.25)
    assert within.mean() > 0.3
    assert np.abs(seen - edited)[within].max() <= 3
    assert "JPEG" in quick("--image", "glass.png", "--keep-alpha", "--output", "k.jpg").error
    assert "--background" in quick("--background", "glassy").error


def test_json_holds_the_cost_and_people_get_file_size_seconds_and_advice(quick, cli, model):
    assert quick().json["cost"]["row_forwards"] > 0
    said = cli("edit", "--image", "in.png", "--prompt", "a cat", "--model", model, "--method", "sdedit", "--steps", 4)
    last = said.out.splitlines()[-1]
    assert last.startswith("out.png  (40x32 px, ")
    assert " s); next: " in last
    assert "row forwards" not in said.out
    Path("o.json").write_text(json.dumps({"prompt": "make a cat"}))
    hinted = cli(
        "edit", "--config", "o.json", "--image", "in.png", "--model", model, "--method", "sdedit", "--steps", 4
    )
    assert "prompts describe the result" in hinted.out
