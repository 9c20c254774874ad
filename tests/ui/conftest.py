"""The real server with the embedded model, and a real browser where there is one."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def address(freectl_home: Path) -> Iterator[str]:
    """Address of the running page; its work is done in this process."""
    pytest.importorskip("gradio", reason="no gradio: pip install 'freectl[ui]'")
    from freectl.ui.server import opened

    with opened("mini", "127.0.0.1", None) as (_, found):
        yield found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium."""
    pytest.importorskip("playwright", reason="no playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-quic"]
        )
        yield browser
        browser.close()
