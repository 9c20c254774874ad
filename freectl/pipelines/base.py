"""What the pipelines share: the call, its callbacks and its output."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce, wraps
from typing import Any, ClassVar, TypeVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import scale_lora_layers
from torch import Tensor

from freectl.denoising.cost import Cost
from freectl.denoising.sampler import Lane, Step
from freectl.files.cache import Cache
from freectl.methods.base import Condition, Method, Outcome, Request
from freectl.methods.local_edit import BACKGROUND, composite_tensor
from freectl.models import families, fingerprint
from freectl.models.engine import Engine
from freectl.models.networks import check_gradients, exclusive, uncompiled
from freectl.models.text_extras import TextExtras
from freectl.pipelines import text_lora
from freectl.pipelines.arguments import Call, check_call, named, settings_of
from freectl.pipelines.call_inputs import Picture, Pictures, made_request
from freectl.pipelines.callback_tensors import call_back
from freectl.pipelines.output import FreeControlPipelineOutput
from freectl.pipelines.parts import remembered

F = TypeVar("F", bound=Callable[..., Any])


def alone(call: F) -> F:
    """A call that holds the pipeline's networks while it runs, and runs the denoising one uncompiled, for its hooks."""

    @wraps(call)
    def held(self: Any, *args: Any, **kwargs: Any) -> Any:
        with exclusive(self), uncompiled(families.network_of(self)), fingerprint.looked_at_once():
            return call(self, *args, **kwargs)

    return held  # type: ignore[return-value]


