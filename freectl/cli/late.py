"""Modules that libraries import and commands hardly ever use: read at the first use."""

import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import RLock
from types import ModuleType, SimpleNamespace
from typing import Any


def _as_it_is(value: Any = None, *_: Any, **__: Any) -> Any:
    """A mark for the compiler, which is not there yet; as a decorator with arguments too."""
    return (lambda one: one) if value is None else value


def _called_late(module: str, name: str) -> Callable[..., Any]:
    """A function that is looked up when it is called."""

    def call(*args: Any, **options: Any) -> Any:
        with _reading:
            _read(sys.modules[module])
        return getattr(sys.modules[module], name)(*args, **options)

    return call


class _NoCompiledModule:
    """Of which there is none before the compiler is read."""


LATE: dict[str, Mapping[str, Any]] = {
    "scipy.stats": {},
    "scipy.integrate": {},
    "scipy.optimize": {"linear_sum_assignment": _called_late("scipy.optimize", "linear_sum_assignment")},
    "torchvision.models": {},
    "torchvision.ops": {},
    "torch._dynamo": {
        **dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _as_it_is),
        "eval_frame": SimpleNamespace(OptimizedModule=_NoCompiledModule),
    },
}
"""Each with what stands for a name of it that import statements take, until it is read.

diffusers' schedulers import scipy for a kind of noise levels and transformers' losses for object detection, torchvision
imports all of its networks, and diffusers' blocks torch's compiler, to mark themselves for it. No command here that
reads late compiles.
"""
_TOLD_BEFORE = frozenset({"__class__", "__dict__", "__file__", "__loader__", "__name__", "__path__", "__spec__"})
_reading = RLock()


def read_late() -> None:
    """From now on the modules of `LATE` are read when something of them is used, and not when they are imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Late(ModuleType):
    """A module that is not read yet.

    `importlib.util.LazyLoader`'s is read as soon as a second import statement looks at its `__spec__`.
    """

    def __getattribute__(self, name: str) -> Any:
        if name not in _TOLD_BEFORE:
            with _reading:
                if _is_unread(self) and name in (stand_ins := LATE[ModuleType.__getattribute__(self, "__name__")]):
                    return stand_ins[name]
                _read(self)
        return ModuleType.__getattribute__(self, name)


def _is_unread(module: ModuleType) -> bool:
    """Else this thread reads it just now, or it has been read."""
    return isinstance(ModuleType.__getattribute__(module, "__spec__").loader, _Loader)


def _read(module: ModuleType) -> None:
    if _is_unread(module):
        ModuleType.__getattribute__(module, "__spec__").loader.read(module)


class _Loader(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Late

    def read(self, module: ModuleType) -> None:
        spec: Any = module.__spec__
        module.__loader__ = spec.loader = self.real
        try:
            self.real.exec_module(module)
        except BaseException:
            module.__loader__ = spec.loader = self  # the next use tries again
            raise
        module.__class__ = ModuleType


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in LATE:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for one in others if (found := one.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec
