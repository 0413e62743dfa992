"""Checkers of notebook 06: regions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from skimage import exposure
from torch import Tensor

from .exercise import Known, drawn, exercise


def _field(height: int, dilated: bool, pools: bool = True, last: int = 2) -> int:
    side, step = 3, 1  # the first convolution, rebnconvin
    for n in range(1, height + 1):
        if 1 < n < height and not dilated:
            side, step = side + step * pools, 2 * step
        side += 2 * step * (2 ** (n - 1) if dilated else last if n == height else 1)
    return side


@exercise([(height, dilated) for height in (3, 4, 5, 6, 7) for dilated in (False, True)])
def q06_1(height: int, dilated: bool) -> Known:
    """The field of the deepest convolution of an RSU: its height, and whether it is dilated -> pixels."""
    right = _field(height, dilated)
    if dilated:
        plain = 3 + 2 * height
        return right, {
            "a dilation of d reaches 2 d further, and d doubles from block to block.": plain,
            "the first convolution, rebnconvin, is missing.": right - 2,
        }
    return right, {
        "a pooling of 2 × 2 reaches further, too: by the step before it.": _field(height, False, pools=False),
        "the last convolution has dilation 2: it reaches twice as far.": _field(height, False, last=1),
        "the first convolution, rebnconvin, is missing.": right - 2,
        "the last block does not pool; it is dilated instead.": _field(height + 1, False, last=1) - 2,
    }


def _thirds(x: Tensor) -> Tensor:
    return torch.arange(x.shape[1]) % 3


PLACES = ([(3, 5), (3, 7)], [(4, 8), (4, 6)], [(2, 6), (2, 6)])


@exercise([(q, k, _thirds(q), _thirds(k)) for q, k in drawn(*PLACES)])
def q06_2(query: Tensor, key: Tensor, regions: Tensor, style_regions: Tensor) -> Known:
    """Attention within regions: (C, N), (C, M), and the region of each place, (N,), (M,) -> (N, M)."""
    scores, same = query.T @ key, regions[:, None] == style_regions
    masked = scores.masked_fill(~same, -math.inf)
    down, zeros = masked.softmax(0), (scores * same).softmax(1)
    return masked.softmax(1), {
        "the COLUMNS sum to one: each place of the photograph shares out its look, over the artwork's.": down,
        "a score of 0 is no score: e to the 0 is 1, and the place is still looked at.": zeros,
        "the rows no longer sum to one: mask BEFORE the softmax.": scores.softmax(1) * same,
        "the regions are missing.": scores.softmax(1),
        "no root of C here: style attention takes the scores as they are.": (
            (masked / len(query) ** 0.5).softmax(1)
        ),
    }


def _looped_gram(f: Tensor, mask: Tensor) -> Tensor:
    """(10), entry by entry: the sum over positions of what two masked channels are, multiplied."""
    rows = [[(a * mask * b * mask).sum() for b in f] for a in f]
    return torch.stack([torch.stack(row) for row in rows])


SIZES = (((3, 4, 5), (3, 4, 5)), ((4, 6, 2), (4, 3, 7)), ((2, 5, 5), (2, 2, 9)))
BOTH = [[a, a[1:], b, b[1:]] for a, b in SIZES]


@exercise([(f, m.sigmoid(), t, n.sigmoid()) for f, m, t, n in drawn(*BOTH)])
def q06_3(f: Tensor, mask: Tensor, target: Tensor, target_mask: Tensor) -> Known:
    """Paper E (9), (10) of one layer and region: features (C, H, W) and mask (H, W) of both -> a number."""

    def apart(power: float) -> Tensor:
        return _looped_gram(f, mask**power) - _looped_gram(target, target_mask**power)

    numbers, total = f.numel(), apart(1).square().sum()
    return total / numbers, {
        "the sum of squares is right; (9) divides it by C·H·W of the picture's own features.": total,
        "(9) divides by C·H·W, not by the number of entries C².": total / len(f) ** 2,
        "(9) divides the squared distance once; you divide each Gram matrix.": total / numbers**2,
        "(9) squares the differences.": apart(1).abs().sum() / numbers,
        "the masks are missing.": apart(0).square().sum() / numbers,
        "mask BOTH factors of the product: each position weighs m².": apart(0.5).square().sum() / numbers,
    }


@exercise(drawn([(9,), (9,)], [(12,), (7,)], [(6,), (15,)]))
def q06_4(x: Tensor, reference: Tensor) -> Known:
    """Histogram matching of one channel: n values, no two alike, and m of the reference -> n values."""
    matched = torch.from_numpy(exposure.match_histograms(x.numpy(), reference.numpy()))
    ranks, m = x.argsort().argsort(), len(reference)
    steps, values = torch.arange(1, m + 1) / m, reference.sort().values
    from_zero = np.interp(ranks / len(x), steps, values)
    turned = np.interp((len(x) - ranks) / len(x), steps, values)
    moments = (x - x.mean()) / x.std() * reference.std() + reference.mean()
    return matched, {
        "the values are right, the places are not: each value goes where its rank is.": matched.sort().values,
        "one rank too low: the k-th smallest of n has k of the n values at or below it.": from_zero,
        "turned around: the darkest place gets the brightest value.": turned,
        "that matches mean and deviation only; all ranks count.": moments,
    }


Scores = Callable[[Tensor], Tensor]


def _encode(x: Tensor) -> Tensor:
    return (2 * x.double()).tanh()


def _judge(x: Tensor) -> Tensor:
    return x.double().mean((1, 2, 3)) * 3 + x.double()[:, 0, 0, 0]


@exercise(drawn(*([_encode, _judge, *4 * [(n, 3, 4, 4)]] for n in (1, 2, 3))))
def q06_5(
    encode: Scores, judge: Scores, photos: Tensor, artworks: Tensor, painted: Tensor, unpainted: Tensor
) -> Known:
    """E (12) as printed, and mended: encoder, discriminator, I_c, I_s, I_c^T, I_s^S -> two numbers."""

    def value(real: Tensor, fake: Tensor) -> Tensor:
        return F.logsigmoid(judge(real)).mean() + F.logsigmoid(-judge(fake)).mean()

    printed, mended = value(encode(photos), encode(painted)), value(photos, unpainted)
    swapped, with_painted = value(encode(photos), encode(unpainted)), value(photos, painted)
    return (printed, mended), {
        "mended, the fake photograph is I_s^S, the artwork made a photograph.": (printed, with_painted),
        "as printed D_S gets I_c^T, the stylized photograph.": (swapped, mended),
        "mended D_S sees pictures, not features.": (printed, swapped),
        "(12) is what a discriminator raises; you give what it lowers.": (-printed, -mended),
        "D_S judges photographs; artworks are for D_T.": (printed, value(artworks, painted)),
    }
