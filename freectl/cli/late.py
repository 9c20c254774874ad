"""Modules that libraries import and commands hardly ever use: read at the first use."""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import RLock
from types import ModuleType
from typing import Any

LATE = frozenset({"scipy.stats"})
"""diffusers' schedulers import it for one kind of noise levels, which takes as long as all of their own code."""
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
                spec = ModuleType.__getattribute__(self, "__spec__")
                if isinstance(spec.loader, _Loader):  # else this thread reads it just now, or it has been read
                    spec.loader.read(self)
        return ModuleType.__getattribute__(self, name)


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
