"""The tables of the trained baselines."""

import yaml

from eval.gans.runs import RUNS, finished, run_name, table

PLAN = yaml.safe_load(RUNS.read_text())


def test_runs_of_other_seeds_have_folders_of_their_own() -> None:
    assert len({run_name("pix2pix", seed) for seed in range(3)}) == 3


def test_table_groups_runs_and_shows_the_baselines_beside_them() -> None:
    groups = [group for _, group, *_ in PLAN["runs"].values()]
    first = [name for name, run in PLAN["runs"].items() if run[1] == groups[0]][:2]
    other = next(name for name, run in PLAN["runs"].items() if run[1] != groups[0])
    values = {"l1": 0.1, "kid": 2.0, "style": 50.0, "object": 25.0, "speed": 3.0}
    result = values | {"baselines": {"identity": {"l1": 0.2}, "mean": {"l1": 0.3}}}
    names = [*first, other, f"{other}-seed1"]
    lines = table(dict.fromkeys(names, result), PLAN).splitlines()
    assert sum(line.startswith("| (identity)") for line in lines) == 2
    shown = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines if "0.100" in line]
    assert shown == [[first[0], "1", "0.100"], [first[1], "1", "0.100"], [other, "2", "0.100 ± 0.000"]]


def test_a_run_is_finished_when_its_weights_have_all_its_steps(tmp_path) -> None:
    assert not finished(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "run.json").write_text('{"config": {"train": {"steps": 5}}}')
    for steps in (4, 5):
        (tmp_path / "weights" / "config.json").write_text(f'{{"about": {{"steps": {steps}}}}}')
        assert finished(tmp_path) == (steps == 5)
