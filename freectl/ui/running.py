"""Asked runs in turn, their progress on the page, their results in the session."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from freectl.errors import FreectlError
from freectl.files import record as records
from freectl.ui.asking import Asked
from freectl.ui.jobs import Job, one_line
from freectl.ui.panel import Panel, Updates, said
from freectl.ui.session import Result, Session
from freectl.ui.watch import Progress, Watch

ENGINE = "engine"
"""Events that compute share this queue and take turns."""
CANCELLED = "cancelled; nothing was changed"


def keep(session: Session, asked: Asked, made: Any) -> Result:
    """Take a finished run into the session: input and result as PNG, the result with its record."""
    before = session.keep_picture(made.source, "input") if made.source is not None else None
    stem = asked.form.get("image") or asked.form.get("condition") or "picture"
    path = session.path(stem)
    record = asked.record(made.record, path.name)
    records.save_image(made.image, path, record)
    found = Result(str(path), str(before) if before else None, record, asked.command(), asked.form, asked.label)
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
        job = Job(work(one.plan), Watch())
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
        result = keep(session, one, job.result)
        yield panel.shown(session) | {panel.status: said(finished(result.record, job.result.notes))}


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
