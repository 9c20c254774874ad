"""Asked runs in turn, their progress on the page, their results in the session."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
from PIL import Image

from freectl.errors import FreectlError
from freectl.files import record as records
from freectl.ui.asking import Asked
from freectl.ui.jobs import Job, explained_work, one_line
from freectl.ui.panel import Panel, Updates, said
from freectl.ui.session import Result, Session, Sessions, files_of
from freectl.ui.watch import Progress, Watch

ENGINE = "engine"
"""Events that compute share this queue and take turns."""
CANCELLED = "cancelled; nothing was changed"


class Buttons:
    """A button that starts runs, one that calls them off, and what both mean on the page.

    Args:
        label: of the first one.
    """

    def __init__(self, label: str, sessions: Sessions, panel: Panel) -> None:
        self.sessions, self.panel = sessions, panel
        with gr.Row():
            self.run = gr.Button(label, variant="primary", min_width=120)
            self.cancel = gr.Button("Cancel", min_width=120)
        self.ticket = gr.State(0)

    def start(self, work: Callable[[Any, Session, int], Iterator[Updates]], inputs: set[Any], *more: Any) -> None:
        """Let the button start `work`, which takes the inputs' values, the session and the run's number.

        Args:
            more: components besides the panel's that it may change.
        """

        def go(given: Any, request: gr.Request) -> Iterator[Updates]:
            yield from work(given, self.sessions.of(request.session_hash), given[self.ticket])

        private: dict[str, Any] = {"api_visibility": "private"}
        self.run.click(self._ask, None, [self.ticket, self.panel.status], queue=False, **private).then(
            go,
            {*inputs, self.ticket},
            [*self.panel.outputs, *more],
            concurrency_id=ENGINE,
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=self.panel.status,
            **private,
        )
        self.cancel.click(self._cancel, None, None, queue=False, **private)

    def _ask(self, request: gr.Request) -> Updates:
        ticket = self.sessions.of(request.session_hash).ask()
        return {self.ticket: ticket, self.panel.status: said("waiting for its turn")}

    def _cancel(self, request: gr.Request) -> None:
        self.sessions.of(request.session_hash).cancel()


def keep(session: Session, asked: Asked, made: Any, inside: Image.Image | None = None) -> Result:
    """Take a finished run into the session: input and result as PNG, the result with its record.

    Args:
        inside: what was seen inside it.
    """
    before = session.keep_picture(made.source, "input") if made.source is not None else None
    path = session.path(next(iter(files_of(asked.form)), "picture"))
    record = asked.record(made.record, path.name)
    records.save_image(made.image, path, record)
    shown = session.keep_picture(inside, f"{path.stem}_inside") if inside is not None else None
    places = [None if one is None else str(one) for one in (before, shown)]
    found = Result(str(path), places[0], record, asked.command(), asked.form, asked.label, places[1])
    session.add(found)
    return found


def runs(
    session: Session, ticket: int, ask: Callable[[], list[Asked]], work: Callable[[Any], Any], panel: Panel
) -> Iterator[Updates]:
    """Updates of the page while a form's runs are made.

    Args:
        ticket: the run's number, see `Session.ask`. ask: checks the form. work: the job of a plan.
    """
    try:
        asked = ask()
    except FreectlError as error:
        yield {panel.status: said(one_line(error), "error")}
        return
    for index, one in enumerate(asked):
        if session.cancelled >= ticket:
            yield panel.shown(session) | {panel.status: said(CANCELLED)}
            return
        job = Job((explained_work if one.form.get("inside") else work)(one.plan), Watch())
        session.watch = job.watch
        try:
            for progress in job.progress():
                yield progressing(panel, progress, index, asked)
        finally:
            session.watch = None
        if job.error or job.cancelled:
            kind = "error" if job.error else "note"
            yield panel.shown(session) | {panel.status: said(job.error or CANCELLED, kind)}
            return
        made, inside = seen(job.result)
        result = keep(session, one, made, inside)
        yield panel.shown(session) | {panel.status: said(finished(result.record, made.notes))}


def seen(done: Any) -> tuple[Any, Image.Image | None]:
    """A job's result, and the sheet of its inside if that was looked at."""
    from freectl.tasks.explain import Explained

    if not isinstance(done, Explained):
        return done, None
    from freectl.tasks.explain_sheet import sheet

    return done.result, sheet(done)


def progressing(panel: Panel, progress: Progress, index: int, asked: Sequence[Any]) -> Updates:
    """The page with a run's progress."""
    which = f"picture {index + 1} of {len(asked)}; " if len(asked) > 1 else ""
    updates: Updates = {panel.status: said(f"{which}{progress.text}")}
    if progress.preview is not None:
        updates[panel.preview] = gr.update(value=progress.preview, visible=True)
    return updates


def finished(record: dict[str, Any], notes: Sequence[str]) -> str:
    """What a run cost, where it ran, and its warnings, in words."""
    cost = record["cost"]
    spent = f"done: {cost['row_forwards']:g} row forwards, {cost['seconds']['total']:.1f} s ({', '.join(notes)})"
    return ". ".join([spent, *(f"Warning: {text}" for text in record["warnings"])])
