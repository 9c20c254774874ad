"""`freectl.control` with methods that run no diffusion model: one condition through a network of another package."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from freectl import methods
from freectl.errors import InputError
from freectl.files import record as records
from freectl.pipelines.loading import resolve_device
from freectl.tasks import options as config
from freectl.tasks import outside
from freectl.tasks.control_inputs import Checked, check_alone
from freectl.tasks.control_plan import ControlPlan, ControlResult
from freectl.tasks.options import ControlOptions

USED = ("condition", "method", "preset", "preprocess", "seed", "device", "background")
"""Run options that mean something without a diffusion model."""
NAMED = ("condition", "preprocess", "device", "background")
"""Those of them that a record has among its settings."""


def plan(
    conditions: Sequence[Any], checked: list[Checked], options: ControlOptions, overrides: dict[str, Any]
) -> ControlPlan:
    """A plan of a method that runs no diffusion model; what such a model would read gets a warning."""
    method = methods.get(options.method)
    if not method.follows:
        allowed = ", ".join((*methods.REGISTRY, *methods.CONTROL, *methods.following()))
        raise InputError("--method", f"{method.name}, which takes no condition pictures", allowed)
    check_alone(method, checked)
    one = checked[0]
    if one.picture is None:
        raise InputError("--condition", f"the mesh '{one.name}' for {method.name}", "a picture")
    settings = config.method_settings(method, options.preset, overrides)
    method.check(settings, ["appearance_image"] if options.appearance_image is not None else [])
    resolve_device(options.device)
    settings, shown = method.following(settings, conditions[0], one.picture)
    if shown is not one.picture and one.preprocess.kind.name != "none":
        raise InputError("--preprocess", f"{one.preprocess.kind.name} for a label map", "none")
    fields = ControlOptions.model_fields
    unused = [name for name in fields if getattr(options, name) != fields[name].default and name not in USED]
    told = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
    warnings = [*one.warnings, *([f"{method.name} does not use {told}"] if told else [])]
    return ControlPlan(options, method, settings, [replace(one, picture=shown)], None, None, warnings)


def run(checked: ControlPlan, cost: Any, *, progress: bool) -> ControlResult:
    """Run a plan of `plan`; `cost` is counted into."""
    options, one = checked.options, checked.conditions[0]
    device, reason = resolve_device(options.device)
    with cost.stage("load"):
        apply = one.preprocess.prepare(device)
        network = checked.method.load(checked.settings, options.seed, device)
    picture: Image.Image = one.picture  # type: ignore[assignment]
    shown = picture if one.preprocess.kind.name == "none" else apply(picture)
    result = outside.made(checked.method, network, shown, cost, progress=progress)
    cost.record_memory(device)
    record = {
        "command": "control",
        **records.head(options),
        "model": None,
        "steps": None,
        "settings": {**options.model_dump(mode="json", include=set(NAMED)), **checked.settings.model_dump()},
        "conditions": [{"picture": one.name, "size": list(shown.size)}],
        "about": network.about,
        "cost": cost.to_dict(),
        "warnings": checked.warnings,
    }
    notes = [f"device {device} ({reason})", network.label]
    return ControlResult([result], picture, record, [], notes, sources=[picture], conditions=[shown])
