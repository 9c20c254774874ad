"""`freectl.control`: pictures made from words alone, under the structure of condition pictures."""

import os
from collections.abc import Sequence
from typing import Any, Unpack

from PIL import Image

from freectl import methods
from freectl.errors import python_errors
from freectl.files import pictures as image_io
from freectl.files import record as records
from freectl.files.pictures import Fitted, Size
from freectl.pipelines.loading import check_adapters, check_method, resolve_model
from freectl.pipelines.trained import check_trained
from freectl.tasks import control_outside, hints
from freectl.tasks import edit as editing
from freectl.tasks import options as config
from freectl.tasks.control_inputs import Checked, check_alone, checked_conditions, drawings, given_size
from freectl.tasks.control_plan import ControlPlan, ControlResult
from freectl.tasks.options import ControlOptions
from freectl.tasks.settings import Settings


def plan(conditions: Sequence[Any], options: ControlOptions, overrides: dict[str, Any]) -> ControlPlan:
    """Check everything that can be checked before weights are read.

    Raises:
        InputError: one line naming the option, what was found and what is allowed.
    """
    checked = checked_conditions(conditions, options)
    if options.method in methods.OUTSIDE:
        return control_outside.plan(conditions, checked, options, overrides)
    source = resolve_model(options.model)
    check_adapters(options.lora, options.textual_inversion)
    appearance = None
    if options.appearance_image is not None:
        appearance = image_io.load_image(
            options.appearance_image, "--appearance-image", options.background, reduced=True
        ).image
    method = methods.get(options.method)
    follows = "conditions" in method.inputs
    check_method(source, method, options.long_prompts)
    settings = config.method_settings(method, options.preset, from_noise(method) | overrides)
    method.check(settings, ["conditions"] * follows + ["appearance_image"] * (appearance is not None))
    if options.method in methods.CONTROL:
        check_trained(method, settings, source)
    if not follows:
        check_alone(method, checked)
    warnings = [text for one in checked for text in one.warnings] + hints.of_prompt(options.prompt)
    if source.embedded:
        sources = (part.source_prompt or "" for one in checked for part in one.parts)
        warnings += hints.of_words(options.prompt, *sources)
    return ControlPlan(options, method, settings, checked, appearance, source, list(dict.fromkeys(warnings)))


def from_noise(method: Any) -> dict[str, str]:
    """The setting that lets a method of conditions start from noise: no input's inverted noise could be kept."""
    return {"start": "noise"} if "conditions" in method.inputs and "start" in method.settings.model_fields else {}


def steered(method: Any, conditions: Sequence[Any]) -> dict[str, Any]:
    """Arguments of a pipeline call that give a method its conditions: as such, or the one as the picture it edits."""
    if "conditions" in method.inputs:
        return {"conditions": list(conditions)}
    one = conditions[0]
    given = {"concept": one.concept, "mask": one.mask}
    used = {name: value for name, value in given.items() if name in method.inputs}
    return {"image": one.image, "source_prompt": one.source_prompt, **used}


@python_errors
def control(
    conditions: Any,
    prompt: str = "",
    method: str = "freecontrol",
    model: str = "mini",
    *,
    concept: str | Sequence[str] = (),
    source_prompt: str | Sequence[str] = (),
    mask: str | Sequence[str] = (),
    preprocess: str | Sequence[str] = (),
    view: str | Sequence[str] = (),
    width: int | None = None,
    height: int | None = None,
    preset: str = "default",
    negative_prompt: str = "",
    steps: int = 50,
    seed: int = 0,
    guidance_scale: float | None = None,
    appearance_image: str | None = None,
    background: str = "white",
    lora: str | Sequence[str] = (),
    textual_inversion: str | Sequence[str] = (),
    long_prompts: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    offload: str = "none",
    vae_tiling: bool = False,
    cache: bool = True,
    progress: bool = False,
    **settings: Unpack[Settings],
) -> ControlResult:
    """Make a picture of what a sentence says, with the structure of one or several condition pictures.

    Of the arguments that may be lists, one value holds for all conditions; several pair up with them by position.

    Args:
        conditions: path, "-" for stdin, PIL picture, array, tensor, mesh (.obj, .glb, .ply), or a list of these.
        prompt: what the result shows; "gan" alone needs none.
        concept: word(s) of the prompt that the condition shows; several with a single condition hold at once.
        source_prompt: what the condition shows; default: the seed template filled with the concept.
        mask: "attention" (where the concept is), "none", or the path of a picture of the condition's size, white
            where the structure holds; default: attention where the source prompt names the concept, else none.
        preprocess: how the condition picture is made of what is given: none, canny, sketch, depth, normal,
            segmentation, pose; values after "=", as in "canny=50,150" or "depth=FOLDER".
        view: of a mesh: "azimuth,elevation" in degrees.
        width, height: of the result in pixels, multiples of 8; default: the first condition's, fitted to the model.
        method: follows conditions as such, or edits a single one as a picture (sdedit, pnp, ...).
        model, preset, steps, ...: as for `freectl.edit`.

    Raises:
        InputError: an input cannot be used; nothing has been loaded then.
        FreectlError: the model, or a preprocessor's, cannot be loaded.
    """
    several = list(conditions) if isinstance(conditions, list | tuple) else [conditions]
    names = tuple(str(one) if isinstance(one, str | os.PathLike) else image_io.name_of(one) for one in several)
    given = {**locals(), "condition": names}
    options = config.validated(ControlOptions, {name: given[name] for name in ControlOptions.model_fields})
    return run(plan(several, options, dict(settings)), cache=cache, progress=progress)


