"""Run the course's notebooks with papermill, and believe only what can be checked afterwards.

papermill alone lets pass too much: a misspelt parameter only warns, a killed kernel leaves an output whose
cells all claim to be completed, and nothing says whether a figure is new. Here a notebook has run when its
kernel lived to the end, every cell was executed, and the manifest of this very run lists each promised file.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nstlib
from nstlib.course import manifest
from nstlib.course.presets import PRESETS, active_preset, check_parameters, read_parameters
from nstlib.errors import CourseError, NstError, SettingError, known

Echo = Callable[[str], Any]


@dataclass(frozen=True)
class Result:
    """What became of one notebook: ``status`` is ``"ran"`` or ``"unchanged"``."""

    notebook: str
    status: str
    seconds: float
    peak_mib: float
    out: Path


def run_course(
    selection: Sequence[str] = (), *, preset: str = "quick", parameters: Mapping[str, Any] | None = None,
    force: bool = False, timeout: float | None = None, out: Path | None = None, echo: Echo = print,
) -> list[Result]:  # fmt: skip
    """Run notebooks one after the other; what a manifest proves unchanged is not run again.

    Args:
        selection: ``"1"``, ``"01"``, ``"03b"`` (an appendix), ``"01-03"`` (with its appendices) or
            ``"02_vgg16_vs_vgg19_layers"``; empty means all.
        preset: ``"smoke"``, ``"quick"`` or ``"paper"``; ``NST_PRESET`` in the environment wins.
        parameters: values for the parameters cells; see :func:`nstlib.course.presets.check_parameters`.
        force: run even what has not changed.
        timeout: the most seconds one cell may take; None sets no limit.
        out: folder for the results, one folder per notebook in it; ``NST_OUT`` stands in for it, and without
            either they go to ``figures/<preset>/`` in the course.
        echo: called with each line of the report.

    Returns:
        One result per notebook, in the order of the course.

    Raises:
        SettingError: an unknown notebook, preset or parameter, or a value of another type.
        CourseError: a notebook failed or did not keep its promises; those before it are kept.
    """
    wanted, preset, given = preset, known("preset", active_preset(preset), PRESETS), parameters or {}
    if preset != wanted:
        echo(f"preset {preset}, as NST_PRESET says, instead of {wanted}")
    if "preset" in given:
        raise SettingError("The preset is not given as a parameter: name it with --preset.")
    root = manifest.course_root()
    # All is read and checked before anything runs.
    books = [_load(path) for path in _select(root / "notebooks", selection)]
    injected = [check_parameters(given, book.parameters, book.name) for book in books]
    base = Path(out or os.environ.get("NST_OUT", "").strip() or root / "figures" / preset)
    state = {
        "preset": preset,
        "versions": manifest.versions(),
        "library": manifest.tree_hash(Path(nstlib.__file__).parent),
        "data": manifest.tree_hash(root / "data"),
    }
    results: list[Result] = []
    for book, values in zip(books, injected, strict=True):
        folder = base.expanduser().resolve() / book.name
        proof = {**state, "notebook": book.digest, "parameters": values}
        content = None if force else manifest.unchanged(folder, proof)
        if content is not None and (folder / f"{book.name}.ipynb").is_file():
            status = "unchanged"
            echo(f"{book.name}: unchanged since {content['finished']}; nothing to do ({folder})")
        else:
            status = "ran"
            echo(f"{book.name}: preset {preset}, {_last_time(book, preset, folder)}")
            try:
                content = _run(book, folder, proof, timeout, echo)
            except (NstError, KeyboardInterrupt) as error:
                stopped = "failed" if isinstance(error, NstError) else "interrupted"
                kept = ", ".join(result.notebook for result in results) or "none"
                left = ", ".join(other.name for other in books[len(results) + 1 :]) or "none"
                echo(f"{book.name}: {stopped}; kept: {kept}; not run: {left}")
                raise
            took = f"{manifest.show_seconds(content['wall_seconds'])}, peak memory "
            echo(f"{book.name}: done in {took}{manifest.show_mib(content['peak_mib'])}; see {folder}")
        results.append(Result(book.name, status, content["wall_seconds"], content["peak_mib"], folder))
    return results


@dataclass(frozen=True)
class _Notebook:
    path: Path
    digest: str
    parameters: dict[str, Any]
    promises: list[str]
    cells: int  # of code

    @property
    def name(self) -> str:
        return self.path.stem


def _select(folder: Path, selection: Sequence[str]) -> list[Path]:
    """Paths of the chosen notebooks in the course's order."""
    paths = sorted(folder.glob("[0-9][0-9]*_*.ipynb"))
    if not paths:
        raise CourseError(f"There are no notebooks in {folder}: call this in the course's own folder.")
    chosen: set[Path] = set()
    for item in selection:
        first, dash, last = item.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            found = {path for path in paths if int(first) <= int(path.name[:2]) <= int(last)}
        else:
            name = Path(item).name.removesuffix(".ipynb")
            number = name.lstrip("0")
            found = {p for p in paths if p.stem == name or p.name.split("_")[0].lstrip("0") == number}
        chosen |= found or {known("notebook", item, [path.stem for path in paths])}
    return sorted(chosen) or paths


