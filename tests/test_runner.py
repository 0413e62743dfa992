"""Each guard of the runner, by a notebook that would pass without it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pooch import file_hash

from nstlib.course import manifest, runner
from nstlib.course.runner import run_course
from nstlib.errors import CourseError, SettingError

PARAMETERS = """\
preset: str = "quick"        # smoke, quick or paper
size: int | None = None      # longest side
weights: list[float] = [1.0, 2.0]
verbose: bool = False
rate: float = 0.1
"""
START = """\
from nstlib.course import session
presets = {name: {"size": 8} for name in ("smoke", "quick", "paper")}
run = session.start("01_small", preset=preset, presets=presets, size=size)
"""
# Not matplotlib: loading it would cost each of these runs a second.
SAVE = """\
class Figure:
    def savefig(self, path, **options):
        path.write_bytes(b"a figure")

run.save_figure(Figure(), "figure")
"""
FINISH = "manifest = run.finish()"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty course; the braces in its name are a format string to papermill."""
    folder = tmp_path / "a {course}"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("NST_PRESET", raising=False)
    monkeypatch.delenv("NST_OUT", raising=False)
    return folder


def notebook(
    root: Path,
    *cells: str,
    name: str = "01_small",
    promises: tuple[str, ...] = ("figure.png",),
    tags: tuple[str, ...] = ("parameters",),
    ending: tuple[str, ...] = (SAVE, FINISH),
) -> Path:
    """Write a notebook: title, parameters, start, the given cells, the ending."""
    book = new_notebook()
    # No kernel is registered under this name: the runner must not look for it.
    book.metadata = {
        "kernelspec": {"name": "no_such_kernel", "display_name": "?", "language": "python"},
        "nst": {"promises": list(promises)},
    }
    book.cells = [
        new_markdown_cell("# Small\n<!-- measured -->\n<!-- /measured -->"),
        new_code_cell(PARAMETERS, metadata={"tags": list(tags)}),
        *(new_code_cell(source) for source in (START.replace("01_small", name), *cells, *ending)),
    ]
    path = root / "notebooks" / f"{name}.ipynb"
    nbformat.write(book, path)
    return path


def outputs(root, name="01_small", preset="quick"):
    return root / "figures" / preset / name


# --- before anything runs


@pytest.fixture
def forbidden(monkeypatch):
    """Fail the test when a notebook is run after all."""
    monkeypatch.setattr(runner, "_run", lambda *args, **options: pytest.fail("a notebook was run"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"parameters": {"sise": 3}}, r"no parameter of 01_small 'sise' \(did you mean 'size'\?\)"),
        ({"parameters": {"preset": "paper"}}, "name it with --preset"),
        ({"preset": "quik"}, "did you mean 'quick'"),
    ],
)
def test_what_cannot_be_asked_for(root, forbidden, options, sentence):
    notebook(root)
    with pytest.raises(SettingError, match=sentence):
        run_course(**options)


def test_missing_tag(root, forbidden):
    notebook(root, tags=())
    with pytest.raises(CourseError, match=r"01_small.ipynb has 0 cells tagged 'parameters'"):
        run_course()


def test_selection(root, forbidden):
    for number in ("01", "02", "03", "03b", "04"):
        notebook(root, name=f"{number}_n")

    def chosen(*selection):
        return [path.stem for path in runner._select(root / "notebooks", selection)]

    assert chosen() == ["01_n", "02_n", "03_n", "03b_n", "04_n"]
    assert chosen("3", "01") == ["01_n", "03_n"]
    assert chosen("02-3", "03_n") == ["02_n", "03_n", "03b_n"]
    assert chosen("03b") == chosen("3b") == ["03b_n"]
    assert chosen("notebooks/04_n.ipynb") == ["04_n"]
    for wrong in ("5", "02_m", "7-9", "one"):
        with pytest.raises(SettingError, match=f"no notebook '{wrong}'"):
            chosen(wrong)


def test_no_notebooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CourseError, match="no notebooks"):
        run_course()


# --- a good run, and what makes it run again


