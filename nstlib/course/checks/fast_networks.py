"""Exercises of notebook 04."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ._verdict import UNANSWERED, Outcome, equal, features_of, missing, verdict

EPS = 1e-5


def q04_1(instance_norm: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """Instance normalization: (N, C, H, W), scale (C), shift (C) -> (N, C, H, W); eps 1e-5."""

    def judge() -> Outcome:
        for seed, (n, c, h, w) in enumerate(((2, 3, 4, 5), (3, 2, 6, 3), (1, 4, 2, 2))):
            x = torch.stack([3 * features_of(10 * seed + k, (c, h, w)) + k for k in range(n)])
            scale, shift = (features_of(50 + seed + k, (c, 1, 1)).flatten() for k in (0, 9))
            answer = instance_norm(x.clone(), scale.clone(), shift.clone())
            if missing(answer):
                return UNANSWERED
            right = F.instance_norm(x, weight=scale, bias=shift, eps=EPS)
            if answer.shape == right.shape and equal(answer, right):
                continue
            batch = F.batch_norm(x, None, None, scale, shift, training=True, eps=EPS)
            layer = F.group_norm(x, 1, scale, shift, eps=EPS)
            plain = F.instance_norm(x, eps=EPS)
            unbiased = (h * w - 1) / (h * w)
            ratio = (x - x.mean((2, 3), keepdim=True)) / (
                x.var((2, 3), keepdim=True, correction=0) / unbiased + EPS
            ).sqrt()
            for wrong, hint in (
                (batch, "that is batch normalization: each PICTURE has its own mean and variance."),
                (layer, "each CHANNEL has its own mean and variance: do not average over channels."),
                (plain, "scale and shift of each channel are missing."),
                (
                    ratio * scale.view(-1, 1, 1) + shift.view(-1, 1, 1),
                    "the variance is divided by H·W here: correction=0.",
                ),
            ):
                if answer.shape == wrong.shape and n > 1 and equal(answer, wrong):
                    return hint
            if answer.shape != right.shape:
                return f"the shape stays {tuple(right.shape)}, yours is {tuple(answer.shape)}."
            first, own = right.flatten()[0], answer.flatten()[0]
            return f"torch gives {first:.4f} at the first position, yours {own:.4f}."
        return None

    return verdict("Exercise 4.1", judge)


def q04_2(folded: Callable[[Tensor], tuple[Tensor, Tensor]]) -> bool:
    """Enlarge by two, then three weights: as two pairs of weights on the small signal, one for each place."""

    def judge() -> Outcome:
        for seed in range(3):
            k, x = (features_of(seed + 20 * n, (size, 1, 1)).flatten() for n, size in ((0, 3), (1, 6)))
            large = x.repeat_interleave(2)
            right = (large.unfold(0, 3, 1) * k).sum(1)  # centered at 1, 2, ... of the large signal
            answer = folded(k.clone())
            if missing(answer):
                return UNANSWERED
            if len(answer) != 2 or any(len(pair) != 2 for pair in answer):
                return "two pairs are wanted: the first for even places, the second for odd ones."
            even, odd = (torch.as_tensor(pair, dtype=torch.float64) for pair in answer)
            pairs = x.unfold(0, 2, 1)
            # Place 2i+1 of the large signal sees x_i, x_i, x_{i+1}; place 2i sees x_{i-1}, x_i, x_i.
            got_odd, got_even = (pairs * odd).sum(1), (pairs * even).sum(1)
            fine_odd, fine_even = equal(got_odd, right[0::2]), equal(got_even, right[1::2])
            if fine_odd and fine_even:
                continue
            if equal(got_odd, right[1::2]) and equal(got_even, right[0::2]):
                return (
                    "the pairs are right, and in the other order: an even place sees its left neighbor once."
                )
            if fine_odd or fine_even:
                place = "even" if fine_odd else "odd"
                return f"one pair is right; look again at what an {place} place sees."
            return "write down what a place 2i sees of the enlarged signal: x[i-1], x[i], x[i]; then 2i + 1."
        return None

    return verdict("Exercise 4.2", judge)


def q04_3(adain: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """AdaIN, equation 8 of Huang and Belongie: features (C, H, W) of content and style -> (C, H, W)."""

    def judge() -> Outcome:
        for seed, (c, s) in enumerate(
            (((3, 4, 5), (3, 6, 2)), ((4, 3, 3), (4, 5, 5)), ((2, 7, 2), (2, 3, 4)))
        ):
            content, style = 2 * features_of(seed, c) + 1, 3 * features_of(seed + 30, s) - 2
            answer = adain(content.clone(), style.clone())
            if missing(answer):
                return UNANSWERED

            def moments(x: Tensor, dim: tuple[int, ...] = (1, 2)) -> tuple[Tensor, Tensor]:
                deviation, mean = torch.std_mean(x, dim, keepdim=True)
                return mean, deviation

            (m_c, d_c), (m_s, d_s) = moments(content), moments(style)
            right = d_s * (content - m_c) / d_c + m_s

            def close(a: Tensor, b: Tensor) -> bool:  # divided by n or n - 1, with an epsilon or not
                return a.shape == b.shape and torch.allclose(a.double(), b, rtol=0.2, atol=0.05)

            exact = [
                right,
                d_s * _ratio(style) * (content - m_c) / (d_c * _ratio(content)) + m_s,
            ]
            if answer.shape == content.shape and any(
                torch.allclose(answer.double(), one, rtol=1e-3, atol=1e-3) for one in exact
            ):
                continue
            turned = None
            if content.numel() == style.numel():
                turned = d_c * (style - m_s) / d_s + m_c
            if answer.shape == style.shape != content.shape or (turned is not None and close(answer, turned)):
                return "content and style are exchanged: the content's features get the style's moments."
            if close(answer, (content - m_c) / d_c):
                return "normalized, but the style's deviation and mean are still to come."
            if close(answer, d_s**2 * (content - m_c) / d_c**2 + m_s):
                return "deviations, not variances, scale the features."
            if close(answer, (content - m_c) / d_c + m_s):
                return "the style's mean is there, its deviation is missing."
            g_m, g_d = moments(style, (0, 1, 2))
            if close(answer, g_d * (content - m_c) / d_c + g_m):
                return "each channel has its own mean and deviation: average over positions only."
            return f"channel 0 should have the mean {m_s[0].item():.3f}, yours has {answer[0].mean():.3f}."
        return None

    return verdict("Exercise 4.3", judge)


def _ratio(x: Tensor) -> float:
    """From the unbiased deviation to the biased one."""
    n = x[0].numel()
    return math.sqrt((n - 1) / n)


def q04_4(pictures: Callable[[float, float, float], int]) -> bool:
    """From how many pictures on a network saves time: (training, a pass, an optimization), in seconds."""

    def judge() -> Outcome:
        cases = [
            (1190.0, 10.0, 60.0),
            (100.0, 1.0, 11.0),
            (7.0, 0.25, 2.0),
            (0.0, 1.0, 2.0),
            (3600.0, 0.4, 30.0),
            (10.0, 3.0, 2.0),
        ]
        for training, one_pass, optimization in cases:
            answer = pictures(training, one_pass, optimization)
            if missing(answer):
                return UNANSWERED
            if one_pass >= optimization:
                if answer == math.inf:
                    continue
                return "a pass that takes longer than an optimization never pays: math.inf."
            saved = optimization - one_pass
            right = (
                math.floor(training / saved) + 1
            )  # the least n with training + n * pass < n * optimization
            if answer == right:
                continue
            if answer == math.ceil(training / saved) and training % saved == 0:
                return "with so many both take the same time; the network is to be quicker."
            if answer == math.floor(training / optimization) + 1:
                return "the network's own passes take time, too."
            return (
                f"{training:g} s of training, {one_pass:g} s a pass against {optimization:g} s: from {right} "
                f"pictures on, not {answer}."
            )
        return None

    return verdict("Exercise 4.4", judge)
