"""A user study that anyone can run: a page that shows pairs of pictures, and what its answers say.

Papers C and E wanted one. Paper E let 35 people rank the pictures of seven methods. Here a person chooses
between two at a time, without knowing which method has painted which. Bradley and Terry's model turns the
choices into a scale: method i wins against j with probability ``p_i / (p_i + p_j)``.

    >>> page = make_page("table1")                                     # doctest: +SKIP
    >>> analyze("table1", ["answers-4711.csv"])                        # doctest: +SKIP
"""

from __future__ import annotations

import base64
import io
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import choix
import numpy as np
import pandas as pd

from ..assets.writing import write_atomic
from ..errors import CourseError
from ..pictures.files import load_image, to_pil
from .manifest import read_json, write_json
from .table1 import NO_METHODS, USED_ARTWORKS

PAGE, KEY = "study.html", "study_key.json"
QUESTIONS = 40  # a session of five minutes
COLUMNS = ["rater", "time", "left", "right", "chosen"]


def make_page(folder: str | Path, questions: int = QUESTIONS) -> Path:
    """Write ``study.html``, which needs no server and no network, and the key to its pictures beside it.

    Args:
        folder: what ``nst table1`` has made.
        questions: pairs that a session shows.

    Returns:
        The page. It may be given away; the key says which method has painted which picture, and stays.

    Raises:
        CourseError: the folder has no two methods' pictures.
    """
    folder = Path(folder)
    cells = [cell for cell in read_json(folder / "table1.json").get("cells", []) if cell.get("pictures")]
    key: dict[str, dict[str, str]] = {}
    groups: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell["row"] in NO_METHODS:
            continue
        for one in cell["pictures"]:
            name = Path(one["file"]).name
            artworks = sorted((folder / "styles" / cell["style"]).glob("*.png"))[:USED_ARTWORKS]
            group = groups.setdefault(f"{cell['style']}/{name}", {
                "face": _data(folder / "faces" / name),
                "artwork": _data(artworks[int(Path(name).stem) % len(artworks)]),  # as in table1
                "pictures": [],
            })  # fmt: skip
            code = secrets.token_hex(4)  # says nothing of the method
            key[code] = {"row": cell["row"], "style": cell["style"], "face": name}
            group["pictures"].append([code, _data(Path(one["file"]))])
    shown = [group for group in groups.values() if len(group["pictures"]) > 1]
    if not shown:
        raise CourseError(f"'{folder}' has no two methods' pictures: run nst table1 -o {folder} first.")
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    page = page.replace("QUESTIONS", str(questions)).replace("GROUPS", json.dumps(shown))
    write_json(folder / KEY, key)
    write_atomic(folder / PAGE, page.encode())
    return folder / PAGE


def _data(file: Path) -> str:
    """A picture as the address of itself."""
    buffer = io.BytesIO()
    to_pil(load_image(file)).save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def analyze(
    folder: str | Path, answers: Sequence[str | Path | pd.DataFrame], *, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Bradley and Terry's strengths of the methods, from the answers of one or several people.

    Args:
        folder: where the page's key is.
        answers: files that the page has saved, or tables with their columns.
        draws: resamples of the raters for the intervals; of a single rater, of the answers.
        seed: of these.

    Returns:
        A line for each method, the strongest first: row, shown, won, and strength with low and high (95 %),
        the natural logarithm of p_i, with mean 0: a difference of 1 means to win 73 of 100 times.

    Raises:
        CourseError: there are no answers, or they are of another page.
    """
    key = read_json(Path(folder) / KEY)
    tables = [one if isinstance(one, pd.DataFrame) else pd.read_csv(one, dtype=str) for one in answers]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    if set(COLUMNS) - set(table.columns) or not set(table["left"]) | set(table["right"]) <= set(key):
        raise CourseError(f"These answers are of another page than the one in '{folder}': give its own.")
    if not len(table):
        raise CourseError("There are no answers yet: open the page, choose, and save them.")
    rows = sorted({one["row"] for one in key.values()})
    number = {code: rows.index(one["row"]) for code, one in key.items()}
    other = table["left"].where(table["left"] != table["chosen"], table["right"])
    won, lost = table["chosen"].map(number).to_numpy(), other.map(number).to_numpy()
    raters = pd.factorize(table["rater"])[0]
    units = raters if raters.max() else np.arange(len(table))
    random, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        picked = random.integers(units.max() + 1, size=units.max() + 1)
        at = np.concatenate([np.flatnonzero(units == unit) for unit in picked])
        drawn.append(_strengths(len(rows), won[at], lost[at]))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    wins, losses = (np.bincount(some, minlength=len(rows)) for some in (won, lost))
    found = pd.DataFrame({
        "row": rows, "shown": wins + losses, "won": wins, "strength": _strengths(len(rows), won, lost),
        "low": low, "high": high,
    })  # fmt: skip
    return found.sort_values("strength", ascending=False, ignore_index=True)


def _strengths(count: int, won: np.ndarray, lost: np.ndarray) -> np.ndarray:
    # A little regularized: who has won all of a few comparisons is not infinitely strong.
    return choix.ilsr_pairwise(count, list(zip(won, lost, strict=True)), alpha=0.1)
