"""Reading and replacing activations of a network by module name: the only place where forward hooks go on one.

A site is the exact name of a module in `network.named_modules()` whose output is one tensor, such as
`up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k`. Forward hooks leave LoRA layers, IP-Adapters and attention
processors as they are. Taps nest: an inner one edits after an outer one has captured. With gradient checkpointing,
run the backward inside the `with` too, so that recomputation is edited alike. `copy.deepcopy(network)` inside a `with`
copies the hooks too.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from freectl.denoising.grad import run_again
from freectl.errors import FreectlError

Edit = Callable[[Tensor], Tensor]
More = Callable[[tuple, dict[str, Any]], dict[str, Any]]


def chained(*groups: Mapping[str, Edit]) -> dict[str, Edit]:
    """Edits of several kinds in one: at a site that several have, the later ones see what the earlier ones made."""
    found: dict[str, Edit] = {}
    for group in groups:
        for site, edit in group.items():
            found[site] = partial(_one_by_one, (found[site], edit)) if site in found else edit
    return found


def _one_by_one(edits: Sequence[Edit], value: Tensor) -> Tensor:
    for edit in edits:
        value = edit(value)
    return value


class TapError(FreectlError):
    """A tap cannot be placed at a site, or the site gave nothing."""


class EarlyExit(Exception):  # noqa: N818 - not an error: it ends a forward on purpose
    """Ends a forward once all `sites` have fired. `tap` swallows it; forward hooks may look at it."""

    def __init__(self, owner: "Captured", sites: tuple[str, ...]) -> None:
        super().__init__("the forward ends here: every tapped site has fired")
        self.owner, self.sites = owner, sites


class Captured:
    """What one tap has seen in the latest forward; a new forward empties it."""

    def __init__(self, sites: Sequence[str], edited: Sequence[str]) -> None:
        self.sites = tuple(dict.fromkeys(sites))
        self._edited = tuple(edited)
        self._values: dict[str, Tensor] = {}
        self._silent: tuple[str, ...] = ()

    def pop_all(self) -> dict[str, Tensor]:
        """Return site -> (rows, ..., channels) in the order the sites were named, and forget them.

        Raises:
            TapError: a site, captured or edited, did not fire in the forward, or no forward came since the last call.
        """
        values, self._values = self._values, {}
        for site in (*self.sites, *self._silent):
            if site not in values:
                raise TapError(f"site '{site}' did not fire in a forward since the last reading")
        return {site: values[site] for site in self.sites}

    def _begin(self) -> None:
        self._values, self._silent = {}, ()

    def _complete(self, fired: set[str]) -> None:
        self._silent = tuple(site for site in self._edited if site not in fired)

    def _raise_silent_edit(self) -> None:
        if self._silent:
            raise TapError(f"the edit of site '{self._silent[0]}' was never applied: the site did not fire")


class _Tap:
    """State and hooks of one `tap` over a network's forwards."""

    def __init__(
        self, seen: Captured, edits: Mapping[str, Edit], rows: slice | None, stop_after: bool, cut_grad: bool
    ) -> None:
        self.seen, self.edits, self.rows = seen, edits, rows
        self.stop_after, self.cut_grad = stop_after, cut_grad
        self.inside = False
        self.fired: set[str] = set()
        self.grad_before: bool | None = None
        self.grad_at_entry = torch.is_grad_enabled()
        self.handles: list[RemovableHandle] = []

    def install(self, network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
        self.handles.append(network.register_forward_pre_hook(self.begin))
        self.handles.append(network.register_forward_hook(self.end, always_call=True))
        for site, module in modules.items():
            self.handles.append(module.register_forward_hook(partial(self.visit, site)))

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        if self.grad_before is not None:
            # an interrupt skipped `end`; contexts opened inside the tap have put their mode back by now
            torch.set_grad_enabled(self.grad_at_entry)

    def begin(self, _network: nn.Module, _args: tuple) -> None:
        self.seen._begin()
        self.inside, self.fired = True, set()

    def end(self, _network: nn.Module, _args: tuple, output: object) -> None:
        self.inside = False
        if self.grad_before is not None:
            torch.set_grad_enabled(self.grad_before)
            self.grad_before = None
        if output is not None:  # None: the forward was aborted
            self.seen._complete(self.fired)

    def visit(self, site: str, _module: nn.Module, _args: tuple, output: object) -> Tensor | None:
        if not isinstance(output, Tensor):
            raise TapError(f"site '{site}' returns {type(output).__name__}, not one tensor: name a layer inside it")
        edited = self.edits[site](output) if site in self.edits else None
        # gradient checkpointing runs modules again during backward, outside the network's forward: edited, not captured
        if self.inside:
            self.fired.add(site)
            if site in self.seen.sites and site not in self.seen._values:
                self._capture(site, output if edited is None else edited)
        return edited

    def _capture(self, site: str, value: Tensor) -> None:
        self.seen._values[site] = value if self.rows is None else value[self.rows]
        if len(self.seen._values) < len(self.seen.sites):
            return
        if self.stop_after:
            raise EarlyExit(self.seen, self.seen.sites)
        if self.cut_grad:
            self.grad_before = torch.is_grad_enabled()
            torch.set_grad_enabled(False)


@contextmanager
def tap(
    network: nn.Module,
    sites: Sequence[str] = (),
    *,
    edits: Mapping[str, Edit] | None = None,
    rows: slice | None = None,
    stop_after: bool = False,
    cut_grad: bool = False,
) -> Iterator[Captured]:
    """Capture the outputs of `sites`, with their gradient, in every forward made inside the `with`.

    Args:
        network: the model; everything put on it is removed on every exit.
        sites: exact module names. The first value of a site within one forward is kept.
        edits: site -> pure function, from that module's output to what replaces it (and is captured), same shape.
        rows: batch rows to keep of what is captured; None keeps all.
        stop_after: abort the forward once all sites have fired and go on behind the `with`; see `run_until`.
        cut_grad: record no gradient from the last site to the end of the same forward.

    Raises:
        TapError: a site does not exist, cannot fire (fused projections), is not one tensor, or an edit was not
            applied in the last completed forward; `cut_grad` with gradient checkpointing, or without sites.
    """
    edits = dict(edits or {})
    modules = _resolve(network, (*sites, *edits))
    if stop_after or cut_grad:
        _check_last_site(network, sites, cut_grad)
    seen = Captured(sites, tuple(edits))
    state = _Tap(seen, edits, rows, stop_after, cut_grad)
    try:
        state.install(network, modules)
        yield seen
        seen._raise_silent_edit()
    except EarlyExit as stop:
        if stop.owner is not seen:
            raise
        # the traceback holds the frames of the forward, and with them every skip connection
        stop.with_traceback(None)
    finally:
        state.remove()


def run_until(
    network: nn.Module,
    sites: Sequence[str],
    *args: object,
    edits: Mapping[str, Edit] | None = None,
    rows: slice | None = None,
    **kwargs: object,
) -> dict[str, Tensor]:
    """Call `network(*args, **kwargs)` up to the last of `sites` and return site -> (rows, ..., channels).

    Raises:
        TapError: as `tap`, or a site did not fire.
    """
    with tap(network, sites, edits=edits, rows=rows, stop_after=True) as seen:
        network(*args, **kwargs)
    return seen.pop_all()


@contextmanager
def given_more(network: nn.Module, more: More) -> Iterator[None]:
    """Give every forward inside the `with` further inputs, such as a ControlNet's residuals.

    Args:
        more: from a forward's positional and keyword arguments to the keyword arguments that are added.
    """

    def add(_network: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, **more(args, kwargs)}

    handle = network.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _resolve(network: nn.Module, sites: Sequence[str]) -> dict[str, nn.Module]:
    return {site: _module(network, site) for site in sites}


def _module(network: nn.Module, site: str) -> nn.Module:
    parent, _, leaf = site.rpartition(".")
    try:
        module, around = network.get_submodule(site), network.get_submodule(parent)
    except AttributeError:
        module = network
    if module is network:
        near = difflib.get_close_matches(site, [name for name, _ in network.named_modules()], n=3)
        hint = f"; close: {', '.join(near)}" if near else ""
        raise TapError(f"no module '{site}' in {type(network).__name__}{hint}")
    if _is_fused(around, leaf):
        raise TapError(f"site '{site}' never fires while projections are fused: call unfuse_qkv_projections()")
    return module


def _check_last_site(network: nn.Module, sites: Sequence[str], cut_grad: bool) -> None:
    if not sites:
        raise TapError("stop_after and cut_grad need at least one site")
    if cut_grad and any(_checkpoints(module) for module in network.modules()):
        # recomputation would run with gradients on and differ from the forward
        raise TapError("cut_grad does not work with gradient checkpointing: call disable_gradient_checkpointing()")


def _checkpoints(module: nn.Module) -> bool:
    """Whether a block is run again for its gradient in another way than ours, which ends where the gradient ends."""
    # of its own attributes: asking a module for one that it lacks is slow, and this asks all of them
    on = bool(vars(module).get("gradient_checkpointing", False))
    return on and module._gradient_checkpointing_func is not run_again


def _is_fused(attention: nn.Module, leaf: str) -> bool:
    """Whether a fused projection runs in its place: `to_qkv` of the picture, `to_added_qkv` of the text."""
    if not getattr(attention, "fused_projections", False):
        return False
    if isinstance(attention, Attention) and "Fused" not in type(attention.processor).__name__:
        # its unfuse_qkv_projections() puts the processors back but leaves the flag: the processor decides; layers of
        # other classes, such as FLUX's, keep their processor and go by the flag
        return False
    if leaf.startswith("add_"):
        return hasattr(attention, "to_added_qkv")
    # fused cross-attention has `to_kv` only, and goes on calling `to_q`
    return leaf in ({"to_q", "to_k", "to_v"} if hasattr(attention, "to_qkv") else {"to_k", "to_v"})
