"""What editors, type checkers and people see of `import freectl`."""

import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import freectl
from freectl import methods
from freectl.tasks.compare import CompareOptions
from freectl.tasks.options import ControlOptions, EditOptions
from freectl.tasks.settings import Settings

ROOT = Path(__file__).parents[2]


def test_every_setting_of_every_method_is_known_to_type_checkers():
    named = set(Settings.__annotations__)
    missing = {
        f"{one.name}: {key}" for one in methods.available() for key in one.settings.model_fields if key not in named
    }
    assert missing == set(), "add them to freectl/tasks/settings.py"
    assert named <= {key for one in methods.available() for key in one.settings.model_fields}
    assert not named & {*EditOptions.model_fields, *ControlOptions.model_fields}


def test_signatures_have_every_option():
    run = {"cache", "progress"}
    edit = set(inspect.signature(freectl.edit).parameters) - run - {"image", "settings"}
    assert edit == set(EditOptions.model_fields)
    control = set(inspect.signature(freectl.control).parameters) - run - {"conditions", "settings"}
    assert control == set(ControlOptions.model_fields) - {"condition"}
    assert set(CompareOptions.__annotations__) - set(Settings.__annotations__) == edit - {"prompt", "method"}


def test_dir_and_help_show_what_there_is():
    assert set(freectl.__all__) <= set(dir(freectl))
    text = pydoc.plain(pydoc.render_doc(freectl))
    for shown in ("edit(image", "control(conditions", "compare(image", "class FreeControlPipeline", "bronze horse"):
        assert shown in text


def test_import_and_dir_load_no_torch():
    code = "import sys, freectl; dir(freectl); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


@pytest.mark.slow
@pytest.mark.timeout(900)  # mypy reads torch anew
def test_mypy_catches_a_misspelt_keyword(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(
        "import freectl\n"
        "freectl.edit('a.png', 'a cat', structure_strength=0.4, seed=3)\n"
        "freectl.edit('a.png', 'a cat', structure_wieght=400.0)\n"
        "freectl.control('a.png', 'a cat', stesp=3)\n"
        "freectl.compare('a.png', 'a cat', strenght=0.5)\n"
        "freectl.edti\n"
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(tmp_path / "use.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout
    assert [int(line.split(":")[1]) for line in said.splitlines() if ": error:" in line] == [3, 4, 5, 6]


PICTURE = Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ({"image": "no.png"}, "image: found no file 'no.png'"),
        ({"keep_background": True}, "keep_background: found no keep_concept"),
        ({"keep": "no.png"}, "keep: found"),
        ({"steps": 0}, "steps: found 0"),
        ({"structure_wieght": 1}, "structure_wieght: found unknown name"),
        ({"structure_strength": -1}, "structure_strength: found -1"),
        ({"gan_weights": "x"}, "gan_weights: found given to freecontrol; allowed: method gan"),
        ({"lora": 5}, "lora: found 5; allowed: a text"),
    ],
)
def test_errors_in_python_speak_python(arguments, start):
    with pytest.raises(freectl.InputError) as caught:
        freectl.edit(**{"image": PICTURE, "prompt": "a cat"} | arguments)
    assert str(caught.value).startswith(start)
    assert "--" not in str(caught.value)


def test_errors_of_control_and_compare_do_too():
    with pytest.raises(freectl.InputError, match="^conditions: found") as caught:
        freectl.control("no.png", "a cat")
    assert caught.value.option == "conditions"
    with pytest.raises(freectl.InputError, match="^method: found unknown name 'pmp'"):
        freectl.compare(PICTURE, "a cat", "pmp")
