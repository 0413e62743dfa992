"""Checkers of notebook 01: pictures as tensors, the Gram matrix, the losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from .exercise import UNANSWERED, Known, drawn, entries, exercise, missing, verdict


def _photo(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@exercise([(_photo(n, *s),) for n, s in enumerate(((4, 6), (5, 3), (2, 2)))])
def q01_1(array: np.ndarray) -> Known:
    """A file's pixels (H, W, 3), 0 to 255, as a picture of the course: (1, 3, H, W), 0 to 1."""
    pixels = torch.from_numpy(array)
    right = pixels.permute(2, 0, 1)[None] / 255
    return right, {
        "reshape leaves the numbers in their old order, so colors and places mix; move the axes by "
        "permute.": pixels.reshape(right.shape) / 255,
        "the values must lie between 0 and 1: divide by 255.": right * 255,
        "the values must lie between 0 and 1, not between -1 and 1.": 2 * right - 1,
        "rows and columns have changed places: the order is N, 3, H, W.": right.transpose(2, 3),
        "the batch axis is missing: one picture is (1, 3, H, W).": right[0],
    }


def _gram(f: Tensor) -> Tensor:
    return f.flatten(1) @ f.flatten(1).T


@exercise(drawn([(3, 4, 5)], [(5, 7, 2)], [(8, 1, 6)], [(1, 3, 3)]))
def q01_2(f: Tensor) -> Known:
    """The Gram matrix of paper A (1): (C, H, W) -> (C, C), a plain sum over positions."""
    right = _gram(f)
    return right, {
        "that compares positions; the Gram matrix compares channels, (C, C).": f.flatten(1).T @ f.flatten(1),
        "you divide by H·W; equation (1) of paper A is a plain sum.": right / f[0].numel(),
        "you divide by C·H·W; equation (1) of paper A is a plain sum.": right / f.numel(),
    }


def q01_3(shuffle: Callable[[Tensor, torch.Generator], Tensor]) -> bool:
    """Shuffle positions so that the Gram matrix stays: one permutation, the same for every channel."""

    def judge() -> str | None:
        for (features,) in drawn([(3, 6, 5)], [(4, 9, 8)], [(2, 16, 16)]):
            answer = shuffle(features.clone(), torch.Generator().manual_seed(0))
            if missing(answer):
                return UNANSWERED
            if answer.shape != features.shape:
                return f"the shape must stay {tuple(features.shape)}, yours is {tuple(answer.shape)}."
            if torch.equal(answer, features):
                return "nothing has moved."
            if not torch.equal(answer.flatten(1).sort()[0], features.flatten(1).sort()[0]):
                return "each channel must keep its own values; only their places change."
            if not torch.allclose(_gram(features), _gram(answer)):
                return "the Gram matrix has changed: every channel must be shuffled by the SAME permutation."
            if (answer != features).any(0).double().mean() < 0.5:
                return "only a few positions have moved; shuffle all of them."
        return None

    return verdict("1.3", judge)


def q01_4(answer: Mapping[str, int]) -> bool:
    """Distinct entries in the Gram matrices of VGG-19's relu1_1 ... relu5_1: C(C+1)/2 each."""
    channels = {f"relu{block}_1": c for block, c in enumerate((64, 128, 256, 512, 512), start=1)}
    squares = {name: c * c for name, c in channels.items()}
    below = {name: c * (c - 1) // 2 for name, c in channels.items()}
    mistakes = {
        "C² counts every pair twice: the matrix is symmetric.": squares,
        "you left out the diagonal: a channel also has a product with itself.": below,
    }
    right = {name: squares[name] - below[name] for name in channels}
    otherwise = "how many entries lie on and above the diagonal?"
    return entries("1.4", answer, right, mistakes, kind="number", otherwise=otherwise)


@exercise([(f, _gram(a)) for f, a in drawn(*([shape, shape] for shape in ((3, 7), (6, 4), (1, 5))))])
def q01_5(f: Tensor, target: Tensor) -> Known:
    """Gradient of ``sum_ij (G_ij - A_ij)²`` with respect to F (C, M), A symmetric: 4 (G - A) F."""
    right = jacobian(lambda f: (f @ f.T - target).square().sum(), f)
    mistakes = {"the sign is wrong: this is the way downhill, not the gradient.": -right}
    for factor in (2, 4, 0.5):
        hint = f"right up to a factor: autograd has {factor} times yours; F is twice in G = F Fᵀ."
        mistakes[hint] = right / factor
    return right, mistakes


@exercise([(f, c, _gram(a), 2.0, 0.25) for f, c, a in drawn(*3 * [3 * [(3, 7)]])])
def q01_6(f: Tensor, content: Tensor, gram: Tensor, alpha: float, beta: float) -> Known:
    """Paper A (2) to (4) for one layer: F (C, M), content's F (C, M), style's Gram matrix -> a number."""
    apart, style_apart = f - content, _gram(f) - gram
    content_loss, style_loss = apart.square().sum(), style_apart.square().sum()
    means = alpha * apart.square().mean() + beta * style_apart.square().mean()
    roots = alpha * apart.norm() + beta * style_apart.norm()
    by_grams = alpha * (_gram(f) - _gram(content)).square().sum() + beta * style_loss
    return alpha * content_loss + beta * style_loss, {
        "alpha belongs to the content, beta to the style.": beta * content_loss + alpha * style_loss,
        "(2) and (3) are sums, not means.": means,
        "the content is compared by the features themselves, not by Gram matrices (slip 1).": by_grams,
        "square the differences: (2) and (3) are squared norms.": roots,
    }
