"""The first thing to run: is everything here that the course needs, and if not, what to do."""

from __future__ import annotations

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

    here = {found.name.lower().replace("_", "-"): found.version for found in metadata.distributions()}
    missing = []
    for need in map(Requirement, metadata.requires("nstlib") or []):
        wanted = need.marker is None or need.marker.evaluate({"extra": "course"})
        if wanted and not need.specifier.contains(here.get(need.name.lower(), "0"), prereleases=True):
            missing.append(f"{need.name}{need.specifier}")
    if missing:
        raise RuntimeError(f"{', '.join(missing)}: pip install 'nstlib[course]'")
    return f"all there, for Python {platform.python_version()} in {sys.prefix}"


def device() -> str:
    """Where torch computes; an error where torch and torchvision do not fit each other."""
    import torch
    import torchvision

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return f"{versions} on CUDA: {card.name}, {card.total_memory / GIB:.0f} GiB"
    kind = "MPS" if torch.backends.mps.is_available() else "CPU"
    colab = "; for a GPU choose Runtime > Change runtime type" if os.environ.get("COLAB_RELEASE_TAG") else ""
    nvidia = "; its NVIDIA card needs a newer driver or torch for CUDA" if shutil.which("nvidia-smi") else ""
    return f"{versions} on {kind}: {manifest.processor()}{colab}{nvidia}"


def memory() -> str:
    """Free memory."""
    import psutil

    free = psutil.virtual_memory().available / GIB
    return f"{free:.1f} GiB free" + ("; close other programs, or take preset smoke" if free < 3 else "")


def cache() -> str:
    """Where networks go that are fetched, and the room there."""
    from nstlib import assets

    folder = Path(assets.cache_dir())
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{folder} cannot be written: set NSTLIB_CACHE to another folder")
    cached, free = len(assets.cached()), shutil.disk_usage(place).free / GIB
    return f"{folder}: {cached} of {len(assets.names())} assets are there, {free:.1f} GiB free"


def notebooks() -> str:
    """The notebooks of the course whose folder this is."""
    folder = manifest.course_root() / "notebooks"
    count = len(list(folder.glob("[0-9][0-9]*_*.ipynb")))
    return f"{count} in {folder}" + ("" if count else ": go to the course's folder to run them")
