"""Several seeds, and folders of pictures."""

from pathlib import Path

import numpy as np
import pytest
from commands import files
from PIL import Image

from freectl.cli.several import parse_seeds
from freectl.errors import InputError
from freectl.files.record import read_record
from freectl.tasks import edit as editing


@pytest.fixture
def edit(cli, model):
    def run(*args):
        usual = {"--image": "in.png", "--prompt": "a cat", "--method": "sdedit"}
        kept = [part for option, value in usual.items() if option not in args for part in (option, value)]
        return cli("edit", *kept, "--model", model, "--steps", 4, "--format", "json", *args)

    return run


def pixels(path):
    return np.asarray(Image.open(path))


def test_seeds_by_text():
    assert parse_seeds(None, None) == []
    assert parse_seeds("7", None) == ["7"]
    assert parse_seeds("1, 2,3", None) == ["1", "2", "3"]
    assert parse_seeds(None, 3) == ["0", "1", "2"]
    assert parse_seeds("9", 3) == ["9", "10", "11"]
    for given in (("1,1", None), ("1,2", 3), (",".join(map(str, range(99))), None)):
        with pytest.raises(InputError, match="--seed"):
            parse_seeds(*given)


def test_several_seeds_are_the_single_runs_and_a_sheet(edit):
    ran = edit("--seed", "3,8").json
    assert files() == {"in.png", "out_seed3.png", "out_seed8.png", "out_seeds.png"}
    assert (ran["output"], ran["seed"]) == ("out_seeds.png", [3, 8])
    assert [one["output"] for one in ran["results"]] == ["out_seed3.png", "out_seed8.png"]
    for seed in (3, 8):
        assert read_record(f"out_seed{seed}.png")["seed"] == seed
        single = edit("--seed", seed, "--output", f"single{seed}.png").json
        assert np.array_equal(pixels(single["output"]), pixels(f"out_seed{seed}.png"))
    assert not np.array_equal(pixels("out_seed3.png"), pixels("out_seed8.png"))
    assert Image.open("out_seeds.png").width > 3 * 40
    assert [one["seed"] for one in edit("--seeds", 2, "--seed", 3, "--output", "n.png").json["results"]] == [3, 4]


def test_a_method_that_ignores_the_seed_says_so_and_how_to_vary(edit):
    ran = edit("--method", "pnp", "--seeds", 3).json
    assert len(ran["results"]) == 1
    assert "draws nothing from the seed" in ran["results"][0]["warnings"][-1]
    assert files() == {"in.png", "out_seed0.png", "out_seeds.png"}
    single = edit("--method", "pnp", "--seed", 4, "--output", "p.png").json
    assert "--method sdedit" in single["warnings"][-1]
    assert edit("--method", "pnp", "--output", "q.png").json["warnings"] == []  # nobody asked for a seed
    assert np.array_equal(pixels("p.png"), pixels("q.png"))


@pytest.mark.parametrize("method", ["sdedit", "ddpm-inversion", "flowedit"])
def test_the_methods_named_as_drawing_do(model, method):
    picture = Image.open("in.png")
    first, second = (editing.edit(picture, "a cat", method, str(model), steps=4, seed=seed) for seed in (1, 2))
    assert first.seeded
    assert first.image.tobytes() != second.image.tobytes()


@pytest.fixture
def photos(source):
    folder = Path("photos")
    folder.mkdir()
    for index, size in enumerate([(40, 32), (24, 30), (32, 32)]):
        source.resize(size).save(folder / f"p{index}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_is_edited_with_the_model_loaded_once(edit, photos, monkeypatch):
    loads, load = [], editing.load_pipeline
    monkeypatch.setattr(editing, "load_pipeline", lambda *a, **k: loads.append(1) or load(*a, **k))
    editing._pipeline.cache_clear()
    ran = edit("--image", photos).json
    assert len(loads) == 1
    assert files(Path("out")) == {"p0.png", "p1.png", "p2.png"}
    assert ran["output"] == "out"
    for index, size in enumerate([(40, 32), (24, 30), (32, 32)]):
        assert Image.open(f"out/p{index}.png").size == size
        single = edit("--image", photos / f"p{index}.png", "--output", f"s{index}.png").json
        assert np.array_equal(pixels(single["output"]), pixels(f"out/p{index}.png"))


def test_a_broken_picture_of_a_folder_is_told_and_the_others_are_done(edit, photos):
    (photos / "p1.png").write_bytes(b"no picture")
    ran = edit("--image", photos, "--output", "new/deep")
    assert ran.code == 1
    assert files(Path("new/deep")) == {"p0.png", "p2.png"}
    assert "p1.png" in ran.err
    assert ran.err.splitlines()[-1] == "freectl: 1 of 3 pictures could not be edited"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--output", "one.png"], "--output"),
        (["--output", "photos"], "the inputs itself"),
        (["--seeds", "2"], "--seed"),
        (["--method", "sdedit,pnp"], "--method"),
        (["--compare"], "--compare"),
        (["--steps", "0"], "--steps"),
    ],
)
def test_what_a_folder_does_not_go_with(cli, model, photos, args, named):
    steps = [] if "--steps" in args else ["--steps", 4]
    ran = cli("edit", "--image", photos, "--prompt", "a cat", "--model", model, *steps, *args)
    assert ran.code == 2
    assert named in ran.error
    assert files(photos) == {"p0.png", "p1.png", "p2.png", "notes.txt"}
    assert not Path("out").exists()
