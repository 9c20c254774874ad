"""`freectl cache`."""

import time
from typing import Annotated

import typer

from freectl.cli.app import App, examples
from freectl.cli.output import Format, FormatOption, emit, size_text, table

app = App(help="Cached inversions, references and bases.", no_args_is_help=True)
KINDS = ("inversion", "reference", "appearance", "bases", "direction")


@app.command(
    "list",
    epilog=examples(
        "freectl cache list",
        "freectl cache list --format json",
    ),
)
def list_entries(form: FormatOption = Format.human) -> None:
    """What is stored, least recently used first."""
    from freectl.files.cache import Cache

    store = Cache()
    entries = store.entries()
    rows = [
        [
            e.kind,
            e.key[:12],
            size_text(e.bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(e.last_used)),
            _about(e.metadata),
        ]
        for e in entries
    ]
    total = sum(e.bytes for e in entries)
    value = {
        "folder": str(store.root),
        "bytes": total,
        "entries": [{"kind": e.kind, "key": e.key, "bytes": e.bytes, "last_used": e.last_used} for e in entries],
    }
    text = table(["kind", "key", "size", "last used", "about"], rows) if rows else "nothing is cached"
    emit(value, f"{text}\n{len(entries)} entries, {size_text(total)} in {store.root}", form)


@app.command(
    epilog=examples(
        "freectl cache clear --kind inversion",
        "freectl cache clear",
    )
)
def clear(
    kind: Annotated[str | None, typer.Option(help=f"Only one kind: {', '.join(KINDS)}.")] = None,
    form: FormatOption = Format.human,
) -> None:
    """Remove what is stored."""
    from freectl.errors import unknown
    from freectl.files.cache import Cache

    if kind is not None and kind not in KINDS:
        raise unknown("--kind", kind, KINDS)
    count, size = Cache().clear(kind)
    emit({"removed": count, "bytes": size}, f"{count} entries, {size_text(size)} removed", form)


def _about(metadata: dict) -> str:
    return str(metadata.get("concept") or metadata.get("prompt") or "")[:40]
