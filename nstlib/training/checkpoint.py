"""The folder of one training: its description, its losses, and all it needs to go on.

run.json         what is learned from what: another description is another training
losses.csv       a row a step, as of the last checkpoint
checkpoint.pt    step, weights, averages, optimizers, history
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ..assets.writing import atomic, reason, write_atomic
from ..errors import ImageError, OptimizationError, SettingError

COUNTS = ("pictures", "faces", "artworks")  # of a description; a training goes on where some are gone


class Checkpoints:
    """The folder in which a training, or any other long work, keeps what it needs to go on.

    Args:
        folder: made if it is missing.
        description: what JSON can hold: everything that, changed, would make another training.

    Raises:
        SettingError: another training lies there, or the folder cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str], description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "checkpoint.pt"
        wanted = json.loads(json.dumps(description, default=str))  # as it will be read back: tuples are lists
        run = self.folder / "run.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not run.exists():
                if any(not path.name.startswith(".nst-") for path in self.folder.iterdir()):
                    raise SettingError(f"'{folder}' holds other files, and no training: name another folder.")
                write_atomic(run, (json.dumps(wanted, indent=1) + "\n").encode())
            found = dict(json.loads(run.read_text(encoding="utf-8")))
        except (OSError, ImageError, ValueError) as error:
            why = reason(error.__cause__ or error)
            raise SettingError(f"No training can be kept in '{folder}' ({why}): name another.") from error
        keys = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
        if keys and all(key in COUNTS and (wanted.get(key) or 0) < (found.get(key) or 0) for key in keys):
            gone = sum(found[key] - wanted[key] for key in keys)
            warnings.warn(
                f"Pictures of this training are gone ({gone}): it goes on with the rest.", stacklevel=2
            )
        elif keys:
            pairs = ", ".join(f"{key} {found.get(key)!r} there, {wanted.get(key)!r} here" for key in keys[:3])
            raise SettingError(
                f"'{folder}' holds a training with other settings ({pairs}): give those again to go on, or "
                "name another folder to begin anew."
            )

    def load(self) -> dict[str, Any] | None:
        """What :meth:`save` kept last; None if nothing is kept yet.

        Raises:
            SettingError: the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            return dict(torch.load(self.path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises half a dozen kinds on a broken file
            raise SettingError(
                f"'{self.path}' is damaged ({reason(error)}): delete '{self.folder}', or name another."
            ) from error

    def save(self, content: Mapping[str, Any], history: list[dict[str, float]]) -> None:
        """Keep tensors, numbers and containers of them; the losses as "history", and in a table of their own.

        Raises:
            OptimizationError: the disk is full, or the folder cannot be written. What was kept before stays.
        """
        try:
            with atomic(self.path) as part:
                torch.save({**content, "history": history}, part)
            with atomic(self.folder / "losses.csv") as part:
                pd.DataFrame(history).to_csv(part, index=False, lineterminator="\n")
        except (ImageError, RuntimeError) as error:  # torch's own writer raises RuntimeError
            raise OptimizationError(
                f"No checkpoint can be saved in '{self.folder}' ({reason(error.__cause__ or error)}): make "
                "room, then start the same training again; it goes on from the last one."
            ) from error


def means(pictures: Tensor) -> list[float]:
    """The mean of each channel (N, C, H, W) to four digits: tells pictures from others.

    Unlike :func:`digest` for what was resized, whose last bits differ from processor to processor.
    """
    return [round(value, 4) for value in pictures.mean((0, 2, 3), dtype=torch.float64).tolist()]


def digest(of: Tensor | nn.Module) -> str:
    """Sixteen letters that tell these numbers from others: of a tensor, or of a network's weights."""
    tensors = [of] if isinstance(of, Tensor) else [t for _, t in sorted(of.state_dict().items())]
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
