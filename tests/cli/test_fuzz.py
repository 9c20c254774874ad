"""Settings, prompts, manifests, records and pictures that nobody meant: an answer or one line, exit 2, never a trace.

A few hundred cases here; 4,000 of each kind in the long run: `pytest -m slow -n 0 -s tests/cli/test_fuzz.py`.
"""

import io
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from freectl import methods
from freectl.cli import main
from freectl.errors import InputError
from freectl.files.pictures import LoadedImage, load_image
from freectl.files.record import TEXT_KEY
from freectl.tasks import edit as editing
from freectl.tasks import options as config
from freectl.tasks.batch.manifest import read_manifest
from freectl.tasks.batch.places import Places
from freectl.tasks.batch.rows import Rows
from freectl.tasks.options import EditOptions

FEW, MANY = 120, 4000
COMMANDS = 50
"""A command line takes longer to check than a value."""
NAMES = [*methods.REGISTRY]
KNOWN = sorted({key for name in NAMES for key in methods.get(name).settings.model_fields})
OPTIONS = ["image", *EditOptions.model_fields]
NUMBERS = st.one_of(
    st.integers(), st.integers(2**63 - 2, 2**65), st.floats(allow_nan=True), st.sampled_from([0, 1, -1])
)
ODD = [
    "",
    " ",
    "none",
    "../../etc/passwd",
    "/dev/zero",
    "\x00",
    "\ud800",
    "1e999",
    "nan",
    "٣",
    "1,1",
    "a\nb",
    "{}",
    "~",
    "~0",
]
TEXTS = st.one_of(st.sampled_from(ODD), st.text(max_size=30), st.sampled_from(["in.png", "a cat", "1", "0.5", "true"]))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    PLAIN, lambda one: st.lists(one, max_size=3) | st.dictionaries(TEXTS, one, max_size=2), max_leaves=5
)
JSON_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MAPPINGS = st.dictionaries(st.sampled_from([*OPTIONS, *KNOWN]) | st.text(max_size=8), VALUES, max_size=5)
seen: Counter[str] = Counter()


def fuzzed(strategy, few=FEW):
    """A check run on a few cases, and on many where that is asked for."""

    def both(check):
        quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]

        def made(count):
            return settings(max_examples=count, deadline=None, suppress_health_check=quiet, database=None)(
                given(strategy)(check)
            )

        return made(few), pytest.mark.slow(pytest.mark.timeout(7200)(made(MANY)))

    return both


def refused(function, *args, **kwargs):
    """The one line of an input error, or None; anything else that is raised is what these tests look for."""
    before = sorted(os.listdir())
    said = None
    try:
        function(*args, **kwargs)
    except InputError as error:
        said, named = str(error), error.option and error.allowed
    assert said is None or (named and "\n" not in said)
    assert sorted(os.listdir()) == before
    seen["answered" if said is None else "refused"] += 1
    return said


def check_settings(case):
    method, preset, values = case
    refused(lambda: config.method_settings(methods.get(method), preset, values))


SETTINGS = st.dictionaries(st.sampled_from(KNOWN) | TEXTS, VALUES, max_size=3)
test_settings, test_settings_long = fuzzed(st.tuples(st.sampled_from(NAMES), st.just("default") | TEXTS, SETTINGS))(
    check_settings
)


def check_rows(rows):
    for number, row in enumerate(rows, 1):
        refused(Rows({"prompt": "a cat"}, places=Places("m.jsonl")).wanted, number, row)


test_rows, test_rows_long = fuzzed(st.lists(MAPPINGS | PLAIN, min_size=1, max_size=2))(check_rows)

WHOLE = {
    ".jsonl": b'{"image": "in.png", "prompt": "a cat"}\n{"image": "in.png", "settings": {"strength": 0.5}}\n',
    ".csv": b'image,prompt,seed\nin.png,"a cat, ""so""",1\nin.png,b,2\n',
}


@st.composite
def damaged(draw, wholes):
    """One of the files with some bytes removed, changed or put in."""
    kind = draw(st.sampled_from(sorted(wholes)))
    data = bytearray(wholes[kind])
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        new = draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"{", b"\n", b"\x00", b",", b"\xef\xbb\xbf", b"9" * 400])
        )
        data[at : at + draw(st.integers(0, 3))] = new
    return kind, bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def check_manifest(case):
    kind, data = case
    path = f"fuzz{kind}"
    Path(path).write_bytes(data)
    rows = []
    said = refused(lambda: rows.extend(read_manifest(path)))
    assert said is None or said.startswith("--manifest")
    check_rows(rows)


