"""Keeping the content picture's own colors: a painter would paint the scene's, not those of another painting.

Either the style picture gets the content's colors before the transfer (`match_histogram`, `coral`), or only
the luminance is transferred and the content's colors are put back after it (`luminance_only`). The first
keeps what ties colors to brush strokes, but the content's colors only as a whole; the second keeps every
pixel's hue, but may paint a yellow stroke where the content is blue.

Source: Gatys, Bethge, Hertzmann & Shechtman 2016, "Preserving color in neural artistic style transfer"
(arXiv 1606.05897); the papers of this course say nothing about it, their users miss it. All pictures are
(1, 3, H, W), RGB in [0, 1], of any sizes; everything happens on the sRGB values as they are.
"""

from __future__ import annotations

import torch
from skimage import exposure
from torch import Tensor

from ..errors import known
from .files import check_picture, resize

COLOR_MODES = ("style", "luminance", "histogram", "coral")

# Y of YIQ (ITU-R BT.601), as Gatys et al. and neural-style have it; the three add up to 1.
_LUMINANCE = (0.299, 0.587, 0.114)

# A spread under one 8-bit level is rounding or JPEG noise: it is never stretched to look like a color.
_LEAST_SPREAD = 1 / 255


def luminance(image: Tensor) -> Tensor:
    """How bright each pixel is, whatever its color: (1, 3, H, W) -> (1, 1, H, W), Y of YIQ.

    Raises:
        ImageError: not one picture, or one with values that are not numbers.
    """
    weights = _check(image).new_tensor(_LUMINANCE).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def luminance_only(result: Tensor, content: Tensor) -> Tensor:
    """The result's luminance with the content's colors.

    Computed in YIQ, not in Lab: YIQ is linear, so gray stays exactly gray, and replacing Y means adding the
    same number to R, G and B, where I and Q do not see it. No conversion there and back is needed.
    A pixel that would leave [0, 1] gets a paler color of the same hue; clamping R, G and B one by one, as
    neural-style does, would change both its hue and the luminance just transferred.

    Args:
        result: (1, 3, H, W), what the style transfer has made.
        content: (1, 3, H', W'), resized to the result where the sizes differ.

    Returns:
        (1, 3, H, W) with exactly the result's luminance.

    Raises:
        ImageError: not one picture, or one with values that are not numbers.
    """
    y = luminance(result).clamp(0, 1)
    content = resize(_check(content), (result.shape[2], result.shape[3])).to(result)
    chroma = content - luminance(content)  # I and Q, written in RGB: its luminance is 0
    room = torch.where(chroma > 0, 1 - y, y)
    fits = (room / chroma.abs().clamp_min(1e-12)).amin(1, keepdim=True).clamp(max=1)
    return (y + fits * chroma).clamp(0, 1)  # the clamp is for rounding only


def match_luminance(style: Tensor, content: Tensor) -> Tensor:
    """The style picture in gray, its luminance shifted and scaled to the content's mean and spread.

    ``Y' = (sigma_C / sigma_S) (Y_S - mu_S) + mu_C``, Gatys et al. 2016, section on luminance-only transfer.
    Without it a dark painting darkens the face it is transferred to.

    Returns:
        (1, 3, H, W) of the style's size, three equal channels; a flat style becomes the content's mean.

    Raises:
        ImageError: not one picture, or one with values that are not numbers.
    """
    y_style, y_content = luminance(style), luminance(content).to(style)
    scale = y_content.std(correction=0) / y_style.std(correction=0).clamp_min(_LEAST_SPREAD)
    matched = scale * (y_style - y_style.mean()) + y_content.mean()
    return matched.clamp(0, 1).expand_as(style).contiguous()


def match_histogram(style: Tensor, content: Tensor) -> Tensor:
    """The style picture, each of its channels with the content channel's distribution of values.

    The darkest hundredth of the style's red becomes as dark as that of the content's red, and so on up: the
    histograms agree, but nothing is said about which red meets which blue, so that colors appear that neither
    picture has (the purple sky that a portrait makes of The Starry Night). A channel of one single value
    takes the content's highest.

    Returns:
        (1, 3, H, W) of the style's size.

    Raises:
        ImageError: not one picture, or one with values that are not numbers.
    """
    s, c = (_check(picture).detach().float().cpu()[0].numpy() for picture in (style, content))
    matched = torch.from_numpy(exposure.match_histograms(s, c, channel_axis=0))
    return matched[None].clamp(0, 1).contiguous().to(style)


def coral(style: Tensor, content: Tensor) -> Tensor:
    """The style picture, its pixels' mean and covariance made the content's by one linear map.

    ``p' = A (p - mu_S) + mu_C`` with ``A = Sigma_C^(1/2) Sigma_S^(-1/2)``: whiten, then recolor (Gatys et al.
    2016, their "Image Analogies" variant; Sun et al. 2016 call it CORAL). Any A with
    ``A Sigma_S A^T = Sigma_C`` would do. The one of two Cholesky factors, Gatys' other choice, is triangular:
    the new red depends on the old red only, and another order of the channels gives other colors. Symmetric
    roots know no order. Unlike `match_histogram` this keeps which channels go together, but takes of the
    distribution only the first two moments, less what is clamped to [0, 1].

    Directions in which the style hardly varies (a gray painting's color) are scaled as if they varied by one
    8-bit level, so noise does not become color.

    Returns:
        (1, 3, H, W) of the style's size.

    Raises:
        ImageError: not one picture, or one with values that are not numbers.
    """
    pixels, mean, covariance = _statistics(style)
    _, content_mean, content_covariance = _statistics(content)
    whiten = _power(covariance, -0.5, _LEAST_SPREAD**2)
    recolor = _power(content_covariance, 0.5, 0.0)
    matched = recolor @ whiten @ (pixels - mean) + content_mean
    return matched.clamp(0, 1).view(style.shape).to(style)


def _statistics(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (3, H*W), their mean (3, 1) and covariance (3, 3), in float64 on the CPU."""
    pixels = _check(image).detach().cpu().double()[0].flatten(1)
    mean = pixels.mean(1, keepdim=True)
    centered = pixels - mean
    return pixels, mean, centered @ centered.T / pixels.shape[1]


def _power(covariance: Tensor, exponent: float, least: float) -> Tensor:
    """The symmetric power of a covariance matrix, its eigenvalues taken as at least ``least``."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(least) ** exponent) @ vectors.T


def prepare_style(how: str, style: Tensor, content: Tensor) -> Tensor:
    """The style picture to be used in a transfer that treats colors this way.

    Args:
        how: "style" (the painting's colors: unchanged), "luminance", "histogram" or "coral".
        style: (1, 3, H, W).
        content: (1, 3, H', W').

    Returns:
        (1, 3, H, W) of the style's size.

    Raises:
        SettingError: there is no such way.
        ImageError: not one picture, or one with values that are not numbers.
    """
    known("way with colors", how, COLOR_MODES)
    changes = {"luminance": match_luminance, "histogram": match_histogram, "coral": coral}
    return changes[how](style, content) if how in changes else style


def finish(how: str, result: Tensor, content: Tensor) -> Tensor:
    """The result of a transfer with the style of `prepare_style`, with its final colors.

    "luminance" puts the content's colors back; the others have done their work before the transfer.

    Raises:
        SettingError: there is no such way.
        ImageError: not one picture, or one with values that are not numbers.
    """
    known("way with colors", how, COLOR_MODES)
    return luminance_only(result, content) if how == "luminance" else result


def _check(image: Tensor) -> Tensor:
    return check_picture("picture", image, count=1)
