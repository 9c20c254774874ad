"""FreeControl for Stable Diffusion XL: `DiffusionPipeline.from_pretrained(..., custom_pipeline=FOLDER)`."""

from freectl.pipelines.sdxl import FreeControlXLPipeline

# diffusers copies this file, takes the one pipeline class in it, and runs the next file of this name in its module
globals().pop("FreeControlPipeline", None)
__all__ = ["FreeControlXLPipeline"]
