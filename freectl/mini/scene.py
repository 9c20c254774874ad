"""Scenes of the embedded world: a dataclass, a deterministic renderer, and the exact mask of the object."""

import math
import random
from dataclasses import asdict, dataclass, replace
from functools import cache

from PIL import Image, ImageChops, ImageFilter

from freectl.files.pictures import FORMATS
from freectl.mini import SPRITES
from freectl.mini.domain import ARTWORK, BACKGROUNDS, HELD_OUT, OBJECTS, PICTURE_SIZE, STYLES, caption

SUPERSAMPLING = 2
MAX_ROTATION = 15.0
MIN_SCALE, MAX_SCALE = 0.6, 0.95
INK = (35, 35, 40)


@dataclass(frozen=True)
class Scene:
    """One object on one background; rendering is a function of these fields alone.

    Attributes:
        object, style, background: words of `freectl.mini.domain`.
        artwork: the drawing that a sketch or silhouette derives from; equal to `style` for artwork styles.
        rotation: degrees, counter-clockwise, -15 to 15.
        scale: side of the object's square relative to the picture's, 0.6 to 0.95.
        shift: (x, y) of the object's centre from the picture's, relative to the picture's side.
        flip: mirrored left to right.
    """

    object: str
    style: str
    background: str
    artwork: str
    rotation: float = 0.0
    scale: float = 0.8
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False

    @property
    def caption(self) -> str:
        """The full caption, e.g. "a fluent fox on a blue background"."""
        return caption(self.style, self.object, self.background)

    def with_words(self, **words: str) -> "Scene":
        """The same pose with other words: the exact answer to an edit of `object`, `style` or `background`."""
        style = words.get("style", self.style)
        if style in ARTWORK:
            words["artwork"] = style
        if style == "sketch":
            words["background"] = "white"
        return replace(self, **words)  # type: ignore[arg-type]

    def to_dict(self) -> dict:
        """Plain values for JSON, the caption included."""
        return {**asdict(self), "shift": list(self.shift), "caption": self.caption}


def random_scene(
    rng: random.Random,
    *,
    styles: tuple[str, ...] = STYLES,
    held_out: bool | None = None,
) -> Scene:
    """Draw a scene.

    Args:
        rng: the only source of randomness.
        styles: styles to draw from.
        held_out: True draws held-out (object, style) pairs only, False never draws them, None draws both.
    """
    while True:
        style, object_ = rng.choice(styles), rng.choice(tuple(OBJECTS))
        if held_out is None or ((object_, style) in HELD_OUT) == held_out:
            break
    scale = rng.uniform(MIN_SCALE, MAX_SCALE)
    room = (1 - scale) / 2
    return Scene(
        object=object_,
        style=style,
        background="white" if style == "sketch" else rng.choice(tuple(BACKGROUNDS)),
        artwork=style if style in ARTWORK else rng.choice(ARTWORK),
        rotation=round(rng.uniform(-MAX_ROTATION, MAX_ROTATION), 2),
        scale=round(scale, 4),
        shift=(round(rng.uniform(-room, room), 4), round(rng.uniform(-room, room), 4)),
        flip=rng.random() < 0.5,
    )


@cache
def sprite(object: str, artwork: str, style: str) -> Image.Image:
    """The RGBA sprite, premultiplied (mode "RGBa") so that resampling leaves no dark fringe."""
    with Image.open(SPRITES, formats=FORMATS) as sheet:
        side = sheet.height // len(ARTWORK)
        x, y = list(OBJECTS).index(object) * side, ARTWORK.index(artwork) * side
        art = sheet.convert("RGBA").crop((x, y, x + side, y + side))
    if style == "sketch":
        art = _ink(art, _outline(art, side))
    elif style == "silhouette":
        art = _ink(art, art.getchannel("A"))
    return art.convert("RGBa")


def _ink(art: Image.Image, alpha: Image.Image) -> Image.Image:
    ink = Image.new("RGBA", art.size, (*INK, 255))
    ink.putalpha(alpha)
    return ink


def _outline(art: Image.Image, side: int) -> Image.Image:
    """Edge strength of the drawing over white, as an alpha channel: differences of dilated and eroded channels."""
    blur, window = 0.8 * side / 96, 2 * round(side / 96) + 1
    flat = Image.new("RGB", art.size, (255, 255, 255))
    flat.paste(art, (0, 0), art)
    edges = Image.new("L", art.size)
    for channel in (*flat.split(), art.getchannel("A")):
        smooth = channel.filter(ImageFilter.GaussianBlur(blur))
        most, least = (smooth.filter(kind(window)) for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
        edges = ImageChops.lighter(edges, ImageChops.subtract(most, least))
    return edges.point(lambda e: max(0, min(255, int((e - 28) * 4.5))))


def _placed(scene: Scene, size: int) -> Image.Image:
    """The object alone on a transparent picture, premultiplied."""
    art = sprite(scene.object, scene.artwork, scene.style)
    if (shrink := art.width // (2 * size)) > 1:  # bilinear sampling of an artwork that is much finer would skip pixels
        art = art.reduce(shrink)
    supersampling = SUPERSAMPLING
    fine = size * supersampling
    per_pixel = art.width / (scene.scale * fine)
    angle = math.radians(scene.rotation)
    cos, sin = math.cos(angle) * per_pixel, math.sin(angle) * per_pixel
    centre_x, centre_y = fine * (0.5 + scene.shift[0]), fine * (0.5 + scene.shift[1])
    mirror = -1 if scene.flip else 1
    half = art.width / 2
    matrix = (
        mirror * cos,
        -mirror * sin,
        half - mirror * (cos * centre_x - sin * centre_y),
        sin,
        cos,
        half - (sin * centre_x + cos * centre_y),
    )
    placed = art.transform((fine, fine), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return placed.reduce(supersampling)


def render(scene: Scene, size: int = PICTURE_SIZE) -> Image.Image:
    """The picture, RGB, `size` x `size`."""
    placed = _placed(scene, size)
    ground = Image.new("RGB", (size, size), BACKGROUNDS[scene.background])
    inverse = ImageChops.invert(placed.getchannel(3))
    dimmed = ImageChops.multiply(ground, Image.merge("RGB", [inverse] * 3))
    return ImageChops.add(dimmed, Image.merge("RGB", placed.split()[:3]))


def render_mask(scene: Scene, size: int = PICTURE_SIZE) -> Image.Image:
    """The exact foreground mask, mode "L", 0 or 255; a sketch's mask is that of the drawing it outlines."""
    style = "silhouette" if scene.style == "sketch" else scene.style
    alpha = _placed(replace(scene, style=style), size).getchannel(3)
    return alpha.point(lambda a: 255 * (a >= 128))
