"""Run the course's notebooks with papermill, and believe only what can be checked afterwards.

papermill alone lets pass too much: a misspelt parameter only warns, a killed kernel leaves an output whose
cells all claim to be completed, and nothing says whether a figure is new. Here a notebook has run when its
kernel lived to the end, every cell was executed, and the manifest of this very run lists each promised file.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nstlib
from nstlib.course import manifest
from nstlib.course.presets import (
    PRESETS,
    Parameter,
    active_preset,
    check_parameters,
    read_parameters,
    suggest,
)
from nstlib.errors import CourseError, NstError, SettingError

_START_SECONDS = 120


@dataclass(frozen=True)
class Result:
    """What became of one notebook: ``status`` is ``"ran"`` or ``"unchanged"``."""

    notebook: str
    status: str
    seconds: float | None
    peak_mib: float | None
    out: Path


@dataclass(frozen=True)
class _Notebook:
    path: Path
    digest: str
    parameters: dict[str, Parameter]
    promises: list[str]

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass
class _Progress:
    """Says each cell as it begins, and remembers it for the error."""

    echo: Callable[[str], Any]
    total: int = 0
    number: int = 0
    line: str = ""
    began: float = field(default_factory=time.monotonic)

    def begin(self, cell: Any, cell_index: int) -> None:
        """Called by nbclient before a code cell is executed."""
        if "injected-parameters" in cell.metadata.get("tags", []):
            return
        self.number += 1
        self.line = _first_line(cell.source)
        spent = manifest.show_seconds(time.monotonic() - self.began)
        self.echo(f"   {spent:>12}  cell {self.number}/{self.total}  {self.line}")

    def where(self) -> str:
        return f"cell {self.number} ({self.line!r})" if self.number else "the start of its kernel"


def run_course(
    selection: Sequence[str] = (),
    *,
    preset: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    force: bool = False,
    timeout: float | None = None,
    out: Path | None = None,
    store: bool = False,
    echo: Callable[[str], Any] = print,
) -> list[Result]:
    """Run notebooks one after the other; what a manifest proves unchanged is not run again.

    Args:
        selection: ``"1"``, ``"01"``, ``"01-03"`` or ``"02_vgg16_vs_vgg19_layers"``; empty means all.
        preset: ``"smoke"``, ``"quick"`` or ``"paper"``; ``NST_PRESET`` in the environment wins.
        parameters: values for the parameters cells; text is read as YAML.
        force: run even what has not changed.
        timeout: the most seconds one cell may take; None sets no limit.
        out: folder for the results, one folder per notebook in it; ``NST_OUT`` stands in for it, and without
            either they go to ``figures/<preset>/`` in the course.
        store: write outputs (preset quick only), measured time and memory back into the notebooks.
        echo: called with each line of the report.

    Returns:
        One result per notebook, in the order of the course.

    Raises:
        SettingError: an unknown notebook, preset or parameter, or a value of another type.
        CourseError: a notebook failed or did not keep its promises; those before it are kept.
    """
    wanted, preset = preset, active_preset(preset)
    if preset not in PRESETS:
        raise SettingError(f"There is no preset {preset!r}. {suggest(preset, PRESETS)}")
    if preset != wanted:
        echo(f"preset {preset}, as NST_PRESET says, instead of {wanted}")
    given = dict(parameters or {})
    if "preset" in given:
        raise SettingError("The preset is not given as a parameter: name it with --preset.")
    if store and given:
        raise SettingError("A notebook is stored with its own parameters: leave the parameters out.")
    root = manifest.course_root()
    # All is read and checked before anything runs.
    notebooks = [_load(path) for path in _select(root / "notebooks", selection)]
    injected = {book.name: check_parameters(given, book.parameters, book.name) for book in notebooks}
    base = out or os.environ.get("NST_OUT", "").strip() or root / "figures" / preset
    base = Path(base).expanduser().resolve()
    state = {
        "preset": preset,
        "versions": manifest.versions(),
        "library": manifest.tree_hash(Path(nstlib.__file__).parent),
        "data": manifest.tree_hash(root / "data"),
    }
    results: list[Result] = []
    current = ""
    try:
        for book in notebooks:
            current = book.name
            folder = base / book.name
            proof = {**state, "notebook": book.digest, "parameters": injected[book.name]}
            known = None if force else manifest.unchanged(folder, proof)
            if known is not None and (folder / f"{book.name}.ipynb").is_file():
                done = "nothing to do"
                if store:
                    manifest.store_notebook(book.path, book.digest, folder / f"{book.name}.ipynb", known)
                    done = "stored what it gave"
                echo(f"{book.name}: unchanged since {known['finished']}; {done} ({folder})")
                results.append(_result(book, "unchanged", known, folder))
                continue
            echo(f"{book.name}: preset {preset}, {_last_time(book, preset, folder)}")
            content = _run(book, folder, proof, preset=preset, timeout=timeout, echo=echo)
            if store:
                manifest.store_notebook(book.path, book.digest, folder / f"{book.name}.ipynb", content)
                if preset != "quick":
                    echo(f"{book.name}: measured only; outputs are stored from preset quick")
            result = _result(book, "ran", content, folder)
            results.append(result)
            echo(
                f"{book.name}: done in {manifest.show_seconds(result.seconds)}, "
                f"peak memory {manifest.show_mib(result.peak_mib)}; see {folder}"
            )
    except (NstError, KeyboardInterrupt) as error:
        stopped = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        left = [book.name for book in notebooks][len(results) + 1 :]
        echo(
            f"{current}: {stopped}; kept: {', '.join(result.notebook for result in results) or 'none'}; "
            f"not run: {', '.join(left) or 'none'}"
        )
        raise
    return results


def _select(folder: Path, selection: Sequence[str]) -> list[Path]:
    """Paths of the chosen notebooks in the course's order."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    paths = [path for path in paths if not path.name.endswith(".failed.ipynb")]
    if not paths:
        raise CourseError(f"There are no notebooks in {folder}: call this in the course's own folder.")
    if not selection:
        return paths
    numbers = {path: int(path.name[:2]) for path in paths}
    chosen: set[Path] = set()
    for item in selection:
        first, dash, last = item.partition("-")
        if first.isdecimal() and (last.isdecimal() or not dash):
            bounds = int(first), int(last or first)
            found = {path for path, number in numbers.items() if bounds[0] <= number <= bounds[1]}
        else:
            found = {path for path in paths if path.stem == Path(item).name.removesuffix(".ipynb")}
        if not found:
            raise SettingError(f"There is no notebook {item!r}. {suggest(item, [p.stem for p in paths])}")
        chosen |= found
    return sorted(chosen)


