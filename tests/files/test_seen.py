"""What a person sees in a viewer is what the program sees: orientation, profile, depth, transparency, arrays."""

import io
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps

from freectl.errors import InputError
from freectl.files import seen as seeing
from freectl.files.pictures import FORMATS, all_as_seen, as_seen, fit, load_image, load_mask

P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Primaries as XYZ columns, adapted to D50."""


def noise(width=12, height=8, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def fixed(value):
    return struct.pack(">i", round(value * 65536))


def profile(primaries, gamma):
    """An ICC 2.4 display profile: three primaries and one power law."""
    white = b"XYZ \0\0\0\0" + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    tags = {b"wtpt": white, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"desc": b"desc\0\0\0\0\0\0\0\2x\0" + bytes(80)}
    for name, column in zip("rgb", primaries.T, strict=True):
        tags[f"{name}XYZ".encode()] = b"XYZ \0\0\0\0" + b"".join(map(fixed, column))
        tags[f"{name}TRC".encode()] = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, body in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">IIIIII", offset + len(data), 0, 0x02400000, *struct.unpack(">III", b"mntrRGB XYZ "))
    head += bytes(12) + b"acsp" + bytes(28) + white[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def through(values, primaries, gamma):
    """Closed form: power law, primaries to XYZ to sRGB's primaries, sRGB's curve; 0 to 255."""
    linear = (values.astype(np.float64) / 255) ** gamma @ primaries.T @ np.linalg.inv(SRGB).T
    linear = linear.clip(0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return curve * 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_pillows(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise().save(tmp_path / "a.png", exif=exif)
    loaded = load_image(tmp_path / "a.png")
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))
    assert loaded.image.tobytes() == expected.tobytes()
    assert loaded.original_size == expected.size
    assert loaded.image.info == {}


def test_a_wide_gamut_profile_is_converted_by_its_equations(tmp_path):
    picture = noise(32, 32)
    picture.save(tmp_path / "p3.png", icc_profile=profile(P3, 2.2))
    expected = through(np.asarray(picture), P3, 2.2)
    found = np.asarray(as_seen(tmp_path / "p3.png")).astype(float)
    assert np.abs(found - expected).max() <= 2.5  # lcms computes in 16 bits and tables
    assert np.abs(found - np.asarray(picture)).max() > 20  # and it is not the picture as it was stored


def test_a_profile_that_says_srgb_changes_nothing_and_a_broken_one_is_told(tmp_path):
    from PIL import ImageCms

    plain = noise()
    plain.save(tmp_path / "s.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert as_seen(tmp_path / "s.png").tobytes() == plain.tobytes()
    plain.save(tmp_path / "b.png", icc_profile=b"no profile")
    loaded = load_image(tmp_path / "b.png")
    assert loaded.image.tobytes() == plain.tobytes()
    assert "profile that is damaged" in loaded.warnings[0]


@pytest.mark.parametrize("colour", ["white", "#204060"])
def test_transparency_lies_on_the_chosen_background(colour):
    picture = noise(channels=4)
    pixels = np.asarray(picture).astype(np.float64)
    alpha = pixels[..., 3:] / 255
    below = np.array([255, 255, 255] if colour == "white" else [0x20, 0x40, 0x60])
    loaded = load_image(picture, background=colour)
    assert np.abs(np.asarray(loaded.image) - (alpha * pixels[..., :3] + (1 - alpha) * below)).max() <= 1
    assert np.array_equal(np.asarray(loaded.alpha), pixels[..., 3])
    assert colour in loaded.warnings[0]


@pytest.mark.parametrize("colour", ["transparentish", "#12", "", "#11223344"])
def test_a_background_that_is_no_colour_is_refused(colour):
    with pytest.raises(InputError, match=r"^--background: found .*; allowed: a colour"):
        load_image(noise(), background=colour)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "F", "CMYK", "LA"])
def test_strips_give_what_the_whole_gives(mode, monkeypatch):
    picture = noise(40, 30, 4).convert("RGB")
    if mode in ("I;16", "F"):
        values = np.random.default_rng(1).random((30, 40))
        picture = Image.fromarray((values * 65535).astype(np.uint16) if mode == "I;16" else values.astype(np.float32))
    else:
        picture = (noise(40, 30, 4) if "A" in mode else picture).convert(mode)
    whole = load_image(picture)
    monkeypatch.setattr(seeing, "STRIP", 7 * 40)
    strips = load_image(picture)
    assert strips.image.tobytes() == whole.image.tobytes()
    assert strips.warnings == whole.warnings


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_large_picture_is_read_reduced_where_that_is_allowed(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(seeing, "REDUCED_ABOVE", 10_000)
    picture = noise(8, 6).resize((403, 301), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.img", kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    small, whole = load_image(tmp_path / "a.img", reduced=True), load_image(tmp_path / "a.img")
    assert whole.image.size == whole.original_size == small.original_size == (301, 403)
    assert small.image.size == (76, 101)
    first = 0 if kind == "TIFF" else 1
    boxed = whole.image.crop((first, 0, first + 300, 400)).resize((75, 100), Image.Resampling.BOX)
    left = 0 if kind == "TIFF" else 1  # Pillow turns a TIFF before it is reduced: the odd column is at the other end
    mine = small.image.crop((left, 0, left + 75, 100))
    assert np.abs(np.asarray(mine).astype(int) - np.asarray(boxed)).mean() < 3
    fitted = fit(small.image, (64, 80), small.original_size)
    assert fitted.restore(fitted.image).size == (301, 403)


def test_many_megapixels_are_read_in_one_copy(tmp_path):
    side = 8200  # 67 megapixels
    Image.new("RGB", (side, side), "teal").save(tmp_path / "a.jpg", quality=50)
    Image.new("RGBA", (side, side), (0, 99, 99, 200)).save(tmp_path / "a.png", compress_level=1)
    code = (
        "import resource, sys; from freectl.files.pictures import load_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = load_image(sys.argv[1], reduced=True)\n"
        "assert found.original_size == (8200, 8200) and found.image.width == 2050, found\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    peaks = {}
    for name in ("a.jpg", "a.png"):
        run = subprocess.run([sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True, check=True)
        peaks[name] = int(run.stdout)
    assert peaks["a.jpg"] < 120  # decoded at a quarter of its sides
    assert peaks["a.png"] < 340  # 257 MiB as Pillow holds it, and strips


ARRAYS = [
    np.asarray(noise()),
    np.asarray(noise(channels=1)),
    np.asarray(noise()).astype(np.float32) / 255,
    np.asarray(noise(channels=1)).astype(np.float64) / 255,
    torch.from_numpy(np.array(noise())).permute(2, 0, 1),
    torch.from_numpy(np.array(noise())).permute(2, 0, 1).float() / 255,
    torch.from_numpy(np.array(noise())).permute(2, 0, 1).float() / 127.5 - 1,
    (torch.from_numpy(np.array(noise())).permute(2, 0, 1).double() / 255)[None],
]


@pytest.mark.parametrize("index", range(len(ARRAYS)))
def test_arrays_and_tensors_are_the_pictures_they_were_made_of(index):
    array = ARRAYS[index]
    grey = array.ndim == 2
    expected = noise(channels=1).convert("RGB") if grey else noise()
    assert as_seen(array).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["np", "pt"])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_float_batches_are_what_diffusers_makes_of_them(kind, low):
    generator = torch.Generator().manual_seed(3)
    batch = torch.rand(3, 3, 16, 24, generator=generator) * (1 - low) + low
    given = batch if kind == "pt" else batch.permute(0, 2, 3, 1).numpy()
    processor = VaeImageProcessor(do_resize=False)
    expected = processor.postprocess(processor.preprocess(given), output_type="pil")
    found = all_as_seen(given)
    assert len(found) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= 1  # rounding of halves
    assert [one.tobytes() for one in all_as_seen(list(given))] == [one.tobytes() for one in found]


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 4, 5)), "(4, 4, 5)"),
        (np.zeros((2, 4, 4, 3)), "2 pictures"),
        (np.full((4, 4, 3), 255.0), "floats from 255 to 255"),
        (np.full((4, 4, 3), np.nan), "not numbers"),
        (np.zeros((4, 4, 3), dtype=np.int64), "int64"),
        (np.zeros((0, 4, 3)), "(0, 4, 3)"),
        (torch.zeros(1, 4, 8, 8), "(1, 4, 8, 8)"),
        (torch.zeros(8, 8, 3), "(8, 8, 3)"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused_by_name(array, found):
    with pytest.raises(InputError) as caught:
        as_seen(array, "appearance_image")
    assert str(caught.value).startswith("appearance_image: found ")
    assert found in str(caught.value)


def test_an_array_is_a_mask_too():
    array = np.zeros((8, 8))
    array[2:4, 2:4] = 1
    assert load_mask(array, (8, 8)).getbbox() == (2, 2, 4, 4)


def test_lists_and_nothing():
    assert [one.size for one in all_as_seen([noise(4, 4), np.zeros((2, 6, 5, 3))])] == [(4, 4), (5, 6), (5, 6)]
    with pytest.raises(InputError, match="no picture"):
        all_as_seen([])


def heic():
    pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    noise(8, 6).resize((128, 96), Image.Resampling.BICUBIC).save(stream, "HEIF", quality=-1)
    return stream.getvalue()


def test_heic_is_read_where_its_reader_is_installed_and_named_where_not(tmp_path, monkeypatch):
    from freectl.files import opening

    path = tmp_path / "a.heic"
    path.write_bytes(heic())
    expected = np.asarray(noise(8, 6).resize((128, 96), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(as_seen(path)) - expected).mean() < 8
    monkeypatch.setattr(opening, "FORMATS", tuple(name for name in FORMATS if name != "HEIF"))
    with pytest.raises(InputError, match=r"a HEIC picture, .*pillow-heif.*freectl\[heic\]"):
        as_seen(path)


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"%PDF-1.7", "a PDF"), (b"<?xml?><svg/>", "an SVG"), (b"<!doctype html><html>", "a web page")],
)
def test_other_kinds_of_file_are_named(tmp_path, data, found):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=found):
        as_seen(tmp_path / "a.png")


def test_addresses_pipes_devices_and_impossible_names_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    for path, found in {
        "https://example.org/a.png": "a web address",
        str(tmp_path / "fifo.png"): "a named pipe",
        "/dev/zero": "a device",
        "x" * 300: "File name too long",
        str(tmp_path): "a folder",
    }.items():
        with pytest.raises(InputError, match=found):
            load_image(path)


def test_what_is_piped_in_is_bounded(monkeypatch):
    from freectl.files import opening

    monkeypatch.setattr(opening, "MAX_BYTES", 1000)
    reader, writer = os.pipe()
    os.write(writer, bytes(2000))
    os.close(writer)
    with pytest.raises(InputError, match="more than"):
        load_image(f"/dev/fd/{reader}")


def test_pages_of_a_tiff_are_not_all_read(tmp_path):
    pages = [Image.new("L", (8, 8), i) for i in range(50)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "a.tif") as opened:
        with pytest.raises(InputError, match="several pages"):
            load_image(opened)
        assert opened._n_frames is None  # what Pillow learns by reading them all
