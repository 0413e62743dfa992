"""Run notebooks and write their outputs, times and memory into notebooks/: ``make store NB=02``.

Preset smoke is only measured; the outputs that a notebook keeps come from quick. Time and memory go to
``measured.json``, one entry per preset and kind of device, and as a table between ``<!-- measured -->`` and
``<!-- /measured -->`` of the notebook.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from nstlib.assets.writing import write_atomic
from nstlib.course import manifest
from nstlib.course.presets import PRESETS
from nstlib.course.runner import Result, run_course
from nstlib.errors import CourseError, NstError

# GitHub stops to show a notebook of a few megabytes, and every clone carries each version of it.
STORED_BYTES = 2_000_000


def store(result: Result) -> None:
    """Write a run's measurement, and at preset quick its outputs, back into the notebook.

    Raises:
        CourseError: the notebook was edited meanwhile, or would be too large; nothing is written then.
    """
    path = manifest.course_root() / "notebooks" / f"{result.notebook}.ipynb"
    content = manifest.read_json(result.out / manifest.MANIFEST)
    source = nbformat.read(path, as_version=4)
    if manifest.notebook_hash(source) != content["proof"]["notebook"]:
        raise CourseError(f"{path.name} was edited while it ran: run it again to store it.")
    machine = content["machine"]
    entry = {key: machine[key] for key in ("processor", "gpu", "peak_gpu_mib") if key in machine}
    entry |= {key: content[key] for key in ("peak_mib", "finished", "versions")}
    entry["seconds"] = result.seconds
    measured = manifest.read_json(path.with_name(manifest.MEASURED))
    presets = measured.setdefault(path.stem, {})
    presets.setdefault(content["preset"], {})[machine["device"]] = entry
    for cell in source.cells:
        if cell.cell_type == "markdown":
            cell.source = manifest.MEASURED_BLOCK.sub(partial(_filled, table(presets)), cell.source)
    if content["preset"] == "quick":
        # Outputs go into the source, so nothing else that the run has added can come along.
        count = 0
        executed = nbformat.read(result.out / path.name, as_version=4)
        for cell, ran in zip(source.cells, executed.cells, strict=True):
            if cell.cell_type == "code":
                count += bool(cell.source.strip())
                cell.execution_count = count if cell.source.strip() else None
                cell.outputs = tidy(ran.outputs)
                for output in cell.outputs:
                    if "execution_count" in output:
                        output.execution_count = count
    for key in ("papermill", "widgets"):
        source.metadata.pop(key, None)
    text = (nbformat.writes(source).rstrip("\n") + "\n").encode()
    if len(text) > STORED_BYTES:
        raise CourseError(
            f"{path.name} would be {len(text) / 1e6:.1f} MB with its outputs, over "
            f"{STORED_BYTES / 1e6:.1f} MB: show smaller or fewer pictures in it."
        )
    write_atomic(path, text)
    manifest.write_json(
        path.with_name(manifest.MEASURED), {name: measured[name] for name in sorted(measured)}
    )


def table(presets: Mapping[str, Mapping[str, Any]]) -> str:
    """The Markdown table of a notebook's measured time and peak memory, a line per preset and device."""
    lines = ["| preset | on | time | peak memory | measured |", "|---|---|---|---|---|"]
    for preset in sorted(presets, key=PRESETS.index):
        for device, entry in sorted(presets[preset].items()):
            on = f"{device.upper()}: {entry.get('gpu') or entry['processor']}"
            memory = manifest.show_mib(entry["peak_mib"])
            if "peak_gpu_mib" in entry:
                memory += f", GPU {manifest.show_mib(entry['peak_gpu_mib'])}"
            when = f"{entry['finished'][:10]}, torch {entry['versions']['torch']}"
            seconds = manifest.show_seconds(entry["seconds"])
            lines.append(f"| `{preset}` | {on} | {seconds} | {memory} | {when} |")
    return "\n".join(lines)


def tidy(outputs: Sequence[Any]) -> list[Any]:
    """Outputs fit to be stored: one stream per stretch of text, lines as they stood at the end.

    Progress bars and warnings (stderr) are noise in a stored notebook; widgets need a kernel to show.
    nbclient's own ``coalesce_streams`` is not used: its patterns take minutes for one line of a megabyte.
    """
    kept: list[Any] = []
    for output in outputs:
        if output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get(
            "data", {}
        ):
            continue
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            # A carriage return takes the line back to its beginning: what follows stands in its place.
            lines = output.text.replace("\r\n", "\n").split("\n")
            output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return kept


def _filled(text: str, match: Any) -> str:
    return f"{match[1]}\n{text}\n{match[2]}"


def main(selection: Sequence[str]) -> None:
    """Run the chosen notebooks at smoke and quick, as they are, and store what that gives."""
    for name in ("NST_PRESET", "NST_OUT"):
        os.environ.pop(name, None)
    os.chdir(Path(__file__).resolve().parents[1])
    for preset in ("smoke", "quick"):
        for result in run_course(selection, preset=preset):
            store(result)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except NstError as error:
        sys.exit(f"store: {error}")
