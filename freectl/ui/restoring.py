"""Settings back into the forms: from a result of the session, or from a picture that is dropped in."""

from typing import Any

import gradio as gr

from freectl.errors import FreectlError
from freectl.ui import asking
from freectl.ui.jobs import one_line
from freectl.ui.panel import Panel, Updates, said
from freectl.ui.session import Sessions


class Restoring:
    """What fills the forms.

    Args:
        tabs: the tabs' component. forms: the tabs "edit" and "control".
    """

    def __init__(self, sessions: Sessions, panel: Panel, tabs: Any, forms: dict[str, Any]) -> None:
        self.sessions, self.panel, self.tabs, self.forms = sessions, panel, tabs, forms
        outputs = [panel.status, tabs, *(part for form in forms.values() for part in form.outputs)]
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        panel.use.click(self._use, None, outputs, **quiet)
        panel.dropped.upload(self._drop, panel.dropped, outputs, **quiet)

    def _use(self, request: gr.Request) -> Updates:
        found = self.sessions.of(request.session_hash).current
        if found is None:
            return {self.panel.status: said("no result is chosen", "error")}
        return self._filled(str(found.record.get("command", "edit")), found.form, "settings taken from the result")

    def _drop(self, path: str, request: gr.Request) -> Updates:
        known = self.sessions.of(request.session_hash).pictures
        try:
            name, form, missing = asking.restored(asking.read_dropped(path), known)
        except FreectlError as error:
            return {self.panel.status: said(one_line(error), "error")}
        return self._filled(name, form, "; ".join(["settings taken from the picture", *missing]))

    def _filled(self, name: str, form: asking.Form, text: str) -> Updates:
        return {**self.forms[name].filled(form), self.tabs: gr.update(selected=name), self.panel.status: said(text)}
