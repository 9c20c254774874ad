import errno
import io
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from freectl.errors import FreectlError, InputError
from freectl.files.pictures import check_output, compare_sheet, fit, load_image, load_mask, save_image, working_size


def noise(width=12, height=8):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def write(path, data):
    path.write_bytes(data)
    return path


def rejected(source, found, **options):
    with pytest.raises(InputError) as caught:
        load_image(source, **options)
    text = str(caught.value)
    assert text.startswith(options.get("option", "--image") + ": found ")
    assert "; allowed: " in text
    assert found in text
    assert "\n" not in text


def png_header(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b""))


class Piped:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)

    def isatty(self):
        return False


def test_plain_picture_is_read_unchanged_from_path_stdin_and_pil(tmp_path, monkeypatch):
    picture = noise()
    path = write(tmp_path / "a.png", encoded(picture))
    monkeypatch.setattr(sys, "stdin", Piped(encoded(picture)))
    for source in (path, str(path), "-", picture, Image.open(path)):
        loaded = load_image(source)
        assert loaded.image.mode == "RGB"
        assert loaded.image.tobytes() == picture.tobytes()
        assert loaded.original_size == (12, 8)
        assert loaded.warnings == []
    assert load_image(path).source == str(path)


def test_named_pipe_is_read(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, encoded(noise()))
    os.close(writer)
    assert load_image(f"/dev/fd/{reader}").image.tobytes() == noise().tobytes()
    os.close(reader)


def test_missing_folder_empty_and_foreign_files(tmp_path, monkeypatch):
    rejected(tmp_path / "none.png", "none.png")
    rejected(tmp_path, "a folder", option="image")
    rejected(write(tmp_path / "a\nb.png", b""), "zero-sized")
    rejected(write(tmp_path / "text.png", b"hello" * 100), "not a picture")
    rejected(write(tmp_path / "file", b"x") / "below.png", "unreadable")
    rejected("nul\0.png", "unreadable")
    rejected(7, "a int")
    rejected(Image.new("RGB", (0, 4)), "zero-sized")
    monkeypatch.setattr(sys, "stdin", Piped(b""))
    rejected("-", "standard input, zero-sized")
    monkeypatch.setattr(sys, "stdin", None)
    rejected("-", "no data on standard input")


def test_unreadable_file_names_the_reason(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = write(tmp_path / "a.png", encoded(noise()))
    monkeypatch.setattr("builtins.open", refuse)
    rejected(path, "unreadable (Permission denied)")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_truncated_file_is_an_input_error(tmp_path, kind, share):
    data = encoded(noise(40, 40), kind)
    rejected(write(tmp_path / "a.img", data[: int(len(data) * share)]), "a.img")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animation_is_rejected_and_a_single_frame_is_not(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    rejected(write(tmp_path / "a.img", moving), "animated")
    with Image.open(tmp_path / "a.img") as opened:
        rejected(opened, "animated")
    assert load_image(write(tmp_path / "b.img", encoded(frames[0], kind))).image.size == (8, 8)


def test_phone_photo_with_an_embedded_preview_is_a_still_picture(tmp_path):
    data = encoded(noise(), "MPO", save_all=True, append_images=[noise(6, 4)])
    assert load_image(write(tmp_path / "phone.jpg", data)).image.size == (12, 8)


def test_size_is_judged_from_the_header_before_decoding(tmp_path):
    rejected(write(tmp_path / "a.png", png_header(10001, 10000)), "100.0 megapixels")
    rejected(write(tmp_path / "b.png", png_header(60000, 60000)), "too large")
    # at the limit only the missing pixels are at fault, and Pillow's own lower limit says nothing
    rejected(write(tmp_path / "c.png", png_header(10000, 10000)), "truncated")


def test_transparency_is_composited_on_white_with_a_warning(tmp_path):
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    loaded = load_image(write(tmp_path / "a.png", encoded(picture)))
    assert [loaded.image.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0), (255, 255, 255)]
    assert len(loaded.warnings) == 1
    assert "composited on white" in loaded.warnings[0]
    assert load_image(picture.convert("LA")).warnings
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 9, 9])
    assert load_image(write(tmp_path / "p.png", encoded(palette, transparency=0))).image.getpixel((0, 0)) == (255,) * 3


