"""A folder with one file for each portrait that is done: an interrupted run goes on behind the last.

Portraits do not know of each other, so several processes (``accelerate launch``) take turns with them, and
find each other's in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ...assets.writing import reason, write_atomic
from ...errors import ImageError, SettingError

RUN = "portraits.json"


class PortraitFiles:
    """What has been found for each portrait, by its number.

    Args:
        folder: made if it is missing; None keeps nothing.
        description: what JSON can hold: everything that, changed, would give other results.

    Raises:
        SettingError: the folder holds other portraits' results, or cannot be used; there is none, and there
            are several processes.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, description: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.processes = int(os.environ.get("WORLD_SIZE", "1"))
        if self.folder is None:
            if self.processes > 1:
                raise SettingError("Several processes share their portraits through a folder: name one.")
            return
        wanted = json.loads(json.dumps(description))  # as it will be read back: tuples are lists
        path = self.folder / RUN
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_atomic(path, memoryview((json.dumps(wanted, indent=1) + "\n").encode()))
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ImageError) as error:
            raise SettingError(
                f"No portraits can be kept in '{self.folder}' ({_why(error)}): name another folder."
            ) from error
        except ValueError as error:
            raise SettingError(f"'{path}' is damaged: delete '{self.folder}' to begin anew.") from error
        if found != wanted:
            keys = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
            raise SettingError(
                f"'{self.folder}' holds results with another {', '.join(keys[:3])}: give the same portraits, "
                "networks and settings to go on, or name another folder."
            )

    def turn(self, index: int) -> bool:
        """Whether this process is the one that works on a portrait."""
        return index % self.processes == int(os.environ.get("RANK", "0"))

    def gather(
        self, found: Sequence[Mapping[str, Tensor] | None], device: torch.device
    ) -> list[Mapping[str, Tensor]]:
        """Wait for the other processes, and take what they have found; each computes on such a device.

        Raises:
            SettingError: what another process has found is not in the folder.
        """
        if self.processes > 1:
            from accelerate import PartialState

            PartialState(cpu=device.type == "cpu").wait_for_everyone()
        done = [one if one is not None else self.load(index) for index, one in enumerate(found)]
        if None in done:
            raise SettingError(
                f"Portrait {done.index(None) + 1} is not in '{self.folder}', where another process has kept "
                "it: name a folder that all of them see."
            )
        return [one for one in done if one is not None]

    def load(self, index: int) -> dict[str, Tensor] | None:
        """What is kept of a portrait; None if it is not done (or its file is damaged)."""
        if self.folder is None:
            return None
        try:
            return safetensors.torch.load_file(self._path(index))
        except (OSError, SafetensorError):
            return None

    def save(self, index: int, found: Mapping[str, Tensor]) -> None:
        """Keep what has been found for a portrait.

        Raises:
            ImageError: the file cannot be written.
        """
        if self.folder is not None:
            plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in found.items()}
            write_atomic(self._path(index), memoryview(safetensors.torch.save(plain)))

    def _path(self, index: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{index:04d}.safetensors"


def digest(of: Tensor | nn.Module) -> str:
    """Sixteen letters that tell these numbers from others: of a tensor, or of a network's weights."""
    tensors = [of] if isinstance(of, Tensor) else [t for _, t in sorted(of.state_dict().items())]
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _why(error: Exception) -> str:
    return reason(error.__cause__ if isinstance(error, ImageError) and error.__cause__ else error)
