"""Exercises of notebook 03."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...losses import gram_matrix, style_weight_factor
from ._verdict import SHAPES, UNANSWERED, Outcome, equal, features_of, missing, verdict


def q03_1(step: Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]) -> bool:
    """One step of Adam: (gradient, m, v, t) -> (change of x, new m, new v); lr 0.02, betas 0.9, 0.999."""

    def judge() -> Outcome:
        for seed in range(3):
            x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
            adam = torch.optim.Adam([x], lr=0.02, betas=(0.9, 0.999), eps=1e-8)
            m = v = torch.zeros(4, dtype=torch.float64)
            for t in range(1, 5):
                gradient = features_of(10 * seed + t, (4, 1, 1)).flatten()
                before = x.detach().clone()
                x.grad = gradient.clone()
                adam.step()
                answer = step(gradient.clone(), m.clone(), v.clone(), t)
                if missing(answer):
                    return UNANSWERED
                change, m, v = answer
                right = x.detach() - before
                if equal(change * 1e2, right * 1e2):
                    continue
                if equal(-change * 1e2, right * 1e2):
                    return "the sign is wrong: x changes against the gradient."
                if t == 1 and equal(change * 1e2, right * 1e2 * 0.1 / 0.001**0.5):
                    return "step 1 is too long: divide m by 1 - 0.9^t and v by 1 - 0.999^t."
                return f"at step {t} torch's Adam changes x by {right[0]:.5f}, yours by {change[0]:.5f}."
        return None

    return verdict("Exercise 3.1", judge)


def q03_2(product: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]) -> bool:
    """Hessian times a vector without the Hessian: (f, x, v) -> H(x) v, by differentiating twice."""

    def judge() -> Outcome:
        functions: list[Callable[[Tensor], Tensor]] = [
            lambda x: (x**4).sum() + (x[0] * x[1] * x[2]),
            lambda x: torch.outer(x, x).sub(1).square().sum(),
            lambda x: x.sin().prod() + x.exp().sum(),
        ]
        for number, function in enumerate(functions):
            x, v = (features_of(20 + number + k, (3 + number, 1, 1)).flatten() for k in (0, 50))
            hessian = torch.autograd.functional.hessian(function, x)
            answer = product(function, x.clone(), v.clone())
            if missing(answer):
                return UNANSWERED
            if tuple(answer.shape) != tuple(x.shape):
                return f"H v has the shape of x, {tuple(x.shape)}; yours is {tuple(answer.shape)}."
            if equal(answer, hessian @ v):
                continue
            (gradient,) = torch.autograd.functional.jacobian(function, x)[None]
            if equal(answer, gradient) or equal(answer, gradient * v):
                return "this is the gradient, not its derivative: differentiate gradient · v once more."
            if equal(answer, hessian.sum(1)):
                return "this is H times ones: where does v come in?"
            return f"wrong for function {number + 1}: H v is {[round(n, 3) for n in (hessian @ v).tolist()]}."
        return None

    return verdict("Exercise 3.2", judge)


def q03_3(accept: Callable[[float, float, float], bool]) -> bool:
    """Metropolis' rule: (change of the loss, temperature, uniform number in [0, 1)) -> take the step?"""

    def judge() -> Outcome:
        cases = [
            (d, t, u) for d in (-2.0, 0.0, 0.1, 0.5, 3.0) for t in (0.1, 1.0, 5.0) for u in (0.05, 0.5, 0.95)
        ]
        for change, temperature, u in cases:
            answer = accept(change, temperature, u)
            if missing(answer):
                return UNANSWERED
            right = change <= 0 or u < math.exp(-change / temperature)
            if bool(answer) == right:
                continue
            if change <= 0:
                return f"a step that does not raise the loss (change {change}) is always taken."
            return (
                f"change {change}, temperature {temperature}, u {u}: a worse picture is taken if u is below "
                f"exp(-{change}/{temperature}) = {math.exp(-change / temperature):.3f}, so {right} is right."
            )
        return None

    return verdict("Exercise 3.3", judge)


def q03_4(convert: Callable[[float, int, int], float]) -> bool:
    """A layer's style weight found with Gatys' notebook's scale, in that of PyTorch's tutorial: (w, C, M)."""

    def judge() -> Outcome:
        for weight, channels, positions in ((1.0, 64, 4096), (5.0, 512, 196), (0.1, 3, 7)):
            answer = convert(weight, channels, positions)
            if missing(answer):
                return UNANSWERED
            factor = style_weight_factor("gatys_notebook", "neural_style_pt", channels, positions)
            if math.isclose(answer, weight * factor, rel_tol=1e-6):
                continue
            if math.isclose(answer * factor, weight, rel_tol=1e-6):
                return "the wrong way round: the tutorial's loss is smaller, so its weight is larger."
            if math.isclose(answer, weight * channels, rel_tol=1e-6):
                return "the Gram matrix is C times smaller, but the loss is its SQUARED difference."
            return f"w = {weight}, C = {channels}, M = {positions} gives {weight * factor:g}, not {answer:g}."
        return None

    return verdict("Exercise 3.4", judge)


def q03_5(gram: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Paper E (10) with the region's own size taken out: F (C, H, W), mask (H, W) -> (C, C)."""

    def judge() -> Outcome:
        for seed, (c, h, w) in enumerate(SHAPES[:3]):
            features = features_of(seed + 70, (c, h, w))
            mask = features_of(seed + 90, (1, h, w))[0].sigmoid().float().double()
            right = gram_matrix(features[None], "hw", mask[None, None])[0]
            answer = gram(features.clone(), mask.clone())
            if missing(answer):
                return UNANSWERED
            if tuple(answer.shape) != (c, c):
                return f"{c} channels give a ({c}, {c}) matrix, yours is {tuple(answer.shape)}."
            if equal(answer, right):
                continue
            rows = (features * mask).flatten(1)
            if equal(answer, rows @ rows.T):
                return "not divided yet: a large region would outweigh a small one; divide by the sum of m²."
            for divisor, name in ((h * w, "H·W"), (mask.sum().item(), "the sum of m")):
                if equal(answer * divisor, rows @ rows.T):
                    return f"you divide by {name}; each position weighs m², so their sum is the divisor."
            if equal(answer, (features.flatten(1) * mask.flatten()) @ features.flatten(1).T / mask.sum()):
                return (
                    "mask the features BEFORE the product, as (10) does: then each position weighs m², not m."
                )
            return f"for shape {(c, h, w)} some entries differ: (F·m)(F·m)ᵀ over the sum of m²."
        return None

    return verdict("Exercise 3.5", judge)
