"""Pictures for training: which comes when is a function of its number, so that a training can go on anywhere.

No random state has to be kept: picture number p of a training, counted through all its steps, is always the
same picture with the same crop, whoever asks and in whatever batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError
from ..pictures.files import check_picture, list_pictures, load_image, readable, resize

_KEPT = 1_500_000_000  # bytes of decoded pictures that are kept in memory


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, epoch, 0]).permutation(count))


def shuffled(count: int, seed: int, positions: Sequence[int]) -> list[int]:
    """Which of ``count`` pictures stand at these positions, if each epoch shows all of them in an own order.

    Args:
        count: how many pictures there are.
        seed: another one gives other orders.
        positions: 0 is the first picture of the first step.
    """
    return [int(_order(count, seed, position // count)[position % count]) for position in positions]


class Pictures:
    """Square crops of pictures, by position.

    Args:
        source: a folder (read with its subfolders), picture files, or pictures (N, 3, H, W) in [0, 1].
        size: pixels a side of the crops.
        zoom: the crop's side as a part of the picture's shorter side, drawn between these two; a crop is
            never enlarged by more than two.
        flip: show every other picture mirrored.
        seed: of order and crops.

    Raises:
        ImageError: no pictures there, or (later) one that cannot be read.
    """

    def __init__(
        self, source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Tensor, size: int, *,
        zoom: tuple[float, float] = (0.5, 1.0), flip: bool = True, seed: int = 0,
    ) -> None:  # fmt: skip
        self.size, self.zoom, self.flip, self.seed = size, zoom, flip, seed
        self._pictures: Sequence[Path] | Tensor
        if isinstance(source, Tensor):
            if not bool(((check_picture("pictures", source) >= 0) & (source <= 1)).all()):
                raise ImageError("Pictures have values in [0, 1], and these have others: see load_image.")
            self._pictures = source.detach().mul(255).round().to("cpu", torch.uint8)
        else:
            if isinstance(source, str | os.PathLike):
                source = list_pictures(source, deep=True)
            files = [Path(path) for path in source]
            if not files:
                raise ImageError("The list of pictures is empty: name some.")
            self._pictures = readable(files)
        self._kept: dict[int, Tensor] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._pictures)

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """The crops at these positions: (len(positions), 3, size, size), RGB in [0, 1], on the CPU."""
        order = shuffled(len(self), self.seed, positions)
        return torch.cat([self.crop(i, p) for i, p in zip(order, positions, strict=True)])

    def crop(self, index: int, position: int) -> Tensor:
        """The crop of picture number ``index`` that stands at a position: (1, 3, size, size)."""
        picture = self._decoded(index)
        random = np.random.default_rng([self.seed, position, 1])
        height, width = picture.shape[-2:]
        shorter = min(height, width)
        side = max(1, min(shorter, max(round(shorter * random.uniform(*self.zoom)), -(-self.size // 2))))
        top, left = (int(random.integers(extent - side + 1)) for extent in (height, width))
        crop = picture[None, :, top : top + side, left : left + side].float() / 255
        crop = resize(crop, (self.size, self.size))
        return crop.flip(3) if self.flip and random.random() < 0.5 else crop

    def _decoded(self, index: int) -> Tensor:
        """(3, H, W), 8 bits; kept in memory as long as all of them fit."""
        if isinstance(self._pictures, Tensor):
            return self._pictures[index]
        if index in self._kept:
            return self._kept[index]
        # More than twice the crop at the widest zoom is never looked at.
        longest = round(4 * self.size / self.zoom[0])
        picture = load_image(self._pictures[index], size=longest)[0].mul(255).round().to(torch.uint8)
        if self._bytes + picture.numel() <= _KEPT:
            self._kept[index] = picture
            self._bytes += picture.numel()
        return picture
