"""`freectl env`."""

from freectl.cli.app import examples
from freectl.cli.output import Format, FormatOption, emit

EXAMPLES = examples("freectl env", "freectl env --format json")


def env(form: FormatOption = Format.human) -> None:
    """Versions, devices, memory, folders: what a bug report needs."""
    from freectl.files.environment import report

    facts = report()
    lines = [f"{name}: {value}" for name, value in facts.items()]
    emit(facts, "\n".join(lines), form)
