"""What the tests of batches share: manifests in, files and lines out."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def written(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def lines(out="out"):
    return [json.loads(line) for line in (Path(out) / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def files(folder="out"):
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()} - {".lock"}
