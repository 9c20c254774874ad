"""The preprocessors by name, what may follow a name, and what each needs; importing this imports no heavy library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

from PIL import Image

from freectl.errors import InputError, unknown

Apply = Callable[[Image.Image], Image.Image]
OPTION = "--preprocess"


@dataclass(frozen=True)
class Kind:
    """A preprocessor.

    Attributes:
        name: on the command line.
        summary: one line.
        module: where its `check(preprocess)` and `prepare(preprocess, device)` are.
        values: what may follow the name after "=", separated by commas, with the defaults.
        packages: what it imports beyond this package's dependencies.
        extra: the optional extra that brings them.
        drawn: works on the picture at the working size, where a line is a pixel wide; else on the picture as it is.
    """

    name: str
    summary: str
    module: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    extra: str = "preprocess"
    drawn: bool = False

    @property
    def form(self) -> str:
        """How it is written, e.g. "canny[=LOW,HIGH]"."""
        return self.name + (f"[={','.join(name.upper() for name in self.values)}]" if self.values else "")


@dataclass(frozen=True)
class Preprocess:
    """A preprocessor with its values, as given."""

    kind: Kind
    values: Mapping[str, str]

    def number(self, name: str, low: float, high: float) -> float:
        """A value as a number.

        Raises:
            InputError: not a number from `low` to `high`.
        """
        try:
            number = float(self.values[name])
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise InputError(f"{OPTION} {self.kind.form}", f"{name} '{self.values[name]}'", f"{low:g} to {high:g}")
        return number

    def check(self) -> None:
        """Check values and packages without importing or reading anything heavy.

        Raises:
            InputError: a value that cannot be, or a package that is not installed.
        """
        missing = [name for name in self.kind.packages if find_spec(name) is None]
        if missing:
            found = f"'{self.kind.name}', which needs {', '.join(missing)}, not installed"
            raise InputError(OPTION, found, f"none, or this after: pip install 'freectl[{self.kind.extra}]'")
        if self.kind.module:
            import_module(self.kind.module).check(self)

    def prepare(self, device: str = "cpu") -> Apply:
        """Load what it needs, and return the function that makes the condition picture.

        Raises:
            FreectlError: weights that are neither here nor to be had.
        """
        if not self.kind.module:
            return lambda image: image
        return import_module(self.kind.module).prepare(self, device)


_HERE = "freectl.preprocess"
_DEPTH = "depth-anything/Depth-Anything-V2-Small-hf"
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("none", "the picture as it is"),
        Kind(
            "canny",
            "thin edges, dark on white; thresholds on the Sobel gradient of grey levels 0 to 255",
            f"{_HERE}.canny",
            {"low": "65", "high": "130"},
            packages=("kornia",),
            drawn=True,
        ),
        Kind(
            "sketch",
            "soft lines, dark on white; differences that stay white and that are black, in grey levels 0 to 255",
            f"{_HERE}.sketch",
            {"low": "30", "high": "120"},
            packages=("kornia",),
            drawn=True,
        ),
        Kind("depth", "near is bright", f"{_HERE}.depth", {"model": _DEPTH}),
        Kind(
            "normal",
            "surface directions from depth: red right, green up, blue to the viewer; flat below `background`",
            f"{_HERE}.normal",
            {"model": _DEPTH, "background": "0.4"},
        ),
        Kind(
            "segmentation",
            "a flat colour for each class",
            f"{_HERE}.segmentation",
            {"model": "openmmlab/upernet-convnext-small"},
        ),
        Kind(
            "pose",
            "skeletons of people on black",
            f"{_HERE}.pose",
            {"model": "usyd-community/vitpose-base-simple", "detector": "PekingU/rtdetr_r18vd"},
            packages=("scipy",),
        ),
    )
}
ALIASES = {"scribble": "sketch", "normals": "normal", "seg": "segmentation", "openpose": "pose"}


def parse(text: str) -> Preprocess:
    """`NAME` or `NAME=VALUE,VALUE` as a preprocessor; an empty value is its default.

    Raises:
        InputError: unknown name (the nearest is suggested), or more values than it has.
    """
    name, _, given = text.partition("=")
    name = name.strip().lower()
    kind = KINDS.get(ALIASES.get(name, name))
    if kind is None:
        raise unknown(OPTION, name, [*KINDS, *ALIASES])
    values = [value.strip() for value in given.split(",")] if given else []
    if len(values) > len(kind.values):
        raise InputError(OPTION, f"'{text}'", kind.form)
    chosen = {key: value for key, value in zip(kind.values, values, strict=False) if value}
    return Preprocess(kind, {**kind.values, **chosen})