test_manifest, test_manifest_long = fuzzed(damaged(WHOLE))(check_manifest)


def command(*args):
    """Exit code and stderr of `freectl`, whose runs end before a model loads."""
    out, sys.argv = sys.argv, ["freectl", *args]
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0, sys.stderr.getvalue()
    finally:
        said = sys.stderr
        sys.argv, (sys.stdout, sys.stderr) = out, kept
    return 0, said.getvalue()


def check_command(args):
    before = sorted(os.listdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(editing, "run", reached)
        code, said = command(*args)
    assert code in (0, 1, 2), said
    assert (code == 1) == ("as far as this goes" in said), said
    assert code != 2 or said.count("\n") == 1, said
    assert "Traceback" not in said
    assert sorted(os.listdir()) == before
    seen["answered" if code == 1 else "refused"] += 1


def reached(*_, **__):
    from freectl.errors import FreectlError

    raise FreectlError("as far as this goes")


def check_prompts(case):
    prompt, pairs, more = case
    check_command(["edit", "--image=in.png", f"--prompt={prompt}", *(f"--set={pair}" for pair in pairs), *more])


ARGV = st.text(st.characters(exclude_characters="\x00"), max_size=20)  # no command line can hold a zero byte
PLACES = ["model", "image", "mask", "keep", "lora", "output", "background", "device", "dtype"]
FLAGS = st.sampled_from([*PLACES, "steps", "seed", "concept", "guidance-scale", "method", "preset", "source-prompt"])
SET = st.tuples(st.sampled_from(KNOWN), ARGV).map("=".join) | ARGV
MORE = st.lists(st.tuples(FLAGS, ARGV).map(lambda pair: f"--{pair[0]}={pair[1]}"), max_size=2)
test_prompts, test_prompts_long = fuzzed(st.tuples(ARGV, st.lists(SET, max_size=2), MORE), COMMANDS)(check_prompts)

RECORD = {"method": "sdedit", "model": "mini", "prompt": "a cat", "seed": 1, "steps": 5, "cost": {}, "warnings": [],
          "settings": {"image": "in.png", "strength": 0.5}}  # fmt: skip


def check_record(case):
    changes, apart, raw = case
    record = {**RECORD, **changes, "settings": {**RECORD["settings"], **apart}}
    text = json.dumps(record, skipkeys=True) if raw is None else raw
    info = PngInfo()
    info.add_text(TEXT_KEY, text.encode("ascii", "replace").decode())
    Image.new("RGB", (8, 8)).save("record.png", pnginfo=info)
    check_command(["edit", "--config", "record.png", "--output", "again.png"])


JSONS = st.recursive(
    st.none() | st.booleans() | NUMBERS | JSON_TEXTS | st.sampled_from(["../x.png", "/etc/passwd", "a/b", "in.png"]),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(JSON_TEXTS, one, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from([*OPTIONS, *KNOWN, "cost", "command", "settings"]) | JSON_TEXTS
ENTRIES = st.dictionaries(KEYS, JSONS, max_size=3)
test_record, test_record_long = fuzzed(st.tuples(ENTRIES, ENTRIES, st.none() | JSON_TEXTS), COMMANDS)(check_record)


CORPUS = ["RGB.png", "P.png", "I16.png", "RGBA.webp", "RGB.jpeg", "L.tiff", "RGB.bmp", "P.gif", "RGB.ppm", "RGB.tga"]
CORPUS += ["RGBA.ico", "1.pcx"]


def pictures():
    """The corpus: a small picture in every format that can be written, with depth, palette and transparency."""
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    found = {}
    for name in CORPUS:
        mode, kind = name.split(".")
        deep = Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 1000)
        stream = io.BytesIO()
        (deep if mode == "I16" else small.convert(mode)).save(stream, kind)
        found[name] = stream.getvalue()
    return found


def check_picture(case):
    kind, data = case
    Path("fuzz").mkdir(exist_ok=True)
    path = Path("fuzz") / kind
    path.write_bytes(data)

    def read():
        assert isinstance(load_image(path), LoadedImage)

    said = refused(read)
    assert said is None or said.startswith("--image")


test_picture, test_picture_long = fuzzed(damaged(pictures()))(check_picture)
