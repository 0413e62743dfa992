"""The sizes of a coarse-to-fine run: which, how many iterations at each, and pictures from one to another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import interpolate

from ...errors import SettingError
from .settings import Settings


def scaled(image: Tensor, shape: Sequence[int]) -> Tensor:
    """A picture at another size, (1, 3, H, W) -> (1, 3, h, w), antialiased, within [0, 1]."""
    if tuple(image.shape[-2:]) == tuple(shape):
        return image
    return _bicubic(image, shape).clamp(0, 1)


def _bicubic(image: Tensor, shape: Sequence[int]) -> Tensor:
    # Apple's MPS can do this from torch 2.8 on; it is done once a size, so the processor will do.
    here = image.cpu() if image.device.type == "mps" else image
    return interpolate(here, tuple(shape), mode="bicubic", antialias=True).to(image.device)


def enlarged(image: Tensor, shape: Sequence[int]) -> Tensor:
    """The unclamped picture of one size as the start of the next, (1, 3, H, W) -> (1, 3, h, w)."""
    return _bicubic(image.detach(), shape)


def ladder(shape: Sequence[int], smallest: int | None, factor: float = math.sqrt(2)) -> list[tuple[int, int]]:
    """The sizes of a coarse-to-fine run, (H, W) each, up to ``shape``.

    Args:
        shape: (H, W) of the last size.
        smallest: the first size's longest side is at least this; None or too large: the last size alone.
        factor: from one size to the next: √2 (crowsonkb) or 2 (Gatys et al. 2017).

    Example:
        >>> ladder((512, 384), 256)
        [(256, 192), (362, 272), (512, 384)]
    """
    height, width = int(shape[0]), int(shape[1])
    longest = max(height, width)
    if smallest is None or smallest >= longest:
        return [(height, width)]
    octaves = round(math.log2(factor), 9)  # per step; rounded, so that two of √2 halve exactly
    count = math.floor(math.log2(longest / smallest) / octaves + 1e-9)
    factors = [2 ** (-k * octaves) for k in range(count, -1, -1)]
    return [(max(1, round(height * f)), max(1, round(width * f))) for f in factors]


def plan(sizes: Sequence[tuple[int, int]], settings: Settings) -> list[int]:
    """Iterations at each size: what the settings say at the smallest and the last, fewer in between.

    The larger a size, the nearer to its end it begins, and the more each iteration costs: with as many at
    each, the sizes before the last took as long as the last. Settings may name a number for each size.

    Raises:
        SettingError: more or fewer numbers than sizes before the last.
    """
    coarse = settings.coarse_iterations or settings.iterations
    if isinstance(coarse, int):
        coarse = tuple(max(1, round(coarse * max(sizes[0]) / max(size))) for size in sizes[:-1])
    elif len(coarse) != len(sizes) - 1:
        sides = ", ".join(f"{max(size)} px" for size in sizes[:-1]) or "none"
        raise SettingError(
            f"coarse_iterations has {len(coarse)} numbers for the sizes before the last ({sides}): give one "
            "for each, or a single number."
        )
    return [*coarse, settings.iterations]
