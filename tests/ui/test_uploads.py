"""Uploads, painted masks and the files of a session."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ui_kit import FOX

from freectl.errors import InputError
from freectl.files import pictures
from freectl.ui import uploads
from freectl.ui.session import Sessions


def test_an_upload_is_read_as_the_command_line_reads_it_and_called_by_its_name() -> None:
    read, plain = uploads.read(str(FOX)), pictures.load_image(str(FOX))
    assert read.image.tobytes() == plain.image.tobytes()
    assert read.source == "fox.png"


def test_uploads_are_bounded_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = tmp_path / "wide.png"
    Image.new("1", (8000, 6000)).save(wide)
    with pytest.raises(InputError, match=r"--image: found wide.png, 8000x6000 px = 48 megapixels; allowed: at most 40"):
        uploads.read(str(wide))
    monkeypatch.setattr(uploads, "MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"found fox.png, .* MB"):
        uploads.read(str(FOX))


@pytest.mark.parametrize("content", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_picture_is_refused_without_the_servers_paths(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"--keep: found odd.png, not a picture") as refused:
        uploads.read(str(path), "--keep")
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("size", [(64, 64), (300, 150), (2000, 1000)])
def test_what_is_painted_is_the_mask_of_the_pictures_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "in.png"
    Image.new("RGB", size, "white").save(path)
    canvas = uploads.canvas(str(path))
    assert max(canvas.size) == uploads.PAINTED
    layer = Image.new("RGBA", canvas.size)
    half = canvas.width // 2
    layer.paste((255, 0, 0, 255), (0, 0, half, canvas.height))
    mask = np.asarray(uploads.painted({"layers": [layer]}, str(path)))
    wanted = np.zeros(size[::-1], dtype=np.uint8)
    wanted[:, : size[0] // 2] = 255
    assert mask.shape == wanted.shape
    assert set(np.unique(mask)) == {0, 255}
    assert (mask != wanted).mean() <= 2 / size[0]


@pytest.mark.parametrize("value", [None, {}, {"layers": []}, {"layers": [Image.new("RGBA", (9, 9))]}])
def test_nothing_painted_is_said(value: dict | None) -> None:
    with pytest.raises(InputError, match="nothing painted"):
        uploads.painted(value, str(FOX))


def test_sessions_have_folders_of_their_own_that_go_with_them() -> None:
    sessions = Sessions()
    one, other = sessions.of("a"), sessions.of("b")
    assert sessions.of("a") is one
    path = one.keep_picture(Image.new("RGB", (4, 4)), "../../../evil name.png")
    assert path.parent == one.folder
    assert path.name.startswith("evil_name")
    assert one.folder != other.folder
    sessions.close("a")
    assert not one.folder.exists()
    assert other.folder.exists()
    assert sessions.of("a") is not one
