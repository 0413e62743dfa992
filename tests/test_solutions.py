"""Every exercise of every notebook: the stored stub is not answered, the printed solution is right."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from nstlib.course import checks

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
CHECKERS = {name for name in vars(checks) if re.fullmatch(r"q\d+b?_\d+", name)}
CALL = re.compile(r"\bchecks\.(q\d+b?_\d+)\(")


@dataclass(frozen=True)
class Exercise:
    """A cell that calls a checker, and the solution printed below it."""

    notebook: str
    checker: str
    stub: str
    solution: str | None
    imports: str  # what the notebook has imported by then

    def __str__(self):
        return self.checker


def imports_of(source: str) -> str:
    """The import statements of a cell; lines for IPython are not Python and are passed over."""
    plain = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    statements = (s for s in ast.parse(plain).body if isinstance(s, ast.Import | ast.ImportFrom))
    return "\n".join(map(ast.unparse, statements))


def exercises(path: Path) -> list[Exercise]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    found, imports = [], ""
    for index, (cell, source) in enumerate(zip(cells, sources, strict=True)):
        if cell["cell_type"] != "code":
            continue
        imports += imports_of(source) + "\n"
        for checker in CALL.findall(source):
            below = cells[index + 1] if index + 1 < len(cells) else {}
            tags = below.get("metadata", {}).get("tags", [])
            solution = sources[index + 1] if "solution" in tags else None
            found.append(Exercise(path.name, checker, source, solution, imports))
    return found


EXERCISES = [exercise for path in NOTEBOOKS for exercise in exercises(path)]


def code_of(solution: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```$", solution, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1, "a solution is one fenced python block"
    return blocks[0]


def call_of(exercise: Exercise) -> str:
    """The expression that calls the checker, without the rest of the cell."""
    calls = [
        ast.unparse(statement.value)
        for statement in ast.parse(exercise.stub).body
        if CALL.search(ast.unparse(statement)) and isinstance(statement, ast.Expr | ast.Assign)
    ]
    assert len(calls) == 1
    return calls[0]


def namespace(exercise: Exercise) -> dict:
    names: dict = {}
    exec(exercise.imports, names)
    return names


@pytest.mark.parametrize("exercise", EXERCISES, ids=str)
def test_the_stub_is_not_answered_yet_and_the_solution_is_right(exercise, capsys):
    assert exercise.solution is not None, "the next cell is no markdown cell tagged 'solution'"
    assert re.fullmatch(r"<details>\s*<summary>.+</summary>.*</details>\s*", exercise.solution, re.DOTALL)
    names = namespace(exercise)
    exec(exercise.stub, names)
    assert "not answered yet" in capsys.readouterr().out
    assert eval(call_of(exercise), names) is False
    assert "not answered yet" in capsys.readouterr().out
    exec(code_of(exercise.solution), names)
    assert eval(call_of(exercise), names) is True
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize("exercise", EXERCISES, ids=str)
def test_the_number_is_the_notebooks_and_the_texts(exercise):
    chapter, number = exercise.checker.removeprefix("q").split("_")
    assert exercise.notebook.split("_")[0] == chapter
    text = (Path(NOTEBOOKS[0]).parent / exercise.notebook).read_text(encoding="utf-8")
    assert f"**Exercise {chapter.lstrip('0')}.{number}.**" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_solution_belongs_to_an_exercise(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "solution" in cell.get("metadata", {}).get("tags", [])]
    assert len(tagged) == len([e for e in exercises(path) if e.solution is not None])
    assert all(cell["cell_type"] == "markdown" for cell in tagged)
    assert [e.checker for e in exercises(path)] == sorted({e.checker for e in exercises(path)})


def test_every_checker_is_asked_by_a_notebook_and_the_other_way_round():
    assert {exercise.notebook for exercise in EXERCISES} == {path.name for path in NOTEBOOKS}
    assert {exercise.checker for exercise in EXERCISES} == CHECKERS
