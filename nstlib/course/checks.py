"""Exercise checkers: ``checks.q01_1(my_gram)`` says what is right, or what to look at.

Each takes the reader's answer, prints one sentence and says whether it is right; it never raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage import exposure
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from ..losses import gram_matrix, style_weight_factor
from ..nets.vgg import architecture
from .exercise import UNANSWERED, Known, entries, exercise, missing, random, verdict

# --- 01 the Gram matrix, 02 layers

NETWORKS = {name: architecture(name) for name in ("vgg16", "vgg19", "alexnet")}
CONVOLUTIONS = {
    network: [layer for layer in layers if layer.kind == "conv"] for network, layers in NETWORKS.items()
}


def _gram(f: Tensor) -> Tensor:
    return f.flatten(1) @ f.flatten(1).T


@exercise([(random(n, *s),) for n, s in enumerate(((3, 4, 5), (5, 7, 2), (8, 1, 6), (1, 3, 3)))])
def q01_1(f: Tensor) -> Known:
    """The Gram matrix of paper A (1): (C, H, W) -> (C, C), a plain sum over positions."""
    right = _gram(f)
    return right, {
        "that compares positions; the Gram matrix compares channels, (C, C).": f.flatten(1).T @ f.flatten(1),
        "you divide by H·W; equation (1) of paper A is a plain sum.": right / f[0].numel(),
        "you divide by C·H·W; equation (1) of paper A is a plain sum.": right / f.numel(),
    }


def q01_2(shuffle: Callable[[Tensor, torch.Generator], Tensor]) -> bool:
    """Shuffle positions so that the Gram matrix stays: one permutation, the same for every channel."""

    def judge() -> str | None:
        for seed, shape in enumerate(((3, 6, 5), (4, 9, 8), (2, 16, 16))):
            features = random(seed, *shape)
            answer = shuffle(features.clone(), torch.Generator().manual_seed(seed))
            if missing(answer):
                return UNANSWERED
            if tuple(answer.shape) != shape:
                return f"the shape must stay {shape}, yours is {tuple(answer.shape)}."
            if torch.equal(answer, features):
                return "nothing has moved."
            if not torch.equal(answer.flatten(1).sort()[0], features.flatten(1).sort()[0]):
                return "each channel must keep its own values; only their places change."
            if not torch.allclose(_gram(features), _gram(answer)):
                return "the Gram matrix has changed: every channel must be shuffled by the SAME permutation."
            if (answer != features).any(0).double().mean() < 0.5:
                return "only a few positions have moved; shuffle all of them."
        return None

    return verdict("1.2", judge)


def q01_3(answer: Mapping[str, int]) -> bool:
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
    return entries("1.3", answer, right, mistakes, kind="number", otherwise=otherwise)


@exercise([(random(n, *s), _gram(random(n + 50, *s, 1))) for n, s in enumerate(((3, 7), (6, 4), (1, 5)))])
def q01_4(f: Tensor, target: Tensor) -> Known:
    """Gradient of ``sum_ij (G_ij - A_ij)²`` with respect to F (C, M), A symmetric: 4 (G - A) F."""
    right = jacobian(lambda f: (f @ f.T - target).square().sum(), f)
    mistakes = {"the sign is wrong: this is the way downhill, not the gradient.": -right}
    for factor in (2, 4, 0.5):
        hint = f"right up to a factor: autograd has {factor} times yours; F is twice in G = F Fᵀ."
        mistakes[hint] = right / factor
    return right, mistakes


@exercise([(random(n, 3, 7), random(n + 5, 3, 7), _gram(random(n + 9, 3, 7)), 2.0, 0.25) for n in range(3)])
def q01_5(f: Tensor, content: Tensor, gram: Tensor, alpha: float, beta: float) -> Known:
    """Paper A (2) to (4) for one layer: F (C, M), content's F (C, M), style's Gram matrix -> a number."""
    content_loss, style_loss = (f - content).square().sum(), (_gram(f) - gram).square().sum()
    means = alpha * (f - content).square().mean() + beta * (_gram(f) - gram).square().mean()
    return alpha * content_loss + beta * style_loss, {
        "alpha belongs to the content, beta to the style.": beta * content_loss + alpha * style_loss,
        "(2) and (3) are sums, not means.": means,
        "the content is compared by the features themselves, not by Gram matrices (slip 1).": alpha
        * (_gram(f) - _gram(content)).square().sum()
        + beta * style_loss,
        "square the differences: (2) and (3) are squared norms.": alpha * content_loss.sqrt()
        + beta * style_loss.sqrt(),
    }


def _triples(network: str) -> list[tuple[int, int, int]]:
    into = [3, *(layer.channels for layer in CONVOLUTIONS[network])]
    return [(layer.kernel, i, layer.channels) for layer, i in zip(CONVOLUTIONS[network], into, strict=False)]


@exercise([(_triples(network),) for network in NETWORKS])
def q02_1(triples: Sequence[tuple[int, int, int]]) -> Known:
    """Parameters of a stack of convolutions given as (kernel, channels in, channels out)."""
    weights = sum(k * k * i * o for k, i, o in triples)
    biases = sum(o for _, _, o in triples)
    return weights + biases, {"you forgot the biases, one for each output channel.": weights}


def _steps(network: str, last: str) -> list[tuple[int, int]]:
    names = [layer.name for layer in NETWORKS[network]]
    return [(layer.kernel, layer.stride) for layer in NETWORKS[network][: names.index(last) + 1]]


LAST = (("vgg16", "conv3_1"), ("vgg19", "conv5_4"), ("alexnet", "conv4"), ("vgg16", "conv1_2"))


@exercise([(_steps(*last),) for last in LAST])
def q02_2(pairs: Sequence[tuple[int, int]]) -> Known:
    """Receptive field and step from a list of (kernel, stride)."""
    side = step = 1
    for kernel, stride in pairs:
        side, step = side + (kernel - 1) * step, step * stride
    before = 1 + sum((k - 1) * math.prod(s for _, s in pairs[: n + 1]) for n, (k, _) in enumerate(pairs))
    return (side, step), {
        f"each of the {len(pairs)} layers adds (kernel - 1) times the step BEFORE it.": (before, step),
        "the step is the product of all strides.": (side, sum(s for _, s in pairs)),
    }


def q02_3(style: Sequence[str], content: Sequence[str]) -> bool:
    """Paper A's layers by name: the first five convolutions, and the fifth and sixth."""

    def judge() -> str | None:
        if missing(style) or missing(content) or not style or not content:
            return "not answered yet; give two lists of names such as 'conv1_1'."
        names = [layer.name for layer in CONVOLUTIONS["vgg16"]]
        if any(name not in names for name in [*style, *content]):
            return f"the names are {', '.join(names[:7])}, ..."
        if sorted(style) == [f"conv{block}_1" for block in range(1, 6)]:
            return "these are the five BLOCKS of papers B and D; A says the first five convolutions."
        if sorted(style) != names[:5]:
            return "style: count the convolutions from the input, across the pooling layers, up to five."
        if sorted(content) != names[4:6]:
            return "the style layers are right; content: the fifth and the sixth convolution."
        return None

    return verdict("2.3", judge)


