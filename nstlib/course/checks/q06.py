"""Checkers of notebook 06: regions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage import exposure
from torch import Tensor

from .exercise import Known, exercise, random


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


def _attention_cases() -> list[tuple[Tensor, ...]]:
    cases = []
    for n, (channels, here, there) in enumerate(((3, 5, 7), (4, 8, 6), (2, 6, 6))):
        numbers = [torch.arange(count) % 3 for count in (here, there)]
        cases.append((random(n, channels, here), random(n + 60, channels, there), *numbers))
    return cases


@exercise(_attention_cases())
def q06_2(query: Tensor, key: Tensor, regions: Tensor, style_regions: Tensor) -> Known:
    """Attention within regions: (C, N), (C, M), and the region of each place, (N,), (M,) -> (N, M)."""
    scores, same = query.T @ key, regions[:, None] == style_regions
    right = scores.masked_fill(~same, -math.inf).softmax(1)
    mistakes = {
        "the COLUMNS sum to one: each place of the photograph shares out its look, over the artwork's.": (
            scores.masked_fill(~same, -math.inf).softmax(0)
        ),
        "a score of 0 is no score: e to the 0 is 1, and the place is still looked at.": (
            (scores * same).softmax(1)
        ),
        "the rows no longer sum to one: mask BEFORE the softmax.": scores.softmax(1) * same,
        "the regions are missing.": scores.softmax(1),
        "no root of C here: style attention takes the scores as they are.": (
            (scores / len(query) ** 0.5).masked_fill(~same, -math.inf).softmax(1)
        ),
    }
    return right, mistakes


def _looped_gram(f: Tensor, mask: Tensor) -> Tensor:
    """(10), entry by entry: the sum over positions of what two masked channels are, multiplied."""
    rows = [[(a * mask * b * mask).sum() for b in f] for a in f]
    return torch.stack([torch.stack(row) for row in rows])


def _soft_mask(seed: int, *shape: int) -> Tensor:
    return random(seed, *shape).sigmoid()


@exercise(
    [
        (random(n, *a), _soft_mask(n + 9, *a[1:]), random(n + 20, *b), _soft_mask(n + 30, *b[1:]))
        for n, (a, b) in enumerate((((3, 4, 5), (3, 4, 5)), ((4, 6, 2), (4, 3, 7)), ((2, 5, 5), (2, 2, 9))))
    ],
)
def q06_3(f: Tensor, mask: Tensor, target: Tensor, target_mask: Tensor) -> Known:
    """Paper E (9), (10) of one layer and region: features (C, H, W) and mask (H, W) of both -> a number."""
    apart = _looped_gram(f, mask) - _looped_gram(target, target_mask)
    right = apart.square().sum() / f.numel()
    late = _looped_gram(f, mask.sqrt()) - _looped_gram(target, target_mask.sqrt())
    plain = f.flatten(1) @ f.flatten(1).T - target.flatten(1) @ target.flatten(1).T
    return right, {
        "the sum of squares is right; (9) divides it by C·H·W of the picture's own features.": right
        * f.numel(),
        "(9) divides by C·H·W, not by the number of entries C².": right * f.numel() / len(f) ** 2,
        "(9) divides the squared distance once; you divide each Gram matrix.": right / f.numel(),
        "(9) squares the differences.": apart.abs().sum() / f.numel(),
        "the masks are missing.": plain.square().sum() / f.numel(),
        "mask BOTH factors of the product: each position weighs m².": late.square().sum() / f.numel(),
    }


@exercise([(random(n, a), random(n + 40, b)) for n, (a, b) in enumerate(((9, 9), (12, 7), (6, 15)))])
def q06_4(x: Tensor, reference: Tensor) -> Known:
    """Histogram matching of one channel: n values, no two alike, and m of the reference -> n values."""
    matched = torch.from_numpy(exposure.match_histograms(x.numpy(), reference.numpy()))
    ranks, m = x.argsort().argsort(), len(reference)
    steps, values = torch.arange(1, m + 1) / m, reference.sort().values
    from_zero = np.interp(ranks / len(x), steps, values)
    turned = np.interp((len(x) - ranks) / len(x), steps, values)
    in_order = torch.from_numpy(np.interp(torch.arange(1, len(x) + 1) / len(x), steps, values))
    moments = (x - x.mean()) / x.std() * reference.std() + reference.mean()
    return matched, {
        "the values are right, the places are not: each value goes where its rank is.": in_order,
        "one rank too low: the k-th smallest of n has k of the n values at or below it.": from_zero,
        "turned around: the darkest place gets the brightest value.": turned,
        "that matches mean and deviation only; all ranks count.": moments,
    }


Scores = Callable[[Tensor], Tensor]


def _critic_cases() -> list[tuple[Any, ...]]:
    def encode(x: Tensor) -> Tensor:
        return (2 * x.double()).tanh()

    def judge(x: Tensor) -> Tensor:
        return x.double().mean((1, 2, 3)) * 3 + x.double()[:, 0, 0, 0]

    return [(encode, judge, *(random(10 * n + k, n + 1, 3, 4, 4) for k in range(4))) for n in range(3)]


@exercise(_critic_cases())
def q06_5(
    encode: Scores, judge: Scores, photos: Tensor, artworks: Tensor, painted: Tensor, unpainted: Tensor
) -> Known:
    """E (12) as printed, and mended: encoder, discriminator, I_c, I_s, I_c^T, I_s^S -> two numbers."""

    def value(real: Tensor, fake: Tensor) -> Tensor:
        return F.logsigmoid(judge(real)).mean() + F.logsigmoid(-judge(fake)).mean()

    printed, mended = value(encode(photos), encode(painted)), value(photos, unpainted)
    swapped = value(encode(photos), encode(unpainted))
    return (printed, mended), {
        "mended, the fake photograph is I_s^S, the artwork made a photograph.": (
            printed,
            value(photos, painted),
        ),
        "as printed D_S gets I_c^T, the stylized photograph.": (swapped, mended),
        "mended D_S sees pictures, not features.": (printed, swapped),
        "(12) is what a discriminator raises; you give what it lowers.": (-printed, -mended),
        "D_S judges photographs; artworks are for D_T.": (printed, value(artworks, painted)),
    }
