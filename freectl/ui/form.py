"""The part of a form that belongs to the method: its name, preset and settings, built from the settings classes."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from freectl import methods
from freectl.ui.fields import Field, changed, fields

Values = dict[Any, Any]
Updates = dict[Any, Any]
_SLIDER = 100
"""Ranges up to this long get a slider."""


def picture(label: str, **options: Any) -> gr.Image:
    """An upload that is handed on as the file it is: decoding is left to the one reader of pictures."""
    made = gr.Image(
        label=label, **{"sources": ["upload", "clipboard"], "type": "filepath", "elem_classes": "upload", **options}
    )
    # gradio has checked that the path is an upload; its own class would decode and write the picture anew
    made.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return made


def more_options() -> gr.Textbox:
    """Options that have no field of their own."""
    words = "As on the command line, one a line: lora=style.safetensors:0.8, dtype=bf16, device=cuda:1"
    return gr.Textbox(label="More options", info=words, lines=2, max_lines=6)


def see_inside() -> gr.Checkbox:
    """Whether a run is looked at."""
    words = "Shows what the run compared, read and expected: masks, components, energies, estimates, cost."
    return gr.Checkbox(label="See inside", info=words)


class MethodForm:
    """Method, preset, and the settings of the one that is chosen.

    Args:
        names: of the methods to choose from. place: beginning of the elements' names in the page.
    """

    def __init__(self, names: Sequence[str], place: str) -> None:
        self.methods = {name: methods.get(name) for name in names}
        self.fields = {name: fields(method.settings) for name, method in self.methods.items()}
        first = "freecontrol" if "freecontrol" in self.methods else names[0]
        with gr.Row():
            self.method = gr.Dropdown(
                list(names), value=first, label="Method", min_width=150, elem_id=f"{place}-method"
            )
            self.preset = gr.Dropdown(list(self.methods[first].presets), value="default", label="Preset", min_width=150)
        self.about = gr.Markdown(self._about(first), elem_classes="about")
        self.groups: dict[str, Any] = {}
        self.settings: dict[str, dict[str, Any]] = {}

    def build(self) -> None:
        """The settings, where the page has room for them."""
        with gr.Accordion("Settings of the method", open=False):
            for name in self.methods:
                with gr.Column(visible=name == self.method.value) as self.groups[name], gr.Row():
                    self.settings[name] = {field.name: component(field) for field in self.fields[name]}

    def _about(self, name: str) -> str:
        method = self.methods[name]
        return f"{method.summary}. *{method.paper}*"

    @property
    def inputs(self) -> set[Any]:
        """Every component that a run reads."""
        return {self.method, self.preset, *(one for group in self.settings.values() for one in group.values())}

    @property
    def outputs(self) -> list[Any]:
        """Every component that `shown` may change."""
        return [*self.inputs, self.about, *self.groups.values()]

    def given(self, values: Values) -> dict[str, Any]:
        """Method, preset, and the settings that differ from the preset's."""
        name, preset = values[self.method], values[self.preset]
        raw = {field.name: field.given(values[self.settings[name][field.name]]) for field in self.fields[name]}
        return {"method": name, "preset": preset, "settings": changed(self.methods[name], preset, raw)}

    def shown(self, name: str, preset: str, settings: dict[str, Any]) -> Updates:
        """The form with another method, preset or settings.

        Args:
            settings: on top of the preset's.
        """
        method = self.methods[name]
        preset = preset if preset in method.presets else "default"
        values = method.settings(**(method.presets[preset] | settings)).model_dump()
        updates: Updates = {
            self.method: name,
            self.preset: gr.update(choices=list(method.presets), value=preset),
            self.about: self._about(name),
        }
        updates |= {group: gr.update(visible=one == name) for one, group in self.groups.items()}
        updates |= {
            part: gr.update(value=_shown(field, values[field.name]))
            for field, part in zip(self.fields[name], self.settings[name].values(), strict=True)
        }
        return updates


def _shown(field: Field, value: Any) -> Any:
    return "none" if field.kind == "choice" and value is None else value


def component(field: Field) -> Any:
    """The component of a field: label, range, choices and help from the settings class."""
    common: dict[str, Any] = {
        "label": field.name,
        "info": field.help,
        "min_width": 220,
        "value": _shown(field, field.default),
    }
    if field.kind == "choice":
        return gr.Dropdown([*field.choices, *(["none"] if field.optional else [])], **common)
    if field.kind == "switch":
        return gr.Checkbox(**common)
    if field.kind == "text" or field.optional:
        # a number field of gradio turns "nothing" into 0
        return gr.Textbox(**common, placeholder="none" if field.optional else None)
    low, high = field.low, field.high
    whole = field.kind == "whole"
    if low is not None and high is not None and high - low <= _SLIDER:
        return gr.Slider(low, high, step=1 if whole else 0.01 if high <= 1 else 0.1, **common)
    return gr.Number(precision=0 if whole else None, step=1, **common)
