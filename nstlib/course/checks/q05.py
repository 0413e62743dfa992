"""Checkers of notebook 05: DualStyleGAN."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .exercise import Known, drawn, exercise

Layer = Callable[[Tensor], Tensor]


def _convolve(x: Tensor, filters: Tensor) -> Tensor:
    """A filter (O, I, k, k) for each picture."""
    padding = filters.shape[-1] // 2
    return torch.cat([F.conv2d(a[None], f, padding=padding) for a, f in zip(x, filters, strict=True)])


def _norm(filters: Tensor, dims: tuple[int, ...] = (2, 3, 4)) -> Tensor:
    return filters.square().sum(dims, keepdim=True).add(1e-8).sqrt()


@exercise(
    drawn(
        [(2, 3, 5, 6), (2, 3), (4, 3, 3, 3)], [(3, 2, 4, 5), (3, 2), (5, 2, 1, 1)],
        [(1, 4, 6, 7), (1, 4), (2, 4, 3, 3)],
    )
)  # fmt: skip
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


def _modres_cases() -> Iterator[tuple[Any, ...]]:
    def norm(scale: Tensor, shift: Tensor) -> Layer:
        return lambda x: scale * F.instance_norm(x.double()) + shift

    def conv(weight: Tensor) -> Layer:
        return lambda x: F.leaky_relu(F.conv2d(x.double(), weight / 5, padding=1), 0.2)

    two = (2, 3, 1, 1)
    for x, scales, shifts, filters in drawn(*([(n, 3, 4, 5), two, two, (2, 3, 3, 3, 3)] for n in (2, 3, 1))):
        layers = list(map(norm, scales, shifts)), list(map(conv, filters))
        weight = torch.linspace(0.8, 0.25, len(x), dtype=torch.float64)
        yield from ((x, w, *layers) for w in (weight, 0 * weight))


@exercise([*_modres_cases()])
def q05_2(x: Tensor, weight: Tensor, norms: Sequence[Layer], convs: Sequence[Layer]) -> Known:
    """ModRes of its parts: features (N, C, H, W), weights (N,), two AdaIN, two convolutions -> features."""
    w, half = weight.view(-1, 1, 1, 1), convs[0](norms[0](x))
    residual = convs[1](norms[1](half))
    turned = norms[1](convs[1](norms[0](convs[0](x))))
    return x + w * residual, {
        "the features themselves are missing: the block ADDS to them.": w * residual,
        "the weight is missing.": x + residual,
        "each picture has its own weight.": x + weight[0] * residual,
        "normalize first, then convolve.": x + w * turned,
        "the features stay whole; only what is added is weighted.": torch.lerp(x, residual, w),
        "that is one half: normalize and convolve twice.": x + w * half,
    }


@exercise(drawn(*([(3, 4, 6), (6,), psi] for psi in (0.7, 0.25, 1.0, 0.0))))
def q05_3(w: Tensor, center: Tensor, psi: float) -> Known:
    """Truncation: codes (N, L, D), the mean code (D,), psi -> codes."""
    return center + psi * (w - center), {
        "that draws toward 0, as the released code does; here toward the center.": psi * w,
        "turned around: psi = 1 leaves the codes as they are.": w + psi * (center - w),
        "what is shortened is the way FROM the center, w - center.": center + psi * w,
        "the center has to be added again.": psi * (w - center),
    }


KEPT = ((10, 7), (8, 5), (18, 6), (4, 0), (4, 4))  # of so many codes


@exercise(drawn(*([(2, layers, 3), (2, layers, 3), kept] for layers, kept in KEPT)), in_place=False)
def q05_4(face: Tensor, other: Tensor, kept: int) -> Known:
    """Style mixing: codes (N, L, D) of a face and of another, and how many of the face's are kept."""

    def mixed(first: Tensor, last: Tensor, count: int) -> Tensor:
        return torch.cat([first[:, :count], last[:, count:]], 1)

    turned, behind = mixed(other, face, kept), mixed(other, face, face.shape[1] - kept)
    return mixed(face, other, kept), {
        "turned around: the FIRST codes are the face's, the further ones the other's.": turned,
        "those are the face's LAST codes; structure lies in the first.": behind,
        "one off: yours keeps one code of the face too few.": mixed(face, other, max(kept - 1, 0)),
        "one off: yours keeps one code of the face too many.": mixed(face, other, kept + 1),
    }


@exercise(drawn([(6, 4), (6, 4), 0.2], [(5, 3), (8, 3), 0.5], [(9, 6), (4, 6), 0.1]))
def q05_5(x: Tensor, y: Tensor, h: float) -> Known:
    """The contextual loss: features of a picture (N, C) and of a portrait (M, C), bandwidth -> a number."""

    def shares(own: Tensor, center: Tensor, bandwidth: float = h, dim: int = 1) -> Tensor:
        d = 1 - F.normalize(x - own, dim=1) @ F.normalize(y - center, dim=1).T
        return ((1 - d / (d.amin(dim, keepdim=True) + 1e-5)) / bandwidth).softmax(dim)

    def loss(shares: Tensor, dim: int = 0) -> Tensor:
        return -shares.amax(dim).mean().log()

    mean, zero = y.mean(0), torch.zeros_like(y[0])
    votes = shares(mean, mean)
    return loss(votes), {
        "each position of the PICTURE divides one vote: normalize over j.": loss(shares(mean, mean, dim=0)),
        "each position of the PORTRAIT keeps its largest share: the maximum is over i.": loss(votes, 1),
        "both are seen from the PORTRAIT's mean feature.": loss(shares(x.mean(0), mean)),
        "the portrait's mean has to be subtracted from both first.": loss(shares(zero, zero)),
        "the bandwidth is missing: divide by h before the exponential.": loss(shares(mean, mean, 1.0)),
        "the mean comes first, then its logarithm.": -votes.amax(0).log().mean(),
        "the sign: a loss falls as the shares grow.": -loss(votes),
    }


