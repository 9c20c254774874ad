"""`freectl bases`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli.output import Format, FormatOption, emit, size_text, table

app = typer.Typer(help="Semantic bases: the directions in which FreeControl compares structure.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Key (or its beginning) or concept, as `freectl bases list` shows.")]


def _entries() -> list[Any]:
    from freectl.cache import Cache

    return [entry for entry in Cache().entries() if entry.kind == "bases"]


def _load(name: str) -> Any:
    from freectl.bases import SemanticBases
    from freectl.bases_store import find
    from freectl.cache import Cache
    from freectl.errors import FreectlError

    entry = find(_entries(), name)
    found = Cache().get("bases", entry.key)
    if found is None:
        raise FreectlError(f"bases {entry.key[:12]} are damaged: remove them and build them again")
    return SemanticBases.from_tensors(*found)


@app.command()
def build(
    concept: Annotated[
        str | None, typer.Option(help="What the seed pictures show; default: the family's general prompts.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Seed prompt in full, instead of the family's template.")] = None,
    model: Annotated[str, typer.Option(help="As for `freectl edit`.")] = "mini",
    seeds: Annotated[int, typer.Option(help="Seed pictures.", min=1, max=1000)] = 20,
    components: Annotated[int, typer.Option(help="Directions kept a timestep and layer.", min=1, max=1024)] = 64,
    features: Annotated[str, typer.Option(help="sampling (published code) or inversion (paper).")] = "sampling",
    stop: Annotated[float, typer.Option(help="Fraction of the schedule covered.", min=0.02, max=1)] = 0.6,
    layers: Annotated[str, typer.Option(help="all self-attentions of the family's block, or the first.")] = "all",
    output: Annotated[Path | None, typer.Option(help="Also write them to this .safetensors file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, fp32, fp16, bf16.")] = "auto",
    form: FormatOption = Format.human,
) -> None:
    """Make bases now instead of at the first edit."""
    from freectl.errors import InputError, unknown

    if features not in ("sampling", "inversion"):
        raise unknown("--features", features, ("sampling", "inversion"))
    if layers not in ("all", "first"):
        raise unknown("--layers", layers, ("all", "first"))
    if prompt is not None and not prompt.strip():
        raise InputError("--prompt", "an empty text", "what the seed pictures show")
    if output is not None and not output.parent.is_dir():
        raise InputError("--output", f"no folder '{output.parent}'", "an existing folder")
    bases, cost = _build(concept, prompt, model, seeds, components, features, stop, layers, device, dtype)
    if output is not None:
        import torch

        bases.save(output, torch.float16)
    facts = _facts(bases) | {"output": str(output) if output else None, "cost": cost.to_dict()}
    emit(
        facts, f"{facts['key'][:12]}  {facts['concept']}  {len(bases)} bases, {cost.row_forwards:g} row forwards", form
    )


def _build(
    concept: str | None, prompt: str | None, model: str, seeds: int, components: int, features: str, stop: float,
    layers: str, device: str, dtype: str,
) -> tuple[Any, Any]:  # fmt: skip
    from freectl import bases_store
    from freectl.cache import Cache
    from freectl.cost import Cost
    from freectl.engine import Engine
    from freectl.loading import load_pipeline, resolve_device, resolve_dtype, resolve_model

    source = resolve_model(model)
    device, _ = resolve_device(device)
    cost = Cost()
    with cost.stage("load"):
        pipe = load_pipeline(source, device=device, dtype=resolve_dtype(dtype, device)[0])
    engine = Engine(pipe, cache=Cache(), cost=cost)
    prompts = bases_store.seed_prompts(engine.family.name, concept, prompt or "a picture")
    if prompt is not None:
        prompts = bases_store.SeedPrompts((prompt,), prompts.negative, concept or prompt)
    sites = tuple(engine.family.sites(engine.unet, layers))
    spec = bases_store.BasesSpec(prompts, seeds, components, features, stop, sites)
    with cost.counting(engine.unet), cost.stage("analysis"):
        return bases_store.obtain(engine, spec), cost


def _facts(bases: Any) -> dict[str, Any]:
    keep = (
        "concept",
        "prompts",
        "seeds",
        "components",
        "features",
        "stop",
        "family",
        "size",
        "dtype",
        "sites",
        "unet",
    )
    timesteps = sorted({timestep for timestep, _ in bases})
    facts = {name: bases.metadata.get(name) for name in keep}
    return {"key": bases.metadata.get("key", ""), **facts, "timesteps": [timesteps[0], timesteps[-1], len(timesteps)]}


@app.command("list")
def list_bases(form: FormatOption = Format.human) -> None:
    """The bases in the cache."""
    entries = _entries()
    value = [{"key": e.key, "bytes": e.bytes, **e.metadata} for e in entries]
    rows = [
        [
            e.key[:12],
            str(e.metadata.get("concept")),
            str(e.metadata.get("family")),
            str(e.metadata.get("seeds")),
            size_text(e.bytes),
        ]
        for e in entries
    ]
    emit(value, table(["key", "concept", "family", "seeds", "size"], rows) if rows else "no bases yet", form)


@app.command()
def show(name: Name, form: FormatOption = Format.human) -> None:
    """Ingredients, and the share of the variance that the components explain."""
    bases = _load(name)
    facts = _facts(bases)
    sites = list(dict.fromkeys(site for _, site in bases))
    timesteps = sorted({timestep for timestep, _ in bases}, reverse=True)
    shares = {}
    for site in sites:
        for timestep in timesteps[:: max(1, len(timesteps) // 6)]:
            variance = bases[timestep, site].explained_variance
            total = variance.sum()
            shares[f"{timestep}/{site}"] = [round(float(variance[:n].sum() / total), 4) for n in (1, 2, 3, 8, 16)]
    rows = [[key, *(f"{100 * share:.1f}%" for share in values)] for key, values in shares.items()]
    lines = [f"{key}: {value}" for key, value in facts.items()]
    head = ["timestep/layer", "1", "2", "3", "8", "16 of the kept components"]
    emit(facts | {"cumulative_share": shares}, "\n".join(lines) + "\n\n" + table(head, rows), form)


@app.command("export")
def export_bases(
    name: Name,
    output: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    form: FormatOption = Format.human,
) -> None:
    """Write bases to a file, to share or to keep."""
    from freectl.errors import InputError

    if output.suffix != ".safetensors" or not output.parent.is_dir():
        raise InputError("OUTPUT", f"'{output}'", "a .safetensors file in an existing folder")
    bases = _load(name)
    bases.save(output)
    emit({"output": str(output), **_facts(bases)}, str(output), form)


@app.command("import")
def import_bases(
    path: Annotated[Path, typer.Argument(help="A file that `freectl bases export` wrote.")],
    form: FormatOption = Format.human,
) -> None:
    """Put exported bases into the cache, where runs with the same model and settings find them."""
    from freectl.bases import SemanticBases
    from freectl.bases_store import key_of
    from freectl.cache import Cache
    from freectl.errors import FreectlError

    bases = SemanticBases.load(path)
    if "unet" not in bases.metadata:
        raise FreectlError(f"'{path}' does not say which model its bases belong to")
    key = key_of(bases.metadata)
    Cache().put("bases", key, bases.tensors(), {**bases.metadata, "key": key})
    emit({"key": key, **_facts(bases)}, f"{key[:12]}  {bases.metadata.get('concept')}", form)


@app.command()
def remove(name: Name, form: FormatOption = Format.human) -> None:
    """Delete bases from the cache."""
    from freectl.bases_store import find
    from freectl.cache import Cache

    entry = find(_entries(), name)
    Cache().remove("bases", entry.key)
    emit({"removed": entry.key, "bytes": entry.bytes}, f"{entry.key[:12]} removed, {size_text(entry.bytes)}", form)
