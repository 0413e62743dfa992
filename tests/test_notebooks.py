"""The stored notebooks keep the course's form; what they store is fit to be read on a web page.

Outputs are stored by ``make store``; until that has been run after an edit, the tests of outputs fail.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from test_project import FORBIDDEN

from nstlib.course.presets import read_parameters

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
CHECKED = "# NBVAL_CHECK_OUTPUT"
ENDINGS = {"save_figure": ".png", "save_image": ".png", "save_table": ".csv", "save_film": ".mp4"}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def python(source: str) -> ast.Module:
    """A cell's code as a tree, IPython's own lines aside."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))


def texts(cell: Any) -> list[str]:
    """All that a cell's outputs say in words."""
    found = []
    for output in cell.outputs:
        found.append(output.get("text", ""))
        found += [str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/")]
    return found


# --- form


@every_notebook
def test_valid_and_complete(path: Path) -> None:
    book = read(path)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"
    assert book.cells[0].source.startswith(f"# {path.name.split('_')[0]} ")
    markdown = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert markdown.count("<!-- measured -->") == markdown.count("<!-- /measured -->") == 1
    assert re.search(r"^## Set-up", markdown, re.MULTILINE)
    assert code_cells(book)[-1].source.startswith("manifest = run.finish()")


@every_notebook
def test_parameters(path: Path) -> None:
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    # It refuses what is not a literal with its type.
    assert {"preset", "seed"} <= read_parameters(tagged[0].source, path.stem).keys()
    for line in tagged[0].source.splitlines():
        assert "# " in line, f"what is it: {line}"


@every_notebook
def test_promises_are_saved(path: Path) -> None:
    book = read(path)
    promises = book.metadata.nst.promises
    assert promises
    assert len(promises) == len(set(promises))
    saved = []
    for cell in code_cells(book):
        for node in ast.walk(python(cell.source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in ENDINGS:
                saved.append(pattern(node.args[1], ENDINGS[node.func.attr]))
    for promise in promises:
        assert any(re.fullmatch(name, promise) for name in saved), f"{promise} is promised and never saved"


def pattern(name: ast.expr, ending: str) -> str:
    """A pattern of the file name that a ``save_`` call gives: what an f-string fills in may be anything."""
    pieces = name.values if isinstance(name, ast.JoinedStr) else [name]
    text = "".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in pieces)
    return text if re.search(r"\\\.\w+$", text) else text + re.escape(ending)


@every_notebook
def test_results_are_checked(path: Path) -> None:
    assert sum(cell.source.startswith(CHECKED) for cell in code_cells(read(path))) >= 3


# --- what is stored


@every_notebook
def test_executed_in_order(path: Path) -> None:
    cells = [cell for cell in code_cells(read(path)) if cell.source.strip()]
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "run `make store`"
    kinds = {kind for cell in cells for output in cell.outputs for kind in output.get("data", {})}
    assert kinds & {"image/png", "image/jpeg"}
    for cell in cells:
        if cell.source.startswith(CHECKED):
            assert cell.outputs, f"nothing is stored that could be compared: {cell.source[:80]}"


@every_notebook
def test_outputs_are_clean(path: Path) -> None:
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.output_type != "error", output.get("evalue")
            assert output.get("name") != "stderr", output.text
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        for text in texts(cell):
            assert not FORBIDDEN["a path of one machine"].search(text), f"a path of one machine: {text[:200]}"
            assert "Warning" not in text, text[:200]


@every_notebook
def test_metadata_is_that_of_no_machine(path: Path) -> None:
    book = read(path)
    assert not {"widgets", "papermill", "signature", "vscode", "colab"} & book.metadata.keys()
    for cell in book.cells:
        assert not {"execution", "papermill", "ExecuteTime", "collapsed", "vscode"} & cell.metadata.keys()


@every_notebook
def test_small_enough_for_a_web_page(path: Path) -> None:
    assert path.stat().st_size < 2_000_000
