"""Build `sprites.webp` from three emoji packages; run once, by hand: `python -m freectl.mini.build_sprites DIR`.

DIR holds the unpacked npm packages in folders named after them: `noto` (`@iconify-json/noto`, Noto Emoji, Apache-2.0),
`svg` (`@twemoji/svg`, Twemoji, CC-BY 4.0) and `fluent-emoji-3d` (`@lobehub/fluent-emoji-3d`, Fluent Emoji, MIT). Vector
artwork is drawn by resvg (`pip install resvg-py`). The result is one lossless sheet: a row an artwork style, a column
an object, each cell 256 x 256 RGBA.
"""

import argparse
import io
import json
from pathlib import Path

from PIL import Image

from freectl.files.pictures import FORMATS
from freectl.mini import SPRITES
from freectl.mini.domain import ARTWORK, OBJECTS

SPRITE_SIZE = 256
MARGIN = 8  # outlines of the sketch style reach this far beyond the drawing
DRAWN_SIZE = 1024


def from_svg(text: str) -> Image.Image:
    """A drawing at four times the sprite's size, for a clean reduction."""
    from resvg_py import svg_to_bytes

    picture = svg_to_bytes(svg_string=text, width=DRAWN_SIZE, height=DRAWN_SIZE)
    return Image.open(io.BytesIO(bytes(picture)), formats=FORMATS).convert("RGBA")


def noto(folder: Path, code: str) -> Image.Image:
    """One emoji of the icon set, whose file maps names to the bodies of SVGs."""
    names = json.loads((folder / "noto" / "chars.json").read_text())
    icons = json.loads((folder / "noto" / "icons.json").read_text())
    body, side = icons["icons"][names[code]]["body"], icons["width"]
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return from_svg(f'{head} viewBox="0 0 {side} {side}">{body}</svg>')


def twemoji(folder: Path, code: str) -> Image.Image:
    """One emoji as an SVG file."""
    return from_svg((folder / "svg" / f"{code}.svg").read_text())


def fluent(folder: Path, code: str) -> Image.Image:
    """One emoji as a rendering; some names append the variation selector fe0f to the code point."""
    for name in (code, f"{code}-fe0f"):
        path = folder / "fluent-emoji-3d" / "assets" / f"{name}.webp"
        if path.exists():
            with Image.open(path, formats=FORMATS) as picture:
                return picture.convert("RGBA")
    raise FileNotFoundError(f"no picture of {code} under {folder / 'fluent-emoji-3d'}")


READERS = {"noto": noto, "twemoji": twemoji, "fluent": fluent}


def normalise(picture: Image.Image) -> Image.Image:
    """Crop to the visible part, centre it on a square, and resize it to the sprite size."""
    picture = picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    inner = SPRITE_SIZE - 2 * MARGIN
    sprite = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    # premultiplied, so that the reduction leaves no fringe
    small = square.convert("RGBa").resize((inner, inner), Image.Resampling.LANCZOS).convert("RGBA")
    sprite.paste(small, (MARGIN, MARGIN))
    return sprite


def build(folder: Path, output: Path = SPRITES) -> None:
    """Write the sprite sheet.

    Raises:
        FileNotFoundError: a package or an emoji is missing under `folder`.
    """
    sheet = Image.new("RGBA", (SPRITE_SIZE * len(OBJECTS), SPRITE_SIZE * len(ARTWORK)))
    for row, style in enumerate(ARTWORK):
        for column, code in enumerate(OBJECTS.values()):
            sheet.paste(normalise(READERS[style](folder, code)), (column * SPRITE_SIZE, row * SPRITE_SIZE))
    sheet.save(output, lossless=True, exact=False, quality=100, method=6)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
