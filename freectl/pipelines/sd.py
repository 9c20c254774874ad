"""`FreeControlPipeline`: FreeControl image-to-image and spatial control for Stable Diffusion 1.x and 2.x."""

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from freectl.denoising.schedules import ddim
from freectl.models.engine import Engine
from freectl.pipelines.base import FreeControlMixin, FreeControlPipelineOutput

__all__ = ["FreeControlPipeline", "FreeControlPipelineOutput", "ddim"]


class FreeControlPipeline(FreeControlMixin, StableDiffusionPipeline):
    """Training-free structure and appearance control for Stable Diffusion 1.x and 2.x (arXiv 2312.07536).

    A `StableDiffusionPipeline` in all but `__call__`: `from_pretrained`, `from_pipe`, `from_single_file`,
    `save_pretrained`, LoRA, textual inversion and offload work as usual. Any scheduler is replaced by DDIM.
    """

    plain_class = "StableDiffusionPipeline"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker,
        feature_extractor: CLIPImageProcessor,
        image_encoder: CLIPVisionModelWithProjection = None,
        requires_safety_checker: bool = True,
    ) -> None:
        super().__init__(
            vae,
            text_encoder,
            tokenizer,
            unet,
            None if scheduler is None else ddim(scheduler),
            safety_checker,
            feature_extractor,
            image_encoder,
            requires_safety_checker,
        )

    def _screened(self, pixels: Tensor, engine: Engine) -> tuple[Tensor, list[bool] | None]:
        return self.run_safety_checker(pixels, engine.device, engine.dtype)
