"""Training-free, text-guided picture editing that keeps structure. Importing this package imports no torch."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_LAZY = {
    "compare": "freectl.tasks.compare",
    "control": "freectl.tasks.control",
    "ControlResult": "freectl.tasks.control",
    "edit": "freectl.tasks.edit",
    "EditResult": "freectl.tasks.edit",
    "FreeControlPipeline": "freectl.pipelines.sd",
    "FreeControlXLPipeline": "freectl.pipelines.sdxl",
    "FreectlError": "freectl.errors",
    "InputError": "freectl.errors",
}
__all__ = [
    "ControlResult",
    "EditResult",
    "FreeControlPipeline",
    "FreeControlXLPipeline",
    "FreectlError",
    "InputError",
    "__version__",
    "compare",
    "control",
    "edit",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'freectl' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
