"""What a bug report needs: versions, devices, memory, the cache, and the variables that change behaviour."""

import os
import platform
from importlib import metadata
from typing import Any

DISTRIBUTIONS = {
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "safetensors": "safetensors",
    "pillow": "pillow",
    "peft": "peft",
    "open_clip": "open-clip-torch",
}
# none of these can hold a secret: the report is meant to be pasted in public
VARIABLES = (
    "FREECTL_HOME",
    "FREECTL_CACHE_LIMIT_GB",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)


def report() -> dict[str, Any]:
    """Return plain JSON values: versions (None when absent), devices, memory in MB (10^6 bytes), cache, environment.

    Imports torch. Never raises for a missing package or device.
    """
    return {
        "freectl": _version("freectl"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(distribution) for name, distribution in DISTRIBUTIONS.items()},
        "devices": _devices(),
        "cpu_count": os.cpu_count(),
        "memory_mb": _memory_mb(),
        "cache": _cache(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that torch needs is missing
        return {"error": f"torch cannot be imported: {error}"}
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found.append({"name": properties.name, "memory_mb": properties.total_memory // 10**6})
    return {
        "cpu": {"threads": torch.get_num_threads()},
        "cuda": found,
        "cuda_version": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
    }


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6
    except (AttributeError, ValueError, OSError):  # not on every platform
        return None


def _cache() -> dict[str, Any]:
    from freectl.files.cache import Cache

    try:
        cache = Cache()
    except ValueError as error:  # an unusable limit is a thing to report, not to fail on
        return {"error": str(error)}
    entries = cache.entries()
    size = sum(entry.bytes for entry in entries)
    return {"folder": str(cache.root), "entries": len(entries), "bytes": size, "limit_bytes": cache.limit_bytes}
