"""Spatial control from the command line and Python, with a toy model folder; preprocessors have their own tests."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from pydantic import BaseModel, ConfigDict

import freectl
from freectl import methods
from freectl.cli import main
from freectl.errors import InputError
from freectl.files import pictures as image_io
from freectl.files.record import read_record
from freectl.methods.base import Condition, Method, Outcome
from freectl.preprocess import mesh, parse
from freectl.tasks import control as controlling
from freectl.tasks import edit as editing
from freectl.tasks.control_inputs import letterboxed

FEW = ("--set", "seeds=4", "--set", "components=4", "--set", "seed_steps=10", "--steps", "5")
SAME = {"seeds": 4, "components": 4, "seed_steps": 10, "steps": 5}
CONTRACT = {
    "command",
    "conditions",
    "output",
    "method",
    "model",
    "prompt",
    "seed",
    "steps",
    "settings",
    "cost",
    "warnings",
}
PROMPT = "a red cat and a dog"


class EchoSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    start: str = "inverted"


class Echo(Method[EchoSettings]):
    """Keeps what reaches a method, and gives the first condition back."""

    name = "echo"
    settings = EchoSettings
    inputs = ("conditions", "appearance_image")
    requests: list[Any] = []  # noqa: RUF012 - shared on purpose

    def run(self, engine: Any, request: Any, settings: EchoSettings) -> Outcome:
        self.requests.append((request, settings))
        return Outcome(engine.encode_images([request.conditions[0].image]))


@dataclass
class Ran:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that a failure puts on stderr."""
        assert self.out == ""
        assert self.err.startswith("freectl: ")
        assert self.err.count("\n") == 1, self.err
        return self.err


Cli = Callable[..., Ran]


