"""The tab Control."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from freectl import methods
from freectl.preprocess import mesh
from freectl.preprocess.registry import KINDS as PREPROCESSORS
from freectl.tasks.options import MAX_STEPS
from freectl.ui import asking, words
from freectl.ui.edit_tab import AT_CONCEPT
from freectl.ui.form import MethodForm, Updates, Values, more_options, picture, see_inside
from freectl.ui.jobs import control_work
from freectl.ui.panel import Panel
from freectl.ui.running import Buttons, runs
from freectl.ui.session import Session, Sessions

SEVERAL = """Several conditions: concept, source prompt, preprocess and view take one entry for all, or one for each
with ; between, as in `fox; tree`."""
PLACES = [("at the concept, if the source prompt names it", ""), (AT_CONCEPT, "attention"), ("everywhere", "none")]


class ControlTab:
    """A form of `freectl control`."""

    def __init__(self, sessions: Sessions, panel: Panel, models: list[str]) -> None:
        self.panel = panel
        self.parts: dict[str, Any] = {}
        self._words()
        self.form = MethodForm(methods.of_conditions(), "control")
        with gr.Row():
            self.parts["steps"] = gr.Slider(1, MAX_STEPS, value=50, step=1, label="Steps", min_width=200)
            self.parts["seed"] = gr.Textbox("0", label="Seed", info="Several: 0-3, 7", min_width=120)
        self.parts["inside"] = see_inside()
        self.buttons = Buttons("Make the picture", sessions, panel)
        self.form.build()
        with gr.Accordion("Size, guidance, model", open=False):
            self._more(models)
        with gr.Accordion("Several conditions, meshes, masks", open=False):
            self._further()
        for name, part in self.parts.items():
            part.elem_id = f"control-{name}"
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        form = self.form
        form.method.input(lambda name: form.shown(name, "default", {}), form.method, form.outputs, **quiet)
        form.preset.input(
            lambda name, preset: form.shown(name, preset, {}), [form.method, form.preset], form.outputs, **quiet
        )
        self.buttons.start(self._control, {*self.parts.values(), *form.inputs})

    def _words(self) -> None:
        self.parts["condition"] = picture("Condition: a sketch, render, silhouette, photo", height=220)
        self.parts["preprocess"] = gr.Dropdown(
            list(PREPROCESSORS),
            value="none",
            allow_custom_value=True,
            label="Preprocess",
            info="What is made of it first; values after =, as in canny=50,150.",
        )
        self.parts["prompt"] = gr.Textbox(
            label="Prompt", info="What the result shows.", placeholder="a fluent fox on a blue background"
        )
        with gr.Row():
            self.parts["concept"] = gr.Textbox(
                label="Concept", info="Word of the prompt that the condition shows.", placeholder="fox", min_width=150
            )
            self.parts["source_prompt"] = gr.Textbox(
                label="Source prompt", info="What the condition shows; empty: from the concept.", min_width=150
            )

    def _further(self) -> None:
        self.parts["further"] = gr.File(
            label="Further conditions, and meshes (.obj, .glb, .ply)", file_count="multiple",
            file_types=["image", *mesh.SUFFIXES], height=150, buttons=[],
        )  # fmt: skip
        gr.Markdown(SEVERAL, elem_classes="about")
        with gr.Row():
            self.parts["mask_at"] = gr.Dropdown(
                PLACES, value="", label="Where the structure holds", info="A mask picture comes first.", min_width=200
            )
            self.parts["view"] = gr.Textbox(
                label="View of a mesh", info="Azimuth,elevation in degrees.", placeholder="30,20", min_width=150
            )
        self.parts["mask"] = picture("Mask (white: structure holds)", height=150)

    def _more(self, models: list[str]) -> None:
        with gr.Row():
            for name in ("width", "height"):
                self.parts[name] = gr.Textbox(
                    label=name.capitalize(), info="Pixels.", placeholder="of the condition", min_width=150
                )
            self.parts["guidance_scale"] = gr.Textbox(label="Guidance scale", placeholder="default", min_width=150)
        self.parts["model"] = gr.Dropdown(models, value=models[0], label="Model", allow_custom_value=True)
        self.parts["appearance_image"] = picture("Appearance picture", height=150)
        self.parts["negative_prompt"] = gr.Textbox(label="Negative prompt")
        self.parts["more"] = more_options()

    @property
    def outputs(self) -> list[Any]:
        """Every component that `filled` may change."""
        return [*self.parts.values(), *self.form.outputs]

    def values(self, given: Values) -> asking.Form:
        """The form's values by name."""
        form = {name: given[part] for name, part in self.parts.items()} | self.form.given(given)
        form["condition"] = [*filter(None, [form["condition"]]), *(form.pop("further") or [])]
        at = form.pop("mask_at")
        form["mask"] = form["mask"] or at
        return form

    def filled(self, form: asking.Form) -> Updates:
        """The page with a form's values."""
        updates: Updates = {part: form.get(name) for name, part in self.parts.items()}
        conditions, mask = list(form.get("condition") or []), form.get("mask")
        first = next((one for one in conditions[:1] if not mesh.is_mesh(one)), None)
        updates[self.parts["condition"]] = first
        updates[self.parts["further"]] = conditions[first is not None :] or None
        said = mask if not mask or words.no_file(mask) else ""
        updates |= {self.parts["mask_at"]: said or "", self.parts["mask"]: None if said == mask else mask}
        updates[self.parts["inside"]] = bool(form.get("inside"))
        return updates | self.form.shown(form["method"], form["preset"], form["settings"])

    def _control(self, given: Values, session: Session, ticket: int) -> Iterator[Updates]:
        form = self.values(given)
        yield from runs(session, ticket, lambda: asking.controls(form), control_work, self.panel)
