"""The scores a result line can have: title, which way is better, how it is printed, what it is the mean of."""

from dataclasses import dataclass, replace

from eval.bench.cases import Layout
from eval.scores.intervals import Estimate

PSNR_MOST = 60.0
"""dB that a PSNR counts as at most, so that equal pictures, whose own is infinite, stay in the mean.

Pictures of 8 bits tell no more: rounding alone is 58.9 dB. libvmaf has the same limit for them (6 bits + 12)."""


@dataclass(frozen=True)
class Measure:
    """One score.

    Attributes:
        key: in the result lines. title: of the column. better: +1 higher, -1 lower, 0 neither.
        digits: after the point. scale: factor for printing, e.g. 100 for shares in percent.
        meaning: one sentence. share: whether every case has 0 or 1.
    """

    key: str
    title: str
    better: int
    digits: int = 3
    scale: float = 1.0
    meaning: str = ""
    share: bool = False

    def text(self, value: float | None) -> str:
        """The value as printed."""
        return "-" if value is None else f"{value * self.scale:.{self.digits}f}"

    def span(self, low: float, high: float) -> str:
        """An interval as printed."""
        return f"{self.text(low)} to {self.text(high)}"

    def spread(self, found: Estimate) -> str:
        """A mean with its interval, in one line; of one case without."""
        mean = self.text(found.mean)
        if found.count == 1:
            return mean
        between = f" ({self.span(found.low, found.high)})"
        return mean + (between if self.share else f" ± {self.text((found.high - found.low) / 2)}")

    @property
    def head(self) -> str:
        """Title with an arrow."""
        return self.title + {1: " ↑", -1: " ↓", 0: ""}[self.better]


_TIMES = "both pictures times it, whole frame"
_EQUAL = f"{PSNR_MOST:.0f} dB where nothing changed, at most"


def _share(key: str, title: str, meaning: str) -> Measure:
    return Measure(key, title, 1, 1, 100.0, meaning, share=True)


_MINI = (
    _share("target", "target reached %", "the judge sees every word that the edit changes"),
    _share("all_right", "all right %", "the judge sees object, style and background of the answer"),
    _share("object", "object %", "the judge sees the answer's object"),
    _share("style", "style %", "the judge sees the answer's style"),
    _share("background", "background %", "the judge sees the answer's background"),
    Measure("iou", "IoU", 1, 3, 1.0, "judge's foreground mask with the answer's exact mask"),
    Measure("mse", "MSE x10³", -1, 1, 1e3, "to the exact answer, pixels 0 to 1"),
    Measure("clip_distance", "CLIP dist.", -1, 3, 1.0, "1 - cosine of image embeddings of result and exact answer"),
    Measure("background_mse", "bg MSE x10³", -1, 1, 1e3, "to the exact answer, where neither mask has an object"),
    Measure("clip", "CLIP", 1, 3, 1.0, "cosine of result and target prompt"),
    Measure("self_similarity", "self-sim.", -1, 4, 1.0, "distance of the ViT keys' self-similarity to the input's"),
)
_CONTROL = (
    _share("words", "words right %", "the judge sees the object, style and background of the words"),
    _share("object", "object %", "the judge sees the words' object"),
    _share("style", "style %", "the judge sees the words' style"),
    _share("background", "background %", "the judge sees the words' background"),
    Measure(
        "outline", "outline IoU", 1, 3, 1.0, "judge's foreground mask with the exact mask of what the condition shows"
    ),
    Measure("confidence", "confidence", 1, 3, 1.0, "the judge's in the object that it sees, whichever that is"),
    Measure("clip", "CLIP", 1, 3, 1.0, "cosine of result and prompt"),
    Measure("clip_distance", "CLIP dist.", -1, 3, 1.0, "1 - cosine of image embeddings of result and exact answer"),
)
_CHANGE = (
    Measure("clip_directional", "CLIP dir.", 1, 3, 1.0, "cosine of the change of the picture with that of the prompt"),
    _share("clip_accuracy", "CLIP acc. %", "nearer to the target prompt than to the source prompt"),
)
_MASKED = (
    Measure("background_psnr", "bg PSNR", 1, 2, 1.0, f"background, mean over its pixels; {_EQUAL}"),
    Measure("background_mse", "bg MSE x10³", -1, 2, 1e3, "background, mean over its pixels"),
    Measure("background_ssim", "bg SSIM x10²", 1, 2, 1e2, "background, mean over its pixels"),
)
_TI2I = (
    Measure("self_similarity", "self-sim.", -1, 3, 1.0, "DINO ViT-B/8 keys, result against the data set's picture"),
    Measure("clip", "CLIP", 1, 3, 1.0, "raw cosine of result and target prompt"),
    Measure("lpips", "LPIPS", 0, 3, 1.0, "to what the method was given; with conditions, higher means less leakage"),
    *_CHANGE,
)
_CTRLX_SELF = Measure(
    "self_similarity", "self-sim.", -1, 3, 1.0, "DINO ViT-B/8 keys, result against the structure picture, at 512 px"
)
_CTRLX = (
    _CTRLX_SELF,
    Measure("clip", "CLIP", 1, 3, 1.0, "raw cosine of result and prompt"),
    Measure("lpips", "LPIPS", 1, 3, 1.0, "to the structure picture; higher means less leakage"),
    *_CHANGE,
)
_CTRLX_PAIRS = (
    _CTRLX_SELF,
    Measure("dino_i", "DINO-I", 1, 3, 1.0, "cosine of DINO ViT-B/8 class tokens, result and appearance picture"),
    *_CTRLX[1:],
)
_PIE_BACKGROUND = (
    Measure("psnr", "PSNR", 1, 2, 1.0, f"background, in PIE-Bench's convention: {_TIMES}; {_EQUAL}"),
    Measure("lpips_x1e3", "LPIPS x10³", -1, 2, 1.0, "background, in PIE-Bench's convention"),
    Measure("mse_x1e4", "MSE x10⁴", -1, 2, 1.0, "background, in PIE-Bench's convention"),
    Measure("ssim_x1e2", "SSIM x10²", 1, 2, 1.0, "background, in PIE-Bench's convention"),
)
_PIE = (
    Measure("structure_x1e3", "structure x10³", -1, 2, 1.0, "self-similarity as PIE-Bench's code computes it"),
    *_PIE_BACKGROUND,
    Measure("clip_whole", "CLIP whole", 1, 2, 1.0, "target prompt, x100"),
    Measure("clip_edited", "CLIP edited", 1, 2, 1.0, "target prompt, pixels outside the mask black, x100"),
    *_MASKED,
    *_CHANGE,
)
_PLAIN = (*_TI2I, *_MASKED, *(replace(one, title=f"bg {one.title} (pie)") for one in _PIE_BACKGROUND))
MEASURES: dict[Layout, tuple[Measure, ...]] = {
    "mini": _MINI,
    "control": _CONTROL,
    "ti2i": _TI2I,
    "pie": _PIE,
    "ctrl-x": _CTRLX,
    "ctrl-x-pairs": _CTRLX_PAIRS,
    "plain": _PLAIN,
}

