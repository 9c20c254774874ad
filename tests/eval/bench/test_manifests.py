"""Benchmarks: the mini files are what the domain gives; published layouts on made-up copies; one's own manifest."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from eval.bench.ctrlx import GROUPS
from eval.bench.files import safe_key
from eval.bench.manifests import load_bench, load_manifest
from eval.bench.mini import KINDS
from eval.bench.mini_files import contents, from_line, load_mini
from eval.bench.pie import PIE_KINDS, decode_runs, load_pie
from eval.bench.ti2i import load_ti2i
from eval.bench.world import drawn, mask_of
from eval.files import PROMPTS
from eval.scores.measures import MEASURES, PAPERS_COSTS
from freectl.errors import FreectlError, InputError
from freectl.mini.domain import HELD_OUT


def test_committed_files_are_what_the_domain_gives() -> None:
    for name, text in contents().items():
        assert (PROMPTS / name).read_text(encoding="utf-8") == text


def test_mini_benchmark_has_forty_edits_of_each_kind_that_change_those_words_alone() -> None:
    cases = load_mini().cases
    assert len(cases) == 240
    for kind, words in KINDS.items():
        own = [case for case in cases if case.kind == kind]
        assert len(own) == 40
        for case in own:
            source, target = case.scenes
            differ = {w for w in ("object", "style", "background") if getattr(source, w) != getattr(target, w)}
            assert differ == set(words)
            assert (source.rotation, source.scale, source.shift, source.flip) == (
                target.rotation,
                target.scale,
                target.shift,
                target.flip,
            )
            assert (target.object, target.style) not in HELD_OUT


def test_mask_holds_everything_that_an_object_edit_changes() -> None:
    for case in [case for case in load_mini().cases if case.kind in ("object", "style")][::9]:
        source, target = (np.asarray(drawn(scene), dtype=int) for scene in case.scenes)
        changed = np.abs(source - target).max(2) > 2
        inside, objects = np.asarray(case.mask()) > 0, [np.asarray(mask_of(scene)) > 0 for scene in case.scenes]
        assert not (changed & ~inside).any()
        assert not ((objects[0] | objects[1]) & ~inside).any()
        assert not inside.all()


def test_a_changed_line_is_refused(tmp_path: Path) -> None:
    line = json.loads((PROMPTS / "mini_bench.jsonl").read_text().splitlines()[0])
    assert from_line(line).key == line["key"]
    with pytest.raises(ValueError, match="captions"):
        from_line({**line, "prompt": "a cat"})
    (tmp_path / "mini_bench.jsonl").write_text(json.dumps({**line, "change": {"object": "unicorn"}}))
    with pytest.raises(FreectlError, match=r"eval\.bench make"):
        load_mini("mini", tmp_path)


def test_style_benchmark_goes_one_way() -> None:
    cases = load_bench("mini-style:noto:fluent").cases
    assert {tuple(scene.style for scene in case.scenes) for case in cases} == {("noto", "fluent")}
    with pytest.raises(InputError, match="mini-style"):
        load_bench("mini-style:noto:noto")


def test_tuning_cases_are_others_of_the_same_kinds() -> None:
    test, tuning = load_bench("mini"), load_bench("mini:1")
    assert Counter(case.kind for case in tuning.cases) == Counter(case.kind for case in test.cases)
    assert not {case.scenes for case in tuning.cases} & {case.scenes for case in test.cases}
    assert tuning.digest == load_bench("mini:1").digest != test.digest
    for name in ("mini:", "mini:0", "mini:-1", "mini:one"):
        with pytest.raises(InputError, match="SEED"):
            load_bench(name)


def test_pie_bench_is_read_as_published(pie: Path) -> None:
    bench = load_pie(pie)
    case = bench.cases[0]
    assert [one.kind for one in bench.cases] == [PIE_KINDS[1], PIE_KINDS[9]]
    assert (case.source_prompt, case.prompt, case.concept) == ("a cat on a mat", "a dog on a mat", "cat")
    assert case.picture().size == (512, 512)
    mask = np.asarray(case.mask())
    naive = np.zeros((512, 512), dtype=np.uint8)
    naive[10:12, 20:50] = 255
    naive[0, :] = naive[-1, :] = naive[:, 0] = naive[:, -1] = 255
    assert np.array_equal(mask, naive)


def test_results_of_other_pictures_or_masks_do_not_mix(pie: Path, tmp_path: Path) -> None:
    whole = load_pie(pie).digest
    mapping = pie / "mapping_file.json"
    text = mapping.read_text()
    mapping.write_text(text.replace("30]", "31]"))
    assert load_pie(pie).digest != whole
    mapping.write_text(text)
    assert load_pie(pie.rename(tmp_path / "elsewhere")).digest == whole
    manifest, image = tmp_path / "own.jsonl", tmp_path / "a.png"
    manifest.write_text(json.dumps({"image": "a.png", "prompt": "a dog"}))
    digests = set()
    for colour in ("red", "blue", "red"):
        Image.new("RGB", (8, 8), colour).save(image)
        digests.add(load_manifest(manifest).digest)
    assert len(digests) == 2


def test_runs_equal_a_naive_decoder_and_odd_ones_are_refused() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((16, 16)) < 0.4
    truth[[0, -1]] = truth[:, [0, -1]] = True
    runs, flat = [], truth.ravel()
    for place, inside in enumerate(flat):
        if inside and (place == 0 or not flat[place - 1]):
            runs += [place, 0]
        if inside:
            runs[-1] += 1
    assert np.array_equal(np.asarray(decode_runs(runs, 16)) > 0, truth)
    for wrong in ([1, 2, 3], [400, 1]):
        with pytest.raises(ValueError, match="pairs of start and length"):
            decode_runs(wrong, 16)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image_path": "nothing.jpg"}, "no file"),
        ({"editing_type_id": "12"}, "does not fit"),
        ({"mask": [1]}, "mask"),
        ({"mask": [512 * 512 + 1, 1]}, "mask"),
        ({"mask": [1, -1]}, "mask"),
        ({"mask": None}, "does not fit"),
        ({"editing_type_id": "-1"}, "editing_type_id -1"),
        ({"editing_prompt": None}, "does not fit"),
    ],
)
def test_damaged_pie_entries_are_named(pie: Path, change: dict, text: str) -> None:
    path = pie / "mapping_file.json"
    entries = json.loads(path.read_text())
    entries["000000000000"] |= change
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=text):
        load_pie(pie)
    for stored, told in (("{", "damaged"), ("{}", "not a mapping with entries")):
        path.write_text(stored)
        with pytest.raises(InputError, match=told):
            load_pie(pie)


def test_a_pie_entry_may_lack_its_blended_word(pie: Path) -> None:
    path = pie / "mapping_file.json"
    entries = json.loads(path.read_text())
    entries["000000000000"]["blended_word"] = None
    path.write_text(json.dumps(entries))
    assert load_pie(pie)["000000000000"].concept is None


@pytest.fixture
def ti2i(tmp_path: Path) -> Path:
    """Two entries in ImageNet-R-TI2I's layout: paths in other case than the folders, and one without a path."""
    folder = tmp_path / "imagenetr-fake-ti2i"
    for name in ("cat/art_0.jpg", "pizza/sketch_1.jpg"):
        (folder / name).parent.mkdir(parents=True)
        Image.new("RGB", (96, 64), (200, 100, 50)).save(folder / name)
    entries = [
        {"init_img": "data/Cat/art_0.jpg", "target_prompts": [f"{n} of a cat" for n in ("a photo", "a toy")]},
        {"source_prompt": "a sketch of a pizza", "target_prompts": ["a photo of a pizza"]},
    ]
    (folder / "imnetr-ti2i.yaml").write_text(yaml.safe_dump(entries))
    return folder


