"""What has been measured: a table that says by which protocol, on which pictures, and what went wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from .. import __version__
from ..assets.writing import write_atomic
from ..errors import known
from .protocol import METRICS, Protocol, digest

ENDINGS = (".csv", ".json", ".md")


class Problem(NamedTuple):
    """What could not be measured.

    Attributes:
        file: the file, or "A[3]" for the fourth tensor of the first set.
        reason: a sentence: what is wrong, and what to do.
    """

    file: str
    reason: str


@dataclass
class Measurement:
    """The numbers of two sets of pictures, and what makes them comparable to others.

    Attributes:
        protocol: how it was measured.
        pictures: 12 hex digits over names and contents of both sets.
        reference: 12 hex digits over names and contents of A alone, against which methods are compared.
        sources: what A and B are called.
        interrupted: whether it was stopped; then all this is of the pictures that were measured until then.
        summary: ``metric``, ``value`` (a mean, or the distance of the sets), ``low`` and ``high`` (its
            interval), ``n`` (pictures, of the smaller set for FID and KID), ``better`` ("higher", "lower").
        problems: what could not be measured, by file and reason.
        notes: what to keep in mind, such as the bias of FID for few pictures.
        counts: pictures of A and of B; with FID or KID, those that were measured.
        seconds: wall clock.
        device: what it was computed on.
        rows: a row for each pair: ``picture`` (the name in A) and a column for each metric of pairs; NaN
            where it could not be measured, which ``problems`` explains.
    """

    protocol: Protocol
    pictures: str
    reference: str
    sources: list[str]
    interrupted: bool
    summary: pd.DataFrame
    problems: list[Problem]
    notes: list[str]
    counts: list[int]
    seconds: float
    device: str
    rows: pd.DataFrame

    @property
    def hash(self) -> str:
        """12 hex digits over protocol, A's pictures and which were measured.

        Two tables may be compared exactly if their hashes agree. B may differ: it is what the methods
        compared have made of A.
        """
        names = self.rows["picture"].astype(str)
        content = {
            "protocol": self.protocol.hash,
            "reference": self.reference,
            # A mean over other pictures is another mean, and the value of FID depends on their number.
            "measured": {name: sorted(names[self.rows[name].notna()]) for name in self.protocol.of_pairs},
            "counts": self.counts if self.protocol.of_sets else [],
        }
        return digest(content)

    def record(self) -> dict[str, Any]:
        """All of it, in values that JSON has; numbers that are none are null, infinite ones text."""
        return {
            "hash": self.hash,
            "protocol_hash": self.protocol.hash,
            "nstlib": __version__,
            **vars(self),
            "protocol": self.protocol.to_dict(),
            "summary": _plain(self.summary),
            "problems": [problem._asdict() for problem in self.problems],
            "seconds": round(self.seconds, 2),
            "rows": _plain(self.rows),
        }

    def to_csv(self) -> str:
        """One line for each picture, then the lines value, low, high and n; hashes in the last columns."""
        ends = self.summary.set_index("metric")[["value", "low", "high", "n"]].astype(object).T
        rows = self.rows.assign(kind="picture").astype(object)
        table = pd.concat([rows, ends.rename_axis("kind").reset_index().assign(picture="")])
        table = table.reindex(columns=["kind", "picture", *self.protocol.metrics])
        table = table.assign(protocol=self.protocol.hash, pictures=self.pictures, table=self.hash)
        return table.to_csv(index=False, lineterminator="\n")

    def summary_markdown(self) -> str:
        """The summary as a Markdown table: arrows for what is better, mean ± interval, number of pictures."""
        lines = []
        for row in self.summary.to_dict("records"):
            metric, n = METRICS[row["metric"]], str(row["n"])
            if metric.of_sets and self.counts[0] != self.counts[1]:
                n = f"{self.counts[0]} and {self.counts[1]}"
            lines.append((metric.heading, *show(row["value"], row["low"], row["high"]), n))
        heads = ("metric", "value", f"{100 * self.protocol.level:g} % interval", "n")
        return markdown(heads, (":--", "--:", ":-:", "--:"), lines)

    def to_markdown(self) -> str:
        """The whole as a Markdown page: summary, problems, every picture, and how it was measured."""
        p = self.protocol
        parts = [f"# {_cell(self.sources[0])} against {_cell(self.sources[1])}"]
        if self.interrupted:
            count = len(self.rows) or min(self.counts)
            parts.append(f"**Stopped after {count} pictures: a part, not the whole.**")
        how = ["↑ more is better, ↓ less is better."]
        if p.of_pairs:
            how.append(
                f"Means over pictures; interval by bootstrap ({p.bootstrap} resamples, seed {p.seed})."
            )
        if p.of_sets:
            titles = " and ".join(METRICS[name].title for name in p.of_sets)
            how.append(f"{titles} of the sets; interval from {p.set_bootstrap} resamples.")
        parts += [self.summary_markdown(), " ".join(how), *(f"> {note}" for note in self.notes)]
        if self.problems:
            parts.append(f"## Not measured ({len(self.problems)})")
            parts.append(markdown(("file", "what is wrong"), (":--", ":--"), self.problems))
        if len(self.rows):
            heads = ("picture", *(METRICS[name].heading for name in p.of_pairs))
            lines = ([name, *map(_number, values)] for name, *values in self.rows.itertuples(index=False))
            parts += ["## Every picture", markdown(heads, (":--", *["--:"] * len(p.of_pairs)), lines)]
        said = {**p.to_dict(), "metrics": " ".join(p.metrics)}
        settings = ", ".join(f"{key} {value}" for key, value in said.items())
        hashes = f"table `{self.hash}`, protocol `{p.hash}`, pictures `{self.pictures}`, reference"
        parts += ["## Protocol", f"{hashes} `{self.reference}`", f"{settings}."]
        return "\n\n".join(parts) + "\n"

    def _repr_markdown_(self) -> str:
        return self.summary_markdown()

    def save(self, path: str | Path) -> Path:
        """Write a table as CSV, JSON or Markdown, by the name's ending; it appears whole or not at all.

        Raises:
            SettingError: the ending is of none of the three.
            ImageError: the file cannot be written.
        """
        path = Path(path)
        ending = known("table format", path.suffix.lower(), ENDINGS)
        if ending == ".json":
            text = json.dumps(self.record(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        else:
            text = self.to_csv() if ending == ".csv" else self.to_markdown()
        # A file's name may hold bytes that are no text; the table must not fail for it.
        write_atomic(path, text.encode("utf-8", errors="backslashreplace"))
        return path


# ------------------------------------------------------------------------------------------------- showing


def show(value: float, low: float, high: float) -> tuple[str, str]:
    """(value ± half the interval's width, "low to high"), in the digits that the interval leaves sense."""
    half = (high - low) / 2
    if 1e-5 <= half < math.inf:
        digits = max(0, 1 - math.floor(math.log10(half)))  # two of the half width
        return f"{value:.{digits}f} ± {half:.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}"
    ends = "–" if math.isnan(low) or math.isnan(high) else f"{_number(low)} to {_number(high)}"
    half = 0.0 if half < 1e-6 * abs(value) else half  # float32's rounding is no interval
    return _number(value) + (f" ± {half:.2g}" if math.isfinite(half) else ""), ends


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{'-' if value < 0 else ''}∞" if math.isinf(value) else f"{value:.4g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def markdown(heads: Iterable[str], aligned: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head, *body = (f"| {' | '.join(map(_cell, line))} |" for line in (heads, *lines))
    return "\n".join([head, f"|{'|'.join(aligned)}|", *body])


def _plain(table: pd.DataFrame) -> list[dict[Any, Any]]:
    table = table.astype(object).replace({math.inf: "inf", -math.inf: "-inf"})
    return table.where(table.notna(), None).to_dict("records")
