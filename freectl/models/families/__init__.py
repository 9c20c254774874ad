"""The registry of model families: a new one is a new file and a line here. Nothing else asks which model it is."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from freectl.errors import InputError
from freectl.models.families.base import Family
from freectl.models.families.chroma import CHROMA
from freectl.models.families.flux import FLUX, FLUX_SCHNELL
from freectl.models.families.flux2 import FLUX2, KLEIN, KLEIN_DISTILLED
from freectl.models.families.mini import MINI
from freectl.models.families.mini_flow import MINI_FLOW
from freectl.models.families.pixart import PIXART
from freectl.models.families.qwen_image import QWEN_IMAGE
from freectl.models.families.sd import SD
from freectl.models.families.sd3 import SD3
from freectl.models.families.sdxl import SDXL
from freectl.models.families.z_image import Z_IMAGE
from freectl.models.networks import unwrapped

NOTHING: Mapping[str, Any] = MappingProxyType({})
_FLUX: list[Family] = [FLUX, FLUX_SCHNELL, CHROMA, FLUX2, KLEIN, KLEIN_DISTILLED]
FAMILIES: list[Family] = [SD, SDXL, MINI, MINI_FLOW, SD3, *_FLUX, PIXART, QWEN_IMAGE, Z_IMAGE]


def of(network: Any, config: Mapping[str, Any] = NOTHING) -> Family:
    """Family of a denoising network, by its configuration and layers; weights and widths do not matter.

    Args:
        config: of its pipeline, which tells families with equal networks apart.

    Raises:
        InputError: none fits; the message lists what was looked for.
    """
    kind = type(unwrapped(network)).__name__
    alike = [family for family in FAMILIES if family.network == kind]
    for family in alike:
        if family.fits(network) and all(config.get(name, False) == value for name, value in family.told.items()):
            return family
    if not alike:
        raise InputError("--model", f"a {kind}", f"one of {', '.join(networks())}")
    looked_for = "; or ".join(family.looked_for for family in alike)
    raise InputError("--model", alike[0].described(network), f"as many channels out as in, and {looked_for}")


def of_pipe(pipe: Any) -> Family:
    """Family of a pipeline; as `of`.

    Raises:
        InputError: it has no denoising network, or one that fits none.
    """
    return of(network_of(pipe), getattr(pipe, "config", NOTHING))


def networks() -> dict[str, str]:
    """Class of a denoising network -> the pipeline's component that it is."""
    return {family.network: family.component for family in FAMILIES}


def network_of(pipe: Any) -> Any:
    """The denoising network of a pipeline, without the wrapping of `torch.compile`.

    Raises:
        InputError: it has none.
    """
    for name in dict.fromkeys(networks().values()):
        if (part := getattr(pipe, name, None)) is not None:
            return unwrapped(part)
    raise InputError("--model", f"a {type(pipe).__name__}", f"a pipeline with one of {', '.join(networks())}")
