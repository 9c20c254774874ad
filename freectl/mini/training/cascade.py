"""Imagen in small (Saharia et al. 2022): a pixel base of 16 px and super-resolution to 64 px, in DeepFloyd IF's layout.

A tiny T5 learns with the base; super-resolution keeps it as it is, and sees the small picture enlarged and noised at a
level that it is told (noise conditioning augmentation). Both are asked for velocities on a cosine schedule.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from freectl.mini.training.data import (
    TRAINING_STYLES,
    batch_rng,
    scene_batch,
    sheet_captions,
    strata,
    training_caption,
)
from freectl.mini.training.networks import TEXT_WIDTH, make_text_encoder, save_pipeline
from freectl.mini.training.optimizers import hidden_matrices
from freectl.mini.training.t5 import make_t5_encoder, make_t5_tokenizer
from freectl.mini.training.vae import tile

SMALL, LARGE = 16, 64
"""Sides of the two stages. Of true scenes enlarged from 16 px the judge still names 94.8 % (at 64 px 98.8 %)."""
TEXT_TOKENS = 77
"""IF pads to so many and masks none of them in its UNets."""
WIDTHS = {"cascade-base": (64, 128), "cascade-sr": (24, 48, 96, 192)}


class CascadePart:
    """Trains one stage, "cascade-base" or "cascade-sr".

    Args:
        model_dir: the stage is written below it, to `cascade/base` or `cascade/sr`; the second takes the first's text
            encoder from there.
        widths: channels by level, in place of `WIDTHS`.
        text: "clip" reads captions with a CLIP text tower and the tokenizer of `model_dir`, to compare: IF's pipelines
            have T5 alone, so that such a stage is not exported.
    """

    def __init__(
        self,
        name: str,
        model_dir: Path,
        widths: tuple[int, ...] | None = None,
        text: Literal["t5", "clip"] = "t5",
    ) -> None:
        torch.manual_seed(6)
        self.name = name
        self.enlarges = name == "cascade-sr"
        widths = widths or WIDTHS[name]
        self.side = LARGE if self.enlarges else SMALL
        self.unet = make_cascade_unet(self.side, widths, self.enlarges).to(memory_format=torch.channels_last)
        self.scheduler = make_cascade_scheduler()
        self.modules: dict[str, nn.Module] = {"unet": self.unet}
        if self.enlarges:
            first = model_dir / "cascade" / "base"
            self.tokenizer = T5TokenizerFast.from_pretrained(first / "tokenizer")
            self.text_encoder = T5EncoderModel.from_pretrained(first / "text_encoder").float().requires_grad_(False)
        else:
            self.tokenizer, self.text_encoder = _made_text(text, model_dir)
            self.modules["text_encoder"] = self.text_encoder
        self.facts: dict[str, Any] = {"widths": list(widths)}

    def matrices(self) -> list[str]:
        """Attention, feed-forward and convolutions of both networks."""
        return hidden_matrices(self.modules, ("conv_in", "conv_out", "embed", "shared", "relative_attention_bias"))

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished stage of the same sizes."""
        stage = folder / "cascade" / self.name.removeprefix("cascade-")
        self.unet.load_state_dict(UNet2DConditionModel.from_pretrained(stage / "unet").float().state_dict())
        self.text_encoder.load_state_dict(T5EncoderModel.from_pretrained(stage / "text_encoder").float().state_dict())

    def encode_text(self, captions: list[str]) -> Tensor:
        """Captions to (B, 77, 128); a CLIP tower has as many tokens as it has positions."""
        tokens = min(TEXT_TOKENS, self.tokenizer.model_max_length)
        told = self.tokenizer(captions, padding="max_length", max_length=tokens, truncation=True, return_tensors="pt")
        return self.text_encoder(told.input_ids, attention_mask=told.attention_mask)[0]

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """Mean squared error of the predicted velocity."""
        rng = batch_rng(seed, step)
        scenes, large = scene_batch(rng, batch, styles=TRAINING_STYLES, size=LARGE)
        captions = [training_caption(scene, rng) for scene in scenes]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        small = functional.avg_pool2d(large, LARGE // SMALL)
        pictures, extra = (large, self._shown(small, generator)) if self.enlarges else (small, {})
        noise = torch.randn(pictures.shape, generator=generator)
        timesteps = (strata(batch, generator) * self.scheduler.config.num_train_timesteps).long()
        noisy = self.scheduler.add_noise(pictures, noise, timesteps)
        if self.enlarges:
            noisy = torch.cat([noisy, extra.pop("picture")], dim=1)
        output = self.unet(noisy, timesteps, self.encode_text(captions), **extra).sample.float()
        # IF's pipelines want a variance beside the prediction and drop it where variances are fixed
        target = self.scheduler.get_velocity(pictures, noise, timesteps)
        return {"loss": (output[:, :3] - target).square().mean()}

    def _shown(self, small: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The small pictures enlarged as IF's pipeline does, noised at random levels, and the levels."""
        levels = torch.randint(self.scheduler.config.num_train_timesteps, (len(small),), generator=generator)
        enlarged = functional.interpolate(small, (LARGE, LARGE), mode="bilinear", align_corners=True)
        noise = torch.randn(enlarged.shape, generator=generator)
        return {"picture": self.scheduler.add_noise(enlarged, noise, levels), "class_labels": levels}

    def pipeline(self) -> IFPipeline | IFSuperResolutionPipeline:
        """The stage as diffusers' own pipeline."""
        parts: dict[str, Any] = {
            "tokenizer": self.tokenizer,
            "text_encoder": self.text_encoder,
            "unet": self.unet,
            "scheduler": self.scheduler,
            "safety_checker": None,
            "feature_extractor": None,
            "watermarker": None,
            "requires_safety_checker": False,
        }
        if self.enlarges:
            return IFSuperResolutionPipeline(**parts, image_noising_scheduler=make_cascade_scheduler())
        return IFPipeline(**parts)

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Samples of fixed captions; of the second stage, below the true small pictures that they enlarge."""
        pipe = self.pipeline()
        pipe.set_progress_bar_config(disable=True)
        options: dict[str, Any] = {"num_inference_steps": 25, "output_type": "pt", "clean_caption": False}
        if not self.enlarges:
            generators = [torch.Generator().manual_seed(i) for i in range(24)]
            made = pipe(sheet_captions(), guidance_scale=4.0, generator=generators, **options).images
            return tile(made, 8, enlarge=4)
        scenes, large = scene_batch(batch_rng(-1, 0), 8, size=LARGE)
        small = functional.avg_pool2d(large, LARGE // SMALL)
        generators = [torch.Generator().manual_seed(i) for i in range(8)]
        captions = [scene.caption for scene in scenes]
        made = pipe(captions, image=small, guidance_scale=4.0, generator=generators, **options).images
        return tile(torch.cat([functional.interpolate(small, scale_factor=LARGE // SMALL), made]), 8)

    def export(self, folder: Path) -> None:
        """Write the stage in fp16."""
        save_pipeline(self.pipeline(), folder)


def _made_text(text: str, model_dir: Path) -> tuple[Any, nn.Module]:
    if text == "t5":
        tokenizer = make_t5_tokenizer()
        return tokenizer, make_t5_encoder(tokenizer, TEXT_WIDTH, 2)
    words = CLIPTokenizer.from_pretrained(model_dir / "tokenizer")
    return words, make_text_encoder(words)


def make_cascade_unet(side: int, widths: tuple[int, ...], enlarges: bool) -> UNet2DConditionModel:
    """IF's kinds of blocks, attention at the lowest level alone; six channels out, as IF's pipelines ask."""
    more = len(widths) - 1
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=6 if enlarges else 3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D",) * more + ("SimpleCrossAttnDownBlock2D",),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",) + ("ResnetUpsampleBlock2D",) * more,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=8,
        act_fn="gelu",
        resnet_time_scale_shift="scale_shift",
        cross_attention_dim=TEXT_WIDTH,
        encoder_hid_dim=TEXT_WIDTH,
        encoder_hid_dim_type="text_proj",
        attention_head_dim=32,  # the width of a head in these blocks
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        class_embed_type="timestep" if enlarges else None,
    )


def make_cascade_scheduler() -> DDPMScheduler:
    """A cosine schedule with dynamic thresholding at sampling (section 2.3: the 99.5th percentile, no upper bound).

    diffusers bounds the percentile, by 1 where nothing is said, and dynamic thresholding is a static one then.
    """
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        variance_type="fixed_small",
        clip_sample=False,
        thresholding=True,
        dynamic_thresholding_ratio=0.995,
        sample_max_value=1e4,
    )
