"""Checkers of notebook 04: fast networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .exercise import Known, drawn, exercise

EPS = 1e-5


PICTURES = ((2, 3, 4, 5), (3, 2, 6, 3), (1, 4, 2, 2))


@exercise([(x + 3 * x[0], *both) for x, *both in drawn(*([s, s[1:2], s[1:2]] for s in PICTURES))])
def q04_1(x: Tensor, scale: Tensor, shift: Tensor) -> Known:
    """Instance normalization: (N, C, H, W), scale (C), shift (C) -> (N, C, H, W); eps 1e-5."""
    batch = F.batch_norm(x, None, None, scale, shift, training=True, eps=EPS)
    layer = F.group_norm(x, 1, scale, shift, eps=EPS)
    variance, mean = torch.var_mean(x, (2, 3), keepdim=True)  # divided by H·W - 1
    unbiased = (x - mean) / (variance + EPS).sqrt() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    return F.instance_norm(x, weight=scale, bias=shift, eps=EPS), {
        "that is batch normalization: each PICTURE has its own mean and variance.": batch,
        "each CHANNEL has its own mean and variance: do not average over channels.": layer,
        "scale and shift of each channel are missing.": F.instance_norm(x, eps=EPS),
        "the variance is divided by H·W here: correction=0.": unbiased,
    }


@exercise(drawn(*3 * [[(3,)]]))
def q04_2(k: Tensor) -> Known:
    """Enlarge by two, then three weights: as two pairs of weights on the small signal, one for each place."""
    # Place 2i of the large signal sees x[i-1], x[i], x[i]; place 2i + 1 sees x[i], x[i], x[i+1].
    even, odd = torch.stack([k[0], k[1] + k[2]]), torch.stack([k[0] + k[1], k[2]])
    halves = torch.tensor([1, 0.5])
    means = even * halves, odd * halves.flip(0)
    return (even, odd), {
        "the pairs are in the other order: an even place sees its left neighbor once.": (odd, even),
        "the two weights that meet one pixel are added, without a mean.": means,
        "an odd place sees its own pixel twice and then its right neighbor.": (even, even),
    }


@exercise(drawn(*([s, s, (s[1], s[1]), 10.0] for s in ((3, 4, 5, 6), (2, 3, 7, 4), (4, 2, 3, 5)))))
def q04_3(of_y: Tensor, of_x: Tensor, target: Tensor, weight: float) -> Known:
    """The loss of a batch at one layer: features (N, C, H, W) of the results and of what they were made from,
    the painting's Gram matrix (C, C) and the weight of the style -> a number.
    """

    def loss(gram: Tensor) -> Tensor:
        return F.mse_loss(of_y, of_x) + weight * (gram - target).square().mean()

    products, of_contents = (f.flatten(2) @ f.flatten(2).mT for f in (of_y, of_x))
    numbers = of_y[0].numel()
    grams = products / numbers
    sums = (of_y - of_x).square().sum() + weight * (grams - target).square().sum()
    exchanged = weight * F.mse_loss(of_y, of_x) + (grams - target).square().mean()
    return loss(grams), {
        "each picture of the batch has its own Gram matrix: do not average them first.": loss(grams.mean(0)),
        "a Gram matrix is divided by C·H·W; yours is not divided.": loss(products),
        "a Gram matrix is divided by C·H·W; yours is divided by H·W.": loss(grams * of_y.shape[1]),
        "means of the squares, not sums.": sums,
        "the weight belongs to the style.": exchanged,
        "the results' features make the Gram matrix, not the contents'.": loss(of_contents / numbers),
    }


# So many positions that deviations divided by n or n - 1, with a small epsilon or without, are all right.
SIZES = (((3, 30, 34), (3, 32, 32)), ((4, 31, 33), (4, 33, 31)), ((2, 40, 25), (2, 25, 41)))


@exercise([(2 * c + 1, 3 * s - 2) for c, s in drawn(*SIZES)], rtol=3e-3)
def q04_4(content: Tensor, style: Tensor) -> Known:
    """AdaIN, equation 8 of Huang and Belongie: features (C, H, W) of content and style -> (C, H, W)."""
    (d_c, m_c), (d_s, m_s) = (torch.std_mean(x, (1, 2), keepdim=True) for x in (content, style))
    plain = (content - m_c) / d_c
    common = plain * style.std() + style.mean()
    turned = d_c * (style - m_s) / d_s + m_c
    return d_s * plain + m_s, {
        "content and style are exchanged: the content's features get the style's moments.": turned,
        "normalized, but the style's deviation and mean are still to come.": plain,
        "deviations, not variances, scale the features.": d_s**2 * plain / d_c + m_s,
        "the style's mean is there, its deviation is missing.": plain + m_s,
        "each channel has its own mean and deviation: average over positions only.": common,
    }


@exercise([(1190, 10, 60), (100, 1, 11), (7, 0.25, 2), (0, 1, 2), (3600, 0.4, 30), (10, 3, 2)])
def q04_5(training: float, one_pass: float, optimization: float) -> Known:
    """From how many pictures on a network saves time: (training, a pass, an optimization), in seconds."""
    saved = optimization - one_pass
    if saved <= 0:
        return math.inf, {}
    # The least n with training + n · pass < n · optimization.
    return math.floor(training / saved) + 1, {
        "with so many both take the same time; the network is to be quicker.": math.ceil(training / saved),
        "the network's own passes take time, too.": math.floor(training / optimization) + 1,
    }
