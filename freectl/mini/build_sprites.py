"""Build `sprites.webp` from the three emoji packages; run once, by hand: `python -m freectl.mini.build_sprites DIR`.

DIR holds the unpacked npm packages in folders named after them:
`emoji-datasource-google` (Noto Emoji, Apache-2.0), `emoji-datasource-twitter` (Twemoji, CC-BY 4.0) and
`fluent-emoji-3d` (Fluent Emoji, MIT; npm name `@lobehub/fluent-emoji-3d`). The result is one lossless sheet: a row an
artwork style, a column an object, each cell 96 x 96 RGBA.
"""

import argparse
from pathlib import Path

from PIL import Image

from freectl.files.pictures import FORMATS
from freectl.mini import SPRITES
from freectl.mini.domain import ARTWORK, OBJECTS

SPRITE_SIZE = 96
MARGIN = 3  # outlines of the sketch style reach this far beyond the drawing
SOURCES = {
    "noto": "emoji-datasource-google/img/google/64/{code}.png",
    "twemoji": "emoji-datasource-twitter/img/twitter/64/{code}.png",
    "fluent": "fluent-emoji-3d/assets/{code}.webp",
}


def find_picture(folder: Path, style: str, code: str) -> Path:
    """Path of one emoji; some sets append the variation selector fe0f to the code point."""
    for name in (code, f"{code}-fe0f"):
        path = folder / SOURCES[style].format(code=name)
        if path.exists():
            return path
    raise FileNotFoundError(f"no picture of {code} under {folder / SOURCES[style]}")


def normalise(picture: Image.Image) -> Image.Image:
    """Crop to the visible part, centre it on a square, and resize it to the sprite size."""
    picture = picture.convert("RGBA")
    picture = picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    inner = SPRITE_SIZE - 2 * MARGIN
    sprite = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    sprite.paste(square.resize((inner, inner), Image.Resampling.LANCZOS), (MARGIN, MARGIN))
    return sprite


def build(folder: Path, output: Path = SPRITES) -> None:
    """Write the sprite sheet.

    Raises:
        FileNotFoundError: a package or an emoji is missing under `folder`.
    """
    sheet = Image.new("RGBA", (SPRITE_SIZE * len(OBJECTS), SPRITE_SIZE * len(ARTWORK)))
    for row, style in enumerate(ARTWORK):
        for column, code in enumerate(OBJECTS.values()):
            with Image.open(find_picture(folder, style, code), formats=FORMATS) as picture:
                sheet.paste(normalise(picture), (column * SPRITE_SIZE, row * SPRITE_SIZE))
    sheet.save(output, lossless=True, exact=False, quality=100, method=6)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
