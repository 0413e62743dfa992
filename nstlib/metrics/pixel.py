"""What two pictures of one size differ in, pixel by pixel: MSE, PSNR and SSIM.

Written out, because this is what the course teaches; each equals scikit-image's to rounding. All three are
computed in float64 (a picture and its copy in a lossless file must agree to the last digit that is printed)
and are differentiable. They say nothing about a picture's meaning: a shift by one pixel costs more than a
missing eye.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ImageError, SettingError

_TOLERANCE = 1 / 255  # as in images: rounding leaves [0, 1] by less than one 8-bit level


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error: ``1/(3HW) sum (a - b)²`` over channels, rows and columns (paper A, above (12)).

    Args:
        a: (N, 3, H, W) in [0, 1].
        b: of the same shape; its picture n is compared to a's picture n.

    Returns:
        (N,) in float64: 0 for equal pictures, 1 for black against white.

    Raises:
        ImageError: not pictures, values that are not numbers or lie outside [0, 1].
        SettingError: the two differ in number or size.
    """
    a, b = check_pair(a, b)
    return (_wide(a) - _wide(b)).square().mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio: ``10 log10(MAX² / MSE)`` with MAX = 1, the picture's range (paper A (12)).

    Args and errors as :func:`mse`. A mean of PSNRs is not the PSNR of a mean MSE; tables say which they have.

    Returns:
        (N,) decibels in float64: infinity for equal pictures, 0 for black against white.
    """
    return -10 * torch.log10(mse(a, b))


class Window(NamedTuple):
    """What SSIM looks through: the weights along one side, and what its covariances are divided by."""

    weights: tuple[float, ...]
    sample: bool  # True: covariances of a sample, n/(n - 1) times the mean product of n pixels
    source: str


def _gaussian(sigma: float, radius: int) -> tuple[float, ...]:
    curve = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float64).square() / (2 * sigma**2))
    return tuple((curve / curve.sum()).tolist())


# Two pictures have two SSIMs, a few hundredths apart, and papers seldom say which is theirs.
WINDOWS = {
    "gaussian": Window(
        _gaussian(1.5, 5), False, "Wang et al. 2004: 11 × 11, sigma 1.5, weights that sum to 1"
    ),
    "uniform": Window((1 / 7,) * 7, True, "scikit-image's default: 7 × 7, all alike, sample covariance"),
}


def ssim(a: Tensor, b: Tensor, window: str = "gaussian") -> Tensor:
    """Structural similarity: the mean of :func:`ssim_map` over channels and positions.

    Args and errors as :func:`ssim_map`.

    Returns:
        (N,) in float64: 1 for equal pictures; negative where one is the other's negative.
    """
    return ssim_map(a, b, window).mean((1, 2, 3))


def ssim_map(a: Tensor, b: Tensor, window: str = "gaussian") -> Tensor:
    """Where two pictures have the same structure: paper A (11) in a window around every pixel.

    ``(2 mu_a mu_b + c1)(2 sigma_ab + c2) / ((mu_a² + mu_b² + c1)(sigma_a² + sigma_b² + c2))`` with the
    window's means mu, variances sigma² and covariance sigma_ab, c1 = (0.01 · 1)² and c2 = (0.03 · 1)²,
    1 being the picture's range. Each color channel is taken for itself (Wang et al. 2004 have gray pictures;
    scikit-image with ``channel_axis`` does the same), and only windows that lie wholly inside count.

    Args:
        a: (N, 3, H, W) in [0, 1], no side shorter than the window.
        b: of the same shape.
        window: "gaussian", 11 × 11 with sigma 1.5 and plain weighted covariances, as defined by Wang et al.
            2004 (scikit-image: ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``), or
            "uniform", 7 × 7 with sample covariances (n - 1), scikit-image's default.

    Returns:
        (N, 3, H - k + 1, W - k + 1) in float64 for a window of k × k, in [-1, 1].

    Raises:
        ImageError: as :func:`mse`.
        SettingError: unknown window, pictures that differ in number or size, or are smaller than the window.
    """
    if window not in WINDOWS:
        raise SettingError(f"The window of SSIM is one of {', '.join(WINDOWS)}, not '{window}'.")
    weights, sample, _ = WINDOWS[window]
    a, b = check_pair(a, b)
    side = len(weights)
    if min(a.shape[-2:]) < side:
        raise SettingError(
            f"A picture of {a.shape[-1]}×{a.shape[-2]} pixels is smaller than the {window} window of SSIM: "
            f"it needs {side} pixels a side; enlarge it or take another measure."
        )
    a, b = _wide(a), _wide(b)
    mean_a, mean_b = _window_mean(a, weights), _window_mean(b, weights)
    unbias = side**2 / (side**2 - 1) if sample else 1.0
    variance_a = unbias * (_window_mean(a * a, weights) - mean_a**2)
    variance_b = unbias * (_window_mean(b * b, weights) - mean_b**2)
    covariance = unbias * (_window_mean(a * b, weights) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return brightness * structure


def _window_mean(x: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Weighted mean under every position of a square window: down the columns, then along the rows.

    The window is an outer product, so k + k shifted copies do instead of k · k. They are added one by one: a
    convolution in float64 is slower here and unrolls the picture k times in memory.
    """
    for dim in (2, 3):
        length = x.shape[dim] - len(weights) + 1
        mean = weights[0] * x.narrow(dim, 0, length)
        for shift, weight in enumerate(weights[1:], start=1):
            mean = torch.add(mean, x.narrow(dim, shift, length), alpha=weight)
        x = mean
    return x


def _wide(x: Tensor) -> Tensor:
    """In float64; Apple's MPS has none, so from there to the processor."""
    return (x.cpu() if x.device.type == "mps" else x).double()


# ------------------------------------------------------------------------------------------------ checks


def check_pictures(images: Tensor, name: str = "The batch") -> Tensor:
    """The same tensor, if every number in it can be a picture's; used by all metrics.

    A measure that takes a picture in [0, 255] or [-1, 1], or a NaN, still gives a number, and the table does
    not show that it means nothing: so all are refused.

    Args:
        images: (N, 3, H, W), floats in [0, 1] (up to one level of 255 beyond is rounding).
        name: what the message calls it.

    Raises:
        ImageError: wrong shape or type, values that are not numbers or lie outside [0, 1].
    """
    if not isinstance(images, Tensor):
        raise ImageError(
            f"{name} is a {type(images).__name__}, not a tensor (N, 3, H, W): load pictures with load_image."
        )
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != 3 or 0 in shape:
        raise ImageError(
            f"{name} has the shape {shape}, but pictures to be measured are (N, 3, H, W), at least one of at "
            "least 1 × 1 pixels; load_image gives the right shape."
        )
    if not images.is_floating_point():
        raise ImageError(f"{name} holds {images.dtype}, not floats in [0, 1]: use images.float() / 255.")
    values = images.detach()
    low, high = values.amin((1, 2, 3)), values.amax((1, 2, 3))  # NaN if there is one
    for n in torch.nonzero(~(torch.isfinite(low) & torch.isfinite(high)))[:, 0].tolist():
        raise ImageError(
            f"{name} holds values that are not numbers (NaN or infinity) in picture {n + 1} of {shape[0]}: "
            "look where they come from, or leave that picture out."
        )
    for n in torch.nonzero((low < -_TOLERANCE) | (high > 1 + _TOLERANCE))[:, 0].tolist():
        raise ImageError(
            f"{name} has values from {low[n].item():.3g} to {high[n].item():.3g} in picture {n + 1} of "
            f"{shape[0]}, not from 0 to 1: call .clamp(0, 1) if that is meant, or bring it to that range "
            "(divide by 255, for instance)."
        )
    return images


def check_pair(a: Tensor, b: Tensor, *, same_size: bool = True) -> tuple[Tensor, Tensor]:
    """Both batches, b on a's device, if they can be compared picture by picture.

    Raises:
        ImageError: as :func:`check_pictures`.
        SettingError: they differ in number, or (unless ``same_size`` is False) in height or width.
    """
    check_pictures(a, "The first batch")
    check_pictures(b, "The second batch")
    if len(a) != len(b):
        raise SettingError(
            f"Pictures are compared one by one, but there are {len(a)} and {len(b)} of them: give as many."
        )
    if same_size and a.shape != b.shape:
        raise SettingError(
            f"Pictures are compared pixel by pixel, but these have {a.shape[-1]}×{a.shape[-2]} and "
            f"{b.shape[-1]}×{b.shape[-2]} pixels: resize or crop them to one size first."
        )
    return a, b.to(a.device)