@pytest.fixture(scope="module")
def model(toy_pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "toy"
    toy_pipe.save_pretrained(folder)
    return folder


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """Every test runs in a folder of its own with two pictures, a mask and a mesh."""
    monkeypatch.chdir(tmp_path)
    photo(0, (40, 32)).save("a.png")
    photo(1, (24, 48)).save("b.png")
    mask = Image.new("L", (40, 32))
    mask.paste(255, (0, 0, 20, 32))
    mask.save("left.png")
    trimesh.creation.icosphere(subdivisions=2).export("ball.obj")
    return tmp_path


@pytest.fixture
def cli(monkeypatch, capsys) -> Cli:
    def run(*args: Any) -> Ran:
        monkeypatch.setattr(sys, "argv", ["freectl", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return Ran(code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def control(cli, model) -> Cli:
    """Run `freectl control` on a.png with FreeControl, few steps and JSON output."""

    def run(*args: Any) -> Ran:
        return cli(
            "control", "--condition", "a.png", "--prompt", PROMPT, "--model", model, *FEW, "--format", "json", *args
        )

    return run


@pytest.fixture
def echo(cli, model, monkeypatch) -> Callable[..., Any]:
    """Run `freectl control` with a method that only keeps its request, which is returned."""
    monkeypatch.setitem(methods.REGISTRY, "echo", f"{__name__}:Echo")
    monkeypatch.setattr(sys.modules[__name__].Echo, "requests", [])

    def run(*args: Any) -> Any:
        ran = cli("control", "--prompt", PROMPT, "--model", model, "--method", "echo", "--format", "json", *args)
        assert ran.code == 0, ran.err
        request, settings = sys.modules[__name__].Echo.requests.pop()
        assert settings.start == "noise"
        assert request.images == []
        return request

    return run


def files(folder: Path = Path()) -> set[str]:
    return {path.name for path in folder.iterdir()}


def pixels(image: Any) -> np.ndarray:
    return np.asarray(image if isinstance(image, Image.Image) else Image.open(image))


# Processes of their own

PROBE = """
import sys
sys.argv = ["freectl", "control", {args}]
from freectl.cli import main
try:
    main()
except SystemExit as stop:
    code = stop.code
heavy = {{"torch", "diffusers", "transformers", "kornia", "trimesh"}} & set(sys.modules)
sys.stderr.write(f"EXIT {{code or 0}} HEAVY {{sorted(heavy)}}\\n")
"""


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        ('"--help"', 0, ""),
        ('"--condition", "no.png", "--prompt", "a cat"', 2, "--condition: found no file 'no.png'"),
        ('"--condition", "no.png", "--prompt", "a cat", "--preprocess", "cany"', 2, "did you mean 'canny'"),
        ('"--condition", "no.obj", "--prompt", "a cat"', 2, "no.obj"),
    ],
)
def test_help_and_early_errors_import_nothing_heavy(args, code, named):
    here = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(args=args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=here,
    )
    *lines, end = done.stderr.splitlines()
    assert end == f"EXIT {code} HEAVY []"
    assert len(lines) == (code != 0)
    assert named in "".join(lines)


# FreeControl, end to end


def test_json_is_one_object_with_the_contracts_keys(control, model):
    record = control("--concept", "cat", "--seed", 3, "--output", "new.png").json
    assert set(record) == CONTRACT
    assert (record["command"], record["output"], record["method"]) == ("control", "new.png", "freecontrol")
    assert (record["model"], record["prompt"], record["seed"], record["steps"]) == (str(model), PROMPT, 3, 5)
    settings = record["settings"]
    assert (settings["condition"], settings["concept"], settings["start"]) == (["a.png"], ["cat"], "noise")
    assert record["conditions"] == [
        {"picture": "a.png", "size": [32, 32], "source_prompt": "a cat", "concept": "cat", "mask": "attention"}
    ]
    assert record["cost"]["row_backwards"] > 0
    assert read_record("new.png") == record
    assert Image.open("new.png").size == (32, 32)


def test_config_of_a_result_repeats_it_bit_for_bit(control, cli):
    first = control("--condition", "b.png", "--concept", "cat", "--concept", "dog", "--mask", "none", "--seed", 7,
                    "--structure-strength", 0.25, "--preprocess", "canny=20,40", "--output", "x.png").json  # fmt: skip
    again = cli("control", "--config", "x.png", "--output", "y.png", "--format", "json").json
    assert np.array_equal(pixels("x.png"), pixels("y.png"))
    for name in CONTRACT - {"output", "cost"}:
        assert again[name] == first[name]
    other = cli("control", "--config", "x.png", "--seed", 8, "--output", "z.png", "--format", "json").json
    assert (other["seed"], other["settings"]["structure_strength"]) == (8, 0.25)
    assert not np.array_equal(pixels("x.png"), pixels("z.png"))


def test_another_concept_takes_another_source_prompt(control, cli):
    control("--concept", "cat", "--output", "x.png")
    other = cli("control", "--config", "x.png", "--concept", "dog", "--output", "z.png", "--format", "json").json
    assert other["conditions"][0]["source_prompt"] == "a dog"


def test_python_gives_the_pixels_of_the_command_line(control, model):
    ran = control("--concept", "cat", "--preprocess", "sketch", "--seed", 5, "--width", 40)
    result = freectl.control(
        "a.png", PROMPT, model=str(model), concept="cat", preprocess="sketch", seed=5, width=40, **SAME
    )  # fmt: skip
    assert np.array_equal(pixels("out.png"), pixels(result.image))
    assert result.record["settings"] == ran.json["settings"]
    assert result.record["conditions"] == ran.json["conditions"]
    assert np.array_equal(pixels(result.source), pixels("a.png"))
    assert isinstance(result, freectl.EditResult)
    opened = freectl.control(
        [Image.open("a.png")], PROMPT, model=str(model), concept=["cat"], preprocess=["sketch"], seed=5, width=40,
        **SAME,
    )  # fmt: skip
    assert np.array_equal(pixels(result.image), pixels(opened.image))
    assert opened.record["settings"]["condition"] == ["a PIL picture"]


def test_the_condition_and_its_mask_shape_the_result(control):
    pictures = set()
    for args in (
        [],
        ["--mask", "none"],
        ["--mask", "left.png"],
        ["--preprocess", "canny"],
        ["--structure-strength", 0],
    ):
        assert control("--concept", "cat", "--overwrite", *args).code == 0
        pictures.add(Image.open("out.png").tobytes())
    assert len(pictures) == 5


def test_human_and_quiet_output(cli, model):
    args = ("control", "--condition", "a.png", "--prompt", PROMPT, "--model", model, *FEW)
    ran = cli(*args, "--compare", "-v")
    assert ran.code == 0
    assert all(text in ran.out for text in ("out.png", "out_compare.png", "device", "row forwards"))
    quiet = cli(*args, "--format", "quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_a_module_named_control_does_not_hide_the_function():
    import freectl.cli.control
    import freectl.tasks.control

    assert freectl.control is freectl.tasks.control.control


# What reaches a method


def test_one_value_holds_for_all_conditions(echo):
    request = echo("--condition", "a.png", "--condition", "b.png", "--concept", "cat", "--mask", "none")
    assert [one.concept for one in request.conditions] == ["cat", "cat"]
    assert [one.source_prompt for one in request.conditions] == ["a cat", "a cat"]
    assert [one.mask for one in request.conditions] == [None, None]
    assert request.conditions[0].image != request.conditions[1].image


def test_several_values_pair_up_by_position(echo):
    request = echo(
        "--condition", "a.png", "--condition", "b.png", "--concept", "cat", "--concept", "dog",
        "--source-prompt", "a cat there", "--source-prompt", "a bird", "--preprocess", "none", "--preprocess", "canny",
    )  # fmt: skip
    assert [one.concept for one in request.conditions] == ["cat", "dog"]
    assert [one.source_prompt for one in request.conditions] == ["a cat there", "a bird"]
    assert [one.mask for one in request.conditions] == ["attention", None]
    assert set(np.unique(pixels(request.conditions[1].image))) <= {0, 255}
    assert len(np.unique(pixels(request.conditions[0].image))) > 2


def test_several_concepts_of_one_picture_share_picture_and_prompt(echo):
    request = echo(
        "--condition", "a.png", "--concept", "cat", "--concept", "dog", "--mask", "left.png", "--mask", "attention"
    )
    first, second = request.conditions
    assert (first.concept, second.concept) == ("cat", "dog")
    assert first.source_prompt == second.source_prompt == "a cat and a dog"
    assert first.image == second.image
    assert isinstance(first.mask, Image.Image)
    assert second.mask == "attention"


@pytest.mark.parametrize(
    ("args", "source", "mask"),
    [
        ([], "", None),
        (["--concept", "cat"], "a cat", "attention"),
        (["--concept", "cat", "--source-prompt", "one Cat, drawn"], "one Cat, drawn", "attention"),
        (["--concept", "cat", "--source-prompt", "a drawing"], "a drawing", None),
        (["--concept", "bird", "--source-prompt", "a bird"], "a bird", "attention"),
        (["--concept", "cat", "--source-prompt", ""], "", None),
        (["--concept", "cat", "--mask", "none"], "a cat", None),
        (["--concept", "cat", "--mask", "attention"], "a cat", "attention"),
        (["--source-prompt", "a drawing"], "a drawing", None),
    ],
)
def test_source_prompt_and_mask_that_are_not_given(echo, args, source, mask):
    (condition,) = echo("--condition", "a.png", *args).conditions
    assert (condition.source_prompt, condition.mask) == (source, mask)


def test_a_mask_lies_where_its_condition_lies(echo):
    """40 x 32 px in a square of 32: three rows of padding above and below, none of the mask there."""
    (condition,) = echo("--condition", "a.png", "--mask", "left.png").conditions
    mask = pixels(condition.mask)
    fitted = image_io.fit(Image.open("a.png"), (32, 32))
    assert fitted.box == (0, 3, 32, 29)
    assert np.array_equal(mask, pixels(fitted.fit_mask(Image.open("left.png"))))
    assert (mask[5:28, :15] == 255).all()
    assert not mask[:, 17:].any()
    assert not mask[:3].any()
    assert np.array_equal(pixels(condition.image), pixels(fitted.image))


@pytest.mark.parametrize(
    ("args", "size"),
    [
        ([], (32, 32)),
        (["--width", "48"], (48, 48)),
        (["--height", "24"], (24, 24)),
        (["--width", "48", "--height", "24"], (48, 24)),
    ],
)
def test_sizes(echo, args, size):
    assert echo("--condition", "a.png", *args).size == size
    assert Image.open("out.png").size == size


def test_one_side_keeps_the_aspect_of_the_default():
    from freectl.tasks.control_inputs import given_size

    assert given_size(None, None, (96, 64)) == (96, 64)
    assert given_size(48, None, (96, 64)) == (48, 32)
    assert given_size(None, 128, (96, 64)) == (192, 128)
    assert given_size(8, None, (512, 8)) == (8, 8)


def test_letterbox_keeps_aspect_and_pads_in_the_edge_colour():
    picture = Image.new("RGB", (20, 40), "red")
    picture.paste("blue", (5, 5, 15, 35))
    placed = letterboxed(picture, (80, 40))
    assert placed.box == (30, 0, 50, 40)
    assert placed.image.crop(placed.box).tobytes() == picture.tobytes()
    outside = np.array(placed.image)
    outside[:, 30:50] = (255, 0, 0)
    assert (outside == (255, 0, 0)).all()
    assert letterboxed(photo(0, (100, 67)), (96, 64)).box == (0, 0, 96, 64)  # 64.3 px are 64
    same = photo(0, (48, 32))
    assert letterboxed(same, (48, 32)).image.tobytes() == same.tobytes()
    for size in ((32, 32), (64, 64)):
        assert (
            letterboxed(photo(2, (50, 31)), size).image.tobytes()
            == image_io.fit(photo(2, (50, 31)), size).image.tobytes()
        )


def test_lines_are_drawn_at_the_working_size_without_an_edge_at_the_padding(echo):
    (condition,) = echo("--condition", "a.png", "--preprocess", "canny=20,40").conditions
    inner = Image.open("a.png").resize((32, 26), Image.Resampling.LANCZOS)
    want = np.full((32, 32, 3), 255, dtype=np.uint8)
    want[3:29] = pixels(parse("canny=20,40").prepare()(inner))
    assert np.array_equal(pixels(condition.image), want)
    assert (want == 0).any()


def test_a_mesh_is_rendered_at_the_working_size(echo):
    loaded = mesh.load_mesh("ball.obj")
    for args, kind, view in (
        ([], "depth", (30, 20)),
        (["--preprocess", "normal", "--view", "-70,5"], "normal", (-70, 5)),
    ):
        (condition,) = echo("--condition", "ball.obj", "--concept", "cat", *args).conditions
        want = mesh.picture(mesh.render(loaded, (32, 32), view), kind)
        assert np.array_equal(pixels(condition.image), pixels(want))
        assert condition.mask == "attention"
    wide = echo("--condition", "ball.obj", "--condition", "a.png", "--width", "64", "--height", "32")
    assert [one.image.size for one in wide.conditions] == [(64, 32), (64, 32)]


def test_a_preprocessors_model_runs_on_the_whole_picture_and_once_is_loaded(echo, monkeypatch):
    from freectl.preprocess import depth

    seen, loads = [], []

    def prepare(preprocess: Any, device: str) -> Any:
        loads.append((preprocess.values["model"], device))

        def apply(image: Image.Image) -> Image.Image:
            seen.append(image.size)
            return Image.new("RGB", image.size, (7, 8, 9))

        return apply

    monkeypatch.setattr(depth, "prepare", prepare)
    both = ("--condition", "a.png", "--condition", "b.png", "--preprocess", "depth=some/model")
    request = echo(*both)
    assert loads == [("some/model", "cpu")]
    assert seen == [(40, 32), (24, 48)]
    assert (pixels(request.conditions[1].image) == (7, 8, 9)).all()


def test_appearance_image_and_stdin(echo, monkeypatch):
    class Pipe:
        buffer = io.BytesIO(Path("a.png").read_bytes())

        def isatty(self) -> bool:
            return False

    plain = echo("--condition", "a.png")
    monkeypatch.setattr(sys, "stdin", Pipe())
    piped = echo("--condition", "-", "--appearance-image", "b.png")
    assert piped.conditions[0].image == plain.conditions[0].image
    assert piped.appearance_image.size == (32, 32)
    assert plain.appearance_image is None


def test_compare_shows_condition_what_was_made_of_it_and_result(echo, monkeypatch):
    sheets = []

    def keep(cells: Any) -> Image.Image:
        sheets.append(cells)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(image_io, "compare_sheet", keep)
    echo("--condition", "a.png", "--condition", "b.png", "--condition", "ball.obj", "--compare",
         "--preprocess", "canny", "--preprocess", "none", "--preprocess", "none")  # fmt: skip
    assert [label for label, _ in sheets[0]] == ["condition", "canny", "condition", "depth", PROMPT]
    assert sheets[0][1][1].size == (32, 32)
    assert files() >= {"out.png", "out_compare.png"}


def test_config_files_take_one_text_or_several(echo):
    Path("c.yaml").write_text("condition: [a.png, b.png]\nconcept: cat\nmask: none\nwidth: 40\nheight: 48\nseed: 4\n")
    request = echo("--config", "c.yaml", "--height", "24")
    assert [one.concept for one in request.conditions] == ["cat", "cat"]
    assert request.size == (40, 24)
    assert len(echo("--config", "c.yaml", "--condition", "a.png").conditions) == 1


def test_warnings_of_conditions_are_told_once(cli, model, monkeypatch):
    monkeypatch.setitem(methods.REGISTRY, "echo", f"{__name__}:Echo")
    Image.new("RGBA", (32, 32), (255, 0, 0, 100)).save("glass.png")
    ran = cli("control", "--condition", "glass.png", "--condition", "glass.png", "--prompt", "a cat", "--model", model,
              "--method", "echo", "--format", "json")  # fmt: skip
    assert len(ran.json["warnings"]) == 1
    assert ran.err.count("transparent") == 1


# What is refused: one line, exit 2, nothing loaded, nothing written


@pytest.fixture
def no_loading(monkeypatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(editing, "load_pipeline", fail)
    editing._pipeline.cache_clear()


TWO = ["--condition", "b.png"]
THREE = [*TWO, "--condition", "a.png"]
CAT, DOG = ["--concept", "cat"], ["--concept", "dog"]


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([*THREE, *CAT, *DOG], ["--concept", "2 for 3 --conditions"]),
        ([*TWO, "--preprocess", "none", "--preprocess", "canny", "--preprocess", "canny"], ["--preprocess", "3 for 2"]),
        (["--preprocess", "none", "--preprocess", "canny"], ["--preprocess", "2 for 1 --condition"]),
        ([*CAT, *DOG, "--mask", "none", "--mask", "none", "--mask", "none"], ["--mask", "3 for 2 --concepts"]),
        (["--mask", "none", "--mask", "none"], ["--mask", "2 for 1"]),
        ([*CAT, "--source-prompt", "a", "--source-prompt", "b"], ["--source-prompt", "2 for 1"]),
        (["--condition", "no.png"], ["--condition", "no.png"]),
        (["--condition", "text.png"], ["--condition", "not a picture"]),
        (["--condition", "."], ["--condition", "folder"]),
        (["--condition", "no.glb"], ["--condition", "no.glb"]),
        (["--condition", "damaged.glb"], ["--condition", "damaged.glb", "mesh"]),
        (["--prompt", " "], ["--prompt", "empty"]),
        (["--concept", "bird"], ["--concept", "'bird'", "red, cat"]),
        (["--concept", ""], ["--concept", "''"]),
        (["--preprocess", "cany"], ["--preprocess", "did you mean 'canny'"]),
        (["--preprocess", "canny=9,3"], ["--preprocess", "LOW"]),
        (["--preprocess", "depth=no/such/dir"], ["--preprocess", "no/such/dir"]),
        (["--view", "30,20"], ["--view", "mesh"]),
        (["--condition", "ball.obj", "--view", "30"], ["--view", "azimuth,elevation"]),
        (["--condition", "ball.obj", "--preprocess", "canny"], ["--preprocess", "mesh", "depth"]),
        (["--condition", "ball.obj", "--mask", "left.png"], ["--mask", "mesh", "attention"]),
        (["--mask", "attention"], ["--mask", "--concept"]),
        (["--mask", "attention", *CAT, "--source-prompt", "a dog"], ["--concept", "a, dog"]),
        (["--mask", "attention", *CAT, "--source-prompt", ""], ["--mask", "--source-prompt"]),
        (["--mask", "no.png"], ["--mask", "no.png"]),
        (["--mask", "tall.png"], ["--mask", "30x90", "40x32"]),
        (["--width", "30"], ["--width", "30", "multiple of 8"]),
        (["--height", "0"], ["--height", "0"]),
        (["--width", "wide"], ["--width"]),
        (["--steps", "0"], ["--steps", "0"]),
        (["--seed", "-1"], ["--seed"]),
        (["--guidance-scale", "nan"], ["--guidance-scale"]),
        (["--structure-strength", "-1"], ["structure_strength"]),
        (["--appearance-image", "no.png"], ["--appearance-image", "no.png"]),
        (["--appearance-image", "a.png", "--appearance-weight", "0"], ["--appearance-weight"]),
        (["--method", "gan"], ["--gan-weights", "nothing", "cyclegan-noto-fluent"]),
        (["--method", "style-transfer"], ["--method", "style-transfer", "gan"]),
        (
            ["--method", "sdedit", "--condition", "a.png", "--condition", "b.png"],
            ["--condition", "2 for sdedit", "freecontrol, "],
        ),
        (["--method", "sdedit", "--concept", "cat"], ["--concept", "sdedit"]),
        (["--method", "controlnet"], ["--controlnet", "controlnet/config.json"]),
        (["--method", "controlnet", "--controlnet", "no"], ["--controlnet", "no such folder"]),
        (["--controlnet", "no"], ["controlnet"]),
        (["--method", "freecontol"], ["--method", "did you mean 'freecontrol'"]),
        (["--preset", "oficial"], ["--preset", "did you mean 'official'"]),
        (["--set", "structure_wieght=3"], ["did you mean 'structure_weight'"]),
        (["--model", "mimi"], ["--model", "did you mean 'mini'"]),
        (["--lora", "no.safetensors"], ["--lora"]),
        (["--device", "gpu"], ["--device", "cuda"]),
        (["--dtype", "fp16", "--device", "cpu"], ["--dtype", "bf16"]),
        (["--offload", "model", "--device", "cpu"], ["--offload"]),
        (["--output", "no/out.png"], ["--output", "no"]),
        (["--output", "a.png"], ["--output", "the file of --condition itself"]),
        (["--config", "no.yaml"], ["--config", "no.yaml"]),
        (["--config", "typo.yaml"], ["stpes"]),
        (["--config", "plural.yaml"], ["unknown name 'conditions'"]),
        (["--config", "number.yaml"], ["--mask"]),
        (["--format", "xml"], ["--format"]),
        (["--conditon", "a.png"], ["--conditon"]),
    ],
)
def test_bad_input_is_one_line_and_exit_2(cli, model, args, named):
    Path("text.png").write_text("no picture")
    Path("damaged.glb").write_bytes(b"glTF")
    Image.new("L", (30, 90), 255).save("tall.png")
    Path("typo.yaml").write_text("stpes: 3\n")
    Path("plural.yaml").write_text("conditions: [a.png]\n")
    Path("number.yaml").write_text("mask: 3\n")
    before = files()
    condition = [] if "--condition" in args and args[:2] != TWO else ["--condition", "a.png"]
    prompt = [] if "--prompt" in args else ["--prompt", PROMPT]
    model_option = [] if "--model" in args else ["--model", model]
    ran = cli("control", *condition, *prompt, *model_option, *args)
    assert ran.code == 2
    for text in named:
        assert text in ran.error
    assert files() == before


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("args", "named"), [(["--prompt", "a cat"], "--condition"), (["--condition", "a.png"], "--prompt"), (["x"], "x")]
)
def test_what_must_be_given(cli, args, named):
    ran = cli("control", *args)
    assert (ran.code, named in ran.error) == (2, True)


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize("package", ["kornia", "scipy"])
def test_a_missing_extra_names_the_command(cli, model, monkeypatch, package):
    monkeypatch.setattr("freectl.preprocess.registry.find_spec", lambda name: None if name == package else object())
    name = {"kornia": "canny", "scipy": "pose"}[package]
    ran = cli("control", "--condition", "a.png", "--prompt", "a cat", "--model", model, "--preprocess", name)
    assert ran.code == 2
    assert "pip install 'freectl[preprocess]'" in ran.error


@pytest.mark.usefixtures("no_loading")
def test_weights_of_a_preprocessor_are_missed_before_the_model_is_loaded(cli, model):
    ran = cli("control", "--condition", "a.png", "--prompt", "a cat", "--model", model, "--preprocess", "depth")
    assert ran.code == 1
    assert "hf download depth-anything/Depth-Anything-V2-Small-hf" in ran.err.splitlines()[-1]
    assert "out.png" not in files()


@pytest.mark.usefixtures("no_loading")
def test_records_are_repeated_by_their_own_command(cli, control, model):
    record = {"command": "control", "prompt": "a cat", "settings": {"condition": ["a.png"], "image": "a.png"}}
    Path("control.json").write_text(json.dumps(record))
    ran = cli("edit", "--config", "control.json")
    assert (ran.code, "freectl control --config" in ran.error) == (2, True)
    Path("edit.json").write_text(json.dumps({"prompt": "a cat", "settings": {"image": "a.png"}}))
    ran = cli("control", "--config", "edit.json")
    assert (ran.code, "freectl edit --config" in ran.error) == (2, True)


@pytest.mark.usefixtures("no_loading")
def test_interrupt_writes_nothing(control, monkeypatch):
    def interrupt(*_args: Any, **_kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(controlling, "run", interrupt)
    before = files()
    ran = control()
    assert (ran.code, ran.error) == (130, "freectl: interrupted; nothing was written\n")
    assert files() == before


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("conditions", "settings", "named"),
    [
        ([], {}, "conditions: found nothing; allowed: one or more"),
        (None, {}, "conditions: found a NoneType"),
        (["a.png", "b.png", "a.png"], {"mask": ["none", "none"]}, "mask: found 2 for 3 conditions"),
        ("a.png", {"stpes": 3}, "stpes"),
        ("a.png", {"mask": 3}, "mask: found 3; allowed: a text, or a list of texts"),
    ],
)
def test_python_raises_the_same_errors(model, conditions, settings, named):
    with pytest.raises(InputError) as caught:
        freectl.control(conditions, "a cat", model=str(model), **settings)
    assert named in str(caught.value)


def test_the_contract_with_methods():
    """What this command needs of a method is its `inputs` and the fields of a condition."""
    assert {name for name in methods.REGISTRY if "conditions" in methods.get(name).inputs} >= {"freecontrol"}
    assert list(Condition.__dataclass_fields__) == ["image", "source_prompt", "concept", "mask"]
    assert os.environ["HF_HUB_OFFLINE"] == "1"
