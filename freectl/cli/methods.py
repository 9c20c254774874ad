"""`freectl methods`."""

from typing import Annotated, Any

import typer

from freectl.cli.output import Format, FormatOption, emit, table

STEP_OPTION = typer.Option(help="Step count that costs are given for.", min=1, max=1000)
DESCRIBE_OPTION = typer.Option(help="Equations and settings of one method.", metavar="NAME")


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
    rows = [[f["name"], f"{f['rows']:g}", f["row_forwards"], ", ".join(f["presets"]), f["summary"]] for f in facts]
    header = ["method", "rows", f"row forwards of a first edit at {steps} steps", "presets", "what it does"]
    emit(facts, table(header, rows), form)


def _page(facts: dict[str, Any], steps: int) -> str:
    """One method's facts for reading."""
    head = [facts[key] for key in ("name", "summary", "paper")]
    equations = [f"  {line}" for line in facts["equations"].splitlines()]
    presets = [f"  {name}: {_assignments(values)}" for name, values in facts["presets"].items()]
    uses = ", ".join((*facts["needs"], *facts["inputs"]))
    head += ["", "equations", *equations, "", "presets (what differs from the defaults)", *presets, ""]
    head += [f"uses: {uses}", f"row forwards at {steps} steps: {facts['row_forwards']} = {facts['rows']:g}", ""]
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
    from freectl.methods.setting import described

    settings = method.settings()
    formula = method.row_forwards(steps, settings)
    return {
        "name": method.name,
        "summary": method.summary,
        "paper": method.paper,
        "equations": method.equations.strip(),
        "needs": list(method.needs),
        "inputs": list(method.inputs),
        "presets": method.presets,
        "row_forwards": formula,
        "rows": rows_in(formula),
        "settings": described(settings),
    }
