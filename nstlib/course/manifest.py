"""What a run leaves beside its figures: how each file was made, and the proof that nothing has changed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pooch import file_hash

from nstlib.assets.writing import write_atomic

MANIFEST = "manifest.json"
MEASURED = "measured.json"
# Between these lines of a notebook stands what was measured: not part of what it says.
MEASURED_BLOCK = re.compile(r"(<!-- measured -->).*?(<!-- /measured -->)", re.DOTALL)
# The packages whose version can change a figure.
VERSIONED = ("torch", "torchvision", "numpy", "matplotlib", "pillow", "nstlib")


def course_root() -> Path:
    """The nearest folder upwards that holds ``notebooks/`` and ``pyproject.toml``; else the current one."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    return here


def shown(path: Path) -> str:
    """A path as printed: relative to the course if it lies there, so that stored notebooks travel."""
    root = course_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole; what JSON does not know is written as its text."""
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is missing or broken reads as empty."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def tree_hash(folder: Path) -> str:
    """Digest of the names and bytes of all files below a folder, compiled Python aside."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def notebook_hash(content: Mapping[str, Any]) -> str:
    """Digest of what a notebook says: cells, tags and promises; not outputs, and not what was measured."""
    cells = []
    for cell in content["cells"]:
        source = MEASURED_BLOCK.sub(r"\1\2", "".join(cell["source"]))
        cells.append((cell["cell_type"], source, sorted(cell["metadata"].get("tags", []))))
    said = json.dumps([cells, content["metadata"].get("nst", {})], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def unchanged(folder: Path, proof: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of a folder when it proves this very run with every file as recorded; else None."""
    manifest = read_json(folder / MANIFEST)
    if not manifest or manifest.get("proof") != json.loads(json.dumps(proof, default=str)):
        return None
    return manifest if all(is_recorded(folder, output) for output in manifest["outputs"]) else None


def is_recorded(folder: Path, output: Mapping[str, Any]) -> bool:
    """Whether a file of a run is there as its manifest lists it."""
    path = folder / output["file"]
    return path.is_file() and file_hash(path) == output["sha256"]


def versions() -> dict[str, str]:
    """Versions of the packages that can change a figure, read without importing them."""
    return {name: metadata.version(name) for name in VERSIONED}


@cache
def processor() -> str:
    """The processor as its maker prints it, its cores, and whether it multiplies bfloat16."""
    name, units = platform.processor(), []
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", text, re.MULTILINE):
            name = " ".join(found[1].split())
        units = [unit for flag, unit in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in text]
    elif sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return ", ".join([name or platform.machine(), f"{os.cpu_count()} cores", *units[:1]])


def peak_mib() -> float:
    """Peak resident memory of this process in MiB."""
    if sys.platform == "linux":
        # Linux hands ru_maxrss down from the starting process; VmHWM begins anew with each program.
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(match[1]) / 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def device_report() -> dict[str, Any]:
    """Device, processor, precision and the GPU's peak memory, as far as torch is loaded and says so."""
    report: dict[str, Any] = {"device": "cpu", "processor": processor(), "system": platform.platform()}
    torch = sys.modules.get("torch")
    if torch is not None:
        report["precision"] = f"{torch.get_default_dtype()}, matmul {torch.get_float32_matmul_precision()}"
        report["threads"] = torch.get_num_threads()
        if torch.cuda.is_initialized():
            report["device"] = "cuda"
            report["gpu"] = torch.cuda.get_device_name()
            report["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return report


def show_seconds(seconds: float) -> str:
    """A duration for people: ``8.4 s``, ``2 min 05 s``, ``1 h 12 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_mib(mib: float) -> str:
    """An amount of memory for people: ``812 MiB``, ``3.4 GiB``."""
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