def test_imagenet_r_ti2i_is_read_as_published(ti2i: Path) -> None:
    cases = load_ti2i(ti2i).cases
    assert [(case.source_prompt, case.prompt, case.kind) for case in cases] == [
        ("an art of a cat", "a photo of a cat", "cat"),
        ("an art of a cat", "a toy of a cat", "cat"),
        ("a sketch of a pizza", "a photo of a pizza", "pizza"),
    ]
    assert cases[2].concept == "pizza"
    assert cases[0].original is None


def test_conditions_replace_what_methods_get_but_not_what_structure_is_measured_on(ti2i: Path, tmp_path: Path) -> None:
    edges = tmp_path / "canny"
    for name in ("cat/art_0.png", "pizza/sketch_1.png"):
        (edges / name).parent.mkdir(parents=True)
        Image.new("L", (96, 64), 255).save(edges / name)
    case = load_ti2i(ti2i, edges).cases[0]
    assert case.picture().getpixel((5, 5)) == (255, 255, 255)
    assert case.original().getpixel((5, 5))[2] < 100
    (edges / "cat/art_0.png").unlink()
    with pytest.raises(InputError, match="--conditions"):
        load_ti2i(ti2i, edges)


def test_several_conditions_at_once_are_kinds_and_a_first_few_are_of_different_pictures(
    ti2i: Path, tmp_path: Path
) -> None:
    for kind in ("HED", "canny"):
        for name in ("cat/art_0.png", "pizza/sketch_1.png"):
            (tmp_path / "all" / kind / name).parent.mkdir(parents=True)
            Image.new("L", (96, 64), 255).save(tmp_path / "all" / kind / name)
    alone, both = load_ti2i(ti2i, tmp_path / "all" / "HED"), load_ti2i(ti2i, tmp_path / "all")
    keys = [case.key for case in both.cases]
    assert Counter(case.kind for case in both.cases) == {"hed": 3, "canny": 3}
    assert {case.key for case in alone.cases} == {key for key in keys if key.startswith("hed")}
    assert {key.split("-")[1] for key in keys[:4]} == {"cat", "pizza"}
    with pytest.raises(InputError, match="--conditions"):
        load_ti2i(ti2i, tmp_path / "none")


