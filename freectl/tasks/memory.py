"""Memory that does not suffice: told from other errors, and said with the sizes that would have to change."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from freectl.errors import FreectlError

_MIB = 2**20


class OutOfMemoryError(FreectlError):
    """A run needs more memory than there is."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on an accelerator or not."""
    import torch

    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    )


def refused(error: BaseException, device: str, size: tuple[int, int], count: int) -> OutOfMemoryError:
    """The error in words.

    Args:
        size: working (width, height) in px. count: pictures that were made at once.
    """
    free = free_memory_mb(device)
    left = "" if free is None else f", where {free:.0f} MiB are free"
    pictures = "1 picture" if count == 1 else f"{count} pictures at once"
    ways = "--offload model, --dtype fp16, a smaller picture" if device.startswith("cuda") else "a smaller picture"
    more = "" if count == 1 else ", fewer at once"
    return OutOfMemoryError(f"out of memory on {device}{left}: {pictures} of {size[0]}x{size[1]} px; try {ways}{more}")


def free_memory_mb(device: str) -> float | None:
    """MiB that a run may still take on a device; None where it cannot be told."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0] / _MIB
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) / 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _MIB
    return None


def fitting(device: str, mb: float | None, share: float, most: int) -> int:
    """How many pictures fit into a share of the free memory, if one takes `mb` MiB; 1 where that is not known."""
    free = free_memory_mb(device)
    if mb is None or free is None:
        return 1
    return max(1, min(most, int(share * free / max(1.0, mb))))


def emptied() -> None:
    """Give an accelerator's unused memory back."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class Peak:
    """How much memory a run takes: of tensors on a CUDA device, else of the whole process.

    Attributes:
        mb: MiB beyond what was in use before, once the block has ended; None where it cannot be told.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.mb: float | None = None

    def __enter__(self) -> "Peak":
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(torch.device(self.device))
        self._before = self._used()
        return self

    def __exit__(self, *_: Any) -> None:
        from torch import device

        from freectl.denoising.cost import peak_memory_mb

        peak = peak_memory_mb(device(self.device))
        if peak is not None and self._before is not None:
            self.mb = max(0.0, peak - self._before)

    def _used(self) -> float | None:
        if self.device.startswith("cuda"):
            import torch

            return torch.cuda.memory_allocated(torch.device(self.device)) / _MIB
        with suppress(OSError, ValueError, AttributeError):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / _MIB
        return None
