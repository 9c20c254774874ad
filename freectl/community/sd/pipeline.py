"""FreeControl for Stable Diffusion 1.x and 2.x: `DiffusionPipeline.from_pretrained(..., custom_pipeline=FOLDER)`."""

# diffusers copies this file and takes the one pipeline class in it
from freectl.pipeline import FreeControlPipeline

__all__ = ["FreeControlPipeline"]
