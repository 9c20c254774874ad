"""Networks as a run needs them: without their compiled wrapping, and one run at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from freectl.errors import InputError

_locks: "WeakKeyDictionary[nn.Module, Any]" = WeakKeyDictionary()
_making = Lock()
_AFTER_EVERY_LAYER = {"layerwise_casting": "layerwise casting (fp8)", "group_offloading": "group offload"}
"""Names of diffusers' hooks that change a layer's weights as soon as it has run."""


def unwrapped(network: Any) -> Any:
    """What `torch.compile` was given; anything else is itself."""
    return getattr(network, "_orig_mod", network)


@contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """Run a network eagerly inside, its blocks too: what is compiled does not see hooks that come later."""
    compiled = {module: call for module in network.modules() if (call := module._compiled_call_impl) is not None}
    for module in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled.items():
            module._compiled_call_impl = call


def check_gradients(network: nn.Module, method: str) -> None:
    """Check that a network's weights stay what they are between a forward and its gradient.

    Raises:
        InputError: diffusers' layerwise casting or group offload changes them after every layer.
    """
    hooks = (getattr(module, "_diffusers_hook", None) for module in network.modules())
    names = {name for one in hooks if one is not None for name in one.hooks}
    for name, said in _AFTER_EVERY_LAYER.items():
        if name in names:
            allowed = "a network without it, model or sequential offload, or a method without gradients, such as pnp"
            raise InputError("--method", f"{method}, which needs gradients, on a network with {said}", allowed)


@contextmanager
def exclusive(pipe: Any) -> Iterator[None]:
    """Hold all networks of a pipeline, so that runs in several threads come one after another.

    A run leaves hooks, dtypes and counters on its networks while it lasts; pipelines that share one wait too. The
    thread that holds them may enter again, as a callback does that runs the pipeline itself.
    """
    networks = {unwrapped(part) for part in pipe.components.values() if isinstance(part, nn.Module)}
    with ExitStack() as held:
        for network in sorted(networks, key=id):  # the same order in all threads, or two would wait for each other
            held.enter_context(_lock(network))
        yield


def _lock(network: nn.Module) -> Any:
    with _making:
        return _locks.setdefault(network, RLock())