def _load(path: Path) -> _Notebook:
    """Read a notebook without running it, and refuse what papermill would run wrongly."""
    content = manifest.read_json(path)
    code = [cell for cell in content.get("cells", []) if cell["cell_type"] == "code"]
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise CourseError(f"{path.name} has {len(tagged)} cells tagged 'parameters', and needs one.")
    parameters = read_parameters("".join(tagged[0]["source"]), path.stem)
    promises = content["metadata"].get("nst", {}).get("promises", [])
    cells = sum(bool("".join(cell["source"]).strip()) for cell in code)
    return _Notebook(path, manifest.notebook_hash(content), parameters, promises, cells)


def _last_time(book: _Notebook, preset: str, folder: Path) -> str:
    """How long to wait: the last run in this folder, else the stored measurement."""
    here = manifest.read_json(folder / manifest.MANIFEST).get("wall_seconds")
    if here is not None:
        return f"took {manifest.show_seconds(here)} the last time here"
    stored = manifest.read_json(book.path.with_name(manifest.MEASURED)).get(book.name, {}).get(preset, {})
    told = [
        f"measured {manifest.show_seconds(entry['seconds'])} and {manifest.show_mib(entry['peak_mib'])} "
        f"on {entry.get('gpu') or entry['processor']}"
        for entry in stored.values()
    ]
    return "; ".join(told) or "not measured yet"


def _run(
    book: _Notebook, folder: Path, proof: dict[str, Any], timeout: float | None, echo: Echo
) -> dict[str, Any]:
    """Execute one notebook and return its manifest, with the proof entered."""
    final, failed = folder / f"{book.name}.ipynb", folder / f"{book.name}.failed.ipynb"
    running = folder / f".{book.name}.running.ipynb"  # papermill writes it after every cell
    began, run = time.monotonic(), uuid.uuid4().hex
    environment = {"NST_PRESET": proof["preset"], "NST_OUT": str(folder), "NST_RUN": run}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _execute(book, running, proof["parameters"], environment, timeout, echo)
        content = manifest.read_json(folder / manifest.MANIFEST)
        _check_promises(book, folder, content, run)
        # What a reader waits: the session's own count leaves out the kernel's start and the imports.
        content |= {"proof": proof, "wall_seconds": round(time.monotonic() - began, 2)}
        manifest.write_json(folder / manifest.MANIFEST, content)
        os.replace(running, final)
        failed.unlink(missing_ok=True)
    except OSError as error:
        raise CourseError(f"{folder} cannot be written ({error.strerror}): give another folder.") from error
    except CourseError as error:
        if not running.is_file():
            raise
        os.replace(running, failed)
        raise CourseError(f"{str(error).rstrip('.')}; what ran is in {failed}.") from error
    finally:
        running.unlink(missing_ok=True)
    return content


