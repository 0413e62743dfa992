"""What the papers call content and style, as differentiable functions of feature maps.

Sums and losses are float32 (float64 if the features are), whatever the network's precision; only the Gram
matrix's backward product is in the features' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SettingError, known


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


def gram_matrix(features: Tensor, divisor: str = "hw", mask: Tensor | None = None) -> Tensor:
    """The Gram matrix of a feature map: which channels are active together, wherever that is.

    ``G_ij = (1/d) sum_k F_ik F_jk`` with F the feature map as C rows of H*W positions.
    Papers: A (1), B (4)-(5) and D's unnumbered equation have d = 1, as has E (10); E (9) divides the squared
    distance of two of them by C*H*W (and sums over i, j, k, though a Gram matrix has only i and j).

    With a mask, F is multiplied by it first (E (10); Gatys et al. 2017, "guided" Gram matrices), and
    H*W becomes the sum of the mask's squares, which is what each position now weighs. So a mask of ones
    changes nothing, and an eye and a whole face give matrices of one scale, where E (9) as printed lets a
    region count less, the smaller it is.

    Args:
        features: (N, C, H, W), any floating type.
        divisor: "none" (d = 1), "hw" (d = H*W: the second moment, equal for pictures of different sizes)
            or "chw" (d = C*H*W).
        mask: (1 or N, 1, H, W) in [0, 1], at the feature map's size; None counts every position.

    Returns:
        (N, C, C) in float32 (float64 for float64 features).

    Raises:
        SettingError: unknown divisor, wrong shape, or an empty mask.

    Example:
        >>> gram_matrix(torch.ones(1, 2, 3, 4), "none")[0]
        tensor([[12., 12.],
                [12., 12.]])
    """
    if features.ndim != 4:
        raise SettingError(f"A feature map has the shape (N, C, H, W), not {tuple(features.shape)}.")
    _, c, h, w = features.shape
    positions: Tensor | int = h * w
    if mask is not None:
        mask = _fitting(mask, features)
        features = features * mask.to(features.dtype)
        positions = mask.square().sum((2, 3)).unsqueeze(2)
    divisors = {"none": 1, "hw": positions, "chw": c * positions}
    return _Gram.apply(features) / divisors[known("divisor", divisor, divisors)]


def _fitting(mask: Tensor, features: Tensor) -> Tensor:
    """The mask on the features' device and as they will see it, in float32; or an error that says why not."""
    n, _, h, w = features.shape
    if mask.ndim != 4 or mask.shape[0] not in (1, n) or mask.shape[1:] != (1, h, w):
        raise SettingError(f"A mask of {h}×{w} features is (1 or {n}, 1, {h}, {w}), not {tuple(mask.shape)}.")
    # Rounded to bfloat16 first, where the features are: numerator and denominator must use the same weights.
    mask = mask.to(features).to(torch.promote_types(features.dtype, torch.float32))
    if not bool((mask.square().sum((1, 2, 3)) > 0).all()):
        raise SettingError(f"The mask is empty at {h}×{w}: take a larger region, or a shallower layer.")
    return mask


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
    return STYLE_NORMALIZATIONS[known("style normalization", name, STYLE_NORMALIZATIONS)]


def gram_distance(gram: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared distance between Gram matrices (N, C, C), reduced over each matrix and averaged over N.

    The reductions are those of :class:`StyleNormalization`.
    """
    squared = (gram - target).square()
    if reduction == "sum":
        return squared.sum(dim=(1, 2)).mean()
    return squared.mean() / {"mean": 1, "quarter_mean": 4}[reduction]


def style_loss(
    features: Tensor, target_gram: Tensor, normalization: str = "gatys_notebook", mask: Tensor | None = None
) -> Tensor:
    """Style loss of one layer: paper A (2), one term of D's L_style.

    Args:
        features: (N, C, H, W) of the generated picture.
        target_gram: (1 or N, C, C) of the style picture, made with the same normalization's divisor.
        normalization: a name of :data:`STYLE_NORMALIZATIONS`.
        mask: (1 or N, 1, H, W): where the generated picture is to have this style, see :func:`gram_matrix`.

    Returns:
        A scalar in the units of that normalization.
    """
    how = style_normalization(normalization)
    return gram_distance(gram_matrix(features, how.divisor, mask), target_gram, how.reduction)


def feature_moments(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a feature map's positions, as if each were a draw from one distribution.

    ``mu = sum_k w_k F_k`` and ``Sigma = sum_k w_k F_k F_k^T - mu mu^T``, with equal weights w that sum to 1,
    or, with a mask m, weights proportional to m²: those of :func:`gram_matrix`, whose divisor "hw" gives
    exactly ``Sigma + mu mu^T``. A Gram matrix mixes the two; a distribution's distance needs them apart.

    Args:
        features: (N, C, H, W), any floating type.
        mask: (1 or N, 1, H, W) in [0, 1], at the feature map's size.

    Returns:
        The mean (N, C) and the covariance (N, C, C) in float32 (float64 for float64 features).

    Raises:
        SettingError: wrong shape or an empty mask.
    """
    second = gram_matrix(features, "hw", mask)
    if mask is None:
        mean = _columns(features).mean(1, dtype=second.dtype)
    else:
        weights = _fitting(mask, features).square()
        mean = (features * weights).sum((2, 3)) / weights.sum((2, 3))
    return mean, second - mean.unsqueeze(2) * mean.unsqueeze(1)


@dataclass(frozen=True)
class GaussianStyle:
    """A style as a normal distribution of features, ready to be compared: see :func:`gaussian_style`."""

    mean: Tensor  # (N, C)
    covariance: Tensor  # (N, C, C), with the ridge on its diagonal
    root: Tensor  # (N, C, C): its symmetric square root
    ridge: Tensor  # (N, 1, 1): what the picture's covariance gets on its diagonal, too


def gaussian_style(
    moments: tuple[Tensor, Tensor], ridge: float = 1e-5, dtype: torch.dtype = torch.float64
) -> GaussianStyle:
    """The target of :func:`wasserstein2`: its square root is computed once, not in every step.

    Args:
        moments: of the style picture, from :func:`feature_moments`.
        ridge: variance added to every channel of both pictures, as a part of the style's mean variance. It
            keeps the square root's slope finite where a covariance has no width (fewer positions than
            channels, channels that are never active), and cancels where both are equal.
        dtype: in which distances to this style are computed. float32 takes half the time; it misses what
            varies least, which is up to 1 % of the distance and a few thousandths of its gradient.
    """
    mean, covariance = (moment.detach() for moment in moments)
    covariance = (covariance.cpu() if covariance.device.type == "mps" else covariance).double()
    # The absolute part is for a flat style picture, which has no variance to take a part of.
    added = ridge * covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12).view(-1, 1, 1)
    covariance = covariance + added * torch.eye(covariance.shape[1]).to(covariance)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.unsqueeze(1).clamp_min(added).sqrt()) @ vectors.mT
    return GaussianStyle(mean, covariance.to(dtype), root.to(dtype), added.to(dtype))


def wasserstein2(moments: tuple[Tensor, Tensor], target: GaussianStyle) -> Tensor:
    """Squared Wasserstein-2 distance between the normal distributions of two pictures' features.

    ``|mu - mu_s|² + tr(Sigma + Sigma_s - 2 (Sigma_s^(1/2) Sigma Sigma_s^(1/2))^(1/2))``: the least work of
    carrying one cloud of features into the other. Its square root is measured in the features' own units,
    where a distance of Gram matrices goes with their fourth power.

    The trace of the root is the sum of the roots of eigenvalues, so no matrix root is computed. The product
    squares the covariances' range, so that in float32 the smallest eigenvalues drown in rounding: they count
    as the least that the precision holds. For MPS, which has no eigenvalues, on the CPU.

    Args:
        moments: of the generated picture, from :func:`feature_moments`.
        target: of the style picture, from :func:`gaussian_style`.

    Returns:
        A scalar, averaged over N: 0 (up to rounding) if and only if the moments agree.

    Source: Dowson & Landau 1982 for the distance; as a style loss crowsonkb's style-transfer-pytorch, which
    divides it by C and has an absolute ridge of 1e-4.
    """
    mean, covariance = moments
    wide = covariance.to(target.root)
    wide = wide + target.ridge * torch.eye(wide.shape[1]).to(wide)
    product = target.root @ wide @ target.root
    if not bool(torch.isfinite(product).all()):  # who asked looks for NaN; eigvalsh would raise its own error
        return mean.sum() * torch.nan
    values = torch.linalg.eigvalsh(product)
    # Both covariances are at least the ridge, so the product's eigenvalues are at least its square.
    least = torch.finfo(values.dtype).eps * values[:, -1:].detach()
    roots = values.clamp_min(torch.maximum(target.ridge.squeeze(2) ** 2, least)).sqrt()
    traces = (wide + target.covariance).diagonal(dim1=1, dim2=2).sum(1)
    spread = (traces - 2 * roots.sum(1)).to(mean)
    return ((mean - target.mean).square().sum(1) + spread).mean()


