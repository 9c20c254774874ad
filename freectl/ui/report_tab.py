"""The tab Benchmark results: a report of `python -m eval.report`, opened in a frame that can reach nothing."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from freectl.ui.panel import said

MAX_REPORT = 30_000_000


class ReportTab:
    """A place to drop a report."""

    def __init__(self) -> None:
        gr.Markdown("A report that `python -m eval.report` wrote (one HTML file). It is shown here and goes nowhere.")
        self.file = gr.File(label="Report: drop the HTML file", file_types=[".html"], height=140, elem_id="report-file")
        self.frame = gr.HTML("", elem_id="report")
        self.file.change(framed, self.file, self.frame, queue=False, show_progress="hidden", api_visibility="private")


def framed(path: str | None) -> Any:
    """A report in a frame without access to the page, its cookies or forms; empty without one."""
    if not path:
        return ""
    file = Path(path)
    if file.stat().st_size > MAX_REPORT:
        return said(
            f"report: found {file.stat().st_size / 1e6:.0f} MB; allowed: at most {MAX_REPORT / 1e6:.0f} MB", "error"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return said(f"report: found {file.name}, not UTF-8 text; allowed: a report of eval", "error")
    style = "width:100%;height:80vh;border:1px solid #8884;border-radius:6px;background:#fff"
    return f'<iframe title="Benchmark report" sandbox="allow-scripts" style="{style}" srcdoc="{escape(text)}"></iframe>'
