"""The first thing to run: is everything here that the course needs, and if not, what to do."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from nstlib.course import manifest

GIB = 2**30


def hello(echo: Callable[[str], Any] = print) -> bool:
    """Check the environment, one line per point: what is there, or what to do.

    Args:
        echo: called with each line.

    Returns:
        Whether the course can run.
    """
    good = True
    for check in (packages, device, memory, cache, notebooks):
        try:
            mark, text = "ok  ", check()
        except Exception as error:  # a check must never keep the others from being made
            mark, text, good = "MISS", str(error).split("\n")[0], False
        echo(f"{mark}  {check.__name__:<10} {text}")
    echo("Everything is there." if good else "See the lines that begin with MISS for what to do.")
    return good


def packages() -> str:
    """What nstlib and its notebooks ask for, in the versions they ask for."""
    from packaging.requirements import Requirement

    missing = []
    for need in map(Requirement, metadata.requires("nstlib") or []):
        if need.marker is None or need.marker.evaluate({"extra": "course"}):
            try:
                found = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                found = "0"
            if not need.specifier.contains(found, prereleases=True):
                missing.append(f"{need.name}{need.specifier}")
    if missing:
        raise RuntimeError(f"{', '.join(missing)}: pip install 'nstlib[course]'")
    return f"all there, for Python {platform.python_version()} in {sys.prefix}"


def device() -> str:
    """Where torch computes; an error where torch and torchvision do not fit each other."""
    import torch

    importlib.import_module("torchvision")
    text = f"torch {torch.__version__} on "
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return text + f"CUDA: {card.name}, {card.total_memory / GIB:.0f} GiB"
    if torch.backends.mps.is_available():
        return text + f"MPS: {manifest.processor()}"
    if "google.colab" in sys.modules or os.environ.get("COLAB_RELEASE_TAG"):
        return text + "a CPU: for a GPU choose Runtime > Change runtime type > T4 GPU"
    if shutil.which("nvidia-smi"):
        return (
            text + "a CPU, though there is an NVIDIA card: this torch has no CUDA, or the driver is too old"
        )
    return text + f"a CPU: {manifest.processor()}; presets smoke and quick are made for it"


def memory() -> str:
    """Free memory; in a container, what it may take at most."""
    import psutil

    free, limit = psutil.virtual_memory().available, Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (most := limit.read_text().strip()).isdecimal():
        free = min(free, int(most))
    return f"{free / GIB:.1f} GiB free" + ("; take preset smoke" if free < 3 * GIB else "")


def cache() -> str:
    """Where networks go that are fetched, and the room there."""
    from nstlib import assets

    folder = Path(assets.cache_dir())
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{folder} cannot be written: set NSTLIB_CACHE to another folder")
    cached, free = sum(entry.cached for entry in assets.status()), shutil.disk_usage(place).free / GIB
    return f"{folder}: {cached} of {len(assets.names())} assets are there, {free:.1f} GiB free"


def notebooks() -> str:
    """The notebooks of the course whose folder this is."""
    folder = manifest.course_root() / "notebooks"
    count = len(list(folder.glob("[0-9][0-9]_*.ipynb")))
    return f"{count} in {folder}" + ("" if count else ": go to the course's folder to run them")
