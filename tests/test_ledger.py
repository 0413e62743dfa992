"""``docs/ledger.md`` covers the papers' equations, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = (DOCS / "ledger.md").read_text(encoding="utf-8")
EQUATIONS = {"A": 12, "B": 5, "D": 6, "E": 15}


def test_every_equation_has_one_line() -> None:
    found = re.findall(r"^\| ([A-E] \(\d+\)) \|", TEXT, flags=re.M)
    wanted = [f"{paper} ({i})" for paper, count in EQUATIONS.items() for i in range(1, count + 1)]
    assert found == wanted
    assert len(found) == 38


def test_every_row_has_four_filled_cells() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    assert [row for row in rows if len([cell for cell in row.split(" | ") if cell.strip("| ")]) != 4] == []


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > 38
    assert [link for link in links if not (DOCS / link).is_file()] == []


def test_sections_exist() -> None:
    named = set(re.findall(r"\[\d\db?, section (\d+)\]\(([^)]+)\)", TEXT))
    headings: dict[str, set[str]] = {}
    for link in {link for _, link in named}:
        cells = json.loads((DOCS / link).read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        headings[link] = set(re.findall(r"^## (\d+) · ", text, flags=re.M))
    assert [(number, link) for number, link in sorted(named) if number not in headings[link]] == []