def run(checked: ControlPlan, *, cache: Any = True, progress: bool = False, on_step: Any = None) -> ControlResult:
    """Run a checked plan; `on_step` is `callback_on_step_end` of the pipeline."""
    import torch

    from freectl.denoising.cost import Cost
    from freectl.files.cache import Cache

    options, cost = checked.options, Cost()
    if checked.source is None:
        return control_outside.run(checked, cost, progress=progress)
    with cost.stage("load"):
        # preprocessors first: weights of theirs that are missing are found before a large model has been read
        draw = drawings(checked.conditions, editing.machine(options)[0])
        pipe, notes = editing.opened(options, checked.source)
    pipe.set_progress_bar_config(disable=not progress, leave=False)
    size = given_size(options.width, options.height, _default_size(checked.conditions[0], pipe))
    pictures = [one(size) for one in draw]
    conditions = _conditions(checked, pictures, pipe)
    store = Cache() if cache is True else cache or None
    generator = torch.Generator().manual_seed(options.seed)
    before = generator.get_state()
    output = pipe.commanded(
        options.prompt,
        width=size[0],
        height=size[1],
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        negative_prompt=options.negative_prompt,
        generator=generator,
        appearance_image=None if checked.appearance is None else image_io.fit(checked.appearance, size).image,
        **steered(checked.method, conditions),
        method=checked.method,
        settings=checked.settings,
        long_prompts=options.long_prompts,
        cache=store,
        cost=cost,
        callback_on_step_end=on_step,
    )
    seeded = not torch.equal(before, generator.get_state())
    warnings = [*checked.warnings, *output.warnings, *(store.warnings if store else [])]
    if not seeded and options.seed != ControlOptions.model_fields["seed"].default:
        warnings.append(hints.unseeded(checked.method))
    record = _record(checked, output, conditions, warnings)
    sources = [one.picture for one in checked.conditions]
    made = [one.image for one in pictures]
    source = sources[0] or made[0]
    return ControlResult(output.images, source, record, output.trace, notes, seeded, sources=sources, conditions=made)


def _default_size(first: Checked, pipe: Any) -> Size:
    from freectl.models.sizes import working_size

    return working_size((1, 1) if first.picture is None else first.picture.size, pipe)


def _conditions(checked: ControlPlan, pictures: Sequence[Fitted], pipe: Any) -> list[Any]:
    """The conditions as the method takes them, one a concept; a source prompt of the family's own where none is given.

    Concepts of one picture share a prompt, so that it is inverted once and their attention is told apart.
    """
    from freectl.methods.base import Condition
    from freectl.models import families
    from freectl.semantics import store as bases_store

    family, found = families.of_pipe(pipe).words, []
    for one, fitted in zip(checked.conditions, pictures, strict=True):
        concepts = " and a ".join(dict.fromkeys(part.concept for part in one.parts if part.concept))
        seeds = bases_store.seed_prompts(family, concepts, "") if concepts else None
        for part in one.parts:
            source = part.source_prompt if part.source_prompt is not None else seeds.texts[0] if seeds else ""
            mask = fitted.fit_mask(part.mask) if isinstance(part.mask, Image.Image) else part.mask
            found.append(Condition(fitted.image, source, part.concept, mask))
    return found


def _record(checked: ControlPlan, output: Any, conditions: Sequence[Any], warnings: list[str]) -> dict[str, Any]:
    names = [one.name for one in checked.conditions for _ in one.parts]
    return {
        "command": "control",
        **records.head(checked.options),
        "settings": {**records.other_options(checked.options), **output.settings.model_dump()},
        "conditions": [
            {
                "picture": name,
                "size": list(one.image.size),
                "source_prompt": one.source_prompt,
                "concept": one.concept,
                "mask": "picture" if isinstance(one.mask, Image.Image) else one.mask or "none",
            }
            for name, one in zip(names, conditions, strict=True)
        ],
        "cost": output.cost,
        "warnings": warnings,
    }


def split_record(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record or config file as (run options, method settings).

    Raises:
        InputError: the record is of another command.
    """
    results = ["conditions"] if "command" in record else []
    return records.split(record, "control", ControlOptions.model_fields, results)