def test_ctrlx_data_is_read_as_published(ctrlx: Path) -> None:
    prompts, pairs = load_bench("ctrl-x", ctrlx), load_bench("ctrl-x-pairs", ctrlx)
    assert [case.kind for case in prompts.cases] == ["supported"] * 2 + ["new"] * 2
    assert [case.kind for case in pairs.cases] == ["supported", "new", "natural"]
    case = pairs.cases[0]
    assert (case.key, case.prompt, case.concept) == ("a0___b", "a photo of a red truck", "red truck")
    assert case.source_prompt == "a canny edge map of a red truck off-road"
    assert case.appearance().getpixel((0, 0))[0] > case.picture().getpixel((0, 0))[0]
    assert case.original().tobytes() == case.picture().tobytes()
    assert [(one.is_control, one.is_paired) for one in (prompts, pairs)] == [(True, False), (True, True)]
    path = ctrlx / "data_prompt-driven.yaml"
    whole = yaml.safe_load(path.read_text())
    for change, named in (
        ({"type": "x-ray"}, "type 'x-ray'"),
        ({"filename": "no.jpg"}, "no.jpg"),
        ({"prompts": 1}, "fit"),
    ):
        path.write_text(yaml.dump({"images": [whole["images"][0] | change]}))
        with pytest.raises(InputError, match=named):
            load_bench("ctrl-x", ctrlx)
    with pytest.raises(InputError, match="--data"):
        load_bench("ctrl-x-pairs")


