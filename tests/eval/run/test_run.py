"""The runner: what is asked for, resuming after a kill, folders that do not mix, results equal to `freectl edit`."""

import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forks import Fork
from PIL import Image
from result_kit import about, line
from typer import Typer
from typer.testing import CliRunner

import freectl
from eval.bench.cases import balanced, chosen_cases
from eval.bench.mini_files import load_mini
from eval.bench.world import world_side
from eval.results.store import Store
from eval.run.checked import check
from eval.run.command import run
from eval.run.execute import execute
from eval.run.measure import again
from eval.run.plan import Plan, weights_digest
from eval.run.runners import DiffusionRunner, Made, load_model
from eval.run.variants import variants
from eval.run.workshop import Workshop
from eval.scores.base import Scored
from freectl.errors import FreectlError, InputError
from freectl.mini import MODEL_DIR

ROOT = Path(__file__).resolve().parents[3]


def invoke(*arguments: str) -> Any:
    app = Typer()
    app.command()(run)
    return CliRunner().invoke(app, list(arguments))


def labels(methods: str, sets: tuple[str, ...] = (), sweeps: tuple[str, ...] = ()) -> list[str]:
    return [one.label for one in variants(methods, list(sets), list(sweeps), [])]


def test_sweeps_make_one_variant_a_value_and_one_curve() -> None:
    made = variants("sdedit,freecontrol:official", ["freecontrol.start=noise"], ["sdedit.strength=0.3, 0.9"], [])
    assert [one.label for one in made] == [
        "sdedit[strength=0.3]",
        "sdedit[strength=0.9]",
        "freecontrol:official[start=noise]",
    ]
    assert [one.curve for one in made] == ["sdedit", "sdedit", "freecontrol:official[start=noise]"]
    assert len({one.folder for one in made}) == 3
    own = labels("freecontrol,freecontrol[start=noise,mask=exact],freecontrol:paper[components=8]")
    assert own == ["freecontrol", "freecontrol[mask=exact,start=noise]", "freecontrol:paper[components=8]"]
    assert labels(",".join(own)) == own  # a label asks for what it says
    mixed = variants("freecontrol,freecontrol[structure_strength=0.5|1],freecontrol[start=noise]", [], [], [])
    assert [one.curve for one in mixed] == [*["freecontrol"] * 3, "freecontrol[start=noise]"]
    assert mixed[2].label == "freecontrol[structure_strength=1]"
    both = labels("freecontrol", sweeps=("freecontrol.structure_strength=0.5,1", "freecontrol.components=4,8"))
    assert len(both) == 4


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("", (), ()), "--methods"),
        (("sdedit,sdedit", (), ()), "--methods"),
        (("sdedit[strength]", (), ()), "--methods"),
        (("sdedit]", (), ()), "--methods"),
        (("sdedit", ("sdedit.strength",), ()), "--set"),
        (("sdedit", ("pnp.strength=1",), ()), "--set"),
        (("sdedit", (), ("strength=1",)), "--sweep"),
        (("sdedit", (), ("sdedit.strength=,",)), "--sweep"),
        (("sdedit[strength=|]", (), ()), "--methods"),
        (("gan", (), ()), "--gan-weights"),
    ],
)
def test_malformed_requests_name_their_option(arguments: tuple, option: str) -> None:
    with pytest.raises(InputError, match=option):
        labels(*arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--methods", "nobody"], "--methods"),
        (["--methods", "freecontrol:nobody"], "preset"),
        (["--methods", "sdedit", "--set", "sdedit.strength=7"], "strength"),
        (["--methods", "sdedit", "--set", "sdedit.mask=exact"], "mask"),
        (["--methods", "masactrl[mask=attention]"], "--set mask: found attention for masactrl"),
        (["--methods", "ctrlx[mask=exact]", "--bench", "mini-control"], "--mask: found given to ctrlx"),
        (["--methods", "sdedit[kinds=taste]"], "--set kinds"),
        (["--methods", "sdedit", "--bench", "nobody"], "--bench"),
        (["--methods", "sdedit", "--bench", "pie"], "--data"),
        (["--methods", "sdedit", "--kinds", "taste"], "--kinds"),
        (["--methods", "sdedit", "--clip", "ViT-L-14/nobody"], "--clip"),
        (["--methods", "sdedit", "--clip", str(ROOT / "eval")], "--clip"),
        (["--methods", "sdedit", "--dtype", "fp8"], "--dtype"),
        (["--rescore"], "--out"),
    ],
)
def test_what_cannot_work_is_found_before_anything_is_written(arguments: list, text: str, tmp_path: Path) -> None:
    result = invoke(*arguments, "--out", str(tmp_path / "out"))
    assert isinstance(result.exception, InputError)
    assert text in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_larger_subset_holds_the_smaller_one_and_kinds_come_equally_often() -> None:
    cases = load_mini().cases
    small, large = (balanced(cases, count) for count in (12, 48))
    assert {case.key for case in small} <= {case.key for case in large}
    assert {sum(case.kind == kind for case in large) for kind in {c.kind for c in cases}} == {8}
    assert balanced(cases, 1000) == list(cases)
    assert {case.kind for case in chosen_cases(load_mini(), "style,all", None)} == {"style", "all"}


