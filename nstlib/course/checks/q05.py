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


def _cases_of_features() -> list[tuple[Any, ...]]:
    return [
        (random(n, count, channels) + 1, random(n + 50, other, channels) + 2, h)
        for n, (count, other, channels, h) in enumerate(((6, 6, 4, 0.2), (5, 8, 3, 0.5), (9, 4, 6, 0.1)))
    ]


@exercise(_cases_of_features())
def q05_5(x: Tensor, y: Tensor, h: float) -> Known:
    """The contextual loss: features of a picture (N, C) and of a portrait (M, C), bandwidth -> a number."""

    def shares(center: Tensor, bandwidth: float = h, dim: int = 1, own: Tensor | None = None) -> Tensor:
        first = x - (center if own is None else own)
        d = 1 - F.normalize(first, dim=1) @ F.normalize(y - center, dim=1).T
        return ((1 - d / (d.amin(dim, keepdim=True) + 1e-5)) / bandwidth).softmax(dim)

    votes = shares(y.mean(0))
    mistakes = {
        "each position of the PICTURE divides one vote: normalize over j.": -shares(y.mean(0), dim=0)
        .amax(0).mean().log(),
        "each position of the PORTRAIT keeps its largest share: the maximum is over i.": -votes.amax(1)
        .mean().log(),
        "both are seen from the PORTRAIT's mean feature.": -shares(y.mean(0), own=x.mean(0))
        .amax(0).mean().log(),
        "the portrait's mean has to be subtracted from both first.": -shares(0 * y.mean(0))
        .amax(0).mean().log(),
        "the bandwidth is missing: divide by h before the exponential.": -shares(y.mean(0), 1.0)
        .amax(0).mean().log(),
        "the mean comes first, then its logarithm.": -votes.amax(0).log().mean(),
        "the sign: a loss falls as the shares grow.": votes.amax(0).mean().log(),
    }  # fmt: skip
    return -votes.amax(0).mean().log(), mistakes


@exercise(
    [
        (
            3 * random(n, faces, 5), 2 * random(n + 30, faces, 5) + 1,
            [random(n + 60 + i, *shape) for i, shape in enumerate(shapes)], *weights,
        )
        for n, (faces, shapes, weights) in enumerate(
            (
                (2, ((4, 3), (4,)), (1.0, 0.015)), (1, ((2, 2, 3), (6,), (3, 2)), (4.0, 0.005)),
                (3, ((5,), (2, 4)), (1.0, 0.5)),
            )
        )
    ],
)  # fmt: skip
def q05_6(made: Tensor, plain: Tensor, tensors: Sequence[Tensor], w_id: float, w_reg: float) -> Known:
    """(10): embeddings with and without style (N, D), the blocks' parameters, both weights -> a number."""
    cosine = F.cosine_similarity(made, plain).mean()
    norms = torch.stack([one.norm() for one in tensors])
    whole = torch.cat([one.flatten() for one in tensors]).norm()
    right = w_id * (1 - cosine) + w_reg * norms.sum()
    mistakes = {
        "the cosine is a similarity; the loss is 1 minus it.": right - w_id * (1 - 2 * cosine),
        "an embedding's length says nothing about the person: divide by both lengths.": w_id
        * (1 - (made * plain).sum(1).mean()) + w_reg * norms.sum(),
        "the norms are not squared.": right + w_reg * (norms.square() - norms).sum(),
        "as released, EACH tensor has its norm, and these are added.": right + w_reg * (whole - norms.sum()),
        "the norms are added up, not averaged.": right + w_reg * (norms.mean() - norms.sum()),
        "the two weights are missing.": 1 - cosine + norms.sum(),
        "the weights are swapped.": w_reg * (1 - cosine) + w_id * norms.sum(),
    }  # fmt: skip
    return right, mistakes


@exercise([(random(n, p, d), random(n + 30, k, d)) for n, (p, k, d) in enumerate(((7, 3, 2), (4, 6, 5)))])
def q05_7(drawn: Tensor, known: Tensor) -> Known:
    """Implicit maximum likelihood: drawn codes (P, D), known ones (M, D) -> a number."""
    squared = (known[:, None] - drawn).square().sum(2)  # (M, P)
    right = squared.amin(1).mean()
    mistakes = {
        "turned around: each KNOWN code looks for the nearest drawn one, not each drawn one.": squared.amin(0)
        .mean(),
        "only the nearest drawn code counts, not all of them.": squared.mean(),
        "the distance is squared.": squared.sqrt().amin(1).mean(),
        "the sum over j is divided by M.": squared.amin(1).sum(),
        "a squared distance is a SUM over the numbers of a code, not their mean.": right / known.shape[1],
    }  # fmt: skip
    return right, mistakes


@exercise(
    [
        (random(n, k, layers, 4), random(n + 20, k).abs() + 0.1, random(n + 40, layers, 4), keep)
        for n, (k, layers, keep) in enumerate(((2, 12, False), (3, 12, True), (1, 18, True), (4, 9, False)))
    ],
    in_place=False,
)
def q05_8(codes: Tensor, shares: Tensor, face: Tensor, keep_colors: bool) -> Known:
    """Fused styles: codes (K, L, D), shares (K,), a face's codes (L, D), whose colors to keep -> (L, D)."""

    def fused(weights: Tensor, start: int = 7) -> Tensor:
        style = torch.einsum("k,kld->ld", weights, codes)
        return torch.cat([style[:start], face[start:]]) if keep_colors else style

    parts = shares / shares.sum()
    mean = fused(parts)
    mistakes = {
        "the shares have to sum to 1: divide by their sum.": fused(shares),
        "the shares are missing: yours is the plain mean.": fused(torch.full_like(shares, 1 / len(shares))),
        "the colors are the codes from 7 on, counted from 0; yours begin later.": fused(parts, 8),
        "the colors are the codes from 7 on, counted from 0; yours begin earlier.": fused(parts, 6),
    }
    if keep_colors:
        style = torch.einsum("k,kld->ld", parts, codes)
        mistakes["turned around: the structure is the style's, the colors are the face's."] = torch.cat(
            [face[:7], style[7:]]
        )
        mistakes["where colors are kept, the last codes are the face's."] = style
    return mean, mistakes


@exercise(
    [
        (random(n, layers, 4), random(n + 30, count, 4), first, alpha)
        for n, (layers, count, first, alpha) in enumerate(
            ((12, 2, 7, 1.0), (18, 3, 7, 0.5), (12, 1, 9, 0.25), (8, 2, 7, 0.0))
        )
    ],
    in_place=False,
)
def q05_9(style: Tensor, random_w: Tensor, first: int, alpha: float) -> Known:
    """Pairs: the codes of the style (L, D), random w (N, D), first mixed code, alpha -> (N, L, D)."""
    layers = len(style)
    there = style.expand(len(random_w), -1, -1)
    other = random_w[:, None].expand_as(there)

    def mixed(chosen: Tensor, share: float) -> Tensor:
        return torch.where(chosen[:, None], torch.lerp(there, other, share), there)

    number = torch.arange(layers)
    mistakes = {
        "turned around: the FIRST codes stay the style's, the fine ones are mixed.": mixed(
            number < first, alpha
        ),
        "alpha is turned around: at 1 the mixed codes are the random face's.": mixed(
            number >= first, 1 - alpha
        ),
        "alpha is missing: mixed codes go only a part of the way.": mixed(number >= first, 1.0),
        "one off: the code number `first` is mixed, too.": mixed(number > first, alpha),
        "all codes are mixed; those before `first` must stay.": mixed(number >= 0, alpha),
    }
    return mixed(number >= first, alpha), mistakes
