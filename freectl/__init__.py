"""Training-free, text-guided picture editing that keeps structure. Importing this package imports no torch.

A prompt describes the result: "a bronze horse", not "make the horse bronze".

    import freectl

    result = freectl.edit("fox.png", "a noto cat on a blue background")
    result.image.save("cat.png")

`edit` changes a picture, `control` makes one with the structure of a sketch or another condition, `compare` runs
several methods, `batch` edits many pictures. `FreeControlPipeline` and `FreeControlXLPipeline` are diffusers
pipelines. `InputError` names the argument, what was found and what is allowed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freectl.errors import FreectlError, InputError
    from freectl.pipelines.chroma import FreeControlChromaPipeline
    from freectl.pipelines.flux import FreeControlFluxPipeline
    from freectl.pipelines.flux2 import FreeControlFlux2KleinPipeline, FreeControlFlux2Pipeline
    from freectl.pipelines.pixart import FreeControlPixArtPipeline
    from freectl.pipelines.qwen_image import FreeControlQwenImagePipeline
    from freectl.pipelines.sd import FreeControlPipeline
    from freectl.pipelines.sd3 import FreeControl3Pipeline
    from freectl.pipelines.sdxl import FreeControlXLPipeline
    from freectl.pipelines.z_image import FreeControlZImagePipeline
    from freectl.tasks.batch.run import BatchResult, batch
    from freectl.tasks.compare import compare
    from freectl.tasks.control import ControlResult, control
    from freectl.tasks.edit import EditResult, edit

__version__ = "0.1.0"
_LAZY = {
    "batch": "freectl.tasks.batch.run",
    "BatchResult": "freectl.tasks.batch.run",
    "compare": "freectl.tasks.compare",
    "control": "freectl.tasks.control",
    "ControlResult": "freectl.tasks.control",
    "edit": "freectl.tasks.edit",
    "EditResult": "freectl.tasks.edit",
    "FreeControlPipeline": "freectl.pipelines.sd",
    "FreeControl3Pipeline": "freectl.pipelines.sd3",
    "FreeControlChromaPipeline": "freectl.pipelines.chroma",
    "FreeControlFlux2KleinPipeline": "freectl.pipelines.flux2",
    "FreeControlFlux2Pipeline": "freectl.pipelines.flux2",
    "FreeControlFluxPipeline": "freectl.pipelines.flux",
    "FreeControlPixArtPipeline": "freectl.pipelines.pixart",
    "FreeControlQwenImagePipeline": "freectl.pipelines.qwen_image",
    "FreeControlXLPipeline": "freectl.pipelines.sdxl",
    "FreeControlZImagePipeline": "freectl.pipelines.z_image",
    "FreectlError": "freectl.errors",
    "InputError": "freectl.errors",
}
__all__ = [
    "BatchResult",
    "ControlResult",
    "EditResult",
    "FreeControl3Pipeline",
    "FreeControlChromaPipeline",
    "FreeControlFlux2KleinPipeline",
    "FreeControlFlux2Pipeline",
    "FreeControlFluxPipeline",
    "FreeControlPipeline",
    "FreeControlPixArtPipeline",
    "FreeControlQwenImagePipeline",
    "FreeControlXLPipeline",
    "FreeControlZImagePipeline",
    "FreectlError",
    "InputError",
    "__version__",
    "batch",
    "compare",
    "control",
    "edit",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'freectl' has no attribute {name!r}")
        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
