"""What two pictures of one size differ in, pixel by pixel: MSE, PSNR and SSIM, in float64.

They say nothing about a picture's meaning: a shift by one pixel costs more than a missing eye.
"""

from __future__ import annotations

from typing import Any

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from ..errors import SettingError, known
from ..pictures.files import check_picture, check_range

# Two pictures have two SSIMs, a few hundredths apart, and papers seldom say which is theirs.
SSIM_WINDOWS: dict[str, dict[str, Any]] = {
    # Wang et al. 2004: 11 × 11, weights that sum to 1
    "gaussian": {"win_size": 11, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform": {"win_size": 7},  # scikit-image's default, with the covariance of a sample: n/(n - 1)
}


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error: ``1/(3HW) sum (a - b)²`` over channels, rows and columns (paper A, above (12)).

    Args:
        a: (N, 3, H, W) in [0, 1].
        b: of the same shape; its picture n is compared with a's picture n.

    Returns:
        (N,) in float64, on the CPU: 0 for equal pictures, 1 for black against white. Differentiable.

    Raises:
        ImageError: not pictures, or values outside [0, 1].
        SettingError: the two differ in number or size.
    """
    check_pair(a, b)
    return (a.cpu().double() - b.cpu().double()).square().mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio: ``10 log10(MAX² / MSE)`` with MAX = 1, the picture's range (paper A (12)).

    Args and errors as :func:`mse`. A mean of PSNRs is not the PSNR of a mean MSE; tables say which they have.

    Returns:
        (N,) decibels in float64: infinity for equal pictures, 0 for black against white.
    """
    return -10 * torch.log10(mse(a, b))


def ssim(a: Tensor, b: Tensor, window: str = "gaussian") -> Tensor:
    """Structural similarity (paper A (11)), the mean over all windows inside the picture and the channels.

    Args:
        a: (N, 3, H, W) in [0, 1].
        b: of the same shape.
        window: "gaussian", 11 × 11 with sigma 1.5 (Wang et al. 2004), or "uniform", 7 × 7 (scikit-image's
            default).

    Returns:
        (N,) in float64: 1 for equal pictures; negative where one is the other's negative.

    Raises:
        ImageError: not pictures, values outside [0, 1], or smaller than the window.
        SettingError: unknown window, or pictures that differ in number or size.
    """
    options = SSIM_WINDOWS[known("window of SSIM", window, SSIM_WINDOWS)]
    check_pair(a, b, least=options["win_size"])
    pairs = zip(*(x.detach().cpu().double().numpy() for x in (a, b)), strict=True)
    values = [structural_similarity(x, y, channel_axis=0, data_range=1.0, **options) for x, y in pairs]
    return torch.tensor(values, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ checks


def check_pictures(name: str, images: Tensor, least: int = 1, count: int | None = None) -> Tensor:
    """The same tensor, if it is pictures (N, 3, H, W) with values in [0, 1].

    The metrics of a picture in [0, 255] or [-1, 1] would be numbers all the same, and mean nothing.

    Args:
        name: what errors call them.
        images: what was given.
        least: fewest pixels of a side.
        count: how many there must be; None takes any number.

    Raises:
        ImageError: they are something else.
    """
    return check_range(name, check_picture(name, images, least, count))


def check_pair(a: Tensor, b: Tensor, *, least: int = 1, same_size: bool = True) -> None:
    """Whether two batches can be compared picture by picture.

    Raises:
        ImageError: as :func:`check_pictures`.
        SettingError: they differ in number, or (unless ``same_size`` is False) in height or width.
    """
    check_pictures("first batch", a, least)
    check_pictures("second batch", b, least)
    if len(a) != len(b) or (same_size and a.shape != b.shape):
        (n, _, h, w), (m, _, k, v) = a.shape, b.shape
        raise SettingError(
            f"Pictures are compared one by one, but these are {n} of {w} × {h} pixels and {m} of {v} × {k}: "
            "give as many of each, and crop or resize them to one size."
        )
