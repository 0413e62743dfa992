"""What a run leaves beside its figures: how each file was made, and the proof that nothing has changed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from nstlib.course.presets import PRESETS
from nstlib.errors import CourseError

MANIFEST = "manifest.json"
MEASURED = "measured.json"
# GitHub stops to show a notebook of a few megabytes, and every clone carries each version of it.
STORED_BYTES = 2_000_000
# The packages whose version can change a figure.
VERSIONED = ("torch", "torchvision", "numpy", "matplotlib", "pillow", "nstlib")
_MEASURED = re.compile(r"(<!-- measured -->).*?(<!-- /measured -->)", re.DOTALL)


def course_root(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds ``notebooks/`` and ``pyproject.toml``; else ``start`` itself."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    return start


def now() -> str:
    """This moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that its final name only ever holds all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; what JSON does not know is written as its text."""
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is missing or broken reads as empty."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tree_hash(folder: Path) -> str:
    """Digest of the names and bytes of all files below a folder, compiled Python aside."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def notebook_hash(content: Mapping[str, Any]) -> str:
    """Digest of what a notebook says: cells, tags and promises; not outputs, and not the measured block."""
    cells = [
        (
            cell.get("cell_type"),
            _MEASURED.sub(r"\1\2", "".join(cell.get("source", ""))),
            sorted(cell.get("metadata", {}).get("tags", [])),
        )
        for cell in content.get("cells", [])
    ]
    said = json.dumps([cells, content.get("metadata", {}).get("nst", {})], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that can change a figure, read without importing them."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def processor() -> str:
    """The processor as its maker prints it, its cores, and whether it multiplies bfloat16."""
    name, units = "", ""
    try:
        if sys.platform == "linux":
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
            found = re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", text, re.M)
            name = " ".join(found[1].split()) if found else ""
            units = next(
                (u for flag, u in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in text), ""
            )
        elif sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            name = subprocess.run(
                command, capture_output=True, text=True, timeout=5, check=True
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    name = name or platform.processor() or platform.machine() or "unknown"
    return ", ".join(part for part in (name, f"{os.cpu_count()} cores", units) if part)


def peak_mib() -> float | None:
    """Peak resident memory of this process in MiB; None where the system does not say."""
    try:
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
    except (ImportError, OSError, AttributeError):
        return None


def device_report() -> dict[str, Any]:
    """Device, processor, precision and the GPU's peak memory, as far as torch is loaded and says so."""
    report: dict[str, Any] = {
        "device": "cpu",
        "processor": processor(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    if torch is None:  # a notebook that never loads it has nothing to report
        return report
    try:
        report["precision"] = f"{torch.get_default_dtype()}, matmul {torch.get_float32_matmul_precision()}"
        report["threads"] = torch.get_num_threads()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            report["device"] = "cuda"
            report["gpu"] = torch.cuda.get_device_name()
            report["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    except (RuntimeError, AttributeError) as error:
        report["unknown"] = str(error)
    return report


def unchanged(folder: Path, proof: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of a folder when it proves this very run with every file as recorded; else None."""
    manifest = read_json(folder / MANIFEST)
    if not manifest or manifest.get("proof") != json.loads(json.dumps(proof, default=str)):
        return None
    for output in manifest.get("outputs", []):
        path = folder / output["file"]
        if not path.is_file() or sha256(path) != output["sha256"]:
            return None
    return manifest


def show_seconds(seconds: float | None) -> str:
    """A duration for people: ``8.4 s``, ``2 min 05 s``, ``1 h 12 min``."""
    if seconds is None:
        return "unknown time"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_mib(mib: float | None) -> str:
    """An amount of memory for people: ``812 MiB``, ``3.4 GiB``."""
    if mib is None:
        return "unknown"
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def measured_table(presets: Mapping[str, Mapping[str, Any]]) -> str:
    """The Markdown table of a notebook's measured time and peak memory, a line per preset and device."""
    lines = ["| preset | on | time | peak memory | measured |", "|---|---|---|---|---|"]
    for preset in sorted(presets, key=lambda name: PRESETS.index(name) if name in PRESETS else len(PRESETS)):
        for device, entry in sorted(presets[preset].items()):
            on = f"{device.upper()}: {entry.get('gpu') or entry.get('processor', 'unknown')}"
            memory = show_mib(entry.get("peak_mib"))
            if entry.get("peak_gpu_mib") is not None:
                memory += f", GPU {show_mib(entry['peak_gpu_mib'])}"
            when = f"{str(entry.get('finished'))[:10]}, torch {entry.get('versions', {}).get('torch')}"
            lines.append(f"| `{preset}` | {on} | {show_seconds(entry.get('seconds'))} | {memory} | {when} |")
    return "\n".join(lines)


def store_notebook(path: Path, digest: str, executed: Path, manifest: Mapping[str, Any]) -> None:
    """Write a run's measurement, and at preset quick its outputs, back into a notebook of the course.

    Time and memory go to ``measured.json`` beside the notebook, one entry per preset and kind of device, and
    as a table between ``<!-- measured -->`` and ``<!-- /measured -->``.

    Args:
        path: the notebook.
        digest: its :func:`notebook_hash` when the run began.
        executed: what papermill wrote.
        manifest: the run's manifest.

    Raises:
        CourseError: the notebook was edited meanwhile, or would be too large; nothing is written then.
    """
    import nbformat

    source = nbformat.read(path, as_version=4)
    if notebook_hash(source) != digest:
        raise CourseError(f"{path.name} was edited while it ran: run it again to store it.")
    measured = read_json(path.with_name(MEASURED))
    machine = manifest["machine"]
    entry = {key: machine[key] for key in ("processor", "gpu", "peak_gpu_mib") if key in machine}
    entry |= {key: manifest[key] for key in ("peak_mib", "finished", "versions")}
    entry["seconds"] = manifest["wall_seconds"]
    presets = measured.setdefault(path.stem, {})
    presets.setdefault(manifest["preset"], {})[machine["device"]] = entry
    table = f"\n{measured_table(presets)}\n"
    for cell in source.cells:
        if cell.cell_type == "markdown":
            cell.source = _MEASURED.sub(partial(_fill, table), cell.source)
    if manifest["preset"] == "quick":
        # Outputs go into the source, so nothing else that the run has added can come along.
        count = 0
        for cell, ran in zip(source.cells, nbformat.read(executed, as_version=4).cells, strict=True):
            if cell.cell_type == "code":
                count += bool(cell.source.strip())
                cell.execution_count = count if cell.source.strip() else None
                cell.outputs = _tidy(ran.outputs)
                for output in cell.outputs:
                    if "execution_count" in output:
                        output.execution_count = count
    for key in ("papermill", "widgets"):
        source.metadata.pop(key, None)
    text = nbformat.writes(source).rstrip("\n") + "\n"
    if (size := len(text.encode())) > STORED_BYTES:
        raise CourseError(
            f"{path.name} would be {size / 1e6:.1f} MB with its outputs, over {STORED_BYTES / 1e6:.1f} MB: "
            "show smaller or fewer pictures in it."
        )
    write_atomic(path, text)
    write_json(path.with_name(MEASURED), {name: measured[name] for name in sorted(measured)})


def _fill(table: str, match: re.Match[str]) -> str:
    return match[1] + table + match[2]


def _tidy(outputs: Sequence[Any]) -> list[Any]:
    """Outputs fit to be stored: one stream per stretch of text, lines as they stood at the end.

    Progress bars and warnings (stderr) are noise in a stored notebook; widgets need a kernel to show.
    nbclient's own ``coalesce_streams`` is not used: its patterns take minutes for one line of a megabyte.
    """
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
        elif "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            continue
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            # A carriage return takes the line back to its beginning: what follows stands in its place.
            lines = output.text.replace("\r\n", "\n").split("\n")
            output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return kept


def shown(path: Path) -> str:
    """A path as printed: relative to the course if it lies there, so that stored notebooks travel."""
    root = course_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
