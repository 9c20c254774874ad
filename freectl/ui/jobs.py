"""Runs one at a time in a thread of their own, whoever asks, and tells how they go."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from freectl.errors import FreectlError
from freectl.ui.watch import Cancelled, Progress, Watch

_ONE = threading.Lock()
"""There is one model in memory and one place to compute: a second run waits."""
CANCELLING = Progress("cancelling", 0, 0, None)
"""Told by the run itself: an answer to the button might reach the browser behind the run's last word."""
POLL = 0.4
"""Seconds between updates at least: each is a message to the browser and work in it."""


class Job:
    """One run.

    Args:
        work: the run; gets the watch.

    Attributes:
        result: what `work` gave; error: in one line why there is none; cancelled: whether it was asked to end.
    """

    def __init__(self, work: Callable[[Watch], Any], watch: Watch) -> None:
        self.work, self.watch = work, watch
        self.result: Any = None
        self.error = ""
        self.cancelled = False

    def progress(self) -> Iterator[Progress]:
        """Run, and yield the newest progress until the end; the run is cancelled where nobody listens any more."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        told = False
        try:
            while thread.is_alive():
                news = self.watch.latest(POLL)
                if self.watch.cancelled and not told:
                    told = True
                    yield CANCELLING
                elif news is not None and not told:
                    yield news
                    thread.join(POLL)
        finally:
            if thread.is_alive():
                self.watch.cancel()
        thread.join()
        news = self.watch.latest(0)
        if news is not None and not self.watch.cancelled:
            yield news

    def _run(self) -> None:
        try:
            with _ONE:
                if self.watch.cancelled:
                    raise Cancelled
                self.result = self.work(self.watch)
        except Cancelled:
            self.cancelled = True
        except Exception as error:  # whatever a run hits, the page goes on and says it
            self.error = one_line(error)


def one_line(error: BaseException) -> str:
    """What went wrong, in one line for people."""
    text = str(error) if isinstance(error, FreectlError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def explained_work(plan: Any) -> Callable[[Watch], Any]:
    """A checked run, of either kind, whose inside is looked at; gives an `Explained`."""

    def work(watch: Watch) -> Any:
        from freectl.tasks import explain as explaining

        explaining.check(plan)
        with watch.watching(opened(watch, plan)):
            return explaining.run(plan, on_step=previewing(watch, plan.options))

    return work


def edit_work(plan: Any) -> Callable[[Watch], Any]:
    """A checked edit as the work of a job; gives an `EditResult`."""

    def work(watch: Watch) -> Any:
        from freectl.tasks import edit as editing

        with watch.watching(opened(watch, plan)):
            return editing.run(plan, on_step=previewing(watch, plan.options))

    return work


def control_work(plan: Any) -> Callable[[Watch], Any]:
    """A checked run under conditions as the work of a job; gives a `ControlResult`."""

    def work(watch: Watch) -> Any:
        from freectl.tasks import control as controlling

        with watch.watching(opened(watch, plan)):
            return controlling.run(plan, on_step=previewing(watch, plan.options))

    return work


def opened(watch: Watch, plan: Any) -> Any:
    """What a run takes its progress bars from: the opened pipeline, or the method itself where it runs none."""
    from freectl.tasks import edit as editing

    watch.tell(Progress("opening the model", 0, 1, None))
    return plan.method if plan.source is None else editing.opened(plan.options, plan.source)[0]


def previewing(watch: Watch, options: Any) -> Any:
    """The step callback with previews; none under offload, where a decoder would swap the network out at each."""
    return watch.on_step if options.offload == "none" else None
