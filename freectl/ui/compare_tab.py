"""The tab Compare: several methods on one picture, each as a first edit of it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from freectl import methods
from freectl.errors import FreectlError
from freectl.tasks import compare as comparing
from freectl.tasks import options as config
from freectl.tasks.options import MAX_STEPS, EditOptions
from freectl.ui import uploads
from freectl.ui.asking import Asked, other_options
from freectl.ui.form import Updates, Values, more_options, picture
from freectl.ui.jobs import Job, one_line
from freectl.ui.panel import HIDDEN, SEEN, Panel, said
from freectl.ui.running import CANCELLED, Buttons, keep, progressing
from freectl.ui.session import Session, Sessions
from freectl.ui.watch import Progress, Watch

FIRST = ["freecontrol", "pnp", "sdedit"]
HEADER = ["method", "row forwards", "backwards", "seconds", "notes"]


class CompareTab:
    """A form of `freectl edit --method A,B,... --compare`."""

    def __init__(self, sessions: Sessions, panel: Panel, models: list[str]) -> None:
        self.panel = panel
        self.parts: dict[str, Any] = {"image": picture("Picture", height=220)}
        self.parts["prompt"] = gr.Textbox(label="Prompt", placeholder="a noto cat on a blue background")
        self.parts["source_prompt"] = gr.Textbox(label="Source prompt", placeholder="a fluent fox")
        self.parts["methods"] = gr.CheckboxGroup(list(methods.REGISTRY), value=FIRST, label="Methods")
        with gr.Row():
            self.parts["steps"] = gr.Slider(1, MAX_STEPS, value=50, step=1, label="Steps", min_width=200)
            self.parts["seed"] = gr.Number(0, label="Seed", precision=0, min_width=120)
            self.parts["model"] = gr.Dropdown(
                models, value=models[0], label="Model", allow_custom_value=True, min_width=120
            )
        with gr.Accordion("Concept, guidance, settings of the methods", open=False):
            with gr.Row():
                self.parts["concept"] = gr.Textbox(label="Concept", info="Word of the prompt.", min_width=150)
                self.parts["guidance_scale"] = gr.Textbox(label="Guidance scale", placeholder="default", min_width=150)
            self.parts["negative_prompt"] = gr.Textbox(label="Negative prompt")
            self.parts["settings"] = gr.Textbox(
                label="Settings",
                info="As --set on the command line, one a line: strength=0.6. Each method takes those that it has.",
                lines=2,
                max_lines=8,
            )
            self.parts["more"] = more_options()
        self.buttons = Buttons("Compare", sessions, panel)
        self.sheet = gr.Image(label="Side by side", visible=HIDDEN, format="png", elem_id="sheet", buttons=SEEN)
        self.table = gr.Dataframe(headers=HEADER, interactive=False, visible=HIDDEN, wrap=True, label="What each cost")
        for name, part in self.parts.items():
            part.elem_id = f"compare-{name}"
        self.buttons.start(self._compare, set(self.parts.values()), self.sheet, self.table)

    def _compare(self, given: Values, session: Session, ticket: int) -> Iterator[Updates]:
        form = {name: given[part] for name, part in self.parts.items()}
        entries: list[comparing.Entry] = []
        try:
            image, options, overrides, planned = planned_for(form)
        except FreectlError as error:
            yield {self.panel.status: said(one_line(error), "error")}
            return
        for index, one in enumerate(planned):
            job = Job(partial(entry, one), Watch())
            session.watch = job.watch
            if session.cancelled >= ticket:
                job.watch.cancel()
            for progress in job.progress():
                yield progressing(self.panel, progress, index, planned)
            if job.cancelled:
                yield self._shown(entries, image.image) | {self.panel.status: said(CANCELLED)}
                return
            entries.append(job.result or comparing.Entry(one.method, None, job.error, one.notes))
            self._keep(session, form, options, one, entries[-1], overrides)
            yield self.panel.shown(session) | self._shown(entries, image.image)
        failed = [f"{one.method}: {one.error}" for one in entries if one.result is None]
        yield {self.panel.status: said("; ".join(["done", *failed]))}

    def _keep(
        self, session: Session, form: dict[str, Any], options: Any, planned: Any, entry: Any, overrides: dict[str, str]
    ) -> None:
        if entry.result is None:
            return
        known = planned.plan.method.settings.model_fields
        settings = {name: value for name, value in overrides.items() if name in known}
        own = {name: value for name, value in form.items() if name != "methods"}
        own |= {"concept": planned.plan.options.concept, "settings": settings, "seed": str(options.seed)}
        own |= {"method": entry.method, "preset": "default"}
        asked = Asked(planned.plan, planned.plan.options, settings, own, entry.label)
        keep(session, asked, entry.result)

    def _shown(self, entries: list[comparing.Entry], image: Any) -> Updates:
        if not entries:
            return {}
        rows = [row(one) for one in entries]
        return {
            self.sheet: gr.update(value=comparing.sheet(entries, image), visible=True),
            self.table: gr.update(value=rows, visible=True),
        }


def planned_for(form: dict[str, Any]) -> tuple[Any, EditOptions, dict[str, str], list[comparing.Planned]]:
    """The picture, the shared options, the settings as they were given, and each method's checked plan.

    Raises:
        InputError: what is wrong for all methods alike.
    """
    picture = uploads.read(form["image"])
    given = {name: form[name] for name in EditOptions.model_fields if form.get(name) not in (None, "")}
    given |= other_options(str(form.get("more") or ""), EditOptions)
    options = config.validated(EditOptions, given | {"method": comparing.ALL})
    lines = str(form.get("settings") or "").splitlines()
    overrides = config.parse_assignments([line for line in lines if line.strip()])
    chosen = comparing.chosen(form["methods"], overrides)
    return picture, options, overrides, comparing.plans(picture, chosen, options, overrides)


def entry(planned: comparing.Planned, watch: Watch) -> comparing.Entry:
    """One method's run, watched."""
    from freectl.tasks import edit as editing

    if planned.plan is None or planned.plan.source is None:
        return comparing.Entry(planned.method, None, planned.error, planned.notes)
    watch.tell(Progress(planned.method, 0, 1, None))
    pipe, _ = editing.opened(planned.plan.options, planned.plan.source)
    with watch.watching(pipe):
        return comparing.run([planned])[0]


def row(entry: comparing.Entry) -> list[Any]:
    """A line of the table of costs."""
    if entry.result is None:
        return [entry.method, "", "", "", entry.error]
    cost = entry.result.cost
    seconds = cost["seconds"]["analysis"] + cost["seconds"]["synthesis"]
    notes = "; ".join([*entry.result.record["warnings"], *entry.notes])
    return [entry.method, round(cost["row_forwards"], 1), cost["row_backwards"], round(seconds, 1), notes]