def test_good_run_and_skips(root, monkeypatch):
    """One notebook, run again for each reason there is, and for no other."""
    path = notebook(root, "import os; print(os.getcwd())\nprint(size, weights, verbose, rate)")
    lines = []

    def status(**options):
        return run_course(echo=lines.append, **options)[0].status

    given = {"weights": "[1, 2.5e-1, 1e-3]", "verbose": "yes", "size": "96", "rate": "1e-3"}
    assert status(parameters=given) == "ran"
    out = outputs(root)
    executed = (out / "01_small.ipynb").read_text()
    assert f"{root / 'notebooks'}\\n" in executed  # the notebook's own folder
    assert "96 [1.0, 0.25, 0.001] True 0.001" in executed
    record = json.loads((out / "manifest.json").read_text())
    assert record["settings"] == {"size": 96}
    digest = file_hash(out / "figure.png")
    assert record["outputs"][0] == {"file": "figure.png", "sha256": digest, "bytes": 8, "caption": ""}
    assert sorted(file.name for file in out.iterdir()) == ["01_small.ipynb", "figure.png", "manifest.json"]
    assert any("cell 2/5  from nstlib.course import session" in line for line in lines)

    assert status(parameters=given) == "unchanged"
    assert "unchanged since" in lines[-1]

    assert status() == "ran"  # other parameters
    assert any("the last time here" in line for line in lines)
    assert status() == "unchanged"
    assert status(force=True) == "ran"
    (out / "figure.png").write_bytes(b"tampered")
    assert status() == "ran"
    (out / "figure.png").unlink()
    assert status() == "ran"
    # What counts as a change is a matter of the proof; that a change runs is proven above.
    monkeypatch.setattr(runner, "_run", lambda *args, **options: record)
    assert status() == "unchanged"
    with monkeypatch.context() as patch:
        real = manifest.tree_hash
        patch.setattr(manifest, "tree_hash", lambda path: "x" if path.name == "nstlib" else real(path))
        assert status() == "ran"
    assert status() == "unchanged"
    (root / "data").mkdir()
    (root / "data" / "face.png").write_bytes(b"another face")
    assert status() == "ran"
    (root / "data" / "face.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "versions", lambda: {"torch": "0.0"})
        assert status() == "ran"
    book = nbformat.read(path, as_version=4)
    book.cells[-1].outputs = [nbformat.v4.new_output("stream", text="noise")]
    nbformat.write(book, path)
    assert status() == "unchanged"
    book.cells[-1].source += "\n1 + 1"
    nbformat.write(book, path)
    assert status() == "ran"


def test_nst_preset_and_out_win(root, monkeypatch):
    notebook(root, "import os; print('preset is', run.preset, 'on', os.environ['MPLBACKEND'])")
    monkeypatch.setenv("NST_PRESET", "smoke")
    monkeypatch.setenv("NST_OUT", str(root / "elsewhere"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    result = run_course(preset="paper", echo=lambda line: None)[0]
    assert result.out == root / "elsewhere" / "01_small"
    # A backend from outside would leave a notebook without its figures.
    assert "preset is smoke on module://matplotlib_inline" in (result.out / "01_small.ipynb").read_text()
    assert json.loads((result.out / "manifest.json").read_text())["preset"] == "smoke"
    assert not (root / "figures").exists()


def test_foreign_kernel_is_not_taken(root, tmp_path, monkeypatch):
    """A kernel of the right name that belongs to another interpreter."""
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = ["no-such-interpreter", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    notebook(root, "import sys; print(sys.executable)")
    result = run_course(echo=lambda line: None)[0]
    assert sys.executable in (result.out / "01_small.ipynb").read_text()


# --- runs that fail


def fails(root, **options):
    """Run the course; give back the error's sentence, having checked that nothing is taken for a success."""
    with pytest.raises(CourseError) as caught:
        run_course(echo=lambda line: None, **options)
    names = {file.name for file in outputs(root).iterdir()}
    assert "01_small.failed.ipynb" in names
    assert "01_small.ipynb" not in names
    assert not any(name.endswith(".running.ipynb") or name.endswith(".tmp") for name in names)
    assert "proof" not in manifest.read_json(outputs(root) / "manifest.json")
    return str(caught.value)


def test_failing_cell_then_repaired(root):
    notebook(root, "# a ratio\n1 / 0")
    notebook(root, name="02_later")
    lines = []
    with pytest.raises(CourseError, match=r"failed in cell 3 .*ZeroDivisionError"):
        run_course(echo=lines.append)
    assert lines[-1] == "01_small: failed; kept: none; not run: 02_later"
    message = fails(root)
    assert "cell 3 ('# a ratio'): ZeroDivisionError: division by zero; what ran is in" in message
    assert message.endswith("01_small.failed.ipynb.")
    notebook(root)
    run_course(["1"], echo=lambda line: None)
    assert {file.name for file in outputs(root).iterdir()} == {
        "01_small.ipynb",
        "figure.png",
        "manifest.json",
    }


def test_dead_kernel(root):
    # Its manifest is finished and lists the figure: only the kernel's end tells.
    notebook(root, ending=(SAVE, FINISH, "import os; os.kill(os.getpid(), 9)"))
    assert "kernel of 01_small died in cell 5 ('import os; " in fails(root)


def test_timeout(root):
    notebook(root, "import time\ntime.sleep(600)")
    assert "exceeded 5 s in cell 3 ('import time')" in fails(root, timeout=5)


def test_early_exit(root):
    notebook(root, "import sys; sys.exit()")
    assert "ended without a finished manifest" in fails(root)


def test_missing_promise(root):
    notebook(root, promises=("figure.png", "other.png"))
    assert "01_small promised other.png and did not save it:" in fails(root)


def test_file_written_past_the_manifest(root):
    notebook(root, ending=(SAVE, "(run.out / 'figure.png').write_bytes(b'other')", FINISH))
    assert "figure.png of 01_small is not what its manifest says" in fails(root)


def test_interrupt(root):
    notebook(root, "import os, time\n(run.out / 'pid').write_text(str(os.getpid()))\ntime.sleep(600)")
    lines = []

    def press():
        deadline = time.monotonic() + 60
        while not (outputs(root) / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_course(echo=lines.append)
    thread.join()
    kernel = int((outputs(root) / "pid").read_text())
    assert not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE
    assert {file.name for file in outputs(root).iterdir()} == {"pid", "manifest.json"}
    assert lines[-1].startswith("01_small: interrupted")
