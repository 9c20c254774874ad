"""`freectl.edit`: one function behind the command line, the evaluation and Python callers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Unpack

from PIL import Image

from freectl import methods
from freectl.errors import InputError, python_errors
from freectl.files import pictures
from freectl.files import record as records
from freectl.files.paths import stamp
from freectl.pipelines import loading
from freectl.pipelines import lora as adapters
from freectl.pipelines.loading import Source, load_pipeline, resolve_device, resolve_dtype, resolve_model
from freectl.pipelines.parts import MAKING
from freectl.tasks import hints, memory, outside
from freectl.tasks import options as config
from freectl.tasks.inputs import read_input
from freectl.tasks.keep import checked_keep, restored
from freectl.tasks.options import EditOptions, RunOptions
from freectl.tasks.plan import EditResult, Plan
from freectl.tasks.settings import Settings
from freectl.tasks.share import cost_of_one, own_warnings

LOADED = ("model", "lora", "textual_inversion", "device", "dtype", "offload", "vae_tiling")
"""Options on which the loaded pipeline depends: runs with the same ones can share it."""


def plan(image: Any, options: EditOptions, overrides: dict[str, Any]) -> Plan:
    """Check everything that can be checked before weights are read.

    Raises:
        InputError: one line naming the option, what was found and what is allowed.
    """
    methods.check_asked([options.method], overrides)
    if options.method in methods.OUTSIDE:
        return outside.plan(image, options, overrides)
    if options.method in methods.CONTROL:
        raise InputError("--method", f"{options.method}, which edits no picture", "freectl control, or another method")
    picture = read_input(image, options)
    source = resolve_model(options.model)
    loading.check_adapters(options.lora, options.textual_inversion)
    if options.concept is not None:
        config.check_concept(options.concept, options.prompt, options.source_prompt)
    mask = _checked_mask(options, picture)
    keep = checked_keep(options, picture.image.size)
    appearance = None
    if options.appearance_image is not None:
        appearance = pictures.load_image(
            options.appearance_image, "--appearance-image", options.background, reduced=True
        ).image
    method = methods.get(options.method)
    loading.check_method(source, method, options.long_prompts)
    settings = config.method_settings(method, options.preset, overrides)
    optional = {"concept": options.concept, "mask": mask, "appearance_image": appearance}
    method.check(settings, method.used(optional, options.keep_background))
    warnings = [*picture.warnings, *hints.of_prompt(options.prompt)]
    if source.embedded:
        warnings += hints.of_words(options.prompt, options.source_prompt) + hints.of_picture(picture.image)
    return Plan(options, method, settings, picture, mask, appearance, source, warnings, keep)


def _checked_mask(options: EditOptions, picture: pictures.LoadedImage) -> Image.Image | str | None:
    if options.mask == "none":
        return None
    if options.mask == "attention":
        config.check_attention(options.concept, options.source_prompt)
        return "attention"
    return pictures.load_mask(options.mask, picture.image.size)


@python_errors
def edit(
    image: Any,
    prompt: str = "",
    method: str = "freecontrol",
    model: str = "mini",
    *,
    preset: str = "default",
    source_prompt: str = "",
    negative_prompt: str = "",
    concept: str | None = None,
    steps: int = 50,
    seed: int = 0,
    guidance_scale: float | None = None,
    mask: str = "none",
    keep: str = "none",
    keep_background: bool = False,
    keep_concept: str | None = None,
    keep_alpha: bool = False,
    background: str = "white",
    appearance_image: str | None = None,
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
) -> EditResult:
    """Change a picture as a sentence says and keep its structure.

    Args:
        image: path, "-" for stdin, PIL picture, array (H, W, C) or tensor (C, H, W), uint8 or floats of 0 to 1.
        prompt: what the result shows; "gan" alone needs none.
        method: name of a method (`freectl methods`).
        model: "mini", a folder in Stable Diffusion layout, a .safetensors file or a hub id.
        preset: named settings of the method; `settings` override single ones.
        source_prompt: what the input shows; improves inversion.
        concept: word of the prompt whose seed pictures make the semantic bases.
        steps: 1 to 1000. seed: of the CPU generator. guidance_scale: 0 to 100, None for the family's default.
        mask: "none", "attention" (where the concept is in the input), or the path of a picture of the input's size,
            white where the structure holds.
        keep: "none", or the path of a picture of the input's size, white where the input's pixels stay.
        keep_background: keep the input's pixels where `keep_concept` is not.
        keep_concept: word of `source_prompt` that may change when the background is kept; it is found by the
            cross-attention of its tokens. Default: `concept`.
        keep_alpha: give the result the input's transparency.
        background: colour on which transparent pictures lie.
        appearance_image: path of a picture whose appearance is taken.
        lora: paths of safetensors files, each with a strength after a colon if it is not 1: "style.safetensors:0.8".
        textual_inversion: paths of safetensors files; see `load_textual_inversion` for the words they teach.
        long_prompts: read texts that are longer than the text encoder reads in pieces; else what is not read is said.
        cache: keep and reuse inversions and bases on disk.
        progress: show progress bars on stderr.

    Raises:
        InputError: an input cannot be used; nothing has been loaded then.
        FreectlError: the model cannot be loaded.
    """
    given = locals()
    options = config.validated(EditOptions, {name: given[name] for name in EditOptions.model_fields})
    return run(plan(image, options, dict(settings)), cache=cache, progress=progress)


@lru_cache(maxsize=1)
def _pipeline(source: Source, device: str, dtype: Any, more: tuple[Any, ...], stamps: Any) -> Any:
    """`stamps`: of the files that are read; new content under an old name makes another pipeline."""
    lora, words, offload, tiled = more
    pipe = load_pipeline(source, device=device, dtype=dtype, lora=lora, textual_inversion=words, offload=offload)
    loading.set_vae_tiling(pipe, tiled)
    return pipe


def machine(options: RunOptions, source: Source | None = None) -> tuple[str, Any, list[str]]:
    """Device and dtype of a run, and the reasons for them in words; `source`: see `resolve_dtype`.

    Raises:
        InputError: the device, dtype or offload cannot be had here.
    """
    device, device_reason = resolve_device(options.device)
    dtype, dtype_reason = resolve_dtype(options.dtype, device, source)
    loading.check_offload(options.offload, device)
    return device, dtype, [f"device {device} ({device_reason})", f"dtype {str(dtype).split('.')[-1]} ({dtype_reason})"]


def opened(options: RunOptions, source: Source) -> tuple[Any, list[str]]:
    """The pipeline of a run, kept for the next one, and the notes of `machine`.

    Raises:
        InputError: as `machine`.
        FreectlError: the model cannot be loaded.
    """
    device, dtype, notes = machine(options, source)
    words = options.textual_inversion
    files: list[Any] = [*(adapters.parse(one).path for one in options.lora), *words]
    stamps = tuple(stamp(path) for path in ["" if source.kind == "hub" else source.path, *files])
    with MAKING:  # two threads with one model load it once
        pipe = _pipeline(source, device, dtype, (options.lora, words, options.offload, options.vae_tiling), stamps)
    return pipe, notes


def shared_by(options: RunOptions) -> tuple[Any, ...]:
    """Equal for runs that one pipeline serves."""
    return tuple(getattr(options, name) for name in LOADED)


def run(checked: Plan, *, cache: Any = True, progress: bool = False, on_step: Any = None) -> EditResult:
    """Run a checked plan.

    Args:
        cache: True for the user's, False for none, or a cache.
        on_step: `callback_on_step_end` of the pipeline.

    Raises:
        FreectlError: the model cannot be loaded, or memory does not suffice.
    """
    if checked.source is None:
        return outside.run(checked, progress=progress)
    return run_together([checked], cache=cache, progress=progress, on_step=on_step)[0]


def run_together(
    plans: Sequence[Plan], *, cache: Any = True, progress: bool = False, on_step: Any = None
) -> list[EditResult]:
    """Run checked plans as one batch of the network; each result has its share of the cost.

    Args:
        plans: of one model, method, settings and working size; they differ in picture, texts and seed.
        cache, on_step: as `run`.

    Raises:
        FreectlError: as `run`.
    """
    import torch

    from freectl.denoising.cost import Cost
    from freectl.files.cache import Cache

    first, cost = plans[0], Cost()
    with cost.stage("load"):
        pipe, notes = opened(first.options, first.source)  # type: ignore[arg-type]  # plans without one run elsewhere
    pipe.set_progress_bar_config(disable=not progress, leave=False)
    each = [_fitted(plan, pipe) for plan in plans]
    generators = [torch.Generator().manual_seed(plan.options.seed) for plan in plans]
    before = [generator.get_state() for generator in generators]
    store = Cache() if cache is True else cache or None
    try:
        output = _called(pipe, plans, each, generators, store=store, cost=cost, on_step=on_step)
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        raise memory.refused(error, str(pipe.device), each[0].image.size, len(plans)) from error
    results = []
    for index, (plan, fitted) in enumerate(zip(plans, each, strict=True)):
        images = [restored(plan, fitted, output, i) for i in range(index, len(output.images), len(plans))]
        seeded = not torch.equal(before[index], generators[index].get_state())
        texts = (plan.options.prompt, plan.options.negative_prompt, plan.options.source_prompt)
        own = own_warnings(output.warnings, texts, len(plans))
        warnings = [*plan.warnings, *own, *(store.warnings if store else [])]
        if not seeded and plan.options.seed != EditOptions.model_fields["seed"].default:
            warnings.append(hints.unseeded(plan.method))
        record = _record(plan, output, cost_of_one(output.cost, len(plans)), warnings)
        kept = output.kept and output.kept[index : index + 1]
        results.append(EditResult(images, plan.picture.image, record, output.trace, notes, seeded, kept))
    return results


def _fitted(plan: Plan, pipe: Any) -> pictures.Fitted:
    from freectl.models.sizes import working_size

    return pictures.fit(plan.picture.image, working_size(plan.picture.original_size, pipe), plan.picture.original_size)


def _called(
    pipe: Any,
    plans: Sequence[Plan],
    each: Sequence[pictures.Fitted],
    generators: Any,
    *,
    store: Any,
    cost: Any,
    on_step: Any,
) -> Any:
    first, fitted = plans[0], each[0]
    options = first.options
    return pipe.commanded(
        [plan.options.prompt for plan in plans],
        [one.image for one in each],
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        negative_prompt=[plan.options.negative_prompt for plan in plans],
        generator=generators,
        source_prompt=[plan.options.source_prompt for plan in plans],
        concept=options.concept,
        keep_concept=options.keep_concept,
        mask=fitted.fit_mask(first.mask) if isinstance(first.mask, Image.Image) else first.mask,
        appearance_image=None if first.appearance is None else pictures.fit(first.appearance, fitted.image.size).image,
        keep=fitted.fit_mask(first.keep, padding=255) if isinstance(first.keep, Image.Image) else first.keep,
        method=first.method,
        settings=first.settings,
        long_prompts=options.long_prompts,
        cache=store,
        cost=cost,
        callback_on_step_end=on_step,
    )


def _record(checked: Plan, output: Any, cost: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    options = records.other_options(checked.options)
    return {
        **records.head(checked.options),
        "settings": {"image": str(checked.picture.source), **options, **output.settings.model_dump()},
        "cost": cost,
        "warnings": warnings,
    }


def split_record(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record or config file as (run options with the path of the image, method settings).

    Raises:
        InputError: the record is of another command.
    """
    return records.split(record, "edit", ["image", *EditOptions.model_fields])
