"""What a call may give beyond its texts: embeddings in their place, sizes, and which text is which picture's."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from freectl.denoising.sampler import Half
from freectl.errors import InputError

Size = tuple[int, int]


@dataclass(frozen=True)
class MicroConditioning:
    """Sizes that SDXL is told (Podell et al., arXiv 2307.01952, section 2.2), (height, width) in pixels.

    None is the working size; `negative_*` None is the same as for the conditional half.
    """

    original_size: Size | None = None
    crops_coords_top_left: Size = (0, 0)
    target_size: Size | None = None
    negative_original_size: Size | None = None
    negative_crops_coords_top_left: Size = (0, 0)
    negative_target_size: Size | None = None

    def numbers(self, half: Half, working: Size) -> tuple[int, ...]:
        """The six numbers of a half at a working size (height, width), in the order of SDXL's `time_ids`."""
        given = self.negative_original_size is not None and self.negative_target_size is not None
        if half == "uncond" and given:
            return (*self.negative_original_size, *self.negative_crops_coords_top_left, *self.negative_target_size)  # type: ignore[misc]
        return (*(self.original_size or working), *self.crops_coords_top_left, *(self.target_size or working))


@dataclass(frozen=True)
class TextExtras:
    """What a call may give beyond Stable Diffusion's: embeddings in place of texts, and SDXL's own arguments.

    Attributes:
        embeds, negative_embeds: (N, tokens, C).
        pooled, negative_pooled: (N, C) of families that have them; masks (N, tokens) of families that take those.
        second, negative_second: texts of SDXL's second encoder; None = those of the first.
        micro: sizes, SDXL only.
        true_scale: of guidance by a row of the negative prompt, where a family's own has none; 1 or None = no such row.
    """

    embeds: Tensor | None = None
    negative_embeds: Tensor | None = None
    pooled: Tensor | None = None
    negative_pooled: Tensor | None = None
    second: str | list[str] | None = None
    negative_second: str | list[str] | None = None
    micro: MicroConditioning = field(default_factory=MicroConditioning)
    true_scale: float | None = None


def paired(name: str, texts: str | Sequence[str] | None, count: int) -> list[str] | None:
    """One text for each of `count` pictures, or a list whose length divides it, each repeated in place.

    Raises:
        InputError: the number of texts does not fit.
    """
    if texts is None:
        return None
    if isinstance(texts, str):
        return [texts] * count
    repeat = count // max(1, len(texts))
    if repeat * len(texts) != count:
        raise InputError(name, f"{len(texts)} texts", "one text, or one a prompt")
    return [text for text in texts for _ in range(repeat)]
