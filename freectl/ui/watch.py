"""Watching a run from beside it: progress of every loop, a preview now and then, and an end on request."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from PIL import Image

PREVIEW_SHARE = 0.1
"""Part of a run's time that previews may take."""
SELDOM = 0.5
"""Seconds between previews at least."""


class Cancelled(BaseException):
    """Ends a run; no `Exception`, since a comparison goes on after whatever goes wrong in one method."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `done` of `total` (0 = no count) in the loop `label`, with `left` seconds of it to go."""

    label: str
    done: int
    total: int
    left: float | None
    preview: Image.Image | None = None

    @property
    def text(self) -> str:
        """In words."""
        if not self.total:
            return self.label
        left = "" if self.left is None else f", about {self.left:.0f} s left of it"
        return f"{self.label}: {self.done} of {self.total}{left}"


class Watch:
    """Takes the progress of one run and hands it to whoever waits for it.

    Attributes:
        cancelled: set from any thread; the run ends at its next step, whichever loop it is in.
        seldom: seconds between previews at least.
    """

    def __init__(self) -> None:
        self.cancelled, self.seldom = False, SELDOM
        self._news: queue.SimpleQueue[Progress] = queue.SimpleQueue()
        self._preview: Image.Image | None = None
        self._next_preview = 0.0

    def cancel(self) -> None:
        """Ask the run to end."""
        self.cancelled = True

    def tell(self, progress: Progress) -> None:
        """Called by the run.

        Raises:
            Cancelled: the run was asked to end.
        """
        if self.cancelled:
            raise Cancelled
        self._news.put(progress)

    def latest(self, seconds: float) -> Progress | None:
        """The newest progress, which is waited for at most so long; None where there is none."""
        try:
            found = self._news.get(timeout=seconds)
            while True:
                try:
                    later = self._news.get_nowait()
                except queue.Empty:
                    return found
                found = replace(later, preview=later.preview or found.preview)
        except queue.Empty:
            return None

    def on_step(self, pipe: Any, index: int, time_of_step: float, tensors: dict[str, Any]) -> dict[str, Any]:
        """A step callback of the pipelines: decodes the estimate of the clean picture, seldom enough not to cost."""
        if time.perf_counter() >= self._next_preview and pipe.clean_latents is not None:
            start = time.perf_counter()
            self._preview = decoded(pipe, pipe.clean_latents)
            now = time.perf_counter()
            self._next_preview = now + max(self.seldom, (now - start) / PREVIEW_SHARE)
        return {}

    @contextmanager
    def watching(self, pipe: Any) -> Iterator[None]:
        """The progress bars of a pipeline, or of a method without one, report here until the end.

        Every loop of every method has one.
        """
        pipe.progress_bar = lambda iterable=None, total=None, disable=False: _Bar(self, total)
        try:
            yield
        finally:
            del pipe.progress_bar

    def taken_preview(self) -> Image.Image | None:
        """The newest preview, once."""
        found, self._preview = self._preview, None
        return found


class _Bar:
    """What the engine asks of a progress bar."""

    def __init__(self, watch: Watch, total: int | None) -> None:
        self.watch, self.total, self.done, self.label = watch, total or 0, 0, "running"
        self.start = time.perf_counter()

    def set_description(self, label: str) -> None:
        """The loop's name, which stands at its beginning."""
        self.label = label
        self.watch.tell(Progress(label, 0, self.total, None))

    def update(self, count: int = 1) -> None:
        """So many steps more."""
        self.done += count
        each = (time.perf_counter() - self.start) / max(1, self.done)
        left = each * max(0, self.total - self.done)
        self.watch.tell(Progress(self.label, self.done, self.total, left, self.watch.taken_preview()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def decoded(pipe: Any, latents: Any) -> Image.Image:
    """The first of scaled latents (B, C, h, w) as a picture."""
    from freectl.models.engine import Engine

    pixels = Engine(pipe).decode(latents[:1])
    return pipe.image_processor.postprocess(pixels, output_type="pil")[0]
