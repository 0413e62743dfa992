"""A training's folder: what it is, how its losses went, and the last step's weights and optimizers.

    run.json                the settings, by which another training is told from this one
    losses.csv              a row a step
    step-00000120/          weights.safetensors, average.safetensors, state.pt (the optimizers)

A step's folder is written under another name and renamed, so it is whole or not there; the one before is
deleted after that.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..assets.writing import reason, write_atomic
from ..errors import ImageError, OptimizationError, SettingError

State = dict[str, dict[str, Tensor]]  # module -> its state dict

_STEP = re.compile(r"step-(\d{8})")
_PART = re.compile(r"\.nst-.*\.part")  # see write_atomic


@dataclass
class Saved:
    """What a training goes on from."""

    step: int  # steps done
    weights: State
    averages: State
    optimizers: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoints:
    """The folder of one training.

    Args:
        folder: made if it is missing.
        description: what JSON can hold: everything that, changed, would make another training.

    Raises:
        SettingError: another training lies there, or the folder cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str], description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self._columns: list[str] = []
        wanted = json.loads(json.dumps(description))  # as it will be read back: tuples are lists
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = self._read_description()
            if found is None:
                text = json.dumps(wanted, indent=1) + "\n"
                write_atomic(self.folder / "run.json", memoryview(text.encode()))
            for half in self.folder.glob(".step-*"):  # a training that was killed while it saved left it
                shutil.rmtree(half, ignore_errors=True)
        except (OSError, ImageError) as error:
            raise SettingError(
                f"No training can be kept in '{self.folder}' ({_why(error)}): name another folder."
            ) from error
        if found is not None and found != wanted:
            keys = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
            pairs = ", ".join(f"{key} {found.get(key)!r} there, {wanted.get(key)!r} here" for key in keys[:3])
            raise SettingError(
                f"'{self.folder}' holds a training with other settings ({pairs}): give those again to go on, "
                "or name another folder to begin anew."
            )

    def _read_description(self) -> dict[str, Any] | None:
        path = self.folder / "run.json"
        if not path.exists():
            # A training that was killed while it wrote its first file has left a part of that.
            if any(not _PART.fullmatch(path.name) for path in self.folder.iterdir()):
                raise SettingError(
                    f"'{self.folder}' holds other files, and no training: name another folder."
                )
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise SettingError(
                f"'{path}' is damaged: delete '{self.folder}' to begin anew, or name another folder."
            ) from error

    def latest(self) -> Path | None:
        """The folder of the last step that was saved."""
        found = sorted(path for path in self.folder.glob("step-*") if _STEP.fullmatch(path.name))
        return found[-1] if found else None

    def load(self) -> Saved | None:
        """The last saved step, with the losses up to it, or None if there is none.

        Raises:
            SettingError: its files are damaged.
        """
        path = self.latest()
        if path is None:
            return None
        step = int(path.name.removeprefix("step-"))
        try:
            weights, averages = (
                _unflattened(safetensors.torch.load_file(path / f"{name}.safetensors"))
                for name in ("weights", "average")
            )
            optimizers = torch.load(path / "state.pt", map_location="cpu", weights_only=True)["optimizers"]
            history = self._read_log(step)
        except Exception as error:  # the readers raise half a dozen kinds on a broken file
            raise SettingError(
                f"The training saved in '{path}' is damaged ({_why(error)}): delete '{self.folder}' to "
                "begin anew."
            ) from error
        return Saved(step, weights, averages, optimizers, history)

    def save(self, step: int, weights: State, averages: State, optimizers: Mapping[str, Any]) -> None:
        """Keep a step; the one before is kept until this one is whole.

        Raises:
            OptimizationError: the disk is full, or the folder cannot be written.
        """
        final = self.folder / f"step-{step:08d}"
        if final.exists():
            return
        part = self.folder / f".{final.name}.{os.getpid()}"
        try:
            try:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                for name, state in (("weights", weights), ("average", averages)):
                    _write(part / f"{name}.safetensors", safetensors.torch.save(_flattened(state)))
                content = io.BytesIO()
                torch.save({"optimizers": dict(optimizers)}, content)
                _write(part / "state.pt", content.getbuffer())
                with open(self.folder / "losses.csv", "ab") as log:
                    os.fsync(log.fileno())  # a step without its losses could not be loaded
                os.replace(part, final)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            raise self._full(f"Step {step} cannot be saved", error) from error
        for path in self.folder.glob("step-*"):
            if path != final and _STEP.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def begin_log(self, history: list[dict[str, float]]) -> None:
        """Write the losses so far; what a killed run has logged beyond them is struck.

        Raises:
            OptimizationError: as for :meth:`log`.
        """
        self._columns = list(dict.fromkeys(key for row in history for key in row))
        text = io.StringIO()
        if self._columns:
            writer = csv.DictWriter(text, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
        try:
            for path in self.folder.iterdir():
                if _PART.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            write_atomic(self.folder / "losses.csv", memoryview(text.getvalue().encode()))
        except (OSError, ImageError) as error:
            raise self._full(f"The losses up to step {len(history)} cannot be logged", error) from error

    def log(self, history: list[dict[str, float]]) -> None:
        """Add the last row of a history to the log, from where a plot can read it while the training runs.

        Raises:
            OptimizationError: the disk is full, or the file cannot be written.
        """
        row = history[-1]
        if not set(row) <= set(self._columns):  # the first row, or a loss that comes now and then
            self.begin_log(history)
            return
        try:
            with open(self.folder / "losses.csv", "a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)
        except OSError as error:
            raise self._full(f"The losses of step {len(history)} cannot be logged", error) from error

    def _full(self, what: str, error: Exception) -> OptimizationError:
        kept = self.latest()
        return OptimizationError(
            f"{what} in '{self.folder}' ({_why(error)}): make room, then start the same training again; it "
            f"goes on from {kept.name if kept else 'its beginning'}."
        )

    def _read_log(self, steps: int) -> list[dict[str, float]]:
        with open(self.folder / "losses.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))[:steps]  # the last may have been cut off, but is beyond then
        if len(rows) != steps:
            raise ValueError(f"losses.csv has {len(rows)} rows for {steps} steps")
        return [{k: int(v) if v.isdigit() else float(v) for k, v in r.items() if v} for r in rows]


def _why(error: Exception) -> str:
    text = reason(error.__cause__ if isinstance(error, ImageError) and error.__cause__ else error)
    return text if "\n" not in text else type(error).__name__  # torch explains at length


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # before the folder is renamed, or a power cut leaves empty files behind


def _flattened(state: State) -> dict[str, Tensor]:
    return {
        # Copied, because weights that two modules share are refused.
        f"{module}/{key}": tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for module, tensors in state.items()
        for key, tensor in tensors.items()
    }


def _unflattened(tensors: Mapping[str, Tensor]) -> State:
    state: State = {}
    for name, tensor in tensors.items():
        module, _, key = name.partition("/")
        state.setdefault(module, {})[key] = tensor
    return state
