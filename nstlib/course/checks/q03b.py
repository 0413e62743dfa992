"""Checkers of notebook 03b: sizes, colors, regions, tiles, films."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...losses import gram_matrix
from ...methods.gatys import pyramid_sizes
from ...pictures.color import luminance
from .exercise import Known, drawn, exercise


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


@exercise(drawn(2 * [(1, 3, 4, 5)]))
def q03b_2(result: Tensor, content: Tensor) -> Known:
    """The result's luminance with the content's colors: two pictures (1, 3, H, W) -> one, not clamped."""
    bright, before = luminance(result), luminance(content)
    even = (result - content).mean(1, keepdim=True)
    turned = result + before - bright
    return content + bright - before, {
        "the three channels do not count alike: the eye sees green best.": content + even,
        "the other way round: this has the content's luminance and the result's colors.": turned,
        "the content's luminance is still in it: take it away before you add the result's.": content + bright,
    }


@exercise([(f, mask.sigmoid()) for f, mask in drawn([(3, 4, 5), (4, 5)], [(5, 7, 2), (7, 2)])])
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


@exercise([(tiles,) for tiles in drawn([(3, 4, 5), (3, 4, 2)], [(5, 2, 2), (5, 6, 3)])])
def q03b_4(tiles: Sequence[Tensor]) -> Known:
    """The whole picture's Gram matrix, divided by H·W, from the features (C, h, w) of its tiles."""
    rows = [tile.flatten(1) for tile in tiles]
    whole = torch.stack([r @ r.T for r in rows]).sum(0)
    means = torch.stack([r @ r.T / r.shape[1] for r in rows])
    return whole / sum(r.shape[1] for r in rows), {
        "that is the sum: divide by the positions of all tiles together.": whole,
        "a mean of the tiles' own means lets a small tile count like a large one.": means.mean(0),
        "a sum of the tiles' own means grows with their number.": means.sum(0),
    }


@exercise([(x, y, c.sigmoid()) for x, y, c in drawn(*2 * [[(1, 3, 4, 5), (1, 3, 4, 5), (1, 1, 4, 5)]])])
def q03b_5(x: Tensor, moved: Tensor, trusted: Tensor) -> Known:
    """The temporal term of Ruder et al.: mean of c (x - moved)²; x, moved (1, 3, H, W), c (1, 1, H, W)."""
    apart = x - moved
    right = (trusted * apart.square()).mean()
    return right, {
        "where does c come in? Where the flow is wrong nothing may be held fast.": apart.square().mean(),
        "c stands outside of the square: it would be squared with it.": (trusted * apart).square().mean(),
        "the mean is over all pixels, not over the trusted ones alone.": right / trusted.mean(),
        "the square, not the absolute value.": (trusted * apart.abs()).mean(),
    }