@exercise(
    [
        (made, plain, tensors, *weights)
        for made, plain, *tensors, weights in drawn(
            [(2, 5), (2, 5), (4, 3), (4,), [1.0, 0.015]], [(1, 5), (1, 5), (2, 2, 3), (6,), [4.0, 0.005]],
            [(3, 5), (3, 5), (5,), (2, 4), [1.0, 0.5]],
        )
    ]
)  # fmt: skip
def q05_6(made: Tensor, plain: Tensor, tensors: Sequence[Tensor], w_id: float, w_reg: float) -> Known:
    """(10): embeddings with and without style (N, D), the blocks' parameters, both weights -> a number."""
    person, product = 1 - F.cosine_similarity(made, plain).mean(), (made * plain).sum(1).mean()
    norms = torch.stack([one.norm() for one in tensors])
    whole = torch.cat([one.flatten() for one in tensors]).norm()
    content, added = w_id * person, w_reg * norms.sum()
    return content + added, {
        "the cosine is a similarity; the loss is 1 minus it.": w_id * (1 - person) + added,
        "an embedding's length says nothing about the person: divide by both lengths.": (
            w_id * (1 - product) + added
        ),
        "the norms are not squared.": content + w_reg * norms.square().sum(),
        "as released, EACH tensor has its norm, and these are added.": content + w_reg * whole,
        "the norms are added up, not averaged.": content + w_reg * norms.mean(),
        "the two weights are missing.": person + norms.sum(),
        "the weights are swapped.": w_reg * person + w_id * norms.sum(),
    }


@exercise(drawn([(7, 2), (3, 2)], [(4, 5), (6, 5)]))
def q05_7(drawn: Tensor, known: Tensor) -> Known:
    """Implicit maximum likelihood: drawn codes (P, D), known ones (M, D) -> a number."""
    squared = (known[:, None] - drawn).square().sum(2)  # (M, P)
    right, turned = squared.amin(1).mean(), squared.amin(0).mean()
    return right, {
        "turned around: each KNOWN code looks for the nearest drawn one, not each drawn one.": turned,
        "only the nearest drawn code counts, not all of them.": squared.mean(),
        "the distance is squared.": squared.sqrt().amin(1).mean(),
        "the sum over j is divided by M.": squared.amin(1).sum(),
        "a squared distance is a SUM over the numbers of a code, not their mean.": right / known.shape[1],
    }


FUSED = ((2, 12, False), (3, 12, True), (1, 18, True), (4, 9, False))  # styles, layers, whose colors


@exercise(
    [
        (codes, shares.abs() + 0.1, face, keep)
        for codes, shares, face, keep in drawn(*([(k, n, 4), (k,), (n, 4), keep] for k, n, keep in FUSED))
    ],
    in_place=False,
)
def q05_8(codes: Tensor, shares: Tensor, face: Tensor, keep_colors: bool) -> Known:
    """Fused styles: codes (K, L, D), shares (K,), a face's codes (L, D), whose colors to keep -> (L, D)."""

    def fused(weights: Tensor, start: int = 7) -> Tensor:
        style = torch.einsum("k,kld->ld", weights, codes)
        return torch.cat([style[:start], face[start:]]) if keep_colors else style

    parts = shares / shares.sum()
    mistakes = {
        "the shares have to sum to 1: divide by their sum.": fused(shares),
        "the shares are missing: yours is the plain mean.": fused(torch.full_like(shares, 1 / len(shares))),
        "the colors are the codes from 7 on, counted from 0; yours begin later.": fused(parts, 8),
        "the colors are the codes from 7 on, counted from 0; yours begin earlier.": fused(parts, 6),
    }
    if keep_colors:
        style = fused(parts, len(face))
        turned = torch.cat([face[:7], style[7:]])
        mistakes["turned around: the structure is the style's, the colors are the face's."] = turned
        mistakes["where colors are kept, the last codes are the face's."] = style
    return fused(parts), mistakes


PAIRED = ((12, 2, 7, 1.0), (18, 3, 7, 0.5), (12, 1, 9, 0.25), (8, 2, 7, 0.0))


@exercise(drawn(*([(n, 4), (count, 4), first, a] for n, count, first, a in PAIRED)), in_place=False)
def q05_9(style: Tensor, random_w: Tensor, first: int, alpha: float) -> Known:
    """Pairs: the codes of the style (L, D), random w (N, D), first mixed code, alpha -> (N, L, D)."""

    def mixed(start: int, stop: int | None = None, share: float = alpha) -> Tensor:
        pairs = style.repeat(len(random_w), 1, 1)
        pairs[:, start:stop] = torch.lerp(pairs[:, start:stop], random_w[:, None], share)
        return pairs

    return mixed(first), {
        "turned around: the FIRST codes stay the style's, the fine ones are mixed.": mixed(0, first),
        "alpha is turned around: at 1 the mixed codes are the random face's.": mixed(first, share=1 - alpha),
        "alpha is missing: mixed codes go only a part of the way.": mixed(first, share=1.0),
        "one off: the code number `first` is mixed, too.": mixed(first + 1),
        "all codes are mixed; those before `first` must stay.": mixed(0),
    }
