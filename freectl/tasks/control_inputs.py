"""Condition pictures as they are given to `freectl.control`: paired, checked, preprocessed, brought to size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from freectl import methods
from freectl.errors import InputError
from freectl.files import pictures
from freectl.files.pictures import Fitted, Size
from freectl.preprocess import Apply, Preprocess, mesh, parse
from freectl.tasks import options as config
from freectl.tasks.options import ControlOptions

DEFAULT_VIEW = "30,20"
MULTIPLE = 8
Draw = Callable[[Size], Fitted]
"""From the working size to a condition at it."""


@dataclass(frozen=True)
class Part:
    """What of a condition picture one concept stands for.

    Attributes:
        concept: word(s), or None for the picture as a whole.
        source_prompt: what the picture shows; None = the family's seed template with the picture's concepts.
        mask: picture of the condition's size; "attention"; or None for everywhere.
    """

    concept: str | None
    source_prompt: str | None
    mask: Image.Image | str | None


@dataclass(frozen=True)
class Checked:
    """A condition that has been read and checked; either `picture` or `mesh` is there."""

    name: str
    picture: Image.Image | None
    mesh: mesh.Mesh | None
    view: tuple[float, float]
    preprocess: Preprocess
    parts: list[Part]
    warnings: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What has been made of what was given; empty if nothing has."""
        if self.mesh is not None:
            return "normal" if self.preprocess.kind.name == "normal" else "depth"
        return "" if self.preprocess.kind.name == "none" else self.preprocess.kind.name


def checked_conditions(conditions: Sequence[Any], options: ControlOptions) -> list[Checked]:
    """Pair the options with the conditions by position, read the pictures and check everything.

    A single condition with several concepts is followed for each of them at once.

    Raises:
        InputError: numbers that do not pair, or anything about a condition that cannot be used.
    """
    count = len(conditions)
    parts = max(1, len(options.concept)) if count == 1 else count
    names = ("concept", "source_prompt", "mask")
    concepts, sources, masks = (_paired(name, getattr(options, name), parts, options) for name in names)
    preprocesses = [parse(text or "none") for text in _paired("preprocess", options.preprocess, count, options)]
    views = _paired("view", options.view, count, options)
    each = list(zip(concepts, sources, masks, strict=True))
    grouped = [each] if count == 1 else [[one] for one in each]
    if options.view and not any(mesh.is_mesh(one) for one in conditions):
        raise InputError(
            "--view", f"'{options.view[0]}' without a mesh", f"with a mesh alone ({', '.join(mesh.SUFFIXES)})"
        )
    for given in preprocesses:
        given.check()
    each_one = zip(conditions, preprocesses, views, grouped, strict=True)
    return [_checked(*one, options.prompt, options.background) for one in each_one]


def _paired(name: str, values: Sequence[str], count: int, options: ControlOptions) -> list[str | None]:
    if len(values) <= 1:
        return [values[0] if values else None] * count
    if len(values) != count:
        conditions = len(options.condition)
        per = "concept" if conditions == 1 and name in ("source_prompt", "mask") else "condition"
        given = f"{len(values)} for {count} --{per}{'' if count == 1 else 's'}"
        raise InputError(f"--{name.replace('_', '-')}", given, f"one for all, or one for each --{per}")
    return list(values)


def _checked(
    given: Any,
    preprocess: Preprocess,
    view: str | None,
    parts: Sequence[tuple[str | None, str | None, str | None]],
    prompt: str,
    background: str,
) -> Checked:
    angles = mesh.parse_view(view or DEFAULT_VIEW)
    if mesh.is_mesh(given):
        if preprocess.kind.name not in ("none", "depth", "normal"):
            raise InputError(
                "--preprocess", f"'{preprocess.kind.name}' for the mesh '{given}'", "depth (default), normal"
            )
        loaded = mesh.load_mesh(str(given))
        return Checked(str(given), None, loaded, angles, preprocess, [_part(*part, prompt, None) for part in parts])
    picture = pictures.load_image(given, "--condition", background, reduced=True)
    return Checked(
        picture.source,
        picture.image,
        None,
        angles,
        preprocess,
        [_part(*part, prompt, picture.image.size) for part in parts],
        picture.warnings,
    )


