"""Checkers of notebook 03: optimizers and weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from ...losses import gram_matrix, style_weight_factor
from .exercise import Known, exercise, random


def _moments(gradient: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()


def _adam_cases() -> list[tuple[Tensor, Tensor, Tensor, int]]:
    cases = []
    for seed in range(3):
        m = v = torch.zeros(4, dtype=torch.float64)
        for t in range(1, 5):
            gradient = random(10 * seed + t, 4)
            cases.append((gradient, m, v, t))
            m, v = _moments(gradient, m, v)
    return cases


@exercise(_adam_cases(), rtol=1e-5)
def q03_1(gradient: Tensor, m: Tensor, v: Tensor, t: int) -> Known:
    """One step of Adam: (gradient, m, v, t) -> (change of x, new m, new v); lr 0.02, betas 0.9, 0.999."""
    m, v = _moments(gradient, m, v)
    change = -0.02 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    short = "step 1 is too long: divide m by 1 - 0.9^t and v by 1 - 0.999^t."
    return (change, m, v), {
        "the sign is wrong: x changes against the gradient.": (-change, m, v),
        short: (-0.02 * m / (v.sqrt() + 1e-8), m, v),
    }


FUNCTIONS: list[Callable[[Tensor], Tensor]] = [
    lambda x: (x**4).sum() + (x[0] * x[1] * x[2]),
    lambda x: torch.outer(x, x).sub(1).square().sum(),
    lambda x: x.sin().prod() + x.exp().sum(),
]


@exercise([(f, random(20 + n, 3 + n), random(70 + n, 3 + n)) for n, f in enumerate(FUNCTIONS)])
def q03_2(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Known:
    """Hessian times a vector without the Hessian: (f, x, v) -> H(x) v, by differentiating twice."""
    return hessian(f, x) @ v, {
        "this is the gradient, not its derivative: differentiate gradient · v once more.": jacobian(f, x),
        "this is the gradient times v, entry by entry: sum them and differentiate again.": jacobian(f, x) * v,
        "this is H times ones: where does v come in?": hessian(f, x).sum(1),
    }


@exercise([(d, t, u) for d in (-2.0, 0.0, 0.1, 0.5, 3.0) for t in (0.1, 1.0, 5.0) for u in (0.05, 0.5, 0.95)])
def q03_3(change: float, temperature: float, u: float) -> Known:
    """Metropolis' rule: (change of the loss, temperature, uniform number in [0, 1)) -> take the step?"""
    if change <= 0:
        return True, {f"a step that does not raise the loss (change {change}) is always taken.": False}
    bound = math.exp(-change / temperature)
    hint = f"a worse picture is taken if u is below exp(-{change}/{temperature}) = {bound:.3f}, and u is {u}."
    return u < bound, {hint: u >= bound}


@exercise([(1.0, 64, 4096), (5.0, 512, 196), (0.1, 3, 7)])
def q03_4(w: float, c: int, m: int) -> Known:
    """A layer's style weight found with Gatys' notebook's scale, in that of PyTorch's tutorial: (w, C, M)."""
    factor = style_weight_factor("gatys_notebook", "neural_style_pt", c, m)
    return w * factor, {
        "the wrong way round: the tutorial's loss is smaller, so its weight is larger.": w / factor,
        "the Gram matrix is C times smaller, but the loss is its SQUARED difference.": w * c,
    }


@exercise(
    [(random(70, 3, 4, 5), random(90, 4, 5).sigmoid()), (random(71, 5, 7, 2), random(91, 7, 2).sigmoid())],
)
def q03_5(f: Tensor, mask: Tensor) -> Known:
    """Paper E (10) with the region's own size taken out: F (C, H, W), mask (H, W) -> (C, C)."""
    rows, positions = (f * mask).flatten(1), mask.numel()
    plain, late = rows @ rows.T, rows @ f.flatten(1).T / mask.sum()
    return gram_matrix(f[None], "hw", mask[None, None])[0], {
        "not divided yet: a large region outweighs a small one; divide by the sum of m².": plain,
        "you divide by H·W; each position weighs m², so their sum is the divisor.": plain / positions,
        "you divide by the sum of m; each position weighs m².": plain / mask.sum(),
        "mask the features BEFORE the product, as (10) does: then each position weighs m², not m.": late,
    }
