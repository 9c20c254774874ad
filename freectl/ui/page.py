"""The page: tabs at the left, the session's results at the right."""

from typing import Any

import gradio as gr

from freectl.ui.edit_tab import EditTab
from freectl.ui.panel import Panel
from freectl.ui.session import Sessions

CSS = """
.gradio-container { max-width: 1280px !important; margin: auto; }
.about p, .note { margin: 2px 0; } .error { color: #b00020; font-weight: 600; margin: 2px 0; }
.dark .error { color: #ff8a9b; }
.unknown { margin: 0; }
#history .grid-wrap img, #preview img { image-rendering: auto; } .unknown mark { background: #ffd54d; color: #000; padding: 0 2px; }
.about p { font-size: 0.9em; opacity: 0.8; }
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
            with gr.Column(scale=4, min_width=320):
                panel = Panel(sessions)
        with left, gr.Tab("Edit", id="edit"):
            EditTab(sessions, panel, models)

        def closed(request: gr.Request) -> None:
            sessions.close(request.session_hash)

        page.unload(closed)
    return page
