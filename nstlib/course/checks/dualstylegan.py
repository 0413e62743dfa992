"""Exercises of notebook 05."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._verdict import UNANSWERED, Outcome, equal, missing, verdict

EPS = 1e-8
Layer = Callable[[Tensor], Tensor]


def q05_1(modulated_conv: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """Modulated convolution: features (N, I, H, W), styles (N, I), weights (O, I, k, k) -> (N, O, H, W)."""

    def judge() -> Outcome:
        for seed, (n, inputs, outputs, side, k) in enumerate(
            ((2, 3, 4, 5, 3), (3, 2, 5, 4, 1), (1, 4, 2, 6, 3))
        ):
            x, weight = (
                _random(seed, (n, inputs, side, side + 1)),
                _random(seed + 20, (outputs, inputs, k, k)),
            )
            s = 1 + 0.8 * _random(seed + 40, (n, inputs))
            answer = modulated_conv(x.clone(), s.clone(), weight.clone())
            if missing(answer):
                return UNANSWERED
            right, plain = _modulated(x, s, weight), _convolved(x, s, weight)
            if answer.shape == right.shape and equal(answer, right):
                continue
            first = torch.cat([_modulated(x[i : i + 1], s[:1], weight) for i in range(n)])
            power = (weight * s[0, :, None, None]).square()
            for wrong, hint in (
                (
                    plain,
                    "modulated, but not demodulated: divide each output channel by its weights' norm.",
                ),
                (
                    _convolved(x, torch.ones_like(s), weight / _norm(weight[None], s.new_ones(1, inputs))[0]),
                    "the style is missing: it weighs the input channels.",
                ),
                (
                    plain / _norm(weight[None], torch.ones_like(s))[:, :, 0],
                    "the norm is that of the weights AFTER the style has weighed them.",
                ),
                (
                    plain / _norm(weight[None], s)[:, :, 0].square(),
                    "divide by the norm, which is the ROOT of the sum of squares.",
                ),
                (
                    plain / power.sum().add(EPS).sqrt(),
                    "each OUTPUT channel has a norm of its own: sum over input channels and the kernel only.",
                ),
                (first, "each picture has its own style; yours takes the first one's for all."),
            ):
                if answer.shape == wrong.shape and n > 1 and equal(answer, wrong):
                    return hint
            if answer.shape != right.shape:
                return (
                    f"the shape is {tuple(right.shape)}, with zeros around; yours is {tuple(answer.shape)}."
                )
            return f"{right.flatten()[0]:.4f} at the first position, yours has {answer.flatten()[0]:.4f}."
        return None

    return verdict("Exercise 5.1", judge)


def q05_2(modres: Callable[[Tensor, Tensor, Sequence[Layer], Sequence[Layer]], Tensor]) -> bool:
    """ModRes of its parts: features (N, C, H, W), weights (N,), two AdaIN, two convolutions -> features."""

    def judge() -> Outcome:
        for seed, n in enumerate((2, 3, 1)):
            x = _random(seed, (n, 3, 4, 5))
            norms = [
                _scaled(_random(seed + 10 + i, (3, 1, 1)), _random(seed + 12 + i, (3, 1, 1))) for i in (0, 1)
            ]
            convs = [_convolution(_random(seed + 20 + i, (3, 3, 3, 3)) / 5) for i in (0, 1)]
            residual = convs[1](norms[1](convs[0](norms[0](x))))
            weight = torch.linspace(0.8, 0.25, n, dtype=x.dtype)
            for weights in (torch.zeros_like(weight), weight):
                answer = modres(x.clone(), weights.clone(), norms, convs)
                if missing(answer):
                    return UNANSWERED
                w = weights.view(-1, 1, 1, 1)
                right = x + w * residual
                if answer.shape == right.shape and equal(answer, right):
                    continue
                if answer.shape != right.shape:
                    return f"the shape stays {tuple(right.shape)}, yours is {tuple(answer.shape)}."
                if not weights.any():
                    return "with the weight 0 the features must come out as they went in."
                turned = norms[1](convs[1](norms[0](convs[0](x))))
                for wrong, hint in (
                    (w * residual, "the features themselves are missing: the block ADDS to them."),
                    (x + residual, "the weight is missing."),
                    (x + weights[0] * residual, "each picture has its own weight."),
                    (x + w * turned, "normalize first, then convolve."),
                    (torch.lerp(x, residual, w), "the features stay whole; only what is added is weighted."),
                    (x + w * convs[0](norms[0](x)), "that is one half: normalize and convolve twice."),
                ):
                    if answer.shape == wrong.shape and equal(answer, wrong):
                        return hint
                return f"{right.flatten()[0]:.4f} at the first position, yours has {answer.flatten()[0]:.4f}."
        return None

    return verdict("Exercise 5.2", judge)


def q05_3(truncated: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """Truncation: codes (N, L, D), the mean code (D,), psi -> codes."""

    def judge() -> Outcome:
        for seed, psi in enumerate((0.7, 0.25, 1.0, 0.0)):
            w, center = _random(seed, (3, 4, 6)), 2 * _random(seed + 9, (6,)) + 1
            answer = truncated(w.clone(), center.clone(), psi)
            if missing(answer):
                return UNANSWERED
            right = center + psi * (w - center)
            if answer.shape == right.shape and equal(answer, right):
                continue
            for wrong, hint in (
                (
                    psi * w,
                    "that draws toward 0, as the released code does; here toward the center.",
                ),
                (w + psi * (center - w), "turned around: psi = 1 leaves the codes as they are."),
                (center + psi * w, "what is shortened is the way FROM the center, w - center."),
                (psi * (w - center), "the center has to be added again."),
            ):
                if answer.shape == wrong.shape and equal(answer, wrong):
                    return hint
            if answer.shape != right.shape:
                return f"the shape stays {tuple(right.shape)}, yours is {tuple(answer.shape)}."
            return (
                f"for psi {psi} the first number is {right.flatten()[0]:.4f}, not {answer.flatten()[0]:.4f}."
            )
        return None

    return verdict("Exercise 5.3", judge)


def q05_4(mixed: Callable[[Tensor, Tensor, int], Tensor]) -> bool:
    """Style mixing: codes (N, L, D) of a face and of another, and how many of the face's are kept."""

    def judge() -> Outcome:
        for seed, (layers, kept) in enumerate(((10, 7), (8, 5), (18, 6), (4, 0), (4, 4))):
            face, other = _random(seed, (2, layers, 3)), _random(seed + 30, (2, layers, 3))
            a, b = face.clone(), other.clone()
            answer = mixed(a, b, kept)
            if missing(answer):
                return UNANSWERED
            right = torch.cat([face[:, :kept], other[:, kept:]], 1)
            if not (torch.equal(a, face) and torch.equal(b, other)):
                return "the codes that were given have changed: work on a copy."
            if answer.shape == right.shape and equal(answer, right):
                continue
            swapped = torch.cat([other[:, :kept], face[:, kept:]], 1)
            last = torch.cat([other[:, : layers - kept], face[:, layers - kept :]], 1)
            if answer.shape == swapped.shape and equal(answer, swapped):
                return "turned around: the FIRST codes are the face's, the further ones the other's."
            if answer.shape == last.shape and equal(answer, last):
                return "those are the face's LAST codes; structure lies in the first."
            for off in (kept - 1, kept + 1):
                near = torch.cat([face[:, : max(off, 0)], other[:, max(off, 0) :]], 1)
                if answer.shape == near.shape and equal(answer, near):
                    return f"one off: of {layers} codes {kept} are the face's, yours keeps {off}."
            if answer.shape != right.shape:
                return f"the shape stays {tuple(right.shape)}, yours is {tuple(answer.shape)}."
            wrong = [i for i in range(layers) if not equal(answer[:, i], right[:, i])]
            return f"with {kept} of {layers} codes kept, code {wrong[0]} (from 0) is not what it should be."
        return None

    return verdict("Exercise 5.4", judge)


def _random(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _norm(weight: Tensor, style: Tensor) -> Tensor:
    """Of each picture's modulated weights (1, O, I, k, k), styles (N, I): (N, O, 1, 1, 1)."""
    modulated = weight * style[:, None, :, None, None]
    return modulated.square().sum((2, 3, 4), keepdim=True).add(EPS).sqrt()


def _convolved(x: Tensor, style: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[-1] // 2)


def _modulated(x: Tensor, style: Tensor, weight: Tensor) -> Tensor:
    return _convolved(x, style, weight) / _norm(weight[None], style)[:, :, 0]


def _scaled(deviation: Tensor, mean: Tensor) -> Layer:
    return lambda x: deviation * F.instance_norm(x.double()) + mean


def _convolution(weight: Tensor) -> Layer:
    return lambda x: F.leaky_relu(F.conv2d(x.double(), weight, padding=1), 0.2)