def _execute(
    book: _Notebook, target: Path, parameters: dict[str, Any], environment: dict[str, str],
    timeout: float | None, echo: Echo,
) -> None:  # fmt: skip
    """Let papermill execute a notebook into ``target``; every failure is one sentence."""
    try:
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
        from papermill import PapermillExecutionError, execute_notebook
    except ImportError as error:
        raise CourseError(f"{error.name} is not installed: pip install 'nstlib[course]'.") from error
    began, number, where = time.monotonic(), 0, "the start of its kernel"

    def begin(cell: Any, cell_index: int) -> None:
        nonlocal number, where
        if "injected-parameters" not in cell.metadata.get("tags", []):
            number, line = number + 1, _first_line(cell.source)
            where = f"cell {number} ({line!r})"
            spent = manifest.show_seconds(time.monotonic() - began)
            echo(f"   {spent:>12}  cell {number}/{book.cells}  {line}")

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what matters comes as an exception
    # papermill reads a path as a format string.
    source, output = (str(path).replace("{", "{{").replace("}", "}}") for path in (book.path, target))
    try:
        # A function for the time limit, because nbclient's own option knows whole seconds only. Large figures
        # may arrive well after the cell's end on a busy machine: iopub_timeout.
        execute_notebook(
            source, output, parameters, kernel_name="python3", language="python", progress_bar=False,
            kernel_manager_class=_this_interpreter(book.path.parent, environment), start_timeout=120,
            timeout_func=lambda cell: timeout, iopub_timeout=60, record_timing=False,
            store_widget_state=False, autosave_cell_every=0, on_cell_execute=begin,
        )  # fmt: skip
    except KeyboardInterrupt:
        # nbclient has ended the kernel; asyncio would still report, at exit, the cell that missed it.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except PapermillExecutionError as error:
        said = f"{error.ename}: {error.evalue}".splitlines()[0].rstrip(".")
        raise CourseError(f"{book.name} failed in {where}: {said}.") from error
    except CellTimeoutError as error:
        do = "allow more time or take a smaller preset"
        raise CourseError(f"{book.name} exceeded {timeout:g} s in {where}: {do}.") from error
    except DeadKernelError as error:
        do = "most often for lack of memory: close other programs or take a smaller preset or size"
        raise CourseError(f"The kernel of {book.name} died in {where}, {do}.") from error


def _check_promises(book: _Notebook, folder: Path, content: dict[str, Any], run: str) -> None:
    """Believe a run by its manifest, and the manifest by the files."""
    if content.get("run") != run or not content.get("finished"):
        raise CourseError(f"{book.name} ended without a finished manifest: call run.finish() at its end.")
    for promise in book.promises:
        if promise not in [output["file"] for output in content["outputs"]]:
            raise CourseError(f"{book.name} promised {promise} and did not save it: see run.save_figure.")
    for output in content["outputs"]:
        if not manifest.is_recorded(folder, output):
            raise CourseError(f"{output['file']} of {book.name} is not what its manifest says: save it once.")


def _this_interpreter(folder: Path, environment: Mapping[str, str]) -> type:
    """A kernel manager for this very Python, whatever kernels are or are not registered as python3."""
    import zmq
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            # Without MPLBACKEND the kernel shows figures inline; an Agg from outside would hide them all.
            inherited = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
            own = {**inherited, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **environment}
            # Newer kernels warn at each start unless the connection is encrypted.
            if self.has_trait("transport_encryption") and zmq.has("curve"):
                self.transport_encryption = "auto"
            await super().start_kernel(**{**options, "cwd": str(folder), "env": own})

    return ThisInterpreter


def _first_line(source: str) -> str:
    line = next((line.strip() for line in source.splitlines() if line.strip()), "")
    return line if len(line) <= 72 else line[:71] + "…"
