"""What one browser tab has made: results with their records, in a folder of its own, gone with the tab."""

import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from freectl.files import record as records
from freectl.ui import words
from freectl.ui.watch import Watch

PICTURES = ("image", "condition", "keep", "mask", "appearance_image")
"""Values of a form that are uploaded files."""


def files_of(form: Mapping[str, Any]) -> list[str]:
    """Paths of the files that were uploaded for a form."""
    values = [value for name in PICTURES if (value := form.get(name)) and not words.no_file(value)]
    return [str(one) for value in values for one in (value if isinstance(value, list | tuple) else [value])]


@dataclass(frozen=True)
class Result:
    """A finished picture.

    Attributes:
        path: PNG with the record in it. before: the input, PNG; None where there is none.
        record: as the command line prints it. command: what repeats it.
        form: values of the form's fields by name, which "use these settings" sets.
        label: under the picture.
        inside: what was seen inside the run, PNG; None = it was not looked at.
    """

    path: str
    before: str | None
    record: dict[str, Any]
    command: str
    form: dict[str, Any]
    label: str
    inside: str | None = None


class Session:
    """Results of one tab, newest last.

    Attributes:
        asked: number of runs that were asked for; cancelled: the number up to which they were called off.
        watch: of the run that goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, list[Result]()
        self.asked, self.cancelled = 0, 0
        self.chosen: int | None = None
        self.watch: Watch | None = None

    def ask(self) -> int:
        """A new run's number."""
        self.asked += 1
        return self.asked

    def cancel(self) -> None:
        """Call off the run that goes on and those that wait."""
        self.cancelled = self.asked
        if self.watch is not None:
            self.watch.cancel()

    def path(self, name: str) -> Path:
        """A new file's place; the name keeps what is safe in one."""
        stem = re.sub(r"[^\w.-]+", "_", Path(name).stem)[:60] or "picture"
        number = sum(1 for _ in self.folder.iterdir())
        return self.folder / f"{stem}_{number}.png"

    def keep_picture(self, image: Image.Image, name: str) -> Path:
        """Write a picture to the session's folder."""
        return records.save_image(image, self.path(name))

    def add(self, result: Result) -> None:
        """Take in a result and choose it."""
        self.results.append(result)
        self.chosen = len(self.results) - 1

    @property
    def pictures(self) -> dict[str, str]:
        """Paths of the pictures that went into the results, by their names."""
        return {Path(path).name: path for one in self.results for path in files_of(one.form)}

    @property
    def current(self) -> Result | None:
        """The chosen result."""
        return None if self.chosen is None else self.results[self.chosen]


@dataclass
class Sessions:
    """The sessions of a server, by the hash that gradio gives each tab.

    Attributes:
        root: folder that the server may hand files out of; names of folders in it cannot be guessed.
    """

    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="freectl-ui-")))
    _known: dict[str, Session] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def of(self, name: str | None) -> Session:
        """The session of that hash, made where there is none."""
        with self._lock:
            key = name or "none"
            if key not in self._known:
                folder = self.root / secrets.token_urlsafe(16)
                folder.mkdir()
                self._known[key] = Session(folder)
            return self._known[key]

    def close(self, name: str | None) -> None:
        """End a session: its run is called off and its files are deleted."""
        with self._lock:
            found = self._known.pop(name or "none", None)
        if found is not None:
            found.cancel()
            shutil.rmtree(found.folder, ignore_errors=True)