class FreeControlMixin(DiffusionPipeline):
    """`__call__` for a Stable Diffusion pipeline class, named before it among the bases.

    Components are read at each call, replaced ones too: any scheduler's schedule, an `AutoencoderTiny`, a network under
    `torch.compile`, which runs uncompiled. Calls in several threads that share a network run one after another.

    Attributes:
        plain_class: the diffusers class whose folders these are; `save_pretrained` names it.
        text_arguments: further arguments of the call -> the field of `TextExtras` that each is.
        kwargs_argument: what the diffusers class calls the keyword arguments for attention processors.
        load_warnings: what was not used of the files that it was loaded from; every output repeats it.
        halves_apart: whether texts' embeddings stand alone, in callbacks and arguments, as some pipelines have it.
    """

    plain_class: ClassVar[str]
    text_arguments: ClassVar[Mapping[str, str]] = {}
    kwargs_argument: ClassVar[str] = "cross_attention_kwargs"
    load_warnings: tuple[str, ...] = ()
    halves_apart: ClassVar[bool] = False
    image_processor: Any
    _callback_tensor_inputs: ClassVar[list[str]]

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Any:
        """As in diffusers, but where no dtype is asked for the networks, which are shared, keep theirs.

        Diffusers' own makes them fp32, those of the pipeline they come from too.
        """
        if "dtype" in kwargs or "torch_dtype" in kwargs:
            return super().from_pipe(pipeline, **kwargs)
        networks = [part for part in (pipeline.components | kwargs).values() if isinstance(part, torch.nn.Module)]
        own = [next(network.parameters()).dtype for network in networks]
        widest = reduce(torch.promote_types, own, own[0])
        made = super().from_pipe(pipeline, dtype=widest, **kwargs)
        for network, dtype in zip(networks, own, strict=True):
            if dtype != widest:
                network.to(dtype=dtype)
        return made

    @classmethod
    def load_lora_into_text_encoder(
        cls,
        state_dict: dict[str, Tensor],
        network_alphas: dict[str, float] | None,
        text_encoder: torch.nn.Module,
        prefix: str | None = None,
        lora_scale: float = 1.0,
        adapter_name: str | None = None,
        metadata: dict[str, Any] | None = None,
        hotswap: bool = False,
        **_: Any,
    ) -> None:
        """As in diffusers; see `freectl.pipelines.text_lora`."""
        start = f"{prefix or 'text_encoder'}."
        layers = {key.removeprefix(start): value for key, value in state_dict.items() if key.startswith(start)}
        if not layers:
            return
        if hotswap:
            raise ValueError("hotswap of layers in text encoders is not supported")
        alphas = {
            key.removeprefix(start): value for key, value in (network_alphas or {}).items() if key.startswith(start)
        }
        told = {key.removeprefix(start): value for key, value in (metadata or {}).items() if key.startswith(start)}
        text_lora.inject(text_encoder, layers, alphas, adapter_name, told or None)
        scale_lora_layers(text_encoder, weight=lora_scale)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As in diffusers; networks of safetensors files are known by these in every dtype, bases fit them all."""
        return remembered(super().from_pretrained, pretrained_model_name_or_path, kwargs)

    @named
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: Pictures | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        *,
        source_prompt: str | list[str] = "",
        concept: str | None = None,
        mask: Picture | None = None,
        appearance_image: Picture | None = None,
        conditions: Sequence[Condition] | None = None,
        keep: Picture | None = None,
        keep_concept: str | None = None,
        method: Method | None = None,
        cache: Cache | None = None,
        cost: Cost | None = None,
        settings: Any = None,
        long_prompts: bool = False,
        **overrides: Any,
    ) -> FreeControlPipelineOutput | tuple:
        """Edit pictures, or make pictures with their structure.

        Args:
            prompt: what the result shows; a list makes one picture for each.
            image: picture(s) whose structure is kept; one for all prompts, or one a prompt: PIL pictures, paths, arrays
                (H, W, C) and tensors (C, H, W) or batches of them, or scaled latents (B, C, h, w); read as a viewer
                shows them, transparency on white.
            height, width: working size in pixels; default: the pictures' own, rounded to what the network takes.
            guidance_scale: classifier-free guidance, 1 switches it off; default of the model family and method if None.
            generator: one CPU generator, or one a picture; fresh noise in the start and `eta > 0` draw from it.
            latents: (B, C, h, w) to start from instead of the inverted picture.
            prompt_embeds, negative_prompt_embeds: (N, tokens, C) in place of texts; of any and of unequal lengths.
            output_type: "pil", "np", "pt" (0 to 1) or "latent".
            callback_on_step_end: function or callback object as in diffusers; may return a dict with changed tensors,
                set `pipe._interrupt` to end the loop, and `pipe._guidance_scale` for the steps that follow.
            source_prompt: what the input shows, or one a result; used while inverting.
            concept: word whose seed pictures make the semantic bases; default: the family's general bases, or the
                prompt.
            mask: picture, white where the structure holds; "attention" for where the concept is, found by the
                cross-attention of its tokens in `source_prompt`; None is everywhere.
            appearance_image: picture whose appearance is taken, instead of that of an unguided sibling.
            conditions: pictures that every result follows at once, in place of `image` (spatial control).
            keep: picture, white where the input stays as it is; "background" for all but `keep_concept`; works with
                every method.
            keep_concept: word of `source_prompt` that is not background; default: `concept`.
            method: another registered method to run on the same inputs; default FreeControl.
            cache: where inversions and bases are kept; None recomputes them.
            long_prompts: read texts that are longer than the text encoder reads in pieces, each encoded by itself.
            settings: the method's settings object; `overrides` set single fields of its defaults instead.

        Raises:
            InputError: an argument cannot be used; nothing has run then.
        """
        given = locals()
        extras = TextExtras(**{field: overrides.pop(name, None) for name, field in self.text_arguments.items()})
        if (kwargs := overrides.pop(self.kwargs_argument, None)) is not None:
            given["cross_attention_kwargs"] = kwargs
        return self.run(Call(extras=extras, **{name: value for name, value in given.items() if name != "self"}))

    def commanded(self, *args: Any, **kwargs: Any) -> FreeControlPipelineOutput | tuple:
        """`__call__` whose input errors name the options of commands."""
        return type(self).__call__.__wrapped__(self, *args, **kwargs)  # type: ignore[attr-defined]

    @alone
    @torch.no_grad()
    def run(self, call: Call) -> FreeControlPipelineOutput | tuple:
        """What `__call__` does.

        Raises:
            InputError: as `__call__`; methods name the options of commands.
        """
        check_call(call, self._callback_tensor_inputs, not self.halves_apart)
        method, settings = call.chosen, settings_of(call)
        extras = replace(call.extras, embeds=call.prompt_embeds, negative_embeds=call.negative_prompt_embeds)
        kwargs = call.cross_attention_kwargs
        engine = Engine(
            self,
            cache=call.cache,
            cost=call.cost,
            cross_attention_kwargs=kwargs,
            micro=extras.micro,
            long_prompts=call.long_prompts,
        )
        family, guidance_scale = engine.family, call.guidance_scale
        few_steps = family.few_steps(self.config, self.scheduler.config)
        if guidance_scale is None:
            guidance_scale = 1.0 if few_steps else method.guidance_scale(settings, family)
        family.check_method(method.name, few_steps=few_steps)
        guidance_scale = engine.guide(guidance_scale, extras.true_scale or 1.0)
        self._begin(guidance_scale, call.num_inference_steps, kwargs)
        if "gradient" in method.needs:
            check_gradients(engine.network, method.name)
        given = {name: getattr(call, name) for name in ("concept", "mask", "appearance_image", "conditions")}
        background = isinstance(call.keep, str) and call.keep == BACKGROUND
        method.check(settings, method.used(given, background and call.keep_concept is None))
        settings = method.resolved(settings, engine.family, appearance_image=call.appearance_image is not None)
        try:
            request = made_request(engine, call, extras, guidance_scale)
            request.on_step = self._on_step(engine, call.callback_on_step_end, call.tensor_names)
            outcome = method.run(engine, request, settings)
            output = self._finish(engine, request, outcome, call.output_type, settings)
        finally:
            self.maybe_free_model_hooks()
        return output if call.return_dict else (output.images, output.nsfw_content_detected)

    @property
    def clean_latents(self) -> Tensor | None:
        """The last step's estimate of the clean picture, (B, C, h, w), for previews in step callbacks."""
        return self._clean_latents

    def to_json_string(self) -> str:
        """The configuration with the plain class's name, so that `DiffusionPipeline` loads saved folders too."""
        return json.dumps(json.loads(super().to_json_string()) | {"_class_name": self.plain_class}, indent=2) + "\n"

    def _begin(self, guidance_scale: float, steps: int, kwargs: dict[str, Any] | None) -> None:
        """What diffusers' own properties and callbacks read of a run."""
        self._interrupt = False
        self._clean_latents: Tensor | None = None
        self._guidance_scale, self._num_timesteps = guidance_scale, steps
        self._cross_attention_kwargs = self._joint_attention_kwargs = self._attention_kwargs = kwargs
        self._clip_skip = self._current_timestep = None
        self._guidance_rescale, self._denoising_end = 0.0, None

    def _on_step(self, engine: Engine, callback: Any, names: list[str]) -> Callable[[Step, dict[str, Lane]], bool]:
        def report(step: Step, lanes: dict[str, Lane]) -> bool:
            edit = lanes["edit"]
            self._num_timesteps, self._clean_latents = step.count, edit.clean
            if callback is not None:
                call_back(callback, self, engine, step, edit, names)
            return bool(self._interrupt)

        return report

    def _finish(
        self, engine: Engine, request: Request, outcome: Outcome, output_type: str, settings: Any
    ) -> FreeControlPipelineOutput:
        engine.check_result(outcome.latents)
        images, flagged = outcome.latents.to(engine.latent_dtype), None
        if output_type != "latent":
            with engine.cost.stage("synthesis"):
                pixels = engine.decode(outcome.latents)
                if request.kept:
                    originals = self.image_processor.preprocess(request.images)
                    pixels = composite_tensor(pixels, originals, request.kept)
                pixels, flagged = self._screened(pixels, engine)
                normal = [True] * pixels.shape[0] if flagged is None else [not flag for flag in flagged]
                images = self.image_processor.postprocess(pixels, output_type=output_type, do_denormalize=normal)
        engine.cost.record_memory(engine.device)
        warnings = [*self.load_warnings, *engine.warnings, *outcome.warnings]
        return FreeControlPipelineOutput(
            images, flagged, outcome.trace, engine.cost.to_dict(), warnings, settings, request.kept or None
        )

    def _screened(self, pixels: Tensor, engine: Engine) -> tuple[Tensor, list[bool] | None]:
        """Decoded pictures, and which of them the model's safety checker has blacked out, if it has one."""
        return pixels, None