def test_a_torn_line_and_a_lost_picture_are_done_again(tmp_path: Path) -> None:
    bench = load_mini()
    store = Store(tmp_path)
    with store.locked():
        store.begin(about(bench), "one")
        for case in bench.cases[:3]:
            made = line(case, "sdedit", {"target": 1.0})
            store.save_picture(made["picture"], Image.new("RGB", (8, 8)))
            store.append(made)
        (tmp_path / "pictures/sdedit" / f"{bench.cases[1].key}.png").unlink()
        with store.lines_path.open("a") as stream:
            stream.write('{"case": "torn')
        assert store.recover() == {(bench.cases[0].key, "sdedit"), (bench.cases[2].key, "sdedit")}
        assert len(store.lines()) == 2
        with pytest.raises(FreectlError, match="another run"), Store(tmp_path).locked():
            pass


def test_results_of_other_weights_do_not_mix(tmp_path: Path) -> None:
    store, known = Store(tmp_path), about(load_mini())
    store.begin(known, "one")
    store.begin(known, "two")
    assert store.about()["commands"] == ["one", "two"]
    for key, value in (("weights", "1"), ("seed", 1), ("digest", "1"), ("steps", 10)):
        with pytest.raises(InputError, match=f"results of {key}"):
            store.begin(known | {key: value}, "three")
    assert store.about()["commands"] == ["one", "two"]


def test_a_number_that_is_none_is_refused_by_the_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path).append({"x": float("nan")})


def test_a_runners_picture_is_that_of_freectl_edit() -> None:
    case = load_mini().cases[0]
    model = load_model("mini", 3, 5, device="cpu", dtype="auto")
    (asked,) = variants("sdedit", ["sdedit.strength=0.8"], [], [])
    made = DiffusionRunner(model, check(asked)).run(case)
    same = freectl.edit(case.picture(), case.prompt, method="sdedit", steps=3, seed=5, strength=0.8,
                        source_prompt=case.source_prompt)  # fmt: skip
    assert made.image.tobytes() == same.image.tobytes()
    assert made.settings["strength"] == 0.8
    assert made.cost["row_forwards"] > 0


def test_a_kept_inversion_gives_the_same_picture_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREECTL_HOME", str(tmp_path))
    case = load_mini().cases[0]
    model = load_model("mini", 5, 0, device="cpu", dtype="auto")
    (asked,) = variants("freecontrol", [], [], [])
    alone = DiffusionRunner(model, check(asked)).run(case)
    kept = DiffusionRunner(replace(model, reuse=True), check(asked))
    first, second = kept.run(case), kept.run(case)
    assert alone.image.tobytes() == first.image.tobytes() == second.image.tobytes()
    assert alone.cost["row_forwards"] == first.cost["row_forwards"] > second.cost["row_forwards"]
    assert not alone.cost["cached"]["inversion"]
    assert second.cost["cached"]["inversion"]


def test_weights_digest_does_not_depend_on_the_judge(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL_DIR, model)
    first = weights_digest(str(model))
    (model / "judge/config.json").write_text("[]")
    assert weights_digest(str(model)) == first
    with (model / "scheduler/scheduler_config.json").open("a") as stream:
        stream.write("\n")
    assert weights_digest(str(model)) != first


def test_tasks_take_kinds_in_turn_so_that_a_part_is_balanced() -> None:
    cases = balanced(load_mini().cases, 12)
    tasks = Plan(("mini", None, None), tuple(variants("sdedit,pnp", [], [], []))).tasks(cases)
    assert len(tasks) == 24
    kinds = {case.key: case.kind for case in cases}
    assert len({kinds[key] for key, _ in tasks[:12]}) == 6


