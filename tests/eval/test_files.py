"""Pictures in and out of the evaluation: what a person sees is what is measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.bench.manifests import load_manifest
from eval.files import read_picture, write_picture
from freectl.errors import FreectlError, InputError


def clear(path: Path) -> Path:
    """Red on the left, nothing on the right."""
    picture = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 20, 20))
    picture.save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def deep(path: Path) -> Path:
    """Gray of 16 bits, half as bright as white."""
    Image.fromarray(np.full((20, 40), 32896, np.uint16)).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def turned(path: Path) -> Path:
    """A phone's: 20 wide and 40 high, stored lying, with the word to turn it."""
    picture = Image.new("RGB", (40, 20), "blue")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(path.with_suffix(".jpg"), exif=exif)
    return path.with_suffix(".jpg")


@pytest.mark.parametrize(
    ("make", "size", "corner"),
    [(clear, (40, 20), (255, 255, 255)), (deep, (40, 20), (128, 128, 128)), (turned, (20, 40), (0, 0, 254))],
)
def test_manifests_and_stored_pictures_are_read_as_a_viewer_shows_them(
    tmp_path: Path, make, size: tuple[int, int], corner: tuple[int, int, int]
) -> None:
    path = make(tmp_path / "a")
    (tmp_path / "m.jsonl").write_text(json.dumps({"image": path.name, "prompt": "a"}))
    for picture in (load_manifest(tmp_path / "m.jsonl").cases[0].picture(), read_picture(path)):
        assert (picture.mode, picture.size) == ("RGB", size)
        assert np.abs(np.subtract(picture.getpixel((size[0] - 1, 0)), corner)).max() <= 1


def test_pictures_are_written_in_the_format_of_their_ending_or_not_at_all(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    for suffix, kind in ((".png", "PNG"), (".webp", "WEBP"), (".JPG", "JPEG")):
        write_picture(tmp_path / f"a{suffix}", picture)
        with Image.open(tmp_path / f"a{suffix}") as found:
            assert found.format == kind
    with pytest.raises(InputError, match="--sheet: found .*a.exe"):
        write_picture(tmp_path / "a.exe", picture, "--sheet")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(FreectlError, match="could not write"):
        write_picture(tmp_path / "b.png", picture)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.JPG", "a.png", "a.webp", "b.png"]
