"""The plan of the trained baselines: every run is valid, and equal budgets are equal."""

from pathlib import Path

import pytest
import yaml

from eval.gan_runs import RUNS, run_name, settings_of, table
from gan_baselines.settings import resolve

PLAN = yaml.safe_load(RUNS.read_text())


@pytest.mark.parametrize("name", PLAN["runs"])
def test_every_run_sees_its_pictures_and_is_valid(name: str, tmp_path: Path) -> None:
    model = PLAN["runs"][name][0]
    config = resolve(model, sets=settings_of(name, PLAN, tmp_path, seed=3))
    assert config.train.seed == 3
    assert config.train.steps is not None
    assert config.train.steps * config.train.batch_size == pytest.approx(PLAN["pictures"][model], rel=0.01)


def test_runs_of_other_seeds_have_folders_of_their_own() -> None:
    assert len({run_name("pix2pix", seed) for seed in range(3)}) == 3


def test_table_groups_runs_and_shows_the_baselines_beside_them() -> None:
    values = {"l1": 0.1, "kid": 2.0, "style": 50.0, "object": 25.0, "pictures_per_second": 3.0}
    result = values | {"baselines": {"identity": {"l1": 0.2}, "mean": {"l1": 0.3}}}
    lines = table({"pix2pix": result, "l1": result, "cyclegan": result, "cyclegan-seed1": result}, PLAN).splitlines()
    assert sum(line.startswith("| (identity)") for line in lines) == 2
    assert [line.split("|")[1].strip() for line in lines if "0.100" in line] == [
        "pix2pix",
        "l1",
        "cyclegan",
        "cyclegan-seed1",
    ]
