"""Many edits: each is what `freectl.edit` makes of its row, whatever runs beside it, and none is done twice."""

import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from batch_kit import files, lines, pixels, written
from PIL import Image

import freectl
from freectl.errors import FreectlError, InputError
from freectl.files.record import read_record
from freectl.pipelines.loading import Source
from freectl.tasks import edit as editing
from freectl.tasks.batch.worker import Spec, Worker
from freectl.tasks.options import EditOptions

ROWS = [
    {"image": "a.png", "prompt": "a dog", "seed": [3, 4]},
    {"image": "b.png", "source_prompt": "a fox", "settings": {"strength": 0.5}},
    {"image": "c.png", "negative_prompt": "a tree", "strength": 0.9},
]


def test_every_row_is_the_edit_it_asks_for(batch, model):
    done = batch(ROWS, batch_size=1)
    assert (done.made, done.failed, done.kept) == (4, 0, 0)
    assert files() == {"a_3.png", "a_4.png", "b_0.png", "c_0.png", "results.jsonl"}
    for row, seed, name in [(0, 3, "a_3"), (0, 4, "a_4"), (1, 0, "b_0"), (2, 0, "c_0")]:
        values = {key: value for key, value in ROWS[row].items() if key not in ("image", "settings", "seed")}
        usual = {"prompt": "a cat", "method": "sdedit", "steps": 3, "model": model, "seed": seed}
        single = freectl.edit(ROWS[row]["image"], **(usual | values | ROWS[row].get("settings", {})))
        assert np.array_equal(np.asarray(single.image), pixels(f"out/{name}.png")), name
        record = read_record(f"out/{name}.png")
        assert record["settings"] == single.record["settings"] | {"image": ROWS[row]["image"]}
        line = next(one for one in lines() if one["output"] == f"{name}.png")
        assert (line["row"], line["seed"]) == (row + 1, seed)
        assert {key: line[key] for key in record if key != "output"} == {
            key: value for key, value in record.items() if key != "output"
        }


@pytest.mark.parametrize("method", ["sdedit", "pnp"])
def test_a_batch_of_the_network_is_its_pictures_one_by_one(batch, method, monkeypatch):
    counts, together = [], editing.run_together
    monkeypatch.setattr(editing, "run_together", lambda plans, **k: counts.append(len(plans)) or together(plans, **k))
    sources = {"a": "a fox", "b": "a red fox"}
    rows = [{"image": f"{name}.png", "prompt": f"a {name} cat", "source_prompt": sources[name]} for name in "ab"]
    batch(rows, "many", method=method, cache=False)
    assert counts == [2]
    batch(rows, "one", method=method, batch_size=1, cache=False)
    assert counts == [2, 1, 1]
    for name in "ab":
        assert np.abs(pixels(f"many/{name}_0.png") - pixels(f"one/{name}_0.png")).max() <= 2
    assert np.abs(pixels("many/a_0.png") - pixels("many/b_0.png")).max() > 8
    many, one = ({line["output"]: line["cost"] for line in lines(folder)} for folder in ("many", "one"))
    for name in many:
        assert many[name]["batch"] == 2
        assert many[name]["row_backwards"] == one[name]["row_backwards"]
    assert sum(cost["row_forwards"] for cost in many.values()) <= sum(cost["row_forwards"] for cost in one.values())


def test_what_places_something_in_one_picture_is_made_alone(batch, monkeypatch):
    half = Image.new("L", (32, 32), 0)
    half.paste(255, (0, 0, 16, 32))
    half.save("m.png")
    counts, together = [], editing.run_together
    monkeypatch.setattr(editing, "run_together", lambda plans, **k: counts.append(len(plans)) or together(plans, **k))
    rows = [{"image": "a.png"}, {"image": "b.png", "keep": "m.png"}, {"image": "c.png"}, {"image": "a.png", "seed": 1}]
    assert batch(rows).made == 4
    assert sorted(counts) == [1, 3]
    assert np.array_equal(pixels("out/b_0.png")[:, :16], pixels("b.png")[:, :16])


