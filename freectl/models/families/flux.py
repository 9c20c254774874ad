"""FLUX.1: dev, distilled on guidance, and schnell, distilled to a few steps."""

from freectl.models.families.packed import PackedFamily
from freectl.models.families.transformer import EVERY_METHOD
from freectl.models.sequence_text import FluxTextConditioner

_PIPELINE = "freectl.pipelines.flux:FreeControlFluxPipeline"

_CONTROL = {"controlnet": "FluxControlNetModel"}

FLUX = PackedFamily(
    name="flux",
    network="FluxTransformer2DModel",
    pipeline=_PIPELINE,
    text=FluxTextConditioner,
    guidance_scale=3.5,
    guidance="embedded",
    methods=EVERY_METHOD,
    finds_words=True,
    control_networks=_CONTROL,
    single_files=("flux-dev",),
)
FLUX_SCHNELL = PackedFamily(
    name="flux-schnell",
    network="FluxTransformer2DModel",
    pipeline=_PIPELINE,
    text=FluxTextConditioner,
    guidance_scale=1.0,
    guidance="none",
    control_networks=_CONTROL,
    single_files=("flux-schnell",),
)
