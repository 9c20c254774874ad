"""`freectl env`."""

from freectl.cli.output import Format, FormatOption, emit


def env(form: FormatOption = Format.human) -> None:
    """Versions, devices, memory, folders: what a bug report needs."""
    from freectl.files.environment import report

    facts = report()
    lines = [f"{name}: {value}" for name, value in facts.items()]
    emit(facts, "\n".join(lines), form)
