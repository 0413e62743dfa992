"""Checkers of notebook 07: metrics."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .exercise import Known, drawn, exercise


def _pairs(*shape: int) -> list[tuple[Tensor, Tensor]]:
    """Three pairs of pictures, or windows of them, that have something in common."""
    return [(x.sigmoid(), torch.lerp(x, noise, 0.3).sigmoid()) for x, noise in drawn(*3 * [[shape, shape]])]


@exercise(_pairs(3, 8, 9))
def q07_1(x: Tensor, y: Tensor) -> Known:
    """PSNR, paper A (12): two pictures in [0, 1] -> decibels."""
    error = (x - y).square().mean()
    right = -10 * error.log10()
    return right, {
        "the sign is turned: MAX² stands above the error, so a small error is many dB.": -right,
        "MAX is the largest value a pixel can have: 1 here, not 255.": right + 20 * math.log10(255),
        "that is the natural logarithm; decibels count powers of ten.": -10 * error.log(),
        "a tenth of it: that is bel, and ten decibels are one.": right / 10,
        "the logarithm's argument is MAX² / MSE, not the square of that.": 2 * right,
    }


def _ssim(x: Tensor, y: Tensor, correction: int = 0, luminance: bool = True) -> Tensor:
    c1, c2 = 0.01**2, 0.03**2
    covariance = ((x - x.mean()) * (y - y.mean())).sum() / (len(x) - correction)
    variances = x.var(correction=correction) + y.var(correction=correction)
    means = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    return (means if luminance else 1) * (2 * covariance + c2) / (variances + c2)


@exercise([*_pairs(72), *((x, 1 - y) for x, y in _pairs(72))], rtol=1e-6)
def q07_2(x: Tensor, y: Tensor) -> Known:
    """SSIM of one window, paper A (11): two lists of values in [0, 1], all of one weight -> a number."""
    right = _ssim(x, y)
    unbiased = _ssim(x, y, correction=1)
    return right, {
        "you divide by n - 1: with the window's own weights, 1/n each, the divisor is n.": unbiased,
        "the first fraction, of the means, is missing.": _ssim(x, y, luminance=False),
        "a negative of the picture has a negative covariance: leave its sign.": right.abs(),
    }


@exercise([(m, v.exp(), n, w.exp()) for m, v, n, w in drawn(*3 * [4 * [(5,)]])])
def q07_3(m: Tensor, v: Tensor, n: Tensor, w: Tensor) -> Known:
    """FID of diagonal normal distributions: means and variances of both sets -> a number."""
    means, spreads = (m - n).square().sum(), (v.sqrt() - w.sqrt()).square().sum()
    right = means + spreads
    return right, {
        "variances were given: their roots are compared.": means + (v - w).square().sum(),
        "the means are missing: their squared distance comes first.": spreads,
        "only the means are compared: the spreads differ, too.": means,
        "FID is the SQUARED distance; Fréchet's own is its root.": right.sqrt(),
        "it is a sum over dimensions, not a mean.": right / len(m),
        "the root is subtracted: - 2 (v w)^½.": means + (v.sqrt() + w.sqrt()).square().sum(),
    }


def _kernels(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (a @ a.T / 3 + 1) ** 3, (b @ b.T / 3 + 1) ** 3, (a @ b.T / 3 + 1) ** 3


def _off_diagonal(k: Tensor) -> Tensor:
    return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))


@exercise([_kernels(a, b) for a, b in drawn([(5, 3), (5, 3)], [(4, 3), (7, 3)], [(6, 3), (3, 3)])])
def q07_4(aa: Tensor, bb: Tensor, ab: Tensor) -> Known:
    """KID from its three matrices of kernel values, (n, n), (m, m), (n, m) -> a number."""
    n, m = ab.shape
    own, between = _off_diagonal(aa) + _off_diagonal(bb), ab.mean()
    fewer = _off_diagonal(aa) * (n - 1) / n + _off_diagonal(bb) * (m - 1) / m
    biased = aa.mean() + bb.mean() - 2 * between
    return own - 2 * between, {
        "a picture is no pair with itself: leave the diagonals out, or it is biased like FID.": biased,
        "without the diagonal n (n - 1) values are left: divide by that.": fewer - 2 * between,
        "the pairs between the sets count twice.": own - between,
        "between the sets all pairs count: a_i and b_i are different pictures.": own - 2 * _off_diagonal(ab),
    }


SHARES = [(round(100 * k / n, 2), n) for n in (7, 35, 48) for k in (0, 1, n // 2, n - 1, n)]
SHARES += [(19.17, 35), (5.56, 35), (14.28, 35), (14.3, 7), (33.33, 35), (2.87, 35), (105.71, 35)]


@exercise(SHARES)
def q07_5(percent: float, voters: int) -> Known:
    """Whether a share, in percent with two decimals, can come from so many voters."""
    k = round(percent * voters / 100)
    if percent > 100:
        return False, {f"{percent} % would be more than all {voters} voters.": True}
    if percent == round(100 * k / voters, 2):
        return True, {f"{percent} % is {k} of {voters} voters, rounded to two decimals.": False}
    return False, {f"{percent} % of {voters}: {k} voters would be {100 * k / voters:.2f} %.": True}


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([a, b]))[0, 1]


@exercise(drawn(*([(n,), (n,)] for n in (7, 4, 11, 2))))
def q07_6(a: Tensor, b: Tensor) -> Known:
    """Kendall's tau of two lists of scores without ties: (n,), (n,) -> a number."""
    i, j = torch.triu_indices(len(a), len(a), 1)
    agree = ((a[i] - a[j]).sign() * (b[i] - b[j]).sign()).mean()
    ranks = [x.argsort().argsort().double() for x in (a, b)]
    spearman, plain, share = _correlation(*ranks), _correlation(a, b), (1 + agree) / 2
    return agree, {
        "that is the share of pairs in the same order; subtract the share in opposite order.": share,
        "each pair counts once: there are n (n - 1) / 2 of them.": agree / 2,
        "that correlates the ranks (Spearman); tau counts pairs.": spearman,
        "that correlates the scores themselves; tau looks at their order alone.": plain,
    }


@exercise([(1.0, 0.5), (-0.5, 1.5), (0.3, 0.2), (2.0, -1.0)])
def q07_7(first: float, second: float) -> Known:
    """Bradley and Terry's probability that the first of two methods wins, from the strengths ln p."""
    right = 1 / (1 + math.exp(second - first))
    return right, {
        "the strengths are logarithms: take exp of them first.": first / (first + second),
        "that is the second one's probability to win.": 1 - right,
        "that is the odds, p / (1 - p), not the probability.": right / (1 - right),
    }
