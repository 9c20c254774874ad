"""From `--model` to a pipeline: the embedded model, a folder, a file or a hub id; device and dtype with reasons."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from freectl.errors import InputError, suggest, unknown
from freectl.files import collector, tensor_files
from freectl.files.data import EMBEDDED
from freectl.files.paths import at_home, is_file, is_folder
from freectl.pipelines import checkpoints
from freectl.pipelines import lora as adapters
from freectl.pipelines.opening import opened
from freectl.pipelines.parts import MAKING
from freectl.pipelines.textual_inversion import OPTION, check_textual_inversion, load_textual_inversion

HUB_EXAMPLE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
PICKLED = {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"}
TILE = 512
"""Pixels to a side of the VAE's tiles."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A checked `--model`: `kind` is "folder", "file" or "hub"; `path` a path or a hub id."""

    kind: str
    path: str
    name: str

    @property
    def embedded(self) -> bool:
        """Whether it ships with the package and knows its own small world only."""
        return self.name in EMBEDDED


def resolve_model(model: str) -> Source:
    """Check a model's name without reading weights.

    Raises:
        InputError: a pickled checkpoint, a folder or file of another kind of model, or nothing that exists or could.
    """
    names = ", ".join(EMBEDDED)
    allowed = f"{names}, a folder in Stable Diffusion layout, a .safetensors file, or a hub id such as {HUB_EXAMPLE}"
    if model in EMBEDDED:
        return Source("folder", str(EMBEDDED[model]), model)
    path = at_home(model)
    if path.suffix.lower() in PICKLED:
        raise InputError("--model", f"'{model}', a pickled checkpoint, which can run any code", "safetensors only")
    if is_folder(path):
        checkpoints.check_folder(path, model)
        return Source("folder", str(path), model)
    if is_file(path):
        if path.suffix.lower() != ".safetensors":
            raise InputError("--model", f"file '{model}'", allowed)
        checkpoints.check_file(path, model)
        return Source("file", str(path), model)
    if HUB_ID.fullmatch(model) and not model.startswith(".") and path.suffix.lower() != ".safetensors":
        return Source("hub", model, model)
    hint = suggest(model, list(EMBEDDED))
    raise InputError(
        "--model", f"'{model}', which is neither a name, a folder nor a file{' - ' + hint if hint else ''}", allowed
    )


def resolve_device(device: str) -> tuple[str, str]:
    """Device and the reason for it.

    Raises:
        InputError: unknown, or not present.
    """
    import torch

    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        chosen = next(name for name, present in has.items() if present)
        return chosen, "auto: " + (
            "no CUDA or MPS device" if chosen == "cpu" else f"a {chosen.upper()} device is present"
        )
    base = device.split(":", maxsplit=1)[0]
    if base not in has:
        raise InputError("--device", repr(device), "auto, cpu, cuda, mps")
    if not has[base]:
        present = ", ".join(name for name, there in has.items() if there)
        raise InputError("--device", f"{device!r}, which this machine does not have", f"auto, {present}")
    return device, "as asked"


def resolve_dtype(dtype: str, device: str, source: Source | None = None) -> tuple[Any, str]:
    """torch dtype and the reason for it.

    Args:
        source: the model it is for; transformers, and the language models that read their texts, pass fp16's 65504.

    Raises:
        InputError: an unknown name, or fp16 on a CPU, which lacks the kernels.
    """
    import torch

    names = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    on_cpu = device.startswith("cpu")
    if dtype == "auto":
        if on_cpu:
            return names["fp32"], "auto: fp32 on a CPU"
        known = None if source is None else known_family(source)
        if known is not None and known[0].component == "transformer":
            return names["bf16"], "auto: bf16 for transformers on a GPU"
        return names["fp16"], "auto: fp16 on a GPU"
    if dtype == "fp16" and on_cpu:
        raise InputError("--dtype", "fp16 on a CPU", "auto, fp32, bf16")
    if dtype not in names:
        raise unknown("--dtype", dtype, ["auto", *names])
    return names[dtype], "as asked"


def known_family(source: Source) -> tuple[Any, bool] | None:
    """A model's family and whether it is distilled to a few steps; None if that cannot be read before loading.

    Raises:
        InputError: the model is of no family that is known.
    """
    if source.name == "mini":
        from freectl.models.families.mini import MINI

        return MINI, False
    try:
        location = checkpoints.configuration(source.path) if source.kind == "file" else source.path
        family = checkpoints.family_of(location, source.path)
        return family, checkpoints.few_steps(location, family)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError):
        return None


def check_method(source: Source, method: Any, long_prompts: bool = False) -> None:
    """Check that a model's family runs a method, by its configuration; one that cannot be read now is left to loading.

    Args:
        long_prompts: whether it is also to read texts in pieces.

    Raises:
        InputError: it does not, or the model is of no family that is known.
    """
    if (known := known_family(source)) is None:
        return
    family, few_steps = known
    family.check_method(method.name, few_steps=few_steps)
    if long_prompts:
        family.check_long_prompts()


def check_offload(offload: str, device: str) -> None:
    """Offloading moves weights between an accelerator and the CPU.

    Raises:
        InputError: the device is the CPU.
    """
    if offload != "none" and device.startswith("cpu"):
        raise InputError("--offload", f"'{offload}' on a CPU, where there is nothing to offload from", "none")


def set_vae_tiling(pipe: Any, tiled: bool) -> None:
    """Whether pictures are encoded and decoded in tiles of at most `TILE` pixels, which blend into each other.

    Raises:
        InputError: the model's VAE has no tiles.
    """
    from freectl.models.vae_codec import tile_of

    vae = pipe.vae
    if not tiled:
        if getattr(vae, "use_tiling", False):
            vae.disable_tiling()
        return
    if not hasattr(vae, "enable_tiling"):
        raise InputError("--vae-tiling", f"with a {type(vae).__name__}, which has no tiles", "--no-vae-tiling")
    vae.enable_tiling()
    if tile_of(vae) > TILE:  # the size that the model was trained at
        vae.tile_latent_min_size = TILE * vae.tile_latent_min_size // vae.tile_sample_min_size
        vae.tile_sample_min_size = TILE


def check_adapters(lora: Sequence[str], textual_inversion: Sequence[str]) -> None:
    """What is put on top of a model, checked before either is read.

    Raises:
        InputError: a file is missing, pickled, damaged or of another layout.
    """
    adapters.check(lora)
    for path in textual_inversion:
        check_textual_inversion(tensor_files.named(path, OPTION))


def load_pipeline(
    source: Source,
    *,
    device: str,
    dtype: Any,
    lora: Sequence[str] = (),
    textual_inversion: Sequence[str] = (),
    offload: str = "none",
) -> Any:
    """The model as the pipeline of its family.

    Raises:
        InputError: a model of no family that is known, damaged or not whole, or an adapter that does not fit it.
        FreectlError: not in the hub's local cache while offline.
    """
    with MAKING, collector.paused():
        pipe = _complete(source, device, dtype, lora, textual_inversion, offload)
    collector.settle()
    return pipe


def _complete(
    source: Source, device: str, dtype: Any, lora: Sequence[str], textual_inversion: Sequence[str], offload: str
) -> Any:
    pipe = opened(source.kind, source.path, dtype)
    checkpoints.check_complete(pipe, source.path)
    for path in textual_inversion:
        load_textual_inversion(pipe, tensor_files.named(path, OPTION))
    pipe.load_warnings = (*pipe.load_warnings, *adapters.load(pipe, lora))
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe
