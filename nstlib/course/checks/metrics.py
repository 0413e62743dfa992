"""Exercises of notebook 07."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ._verdict import UNANSWERED, Outcome, features_of, missing, verdict


def _pair(seed: int) -> tuple[Tensor, Tensor]:
    """Two pictures, or windows of them, that have something in common."""
    x, noise = (features_of(seed + k, (3, 8, 9)).sigmoid() for k in (0, 1))
    return x, 0.7 * x + 0.3 * noise


def _close(answer: object, right: float, tolerance: float = 1e-4) -> bool:
    return math.isclose(float(answer), right, rel_tol=tolerance, abs_tol=1e-6)  # type: ignore[arg-type]


def q07_1(psnr: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """PSNR, paper A (12): two pictures in [0, 1] -> decibels."""

    def judge() -> Outcome:
        for seed in (1, 4, 9):
            x, y = _pair(seed)
            error = (x - y).square().mean().item()
            right = -10 * math.log10(error)
            answer = psnr(x.clone(), y.clone())
            if missing(answer):
                return UNANSWERED
            if _close(answer, right):
                continue
            for wrong, hint in (
                (
                    -right,
                    "the sign is turned: MAX² stands above the error, so a small error is many dB.",
                ),
                (right + 20 * math.log10(255), "MAX is the largest value a pixel can have: 1 here, not 255."),
                (-10 * math.log(error), "that is the natural logarithm; decibels count powers of ten."),
                (right / 10, "a tenth of it: that is bel, and ten decibels are one."),
                (2 * right, "the logarithm's argument is MAX² / MSE, not the square of that."),
            ):
                if _close(answer, wrong):
                    return hint
            return f"an MSE of {error:.5f} is {right:.2f} dB, not {float(answer):.2f}."
        return None

    return verdict("Exercise 7.1", judge)


def q07_2(ssim: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """SSIM of one window, paper A (11): two lists of values in [0, 1], all of one weight -> a number."""

    def judge() -> Outcome:
        c1, c2 = 0.01**2, 0.03**2
        for seed in (2, 5, 8):
            x, y = (z[0].flatten() for z in _pair(seed))
            if seed == 8:
                y = 1 - y  # a negative: structure turned around

            def value(x: Tensor, y: Tensor, correction: int = 0, light: bool = True) -> float:
                shared = ((x - x.mean()) * (y - y.mean())).sum() / (len(x) - correction)
                spread = x.var(correction=correction) + y.var(correction=correction)
                level = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
                return float((level if light else 1) * (2 * shared + c2) / (spread + c2))

            answer = ssim(x.clone(), y.clone())
            if missing(answer):
                return UNANSWERED
            if _close(answer, value(x, y), 1e-6):
                continue
            if _close(answer, value(x, y, correction=1), 1e-6):
                return "you divide by n - 1: with the window's own weights, 1/n each, the divisor is n."
            if _close(answer, value(x, y, light=False), 1e-6):
                return "the first fraction, of the means, is missing."
            if _close(answer, abs(value(x, y)), 1e-6):
                return "a negative of the picture has a negative covariance: leave its sign."
            return f"the SSIM is {value(x, y):.4f}, not {float(answer):.4f}: check both fractions and c1, c2."
        return None

    return verdict("Exercise 7.2", judge)


def q07_3(fid: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> bool:
    """FID of diagonal normal distributions: means and variances of both sets -> a number."""

    def judge() -> Outcome:
        for seed in (3, 6, 7):
            m, n = (features_of(seed + k, (5, 1, 1)).flatten() for k in (0, 1))
            v, w = (features_of(seed + k, (5, 1, 1)).flatten().exp() for k in (2, 3))
            answer = fid(m.clone(), v.clone(), n.clone(), w.clone())
            if missing(answer):
                return UNANSWERED
            apart = (m - n).square().sum().item()
            right = apart + (v.sqrt() - w.sqrt()).square().sum().item()
            if _close(answer, right):
                continue
            for wrong, hint in (
                (apart + (v - w).square().sum().item(), "variances were given: their roots are compared."),
                (right - apart, "the means are missing: their squared distance comes first."),
                (apart, "only the means are compared: the spreads differ, too."),
                (math.sqrt(right), "FID is the SQUARED distance; Fréchet's own is its root."),
                (right / 5, "it is a sum over dimensions, not a mean."),
                (
                    apart + (v + w + 2 * (v * w).sqrt()).sum().item(),
                    "the root is subtracted: - 2 (v w)^½.",
                ),
            ):
                if _close(answer, wrong):
                    return hint
            return f"this case gives {right:.4f}, not {float(answer):.4f}."
        return None

    return verdict("Exercise 7.3", judge)


def q07_4(kid: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """KID from its three matrices of kernel values, (n, n), (m, m), (n, m) -> a number."""

    def judge() -> Outcome:
        for seed, (n, m) in enumerate(((5, 5), (4, 7), (6, 3))):
            a, b = features_of(seed, (n, 3, 1))[..., 0], features_of(seed + 20, (m, 3, 1))[..., 0]
            aa, bb, ab = (((p @ q.T) / 3 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))

            def off(k: Tensor) -> float:
                return float((k.sum() - k.trace()) / (len(k) * (len(k) - 1)))

            answer = kid(aa.clone(), bb.clone(), ab.clone())
            if missing(answer):
                return UNANSWERED
            right = off(aa) + off(bb) - 2 * ab.mean().item()
            if _close(answer, right):
                continue
            if _close(answer, (aa.mean() + bb.mean() - 2 * ab.mean()).item()):
                return "a picture is no pair with itself: leave the diagonals out, or it is biased like FID."
            half = ((aa.sum() - aa.trace()) / n**2 + (bb.sum() - bb.trace()) / m**2 - 2 * ab.mean()).item()
            if _close(answer, half):
                return "without the diagonal n (n - 1) values are left: divide by that."
            if _close(answer, off(aa) + off(bb) - ab.mean().item()):
                return "the pairs between the sets count twice."
            if n == m and _close(answer, off(aa) + off(bb) - 2 * off(ab)):
                return "between the sets all pairs count: a_i and b_i are different pictures."
            return f"for {n} and {m} pictures this case gives {right:.4f}, not {float(answer):.4f}."
        return None

    return verdict("Exercise 7.4", judge)


def q07_5(possible: Callable[[float, int], bool]) -> bool:
    """Whether a share, in percent with two decimals, can come from so many voters."""

    def judge() -> Outcome:
        cases = [(round(100 * k / n, 2), n) for n in (7, 35, 48) for k in (0, 1, n // 2, n - 1, n)]
        cases += [(19.17, 35), (5.56, 35), (14.28, 35), (14.3, 7), (33.33, 35), (2.87, 35), (105.71, 35)]
        for percent, voters in cases:
            answer = possible(percent, voters)
            if missing(answer):
                return UNANSWERED
            right = percent in {round(100 * k / voters, 2) for k in range(voters + 1)}
            if bool(answer) == right:
                continue
            if right:
                k = round(percent * voters / 100)
                return f"{percent} % is {k} of {voters} voters, rounded to two decimals."
            if percent > 100:
                return f"{percent} % would be more than all {voters} voters."
            k = round(percent * voters / 100)
            return f"{percent} % of {voters}: {k} voters would be {100 * k / voters:.2f} %."
        return None

    return verdict("Exercise 7.5", judge)
