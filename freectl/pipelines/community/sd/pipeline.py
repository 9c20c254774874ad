"""FreeControl for Stable Diffusion 1.x and 2.x: `DiffusionPipeline.from_pretrained(..., custom_pipeline=FOLDER)`."""

from freectl.pipelines.sd import FreeControlPipeline

# diffusers copies this file, takes the one pipeline class in it, and runs the next file of this name in its module
globals().pop("FreeControlXLPipeline", None)
__all__ = ["FreeControlPipeline"]
