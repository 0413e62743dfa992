"""Checkers of notebook 03b: sizes, colors, regions, tiles, films."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...losses import gram_matrix
from ...methods.gatys import pyramid_sizes
from ...pictures.color import luminance
from .exercise import Known, exercise, random


@exercise([(512, 128), (384, 100), (300, 64), (100, 128)])
def q03b_1(longest: int, smallest: int) -> Known:
    """Coarse to fine: (last size, least first size) -> the longest sides, up by √2 to the last one."""
    right = [max(size) for size in pyramid_sizes((longest, longest), smallest)]
    count = len(right)
    upwards = [round(smallest * 2 ** (k / 2)) for k in range(count)]
    doubled = [round(longest / 2**k) for k in reversed(range(count))]
    return right, {
        "the last size must be the picture's own: divide it by √2 again and again.": upwards,
        "neighbors differ by √2, not by 2.": doubled,
        "the order: the smallest comes first.": right[::-1],
        "one too few: the first may be as small as the smallest size allowed.": right[1:],
        "one too many: none is below the smallest size allowed.": [round(right[0] / 2**0.5), *right],
    }


@exercise([(random(1, 1, 3, 4, 5).sigmoid() / 2, random(2, 1, 3, 4, 5).sigmoid() / 4 + 0.3)])
def q03b_2(result: Tensor, content: Tensor) -> Known:
    """The result's luminance with the content's colors: two pictures (1, 3, H, W) -> one, not clamped."""
    bright, before = luminance(result), luminance(content)
    even = result.mean(1, keepdim=True) - content.mean(1, keepdim=True)
    return content + bright - before, {
        "the three channels do not count alike: the eye sees green best.": content + even,
        "the other way round: this has the content's luminance and the result's colors.": result
        + before
        - bright,
        "the content's luminance is still in it: take it away before you add the result's.": content + bright,
    }


@exercise(
    [(random(70, 3, 4, 5), random(90, 4, 5).sigmoid()), (random(71, 5, 7, 2), random(91, 7, 2).sigmoid())],
)
def q03b_3(f: Tensor, mask: Tensor) -> Known:
    """Paper E (10) with the region's own size taken out: F (C, H, W), mask (H, W) -> (C, C)."""
    rows, positions = (f * mask).flatten(1), mask.numel()
    plain, late = rows @ rows.T, rows @ f.flatten(1).T / mask.sum()
    return gram_matrix(f[None], "hw", mask[None, None])[0], {
        "not divided yet: a large region outweighs a small one; divide by the sum of m².": plain,
        "you divide by H·W; each position weighs m², so their sum is the divisor.": plain / positions,
        "you divide by the sum of m; each position weighs m².": plain / mask.sum(),
        "mask the features BEFORE the product, as (10) does: then each position weighs m², not m.": late,
    }


@exercise([([random(80, 3, 4, 5), random(81, 3, 4, 2)],), ([random(82, 5, 2, 2), random(83, 5, 6, 3)],)])
def q03b_4(tiles: Sequence[Tensor]) -> Known:
    """The whole picture's Gram matrix, divided by H·W, from the features (C, h, w) of its tiles."""
    rows = [tile.flatten(1) for tile in tiles]
    grams, sizes = [r @ r.T for r in rows], [r.shape[1] for r in rows]
    means = [gram / size for gram, size in zip(grams, sizes, strict=True)]
    whole = torch.stack(grams).sum(0)
    return whole / sum(sizes), {
        "that is the sum: divide by the positions of all tiles together.": whole,
        "a mean of the tiles' own means lets a small tile count like a large one.": torch.stack(means).mean(
            0
        ),
        "a sum of the tiles' own means grows with their number.": torch.stack(means).sum(0),
    }


@exercise(
    [tuple(random(90 + 3 * n + k, 1, c, 4, 5).sigmoid() for k, c in enumerate((3, 3, 1))) for n in (0, 1)]
)
def q03b_5(x: Tensor, moved: Tensor, trusted: Tensor) -> Known:
    """The temporal term of Ruder et al.: mean of c (x - moved)²; x, moved (1, 3, H, W), c (1, 1, H, W)."""
    square = (x - moved).square()
    return (trusted * square).mean(), {
        "where does c come in? Where the flow is wrong nothing may be held fast.": square.mean(),
        "c stands outside of the square: it would be squared with it.": (trusted * (x - moved))
        .square()
        .mean(),
        "the mean is over all pixels, not over the trusted ones alone.": (trusted * square).sum()
        / (3 * trusted.sum()),
        "the square, not the absolute value.": (trusted * (x - moved).abs()).mean(),
    }
