"""`freectl bases`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli import panels
from freectl.cli.app import App, examples
from freectl.cli.bases_text import explained, facts
from freectl.cli.options import MODEL_NAMES, Overwrite
from freectl.cli.output import Format, FormatOption, emit, quiet_libraries, size_text, table, warn

ABOUT = """\b
An edit with --concept builds the bases it needs by itself, once for a model and
concept; what is built here by the same settings is found by it.
"""

SUFFIX, KIND = ".safetensors", "a .safetensors file"
app = App(
    help="Semantic bases: the directions in which FreeControl compares structure.",
    epilog=ABOUT,
    no_args_is_help=True,
)
Name = Annotated[
    str,
    typer.Argument(help="Key (or its beginning) or concept, as `freectl bases list` shows; a .safetensors file; mini."),
]
Model = Annotated[str, panels.model(help="As for `freectl edit`.", metavar=MODEL_NAMES)]
Device = Annotated[str, panels.machine(help="auto, cpu, cuda, mps.")]
Dtype = Annotated[str, panels.machine(help="auto, fp32, fp16, bf16.")]


class Features(StrEnum):
    """When the seed pictures' features are taken."""

    sampling = "sampling"
    inversion = "inversion"


class Layers(StrEnum):
    """Which self-attentions of the block have bases."""

    all = "all"
    first = "first"


BUILD = examples(
    "freectl bases build --concept cat",
    "freectl bases build --concept horse --features inversion --seeds 30 --output horse.safetensors",
)


