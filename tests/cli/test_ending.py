"""How commands end: full and closed streams, signals, control characters, options given twice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from freectl.errors import LONGEST, InputError, one_line, visible

HERE = Path(__file__).parents[2]


def shell(command, **options):
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    line = command.replace("freectl", f"{sys.executable} -m freectl")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=env, **options)


def test_version_help_and_completion_of_the_module():
    said = shell("freectl --version")
    assert re.fullmatch(r"freectl \d+\.\d+\.\d+\n", said.stdout)
    text = shell("freectl --help").stdout
    assert "--install-completion" in text
    assert "describes the result" in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_stdout_is_one_line_and_a_full_stderr_stops_nothing():
    full = shell("freectl mini words > /dev/full")
    assert full.returncode == 1
    assert full.stderr == "freectl: standard output cannot be written: No space left on device\n"
    quiet = shell("freectl mini words 2> /dev/full")
    assert (quiet.returncode, "fox" in quiet.stdout) == (0, True)
    assert shell("freectl mini wrods 2> /dev/full").returncode == 2
    both = shell("freectl mini words > /dev/full 2> /dev/full")
    assert (both.returncode, both.stderr) == (1, "")


def test_a_reader_that_has_gone_is_no_error_of_ours():
    assert "Traceback" not in shell("freectl mini words | true").stderr


def test_sigterm_is_said_in_a_line(tmp_path):
    code = (
        "import sys, time\nfrom freectl.cli import env, main\n"
        "def wait():\n    sys.stderr.write('ready\\n'); sys.stderr.flush(); time.sleep(60)\n"
        "import freectl.files.environment as module\nmodule.report = wait\n"
        "sys.argv = ['freectl', 'env']\nmain()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=HERE)
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert err == "freectl: terminated; interrupted; nothing was written\n"


@pytest.mark.parametrize(
    "args",
    [
        ["--steps", 3, "--steps", 4],
        ["--prompt", "a dog", "--prompt", "a dog"],
        ["--cache", "--no-cache"],
        ["--set", "strength=0.1", "--set", "strength=0.2"],
        ["--set", "structure_strength=0.3", "--structure-strength", "0.4"],
    ],
)
def test_an_option_given_twice_is_refused_by_name(cli, args):
    ran = cli("edit", "--image", "in.png", *args, *([] if "--prompt" in args else ["--prompt", "a cat"]))
    assert ran.code == 2
    assert str(args[-2]) in ran.error or str(args[0]) in ran.error
    assert "once" in ran.error or "one of the two" in ran.error


def test_options_that_may_repeat_still_do(cli):
    ran = cli("control", "--condition", "no.png", "--condition", "none.png", "--prompt", "a cat")
    assert "no file 'no.png'" in ran.error


def test_every_command_refuses_double_options():
    from freectl.cli import app
    from freectl.cli.app import OnceCommand

    def commands(one):
        yield from one.registered_commands
        for group in one.registered_groups:
            yield from commands(group.typer_instance)

    found = list(commands(app))
    assert len(found) > 12
    assert all(issubclass(info.cls, OnceCommand) for info in found)


HOSTILE = "a \x1b[2J\x1b]0;owned\x07 \x9b31m\u202egnp.exe\r cat"


def test_control_characters_of_files_never_reach_the_terminal(cli, tmp_path):
    Path("c.json").write_text(json.dumps({"prompt": HOSTILE, "steps": HOSTILE, "image": "in.png"}))
    ran = cli("edit", "--config", "c.json")
    assert ran.code == 2
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", ran.err)
    Path("d.json").write_text(json.dumps({"prompt": "x", HOSTILE: 1, "image": "in.png"}))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", cli("edit", "--config", "d.json").err)


def test_text_and_json_are_escaped(capsys):
    from freectl.cli.output import Format, emit

    emit({"a": HOSTILE + "\udc80é"}, HOSTILE + "\nnext é", Format.human)
    human = capsys.readouterr().out
    assert "next é" in human
    assert human.count("\n") == 2
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", human)
    emit({"a": HOSTILE + "\udc80é"}, "", Format.json)
    line = capsys.readouterr().out
    assert json.loads(line) == {"a": HOSTILE + "\udc80é"}
    assert "é" in line
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\udc80]", line)


def test_lines_of_error_are_bounded_and_keep_both_ends():
    error = InputError("--prompt", "x" * 10_000, "something short")
    assert len(str(error)) <= LONGEST
    assert str(error).startswith("--prompt: found xxx")
    assert str(error).endswith("allowed: something short")
    assert one_line("a\nb\x1b") == "a\\nb\\x1b"
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_bytes_that_are_no_text_are_refused_in_words_and_taken_in_names(cli, source):
    ran = cli("edit", "--image", "in.png", "--prompt", "a \udcff cat")
    assert ran.code == 2
    assert "--prompt" in ran.error
    assert "no UTF-8" in ran.error
    missing = cli("edit", "--image", "\udcff.png", "--prompt", "a cat")
    assert missing.code == 2
    assert "no file" in missing.error


def test_names_that_no_file_system_holds(cli, model):
    long = "x" * 300 + ".png"
    for option in ("--image", "--config", "--mask", "--keep", "--appearance-image", "--lora", "--model", "--output"):
        usual = {"--image": "in.png", "--prompt": "a cat", "--model": model, option: long}
        ran = cli("edit", *(part for pair in usual.items() for part in pair))
        assert ran.code == 2, option
        assert option in ran.error, option


def test_help_answers_at_once():
    shell("freectl --help")
    began = time.perf_counter()
    cpu = os.times().children_user + os.times().children_system
    shell("freectl edit --help")
    spent = os.times().children_user + os.times().children_system - cpu
    assert min(spent, time.perf_counter() - began) < 1.5  # half a second where nothing else runs
