"""What has been measured: a table that says by which protocol, on which pictures, and what went wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from .. import __version__
from ..assets.writing import write_atomic
from ..errors import SettingError
from .pictures import Problem
from .protocol import METRICS, Protocol, digest

ENDINGS = (".csv", ".json", ".md")


class Comparison(NamedTuple):
    """Whether two tables may stand side by side; true or false in an ``if``.

    Attributes:
        comparable: whether their hashes agree.
        reason: what differs, in a sentence; empty if they are comparable.
    """

    comparable: bool
    reason: str

    def __bool__(self) -> bool:
        return self.comparable


@dataclass
class Measurement:
    """The numbers of two sets of pictures, and what makes them comparable to others.

    Attributes:
        rows: a row for each pair: ``picture`` (the name in A) and a column for each metric of pairs; NaN
            where it could not be measured, which ``problems`` explains.
        summary: ``metric``, ``value`` (a mean, or the distance of the sets), ``low`` and ``high`` (its
            interval), ``n`` (pictures, of the smaller set for FID and KID), ``better`` ("higher", "lower").
        problems: what could not be measured, by file and reason.
        protocol: how it was measured.
        pictures: 12 hex digits over names and contents of both sets.
        reference: 12 hex digits over names and contents of A alone, against which methods are compared.
        sources: what A and B are called.
        counts: pictures read of A and of B.
        notes: what to keep in mind, such as the bias of FID for few pictures.
        interrupted: whether it was stopped; then all this is of the pictures that were measured until then.
        seconds: wall clock.
        device: what it was computed on.
    """

    rows: pd.DataFrame
    summary: pd.DataFrame
    problems: list[Problem]
    protocol: Protocol
    pictures: str
    reference: str
    sources: tuple[str, str] = ("A", "B")
    counts: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    device: str = "cpu"

    @property
    def hash(self) -> str:
        """12 hex digits over protocol, A's pictures and which were measured; see :func:`comparable`."""
        return digest({"protocol": self.protocol.hash, "reference": self.reference, **self._measured()})

    def _measured(self) -> dict[str, Any]:
        """Which pictures count, for each metric; a mean over other pictures is another mean."""
        of_pairs = {
            name: sorted(self.rows.loc[self.rows[name].notna(), "picture"].astype(str))
            for name in self.protocol.of_pairs
        }
        # Of FID the value depends on how many pictures there are, the more the fewer.
        return {"measured": of_pairs, "counts": list(self.counts) if self.protocol.of_sets else []}

    def record(self) -> dict[str, Any]:
        """All of it, in values that JSON has; numbers that are none are null, infinite ones text."""
        return {
            "hash": self.hash,
            "protocol_hash": self.protocol.hash,
            "protocol": self.protocol.to_dict(),
            "pictures": self.pictures,
            "reference": self.reference,
            "sources": list(self.sources),
            "interrupted": self.interrupted,
            "summary": _plain(self.summary),
            "problems": [problem._asdict() for problem in self.problems],
            "notes": self.notes,
            "counts": list(self.counts),
            "measured": self._measured()["measured"],
            "seconds": round(self.seconds, 2),
            "device": self.device,
            "nstlib": __version__,
            "rows": _plain(self.rows),
        }

    def to_csv(self) -> str:
        """One line for each picture, then the lines value, low, high and n; hashes in the last columns."""
        rows = self.rows.assign(kind="picture")
        by_metric = self.summary.set_index("metric")
        ends = [
            {"kind": kind, "picture": "", **by_metric[kind].to_dict()}
            for kind in ("value", "low", "high", "n")
        ]
        table = pd.DataFrame([*rows.to_dict("records"), *ends], dtype=object)  # counts stay whole numbers
        table = table.reindex(columns=["kind", "picture", *self.protocol.metrics])
        table = table.assign(protocol=self.protocol.hash, pictures=self.pictures, table=self.hash)
        return table.to_csv(index=False, lineterminator="\n")

    def summary_markdown(self) -> str:
        """The summary as a Markdown table: arrows for what is better, mean ± interval, number of pictures."""
        share = f"{100 * self.protocol.level:g} %"
        lines = [f"| metric | value | {share} interval | n |", "|:--|--:|:-:|--:|"]
        for row in self.summary.to_dict("records"):
            title = f"{METRICS[row['metric']].title} {'↑' if row['better'] == 'higher' else '↓'}"
            value, interval = show(row["value"], row["low"], row["high"])
            n = str(row["n"])
            if METRICS[row["metric"]].of_sets and self.counts[0] != self.counts[1]:
                n = f"{self.counts[0]} and {self.counts[1]}"
            lines.append(f"| {title} | {value} | {interval} | {n} |")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """The whole as a Markdown page: summary, problems, every picture, and how it was measured."""
        parts = [f"# {_cell(self.sources[0])} against {_cell(self.sources[1])}"]
        if self.interrupted:
            parts.append(
                f"**Stopped after {len(self.rows) or min(self.counts)} pictures: a part, not the whole.**"
            )
        parts += [self.summary_markdown(), "↑ more is better, ↓ less is better. " + self.how()]
        parts += [f"> {note}" for note in self.notes]
        if self.problems:
            lines = ["| file | what is wrong |", "|:--|:--|"]
            lines += [f"| {_cell(file)} | {_cell(reason)} |" for file, reason in self.problems]
            parts += [f"## Not measured ({len(self.problems)})", "\n".join(lines)]
        if len(self.rows):
            names = self.protocol.of_pairs
            arrows = ["↑" if METRICS[name].better == "higher" else "↓" for name in names]
            titles = [f"{METRICS[name].title} {arrow}" for name, arrow in zip(names, arrows, strict=True)]
            lines = [f"| picture | {' | '.join(titles)} |", f"|:--|{'--:|' * len(names)}"]
            for row in self.rows.to_dict("records"):
                values = " | ".join(_number(row[name]) for name in names)
                lines.append(f"| {_cell(str(row['picture']))} | {values} |")
            parts += ["## Every picture", "\n".join(lines)]
        settings = ", ".join(f"{key} {_said(value)}" for key, value in self.protocol.to_dict().items())
        parts += [
            "## Protocol",
            f"table `{self.hash}`, protocol `{self.protocol.hash}`, pictures `{self.pictures}`, "
            f"reference `{self.reference}`",
            settings + ".",
        ]
        return "\n\n".join(parts) + "\n"

    def how(self) -> str:
        """How the values and intervals came about, in a sentence or two."""
        p = self.protocol
        said = []
        if p.of_pairs:
            said.append(
                f"Means over pictures; interval by bootstrap ({p.bootstrap} resamples, seed {p.seed})."
            )
        if p.of_sets:
            titles = " and ".join(METRICS[name].title for name in p.of_sets)
            said.append(f"{titles} of the sets; interval from {p.set_bootstrap} resamples.")
        return " ".join(said)

    def _repr_markdown_(self) -> str:
        return self.summary_markdown()

    def save(self, path: str | Path) -> Path:
        """Write a table as CSV, JSON or Markdown, by the name's ending; it appears whole or not at all.

        Raises:
            SettingError: the ending is of none of the three.
            ImageError: the file cannot be written.
        """
        path = check_ending(path)
        if path.suffix.lower() == ".csv":
            text = self.to_csv()
        elif path.suffix.lower() == ".json":
            text = json.dumps(self.record(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        else:
            text = self.to_markdown()
        # A file's name may hold bytes that are no text; the table must not fail for it.
        write_atomic(path, memoryview(text.encode("utf-8", errors="backslashreplace")))
        return path


def check_ending(path: str | Path) -> Path:
    """The path, if its ending says in which of the three formats a table is written.

    Raises:
        SettingError: it does not.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise SettingError(
            f"'{path}' does not say in which format to write a table: end it in {', '.join(ENDINGS)}."
        )
    return path


def comparable(
    first: Measurement | Mapping[str, Any] | str | Path, second: Measurement | Mapping[str, Any] | str | Path
) -> Comparison:
    """Whether the numbers of two tables may be compared: exactly if their hashes agree.

    They agree for the same protocol and definitions, the same pictures in A, and the same of them measured.
    B may differ: it is what the methods compared have made of A.

    Args:
        first: a measurement, its :meth:`Measurement.record`, or a JSON file that it was saved to.
        second: the same.

    Raises:
        SettingError: a file that cannot be read, or is no saved measurement.
    """
    one, other = _record(first), _record(second)
    if one["hash"] == other["hash"]:
        return Comparison(True, "")
    if one["protocol_hash"] != other["protocol_hash"]:
        fields = sorted({**one["protocol"], **other["protocol"]})
        pairs = [(name, one["protocol"].get(name), other["protocol"].get(name)) for name in fields]
        said = [f"{name} ({_said(x)}, {_said(y)})" for name, x, y in pairs if x != y]
        return Comparison(False, f"The protocols differ in {', '.join(said) or 'their hash'}.")
    if one["interrupted"] or other["interrupted"]:
        which = "first" if one["interrupted"] else "second"
        return Comparison(False, f"The {which} table is of a run that was stopped: measure all its pictures.")
    if one["reference"] != other["reference"]:
        return Comparison(False, "The pictures of A are not the same: their names or contents differ.")
    for metric, names in one["measured"].items():
        if lone := sorted(set(names) ^ set(other["measured"][metric])):
            more = f" and {len(lone) - 1} more" if len(lone) > 1 else ""
            title = METRICS[metric].title if metric in METRICS else metric
            where = "first" if lone[0] in names else "second"
            return Comparison(
                False, f"{title} of '{lone[0]}'{more} is in the {where} table only: see its problems."
            )
    return Comparison(
        False,
        f"The sets have {one['counts'][0]} and {one['counts'][1]} pictures in the first table and "
        f"{other['counts'][0]} and {other['counts'][1]} in the second, which FID and KID depend on.",
    )


def _record(table: Measurement | Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(table, Measurement):
        return table.record()
    if not isinstance(table, Mapping):
        path = Path(table)
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingError(
                f"'{path}' cannot be read as a saved measurement: name its .json file."
            ) from error
        if not isinstance(table, dict):
            raise SettingError(f"'{path}' is no saved measurement: name its .json file.")
    wanted = ("hash", "protocol_hash", "protocol", "interrupted", "reference", "measured", "counts")
    if missing := [name for name in wanted if name not in table]:
        raise SettingError(
            f"This is no saved measurement, for it has no {missing[0]!r}: pass what save wrote."
        )
    return table


# ------------------------------------------------------------------------------------------------- showing


def show(value: float, low: float, high: float) -> tuple[str, str]:
    """(value ± half the interval's width, "low to high"), in the digits that the interval leaves sense."""
    if not all(map(math.isfinite, (value, low, high))):
        ends = "–" if math.isnan(low) or math.isnan(high) else f"{_number(low)} to {_number(high)}"
        return _number(value), ends
    half = (high - low) / 2
    if not half:
        return f"{_number(value)} ± 0", f"{_number(low)} to {_number(high)}"
    digits = 1 - math.floor(math.log10(half))  # two of the half width
    if digits > 6:  # KID of equal sets, MSE of nearly equal pictures
        return f"{value:.3g} ± {half:.2g}", f"{low:.3g} to {high:.3g}"
    digits = max(0, digits)
    return f"{value:.{digits}f} ± {half:.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{'-' if value < 0 else ''}∞" if math.isinf(value) else f"{value:.4g}"


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        return value

    return [{str(key): plain(value) for key, value in row.items()} for row in table.to_dict("records")]