def q02_4(names: Mapping[str, str]) -> bool:
    """The PyTorch tutorial's "conv_1" ... "conv_5" in the field's names."""
    right = {f"conv_{i}": CONVOLUTIONS["vgg19"][i - 1].name for i in range(1, 6)}
    blocks = {f"conv_{i}": f"conv{i}_1" for i in range(1, 6)}
    mistakes = {"one would expect that, but the tutorial counts convolutions, not blocks.": blocks}
    otherwise = "count the convolutions of VGG-19 from the input."
    return entries("2.4", names, right, mistakes, kind="name", otherwise=otherwise)


# --- 03 optimizers and weights


def _moments(gradient: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()


def _adam_cases() -> list[tuple[Tensor, Tensor, Tensor, int]]:
    cases = []
    for seed in range(3):
        m = v = torch.zeros(4, dtype=torch.float64)
        for t in range(1, 5):
            gradient = random(10 * seed + t, 4)
            cases.append((gradient, m, v, t))
            m, v = _moments(gradient, m, v)
    return cases


@exercise(_adam_cases(), rtol=1e-5)
def q03_1(gradient: Tensor, m: Tensor, v: Tensor, t: int) -> Known:
    """One step of Adam: (gradient, m, v, t) -> (change of x, new m, new v); lr 0.02, betas 0.9, 0.999."""
    m, v = _moments(gradient, m, v)
    change = -0.02 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    short = "step 1 is too long: divide m by 1 - 0.9^t and v by 1 - 0.999^t."
    return (change, m, v), {
        "the sign is wrong: x changes against the gradient.": (-change, m, v),
        short: (-0.02 * m / (v.sqrt() + 1e-8), m, v),
    }


FUNCTIONS: list[Callable[[Tensor], Tensor]] = [
    lambda x: (x**4).sum() + (x[0] * x[1] * x[2]),
    lambda x: torch.outer(x, x).sub(1).square().sum(),
    lambda x: x.sin().prod() + x.exp().sum(),
]


@exercise([(f, random(20 + n, 3 + n), random(70 + n, 3 + n)) for n, f in enumerate(FUNCTIONS)])
def q03_2(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Known:
    """Hessian times a vector without the Hessian: (f, x, v) -> H(x) v, by differentiating twice."""
    return hessian(f, x) @ v, {
        "this is the gradient, not its derivative: differentiate gradient · v once more.": jacobian(f, x),
        "this is the gradient times v, entry by entry: sum them and differentiate again.": jacobian(f, x) * v,
        "this is H times ones: where does v come in?": hessian(f, x).sum(1),
    }


@exercise([(d, t, u) for d in (-2.0, 0.0, 0.1, 0.5, 3.0) for t in (0.1, 1.0, 5.0) for u in (0.05, 0.5, 0.95)])
def q03_3(change: float, temperature: float, u: float) -> Known:
    """Metropolis' rule: (change of the loss, temperature, uniform number in [0, 1)) -> take the step?"""
    if change <= 0:
        return True, {f"a step that does not raise the loss (change {change}) is always taken.": False}
    bound = math.exp(-change / temperature)
    hint = f"a worse picture is taken if u is below exp(-{change}/{temperature}) = {bound:.3f}, and u is {u}."
    return u < bound, {hint: u >= bound}


@exercise([(1.0, 64, 4096), (5.0, 512, 196), (0.1, 3, 7)])
def q03_4(w: float, c: int, m: int) -> Known:
    """A layer's style weight found with Gatys' notebook's scale, in that of PyTorch's tutorial: (w, C, M)."""
    factor = style_weight_factor("gatys_notebook", "neural_style_pt", c, m)
    return w * factor, {
        "the wrong way round: the tutorial's loss is smaller, so its weight is larger.": w / factor,
        "the Gram matrix is C times smaller, but the loss is its SQUARED difference.": w * c,
    }


@exercise(
    [(random(70, 3, 4, 5), random(90, 4, 5).sigmoid()), (random(71, 5, 7, 2), random(91, 7, 2).sigmoid())],
)
def q03_5(f: Tensor, mask: Tensor) -> Known:
    """Paper E (10) with the region's own size taken out: F (C, H, W), mask (H, W) -> (C, C)."""
    rows, positions = (f * mask).flatten(1), mask.numel()
    plain, late = rows @ rows.T, rows @ f.flatten(1).T / mask.sum()
    return gram_matrix(f[None], "hw", mask[None, None])[0], {
        "not divided yet: a large region outweighs a small one; divide by the sum of m².": plain,
        "you divide by H·W; each position weighs m², so their sum is the divisor.": plain / positions,
        "you divide by the sum of m; each position weighs m².": plain / mask.sum(),
        "mask the features BEFORE the product, as (10) does: then each position weighs m², not m.": late,
    }


# --- 04 fast networks

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


# So many positions that deviations divided by n or n - 1, with a small epsilon or without, are all right.
SIZES = (((3, 30, 34), (3, 32, 32)), ((4, 31, 33), (4, 33, 31)), ((2, 40, 25), (2, 25, 41)))


@exercise([(2 * random(n, *c) + 1, 3 * random(n + 9, *s) - 2) for n, (c, s) in enumerate(SIZES)], rtol=3e-3)
def q04_3(content: Tensor, style: Tensor) -> Known:
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
def q04_4(training: float, one_pass: float, optimization: float) -> Known:
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


# --- 05 DualStyleGAN

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


# --- 06 regions


def _field(height: int, dilated: bool, pools: bool = True, last: int = 2) -> int:
    side, step = 3, 1  # the first convolution, rebnconvin
    for n in range(1, height + 1):
        if 1 < n < height and not dilated:
            side, step = side + step * pools, 2 * step
        side += 2 * step * (2 ** (n - 1) if dilated else last if n == height else 1)
    return side


@exercise([(height, dilated) for height in (3, 4, 5, 6, 7) for dilated in (False, True)])
def q06_1(height: int, dilated: bool) -> Known:
    """The field of the deepest convolution of an RSU: its height, and whether it is dilated -> pixels."""
    right = _field(height, dilated)
    if dilated:
        plain = 3 + 2 * height
        return right, {
            "a dilation of d reaches 2 d further, and d doubles from block to block.": plain,
            "the first convolution, rebnconvin, is missing.": right - 2,
        }
    return right, {
        "a pooling of 2 × 2 reaches further, too: by the step before it.": _field(height, False, pools=False),
        "the last convolution has dilation 2: it reaches twice as far.": _field(height, False, last=1),
        "the first convolution, rebnconvin, is missing.": right - 2,
        "the last block does not pool; it is dilated instead.": _field(height + 1, False, last=1) - 2,
    }


def _attention_cases() -> list[tuple[Tensor, ...]]:
    cases = []
    for n, (channels, here, there) in enumerate(((3, 5, 7), (4, 8, 6), (2, 6, 6))):
        numbers = [torch.arange(count) % 3 for count in (here, there)]
        cases.append((random(n, channels, here), random(n + 60, channels, there), *numbers))
    return cases


@exercise(_attention_cases())
def q06_2(query: Tensor, key: Tensor, regions: Tensor, style_regions: Tensor) -> Known:
    """Attention within regions: (C, N), (C, M), and the region of each place, (N,), (M,) -> (N, M)."""
    scores, same = query.T @ key, regions[:, None] == style_regions
    right = scores.masked_fill(~same, -math.inf).softmax(1)
    mistakes = {
        "the COLUMNS sum to one: each place of the photograph shares out its look, over the artwork's.": (
            scores.masked_fill(~same, -math.inf).softmax(0)
        ),
        "a score of 0 is no score: e to the 0 is 1, and the place is still looked at.": (
            (scores * same).softmax(1)
        ),
        "the rows no longer sum to one: mask BEFORE the softmax.": scores.softmax(1) * same,
        "the regions are missing.": scores.softmax(1),
        "no root of C here: style attention takes the scores as they are.": (
            (scores / len(query) ** 0.5).masked_fill(~same, -math.inf).softmax(1)
        ),
    }
    return right, mistakes


def _looped_gram(f: Tensor, mask: Tensor) -> Tensor:
    """(10), entry by entry: the sum over positions of what two masked channels are, multiplied."""
    rows = [[(a * mask * b * mask).sum() for b in f] for a in f]
    return torch.stack([torch.stack(row) for row in rows])


def _soft_mask(seed: int, *shape: int) -> Tensor:
    return random(seed, *shape).sigmoid()


@exercise(
    [
        (random(n, *a), _soft_mask(n + 9, *a[1:]), random(n + 20, *b), _soft_mask(n + 30, *b[1:]))
        for n, (a, b) in enumerate((((3, 4, 5), (3, 4, 5)), ((4, 6, 2), (4, 3, 7)), ((2, 5, 5), (2, 2, 9))))
    ],
)
def q06_3(f: Tensor, mask: Tensor, target: Tensor, target_mask: Tensor) -> Known:
    """Paper E (9), (10) of one layer and region: features (C, H, W) and mask (H, W) of both -> a number."""
    apart = _looped_gram(f, mask) - _looped_gram(target, target_mask)
    right = apart.square().sum() / f.numel()
    late = _looped_gram(f, mask.sqrt()) - _looped_gram(target, target_mask.sqrt())
    plain = f.flatten(1) @ f.flatten(1).T - target.flatten(1) @ target.flatten(1).T
    return right, {
        "the sum of squares is right; (9) divides it by C·H·W of the picture's own features.": right
        * f.numel(),
        "(9) divides by C·H·W, not by the number of entries C².": right * f.numel() / len(f) ** 2,
        "(9) divides the squared distance once; you divide each Gram matrix.": right / f.numel(),
        "(9) squares the differences.": apart.abs().sum() / f.numel(),
        "the masks are missing.": plain.square().sum() / f.numel(),
        "mask BOTH factors of the product: each position weighs m².": late.square().sum() / f.numel(),
    }


@exercise([(random(n, a), random(n + 40, b)) for n, (a, b) in enumerate(((9, 9), (12, 7), (6, 15)))])
def q06_4(x: Tensor, reference: Tensor) -> Known:
    """Histogram matching of one channel: n values, no two alike, and m of the reference -> n values."""
    matched = torch.from_numpy(exposure.match_histograms(x.numpy(), reference.numpy()))
    ranks, m = x.argsort().argsort(), len(reference)
    steps, values = torch.arange(1, m + 1) / m, reference.sort().values
    from_zero = np.interp(ranks / len(x), steps, values)
    turned = np.interp((len(x) - ranks) / len(x), steps, values)
    in_order = torch.from_numpy(np.interp(torch.arange(1, len(x) + 1) / len(x), steps, values))
    moments = (x - x.mean()) / x.std() * reference.std() + reference.mean()
    return matched, {
        "the values are right, the places are not: each value goes where its rank is.": in_order,
        "one rank too low: the k-th smallest of n has k of the n values at or below it.": from_zero,
        "turned around: the darkest place gets the brightest value.": turned,
        "that matches mean and deviation only; all ranks count.": moments,
    }


Scores = Callable[[Tensor], Tensor]


def _critic_cases() -> list[tuple[Any, ...]]:
    def encode(x: Tensor) -> Tensor:
        return (2 * x.double()).tanh()

    def judge(x: Tensor) -> Tensor:
        return x.double().mean((1, 2, 3)) * 3 + x.double()[:, 0, 0, 0]

    return [(encode, judge, *(random(10 * n + k, n + 1, 3, 4, 4) for k in range(4))) for n in range(3)]


@exercise(_critic_cases())
def q06_5(
    encode: Scores, judge: Scores, photos: Tensor, artworks: Tensor, painted: Tensor, unpainted: Tensor
) -> Known:
    """E (12) as printed, and mended: encoder, discriminator, I_c, I_s, I_c^T, I_s^S -> two numbers."""

    def value(real: Tensor, fake: Tensor) -> Tensor:
        return F.logsigmoid(judge(real)).mean() + F.logsigmoid(-judge(fake)).mean()

    printed, mended = value(encode(photos), encode(painted)), value(photos, unpainted)
    swapped = value(encode(photos), encode(unpainted))
    return (printed, mended), {
        "mended, the fake photograph is I_s^S, the artwork made a photograph.": (
            printed,
            value(photos, painted),
        ),
        "as printed D_S gets I_c^T, the stylized photograph.": (swapped, mended),
        "mended D_S sees pictures, not features.": (printed, swapped),
        "(12) is what a discriminator raises; you give what it lowers.": (-printed, -mended),
        "D_S judges photographs; artworks are for D_T.": (printed, value(artworks, painted)),
    }


# --- 07 metrics


def _pair(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Two pictures, or windows of them, that have something in common."""
    x, noise = (random(seed + k, *shape).sigmoid() for k in (0, 1))
    return x, torch.lerp(x, noise, 0.3)


@exercise([_pair(seed, 3, 8, 9) for seed in (1, 4, 9)])
def q07_1(x: Tensor, y: Tensor) -> Known:
    """PSNR, paper A (12): two pictures in [0, 1] -> decibels."""
    error = (x - y).square().mean()
    right = -10 * error.log10()
    mistakes = {
        "the sign is turned: MAX² stands above the error, so a small error is many dB.": -right,
        "MAX is the largest value a pixel can have: 1 here, not 255.": right + 20 * math.log10(255),
        "that is the natural logarithm; decibels count powers of ten.": -10 * error.log(),
        "a tenth of it: that is bel, and ten decibels are one.": right / 10,
        "the logarithm's argument is MAX² / MSE, not the square of that.": 2 * right,
    }
    return right, mistakes


def _ssim(x: Tensor, y: Tensor, correction: int = 0, luminance: bool = True) -> Tensor:
    c1, c2 = 0.01**2, 0.03**2
    covariance = ((x - x.mean()) * (y - y.mean())).sum() / (len(x) - correction)
    variances = x.var(correction=correction) + y.var(correction=correction)
    means = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    return (means if luminance else 1) * (2 * covariance + c2) / (variances + c2)


def _negative(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, 1 - y


@exercise([_pair(2, 72), _pair(5, 72), _negative(*_pair(8, 72))], rtol=1e-6)
def q07_2(x: Tensor, y: Tensor) -> Known:
    """SSIM of one window, paper A (11): two lists of values in [0, 1], all of one weight -> a number."""
    right = _ssim(x, y)
    unbiased = "you divide by n - 1: with the window's own weights, 1/n each, the divisor is n."
    mistakes = {
        unbiased: _ssim(x, y, correction=1),
        "the first fraction, of the means, is missing.": _ssim(x, y, luminance=False),
        "a negative of the picture has a negative covariance: leave its sign.": right.abs(),
    }
    return right, mistakes


@exercise(
    [(random(n, 5), random(n + 2, 5).exp(), random(n + 1, 5), random(n + 3, 5).exp()) for n in (3, 6, 7)],
)
def q07_3(m: Tensor, v: Tensor, n: Tensor, w: Tensor) -> Known:
    """FID of diagonal normal distributions: means and variances of both sets -> a number."""
    means, spreads = (m - n).square().sum(), (v.sqrt() - w.sqrt()).square().sum()
    right = means + spreads
    mistakes = {
        "variances were given: their roots are compared.": means + (v - w).square().sum(),
        "the means are missing: their squared distance comes first.": spreads,
        "only the means are compared: the spreads differ, too.": means,
        "FID is the SQUARED distance; Fréchet's own is its root.": right.sqrt(),
        "it is a sum over dimensions, not a mean.": right / len(m),
        "the root is subtracted: - 2 (v w)^½.": means + (v.sqrt() + w.sqrt()).square().sum(),
    }
    return right, mistakes


def _kernels(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (a @ a.T / 3 + 1) ** 3, (b @ b.T / 3 + 1) ** 3, (a @ b.T / 3 + 1) ** 3


def _off_diagonal(k: Tensor) -> Tensor:
    return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))


@exercise(
    [_kernels(random(s, n, 3), random(s + 20, m, 3)) for s, (n, m) in enumerate(((5, 5), (4, 7), (6, 3)))],
)
def q07_4(aa: Tensor, bb: Tensor, ab: Tensor) -> Known:
    """KID from its three matrices of kernel values, (n, n), (m, m), (n, m) -> a number."""
    n, m = ab.shape
    own, between = _off_diagonal(aa) + _off_diagonal(bb), ab.mean()
    fewer = _off_diagonal(aa) * (n - 1) / n + _off_diagonal(bb) * (m - 1) / m
    biased = "a picture is no pair with itself: leave the diagonals out, or it is biased like FID."
    mistakes = {
        biased: aa.mean() + bb.mean() - 2 * between,
        "without the diagonal n (n - 1) values are left: divide by that.": fewer - 2 * between,
        "the pairs between the sets count twice.": own - between,
        "between the sets all pairs count: a_i and b_i are different pictures.": own - 2 * _off_diagonal(ab),
    }
    return own - 2 * between, mistakes


SHARES = [(round(100 * k / n, 2), n) for n in (7, 35, 48) for k in (0, 1, n // 2, n - 1, n)]
SHARES += [(19.17, 35), (5.56, 35), (14.28, 35), (14.3, 7), (33.33, 35), (2.87, 35), (105.71, 35)]


@exercise(SHARES)
def q07_5(percent: float, voters: int) -> Known:
    """Whether a share, in percent with two decimals, can come from so many voters."""
    k = round(percent * voters / 100)
    if percent > 100:
        return False, {f"{percent} % would be more than all {voters} voters.": True}
    if percent == round(100 * k / voters, 2):
        return True, {f"{percent} % is {k} of {voters} voters, rounded to two decimals.": False}
    return False, {f"{percent} % of {voters}: {k} voters would be {100 * k / voters:.2f} %.": True}


@exercise([(random(n, m), random(n + 9, m)) for n, m in enumerate((7, 4, 11, 2))])
def q07_6(a: Tensor, b: Tensor) -> Known:
    """Kendall's tau of two lists of scores without ties: (n,), (n,) -> a number."""
    i, j = torch.triu_indices(len(a), len(a), 1)
    agree = ((a[i] - a[j]).sign() * (b[i] - b[j]).sign()).mean()
    ranks = [x.argsort().argsort().double() for x in (a, b)]
    spearman = torch.corrcoef(torch.stack(ranks))[0, 1]
    return agree, {
        "that is the share of pairs in the same order; subtract the share in opposite order.": (1 + agree)
        / 2,
        "each pair counts once: there are n (n - 1) / 2 of them.": agree / 2,
        "that correlates the ranks (Spearman); tau counts pairs.": spearman,
        "that correlates the scores themselves; tau looks at their order alone.": torch.corrcoef(
            torch.stack([a, b])
        )[0, 1],
    }


@exercise([(1.0, 0.5), (-0.5, 1.5), (0.3, 0.2), (2.0, -1.0)])
def q07_7(first: float, second: float) -> Known:
    """Bradley and Terry's probability that the first of two methods wins, from the strengths ln p."""
    right = 1 / (1 + math.exp(second - first))
    return right, {
        "the strengths are logarithms: take exp of them first.": first / (first + second),
        "that is the second one's probability to win.": 1 - right,
        "that is the odds, p / (1 - p), not the probability.": right / (1 - right),
    }
