"""A report of made-up results."""

from pathlib import Path

import pytest
from result_kit import invoke


@pytest.fixture(scope="session")
def made(results_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its HTML file."""
    target = tmp_path_factory.mktemp("report") / "report.html"
    result = invoke(str(results_folder), "--out", str(target))
    assert result.exit_code == 0, result.output
    return target
