"""What this machine computes with: device, number format, and freed memory that the process keeps."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import SettingError


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on: "auto" takes CUDA, then Apple's MPS, then the processor.

    Each of the processes that a launcher has started (``accelerate launch``, ``torchrun``) takes its own GPU.

    Raises:
        SettingError: the device asked for is not there.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            own = os.environ.get("LOCAL_RANK")
            return torch.device("cuda" if own is None else f"cuda:{own}")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if resolved is None or not there.get(resolved.type):
        usable = ", ".join(f"'{name}'" for name, usable in there.items() if usable)
        raise SettingError(f"'{device}' is no device to compute on here: use 'auto', or one of {usable}.")
    return resolved


def processor_likes_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AMX or AVX512-BF16).

    Without it bfloat16 is emulated and several times slower than float32.
    """
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def resolve_precision(
    precision: str | torch.dtype = "auto", device: torch.device | str = "cpu"
) -> torch.dtype:
    """The number format of the convolutions.

    "auto" is bfloat16 where the hardware is good at it (a processor with AMX or AVX512-BF16, a CUDA GPU from
    Ampere on), float32 elsewhere. Sums and losses are float32 in either case.

    Raises:
        SettingError: not one of "auto", "float32", "bfloat16", "float64".
    """
    precision = str(precision).removeprefix("torch.")
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
    if precision in formats:
        return formats[precision]
    if precision != "auto":
        raise SettingError(f"precision is 'auto', 'float32', 'bfloat16' or 'float64', not '{precision}'.")
    kind = torch.device(device).type
    if kind == "cpu":
        return torch.bfloat16 if processor_likes_bfloat16() else torch.float32
    if kind == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8:
        return torch.bfloat16
    return torch.float32


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch draws from this seed inside the block, and goes on as before behind it."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        yield


def give_back_memory() -> bool:
    """Return freed memory to the system, also what :func:`keep_freed_memory` keeps.

    Worth it where the next tensors are larger than the last, so that the holes left cannot be reused.

    Returns:
        Whether it could be done: on Linux with the GNU C library; elsewhere nothing happens.
    """
    trim = _c_function("malloc_trim")
    return trim is not None and bool(trim(0))


def keep_freed_memory() -> bool:
    """Let this process keep the memory it has freed, instead of asking for it anew at each layer.

    A feature map of 512 px has tens of MB. The C library hands blocks of that size back to the kernel,
    which clears every page before it gives it out again: up to half the time of a style transfer's step.
    It holds for the whole process, so programs call it (the command, a notebook), not the library.

    Returns:
        Whether it could be done: on Linux with the GNU C library; elsewhere nothing happens.
    """
    mallopt = _c_function("mallopt")
    m_trim_threshold, m_mmap_max = -1, -4  # names and numbers of mallopt(3)
    return mallopt is not None and bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, 2**31 - 1))


def _c_function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
