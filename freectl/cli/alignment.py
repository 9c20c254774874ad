"""How tokens align, as lines to read."""

from typing import Any

from freectl.cli.output import table


def as_text(found: dict[str, Any]) -> str:
    """The alignment as lines to read."""
    rows = []
    for one in found["tokens"]:
        sources = ", ".join(f"{s['token']} ({s['share']:g})" for s in one["sources"]) or "-"
        rows.append([str(one["position"]), one["token"], one["map"], sources, f"{one['factor']:g}", f"{one['stop']:g}"])
    head = [f"{found['method']} {found['edit']}: '{found['source_prompt']}' -> '{found['prompt']}'", ""]
    return "\n".join(head) + "\n" + table(["#", "token", "map", "from source tokens", "factor", "until share"], rows)
