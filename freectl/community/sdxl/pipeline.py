"""FreeControl for Stable Diffusion XL: `DiffusionPipeline.from_pretrained(..., custom_pipeline=FOLDER)`."""

# diffusers copies this file and takes the one pipeline class in it
from freectl.pipeline_xl import FreeControlXLPipeline

__all__ = ["FreeControlXLPipeline"]
