"""Checkers of notebook 03: optimizers and weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from ...losses import style_weight_factor
from .exercise import Known, drawn, exercise


def _moments(gradient: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()


def _adam_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    for gradients in drawn(*3 * [4 * [(4,)]]):
        m = v = torch.zeros(4, dtype=torch.float64)
        for t, gradient in enumerate(gradients, 1):
            yield gradient, m, v, t
            m, v = _moments(gradient, m, v)


@exercise([*_adam_cases()], rtol=1e-5)
def q03_1(gradient: Tensor, m: Tensor, v: Tensor, t: int) -> Known:
    """One step of Adam: (gradient, m, v, t) -> (change of x, new m, new v); lr 0.02, betas 0.9, 0.999."""
    m, v = _moments(gradient, m, v)
    change = -0.02 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    uncorrected = -0.02 * m / (v.sqrt() + 1e-8)
    return (change, m, v), {
        "the sign is wrong: x changes against the gradient.": (-change, m, v),
        "step 1 is too long: divide m by 1 - 0.9^t and v by 1 - 0.999^t.": (uncorrected, m, v),
    }


FUNCTIONS: list[Callable[[Tensor], Tensor]] = [
    lambda x: (x**4).sum() + (x[0] * x[1] * x[2]),
    lambda x: torch.outer(x, x).sub(1).square().sum(),
    lambda x: x.sin().prod() + x.exp().sum(),
]


@exercise(drawn(*([f, (n,), (n,)] for n, f in enumerate(FUNCTIONS, 3))))
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


LOW, HIGH = (1.0, 1.2, 1.1), (1.3, 1.5, 1.4)
WIDE = (((1.3, 1.2, 1.3), (1.0, 1.6, 1.9)), ((0.9, 2.0, 2.1), (1.5, 1.4, 1.3)))


@exercise([(LOW, HIGH), (HIGH, LOW), *WIDE])
def q03_4(a: Sequence[float], b: Sequence[float]) -> Known:
    """Losses of two methods, one a seed -> 1 if all of a are below all of b, 2 for the reverse, else 0."""
    ahead = 1 if max(a) < min(b) else 2 if max(b) < min(a) else 0
    mean = 1 if sum(a) < sum(b) else 2
    return ahead, {
        "smaller is better: these are losses.": {0: -1, 1: 2, 2: 1}[ahead],
        f"{a} and {b} overlap: a lower mean is not enough.": mean,
        f"{a} and {b} overlap: one lucky seed proves nothing.": 3 - mean,
    }


@exercise([(1.0, 64, 4096), (5.0, 512, 196), (0.1, 3, 7)])
def q03_5(w: float, c: int, m: int) -> Known:
    """A layer's style weight found with Gatys' notebook's scale, in that of PyTorch's tutorial: (w, C, M)."""
    factor = style_weight_factor("gatys_notebook", "neural_style_pt", c, m)
    return w * factor, {
        "the wrong way round: the tutorial's loss is smaller, so its weight is larger.": w / factor,
        "the Gram matrix is C times smaller, but the loss is its SQUARED difference.": w * c,
    }


@exercise([((0.2, 0.2, 0.2), (4.0, 10.0, 50.0)), ((1.0, 0.5, 2.0, 0.0), (3.0, 1.0, 7.0, 2.0))])
def q03_6(w: Sequence[float], m: Sequence[float]) -> Known:
    """D's layer weights w^l and constants M^l -> weights that give the same style loss without M^l."""
    weights, sizes = (torch.tensor(one, dtype=torch.float64) for one in (w, m))
    right = weights / sizes
    return right, {
        "you multiply by M^l; D divides by it.": weights * sizes,
        "one number for all layers cannot stand for constants that differ.": weights / sizes.mean(),
        "one number for all layers cannot stand for their sum, either.": weights / sizes.sum(),
        "these add up to 1: then the sum over the layers has another size than D's.": right / right.sum(),
    }
