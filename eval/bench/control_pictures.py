"""Condition pictures of the embedded world: what one or two objects look like as a sketch, edges, a mesh and so on.

Each is a function of the scenes and the size alone, and shows their outline, whose exact mask is known.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy.ndimage import distance_transform_edt

from eval.bench.world import pixels
from freectl.mini.scene import INK, Scene, render, render_mask
from freectl.preprocess import parse

FAR_GREY = 64
"""Of a depth picture's outline; the middle is 255, the background 0, as `freectl.preprocess.mesh` has it."""
CELLS = 8
"""Cells a side of the blob, and meshes of the wire."""
Draw = Callable[[Scene, int], Image.Image]


def true_mask(shown: Sequence[Scene], size: int) -> Image.Image:
    """Where the objects are, mode "L", 0 or 255."""
    mask = Image.new("L", (size, size))
    for scene in shown:
        mask = ImageChops.lighter(mask, render_mask(scene, size))
    return mask


def together(scenes: Sequence[Scene], size: int, draw: Draw = render) -> Image.Image:
    """Several objects in one picture, each over those before it; the ground is the first one's."""
    picture, edge = draw(scenes[0], size), ImageFilter.MaxFilter(2 * pixels(1, size) + 1)
    for scene in scenes[1:]:
        picture.paste(draw(scene, size), (0, 0), render_mask(scene, size).filter(edge))
    return picture


def on_white(style: str) -> Draw:
    """The scene in a derived style on white."""
    return lambda scene, size: render(scene.with_words(style=style, background="white"), size)


def canny(scene: Scene, size: int) -> Image.Image:
    """Edges of the drawing as `freectl control --preprocess canny` finds them, dark on white."""
    return parse("canny").prepare("cpu")(render(scene, size)).convert("RGB")


def depth(scene: Scene, size: int) -> Image.Image:
    """A cushion over the outline, near is bright: its height is a quarter circle of the distance to the edge."""
    inside = np.asarray(render_mask(scene, size)) >= 128
    far = distance_transform_edt(inside)
    share = far / max(1.0, float(far.max()))
    height = np.sqrt(1 - (1 - share) ** 2)
    values = np.where(inside, FAR_GREY + (255 - FAR_GREY) * height, 0)
    return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")


def wire(scene: Scene, size: int) -> Image.Image:
    """A net of triangles cut off at the outline, and the outline, dark on white."""
    mask = render_mask(scene, size)
    lines, step, width = Image.new("L", (size, size)), size // CELLS, pixels(1, size)
    pen = ImageDraw.Draw(lines)
    for at in range(-size, 2 * size, step):
        pen.line([(at, 0), (at, size)], fill=255, width=width)
        pen.line([(0, at), (size, at)], fill=255, width=width)
        pen.line([(at, 0), (at + size, size)], fill=255, width=width)
    edge = ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(2 * width + 1)))
    drawn = ImageChops.lighter(ImageChops.multiply(lines, mask), edge)
    white = Image.new("RGB", (size, size), (255, 255, 255))
    return Image.composite(Image.new("RGB", (size, size), INK), white, drawn)


def blob(scene: Scene, size: int) -> Image.Image:
    """The silhouette at `CELLS` x `CELLS` pixels, brought back to the size smoothly."""
    small = on_white("silhouette")(scene, size).resize((CELLS, CELLS), Image.Resampling.BOX)
    return small.resize((size, size), Image.Resampling.BICUBIC)
