"""Results of the session: a gallery, and of the chosen one before and after, command, record, download."""

from html import escape
from typing import Any

import gradio as gr

from freectl.ui.session import Session, Sessions

Updates = dict[Any, Any]
SEEN: Any = ["download", "fullscreen"]
"""Buttons of sheets: gradio's own would also offer to publish them."""
HIDDEN: Any = "hidden"
"""Unseen, but part of the page: gradio fetches what draws a part when it first comes, and loses updates meanwhile."""
EMPTY = "Nothing here yet: choose a picture, say what the result shows, press the button."


def said(text: str, kind: str = "note") -> str:
    """A line of the page; an error is announced to screen readers."""
    role = "alert" if kind == "error" else "status"
    return f"<p class='{kind}' role='{role}' aria-live='polite'>{escape(text)}</p>"


def visible(yes: bool) -> Any:
    """A part's visibility, so that no update of it is lost."""
    return True if yes else HIDDEN


class Panel:
    """What is shown of a session's results."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.status = gr.HTML(said(EMPTY), elem_id="status")
        self.preview = gr.Image(
            label="Preview of the estimate", visible=HIDDEN, format="png", buttons=[], height=260, elem_id="preview"
        )
        self.slider = gr.ImageSlider(label="Before and after", visible=HIDDEN, type="filepath", max_height=400)
        with gr.Row(visible=HIDDEN) as self.actions:
            self.download = gr.DownloadButton("Download with record", min_width=150)
            self.use = gr.Button("Use these settings", min_width=150)
        self.gallery = gr.Gallery(
            label="Results of this session",
            columns=5,
            height="auto",
            fit_columns=False,
            object_fit="contain",
            allow_preview=False,
            buttons=[],
            visible=HIDDEN,
            elem_id="history",
        )
        with gr.Accordion("Command and record", open=True, visible=HIDDEN) as self.details:
            self.command = gr.Textbox(
                label="The same on the command line", buttons=["copy"], interactive=False, lines=2, elem_id="command"
            )
            self.record = gr.JSON(label="Record", max_height=360)
        self.inside = gr.Image(
            label="Inside the run", visible=HIDDEN, type="filepath", format="png", elem_id="inside", buttons=SEEN
        )
        self.dropped = gr.File(
            label="Restore: drop a result here", file_types=[".png"], height=140, elem_id="restore", buttons=[]
        )
        self.gallery.select(
            self._choose, None, self.outputs, queue=False, show_progress="hidden", api_visibility="private"
        )

    @property
    def outputs(self) -> list[Any]:
        """Every component that `shown` may change."""
        chosen = [self.slider, self.download, self.command, self.record, self.inside]
        return [self.status, self.preview, self.gallery, self.actions, self.details, *chosen]

    def _choose(self, event: gr.SelectData, request: gr.Request) -> Updates:
        session = self.sessions.of(request.session_hash)
        # the newest is shown first
        session.chosen = len(session.results) - 1 - int(event.index)
        return self.shown(session)

    def shown(self, session: Session) -> Updates:
        """The chosen result with all that belongs to it, and the gallery."""
        found, results = session.current, session.results
        updates: Updates = {
            self.preview: gr.update(visible=HIDDEN, value=None),
            self.gallery: gr.update(
                value=[(one.path, one.label) for one in reversed(results)],
                visible=visible(bool(results)),
                selected_index=None if session.chosen is None else len(results) - 1 - session.chosen,
            ),
            self.actions: gr.update(visible=visible(found is not None)),
            self.details: gr.update(visible=visible(found is not None)),
        }
        if found is not None:
            pair = (found.before or found.path, found.path)
            updates[self.slider] = gr.update(value=pair, visible=True)
            updates[self.download] = gr.update(value=found.path)
            updates[self.command] = found.command
            updates[self.record] = found.record
            updates[self.inside] = gr.update(value=found.inside, visible=visible(found.inside is not None))
        return updates
