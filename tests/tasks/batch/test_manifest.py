"""Rows from files: the same in every format, bounded, and never out of the manifest's folder unasked."""

import csv
import json
from pathlib import Path

import pytest
from batch_kit import written

from freectl.errors import InputError
from freectl.tasks.batch.manifest import read_manifest
from freectl.tasks.batch.names import Names, check_template
from freectl.tasks.batch.places import Places
from freectl.tasks.batch.rows import Rows

ROWS = [
    {"image": "a.png", "prompt": 'a cat, "so" on\u2028a mat', "seed": "1,2", "strength": 0.5, "method": "sdedit"},
    {"image": "b.png", "prompt": "ein Käfer", "source_prompt": "x", "steps": 9, "keep_alpha": True},
]


def wanted(path):
    rows = Rows(places=Places(path))
    return [one for number, row in enumerate(read_manifest(path), 1) for one in rows.wanted(number, row)]


def test_formats_say_the_same():
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    written("m.jsonl", ROWS)
    names = list(dict.fromkeys(name for row in ROWS for name in row))
    with open("m.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, names)
        table.writeheader()
        table.writerows(ROWS)
    parquet.write_table(
        pyarrow.Table.from_pylist(
            ROWS,
            pyarrow.schema(
                [
                    ("image", pyarrow.string()),
                    ("prompt", pyarrow.string()),
                    ("seed", pyarrow.string()),
                    ("strength", pyarrow.float64()),
                    ("method", pyarrow.string()),
                    ("source_prompt", pyarrow.string()),
                    ("steps", pyarrow.int64()),
                    ("keep_alpha", pyarrow.bool_()),
                ]
            ),
        ),
        "m.parquet",
    )
    found = wanted("m.jsonl")
    assert [(one.row, one.options["seed"]) for one in found] == [(1, 1), (1, 2), (2, 0)]
    assert [one.name for one in found] == ["a_1.png", "a_2.png", "b_0.png"]
    for other in ("m.csv", "m.parquet"):
        assert [one.options for one in wanted(other)] == [one.options for one in found], other


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.jsonl", b"", "without rows"),
        ("m.jsonl", b'{"image": "a.png"}\n{"image": ', "m.jsonl line 2"),
        ("m.jsonl", b"[1]\n", "holding list"),
        ("m.jsonl", b'{"image": "a", "image": "b"}', "given twice"),
        ("m.jsonl", b"\xff\xfe", "not UTF-8"),
        ("m.jsonl", b'{"image": NaN}', "NaN"),
        ("m.jsonl", b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "deeper"),
        ("m.csv", b"image,image\na,b\n", "twice"),
        ("m.csv", b"image\na,b\n", "more cells"),
        ("m.csv", b'image\n"a', "damaged"),
        ("m.csv", b"image\n", "without rows"),
        ("m.parquet", b"PAR1 no", "m.parquet"),
        ("m.txt", b"a", ".jsonl"),
    ],
)
def test_damaged_manifests_are_one_line(name, content, said):
    Path(name).write_bytes(content)
    with pytest.raises(InputError, match=r"^--manifest: ") as caught:
        read_manifest(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def below(workplace):
    """A manifest's folder below the one of the pictures."""
    Path("data").mkdir()
    Path("data/d.png").write_bytes(Path("a.png").read_bytes())
    Path("data/link.png").symlink_to("../b.png")
    return "data/m.jsonl"


OUTSIDE = [
    {"image": "../a.png"},
    {"image": "x/../../a.png"},
    {"image": "link.png"},
    {"image": "s3://bucket/a.png"},
    {"image": "d.png", "mask": "../a.png"},
    {"image": "d.png", "keep": "../a.png"},
    {"image": "d.png", "appearance_image": "../a.png"},
    {"image": "d.png", "lora": "../l.safetensors:0.5"},
    {"image": "d.png", "textual_inversion": ["../l.safetensors"]},
    {"image": "d.png", "model": ".."},
    {"image": "d.png", "model": "someone/sometwo"},
    {"image": "d.png", "bases": "../b.safetensors"},
]


@pytest.mark.parametrize("row", OUTSIDE, ids=lambda row: json.dumps(row)[1:40])
def test_what_leads_outside_is_refused_unless_allowed(below, row, tmp_path):
    absolute = {key: str(tmp_path / "a.png") if value == "../a.png" else value for key, value in row.items()}
    for one in (row, absolute):
        with pytest.raises(InputError, match=r"--manifest: found row 7 with .*allow-outside"):
            Rows(places=Places(below)).wanted(7, {"prompt": "a cat", **one})
    assert refused_option(Rows(places=Places(below, allow_outside=True)), {"prompt": "a cat", **row}) != "--manifest"


def refused_option(rows, row):
    """The option that an error names; None where the row is taken."""
    try:
        rows.wanted(7, row)
    except InputError as error:
        return error.option
    return None


def test_inside_and_what_the_caller_says_is_taken(below):
    found = Rows({"mask": "../m.png", "model": "someone/sometwo"}, places=Places(below)).wanted(
        1, {"image": "./d.png", "prompt": "a cat / dog ../ x", "lora": None}
    )
    assert found[0].image == "data/./d.png"
    assert found[0].options["mask"] == "../m.png"
    assert Rows().wanted(1, {"image": "../" + Path.cwd().name + "/a.png", "prompt": "a cat"})


LEAVE = ["../{stem}.png", "/tmp/{stem}.png", "a/../../{stem}.png", "{stem}\\..\\x.png", ".{stem}.png"]
FORMS = [
    "{0}.png",
    "{stem.__class__}.png",
    "{stem!r:>{row}}.png",
    "{row:x<999999999}.png",
    "{none}.png",
    "{",
    "{stem:d}.png",
]
ENDINGS = ["{stem}", "{stem}.txt", "", "x" * 300 + ".png"]


@pytest.mark.parametrize("template", [*LEAVE, *FORMS, *ENDINGS])
def test_templates_that_are_no_names(template):
    with pytest.raises(InputError, match="--name"):
        check_template(template)


def test_names_are_safe_and_each_its_own():
    from types import SimpleNamespace

    options = SimpleNamespace(seed=1, steps=2, method="sdedit", preset="default", model="a/b")
    names = Names("{model}/{stem}_{seed}.png")
    assert names.name(1, "x/fox.png", options) == "a_b/fox_1.png"
    assert names.name(2, "y/FOX.png", options) == "a_b/FOX_1_2.png"
    assert names.name(3, "y/..png", options).startswith("a_b/")
    assert names.name(4, "y/a\nb:c.png", options) == "a_b/a_b_c_1.png"
    assert Names("{row:04d}.webp").name(7, "x", options) == "0007.webp"
    assert Names("{shard}/{row}.png").name(2345, "x", options) == "0002/2345.png"
