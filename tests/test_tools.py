"""What a maintainer runs: notebooks are stored as they ran, and the README is what its tools make of it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import nbformat
import pytest
from test_runner import notebook, root  # noqa: F401

from nstlib.course.runner import run_course
from nstlib.errors import CourseError

ROOT = Path(__file__).resolve().parents[1]


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


store, readme = tool("store"), tool("readme")


def run(preset="quick"):
    return run_course(preset=preset, echo=lambda line: None)[0]


NOISE = """\
import sys
from IPython.display import display
print("progress", file=sys.stderr)
print("10 %", end="\\rke", flush=True)
print("pt")
display({"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Slider()"}, raw=True)
6 * 7
"""


def test_store(root):  # noqa: F811
    path = notebook(root, "", NOISE)
    before = nbformat.read(path, as_version=4)
    before.metadata["widgets"] = {"state": {}}
    nbformat.write(before, path)
    result = run()
    store.store(result)
    after = nbformat.read(path, as_version=4)
    nbformat.validate(after)
    assert [(cell.id, cell.metadata) for cell in after.cells] == [
        (cell.id, cell.metadata) for cell in before.cells
    ]
    assert set(after.metadata) == {"kernelspec", "nst"}
    code = [cell for cell in after.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, None, 3, 4, 5]
    text, answer = code[3].outputs
    assert (text.name, text.text) == ("stdout", "kept\n")
    assert (answer.data["text/plain"], answer.execution_count) == ("42", 3)
    entry = json.loads((root / "notebooks" / "measured.json").read_text())["01_small"]["quick"]["cpu"]
    assert entry["seconds"] == result.seconds
    assert entry["peak_mib"] == result.peak_mib > 10
    assert "| `quick` | CPU: " in after.cells[0].source
    assert after.cells[0].source.count("measured -->") == 2
    # What was stored is still the notebook that was run.
    assert run().status == "unchanged"

    # Another preset adds its line and leaves the outputs alone.
    store.store(run("smoke"))
    again = nbformat.read(path, as_version=4)
    assert [cell.get("outputs") for cell in again.cells] == [cell.get("outputs") for cell in after.cells]
    assert again.cells[0].source.index("`smoke`") < again.cells[0].source.index("`quick`")
    assert again.cells[0].source.count("measured -->") == 2


def test_store_refuses_a_large_notebook_and_one_that_was_edited(root):  # noqa: F811
    path = notebook(root, "print('x' * 2_100_000)")
    before, result = path.read_text(), run()
    with pytest.raises(CourseError, match=r"would be 2.1 MB with its outputs, over 2.0 MB"):
        store.store(result)
    assert path.read_text() == before
    assert not (root / "notebooks" / "measured.json").exists()
    notebook(root, "edited = True")
    with pytest.raises(CourseError, match="edited while it ran"):
        store.store(result)


def test_map_and_asset_table_are_in_step():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.filled(text) == text, "run `python tools/readme.py`"


def test_every_notebook_is_on_the_map():
    names = {path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb")}
    assert names == set(readme.NOTEBOOKS)


def test_pictures_and_links_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(links) >= 6
    assert [link for link in links if not (ROOT / link).exists()] == []
