"""The page's function for programs, `/edit`: a picture, a prompt and options in; the record and the picture out."""

from typing import Any

import gradio as gr

from freectl.errors import FreectlError, InputError
from freectl.ui import asking
from freectl.ui.form import picture
from freectl.ui.jobs import Job, edit_work, one_line
from freectl.ui.running import ENGINE, keep
from freectl.ui.session import PICTURES, Sessions
from freectl.ui.watch import Watch


def offer(sessions: Sessions) -> None:
    """Add the function to the page that is being built."""

    def edit(
        image: str | None,
        prompt: str,
        options: dict[str, Any] | None,
        keep_mask: str | None,
        mask: str | None,
        request: gr.Request,
    ) -> tuple[dict[str, Any], str]:
        """Change a picture as a sentence says: the record as `freectl edit --format json` prints it, and the PNG."""
        given = options or {}
        try:
            for name in given:
                if name in PICTURES:  # a path on this machine, which is not theirs to read
                    raise InputError(name, "a path among the options", "an uploaded picture")
            form = given | {"image": image, "prompt": prompt, "keep": keep_mask, "mask": mask}
            session = sessions.of(request.session_hash)
            asked = asking.edits(form)[0]
            job = Job(edit_work(asked.plan), Watch())
            session.watch = job.watch
            for _ in job.progress():
                pass
        except FreectlError as error:
            raise gr.Error(one_line(error)) from error
        if job.error or job.cancelled:
            raise gr.Error(job.error or "cancelled")
        result = keep(session, asked, job.result)
        return result.record, result.path

    with gr.Column(visible=False):
        images = [picture(label) for label in ("Picture", "Keep", "Mask")]
        text, options = gr.Textbox(label="Prompt"), gr.JSON(label="Options")
        outputs = [gr.JSON(label="Record"), gr.File(label="Result")]
        gr.Button("API").click(
            edit,
            [images[0], text, options, images[1], images[2]],
            outputs,
            api_name="edit",
            concurrency_id=ENGINE,
            concurrency_limit=1,
        )
