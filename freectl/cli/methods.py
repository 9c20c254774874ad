"""`freectl methods`."""

from typing import Annotated, Any

import typer

from freectl.cli.output import Format, FormatOption, emit, table


def methods(
    describe: Annotated[str | None, typer.Option(help="Settings of one method, with defaults and meaning.")] = None,
    steps: Annotated[int, typer.Option(help="Step count that costs are given for.", min=1, max=1000)] = 50,
    form: FormatOption = Format.human,
) -> None:
    """The methods, their settings and cost."""
    from freectl import methods as registry

    names = [describe] if describe else list(registry.REGISTRY)
    facts = [_facts(registry.get(name, "--describe"), steps) for name in names]
    if describe:
        rows = [[s["name"], str(s["default"]), s["description"]] for s in facts[0]["settings"]]
        head = [facts[0][key] for key in ("name", "summary", "paper")]
        head += [
            f"presets: {', '.join(facts[0]['presets'])}",
            f"cost at {steps} steps: {facts[0]['row_forwards']}",
            "",
        ]
        emit(facts[0], "\n".join(head) + "\n" + table(["setting", "default", "meaning"], rows), form)
        return
    rows = [[f["name"], f["row_forwards"], ", ".join(f["presets"]), f["summary"]] for f in facts]
    emit(facts, table(["method", f"row forwards at {steps} steps", "presets", "what it does"], rows), form)


def _facts(method: Any, steps: int) -> dict:
    settings = method.settings()
    fields = type(settings).model_fields
    return {
        "name": method.name,
        "summary": method.summary,
        "paper": method.paper,
        "needs": list(method.needs),
        "presets": list(method.presets),
        "row_forwards": method.row_forwards(steps, settings),
        "settings": [
            {"name": name, "default": getattr(settings, name), "description": field.description}
            for name, field in fields.items()
        ],
    }