def test_opaque_alpha_gives_no_warning():
    loaded = load_image(noise().convert("RGBA"))
    assert loaded.warnings == []
    assert loaded.image.tobytes() == noise().tobytes()


def test_exif_rotation_is_applied_and_not_carried_on(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = load_image(write(tmp_path / "a.png", encoded(noise(), exif=exif)))
    assert loaded.original_size == (8, 12)
    assert loaded.image.tobytes() == noise().transpose(Image.Transpose.ROTATE_270).tobytes()
    assert not loaded.image.getexif()
    assert loaded.image.info == {}


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "La", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
)
def test_every_8bit_mode_becomes_rgb(mode):
    assert load_image(Image.new(mode, (3, 2))).image.mode == "RGB"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16bit_is_scaled_not_clipped(tmp_path, kind):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image = load_image(write(tmp_path / "a.img", encoded(Image.fromarray(values), kind))).image
    assert [pixel[0] for pixel in np.asarray(image)[0]] == [0, 1, 128, 255]


def test_16bit_big_endian_and_rotated(tmp_path):
    picture = Image.frombytes("I;16B", (2, 1), b"\xff\xff\x80\x80")
    assert np.asarray(load_image(picture).image)[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize(
    ("values", "expected", "warned"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255], 0),
        ([0.0, 100.0, 255.0], [0, 100, 255], 0),
        ([-1.0, 0.0, 1.0], [0, 128, 255], 1),
        ([np.nan, 0.0, 1.0], [0, 0, 255], 1),
        ([500.0, 500.0, 500.0], [0, 0, 0], 1),
    ],
)
def test_float_pictures(values, expected, warned):
    loaded = load_image(Image.fromarray(np.array([values], dtype=np.float32)))
    assert np.asarray(loaded.image)[0, :, 0].tolist() == expected
    assert len(loaded.warnings) == warned


def test_callers_picture_is_left_alone():
    picture = noise()
    picture.info["icc_profile"] = b"profile"
    load_image(picture).image.putpixel((0, 0), (1, 2, 3))
    assert picture.tobytes() == noise().tobytes()
    assert picture.info == {"icc_profile": b"profile"}


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.sampled_from([64, 512, 1024]),
    st.sampled_from([8, 16, 64]),
)
@settings(max_examples=200, deadline=None)
def test_working_size_is_legal_bounded_and_keeps_the_aspect(original, base, multiple):
    width, height = working_size(original, base, multiple, square=False)
    assert width % multiple == height % multiple == 0
    assert multiple <= min(width, height)
    assert width * height <= 2 * base * base
    wanted = base * (original[0] / original[1]) ** 0.5
    if multiple <= min(wanted, base * base / wanted):
        assert abs(width - wanted) <= multiple / 2
    assert working_size(original, base, multiple, square=True) == (base, base)


def test_picture_of_the_working_size_passes_bit_for_bit():
    for size in ((64, 64), (48, 32)):
        picture, result = noise(*size), Image.new("RGB", size, "teal")
        fitted = fit(picture, size)
        assert fitted.image.tobytes() == picture.tobytes()
        assert fitted.restore(result).tobytes() == result.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (100, 37), (37, 100), (3000, 2), (64, 65)])
def test_odd_sizes_are_fitted_and_mapped_back(size):
    flat = Image.new("RGB", size, (10, 200, 30))
    for working in ((64, 64), (96, 48)):
        fitted = fit(flat, working)
        assert fitted.image.size == working
        assert {colour for _, colour in fitted.image.getcolors()} == {(10, 200, 30)}  # the padding has the edge colour
        restored = fitted.restore(fitted.image)
        assert restored.size == size
        assert restored.tobytes() == flat.tobytes()


def test_padding_is_centred_cropped_away_and_free_of_distortion():
    picture = Image.new("RGB", (128, 64), "white")
    picture.paste("black", (48, 16, 80, 48))  # a square: it must stay one
    fitted = fit(picture, (64, 64))
    assert fitted.box == (0, 16, 64, 48)
    dark = fitted.image.convert("L").point(lambda value: 255 if value < 128 else 0).getbbox()
    assert dark == (24, 24, 40, 40)
    marked = fitted.image.copy()
    marked.paste("red", (0, 0, 64, 16))
    assert fitted.restore(marked).tobytes() == fitted.restore(fitted.image).tobytes()
    with pytest.raises(ValueError, match="working size"):
        fitted.restore(picture)