@app.command(loads=True, epilog=BUILD)
def build(
    concept: Annotated[
        str | None,
        panels.what(help="What the seed pictures show.  [default: the family's general prompts]", metavar="WORD"),
    ] = None,
    prompt: Annotated[
        str | None, panels.what(help="Seed prompt in full, instead of the family's template.", metavar="TEXT")
    ] = None,
    model: Model = "mini",
    seeds: Annotated[int, panels.strong(help="Seed pictures.", min=1, max=1000)] = 20,
    components: Annotated[int, panels.strong(help="Directions kept a timestep and layer.", min=1, max=1024)] = 64,
    features: Annotated[
        Features, panels.what(help="Taken while sampling (published code) or by inverting the pictures (paper).")
    ] = Features.sampling,
    stop: Annotated[
        float, panels.strong(help="Fraction of the schedule that is covered, from the noisy end.", min=0.02, max=1)
    ] = 0.6,
    steps: Annotated[int, panels.strong(help="DDIM steps of the seed pictures.", min=1, max=1000)] = 50,
    layers: Annotated[
        Layers | None,
        panels.what(help="Keys of all self-attentions of the block, or the first.  [default: what edits compare]"),
    ] = None,
    output: Annotated[Path | None, panels.result(help="Also write them to this .safetensors file, in 16 bits.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    form: FormatOption = Format.human,
) -> None:
    """Make bases now, not at the first edit."""
    from freectl.files.outputs import Outputs
    from freectl.tasks import bases as making

    making.check(concept, prompt)
    outputs = Outputs(_paths(model=model), overwrite=overwrite)
    if output is not None:
        outputs.check_file(output, SUFFIX, KIND)
    engine = _engine(model, device, dtype, form)
    numbers = {"seeds": seeds, "components": components, "features": features.value, "stop": stop, "steps": steps}
    bases = making.build(engine, concept, prompt, numbers, layers.value if layers else None)
    if output is not None:
        import torch

        output = outputs.write(output, lambda path: bases.save(path, torch.float16))
    warnings = _unknown(model, f"{concept or ''} {prompt or ''}") + outputs.take_notes()
    cost = engine.cost.to_dict()
    known = facts(bases) | {"output": str(output) if output else None, "cost": cost, "warnings": warnings}
    found = ", already in the cache" if engine.cost.cached["bases"] else ""
    text = f"{known['key'][:12]}  {known['concept']}  {len(bases)} bases, {cost['row_forwards']:g} row forwards{found}"
    emit(known, "\n".join([text, *(f"warning: {one}" for one in warnings)]), form)


def _engine(model: str, device: str, dtype: str, form: Format) -> Any:
    from freectl.denoising.cost import Cost
    from freectl.files.cache import Cache
    from freectl.models.engine import Engine
    from freectl.pipelines.loading import load_pipeline, resolve_device, resolve_dtype, resolve_model

    source = resolve_model(model)
    device, _ = resolve_device(device)
    quiet_libraries()
    cost = Cost()
    with cost.stage("load"):
        pipe = load_pipeline(source, device=device, dtype=resolve_dtype(dtype, device, source)[0])
    pipe.set_progress_bar_config(disable=form is Format.quiet, leave=False)
    return Engine(pipe, cache=Cache(), cost=cost)


def _paths(**inputs: str) -> list[tuple[str, str]]:
    """Inputs of a command as `Outputs` takes them."""
    return [(name if name.isupper() else f"--{name}", value) for name, value in inputs.items()]


def _unknown(model: str, text: str) -> list[str]:
    from freectl.tasks import hints

    return hints.of_words(text) if model == "mini" else []


@app.command(
    "list",
    epilog=examples(
        "freectl bases list",
        "freectl bases list --format json",
    ),
)
def list_bases(form: FormatOption = Format.human) -> None:
    """The bases in the cache.

    Those of the embedded model lie beside it and are named `mini`.
    """
    from freectl.semantics.lookup import cached_entries

    entries = cached_entries()
    value = [{"key": e.key, "bytes": e.bytes, **e.metadata} for e in entries]
    names = ("concept", "family", "seeds", "features")
    rows = [[e.key[:12], *(str(e.metadata.get(name)) for name in names), size_text(e.bytes)] for e in entries]
    empty = "no bases in the cache yet; `freectl bases show mini` shows those of the embedded model"
    emit(value, table(["key", *names, "size"], rows) if rows else empty, form)


@app.command(
    epilog=examples(
        "freectl bases show cat --plot cat_variance.png --picture cat_components.png",
        "freectl bases show mini --picture components.png",
    )
)
def show(
    name: Name,
    plot: Annotated[Path | None, panels.result(help="Draw the explained variance to this picture file.")] = None,
    picture: Annotated[
        Path | None,
        panels.result(help="Draw seed pictures and their first three components, as colours, to this picture file."),
    ] = None,
    pictures: Annotated[int, panels.result(help="Seed pictures in --picture.", min=1, max=16)] = 3,
    layer: Annotated[int, panels.what(help="Layer that is drawn, from 1 on.", min=1)] = 1,
    model: Model = "mini",
    device: Device = "auto",
    dtype: Dtype = "auto",
    overwrite: Overwrite = False,
    form: FormatOption = Format.human,
) -> None:
    """Ingredients and explained variance, also as pictures."""
    from freectl.errors import InputError
    from freectl.files.outputs import Outputs
    from freectl.semantics import lookup

    outputs = Outputs(_paths(NAME=name, model=model), overwrite=overwrite)
    wanted = [(option, path) for option, path in (("--plot", plot), ("--picture", picture)) if path is not None]
    for option, path in wanted:
        outputs.check(path, option)
    if plot is not None and plot == picture:
        raise InputError("--plot", f"'{plot}', the file of --picture", "another file")
    lookup.check_name(name, "NAME")
    bases = lookup.load(name, "NAME")
    from freectl.semantics import pictures as bases_pictures

    sites = bases_pictures.layers(bases)
    if layer > len(sites):
        raise InputError("--layer", str(layer), f"1 to {len(sites)}, the layers that these bases have")
    drawn: dict[str, Any] = {}
    if picture is not None:
        engine = _engine(model, device, dtype, form)
        lookup.check_usable(bases, engine, [sites[layer - 1]], (), 1, "--model")
        drawn["--picture"] = bases_pictures.component_sheet(engine, bases, sites[layer - 1], pictures)
    if plot is not None:
        drawn["--plot"] = bases_pictures.variance_plot(bases, sites[layer - 1])
    files = {option: str(outputs.save(drawn[option], path, option=option)) for option, path in wanted}
    known, shares, text = explained(bases, sites, sites[layer - 1])
    warn(outputs.take_notes(), form)
    places = {name: files.get(f"--{name}") for name in ("plot", "picture")}
    emit(known | {"cumulative_share": shares, **places}, "\n".join([text, *files.values()]), form)


@app.command(
    "export",
    epilog=examples(
        "freectl bases export cat cat.safetensors",
        "freectl bases export mini mini.safetensors --overwrite",
    ),
)
def export_bases(
    name: Name,
    output: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    overwrite: Overwrite = False,
    form: FormatOption = Format.human,
) -> None:
    """Write bases to a file, to share or to keep."""
    from freectl.files.outputs import Outputs
    from freectl.semantics import lookup

    outputs = Outputs(_paths(NAME=name), overwrite=overwrite)
    outputs.check_file(output, SUFFIX, KIND, "OUTPUT")
    bases = lookup.load(name, "NAME")
    written = outputs.write(output, bases.save, "OUTPUT")
    warn(outputs.take_notes(), form)
    emit({"output": str(written), **facts(bases)}, str(written), form)


@app.command(
    "import",
    epilog=examples(
        "freectl bases import cat.safetensors",
        "freectl bases import horse.safetensors --model stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
)
def import_bases(
    path: Annotated[Path, typer.Argument(help="A file that `freectl bases export` or `build --output` wrote.")],
    model: Model = "mini",
    replace: Annotated[bool, panels.result("--replace", help="Put them in place of others of the same key.")] = False,
    device: Device = "auto",
    form: FormatOption = Format.human,
) -> None:
    """Put exported bases into the cache.

    They are checked against the model that they belong to. Runs with the same model and settings find them there.
    """
    from freectl.errors import FreectlError, InputError
    from freectl.files import tensor_files
    from freectl.files.cache import Cache
    from freectl.semantics import lookup
    from freectl.semantics.bases import SemanticBases
    from freectl.semantics.store import key_of

    bases = SemanticBases.load(path, option="PATH")
    if "unet" not in bases.metadata or not bases:
        found = f"'{path}', which does not say which model its bases belong to, or holds none"
        raise InputError("PATH", found, tensor_files.BASES)
    lookup.check_whole(bases, _engine(model, device, "auto", form), "PATH")
    key, store = key_of(bases.metadata), Cache()
    before = store.get("bases", key)
    if before is not None and not replace and not lookup.alike(bases, SemanticBases.from_tensors(*before)):
        raise InputError(
            "PATH", f"bases of the key {key[:12]}, of which the cache holds others", "the same, or --replace"
        )
    if not store.put("bases", key, bases.tensors(), {**bases.metadata, "key": key}):
        raise FreectlError("; ".join(store.warnings) or "the cache folder cannot be written")
    emit({"key": key, **facts(bases)}, f"{key[:12]}  {bases.metadata.get('concept')}", form)


@app.command(
    epilog=examples(
        "freectl bases remove cat",
        "freectl bases remove cat --format json",
    )
)
def remove(name: Name, form: FormatOption = Format.human) -> None:
    """Delete bases from the cache."""
    from freectl.files.cache import Cache
    from freectl.semantics.lookup import cached_entries, find

    entry = find(cached_entries(), name, "NAME")
    Cache().remove("bases", entry.key)
    emit({"removed": entry.key, "bytes": entry.bytes}, f"{entry.key[:12]} removed, {size_text(entry.bytes)}", form)
