"""The house: who may import whom, as `lint-imports` checks it, and files and functions that fit a screen."""

import ast
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("freectl", "gan_baselines", "eval")
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the contracts of pyproject.toml say of the packages in a folder."""
    return subprocess.run(LINT, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def sources() -> Iterator[Path]:
    """All Python files of the packages."""
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages' Python files in another folder."""
    folder = tmp_path_factory.mktemp("house")
    for path in (ROOT / "pyproject.toml", *sources()):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


def test_every_import_goes_downwards(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("gan_baselines/errors.py", "import freectl.errors", "know nothing of each other"),
        ("freectl/errors.py", "from gan_baselines import errors", "know nothing of each other"),
        ("freectl/tasks/outside.py", "from eval.gans.method import Gan", "neither imports it"),
        ("eval/bench/cases.py", "from eval.report import page", "wings of eval"),
        ("eval/scores/base.py", "def late():\n    from eval.results.store import Store", "wings of eval"),
        ("eval/bench/cases.py", "from eval.bench import mini", "no circles in eval"),
        ("eval/another.py", "", "wings of eval"),
    ],
)
def test_a_wrong_import_is_found(copy: Path, file: str, line: str, broken: str) -> None:
    path = copy / file
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
    try:
        done = lint(copy)
    finally:
        path.unlink() if before is None else path.write_text(before, encoding="utf-8")
    assert done.returncode == 1
    assert f"{broken} BROKEN" in done.stdout


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function; of one with a long list of options, which is its page, without that and the docstring."""
    given = function.args
    if len(given.args) + len(given.kwonlyargs) <= 15:
        return (function.end_lineno or 0) - function.lineno + 1
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("package", PACKAGES)
def test_files_and_functions_are_small(package: str) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / package).rglob("*.py"))}
    files = {str(path.relative_to(ROOT)): len(text.splitlines()) for path, text in texts.items()}
    functions = {
        f"{path.relative_to(ROOT)}:{node.name}": function_lines(node)
        for path, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert statistics.median(files.values()) <= 150
    assert {name: lines for name, lines in files.items() if lines > 300} == {}
    assert statistics.quantiles(functions.values(), n=10)[-1] <= 30
    assert {name: lines for name, lines in functions.items() if lines > 80} == {}
