"""Checkers of notebook 04: fast networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .exercise import Known, exercise, random

EPS = 1e-5


@exercise(
    [
        (3 * random(n, *s) + torch.arange(s[0]).view(-1, 1, 1, 1), random(50 + n, s[1]), random(59 + n, s[1]))
        for n, s in enumerate(((2, 3, 4, 5), (3, 2, 6, 3), (1, 4, 2, 2)))
    ],
)
def q04_1(x: Tensor, scale: Tensor, shift: Tensor) -> Known:
    """Instance normalization: (N, C, H, W), scale (C), shift (C) -> (N, C, H, W); eps 1e-5."""
    batch = F.batch_norm(x, None, None, scale, shift, training=True, eps=EPS)
    layer = F.group_norm(x, 1, scale, shift, eps=EPS)
    variance, mean = torch.var_mean(x, (2, 3), keepdim=True)  # divided by H·W - 1
    unbiased = (x - mean) / (variance + EPS).sqrt() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    mistakes = {
        "that is batch normalization: each PICTURE has its own mean and variance.": batch,
        "each CHANNEL has its own mean and variance: do not average over channels.": layer,
        "scale and shift of each channel are missing.": F.instance_norm(x, eps=EPS),
        "the variance is divided by H·W here: correction=0.": unbiased,
    }
    return F.instance_norm(x, weight=scale, bias=shift, eps=EPS), mistakes


@exercise([(random(n, 3),) for n in range(3)])
def q04_2(k: Tensor) -> Known:
    """Enlarge by two, then three weights: as two pairs of weights on the small signal, one for each place."""
    # Place 2i of the large signal sees x[i-1], x[i], x[i]; place 2i + 1 sees x[i], x[i], x[i+1].
    even, odd = torch.stack([k[0], k[1] + k[2]]), torch.stack([k[0] + k[1], k[2]])
    turned = "the pairs are right, and in the other order: an even place sees its left neighbor once."
    return (even, odd), {turned: (odd, even)}


@exercise(
    [
        (random(n, *shape), random(n + 30, *shape), random(n + 60, shape[1], shape[1]), 10.0 + n)
        for n, shape in enumerate(((3, 4, 5, 6), (2, 3, 7, 4), (4, 2, 3, 5)))
    ],
)
def q04_3(of_y: Tensor, of_x: Tensor, target: Tensor, weight: float) -> Known:
    """The loss of a batch at one layer: features (N, C, H, W) of the results and of what they were made from,
    the painting's Gram matrix (C, C) and the weight of the style -> a number.
    """

    def loss(gram: Tensor) -> Tensor:
        return F.mse_loss(of_y, of_x) + weight * (gram - target).square().mean()

    psi, positions = of_y.flatten(2), of_y[0, 0].numel()
    products = psi @ psi.mT
    grams = products / psi[0].numel()
    sums = (of_y - of_x).square().sum() + weight * (grams - target).square().sum()
    exchanged = weight * F.mse_loss(of_y, of_x) + (grams - target).square().mean()
    mistakes = {
        "each picture of the batch has its own Gram matrix: do not average them first.": loss(grams.mean(0)),
        "a Gram matrix is divided by C·H·W; yours is not divided.": loss(products),
        "a Gram matrix is divided by C·H·W; yours is divided by H·W.": loss(products / positions),
        "means of the squares, not sums.": sums,
        "the weight belongs to the style.": exchanged,
        "the results' features make the Gram matrix, not the contents'.": loss(
            of_x.flatten(2) @ of_x.flatten(2).mT / psi[0].numel()
        ),
    }
    return loss(grams), mistakes


# So many positions that deviations divided by n or n - 1, with a small epsilon or without, are all right.
SIZES = (((3, 30, 34), (3, 32, 32)), ((4, 31, 33), (4, 33, 31)), ((2, 40, 25), (2, 25, 41)))


@exercise([(2 * random(n, *c) + 1, 3 * random(n + 9, *s) - 2) for n, (c, s) in enumerate(SIZES)], rtol=3e-3)
def q04_4(content: Tensor, style: Tensor) -> Known:
    """AdaIN, equation 8 of Huang and Belongie: features (C, H, W) of content and style -> (C, H, W)."""
    (d_c, m_c), (d_s, m_s) = (torch.std_mean(x, (1, 2), keepdim=True) for x in (content, style))
    plain = (content - m_c) / d_c
    common = plain * style.std() + style.mean()
    exchanged = "content and style are exchanged: the content's features get the style's moments."
    mistakes = {
        exchanged: d_c * (style - m_s) / d_s + m_c,
        "normalized, but the style's deviation and mean are still to come.": plain,
        "deviations, not variances, scale the features.": d_s**2 * plain / d_c + m_s,
        "the style's mean is there, its deviation is missing.": plain + m_s,
        "each channel has its own mean and deviation: average over positions only.": common,
    }
    return d_s * plain + m_s, mistakes


@exercise([(1190, 10, 60), (100, 1, 11), (7, 0.25, 2), (0, 1, 2), (3600, 0.4, 30), (10, 3, 2)])
def q04_5(training: float, one_pass: float, optimization: float) -> Known:
    """From how many pictures on a network saves time: (training, a pass, an optimization), in seconds."""
    saved = optimization - one_pass
    if saved <= 0:
        return math.inf, {}
    mistakes = {
        "with so many both take the same time; the network is to be quicker.": math.ceil(training / saved),
        "the network's own passes take time, too.": math.floor(training / optimization) + 1,
    }
    # The least n with training + n · pass < n · optimization.
    return math.floor(training / saved) + 1, mistakes