def test_mask_is_binary_at_the_pictures_size_and_follows_the_fit(tmp_path):
    mask = Image.new("L", (64, 32), 0)
    mask.paste(200, (32, 0, 64, 32))
    path = write(tmp_path / "m.png", encoded(mask))
    loaded = load_mask(path, (128, 64))
    assert (loaded.mode, loaded.size, loaded.getbbox()) == ("L", (128, 64), (64, 0, 128, 64))
    assert {grey for _, grey in loaded.getcolors()} == {0, 255}
    working = fit(Image.new("RGB", (128, 64), "white"), (64, 64)).fit_mask(loaded)
    assert working.getbbox() == (32, 16, 64, 48)
    assert {grey for _, grey in working.getcolors()} == {0, 255}


def test_mask_that_does_not_fit_names_both_sizes(tmp_path):
    with pytest.raises(InputError, match=r"--mask: .*64x32 px .* 64x64 px"):
        load_mask(Image.new("L", (64, 32), 255), (64, 64))
    with pytest.raises(InputError, match="black everywhere"):
        load_mask(Image.new("RGBA", (8, 8), (255, 255, 255, 0)), (8, 8))
    with pytest.raises(InputError, match="--mask: found"):
        load_mask(tmp_path / "none.png", (8, 8))


def test_check_output_rejects_before_writing(tmp_path):
    write(tmp_path / "file", b"")
    (tmp_path / "dir.png").mkdir()
    cases = {"dir.png": "a folder", "out.tiff": "extension '.tiff'", "out": "extension ''", "none/o.png": "no folder"}
    for name, found in {**cases, "file/o.png": "no folder"}.items():
        with pytest.raises(InputError, match=found):
            check_output(tmp_path / name)
    assert check_output(str(tmp_path / "OUT.JPG")) == tmp_path / "OUT.JPG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir.png", "file"]


def test_check_output_reports_a_folder_that_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"--output: found the folder .*not writable"):
        check_output(tmp_path / "o.png")


def test_png_keeps_every_pixel(tmp_path):
    path = save_image(noise(), tmp_path / "o.png", {"seed": 1})
    assert load_image(path).image.tobytes() == noise().tobytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.png"]


@pytest.mark.parametrize("name", ["o.png", "o.jpg"])
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, name):
    save_image(noise(), tmp_path / name, {"seed": 1})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FreectlError, match=r"^--output: could not write .*: No space left on device$") as caught:
        save_image(Image.new("RGB", (9, 9)), tmp_path / name, {"seed": 2})
    assert caught.value.exit_code == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_interrupt_while_saving_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_image(noise(), tmp_path / "o.webp", {"seed": 1})
    assert list(tmp_path.iterdir()) == []


def test_picture_too_wide_for_the_format_is_one_line(tmp_path):
    with pytest.raises(FreectlError, match="could not write"):
        save_image(Image.new("RGB", (17000, 1)), tmp_path / "o.webp")
    assert list(tmp_path.iterdir()) == []


def test_sheet_shows_every_picture_enlarged_by_whole_pixels():
    small = noise(8, 8)
    sheet = compare_sheet([("in", small), ("out", small), ("a very long label " * 20, small)], columns=2, scale=16)
    pixels = np.asarray(sheet)
    enlarged = np.asarray(small).repeat(16, 0).repeat(16, 1)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, enlarged.shape)[:, :, 0]
    corner = [(y, x) for y, x in np.argwhere((pixels == enlarged[0, 0]).all(-1)) if y < windows.shape[0]]
    hits = [(y, x) for y, x in corner if x < windows.shape[1] and (windows[y, x] == enlarged).all()]
    assert len(hits) == 3
    assert len({x for _, x in hits}) == 2


def test_sheet_defaults_and_limits():
    assert compare_sheet([("a", noise(64, 64)), ("b", noise(300, 200))]).width > 600
    assert compare_sheet([("", noise(2, 2))], scale=1).size[0] == 18
    for arguments in ({"pictures": []}, {"pictures": [("a", noise())], "columns": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            compare_sheet(**arguments)
