"""A manifest to rows: mappings of names to plain values, bounded and checked, from JSON lines, CSV or Parquet."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files import remote
from freectl.files.parsing import MAX_JSON, parse_json
from freectl.files.paths import check_file

KINDS = ".jsonl, .csv or .parquet, a row an edit"
MAX_BYTES = 2_000_000_000
MOST_COLUMNS = 500
Row = dict[str, Any]


def read_manifest(path: str, option: str = "--manifest") -> list[Row]:
    """The rows of a file or fsspec address; a cell that is empty is left out.

    Raises:
        InputError: no such file, another ending, damaged, without rows, or a column twice.
    """
    suffix = Path(path).suffix.lower()
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if suffix not in readers:
        raise InputError(option, f"'{path}'", KINDS)
    here = remote.fetched(path, option, MAX_BYTES) if remote.is_remote(path) else check_file(path, option, KINDS)
    rows = [
        {key: value for key, value in row.items() if value is not None} for row in readers[suffix](here, path, option)
    ]
    if not rows:
        raise InputError(option, f"'{path}' without rows", KINDS)
    return rows


def _text(here: Path, path: str, option: str) -> str:
    try:
        return here.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(option, f"'{path}', unreadable ({error.strerror or error})", KINDS) from error
    except UnicodeDecodeError as error:
        raise InputError(option, f"'{path}', not UTF-8 text", KINDS) from error


def _jsonl(here: Path, path: str, option: str) -> Iterator[Row]:
    # not splitlines, which also ends lines at characters that JSON strings may hold
    for number, line in enumerate(_text(here, path, option).split("\n"), 1):
        if line.strip():
            yield parse_json(line, Path(f"{path} line {number}"), option)


def _csv(here: Path, path: str, option: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(_text(here, path, option), newline=""), strict=True)
    try:
        names = list(reader.fieldnames or [])
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None or len(names) > MOST_COLUMNS:
            found = f"the column '{twice}' twice" if twice is not None else f"{len(names)} columns"
            raise InputError(option, f"'{path}' with {found}", "one header line, each name once")
        for row in reader:
            cells: Any = row  # cells beyond the header come as a list under None
            if None in cells:
                raise InputError(option, f"'{path}' line {reader.line_num} with more cells than the header", KINDS)
            if any(cell is not None and len(cell) > MAX_JSON for cell in row.values()):
                raise InputError(option, f"'{path}' line {reader.line_num}, a cell of a million letters", KINDS)
            yield {name: cell for name, cell in row.items() if cell not in (None, "")}
    except csv.Error as error:
        raise InputError(option, f"'{path}' line {reader.line_num}, damaged ({error})", KINDS) from error


def _parquet(here: Path, path: str, option: str) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(option, f"'{path}' without pyarrow", "pip install pyarrow, or .jsonl or .csv") from error
    try:
        rows = parquet.read_table(here).to_pylist()
    except Exception as error:  # readers raise whatever the damaged bytes lead them to
        raise InputError(option, f"'{path}', damaged ({error})", KINDS) from error
    yield from rows
