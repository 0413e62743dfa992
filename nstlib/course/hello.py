"""The first thing to run: is everything here that the course needs, and if not, what to do."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Any

from nstlib.course import manifest

_GIB = 2**30
_LINUX_LIMIT = Path("/sys/fs/cgroup/memory.max")


def hello(echo: Callable[[str], Any] = print) -> bool:
    """Check the environment, one line per point: what is there, or what to do.

    Args:
        echo: called with each line.

    Returns:
        Whether the course can run; points that only make it slower do not count.
    """
    checks: list[tuple[str, Callable[[], tuple[bool | None, str]]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("torch", _torch),
        ("device", _device),
        ("precision", _precision),
        ("memory", _memory),
        ("cache", _cache),
        ("assets", _assets),
        ("course", _course),
    ]
    good = True
    for name, check in checks:
        try:
            state, text = check()
        except Exception as error:  # a check must never keep the others from being made
            reason = (str(error) or type(error).__name__).splitlines()[0]
            state, text = None, f"cannot be checked here ({reason})"
        mark = {True: "ok  ", None: "note", False: "MISS"}[state]
        echo(f"{mark}  {name:<10} {text}")
        good = good and state is not False
    echo("Everything is there." if good else "See the lines that begin with MISS for what to do.")
    return good


def _python() -> tuple[bool | None, str]:
    # An older Python than the package asks for cannot even import this.
    return True, f"{platform.python_version()} in {sys.prefix}"


def _packages() -> tuple[bool | None, str]:
    """Hold what nstlib asks for to what is installed; the test tools are not asked for."""
    from packaging.requirements import Requirement

    absent: dict[str, list[str]] = {"": [], "course": []}
    for line in metadata.requires("nstlib") or []:
        need = Requirement(line)
        for extra, names in absent.items():
            # A requirement of the core holds without an extra, so it is met in the first round already.
            if need.marker and not need.marker.evaluate({"extra": extra}):
                continue
            try:
                installed = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                names.append(need.name)
            else:
                if not need.specifier.contains(installed, prereleases=True):
                    names.append(f"{need.name} (has {installed}, needs {need.specifier})")
            break
    if absent[""]:
        return False, f"missing {', '.join(absent[''])}: pip install nstlib"
    if absent["course"]:
        wanted = ", ".join(absent["course"])
        return None, f"missing {wanted}: pip install 'nstlib[course]' to run the notebooks by command"
    return True, "all there"


def _torch() -> tuple[bool | None, str]:
    try:
        torch = importlib.import_module("torch")
        vision = importlib.import_module("torchvision")
    except (ImportError, OSError) as error:
        return False, f"does not load ({str(error).splitlines()[0]}): pip install torch torchvision"
    except RuntimeError as error:  # torchvision's operators are missing for this torch
        return False, f"torch and torchvision do not match ({error}): pip install -U torch torchvision"
    return True, f"{torch.__version__}, torchvision {vision.__version__}, {torch.get_num_threads()} threads"


def _device() -> tuple[bool | None, str]:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return True, f"CUDA: {card.name}, {card.total_memory / _GIB:.0f} GiB"
    if torch.backends.mps.is_available():
        return True, f"MPS: {manifest.processor()}"
    text = f"CPU: {manifest.processor()}, {os.cpu_count()} cores; presets smoke and quick are made for it"
    if util.find_spec("google") and util.find_spec("google.colab"):
        text += "; for a GPU choose Runtime > Change runtime type > T4 GPU"
    elif shutil.which("nvidia-smi"):
        text += "; there is an NVIDIA card, but this torch is built without CUDA or the driver is too old"
        return None, text
    return True, text


def _precision() -> tuple[bool | None, str]:
    """Measure what bfloat16 gains in one matrix product: flags alone promise more than some machines keep."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(1024, 1024, dtype=dtype, device=device)
        times = []
        for _ in range(4):  # the first ones warm up
            began = time.perf_counter()
            float((matrix @ matrix)[0, 0])  # reading a value waits for the GPU
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    gain = seconds[torch.float32] / seconds[torch.bfloat16]
    flags = ""
    if sys.platform == "linux":
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    how = ""
    if device == "cpu":
        how = " (AMX)" if "amx_bf16" in flags else " (AVX-512)" if "avx512_bf16" in flags else ""
    advice = "" if gain > 1.2 else ": stay with float32"
    return True, f"bfloat16 is {gain:.1f} times as fast as float32{how} in a matrix product{advice}"


def _memory() -> tuple[bool | None, str]:
    import psutil

    free = psutil.virtual_memory().available
    text = ""
    if _LINUX_LIMIT.is_file() and (limit := _LINUX_LIMIT.read_text().strip()).isdecimal():
        # In a container the machine's free memory says nothing; the container's limit counts.
        free, text = min(free, int(limit)), " (limit of this container)" if int(limit) <= free else ""
    text = f"{free / _GIB:.1f} GiB free{text}"
    if free < 3 * _GIB:
        return None, f"{text}: close other programs, or take preset smoke"
    return True, text


def _cache() -> tuple[bool | None, str]:
    from nstlib import assets

    folder = Path(assets.cache_dir())
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{folder}, {free / _GIB:.1f} GiB free"
    if not os.access(place, os.W_OK):
        return False, f"{text}: cannot be written, set NSTLIB_CACHE to another folder"
    if free < 2 * _GIB:
        return None, f"{text}: make room, or set NSTLIB_CACHE to another disk"
    return True, text


def _assets() -> tuple[bool | None, str]:
    from nstlib import assets

    here = sorted(entry.name for entry in assets.status() if entry.cached)
    absent = len(assets.names()) - len(here)
    shown = ", ".join(here[:6]) + (f" and {len(here) - 6} more" if len(here) > 6 else "")
    text = f"in the cache: {shown or 'none'}"
    return True, f"{text}; {absent} others are fetched when first asked for" if absent else text


def _course() -> tuple[bool | None, str]:
    root = manifest.course_root()
    count = len(list((root / "notebooks").glob("[0-9][0-9]_*.ipynb")))
    if not count:
        return None, f"no notebooks in {root}: go to the course's folder to run them"
    return True, f"{count} notebooks in {root / 'notebooks'}"
