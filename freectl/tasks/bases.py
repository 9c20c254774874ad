"""Making semantic bases now, not at the first edit."""

from collections.abc import Mapping
from typing import Any

from freectl.errors import InputError
from freectl.models.engine import Engine
from freectl.semantics import store
from freectl.semantics.bases import SemanticBases

NUMBERS = {"seeds": 20, "components": 64, "features": "sampling", "stop": 0.6, "steps": 50}
"""What is built unless something else is asked for, as `BasesSpec` takes it."""


def build(
    engine: Engine, concept: str | None, prompt: str | None, numbers: Mapping[str, Any], layers: str | None = None
) -> SemanticBases:
    """Bases of a concept, from the cache or made and kept there.

    Args:
        concept: what the seed pictures show; None = the family's general prompts.
        prompt: seed prompt in full, instead of the family's template.
        numbers: seeds, components, features, stop and steps of `BasesSpec`.
        layers: "all" self-attentions of the family's block, or the "first"; None = what its edits compare.

    Raises:
        InputError: an empty text.
    """
    check(concept, prompt)
    prompts = store.seed_prompts(engine.family.words, concept, prompt or "a picture")
    if prompt is not None:
        prompts = store.SeedPrompts((prompt,), prompts.negative, concept or prompt)
    compared = (layers, "keys") if layers else [engine.family.freecontrol[name] for name in ("layers", "features")]
    sites = tuple(engine.family.structure_sites(engine.network, *compared))
    spec = store.BasesSpec(prompts=prompts, sites=sites, **numbers)
    with engine.cost.counting(engine.network), engine.cost.stage("analysis"):
        return store.obtain(engine, spec)


def check(concept: str | None, prompt: str | None) -> None:
    """Refuse texts that say nothing.

    Raises:
        InputError: an empty text.
    """
    for option, text in (("--concept", concept), ("--prompt", prompt)):
        if text is not None and not text.strip():
            raise InputError(option, "an empty text", "what the seed pictures show")
