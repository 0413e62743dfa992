"""From one scale of the losses to another: what a weight found elsewhere is here.

A published "style weight 1e6" means nothing without the formula it was found with. Of one layer with C
channels and M = H*W positions, every style loss of the field is a constant times one sum:

    L = a * S,  S = sum_ij (sum_k F_ik F_jk - sum_k F^s_ik F^s_jk)²,  a = 1 / (d² r)

with d the divisor of the Gram matrix (1, M or C M) and r what the sum of squares is divided by (1 for a sum,
C² for a mean, 4 C² for a quarter of it). So

    as_printed       d = 1    r = 1       a = 1
    gatys_paper      d = M    r = 4 C²    a = 1 / (4 C² M²)
    gatys_notebook   d = M    r = C²      a = 1 / (C² M²)
    neural_style_pt  d = C M  r = C²      a = 1 / (C⁴ M²)
    gordicaleksa     d = C M  r = 1       a = 1 / (C² M²)

and two weighted losses w a S and w' a' S have the same gradient where w' = w a / a'. Two consequences: Gatys'
notebook and gordicaleksa agree, though their formulas look different; and C and M change from layer to layer,
so it is each layer's weight that is converted: no one factor does it for five layers at once.

Three things that no factor repairs. S has one M: raw sums ("as_printed") of pictures of different sizes are
another loss. A network that is fed 0 to 255 (gordicaleksa) has other features than one fed 0 to 1. And a
weight of the sum over layers is not one of their mean (gordicaleksa divides by their number).
"""

from __future__ import annotations

from .errors import SettingError
from .losses import style_normalization

# Known by name, and by nature no constant times S.
_NOT_CONVERTIBLE = {
    "crowsonkb": "it is a Wasserstein-2 distance of mean and covariance (see losses.wasserstein2)",
    "relative": "it divides by the painting's own squared Gram matrix, another number for each",
}


def style_weight_factor(source: str, target: str, channels: int, positions: float) -> float:
    """What one layer's style weight is multiplied by to mean under ``target`` what it meant under ``source``.

    Args:
        source: the normalization the weight was found with, a name of ``losses.STYLE_NORMALIZATIONS``.
        target: the one it is to be used with.
        channels: C of the layer.
        positions: H*W of the layer's feature map, or the sum of the mask's squares.

    Returns:
        ``a_source / a_target`` (see above): with it the loss and its gradient are the same.

    Raises:
        SettingError: unknown name, one that cannot be converted, or a layer without channels or positions.

    Example:
        >>> style_weight_factor("gatys_notebook", "neural_style_pt", 64, 512 * 512)
        4096.0
    """
    return _style_denominator(target, channels, positions) / _style_denominator(source, channels, positions)


def _style_denominator(name: str, channels: int, positions: float) -> float:
    """d² r = 1 / a."""
    if name in _NOT_CONVERTIBLE:
        raise SettingError(
            f"No factor converts weights of '{name}', as {_NOT_CONVERTIBLE[name]}: find the weight anew."
        )
    how = style_normalization(name)
    if not (channels > 0 and positions > 0):
        raise SettingError(
            f"A layer has channels and positions, not {channels} and {positions}: give its C and its H*W."
        )
    divisor = {"none": 1, "hw": positions, "chw": channels * positions}[how.divisor]
    return divisor**2 * {"sum": 1, "mean": channels**2, "quarter_mean": 4 * channels**2}[how.reduction]


def content_weight_factor(source: str, target: str, elements: int) -> float:
    """What a content weight is multiplied by to mean under ``target`` what it meant under ``source``.

    The content losses are ``sum (F - F_c)²`` divided by 1 ("sum", A (3)), 2 ("half_sum", B (3), D, Gatys et
    al. 2016) or the number of elements ("mean", Gatys' notebook, neural-style-pt, PyTorch, gordicaleksa).

    Args:
        source: the reduction the weight was found with.
        target: the one it is to be used with.
        elements: N*C*H*W of the layer's feature map.

    Raises:
        SettingError: unknown reduction, or no elements.

    Example:
        >>> content_weight_factor("mean", "half_sum", 512 * 64 * 64)
        9.5367431640625e-07
    """
    if elements <= 0:
        raise SettingError(f"A feature map has at least one element, not {elements}: give its N*C*H*W.")
    denominators = {"mean": elements, "sum": 1, "half_sum": 2}
    for name in (source, target):
        if name not in denominators:
            raise SettingError(f"The reduction is 'mean', 'sum' or 'half_sum', not '{name}'.")
    return denominators[target] / denominators[source]
