"""The page: tabs at the left, the session's results at the right."""

from typing import Any

import gradio as gr

from freectl.ui.api import offer
from freectl.ui.bases_tab import BasesTab, stored
from freectl.ui.compare_tab import CompareTab
from freectl.ui.control_tab import ControlTab
from freectl.ui.edit_tab import EditTab
from freectl.ui.panel import Panel
from freectl.ui.report_tab import ReportTab
from freectl.ui.restoring import Restoring
from freectl.ui.session import Sessions

CSS = """
.gradio-container > main { width: 100%; max-width: 1280px !important; margin: auto; }
.note, .error, .unknown { margin: 2px 0; overflow-wrap: anywhere; }
.error { color: #b00020; font-weight: 600; }
.dark .error { color: #ff8a9b; }
.unknown mark { background: #ffd54d; color: #000; padding: 0 2px; }
.about p { font-size: 0.9em; opacity: 0.8; }
.upload img, #preview img { width: 100%; height: 100%; object-fit: contain; }
#inside .image-container { padding-top: 34px; }
#history .grid-wrap { min-height: 0; height: auto; max-height: 420px; padding-top: 32px; }
h1 { margin-bottom: 0; }
"""
TITLE = "# freectl\nChange a picture as a sentence says and keep its structure."


def build(sessions: Sessions, models: list[str]) -> gr.Blocks:
    """The page as gradio has it.

    Args:
        models: names to choose from; the first is the default.
    """
    with gr.Blocks(title="freectl", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(TITLE)
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                left: Any = gr.Tabs()
            with gr.Column(scale=4, min_width=320) as right:
                panel = Panel(sessions)
        forms: dict[str, Any] = {}
        with left:
            with gr.Tab("Edit", id="edit"):
                forms["edit"] = EditTab(sessions, panel, models)
            with gr.Tab("Control", id="control"):
                forms["control"] = ControlTab(sessions, panel, models)
            with gr.Tab("Compare", id="compare"):
                CompareTab(sessions, panel, models)
            with gr.Tab("Bases", id="bases"):
                bases = BasesTab(sessions, models)
            with gr.Tab("Benchmark results", id="results"):
                ReportTab()
        page.load(stored, None, bases.table, queue=False, api_visibility="private")
        Restoring(sessions, panel, left, forms)
        offer(sessions)
        left.select(beside, None, right, queue=False, show_progress="hidden", api_visibility="private")

        def closed(request: gr.Request) -> None:
            sessions.close(request.session_hash)

        page.unload(closed)
    return page


def beside(event: gr.SelectData) -> Any:
    """The session's results stand beside the tabs that make some."""
    return gr.update(visible=event.value in ("Edit", "Control", "Compare"))
