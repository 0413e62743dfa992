"""Checkers of notebook 05: DualStyleGAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .exercise import Known, exercise, random

Layer = Callable[[Tensor], Tensor]


def _convolve(x: Tensor, filters: Tensor) -> Tensor:
    """A filter (O, I, k, k) for each picture."""
    padding = filters.shape[-1] // 2
    return torch.cat([F.conv2d(a[None], f, padding=padding) for a, f in zip(x, filters, strict=True)])


def _norm(filters: Tensor, dims: tuple[int, ...] = (2, 3, 4)) -> Tensor:
    return filters.square().sum(dims, keepdim=True).add(1e-8).sqrt()


@exercise(
    [
        (random(n, b, i, side, side + 1), 1 + 0.8 * random(n + 40, b, i), random(n + 20, o, i, k, k))
        for n, (b, i, o, side, k) in enumerate(((2, 3, 4, 5, 3), (3, 2, 5, 4, 1), (1, 4, 2, 6, 3)))
    ],
)
def q05_1(x: Tensor, s: Tensor, weight: Tensor) -> Known:
    """Modulated convolution: features (N, I, H, W), styles (N, I), weights (O, I, k, k) -> (N, O, H, W)."""
    filters = weight * s[:, None, :, None, None]  # (N, O, I, k, k)
    plain = (weight / _norm(weight[None])[0]).expand_as(filters)
    right, first = filters / _norm(filters), filters[:1] / _norm(filters[:1])
    mistakes = {
        "modulated, but not demodulated: divide each output channel by its weights' norm.": filters,
        "the style is missing: it weighs the input channels.": plain,
        "the norm is that of the weights AFTER the style has weighed them.": filters / _norm(weight[None]),
        "divide by the norm, which is the ROOT of the sum of squares.": right / _norm(filters),
        "each OUTPUT channel has a norm of its own.": filters / _norm(filters, (1, 2, 3, 4)),
        "each picture has its own style; yours takes the first one's for all.": first.expand_as(filters),
    }
    return _convolve(x, right), {hint: _convolve(x, wrong) for hint, wrong in mistakes.items()}


def _modres_cases() -> list[tuple[Any, ...]]:
    def norm(scale: Tensor, shift: Tensor) -> Layer:
        return lambda x: scale * F.instance_norm(x.double()) + shift

    def conv(weight: Tensor) -> Layer:
        return lambda x: F.leaky_relu(F.conv2d(x.double(), weight, padding=1), 0.2)

    cases: list[tuple[Any, ...]] = []
    for seed, n in enumerate((2, 3, 1)):
        norms = [norm(*random(seed + 10 + i, 2, 3, 1, 1)) for i in (0, 1)]
        convs = [conv(random(seed + 20 + i, 3, 3, 3, 3) / 5) for i in (0, 1)]
        weight = torch.linspace(0.8, 0.25, n, dtype=torch.float64)
        cases += [(random(seed, n, 3, 4, 5), w, norms, convs) for w in (weight, 0 * weight)]
    return cases


@exercise(_modres_cases())
def q05_2(x: Tensor, weight: Tensor, norms: Sequence[Layer], convs: Sequence[Layer]) -> Known:
    """ModRes of its parts: features (N, C, H, W), weights (N,), two AdaIN, two convolutions -> features."""
    w, half = weight.view(-1, 1, 1, 1), convs[0](norms[0](x))
    residual = convs[1](norms[1](half))
    turned = norms[1](convs[1](norms[0](convs[0](x))))
    mistakes = {
        "the features themselves are missing: the block ADDS to them.": w * residual,
        "the weight is missing.": x + residual,
        "each picture has its own weight.": x + weight[0] * residual,
        "normalize first, then convolve.": x + w * turned,
        "the features stay whole; only what is added is weighted.": torch.lerp(x, residual, w),
        "that is one half: normalize and convolve twice.": x + w * half,
    }
    return x + w * residual, mistakes


@exercise(
    [(random(n, 3, 4, 6), 2 * random(n + 9, 6) + 1, psi) for n, psi in enumerate((0.7, 0.25, 1.0, 0.0))],
)
def q05_3(w: Tensor, center: Tensor, psi: float) -> Known:
    """Truncation: codes (N, L, D), the mean code (D,), psi -> codes."""
    mistakes = {
        "that draws toward 0, as the released code does; here toward the center.": psi * w,
        "turned around: psi = 1 leaves the codes as they are.": w + psi * (center - w),
        "what is shortened is the way FROM the center, w - center.": center + psi * w,
        "the center has to be added again.": psi * (w - center),
    }
    return center + psi * (w - center), mistakes


@exercise(
    [
        (random(n, 2, layers, 3), random(n + 30, 2, layers, 3), kept)
        for n, (layers, kept) in enumerate(((10, 7), (8, 5), (18, 6), (4, 0), (4, 4)))
    ],
    in_place=False,
)
def q05_4(face: Tensor, other: Tensor, kept: int) -> Known:
    """Style mixing: codes (N, L, D) of a face and of another, and how many of the face's are kept."""

    def mixed(first: Tensor, last: Tensor, count: int) -> Tensor:
        return torch.cat([first[:, :count], last[:, count:]], 1)

    layers = face.shape[1]
    mistakes = {
        "turned around: the FIRST codes are the face's, the further ones the other's.": mixed(
            other, face, kept
        ),
        "those are the face's LAST codes; structure lies in the first.": mixed(other, face, layers - kept),
        "one off: yours keeps one code of the face too few.": mixed(face, other, max(kept - 1, 0)),
        "one off: yours keeps one code of the face too many.": mixed(face, other, kept + 1),
    }
    return mixed(face, other, kept), mistakes
