"""The tab Edit."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from freectl import methods
from freectl.errors import FreectlError
from freectl.tasks.options import MAX_STEPS
from freectl.ui import asking, uploads, words
from freectl.ui.form import MethodForm, Updates, Values, more_options, picture, see_inside
from freectl.ui.jobs import edit_work, one_line
from freectl.ui.panel import HIDDEN, Panel, said, visible
from freectl.ui.running import Buttons, runs
from freectl.ui.session import Session, Sessions

OPTIONAL = ("concept", "mask", "appearance_image")
"""Inputs that only some methods use."""
DEPENDENT = ("mask", "mask_at", "appearance_image")
"""Their fields, shown where the method uses them."""
PAINT = "#ff2d78"
AT_CONCEPT = "where the concept is, found by attention"


class EditTab:
    """A form of `freectl edit`.

    Args:
        models: names to choose from; the first is the default.
    """

    def __init__(self, sessions: Sessions, panel: Panel, models: list[str]) -> None:
        self.sessions, self.panel = sessions, panel
        self.parts: dict[str, Any] = {}
        self._words()
        self.form = MethodForm([*methods.REGISTRY, *methods.of_pictures()], "edit")
        with gr.Row():
            self.parts["steps"] = gr.Slider(1, MAX_STEPS, value=50, step=1, label="Steps", min_width=200)
            self.parts["seed"] = gr.Textbox("0", label="Seed", info="Several: 0-3, 7", min_width=120)
        self.parts["inside"] = see_inside()
        self.buttons = Buttons("Edit", sessions, panel)
        self.form.build()
        self._more(models)
        self._where()
        for name, part in self.parts.items():
            part.elem_id = f"edit-{name}"
        self._react()
        self.buttons.start(self._edit, self.inputs)

    def _words(self) -> None:
        self.parts["image"] = picture("Picture", height=220)
        self.parts["prompt"] = gr.Textbox(
            label="Prompt",
            info="What the result shows, not an instruction.",
            placeholder="a noto cat on a blue background",
        )
        self.unknown = gr.HTML("", elem_id="edit-unknown", padding=False, visible=HIDDEN)
        self.parts["source_prompt"] = gr.Textbox(
            label="Source prompt",
            info="What the picture shows now; several methods need it.",
            placeholder="a fluent fox",
        )

    def _more(self, models: list[str]) -> None:
        with gr.Accordion("Strength in a row, guidance, model", open=False):
            with gr.Row():
                self.parts["vary"] = gr.Dropdown(
                    self._names("freecontrol"),
                    value=None,
                    label="Vary a setting",
                    info="One picture for each value.",
                    min_width=200,
                )
                self.parts["values"] = gr.Textbox(label="Its values", info="Such as 100, 200, 400.", min_width=200)
            with gr.Row():
                self.parts["guidance_scale"] = gr.Textbox(
                    label="Guidance scale", info="Empty: the model family's.", placeholder="default", min_width=200
                )
                self.parts["model"] = gr.Dropdown(
                    models,
                    value=models[0],
                    label="Model",
                    allow_custom_value=True,
                    min_width=200,
                    info="mini, a folder, a .safetensors file or a hub id.",
                )
            self.parts["negative_prompt"] = gr.Textbox(label="Negative prompt", info="What it should not show.")
            self.parts["more"] = more_options()

    def _where(self) -> None:
        with gr.Accordion("Where: keep, mask, concept, appearance", open=False) as self.where:
            self.parts["concept"] = gr.Textbox(
                label="Concept",
                info="Word of the prompt whose meaning guides; with `keep the background` of the source prompt.",
            )
            self.parts["keep_background"] = gr.Checkbox(label="Keep the background", info="All but the concept stays.")
            self.parts["mask_at"] = gr.Dropdown(
                [("everywhere", ""), (AT_CONCEPT, "attention")],
                value="",
                label="Where the structure holds",
                info="A mask picture comes first.",
            )
            self.painter = gr.ImageEditor(
                label="Paint on the picture", type="pil", sources=(), transforms=(), layers=False, height=380,
                brush=gr.Brush(colors=[PAINT], color_mode="fixed", default_size=48), eraser=gr.Eraser(default_size=48),
                buttons=[], elem_id="painter",
            )  # fmt: skip
            with gr.Row():
                self.to_keep = gr.Button("Painted: stays as it is", size="sm", min_width=160)
                self.to_mask = gr.Button("Painted: structure holds", size="sm", min_width=160)
            with gr.Row():
                self.parts["keep"] = picture("Keep (white stays)", height=150)
                self.parts["mask"] = picture("Mask (white: structure holds)", height=150)
                self.parts["appearance_image"] = picture("Appearance picture", height=150)

    def _names(self, method: str) -> list[str]:
        return list(methods.get(method).settings.model_fields)

    @property
    def inputs(self) -> set[Any]:
        """Every component that a run reads."""
        return {*self.parts.values(), *self.form.inputs}

    @property
    def outputs(self) -> list[Any]:
        """Every component that `filled` may change."""
        return [*self.parts.values(), *self.form.outputs, self.to_mask]

    def values(self, given: Values) -> asking.Form:
        """The form's values by name; what the method does not use is left out."""
        form = {name: given[part] for name, part in self.parts.items()} | self.form.given(given)
        used = methods.get(form["method"]).inputs
        for name in OPTIONAL:
            if name not in used and not (name == "concept" and form["keep_background"]):
                form[name] = None
        at = form.pop("mask_at")
        form["mask"] = (form["mask"] or at) if "mask" in used else None
        return form

    def filled(self, form: asking.Form) -> Updates:
        """The page with a form's values."""
        updates: Updates = {part: form.get(name) for name, part in self.parts.items()}
        updates[self.parts["mask_at"]] = "attention" if form.get("mask") == "attention" else ""
        updates[self.parts["inside"]] = bool(form.get("inside"))
        for name in ("mask", "keep"):
            if form.get(name) in ("none", "attention"):
                updates[self.parts[name]] = None
        return updates | self._for_method(form["method"], form["preset"], form["settings"])

    def _for_method(self, name: str, preset: str, settings: dict[str, Any]) -> Updates:
        used = methods.get(name).inputs
        updates = self.form.shown(name, preset, settings)
        updates[self.parts["vary"]] = gr.update(choices=self._names(name), value=None)
        updates |= {self.parts[part]: gr.update(visible=part in used) for part in DEPENDENT}
        return updates | {self.to_mask: gr.update(visible="mask" in used)}

    def _react(self) -> None:
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        form, parts = self.form, self.parts
        targets = [
            *form.outputs,
            self.to_mask,
            *(parts[name] for name in ("vary", *DEPENDENT)),
        ]
        form.method.input(lambda name: self._for_method(name, "default", {}), form.method, targets, **quiet)
        form.preset.input(
            lambda name, preset: form.shown(name, preset, {}), [form.method, form.preset], form.outputs, **quiet
        )
        for part in (parts["prompt"], parts["source_prompt"], parts["model"]):
            part.change(self._mark, [parts["prompt"], parts["source_prompt"], parts["model"]], self.unknown, **quiet)
        parts["image"].change(uploads.canvas, parts["image"], self.painter, **quiet)
        for button, name in ((self.to_keep, "keep"), (self.to_mask, "mask")):
            targets = [parts[name], self.panel.status]
            button.click(self._taking(name), [self.painter, parts["image"]], targets, **quiet)

    @staticmethod
    def _mark(prompt: str, source: str, model: str) -> Any:
        found = words.marked(prompt, model) + words.marked(source, model)
        return gr.update(value=found, visible=visible(bool(found)))

    def _taking(self, name: str) -> Callable[[Any, str | None, gr.Request], Updates]:
        """What takes the painting as the mask of that name."""

        def take(value: Any, path: str | None, request: gr.Request) -> Updates:
            try:
                saved = self.sessions.of(request.session_hash).keep_picture(uploads.painted(value, path), name)
            except FreectlError as error:
                return {self.panel.status: said(one_line(error), "error")}
            return {self.parts[name]: str(saved), self.panel.status: said(f"{name}: what is painted is taken")}

        return take

    def _edit(self, given: Values, session: Session, ticket: int) -> Iterator[Updates]:
        form = self.values(given)
        yield from runs(session, ticket, lambda: asking.edits(form), edit_work, self.panel)
