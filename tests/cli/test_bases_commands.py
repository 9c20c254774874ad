"""Bases by name, their pictures, the estimate of a build's time, and the commands around them."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy import toy_unet

from freectl.cli import main
from freectl.denoising.cost import Cost
from freectl.denoising.sampler import Controller, Lane, sample
from freectl.denoising.taps import tap
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.freecontrol.settings import FreeControlSettings
from freectl.models import fingerprint
from freectl.models.engine import Engine
from freectl.pipelines.sd import FreeControlPipeline
from freectl.semantics import estimate, lookup, pictures, store
from freectl.semantics.bases import SemanticBases

SEEDS, COMPONENTS = 3, 4
PROMPTS = store.SeedPrompts(("a cat", "a dog"), "", "cat")


@pytest.fixture(scope="module")
def model(toy_pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "toy"
    toy_pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREECTL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder of each test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def engine_of(toy) -> Engine:
    pipe = FreeControlPipeline.from_pipe(toy)
    pipe.set_progress_bar_config(disable=True)
    return Engine(pipe, cache=Cache(), cost=Cost())


@pytest.fixture(scope="module")
def made(toy_pipe) -> tuple[Engine, SemanticBases]:
    engine = engine_of(toy_pipe)
    sites = tuple(engine.family.structure_sites(engine.network))
    spec = store.BasesSpec(PROMPTS, SEEDS, COMPONENTS, "sampling", 0.1, sites)
    return engine, store.obtain(engine, spec)


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)

    def run(*args: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["freectl", "bases", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


# By name


def test_names_mean_keys_concepts_files_and_the_embedded_ones(made, tmp_path):
    _, bases = made
    key = bases.metadata["key"]
    path = tmp_path / "cat.safetensors"
    bases.save(path)
    for name in (key, key[:6], "cat", str(path)):
        found = lookup.load(name)
        assert found.metadata == bases.metadata
        assert all(torch.equal(found[at].components, basis.components) for at, basis in bases.items())
    embedded = lookup.load("mini")
    assert embedded.metadata["family"] == "mini"
    for name in ("dog", "none.safetensors", str(tmp_path)):
        with pytest.raises(InputError, match="--set bases"):
            lookup.check_name(name, "--set bases")


def test_what_a_run_cannot_use(made, toy_pipe):
    engine, bases = made
    sites, stored = (
        list(engine.family.structure_sites(engine.network)),
        bases.timesteps(engine.family.structure_sites(engine.network)[0]),
    )
    lookup.check_usable(bases, engine, sites, stored, COMPONENTS)
    with pytest.raises(InputError, match="4 components"):
        lookup.check_usable(bases, engine, sites, stored, COMPONENTS + 1)
    with pytest.raises(InputError, match="timestep"):
        lookup.check_usable(bases, engine, sites, [1], COMPONENTS)
    with pytest.raises(InputError, match="site"):
        lookup.check_usable(bases, engine, ["mid_block"], stored, COMPONENTS)
    other = Engine(FreeControlPipeline.from_pipe(toy_pipe, unet=toy_unet(seed=5)))
    assert fingerprint.fingerprint(other.network) != bases.metadata["unet"]
    with pytest.raises(InputError, match="another model"):
        lookup.check_usable(bases, other, sites, stored, COMPONENTS)


def test_an_edit_follows_the_bases_it_is_given(made, toy_pipe, tmp_path):
    engine, bases = made
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    few = {"num_inference_steps": 10, "window_stop": 0.1, "seeds": SEEDS, "warmup": 0.0, "output_type": "latent"}
    weights = {"components": COMPONENTS, "features": "keys"}

    def run(**options: Any) -> Any:
        return engine.pipe("a cat", picture, cache=engine.cache, **few, **weights, **options)

    path = tmp_path / "turned.safetensors"
    bases.save(path)
    by_name, by_file = run(bases="cat"), run(bases=str(path))
    assert torch.equal(by_name.images, by_file.images)
    assert by_name.cost["cached"]["bases"]
    entries = {at: replace(basis, components=basis.components.roll(1, -1)) for at, basis in bases.items()}
    SemanticBases(entries, bases.metadata).save(path)
    assert not torch.allclose(run(bases=str(path)).images, by_name.images)
    with pytest.raises(InputError, match="bases: found bases of another model"):
        run(bases="mini")
    with pytest.raises(InputError, match="--set bases.*zebra"):
        FreeControl().check(FreeControlSettings(bases="zebra"), ())


# Pictures


def test_spread_takes_both_ends():
    assert pictures.spread([1, 21, 41, 61, 81], 3) == [81, 41, 1]
    assert pictures.spread([1, 21], 5) == [21, 1]
    assert pictures.spread([1, 21], 1) == [21]


def test_colours_are_the_coordinates_scaled_over_all_pictures():
    coordinates = torch.zeros(2, 4, 5)
    coordinates[0, :, 0] = torch.tensor([0.0, 1.0, 2.0, 4.0])
    coordinates[1, :, 1] = torch.tensor([-3.0, 0.0, 0.0, 1.0])
    first, second = (np.asarray(one) for one in pictures.coloured(coordinates, (4, 4)))
    assert first[::2, ::2, 0].tolist() == [[0, 64], [128, 255]]  # rows of tokens, each two pixels wide
    assert (first[0, 0] == first[1, 1]).all()
    assert (first[..., 1] == 191).all()  # 0 of -3 to 1
    assert second[::2, ::2, 1].tolist() == [[0, 191], [191, 255]]
    assert not second[..., 2].any()
    assert np.asarray(pictures.coloured(coordinates[..., :1], (2, 2))[0])[..., 1:].max() == 0


def test_the_sheet_shows_the_keys_of_the_sampled_pictures(made, monkeypatch):
    """Coordinates on the sheet against keys that are tapped while the same pictures are sampled."""
    engine, bases = made
    site = engine.family.structure_sites(engine.network)[1]
    shown: list[torch.Tensor] = []
    plain = pictures.coloured
    monkeypatch.setattr(pictures, "coloured", lambda s, size: shown.append(s) or plain(s, size))
    sheet = pictures.component_sheet(engine, bases, site, pictures=2, timesteps=2)
    assert sheet.width > 3 * 256

    seen: dict[int, torch.Tensor] = {}

    class Watch(Controller):
        def predict(self, step, lanes, denoiser):
            with tap(denoiser.network, [site]) as captured:
                outputs = super().predict(step, lanes, denoiser)
                seen[step.timestep] = captured.pop_all()[site][-2:]
            return outputs

    grid = engine.timesteps(store.ANALYSIS_STEPS)
    prompt = engine.encode_prompt(list(PROMPTS.texts), ["", ""], size=(32, 32))
    noise = engine.noise((32, 32), [torch.Generator().manual_seed(i) for i in range(2)])
    sample(
        engine.denoiser,
        engine.path(store.ANALYSIS_STEPS),
        {"seed": Lane(noise, prompt, engine.family.guidance_scale)},
        grid[:6],
        Watch(),
    )
    assert len(shown) == 2
    for timestep, coordinates in zip((grid[0], grid[5]), shown, strict=True):
        want = bases.at(timestep, site, 21).project(seen[timestep])
        torch.testing.assert_close(coordinates, want, rtol=1e-4, atol=1e-4)


def test_the_plot_is_a_picture_that_differs_by_layer(made):
    _, bases = made
    first, second = (pictures.variance_plot(bases, site) for site in pictures.layers(bases)[:2])
    assert first.size == second.size
    assert np.asarray(first).std() > 5
    assert first.tobytes() != second.tobytes()


# The estimate


def test_rows_of_a_build_are_those_it_takes(toy_pipe):
    for features, rows in (("sampling", 2 * 2 * 5), ("inversion", None)):
        engine = engine_of(toy_pipe)
        engine.cache = None
        sites = tuple(engine.family.structure_sites(engine.network))
        spec = store.BasesSpec(PROMPTS, 2, COMPONENTS, features, 0.1, sites)
        with engine.cost.counting(engine.network):
            store.obtain(engine, spec)
        expected = store.build_rows(spec, store.ANALYSIS_STEPS)
        assert rows in (None, expected)
        assert expected - 2 * 5 <= engine.cost.row_forwards <= expected  # an inversion's last forwards stop early


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "a second"), (3.14, "3 s"), (47.2, "47 s"), (125, "2.1 min"), (5900, "98 min"), (9000, "2.5 h")],
)
def test_durations_in_words(seconds, words):
    assert estimate.duration(seconds) == words


def test_the_estimate_is_rows_times_a_measured_row(toy_pipe, monkeypatch, capsys):
    engine = engine_of(toy_pipe)
    ticks = iter([0.0, 100.0, 200.0, 203.0])  # a slow first call, then 1.5 s a row
    monkeypatch.setattr(estimate, "perf_counter", lambda: next(ticks))
    with engine.cost.counting(engine.network):
        estimate.announce(engine, PROMPTS, 20, 1200)
        assert engine.cost.row_forwards == 0  # bars are off
        engine.pipe.set_progress_bar_config(leave=False)
        estimate.announce(engine, PROMPTS, 20, 1200)
    assert engine.cost.row_forwards == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "('cat')" in captured.err
    assert "20 seed pictures, 1200 row forwards, up to about 30 min" in captured.err


# The commands


def test_show_draws_what_is_asked_for(cli, made, model):
    key = made[1].metadata["key"]
    code, out, _ = cli("show", key, "--plot", "v.png", "--picture", "p.png", "--layer", 2, "--pictures", 1, "--model",
                       model, "--format", "json")  # fmt: skip
    shown = json.loads(out)
    assert (code, shown["plot"], shown["picture"]) == (0, "v.png", "p.png")
    assert shown["components_counted"] == [1, 2, 3, COMPONENTS]
    assert shown["share_of"] == "all directions"
    assert all(Image.open(name).size > (300, 200) for name in ("v.png", "p.png"))
    code, out, err = cli("show", "cat")
    assert (code, err) == (0, "")
    assert "of all directions" in out
    assert cli("show", "mini")[0] == 0


def test_a_build_says_how_long_it_will_take_before_it_starts(cli, model):
    few = ("--seeds", 2, "--components", 3, "--stop", 0.05, "--model", model)
    code, out, err = cli("build", "--concept", "fox", *few, "--format", "json")
    assert code == 0
    assert json.loads(out)["cost"]["row_forwards"] == 4 + 2 * 2 * 2
    assert err.index("semantic bases ('fox')") < err.index("0/")
    code, out, err = cli("build", "--concept", "fox", *few, "--features", "inversion", "--format", "quiet")
    assert (code, out, err) == (0, "", "")
    code, out, err = cli("build", "--concept", "fox", *few)
    assert "0 row forwards, already in the cache" in out
    assert err == ""
    code, _, err = cli("show", "fox")
    assert code == 2
    assert "2 entries named 'fox'" in err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("build", "--concept", " "), "--concept"),
        (("build", "--prompt", ""), "--prompt"),
        (("build", "--features", "both"), "--features"),
        (("build", "--seeds", "0"), "--seeds"),
        (("build", "--layers", "last"), "--layers"),
        (("build", "--output", "none/a.safetensors"), "--output"),
        (("build", "--output", "a.pt"), "--output"),
        (("build", "--model", "no/such/folder"), "--model"),
        (("show", "cat", "--plot", "a.txt"), "--plot"),
        (("show", "cat", "--picture", "none/a.png"), "--picture"),
        (("show", "cat", "--layer", "9"), "--layer"),
        (("show", "zebra"), "NAME"),
        (("show", "none.safetensors"), "NAME"),
        (("export", "cat", "a.pt"), "OUTPUT"),
        (("export", "zebra", "a.safetensors"), "NAME"),
        (("import", "none.safetensors"), "none.safetensors"),
        (("remove", "zebra"), "NAME"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(cli, made, tmp_path, args, named):
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert named in err
    assert not list(tmp_path.iterdir())


def test_pictures_of_another_model_are_refused(cli, made):
    code, _, err = cli("show", "cat", "--picture", "p.png", "--format", "json")  # the embedded model
    assert code == 2
    assert "--model: found bases of another model" in err.splitlines()[-1]


def test_an_export_that_cannot_be_kept_is_an_error(cli, made, model, monkeypatch):
    assert cli("export", "cat", "cat.safetensors")[0] == 0
    monkeypatch.setattr(Cache, "put", lambda *args: False)
    code, out, err = cli("import", "cat.safetensors", "--model", model)
    assert (code, out) == (1, "")
    assert "cache" in err


# What comes from elsewhere


@pytest.fixture
def exported(made, tmp_path) -> Path:
    _, bases = made
    path = tmp_path / "cat.safetensors"
    bases.save(path)
    return path


def changed(path: Path, **fields: Any) -> Path:
    """The file with fields of its first basis replaced."""
    bases = SemanticBases.load(path)
    first = next(iter(bases))
    bases.entries[first] = replace(bases[first], **{name: value(bases[first]) for name, value in fields.items()})
    bases.save(path)
    return path


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"components": lambda b: b.components[:, :-1].contiguous(), "mean": lambda b: b.mean[:-1]}, "shape"),
        ({"mean": lambda b: b.mean * float("nan")}, "mean that is not finite"),
        ({"components": lambda b: b.components * float("inf")}, "components that is not finite"),
        ({"explained_variance": lambda b: b.explained_variance[:-1]}, "explained_variance of the shape"),
    ],
)
def test_import_checks_shapes_and_values_against_the_model(cli, made, model, exported, fields, found):
    _, bases = made
    key = bases.metadata["key"]
    before = Cache().get("bases", key)
    code, out, err = cli("import", changed(exported, **fields), "--model", model, "--replace")
    assert (code, out) == (2, "")
    assert found in err
    after = Cache().get("bases", key)
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    engine, _ = made
    picture = Image.new("RGB", (32, 32), "teal")
    with pytest.raises(InputError, match="bases: found bases with"):
        engine.pipe("a cat", picture, bases=str(exported), num_inference_steps=4, components=COMPONENTS,
                    window_stop=1.0, cache=engine.cache)  # fmt: skip


def test_import_replaces_nothing_without_being_told(cli, made, model, exported):
    _, bases = made
    key = bases.metadata["key"]
    before = Cache().get("bases", key)
    assert cli("import", exported, "--model", model)[0] == 0  # the same bases
    changed(exported, mean=lambda b: b.mean + 1)
    code, _, err = cli("import", exported, "--model", model)
    assert code == 2
    assert "--replace" in err
    assert all(torch.equal(before[0][name], tensor) for name, tensor in Cache().get("bases", key)[0].items())
    assert cli("import", exported, "--model", model, "--replace")[0] == 0
    after = Cache().get("bases", key)[0]
    assert any(not torch.equal(before[0][name], after[name]) for name in after)
    assert Cache().put("bases", key, *before)


def test_import_names_the_model_that_does_not_fit(cli, exported):
    code, _, err = cli("import", exported)
    assert code == 2
    assert "bases of another model" in err


def test_files_of_bases_are_numbered_and_no_input_is_overwritten(cli, made, exported, tmp_path):
    same = cli("export", "cat", exported)
    assert (same[0], same[1].strip()) == (0, str(exported))
    changed(exported, mean=lambda b: b.mean + 1)
    before = exported.read_bytes()
    done = cli("export", "cat", exported)
    assert done[0] == 0
    assert done[1].splitlines()[-1] == str(tmp_path / "cat_2.safetensors")
    assert exported.read_bytes() == before
    assert "the file of NAME itself" in cli("export", exported, exported, "--overwrite")[2]
    assert exported.read_bytes() == before


def test_a_header_nested_too_deep_is_one_line(cli, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "deep.safetensors", {"prompts": "[" * 100_000})
    code, out, err = cli("import", "deep.safetensors")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("freectl: PATH: ")
    assert "damaged" in err
