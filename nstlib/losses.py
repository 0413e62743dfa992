"""What the papers call content and style, as differentiable functions of feature maps.

Sums and losses are float32 (float64 if the features are), whatever the network's precision; only the Gram
matrix's backward product is in the features' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import SettingError

GRAM_DIVISORS = ("none", "hw", "chw")


class _Gram(torch.autograd.Function):
    """G = F Fᵀ with a float32 sum and a backward pass of one product instead of two.

    Autograd's own backward computes dG F and dGᵀ F separately and in float32; with the symmetric sum
    (dG + dGᵀ) F in the features' own precision the step of a style transfer is a fifth faster. It is
    written in differentiable operations on the saved input, so second derivatives are right as well.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        columns = _columns(features)
        columns = columns.to(torch.promote_types(columns.dtype, torch.float32))
        return columns.transpose(1, 2) @ columns

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        n, c, h, w = features.shape
        symmetric = (gradient + gradient.transpose(1, 2)).to(features.dtype)
        return (_columns(features) @ symmetric).view(n, h, w, c).permute(0, 3, 1, 2)


def _columns(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H*W, C); no copy when the features are channels_last."""
    n, c, h, w = features.shape
    return features.permute(0, 2, 3, 1).reshape(n, h * w, c)


def gram_matrix(features: Tensor, divisor: str = "hw") -> Tensor:
    """The Gram matrix of a feature map: which channels are active together, wherever that is.

    ``G_ij = (1/d) sum_k F_ik F_jk`` with F the feature map as C rows of H*W positions.
    Papers: A (1), B (4)-(5) and D's unnumbered equation have d = 1; E (9) and (10) divide by C*H*W.

    Args:
        features: (N, C, H, W), any floating type.
        divisor: "none" (d = 1), "hw" (d = H*W: the second moment, equal for pictures of different sizes)
            or "chw" (d = C*H*W).

    Returns:
        (N, C, C) in float32 (float64 for float64 features).

    Raises:
        SettingError: unknown divisor or wrong shape.

    Example:
        >>> gram_matrix(torch.ones(1, 2, 3, 4), "none")[0]
        tensor([[12., 12.],
                [12., 12.]])
    """
    if features.ndim != 4:
        raise SettingError(f"A feature map has the shape (N, C, H, W), not {tuple(features.shape)}.")
    _, c, h, w = features.shape
    divisors = {"none": 1, "hw": h * w, "chw": c * h * w}
    if divisor not in divisors:
        raise SettingError(
            f"The Gram matrix is divided by one of {', '.join(GRAM_DIVISORS)}, not '{divisor}'."
        )
    return _Gram.apply(features) / divisors[divisor]


@dataclass(frozen=True)
class StyleNormalization:
    """How one source scales its Gram matrix and the distance between two of them."""

    divisor: str  # of the Gram matrix, see gram_matrix
    reduction: str  # "sum", "mean", or "quarter_mean": a quarter of the mean
    source: str


# The field has no agreed scale, and no project states how to convert. With N = C channels and M = H*W
# positions, 1/(4 N² M²) * sum (dG)² of Gatys et al. 2016 is a quarter of the mean of (dG / M)²: so every
# entry can be written as a divisor of the Gram matrix and a reduction.
STYLE_NORMALIZATIONS: dict[str, StyleNormalization] = {
    "as_printed": StyleNormalization("none", "sum", "paper A (2), B's text; D divides it by a constant"),
    "gatys_paper": StyleNormalization("hw", "quarter_mean", "Gatys et al. 2016: 1/(4 N² M²) sum"),
    "gatys_notebook": StyleNormalization("hw", "mean", "Gatys' own notebook: G/(h·w), mean"),
    "neural_style_pt": StyleNormalization("chw", "mean", "neural-style-pt; PyTorch tutorial at batch 1"),
    "gordicaleksa": StyleNormalization("chw", "sum", "gordicaleksa: G/(c·h·w), sum"),
}


def style_normalization(name: str) -> StyleNormalization:
    """Look a normalization up by name.

    Raises:
        SettingError: unknown name.
    """
    if name not in STYLE_NORMALIZATIONS:
        raise SettingError(
            f"There is no style normalization '{name}': choose one of {', '.join(STYLE_NORMALIZATIONS)}."
        )
    return STYLE_NORMALIZATIONS[name]


def gram_distance(gram: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared distance between Gram matrices (N, C, C), reduced over each matrix and averaged over N."""
    squared = (gram - target).square()
    if reduction == "sum":
        return squared.sum(dim=(1, 2)).mean()
    if reduction == "mean":
        return squared.mean()
    if reduction == "quarter_mean":
        return squared.mean() / 4
    raise SettingError(f"The reduction is 'sum', 'mean' or 'quarter_mean', not '{reduction}'.")


def style_loss(features: Tensor, target_gram: Tensor, normalization: str = "gatys_notebook") -> Tensor:
    """Style loss of one layer: paper A (2), one term of D's L_style.

    Args:
        features: (N, C, H, W) of the generated picture.
        target_gram: (1 or N, C, C) of the style picture, made with the same normalization's divisor.
        normalization: a name of :data:`STYLE_NORMALIZATIONS`.

    Returns:
        A scalar in the units of that normalization.
    """
    how = style_normalization(normalization)
    return gram_distance(gram_matrix(features, how.divisor), target_gram, how.reduction)


def content_loss(features: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared distance between feature maps: paper A (3), B (3), D's L_content.

    Args:
        features: (N, C, H, W) of the generated picture.
        target: (N, C, H, W) of the content picture.
        reduction: "mean" (Gatys' notebook), "sum" (A (3)) or "half_sum" (B (3), D, Gatys et al. 2016 (1)).

    Returns:
        A scalar.

    Raises:
        SettingError: unknown reduction, or shapes that differ.
    """
    if features.shape != target.shape:
        raise SettingError(
            f"Content is compared position by position, but the feature maps are {tuple(features.shape)} and "
            f"{tuple(target.shape)}; give both pictures the same size."
        )
    wide = torch.promote_types(features.dtype, torch.float32)
    squared = (features.to(wide) - target.to(wide)).square()
    if reduction == "mean":
        return squared.mean()
    if reduction == "sum":
        return squared.sum()
    if reduction == "half_sum":
        return squared.sum() / 2
    raise SettingError(f"The reduction is 'mean', 'sum' or 'half_sum', not '{reduction}'.")


def total_variation(images: Tensor) -> Tensor:
    """How much neighboring pixels differ: the mean absolute difference down and across.

    Args:
        images: (N, 3, H, W) in [0, 1].

    Returns:
        A scalar in the picture's units; 0 for a flat picture (and along a side of one pixel).

    Source: Johnson et al. 2016, section 3.2 (there squared); the absolute form keeps edges.
    """
    down = (images[..., 1:, :] - images[..., :-1, :]).abs()
    across = (images[..., :, 1:] - images[..., :, :-1]).abs()
    return sum((d.mean() for d in (down, across) if d.numel()), start=images.new_zeros(()))
