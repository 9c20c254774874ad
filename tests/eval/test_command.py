"""How the commands end when there is no room: one line, an exit code, nothing half-written."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from eval.command import guarded_main
from eval.gans import features, noise, runs
from eval.showcase import command as showcase
from eval.showcase import strength
from freectl.errors import FreectlError, InputError
from gan_baselines.errors import GanError

ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")
RESULTS = str(ROOT / "prompts" / "mini_results")


def report(*arguments: str, stdout: int = subprocess.PIPE, most_bytes: int | None = None) -> tuple[int, str]:
    """Exit code and stderr of eval.report, which may write files of `most_bytes` only."""

    def limited() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    command = [sys.executable, "-m", "eval.report", RESULTS, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=90,
                          check=False, preexec_fn=limited)  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_standard_output_is_one_line(tmp_path: Path) -> None:
    handle = os.open(FULL, os.O_WRONLY)
    try:
        code, told = report("--out", str(tmp_path / "r.html"), stdout=handle)
    finally:
        os.close(handle)
    assert code == 1
    assert told.count("\n") == 1
    assert "No space left on device" in told


def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    code, told = report("--out", str(tmp_path / "r.html"), most_bytes=4096)
    assert code == 1
    assert told.startswith(f"--out: could not write '{tmp_path / 'r.html'}'")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_of_their_own_parsers_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (runs.main, noise.main, features.main):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["eval.gan", "--nothing"])
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "--out" in err


def test_files_that_cannot_be_written_are_found_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.showcase.command.plan", lambda: pytest.fail("something ran"))
    monkeypatch.setattr("eval.showcase.strength.measured", lambda *_args: pytest.fail("something ran"))
    lost, odd = tmp_path / "none" / "a.png", tmp_path / "a.xyz"
    for output in (lost, odd, tmp_path):
        for run in (showcase.control, showcase.methods, showcase.ten):
            with pytest.raises(InputError, match="--output"):
                run(output)
    with pytest.raises(InputError, match="--table"):
        showcase.ten(tmp_path / "a.png", lost)
    with pytest.raises(InputError, match="--table"):
        showcase.keep(table=lost)
    with pytest.raises(InputError, match="--output"):
        strength.main([2], 1, False, lost)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (FreectlError("the training failed"), 1, "the training failed\n"),
        (GanError("a loss is not finite"), 1, "a loss is not finite\n"),
        (InputError("--out", "'x'", "a folder"), 2, "--out: found 'x'; allowed: a folder\n"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), 1, "No such file or directory\n"),
        (KeyboardInterrupt(), 130, "interrupted; start again to go on\n"),
    ],
)
def test_commands_with_their_own_parsers_end_alike(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        assert sys.argv[1:] == ["--out", "x", "--set", "a=1", "b=2"]  # the parser's, untouched
        raise error

    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which the command may close
    monkeypatch.setattr(sys, "argv", ["eval.gan_runs", "--out", "x", "--set", "a=1", "b=2"])
    with pytest.raises(SystemExit) as ended:
        guarded_main(main)
    assert ended.value.code == code
    err = capsys.readouterr().err
    assert err.endswith(told)
    assert err.count("\n") == 1
    assert getattr(error, "filename", None) is None or error.filename in err
