"""Where and in which precision a run computes: decided once, with the reason."""

import os

import torch

from gan_baselines.errors import InputError


def set_threads(threads: int | None) -> int:
    """Fix the number of CPU threads (default: the cores this process may use) and return it.

    The count is part of what a run's bits depend on, so it is never left to the library.
    """
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        threads = len(affinity(0)) if affinity else os.cpu_count() or 1
    torch.set_num_threads(threads)
    return threads


def native_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX); emulation is many times slower."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def check_precision(precision: str, cpu: bool) -> None:
    """Refuse a precision that the device would only emulate.

    Raises:
        InputError: fp16 on a CPU, or bf16 on a CPU without native bfloat16.
    """
    on_cpu = cpu or not torch.cuda.is_available()
    option = "--set train.precision"
    if on_cpu and precision == "fp16":
        raise InputError(option, "fp16 on a CPU", "fp32 (half precision has no fast CPU kernels)")
    if on_cpu and precision == "bf16" and not native_bf16():
        found = "bf16 on a CPU without AVX-512 BF16 or AMX"
        raise InputError(option, found, "fp32 (emulated bfloat16 is about twenty times slower)")