def _load(path: Path) -> _Notebook:
    """Read a notebook without running it, and refuse what papermill would run wrongly."""
    content = manifest.read_json(path)
    if not isinstance(content.get("cells"), list):
        raise CourseError(f"{path.name} is not a notebook of today's format: open and save it in Jupyter.")
    tagged: dict[str, list[str]] = {"parameters": [], "injected-parameters": []}
    for cell in content["cells"]:
        for tag in cell.get("metadata", {}).get("tags", []):
            if tag in tagged and cell.get("cell_type") == "code":
                tagged[tag].append("".join(cell.get("source", "")))
    if tagged["injected-parameters"]:
        raise CourseError(f"{path.name} has a cell that an earlier run injected: delete that cell.")
    if len(tagged["parameters"]) != 1:
        raise CourseError(
            f"{path.name} has {len(tagged['parameters'])} cells tagged 'parameters': tag the one code cell "
            "that holds its parameters."
        )
    return _Notebook(
        path=path,
        digest=manifest.notebook_hash(content),
        parameters=read_parameters(tagged["parameters"][0], path.stem),
        promises=list(content.get("metadata", {}).get("nst", {}).get("promises", [])),
    )


def _last_time(book: _Notebook, preset: str, folder: Path) -> str:
    """How long to wait: the last run in this folder, else the stored measurement."""
    here = manifest.read_json(folder / manifest.MANIFEST).get("wall_seconds")
    if here is not None:
        return f"took {manifest.show_seconds(here)} the last time here"
    entries = manifest.read_json(book.path.with_name(manifest.MEASURED)).get(book.name, {}).get(preset, {})
    if not entries:
        return "not measured yet"
    return "; ".join(
        f"measured {manifest.show_seconds(entry.get('seconds'))} and "
        f"{manifest.show_mib(entry.get('peak_mib'))} on {entry.get('gpu') or entry.get('processor')}"
        for _, entry in sorted(entries.items())
    )