@pytest.mark.timeout(300)
def test_killed_and_started_again_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--methods", "sdedit", "--sweep", "sdedit.strength=0.5,0.9", "--subset", "6", "--steps", "5"]
    arguments += ["--threads", "1", "--out", str(out)]

    def first() -> None:
        sys.argv = ["eval.run", *arguments]  # the record keeps each command once
        invoke(*arguments)

    process = Fork(first)
    limit = time.monotonic() + 200
    while not (out / "results.jsonl").exists() or (out / "results.jsonl").read_bytes().count(b"\n") < 2:
        assert process.wait(0.02) is None, "ended before it was killed"
        assert time.monotonic() < limit, "nothing done"
    process.kill()
    before = {path: path.stat().st_mtime_ns for path in out.glob("pictures/*/*.png")}
    done = {(one["case"], one["variant"]) for one in Store(out).lines()}
    assert 2 <= len(done) < 12
    assert invoke(*arguments).exit_code == 0
    lines = Store(out).lines()
    assert len(lines) == 12 == len((out / "results.jsonl").read_text().splitlines())
    kept = [one for one in lines if (one["case"], one["variant"]) in done]
    assert len(kept) == len(done)
    assert all((out / one["picture"]).stat().st_mtime_ns == before[out / one["picture"]] for one in kept)
    assert len(json.loads((out / "run.json").read_text())["commands"]) == 2
    assert invoke("--out", str(out), "--rescore").exit_code == 0
    assert Store(out).lines() == lines
    one = lines[-1]
    assert one["cost"]["row_forwards"] > 0
    with Image.open(io.BytesIO((out / one["picture"]).read_bytes())) as picture:
        assert picture.size == (world_side(), world_side())


def test_what_cannot_be_loaded_or_written_ends_a_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load_mini()
    plan = Plan(("mini", None, None), tuple(variants("sdedit", [], [], [])), model="nobody/nothing", steps=2)
    store = Store(tmp_path)
    with pytest.raises(FreectlError, match="nobody/nothing"):
        execute(plan, bench, bench.cases[:2], store, scorer=object())
    assert not (tmp_path / "failures.jsonl").exists()
    monkeypatch.setattr(DiffusionRunner, "run", lambda _self, case: Made(case.picture(), {}, {}))
    monkeypatch.setattr("eval.run.runners.load_model", lambda *_args, **_named: None)
    (tmp_path / "pictures").write_text("a file where a folder should be")
    shop = Workshop(plan, store, bench, lambda _case, _image: Scored({}))
    with pytest.raises(FreectlError, match="--out: could not make"):
        shop.do((bench.cases[0].key, "sdedit"))


def test_waiting_takes_wall_seconds_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load_mini()
    plan = Plan(("mini", None, None), tuple(variants("sdedit", [], [], [])), steps=2)

    def run(_self: Any, case: Any) -> Made:
        time.sleep(0.2)
        return Made(case.picture(), {}, {})

    monkeypatch.setattr(DiffusionRunner, "run", run)
    monkeypatch.setattr("eval.run.runners.load_model", lambda *_args, **_named: None)

    def scorer(_case: Any, _image: Any) -> Scored:
        return Scored({})

    scorer.networks, scorer.notes = {}, []
    shop = Workshop(plan, Store(tmp_path), bench, scorer)
    done = shop.do((bench.cases[0].key, "sdedit"))
    assert done["seconds"] >= 0.2
    assert 0 <= done["cpu_seconds"] < 0.2


def test_rescoring_loses_nothing_where_a_network_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, store = load_mini(), Store(tmp_path)
    store.write_about({"format": "freectl-eval/1", "commands": [], **about(bench)})
    store.append(line(bench.cases[0], "sdedit", {"clip": 0.5}) | {"networks": {"CLIP": "L/14"}})
    before = store.lines_path.read_bytes()
    missing = SimpleNamespace(networks={"judge": "toy"}, notes=["CLIP: not measured."])
    monkeypatch.setattr("eval.scores.scoring.scorer_for", lambda *_args: missing)
    with pytest.raises(FreectlError, match="would lose scores of CLIP. CLIP: not measured"):
        again(store, bench)
    assert store.lines_path.read_bytes() == before


def test_usage_errors_are_one_line(tmp_path: Path) -> None:
    for arguments in (["--methods", "sdedit", "--out", str(tmp_path / "x"), "--steps", "0"], ["--methods", "sdedit"]):
        command = [sys.executable, "-m", "eval.run", *arguments]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout) == (2, "")
        assert len(found.stderr.splitlines()) == 1
        assert "--steps" in found.stderr or "--out" in found.stderr
