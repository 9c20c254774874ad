"""A headless Chromium for tests: opens a file, tells its errors, runs scripts in it. Speaks its debugging protocol."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]
PATIENCE = 60.0


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number, self.errors, self.width = socket, 0, [], 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """One command; events that arrive before its answer are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": values}))
        while True:
            found = self._read()
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]

    def _read(self) -> dict[str, Any]:
        found = json.loads(self._socket.recv(timeout=PATIENCE))
        method, values = found.get("method"), found.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(values["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(values["entry"]["text"])
        elif method == "Network.requestWillBeSent" and values["request"]["url"].startswith("http"):
            self.errors.append(f"asks for {values['request']['url']}")
        return found

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Load a file in a window of that size, and wait until it is there."""
        self.width = width
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """The value of an expression; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Until the expression is true."""
        limit = time.monotonic() + PATIENCE
        while not self.run(script):
            if time.monotonic() > limit:
                raise TimeoutError(script)
            time.sleep(0.05)


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A tab of a new Chromium whose profile lies in `folder`."""
    from websockets.sync.client import connect

    port_file = folder / "DevToolsActivePort"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + PATIENCE
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError("Chromium did not start")
            time.sleep(0.05)
        port = port_file.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        with connect(tabs[0]["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait()


def layout_faults(page: Page) -> list[str]:
    """What is wrong with how the open page looks: missing pictures, and a page wider than its window."""
    broken = page.run("[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.alt)")
    wide = page.run("document.documentElement.scrollWidth") - page.width
    return [f"missing picture: {alt}" for alt in broken] + ([f"{wide} px too wide"] if wide > 0 else [])