def _run(
    book: _Notebook,
    folder: Path,
    proof: dict[str, Any],
    *,
    preset: str,
    timeout: float | None,
    echo: Callable[[str], Any],
) -> dict[str, Any]:
    """Execute one notebook and return its manifest, with the proof entered."""
    final = folder / f"{book.name}.ipynb"
    temporary = folder / f".{book.name}.running.ipynb"
    failed = folder / f"{book.name}.failed.ipynb"
    run = uuid.uuid4().hex
    began = time.monotonic()
    environment = {"NST_PRESET": preset, "NST_OUT": str(folder), "NST_RUN": run}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(f"{folder} cannot be made ({error.strerror}): give another folder.") from error
    try:
        content = _execute(book, temporary, proof["parameters"], environment, timeout, echo)
        _check_promises(book, folder, content, run)
        content["proof"] = proof
        # What a reader waits: the session's own count leaves out the kernel's start and the imports.
        content["wall_seconds"] = round(time.monotonic() - began, 2)
        manifest.write_json(folder / manifest.MANIFEST, content)
        os.replace(temporary, final)
        failed.unlink(missing_ok=True)
    except CourseError as error:
        if not temporary.is_file():
            raise
        os.replace(temporary, failed)
        raise CourseError(f"{str(error).rstrip('.')}; what ran is in {failed}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return content


def _execute(
    book: _Notebook,
    target: Path,
    parameters: dict[str, Any],
    environment: dict[str, str],
    timeout: float | None,
    echo: Callable[[str], Any],
) -> dict[str, Any]:
    """Let papermill execute a notebook into ``target``; return the manifest its session has written."""
    try:
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
        from papermill import PapermillExecutionError, execute_notebook
    except ImportError as error:
        raise CourseError(f"{error.name} is not installed: pip install 'nstlib[course]'.") from error
    source = json.loads(book.path.read_text(encoding="utf-8"))["cells"]
    total = sum(cell["cell_type"] == "code" and bool("".join(cell["source"]).strip()) for cell in source)
    progress = _Progress(echo, total)
    try:
        with _quiet("papermill"):
            executed = execute_notebook(
                _plain(book.path),
                _plain(target),
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=False,  # papermill's is tqdm.auto
                start_timeout=_START_SECONDS,
                kernel_manager_class=_kernel_manager(book.path.parent, environment),
                # A function, because nbclient's own option knows whole seconds only.
                timeout_func=lambda cell: timeout,
                iopub_timeout=60,  # large figures may arrive well after the cell's end on a busy machine
                record_timing=False,
                store_widget_state=False,
                autosave_cell_every=0,
                on_cell_execute=progress.begin,
            )
    except KeyboardInterrupt:
        # nbclient has ended the kernel; asyncio would still report, at exit, the cell that missed it.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except PapermillExecutionError as error:
        lines = [line for line in f"{error.ename}: {error.evalue}".splitlines() if line.strip()]
        said = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
        raise CourseError(f"{book.name} failed in {progress.where()}: {said.rstrip('.')}.") from error
    except CellTimeoutError as error:
        raise CourseError(
            f"{book.name} exceeded {timeout:g} s in {progress.where()}: allow more time or take a "
            "smaller preset."
        ) from error
    except DeadKernelError as error:
        raise CourseError(
            f"The kernel of {book.name} died in {progress.where()}, most often for lack of memory: "
            "close other programs or take a smaller preset or size."
        ) from error
    except (RuntimeError, OSError) as error:
        raise CourseError(
            f"The kernel of {book.name} failed in {progress.where()} ({error}): run nst hello."
        ) from error
    for cell in executed.cells:
        runs = cell.cell_type == "code" and cell.source.strip()
        # sys.exit() ends a notebook early, and papermill calls that a success.
        if runs and "skip-execution" not in cell.metadata.get("tags", []) and cell.execution_count is None:
            raise CourseError(
                f"{book.name} stopped after {progress.where()} and never reached "
                f"{_first_line(cell.source)!r}: take out what exits there."
            )
    return manifest.read_json(Path(environment["NST_OUT"]) / manifest.MANIFEST)


def _check_promises(book: _Notebook, folder: Path, content: dict[str, Any], run: str) -> None:
    """Believe a run by its manifest, and the manifest by the files."""
    if content.get("run") != run or not content.get("finished"):
        raise CourseError(
            f"{book.name} ended without a finished manifest: let its last cell call run.finish()."
        )
    listed = {output["file"]: output for output in content["outputs"]}
    for promise in book.promises:
        if promise not in listed:
            stale = " (the one in the folder is of an earlier run)" if (folder / promise).exists() else ""
            raise CourseError(
                f"{book.name} promised {promise} and did not save it{stale}: save it with run.save_figure, "
                "run.save_image or run.save_table."
            )
    for name, output in listed.items():
        path = folder / name
        if not path.is_file() or manifest.sha256(path) != output["sha256"]:
            raise CourseError(
                f"{name} of {book.name} is not what its manifest says: save each file once, by run.save_…"
            )


def _kernel_manager(folder: Path, environment: Mapping[str, str]) -> type:
    """A kernel manager for this very interpreter, whatever kernels are or are not registered as python3."""
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
            options["env"] = {**inherited, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **environment}
            options["cwd"] = str(folder)
            # Newer kernels warn at each start unless the connection is encrypted.
            if self.has_trait("transport_encryption") and zmq.has("curve"):
                self.transport_encryption = "auto"
            await super().start_kernel(**options)

    return ThisInterpreter


def _result(book: _Notebook, status: str, content: Mapping[str, Any], folder: Path) -> Result:
    return Result(book.name, status, content.get("wall_seconds"), content.get("peak_mib"), folder)


def _first_line(source: str) -> str:
    line = next((line.strip() for line in source.splitlines() if line.strip()), "")
    return line if len(line) <= 72 else line[:71] + "…"


def _plain(path: Path) -> str:
    """papermill reads a path as a format string."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's log lines out of the report; what matters comes as an exception."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