def _part(concept: str | None, source: str | None, mask: str | None, prompt: str, size: Size | None) -> Part:
    if concept is not None:
        config.check_concept(concept, prompt, source or "")
    if mask is None:
        named = concept is not None and (source is None or config.has_words(source, concept))
        return Part(concept, source, "attention" if named else None)
    if mask == "attention":
        config.check_attention(concept, source if source is not None else concept or "")
    if mask in ("attention", "none"):
        return Part(concept, source, "attention" if mask == "attention" else None)
    if size is None:
        raise InputError("--mask", f"'{mask}' for a mesh, which has no size", "none, attention")
    return Part(concept, source, pictures.load_mask(mask, size))


def check_alone(method: Any, checked: Sequence[Checked]) -> None:
    """A method without conditions edits the one that is given.

    Raises:
        InputError: several conditions, or a concept or mask that it does not use.
    """
    parts = [part for one in checked for part in one.parts]
    able = f"one; several with {', '.join(methods.of_conditions())}"
    if len(checked) > 1:
        raise InputError("--condition", f"{len(checked)} for {method.name}, which edits a picture", able)
    for option, given in (("concept", parts[0].concept), ("mask", parts[0].mask)):
        if given is not None and option not in method.inputs:
            raise InputError(f"--{option}", f"given to {method.name}, which does not use it", "nothing")
    if len(parts) > 1:
        raise InputError("--concept", f"{len(parts)} for {method.name}, which edits a picture", "one")


def drawings(conditions: Sequence[Checked], device: str) -> list[Draw]:
    """Functions from the working size to each condition at it; preprocessors' models are loaded, run and let go here.

    Raises:
        FreectlError: a preprocessor's weights cannot be had, or it finds nothing in the picture.
    """
    loaded: dict[str, Any] = {}
    found: list[Draw] = []
    for one in conditions:
        if one.mesh is not None:
            found.append(_mesh_drawing(one))
            continue
        key = repr((one.preprocess.kind.name, sorted(one.preprocess.values.items())))
        apply = loaded[key] if key in loaded else loaded.setdefault(key, one.preprocess.prepare(device))
        found.append(_picture_drawing(one, apply))
    return found


def _mesh_drawing(one: Checked) -> Draw:
    def draw(size: Size) -> Fitted:
        picture = mesh.picture(mesh.render(one.mesh, size, one.view), one.label)  # type: ignore[arg-type]
        return Fitted(picture, size, (0, 0, *size))

    return draw


def _picture_drawing(one: Checked, apply: Apply) -> Draw:
    picture: Image.Image = one.picture  # type: ignore[assignment]
    if one.preprocess.kind.drawn:
        return lambda size: letterboxed(picture, size, apply)
    made = apply(picture)
    return lambda size: letterboxed(made, size)


def letterboxed(image: Image.Image, size: Size, apply: Apply | None = None) -> Fitted:
    """The picture at the largest size within `size`, after `apply` if given, padded in its edge colour.

    A picture of nearly the aspect of a size that is not square is stretched by less than one multiple instead, as
    `image_io.fit` does.
    """
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size[0] != size[1] and all(full - part < MULTIPLE for full, part in zip(size, inner, strict=True)):
        inner = size
    original, image = image.size, image.convert("RGB")
    small = image if image.size == inner else image.resize(inner, Image.Resampling.LANCZOS)
    if apply is not None:
        image = small = apply(small)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = Image.new("RGB", size, pictures.edge_colour(image))
    canvas.paste(small, (left, top))
    return Fitted(canvas, original, (left, top, left + inner[0], top + inner[1]))


def given_size(width: int | None, height: int | None, default: Size) -> Size:
    """Width and height in px; one of them alone keeps the aspect of the default."""
    if width is None and height is None:
        return default
    across = width or max(MULTIPLE, round((height or 0) * default[0] / default[1] / MULTIPLE) * MULTIPLE)
    down = height or max(MULTIPLE, round(across * default[1] / default[0] / MULTIPLE) * MULTIPLE)
    return across, down
