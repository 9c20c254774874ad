"""`freectl methods`."""

import textwrap
from typing import Annotated, Any

import typer

from freectl.cli.app import examples
from freectl.cli.output import Format, FormatOption, emit

EXAMPLES = examples("freectl methods", "freectl methods --describe pnp --steps 30")
STEP_OPTION = typer.Option(help="Step count that costs are given for.", min=1, max=1000)
DESCRIBE_OPTION = typer.Option(help="Equations and settings of one method.", metavar="NAME")


WIDTH = 80
PURPOSES = {
    "freecontrol": "start here: another object or style in the same structure, with a dial for how firmly it holds",
    "sdedit": "the quickest: colours and rough layout stay, the rest is drawn anew; one dial, strength",
    "pnp": "another material or style with the layout firmly in place",
    "p2p": "another word in the same sentence, or more or less of it; wants --source-prompt",
    "masactrl": "another pose or action of what is there, with its looks; wants --source-prompt",
    "pix2pix-zero": "one known word for another (cat, dog) in the same structure; slow",
    "rf-inversion": "on flow models: edits near the input that differ from seed to seed, without attention",
    "ddpm-inversion": "edits near the input that differ from seed to seed",
    "flowedit": "larger changes of shape, without inversion; differs from seed to seed",
    "ctrlx": "the structure of one picture with the appearance of another; without gradients",
    "controlnet": "freectl control: the structure of a kind of condition that a network was trained for",
    "t2i-adapter": "freectl control: the same with a smaller, quicker network",
    "gan": "one pass of a network that you trained with gan-baselines; reads no words",
    "style-transfer": "the colours and strokes of a painting on a photo; reads no words, wants --appearance-image",
}
"""What to take which method for; others are told by their summary."""


def methods(
    describe: Annotated[str | None, DESCRIBE_OPTION] = None,
    steps: Annotated[int, STEP_OPTION] = 50,
    form: FormatOption = Format.human,
) -> None:
    """The methods, their settings and cost."""
    from freectl import methods as registry

    found = [registry.get(describe, "--describe")] if describe else registry.available()
    facts = [_facts(method, steps) for method in found]
    if describe:
        emit(facts[0], _page(facts[0], steps), form)
        return
    emit(facts, _overview(facts, steps), form)


def _overview(facts: list[dict[str, Any]], steps: int) -> str:
    """Which method for what, in lines of 80 characters."""
    width = max(len(one["name"]) for one in facts)
    lines = [f"{'method':{width}}  {'rows':>4}  what it is for"]
    indent = " " * (width + 8)
    for one in facts:
        purpose = textwrap.wrap(PURPOSES.get(one["name"], one["summary"]), WIDTH - len(indent))
        lines.append(f"{one['name']:{width}}  {one['rows']:4.0f}  {purpose[0]}")
        lines += [indent + line for line in purpose[1:]]
    about = f"rows: latents through the network at {steps} steps of a first edit, which is what time goes by; a repeat"
    about += " costs less. `freectl methods --describe NAME`: equations, settings, presets."
    return "\n".join([*lines, "", *textwrap.wrap(about, WIDTH), "", *textwrap.wrap(_where(facts), WIDTH)])


def _where(facts: list[dict[str, Any]]) -> str:
    """On which model families the methods run: those that lack the same ones together."""
    names = [one["name"] for one in facts if one["families"]]
    runs: dict[str, list[str]] = {}
    for one in facts:
        for family in one["families"]:
            runs.setdefault(family, []).append(one["name"])
    alike: dict[tuple[str, ...], list[str]] = {}
    for family, own in runs.items():
        alike.setdefault(tuple(own), []).append(family)
    return f"model families: {'; '.join(_runs(families, list(own), names) for own, families in alike.items())}."


def _runs(families: list[str], own: list[str], names: list[str]) -> str:
    """What some families run, by whichever list is shorter."""
    lacking = [name for name in names if name not in own]
    told = ", ".join(own)
    if len(lacking) < len(own):
        told = f"all but {', '.join(lacking)}" if lacking else "every method"
    return f"{', '.join(families)} {'runs' if len(families) == 1 else 'run'} {told}"


def _page(facts: dict[str, Any], steps: int) -> str:
    """One method's facts for reading."""
    head = [facts[key] for key in ("name", "summary", "paper")]
    equations = [f"  {line}" for line in facts["equations"].splitlines()]
    presets = [f"  {name}: {_assignments(values)}" for name, values in facts["presets"].items()]
    uses = ", ".join((*facts["needs"], *facts["inputs"]))
    head += ["", "equations", *equations, "", "presets (what differs from the defaults)", *presets, ""]
    head += [
        f"model families: {', '.join(facts['families'])}",
        f"uses: {uses}",
        f"row forwards at {steps} steps: {facts['row_forwards']} = {facts['rows']:g}",
        "",
    ]
    for one in facts["settings"]:
        default = "none" if one["default"] is None else one["default"] if one["default"] != "" else '""'
        of = f" ({one['unit']})" if one["unit"] not in ("", "choice", "text") else ""
        head += [f"{one['name']}   default {default};  {one['range']}{of}", f"    {one['description']}"]
        head += [f"    source: {one['source']}"] if one["source"] else []
    return "\n".join(head)


def _assignments(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items()) or "none"


def _facts(method: Any, steps: int) -> dict[str, Any]:
    from freectl.denoising.cost import rows_in
    from freectl.methods import OUTSIDE
    from freectl.methods.setting import described
    from freectl.models.families import FAMILIES

    settings = method.settings()
    able = [one.name for one in FAMILIES if one.runs(method.name, few_steps=one.guidance == "none")]
    families = [] if method.name in OUTSIDE else able
    formula = method.row_forwards(steps, settings)
    return {
        "name": method.name,
        "summary": method.summary,
        "paper": method.paper,
        "equations": method.equations.strip(),
        "needs": list(method.needs),
        "inputs": list(method.inputs),
        "presets": method.presets,
        "families": families,
        "row_forwards": formula,
        "rows": rows_in(formula),
        "settings": described(settings),
    }