def test_prompts_that_choose_bases_of_their_own_do_not_share_a_batch(model, monkeypatch):
    from freectl.semantics import store
    from freectl.tasks.batch.rows import Rows
    from freectl.tasks.batch.worker import Spec, Worker, planned

    def keys(**options):
        rows = Rows({"model": model, **options})
        each = [rows.wanted(1, {"image": "a.png", "prompt": prompt})[0] for prompt in ("a cat", "a cat dog")]
        return {worker._batch_key(one, planned(one)) for one in each}

    worker = Worker(Spec("out"))
    assert len(keys()) == 1  # this family has bases for all prompts
    monkeypatch.setattr(store, "seed_prompts", lambda _, concept, prompt: store.SeedPrompts((prompt,), "", prompt))
    assert len(keys()) == 2
    assert len(keys(concept="cat")) == len(keys(method="pnp")) == 1


def test_a_row_that_fails_is_recorded_and_the_rest_goes_on(batch, model):
    Path("d.png").write_bytes(Path("a.png").read_bytes()[:60])
    rows = [
        {"image": "no.png"},
        {"image": "a.png"},
        {"image": "d.png"},
        {"image": "b.png", "strenght": 1},
        {"image": "b.png"},
    ]
    done = batch(rows)
    assert (done.made, done.failed) == (2, 3)
    assert files() == {"a_0.png", "b_0.png", "results.jsonl"}
    errors = {line["row"]: line["error"] for line in lines() if "error" in line}
    assert sorted(errors) == [1, 3, 4]
    assert "no file 'no.png'" in errors[1]
    assert "d.png" in errors[3]
    assert "did you mean 'strength'" in errors[4]
    with pytest.raises(InputError, match=r"row 1\)"):
        batch(rows, "other", on_error="stop")
    assert not Path("other").exists()


def test_the_one_at_fault_in_a_batch_is_found(batch, monkeypatch):
    together = editing.run_together

    def run(plans, **options):
        if any(plan.options.prompt == "bad" for plan in plans):
            raise FreectlError("a word that is not there")
        return together(plans, **options)

    monkeypatch.setattr(editing, "run_together", run)
    done = batch([{"image": "a.png"}, {"image": "b.png", "prompt": "bad"}, {"image": "a.png", "seed": 5}])
    assert (done.made, done.failed) == (2, 1)
    assert [line["row"] for line in lines() if "error" in line] == [2]


def test_what_a_pipeline_depends_on_tells_pipelines_apart(monkeypatch):
    """Whatever option is looked at while a pipeline is made has a place in the key under which it is kept."""
    seen = {"model"}  # which the source stands for

    class Watched(EditOptions):
        def __getattribute__(self, name):
            if name in EditOptions.model_fields:
                seen.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(editing, "load_pipeline", lambda *_, **__: SimpleNamespace(vae=None))
    options = Watched(prompt="a cat")
    seen -= set(EditOptions.model_fields) - {"model"}  # of its own making
    editing.opened(options, Source("hub", "a/b", "a/b"))
    assert seen == set(editing.LOADED)
    worker, plain = Worker(Spec("out")), EditOptions(prompt="a cat")
    tiled = plain.model_copy(update={"vae_tiling": True})
    monkeypatch.setattr(editing, "opened", only_without_tiles)
    for options, fails in ((tiled, True), (plain, False), (tiled, True)):
        with pytest.raises(InputError) if fails else nullcontext():
            worker._pipeline(SimpleNamespace(options=options, source=None))


def only_without_tiles(options, source):
    if options.vae_tiling:
        raise InputError("--vae-tiling", "a VAE without tiles", "--no-vae-tiling")
    return None, []


