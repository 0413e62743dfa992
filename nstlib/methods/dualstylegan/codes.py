"""What destylization leaves behind: for each portrait of a style its codes, and those of the face behind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ...assets.weights import read_weights
from ...assets.writing import write_atomic
from ...errors import SettingError
from ...nets.style_generator import STYLE


@dataclass(frozen=True)
class Destylized:
    """K portraits of one style, and their codes; paper A, section 3.2 (stage one).

    All codes are w+; the z+ of published files pass the mapping network first.

    Raises:
        SettingError: another shape, a value that is no number, portraits beyond [0, 1], or no portrait.
    """

    extrinsic: Tensor  # (K, layers, 512): of the portrait as it is
    intrinsic: Tensor  # (K, layers, 512): of the photograph that might be behind it
    portraits: Tensor  # (K, 3, S, S), RGB in [0, 1]

    def __post_init__(self) -> None:
        codes, shape = self.extrinsic.shape, self.portraits.shape
        if len(codes) != 3 or codes[2] != STYLE or self.intrinsic.shape != codes:
            raise SettingError(
                f"Extrinsic and intrinsic codes are (K, layers, {STYLE}) both, not {tuple(codes)} and "
                f"{tuple(self.intrinsic.shape)}."
            )
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise SettingError(
                f"Portraits are square, (K, 3, S, S), not {tuple(shape)}: align and resize them first."
            )
        if shape[0] != codes[0] or not shape[0]:
            raise SettingError(
                f"Each portrait has its two codes, and there is at least one: {shape[0]} portraits and "
                f"{codes[0]} codes do not go together."
            )
        if not all(bool(t.isfinite().all()) for t in (self.extrinsic, self.intrinsic, self.portraits)):
            raise SettingError("A code or portrait has a value that is no number: destylize it again.")
        if not bool(((self.portraits >= 0) & (self.portraits <= 1)).all()):
            raise SettingError("Portraits have values in [0, 1], and these have others: see load_image.")

    def __len__(self) -> int:
        return len(self.portraits)

    @property
    def layers(self) -> int:
        """Codes of a w+."""
        return self.extrinsic.shape[1]

    @property
    def size(self) -> int:
        """Pixels a side of the portraits."""
        return self.portraits.shape[-1]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file: codes in float32, portraits in 8 bits.

        Raises:
            ImageError: it cannot be written.
        """
        tensors = {
            "extrinsic": self.extrinsic.detach().float(),
            "intrinsic": self.intrinsic.detach().float(),
            "portraits": self.portraits.detach().mul(255).round().to(torch.uint8),
        }
        plain = {name: tensor.cpu().clone().contiguous() for name, tensor in tensors.items()}
        write_atomic(Path(path), memoryview(safetensors.torch.save(plain)))
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Destylized:
        """What :meth:`save` has written, on the CPU.

        Raises:
            SettingError: there is no such file, or it holds something else.
        """
        tensors, _ = read_weights(Path(path), "as Destylized.save writes it")
        if set(tensors) != {"extrinsic", "intrinsic", "portraits"}:
            raise SettingError(
                f"'{path}' holds no portraits with their codes: name a file that Destylized.save has written."
            )
        portraits = tensors["portraits"].float() / 255
        return cls(tensors["extrinsic"].float(), tensors["intrinsic"].float(), portraits)