SECONDS = Measure("seconds", "s / edit", -1, 2, 1.0, "median wall seconds of an edit, without loading")
ROWS = Measure("row_forwards", "row forwards", -1, 0, 1.0, "median; one latent through the UNet once")
BACKWARDS = Measure("row_backwards", "row backwards", -1, 0, 1.0, "median")
CPU = Measure("cpu_seconds", "CPU s", -1, 2, 1.0, "median, of all threads; other work on the machine hardly changes it")
MEMORY = Measure("peak_memory_mb", "peak MiB", -1, 0, 1.0, "highest; the whole process's on a CPU")
COSTS = (SECONDS, CPU, ROWS, BACKWARDS, MEMORY)
PAPERS_COSTS = (
    Measure("preprocess_seconds", "preprocess s", -1, 2, 1.0, "median wall seconds of inversions and the like"),
    Measure("run_seconds", "run s", -1, 2, 1.0, "median wall seconds of the sampling"),
    replace(SECONDS, title="total s"),
    replace(MEMORY, title="peak GiB", digits=2, scale=1 / 1024),
)
"""Costs in the columns that papers print, in the order of `cost` in prompts/published.yaml."""

SMALL_SET = 1000
"""Pictures below which FID is too biased to lead."""
FEWEST = 50
"""Pictures below which KID and FID are not printed."""
DISTRIBUTION = ("kid", "fid")
SETS = {
    one.key: one
    for one in (
        Measure("kid", "KID x10³", -1, 2, 1e3, "unbiased squared distance of the feature sets, cubic kernel"),
        Measure("fid", "FID", -1, 1, 1.0, "Frechet distance of the feature sets"),
        Measure("cmmd", "CMMD", -1, 3, 1.0, "distance of the CLIP embeddings' sets, Gaussian kernel, x1000"),
        Measure("coverage", "coverage %", 1, 1, 100.0, "share of true pictures with a result among their neighbours"),
    )
}
"""Scores of whole sets of pictures."""
ACCURACY: dict[Layout, str] = {
    "mini": "target",
    "control": "words",
    "ti2i": "clip",
    "ctrl-x": "clip",
    "ctrl-x-pairs": "dino_i",
    "plain": "clip",
    "pie": "clip_edited",
}
"""The score that says whether the edit happened."""
STRUCTURE: dict[Layout, tuple[str, ...]] = {
    "mini": ("self_similarity", "mse"),
    "control": ("outline",),
    "ti2i": ("self_similarity",),
    "ctrl-x": ("self_similarity",),
    "ctrl-x-pairs": ("self_similarity",),
    "plain": ("self_similarity",),
    "pie": ("structure_x1e3",),
}
"""Scores of the Pareto plot's other axis; the first that was measured."""
BY_KIND: dict[Layout, tuple[str, ...]] = {
    "mini": ("target", "all_right", "iou", "mse"),
    "control": ("words", "object", "outline"),
    "ti2i": ("self_similarity", "clip", "lpips"),
    "ctrl-x": ("self_similarity", "clip", "lpips"),
    "ctrl-x-pairs": ("self_similarity", "dino_i"),
    "plain": ("self_similarity", "clip"),
    "pie": ("structure_x1e3", "clip_edited"),
}
"""Scores that are broken down by edit type."""


def measure(layout: Layout, key: str) -> Measure:
    """The measure of that key."""
    return next(one for one in MEASURES[layout] if one.key == key)