def content_loss(features: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared distance between feature maps: paper A (3), B (3), D's L_content.

    Args:
        features: (N, C, H, W) of the generated picture.
        target: (N, C, H, W) of the content picture.
        reduction: "mean" (Gatys' notebook), "sum" (A (3)) or "half_sum" (B (3), D, Gatys et al. 2016 (1)).

    Returns:
        A scalar.

    Raises:
        SettingError: shapes that differ.
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
    return squared.sum() / {"sum": 1, "half_sum": 2}[reduction]


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


def contextual_loss(features: Tensor, targets: Tensor, bandwidth: float = 0.2) -> Tensor:
    """How badly the features that a target has are found in a picture, wherever they are.

    Each position of the picture shares out one vote among the target's positions, most of it to the one it
    is most like; each position of the target then looks for the best share it got. With the cosine distances
    d_ij, all features seen from the target's mean (equations 1 to 5):

        share_ij = softmax_j((1 - d_ij / (min_k d_ik + 1e-5)) / bandwidth)
        loss = -log mean_j max_i share_ij

    So it is texture that is compared, not what lies where, and picture and target need not be alike in pose.

    Args:
        features: (N, C, H, W) of the generated pictures, any floating type.
        targets: (N, C, H', W'): of the picture that each of them is to resemble, of any size.
        bandwidth: how evenly the votes are shared, above 0; smaller takes the nearest alone.

    Returns:
        A scalar, averaged over N; 0 where each feature of the target is found exactly. It needs memory for
        N · H · W · H' · W' numbers.

    Source: Mechrez, Talmi and Zelnik-Manor 2018, "The Contextual Loss for Image Transformation with
    Non-Aligned Data"; paper A (9).
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    x, y = _columns(features).to(wide), _columns(targets).to(wide)
    center = y.mean(1, keepdim=True)
    distances = 1 - F.normalize(x - center, dim=2) @ F.normalize(y - center, dim=2).mT
    distances = distances.clamp_min(0)  # rounding
    relative = distances / (distances.amin(2, keepdim=True) + 1e-5)
    shares = ((1 - relative) / bandwidth).softmax(2)
    return -shares.amax(1).mean(1).log().mean()


def feature_matching(features: Tensor, targets: Tensor) -> Tensor:
    """Squared difference of the channels' means over all positions: how much of each feature there is.

    Args:
        features: (N, C, H, W) of the generated pictures, any floating type.
        targets: (N, C, H', W'), of any size.

    Returns:
        A scalar, the mean over N and C.

    Source: paper A (9), as DualStyleGAN's released code has it; the means alone of AdaIN's style loss (Huang
    and Belongie 2017, equation 13).
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    return (features.mean((2, 3), dtype=wide) - targets.mean((2, 3), dtype=wide)).square().mean()


def style_weight_factor(source: str, target: str, channels: int, positions: float) -> float:
    """What one layer's style weight is multiplied by to mean under ``target`` what it meant under ``source``.

    A published "style weight 1e6" means nothing without the formula it was found with. Of one layer with C
    channels and M = H*W positions, every style loss of the field is a constant times one sum:

        L = a * S,  S = sum_ij (sum_k F_ik F_jk - sum_k F^s_ik F^s_jk)²,  a = 1 / (d² r)

    with d the divisor of the Gram matrix (1, M or C M) and r what the sum of squares is divided by (1 for a
    sum, C² for a mean, 4 C² for a quarter of it). So

        as_printed       d = 1    r = 1       a = 1
        gatys_paper      d = M    r = 4 C²    a = 1 / (4 C² M²)
        gatys_notebook   d = M    r = C²      a = 1 / (C² M²)
        neural_style_pt  d = C M  r = C²      a = 1 / (C⁴ M²)
        gordicaleksa     d = C M  r = 1       a = 1 / (C² M²)

    and two weighted losses w a S and w' a' S have the same gradient where w' = w a / a'. Two consequences:
    Gatys' notebook and gordicaleksa agree, though their formulas look different; and C and M change from
    layer to layer, so it is each layer's weight that is converted: no one factor does it for five layers.

    Four things that no factor repairs. S has one M: raw sums ("as_printed") of pictures of different sizes
    are another loss. A network that is fed 0 to 255 (gordicaleksa) has other features than one fed 0 to 1.
    A weight of the sum over layers is not one of their mean (gordicaleksa divides by their number). And what
    is no constant times S has no factor: relative losses, which divide by the painting's own squared Gram
    matrix, and Wasserstein-2 distances (crowsonkb).

    Args:
        source: the normalization the weight was found with, a name of ``losses.STYLE_NORMALIZATIONS``.
        target: the one it is to be used with.
        channels: C of the layer, at least 1.
        positions: H*W of the layer's feature map, or the sum of the mask's squares; above 0.

    Returns:
        ``a_source / a_target`` (see above): with it the loss and its gradient are the same.

    Raises:
        SettingError: unknown name, or one that cannot be converted.

    Example:
        >>> style_weight_factor("gatys_notebook", "neural_style_pt", 64, 512 * 512)
        4096.0
    """
    return _style_denominator(target, channels, positions) / _style_denominator(source, channels, positions)


def _style_denominator(name: str, channels: int, positions: float) -> float:
    """d² r = 1 / a."""
    how = style_normalization(name)
    divisor = {"none": 1, "hw": positions, "chw": channels * positions}[how.divisor]
    return divisor**2 * {"sum": 1, "mean": channels**2, "quarter_mean": 4 * channels**2}[how.reduction]


def generator_loss(scores: Tensor, hinge: bool = False) -> Tensor:
    """What a generator minimizes: non-saturating, ``mean softplus(-D(G(z)))``; or ``-mean D(G(z))`` (hinge).

    Args:
        scores: the discriminator's of generated pictures, before any sigmoid; any shape.
        hinge: which of both.

    Source: Goodfellow et al. 2014, section 3, as StyleGAN2 writes it; Lim and Ye 2017 (hinge); paper A's
    L_adv in equations (8) and (10).
    """
    return -scores.mean() if hinge else F.softplus(-scores).mean()


def discriminator_loss(generated: Tensor, real: Tensor, hinge: bool = False) -> Tensor:
    """What a discriminator minimizes, with D its scores of generated pictures G and of real ones x.

    ``mean softplus(D(G)) + mean softplus(-D(x))``, or ``mean max(0, 1 + D(G)) + mean max(0, 1 - D(x))``.

    Args:
        generated: its scores of generated pictures, any shape.
        real: its scores of real pictures.
        hinge: take the second form.

    Source: as for :func:`generator_loss`.
    """
    if hinge:
        return F.relu(1 + generated).mean() + F.relu(1 - real).mean()
    return F.softplus(generated).mean() + F.softplus(-real).mean()


def least_squares_loss(scores: Tensor, target: float) -> Tensor:
    """``mean (D - target)²``: a discriminator's scores, drawn to 1 for real pictures and to 0 for generated.

    The discriminator minimizes half the sum of both; the generator draws the scores of its pictures to 1.

    Args:
        scores: of any shape, without a sigmoid.
        target: 1 or 0.

    Source: Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation (9).
    """
    return (scores - target).square().mean()


def r1_penalty(scores: Tensor, pictures: Tensor) -> Tensor:
    """The squared norm of the discriminator's gradient at real pictures, their mean; without gamma / 2.

    Args:
        scores: of these pictures.
        pictures: (N, 3, H, W), with ``requires_grad``.

    Source: Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", equation (9).
    """
    (gradient,) = torch.autograd.grad(scores.sum(), pictures, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def path_length_penalty(
    pictures: Tensor, codes: Tensor, mean_length: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """How unevenly equal steps of the codes move the pictures: ``mean (|J^T y| - a)²``, y random pictures.

    Args:
        pictures: (N, 3, H, W), generated from the codes.
        codes: w+ (N, layers, 512), with ``requires_grad``.
        mean_length: a, the running mean of ``|J^T y|``, a scalar; moved here by a hundredth.
        generator: what y is drawn from, on the CPU.

    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", equation (4).
    """
    y = torch.randn(pictures.shape, generator=generator).to(pictures) / pictures.shape[-1]
    (gradient,) = torch.autograd.grad((pictures * y).sum(), codes, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    with torch.no_grad():
        mean_length.lerp_(lengths.mean(), 0.01)
    return (lengths - mean_length.clone()).square().mean()
