"""Who may reach the page, and what the command says when it cannot start."""

import subprocess
import sys

import pytest

from freectl.errors import InputError
from freectl.ui.server import check, serve

CLI = "import sys; from freectl.cli import main; main()"


def freectl(*words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{before}\n{CLI}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_password(host: str) -> None:
    check(host, False, None)
    check("0.0.0.0", True, "long enough")


@pytest.mark.parametrize(
    ("host", "share", "password", "words"),
    [
        ("0.0.0.0", False, None, "--host: found '0.0.0.0', where others can reach the page"),
        ("127.0.0.1", True, None, "--share: found a public link for anyone, without --password"),
        ("0.0.0.0", False, "short", "--password: found 5 characters"),
        ("0.0.0.0", False, "", "--password: found 0 characters"),
    ],
)
def test_others_need_one(host: str, share: bool, password: str | None, words: str) -> None:
    with pytest.raises(InputError) as refused:
        check(host, share, password)
    assert str(refused.value).startswith(words)


def test_help_and_refusals_load_neither_torch_nor_gradio() -> None:
    guard = "import sys\nsys.modules['torch'] = sys.modules['gradio'] = None"
    done = freectl("ui", "--help", before=guard)
    assert done.returncode == 0
    assert "--password" in done.stdout
    refused = freectl("ui", "--host", "0.0.0.0", before=guard)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1


def test_without_gradio_one_line_says_how_to_get_it() -> None:
    hide = """import importlib.util as util
found = util.find_spec
util.find_spec = lambda name, *more: None if name == 'gradio' else found(name, *more)"""
    done = freectl("ui", before=hide)
    assert done.returncode == 2
    assert (
        done.stderr
        == "freectl: freectl ui: found no gradio; allowed: an installation with it: pip install 'freectl[ui]'\n"
    )


def test_a_model_that_is_not_there_is_said_before_anything_starts() -> None:
    with pytest.raises(InputError, match="--model: found 'no/such/model.safetensors'"):
        serve("no/such/model.safetensors", ready=lambda _: pytest.fail("the page was opened"))
