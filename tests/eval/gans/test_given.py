"""Which generators are given, what they cost, and what they can be asked for."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from eval.bench.mini_files import load_mini
from eval.gans.given import applies, parse_styles, parse_weights
from eval.gans.method import Translator, training_of
from eval.run.gan_runner import GanRunner
from eval.run.plan import Plan
from eval.run.variants import variants
from freectl.errors import FreectlError, InputError

BENCH = "mini-style:noto:fluent"


def test_a_generator_is_one_more_method_and_says_what_it_cost(gan_weights: Path) -> None:
    runner = GanRunner(Translator(gan_weights, seed=3))
    case = load_mini(BENCH).cases[0]
    made, again = runner.run(case), runner.run(case)
    assert made.image.size == case.picture().size
    assert made.image.tobytes() == again.image.tobytes()
    assert made.cost["row_forwards"] == 0
    assert made.settings["training"] == {"steps": 50, "pictures": 200, "seconds": pytest.approx(200 / 4.5, abs=0.1)}
    assert training_of(gan_weights)["steps"] == 50


def test_a_generator_is_asked_for_its_direction_alone_unless_for_anything(gan_weights: Path) -> None:
    asked = tuple(variants("gan", [], [], list(parse_weights([f"p={gan_weights}"]))))
    assert [one.label for one in asked] == ["gan:p"]
    cases = load_mini().cases
    few = Plan(("mini", None, None), asked, gan_weights=(f"p={gan_weights}",), gan_styles="noto:fluent")
    assert 0 < len(few.tasks(cases)) < 20
    assert all(
        applies(few_case, ("noto", "fluent")) for few_case in cases if (few_case.key, "gan:p") in few.tasks(cases)
    )
    everything = Plan(few.bench, asked, gan_weights=few.gan_weights, gan_anything=True)
    assert len(everything.tasks(cases)) == 240
    with pytest.raises(InputError, match="--gan-styles"):
        Plan(few.bench, asked, gan_weights=few.gan_weights).check(load_mini())


def test_unusable_weights_and_styles_are_named(tmp_path: Path, gan_weights: Path) -> None:
    with pytest.raises(InputError, match="--gan-weights"):
        parse_weights([str(tmp_path)])
    with pytest.raises(InputError, match="two folders named"):
        parse_weights([str(gan_weights), str(gan_weights)])
    with pytest.raises(InputError, match="--gan-styles"):
        parse_styles("noto:noto")
    with pytest.raises(InputError, match="generator BA"):
        Translator(gan_weights, "BA")


def test_a_generator_that_gives_no_numbers_is_an_error_and_no_black_picture(gan_weights: Path) -> None:
    translator = Translator(gan_weights)
    with torch.no_grad():
        next(translator.generator.parameters()).fill_(torch.nan)
    with pytest.raises(FreectlError, match="--gan-weights: .* infinite or none"):
        GanRunner(translator).run(load_mini(BENCH).cases[0])


def test_a_torn_log_and_a_record_without_generators(tmp_path: Path, gan_weights: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(gan_weights.parent, run)
    with (run / "losses.jsonl").open("a") as log:
        log.write('\n[1]\n\n{"step": 3, "pictures_per_sec')
    assert training_of(run / "weights") == training_of(gan_weights)
    config = run / "weights" / "config.json"
    record = json.loads(config.read_text())
    for lost, named in (("generators", "lists no generators"), ("model", "lacks generators, model")):
        config.write_text(json.dumps({key: value for key, value in record.items() if key != lost}))
        with pytest.raises(InputError, match=named):
            parse_weights([str(run / "weights")]) and Translator(run / "weights")