def test_resume_does_what_is_missing_and_no_more(batch, monkeypatch):
    rows = [{"image": f"{name}.png"} for name in "abc"]
    batch(rows, on_error="continue")
    before = {path: os.stat(path).st_mtime_ns for path in Path("out").glob("*.png")}
    with pytest.raises(InputError, match="resume"):
        batch(rows)
    journal = Path("out/results.jsonl")
    all_lines = journal.read_text().splitlines()
    journal.write_text("\n".join(all_lines[:2]) + "\n" + all_lines[2][:40])  # torn by a kill; its picture is there
    runs, together = [], editing.run_together
    monkeypatch.setattr(editing, "run_together", lambda plans, **k: runs.append(len(plans)) or together(plans, **k))
    assert batch(rows, resume=True).kept == 3
    assert runs == []
    assert sorted(map(json.dumps, lines())) == sorted(json.dumps(json.loads(line)) for line in all_lines)
    Path("out/b_0.png").unlink()  # a picture that is gone
    Image.open("c.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("c.png")  # one whose input has changed
    done = batch([*rows, {"image": "a.png", "seed": 9}], resume=True)
    assert (done.kept, done.made) == (1, 3)
    assert sorted(line["output"] for line in lines()) == ["a_0.png", "a_9.png", "b_0.png", "c_0.png", "c_0_2.png"]
    kept = Path("out/a_0.png")
    assert os.stat(kept).st_mtime_ns == before[kept]


def test_what_failed_is_tried_again_and_has_one_line(batch):
    rows = [{"image": "a.png"}, {"image": "late.png"}]
    assert batch(rows).failed == 1
    Path("late.png").write_bytes(Path("b.png").read_bytes())
    done = batch(rows, resume=True)
    assert (done.kept, done.made, done.failed) == (1, 1, 0)
    assert sorted(line["output"] for line in lines()) == ["a_0.png", "late_0.png"]


def test_a_folder_that_has_moved_with_its_manifest_is_resumed(batch, workplace):
    Path("in").mkdir()
    Path("a.png").rename("in/a.png")
    written("in/m.jsonl", [{"image": "a.png"}])
    assert batch("in/m.jsonl", "in/out").made == 1
    Path("in").rename("elsewhere")
    done = batch("elsewhere/m.jsonl", "elsewhere/out", resume=True)
    assert (done.kept, done.made) == (1, 0)


def test_equal_rows_are_done_once(batch):
    done = batch([{"image": "a.png"}, {"image": "a.png", "seed": 0}, {"image": "./b.png"}])
    assert done.made == 2


def test_formats_of_records(batch):
    assert batch([{"image": "a.png"}], name="{method}/{stem}.jpg").made == 1
    assert files() == {"sdedit/a.jpg", "sdedit/a.jpg.json", "results.jsonl"}
    assert batch([{"image": "a.png"}], name="{method}/{stem}.jpg", resume=True).kept == 1
    Path("out/results.jsonl").unlink()
    Path("out/sdedit/a.jpg.json").unlink()  # killed between the two
    assert batch([{"image": "a.png"}], name="{method}/{stem}.jpg", resume=True).made == 1
    assert [line["output"] for line in lines()] == ["sdedit/a.jpg"]


def test_a_file_of_others_in_the_folder_is_left(batch):
    Path("out").mkdir()
    Image.new("RGB", (9, 9)).save("out/a_0.png")
    batch([{"image": "a.png"}])
    assert Image.open("out/a_0.png").size == (9, 9)
    assert lines()[0]["output"] == "a_0_2.png"
    assert "holds something else" in lines()[0]["warnings"][-1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_make_what_one_makes(batch, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    rows = [{"image": f"{name}.png", "seed": [0, 1]} for name in "abc"]
    assert batch(rows, "one", batch_size=2).made == 6
    assert batch([*rows, {"image": "no.png"}], "two", batch_size=2, workers=2).made == 6
    assert files("one") == files("two")
    for name in files("one") - {"results.jsonl"}:
        assert np.array_equal(pixels(f"one/{name}"), pixels(f"two/{name}")), name