def test_a_manifest_of_ones_own(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a b.png")
    Image.new("L", (20, 10), 255).save(tmp_path / "m.png")
    Image.new("L", (10, 10), 255).save(tmp_path / "odd.png")
    Image.new("L", (20, 10)).save(tmp_path / "none.png")
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"image": "a b.png", "prompt": "a cat", "mask": "m.png"}) + "\n")
    (case,) = load_manifest(path).cases
    assert case.key == "0000-a-b"
    assert case.mask().size == case.picture().size
    for entry, text in (
        ({"image": "a b.png"}, "prompt"),
        ({"image": "x.png", "prompt": "y"}, "no file"),
        ({"image": "a b.png", "prompt": "y", "colour": 1}, "colour"),
        ({"image": "mine.jsonl", "prompt": "y"}, "--bench: found .*not a picture"),
        ({"image": "a b.png", "prompt": "y", "mask": "mine.jsonl"}, "--bench: found .*not a picture"),
        ({"image": "a b.png", "prompt": "y", "mask": "odd.png"}, "10x10 px for a picture of 20x10"),
        ({"image": "a b.png", "prompt": "y", "mask": "none.png"}, "black everywhere"),
    ):
        path.write_text(json.dumps(entry))
        with pytest.raises(InputError, match=text):
            load_manifest(path)


def test_a_mask_is_that_of_the_picture_as_the_camera_turned_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", (10, 20), 255).save(tmp_path / "m.png")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump([{"image": "a.jpg", "prompt": "a cat", "mask": "m.png"}]))
    (case,) = load_manifest(path).cases
    assert case.mask().size == case.picture().size == (10, 20)


def test_published_numbers_name_their_source_and_evidence_and_fit_the_columns() -> None:
    found = yaml.safe_load((PROMPTS / "published.yaml").read_text(encoding="utf-8"))
    for layout in ("pie", "ti2i", "ctrl-x", "ctrl-x-pairs"):
        assert set(found[layout]["columns"]) <= {measure.key for measure in MEASURES[layout]}
    assert len(found["cost"]["columns"]) == len(PAPERS_COSTS)
    for layout in ("ctrl-x", "ctrl-x-pairs"):
        assert {table["kind"] for table in found[layout]["tables"]} <= set(GROUPS)
    for one in found.values():
        for table in one["tables"]:
            assert table["evidence"] in ("P", "S", "U")
            assert table["source"]
            for row in table["rows"]:
                assert len(row["values"]) == len(one["columns"])
                assert set(row.get("unsure", [])) <= set(one["columns"])


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"image": "x" * 300 + ".png", "prompt": "a"}, "unreadable"),
        ({"image": "a\0.png", "prompt": "a"}, "unreadable"),
        ({"image": "pipe.png", "prompt": "a"}, "a named pipe"),
        ({"image": "a.png", "prompt": "\ud800"}, "prompt"),
        ({"image": "shot.png", "prompt": "a"}, "a PostScript file"),
    ],
)
def test_a_strangers_entries_are_refused_in_one_line(tmp_path: Path, entry: dict[str, str], named: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "shot.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "m.jsonl").write_text(json.dumps(entry))
    with pytest.raises(InputError, match=named):
        load_bench(str(tmp_path / "m.jsonl"))


@pytest.mark.parametrize("suffix", [".jsonl", ".yaml"])
def test_nesting_without_end_names_and_pipes_are_no_manifests(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"m{suffix}").write_text("[" * 50_000)
    with pytest.raises(InputError, match="damaged"):
        load_bench(str(tmp_path / f"m{suffix}"))
    os.mkfifo(tmp_path / f"p{suffix}")
    for name in (str(tmp_path / f"p{suffix}"), "b" * 300, "b\0"):
        with pytest.raises(InputError, match="neither a name nor a file"):
            load_bench(name)
    (tmp_path / "mapping_file.json").mkdir()
    with pytest.raises(InputError, match=r"mapping_file\.json', a folder"):
        load_bench("pie", tmp_path)


def test_long_keys_still_name_files_and_differ() -> None:
    one, other = (safe_key("ä" * 300 + end) for end in "xy")
    assert one != other
    assert safe_key("ä" * 300 + "x") == one
    assert all(len(f"{key}.png".encode()) <= 255 for key in (one, other))
    assert safe_key("short key") == "short-key"
