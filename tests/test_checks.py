"""The exercise checkers: right answers pass, every kind of wrong one does not, and the hint says why."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from skimage import exposure

from nstlib.course import checks
from nstlib.losses import contextual_loss
from nstlib.nets.u2net import RSU

CHECKERS = {name: check for name, check in vars(checks).items() if name.startswith("q0") and callable(check)}


def crash(*_):
    raise ValueError("no idea")


# ------------------------------------------------------------------------------- 1.1 pictures as tensors


def to_tensor(array):
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 255


TENSOR_WRONG = [
    (lambda a: torch.from_numpy(a).reshape(1, 3, *a.shape[:2]) / 255, "move the axes by permute"),
    (lambda a: torch.from_numpy(a).permute(2, 0, 1)[None], "between 0 and 1: divide by 255"),
    (lambda a: to_tensor(a) * 2 - 1, "not between -1 and 1"),
    (lambda a: to_tensor(a).mT, "rows and columns have changed places"),
    (lambda a: to_tensor(a)[0], "the batch axis is missing"),
    (lambda a: to_tensor(a).flip(1), "is right, given 4 × 6 × 3 numbers"),
    (lambda a: to_tensor(a).flatten(2), "give back an answer of shape (1, 3, 4, 6)"),
]


# ------------------------------------------------------------------------------------- 1.2 the Gram matrix


def gram(features):
    rows = features.flatten(1)
    return rows @ rows.T


GRAM_WRONG = [
    (lambda f: f.flatten(1).T @ f.flatten(1), "that compares positions; the Gram matr"),
    (lambda f: gram(f) / f[0].numel(), "you divide by H·W; equation (1) of paper A is a plain sum"),
    (lambda f: gram(f) / f.numel(), "you divide by C·H·W"),
    (lambda f: gram(f)[None], "give back an answer of shape (3, 3)"),
    (lambda f: torch.cov(f.flatten(1)) * f[0].numel(), "is right, given"),
    (crash, "your code stopped with ValueError: no idea"),
]


# -------------------------------------------------------------------------------------- 1.3 the shuffle


def shuffle(features, generator):
    order = torch.randperm(features[0].numel(), generator=generator)
    return features.flatten(1)[:, order].reshape(features.shape)


def shuffle_each_channel(features, generator):
    rows = [row[torch.randperm(row.numel(), generator=generator)] for row in features.flatten(1)]
    return torch.stack(rows).reshape(features.shape)


def swap_two(features, generator):
    answer = features.clone()
    answer[:, 0, 0], answer[:, -1, -1] = features[:, -1, -1], features[:, 0, 0]
    return answer


SHUFFLE_WRONG = [
    (lambda f, g: f, "nothing has moved"),
    (lambda f, g: f.flatten(1), "the shape must stay (3, 6, 5), yours is (3, 30)"),
    (shuffle_each_channel, "every channel must be shuffled by the SAME permutation"),
    (lambda f, g: f[torch.randperm(len(f), generator=g)].flip(1), "each channel must keep its own values"),
    (swap_two, "only a few positions have moved"),
]


# ------------------------------------------------------------------------------------ 1.4 counting entries

CHANNELS = (64, 128, 256, 512, 512)
COUNTS = {f"relu{block}_1": c * (c + 1) // 2 for block, c in enumerate(CHANNELS, 1)}
COUNTS_WRONG = [
    ({f"relu{b}_1": c**2 for b, c in enumerate(CHANNELS, 1)}, "C² counts every pair twice"),
    ({f"relu{b}_1": c * (c - 1) // 2 for b, c in enumerate(CHANNELS, 1)}, "you left out the diagonal"),
    ({**COUNTS, "relu2_1": 8257}, "wrong for relu2_1: how many entries"),
    ({**COUNTS, "relu3_1": ...}, "not answered yet; give a number for each of relu1_1"),
]


# -------------------------------------------------------------------------------------- 1.5 the gradient


def gradient(features, target):
    return 4 * (features @ features.T - target) @ features


GRADIENT_WRONG = [
    (lambda f, a: gradient(f, a) / 2, "autograd has 2 times yours; F is twice in G = F Fᵀ"),
    (lambda f, a: -gradient(f, a), "the sign is wrong"),
]


# ------------------------------------------------------------------------------------ 2.1 counting weights


def count(triples):
    return sum(k * k * i * o + o for k, i, o in triples)


COUNT_WRONG = [
    (lambda t: sum(k * k * i * o for k, i, o in t), "you forgot the biases, one for each ou"),
]


# ----------------------------------------------------------------------------------- 2.2 receptive field


def field(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step *= stride
    return side, step


def field_step_too_early(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        side += (kernel - 1) * step
    return side, step


FIELD_WRONG = [
    (field_step_too_early, "each of the 11 layers adds (kernel - 1"),
    (lambda p: (field(p)[0], sum(s for _, s in p)), "the step is the product of all strides"),
    (lambda p: field(p)[0], "give back 2 values of shape (2,)"),
]


# -------------------------------------------------------------------------------------- 2.3 paper A's layers

STYLE = ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"]
CONTENT = ["conv3_1", "conv3_2"]
BLOCKS = [f"conv{block}_1" for block in range(1, 6)]
LAYERS_WRONG = [
    ((BLOCKS, CONTENT), "these are the five BLOCKS of papers B and D"),
    ((STYLE[:4], CONTENT), "style: count the convolutions from the input"),
    ((STYLE, ["conv4_2"]), "the style layers are right; content: the fifth and the sixth convolution"),
    (([name.replace("conv", "relu") for name in STYLE], CONTENT), "the names are conv1_1, conv1_2"),
    (([], []), "not answered yet; give two lists of names"),
]


# -------------------------------------------------------------------------------------- 2.4 tutorial names

NAMES = {f"conv_{index}": name for index, name in enumerate(STYLE, 1)}
NAMES_WRONG = [
    ({f"conv_{i}": f"conv{i}_1" for i in range(1, 6)}, "one would expect that, but the tutorial counts"),
    ({**NAMES, "conv_5": "conv5_1"}, "one would expect that"),
    ({**NAMES, "conv_1": "relu1_1", "conv_2": "conv2_1"}, "wrong for conv_1, conv_2: count the convolutions"),
]


# -------------------------------------------------------------------------------------------- 3.1 Adam


def adam(g, m, v, t, lr=0.02):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    return -lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8), m, v


def adam_without_correction(g, m, v, t):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    return -0.02 * m / (v.sqrt() + 1e-8), m, v


ADAM_WRONG = [
    (adam_without_correction, "step 1 is too long: divide m by 1 - 0.9^t"),
    (lambda g, m, v, t: (-adam(g, m, v, t)[0], *adam(g, m, v, t)[1:]), "the sign is wrong"),
]


# ------------------------------------------------------------------------------ 3.2 Hessian times a vector


def hvp(f, x, v):
    x = x.requires_grad_(True)
    (g,) = torch.autograd.grad(f(x), x, create_graph=True)
    return torch.autograd.grad(g @ v, x)[0]


def gradient_of(f, x):
    return torch.autograd.functional.jacobian(f, x)


HVP_WRONG = [
    (lambda f, x, v: gradient_of(f, x), "this is the gradient, not its derivative"),
    (lambda f, x, v: gradient_of(f, x) * v, "this is the gradient times v, entry by"),
    (lambda f, x, v: hvp(f, x, torch.ones_like(v)), "this is H times ones: where does v come in?"),
]


# ------------------------------------------------------------------------------------------ 3.3 Metropolis


def metropolis(change, temperature, u):
    return change <= 0 or u < math.exp(-change / temperature)


METROPOLIS_WRONG = [
    (lambda d, t, u: d <= 0, "a worse picture is taken if u is below"),
    (lambda d, t, u: u > math.exp(-d / t), "is always taken"),
]


# ------------------------------------------------------------------------------------- 3.4 a weight converted

CONVERT_WRONG = [
    (lambda w, c, m: w / c**2, "the wrong way round"),
    (lambda w, c, m: w * c, "its SQUARED difference"),
]


# ------------------------------------------------------------------------------------- 3.5 the masked Gram


def masked_gram(f, m):
    rows = (f * m).flatten(1)
    return rows @ rows.T / m.square().sum()


MASKED_WRONG = [
    (lambda f, m: masked_gram(f, m) * m.square().sum(), "not divided yet"),
    (lambda f, m: masked_gram(f, m) * m.square().sum() / m.numel(), "you divide by H·W"),
    (lambda f, m: masked_gram(f, m) * m.square().sum() / m.sum(), "you divide by the sum of m;"),
    (
        lambda f, m: (f * m.sqrt()).flatten(1) @ (f * m.sqrt()).flatten(1).T / m.sum(),
        "mask the features BEFORE",
    ),
]


# ------------------------------------------------------------------------- 4.1 instance normalization


def instance_norm(x, scale, shift, dims=(2, 3), correction=0, eps=1e-5):
    mean = x.mean(dims, keepdim=True)
    variance = x.var(dims, correction=correction, keepdim=True)
    return scale.view(-1, 1, 1) * (x - mean) / (variance + eps).sqrt() + shift.view(-1, 1, 1)


def instance_norm_of_torch(x, scale, shift):
    return torch.nn.functional.instance_norm(x.float(), weight=scale.float(), bias=shift.float())


INSTANCE_NORM_WRONG = [
    (lambda x, g, b: instance_norm(x, g, b, (0, 2, 3)), "that is batch normalization"),
    (lambda x, g, b: instance_norm(x, g, b, (1, 2, 3)), "do not average over channels"),
    (lambda x, g, b: instance_norm(x, torch.ones_like(g), 0 * b), "scale and shift"),
    (lambda x, g, b: instance_norm(x, g, b, correction=1), "divided by H·W"),
]


# ------------------------------------------------------------------------- 4.2 enlarge, then three weights


def pairs(k):
    return (k[0], k[1] + k[2]), (k[0] + k[1], k[2])


def pairs_as_tensor(k):
    return torch.stack([torch.stack(pair) for pair in pairs(k)])


PAIRS_WRONG = [
    (lambda k: pairs(k)[::-1], "in the other order"),
]


# -------------------------------------------------------------------------------------------- 4.3 AdaIN


def moments(x, correction=1, dims=(1, 2)):
    deviation, mean = torch.std_mean(x, dims, correction=correction, keepdim=True)
    return mean, deviation


def adain(content, style, correction=1):
    (m_c, d_c), (m_s, d_s) = moments(content, correction), moments(style, correction)
    return d_s * (content - m_c) / d_c + m_s


def adain_of_biased_deviations(content, style):
    return adain(content, style, correction=0)


def adain_with_epsilon(content, style):
    (m_c, d_c), (m_s, d_s) = moments(content), moments(style)
    return (d_s**2 + 1e-5).sqrt() * (content - m_c) / (d_c**2 + 1e-5).sqrt() + m_s


def normalized(content):
    mean, deviation = moments(content)
    return (content - mean) / deviation


def adain_by_variances(content, style):
    return moments(style)[1] ** 2 * normalized(content) / moments(content)[1] + moments(style)[0]


def adain_of_all_channels(content, style):
    mean, deviation = moments(style, dims=(0, 1, 2))
    return deviation * normalized(content) + mean


ADAIN_WRONG = [
    (lambda c, s: adain(s, c), "content and style are exchanged"),
    (lambda c, s: normalized(c), "are still to come"),
    (lambda c, s: normalized(c) + moments(s)[0], "its deviation is missing"),
    (adain_by_variances, "deviations, not variances"),
    (adain_of_all_channels, "each channel has its own"),
]


# ----------------------------------------------------------------------------------------- 4.4 when it pays


def break_even(training, one_pass, optimization):
    if one_pass >= optimization:
        return math.inf
    return math.floor(training / (optimization - one_pass)) + 1


def if_it_pays(count):
    return lambda t, p, o: count(t, p, o) if o > p else math.inf


BREAK_EVEN_WRONG = [
    (if_it_pays(lambda t, p, o: math.ceil(t / (o - p))), "both take the same time"),
    (if_it_pays(lambda t, p, o: math.floor(t / o) + 1), "passes take time, too"),
]


# ------------------------------------------------------------------------------------ 5 two style paths


def modulated_conv(x, s, weight, demodulate=True):
    filters = weight * s[:, None, :, None, None]
    if demodulate:
        filters = filters / (filters.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    pairs = zip(x.split(1), filters, strict=True)
    return torch.cat([torch.nn.functional.conv2d(a, f, padding=f.shape[-1] // 2) for a, f in pairs])


def modulated_features(x, s, weight):
    norm = (weight.square() * s[:, None, :, None, None].square()).sum((2, 3, 4)).sqrt()
    made = torch.nn.functional.conv2d(x * s[:, :, None, None], weight, padding=weight.shape[-1] // 2)
    return made / norm[:, :, None, None]


def demodulated_by(norm, root=True):
    """Divided by the norm over some dimensions of the weights (N, O, I, k, k), or by its square."""

    def answer(x, s, weight):
        power = (weight * s[:, None, :, None, None]).square().sum(norm, keepdim=True)[:, :, 0] + 1e-8
        return modulated_conv(x, s, weight, False) / (power.sqrt() if root else power)

    return answer


def demodulated_before(x, s, weight):
    norm = weight.square().sum((1, 2, 3)).add(1e-8).sqrt()
    return modulated_conv(x, s, weight, False) / norm[:, None, None]


MODULATED_CONV_WRONG = [
    (lambda x, s, w: modulated_conv(x, s, w, False), "not demodulated"),
    (lambda x, s, w: modulated_conv(x, torch.ones_like(s), w), "the style is missing"),
    (demodulated_before, "AFTER the style"),
    (demodulated_by((2, 3, 4), root=False), "ROOT of the sum"),
    (demodulated_by((1, 2, 3, 4)), "OUTPUT channel has a norm"),
    (lambda x, s, w: modulated_conv(x, s[:1].expand_as(s), w), "takes the first one's for all"),
]


def residual(x, norms, convs):
    return convs[1](norms[1](convs[0](norms[0](x))))


def modres(x, weight, norms, convs):
    return x + weight.view(-1, 1, 1, 1) * residual(x, norms, convs)


def modres_in_the_other_order(x, weight, norms, convs):
    return x + weight.view(-1, 1, 1, 1) * norms[1](convs[1](norms[0](convs[0](x))))


MODRES_WRONG = [
    (lambda x, w, n, c: w.view(-1, 1, 1, 1) * residual(x, n, c), "the features themselves are missing: t"),
    (lambda x, w, n, c: x + residual(x, n, c), "the weight is missing."),
    (modres_in_the_other_order, "normalize first, then convolve"),
    (lambda x, w, n, c: torch.lerp(x, residual(x, n, c), w.view(-1, 1, 1, 1)), "the features stay whole"),
    (lambda x, w, n, c: x + w[0] * residual(x, n, c), "its own weight"),
    (lambda x, w, n, c: x + w.view(-1, 1, 1, 1) * c[0](n[0](x)), "that is one half"),
]


def truncated(w, center, psi):
    return center + psi * (w - center)


TRUNCATED_WRONG = [
    (lambda w, c, p: p * w, "draws toward 0"),
    (lambda w, c, p: torch.lerp(w, c, p), "turned around"),
    (lambda w, c, p: c + p * w, "FROM the center"),
    (lambda w, c, p: p * (w - c), "added again"),
]


def mixed(face, other, kept):
    return torch.cat([face[:, :kept], other[:, kept:]], 1)


def mixed_in_place(face, other, kept):
    face[:, kept:] = other[:, kept:]
    return face


MIXED_WRONG = [
    (lambda f, o, k: mixed(o, f, k), "turned around"),
    (lambda f, o, k: mixed(o, f, f.shape[1] - k), "LAST codes"),
    (lambda f, o, k: mixed(f, o, k - 1), "one off: yours keeps one code of the f"),
    (mixed_in_place, "work on a copy"),
]


def contextual(x, y, h, center=None, by=1, over=0):
    d = (
        1
        - F.normalize(x - (y.mean(0) if center is None else center), dim=1)
        @ F.normalize(y - y.mean(0), dim=1).mT
    )
    shares = torch.softmax((1 - d / (d.min(by, keepdim=True).values + 1e-5)) / h, by)
    return -shares.max(over).values.mean().log()


def contextual_by_library(x, y, h):
    return contextual_loss(x.T[None, :, :, None], y.T[None, :, :, None], h)


CONTEXTUAL_WRONG = [
    (lambda x, y, h: contextual(x, y, h, by=0), "of the PICTURE divides one vote"),
    (lambda x, y, h: contextual(x, y, h, over=1), "of the PORTRAIT keeps its largest share"),
    (lambda x, y, h: contextual(x, y, h, x.mean(0)), "from the PORTRAIT's mean"),
    (lambda x, y, h: contextual(x, y, 1.0), "the bandwidth is missing"),
    (lambda x, y, h: -contextual(x, y, h), "the sign"),
    (lambda x, y, h: (x.mean(0) - y.mean(0)).square().sum(), "is right, given"),
]


def person_and_norms(made, plain, tensors, w_id, w_reg, p=2):
    cosine = (F.normalize(made) * F.normalize(plain)).sum(1).mean()
    return w_id * (1 - cosine) + w_reg * sum(one.norm() ** (p - 1) for one in tensors)


def one_norm(tensors):
    return [torch.cat([one.flatten() for one in tensors])]


CONTENT_TERM_WRONG = [
    (lambda a, b, t, i, r: 2 * i * F.cosine_similarity(a, b).mean() - i + person_and_norms(a, b, t, i, r),
     "1 minus it"),
    (lambda a, b, t, i, r: i * (1 - (a * b).sum(1).mean()) + r * sum(x.norm() for x in t), "by both lengths"),
    (lambda a, b, t, i, r: person_and_norms(a, b, t, i, r, p=3), "not squared"),
    (lambda a, b, t, i, r: person_and_norms(a, b, one_norm(t), i, r), "EACH tensor"),
    (lambda a, b, t, i, r: person_and_norms(a, b, t, i, r / len(t)), "not averaged"),
    (lambda a, b, t, i, r: person_and_norms(a, b, t, 1, 1), "the two weights are missing"),
    (lambda a, b, t, i, r: person_and_norms(a, b, t, r, i), "swapped"),
]  # fmt: skip


def nearest(drawn, known, dim=0, p=2):
    return torch.cdist(drawn, known).pow(p).min(dim).values.mean()


NEAREST_WRONG = [
    (lambda d, k: nearest(d, k, dim=1), "each KNOWN code looks for"),
    (lambda d, k: torch.cdist(d, k).square().mean(), "only the nearest drawn code"),
    (lambda d, k: nearest(d, k, p=1), "the distance is squared"),
    (lambda d, k: nearest(d, k) * len(k), "divided by M"),
    (lambda d, k: nearest(d, k) / d.shape[1], "a SUM over the numbers"),
]


def fusion(codes, shares, face, keep, first=7):
    style = (codes * (shares / shares.sum())[:, None, None]).sum(0)
    return torch.cat([style[:first], face[first:]]) if keep else style


FUSION_WRONG = [
    (lambda c, s, f, k: (c * s[:, None, None]).sum(0), "sum to 1"),
    (lambda c, s, f, k: fusion(c, torch.ones_like(s), f, k), "yours is the plain mean"),
    (lambda c, s, f, k: fusion(c, s, f, False), "the last codes are the face's"),
    (lambda c, s, f, k: fusion(c, s, f, k, 8), "yours begin later"),
    (lambda c, s, f, k: fusion(c, s, f, k, 6), "yours begin earlier"),
    (lambda c, s, f, k: torch.cat([f[:7], fusion(c, s, f, False)[7:]]) if k else fusion(c, s, f, k),
     "the structure is the style's"),
]  # fmt: skip


def style_pairs(style, w, first, alpha, last=None):
    made = style.repeat(len(w), 1, 1)
    made[:, first:last] = (1 - alpha) * made[:, first:last] + alpha * w[:, None]
    return made


STYLE_PAIRS_WRONG = [
    (lambda s, w, f, a: style_pairs(s, w, 0, a, f), "the FIRST codes stay the style's"),
    (lambda s, w, f, a: style_pairs(s, w, f, 1 - a), "alpha is turned around"),
    (lambda s, w, f, a: style_pairs(s, w, f, 1), "alpha is missing"),
    (lambda s, w, f, a: style_pairs(s, w, f + 1, a), "one off"),
    (lambda s, w, f, a: style_pairs(s, w, 0, a), "all codes are mixed"),
]


# --------------------------------------------------------------------------------- 6.1 the field of an RSU


def rsu_field(height, dilated):
    if dilated:
        return 3 + 2 * sum(2 ** (n - 1) for n in range(1, height + 1))
    side, step = 5, 1
    for _ in range(2, height):
        side, step = side + step, 2 * step
        side += 2 * step
    return side + 4 * step


def field_measured(height, dilated):
    """Which columns, being no numbers, make the bottom's middle none as well."""
    width = rsu_field(height, dilated) + 64
    block = RSU(height, 1, 1, 1, dilated).eval()
    found = {}
    block.get_submodule(f"rebnconv{height}").register_forward_hook(lambda _, __, y: found.update(y=y))
    x = torch.zeros(width, 1, 1, width)
    x[range(width), 0, 0, range(width)] = torch.nan
    with torch.no_grad():
        block(x)
    return int(found["y"][:, 0, 0, found["y"].shape[-1] // 2].isnan().sum())


RSU_WRONG = [
    (lambda h, d: 3 + 2 * h if d else rsu_field(h, d), "d doubles from block to block"),
    (lambda h, d: rsu_field(h, d) - 2, "rebnconvin, is missing"),
    (lambda h, d: rsu_field(h, d) if d else rsu_field(h, d) - (2 ** (h - 2) - 1), "a pooling of 2 × 2"),
    (lambda h, d: rsu_field(h, d) if d else rsu_field(h, d) - 2 ** (h - 1), "it reaches twice as far"),
    (lambda h, d: 7, "is right, given"),
]


# ------------------------------------------------------------------------------- 6.2 attention within regions


def within(query, key, regions, style_regions, dim=1, scale=1.0):
    scores = torch.einsum("cn,cm->nm", query, key) / scale
    scores[regions[:, None] != style_regions] = -torch.inf
    return torch.softmax(scores, dim)


def within_by_library(query, key, regions, style_regions):
    pairs = [x.T[None, None] for x in (query, key)]
    values = torch.eye(key.shape[1], dtype=key.dtype)[None, None]
    same = regions[:, None] == style_regions
    return torch.nn.functional.scaled_dot_product_attention(*pairs, values, same, scale=1.0)[0, 0]


WITHIN_WRONG = [
    (lambda q, k, r, s: within(q, k, r, s, dim=0), "the COLUMNS sum to one"),
    (lambda q, k, r, s: ((q.T @ k) * (r[:, None] == s)).softmax(1), "a score of 0 is no score"),
    (lambda q, k, r, s: (q.T @ k).softmax(1) * (r[:, None] == s), "mask BEFORE the softmax"),
    (lambda q, k, r, s: (q.T @ k).softmax(1), "the regions are missing"),
    (lambda q, k, r, s: within(q, k, r, s, scale=len(q) ** 0.5), "no root of C here"),
]


# --------------------------------------------------------------------------------------- 6.3 the local loss


def region_gram(f, mask):
    rows = (f * mask).flatten(1)
    return rows @ rows.T


def region_loss(f, mask, target, target_mask):
    return (region_gram(f, mask) - region_gram(target, target_mask)).square().sum() / f.numel()


REGION_LOSS_WRONG = [
    (lambda f, m, t, n: region_loss(f, m, t, n) * f.numel(), "(9) divides it by C·H·W"),
    (lambda f, m, t, n: (region_gram(f, m) - region_gram(t, n)).square().mean(), "not by the number of"),
    (lambda f, m, t, n: region_loss(f, m, t, n) / f.numel(), "you divide each Gram matrix"),
    (lambda f, m, t, n: (region_gram(f, m) - region_gram(t, n)).abs().sum() / f.numel(), "(9) squares"),
    (lambda f, m, t, n: region_loss(f, m**0, t, n**0), "the masks are missing"),
    (lambda f, m, t, n: region_loss(f, m.sqrt(), t, n.sqrt()), "mask BOTH factors"),
    (crash, "your code stopped"),
]


# ------------------------------------------------------------------------------------ 6.4 histogram matching


def match(x, reference, add=1, turn=False, place=True):
    ranks = x.argsort().argsort() if place else torch.arange(len(x))
    share = ((len(x) - 1 - ranks if turn else ranks) + add) / len(x)
    return np.interp(share, torch.arange(1, len(reference) + 1) / len(reference), reference.sort().values)


def match_by_skimage(x, reference):
    return torch.from_numpy(exposure.match_histograms(x.numpy(), reference.numpy()))


MATCH_WRONG = [
    (lambda x, r: match(x, r, place=False), "each value goes where its rank is"),
    (lambda x, r: match(x, r, add=0), "one rank too low"),
    (lambda x, r: match(x, r, turn=True), "turned around"),
    (lambda x, r: (x - x.mean()) / x.std() * r.std() + r.mean(), "mean and deviation only"),
    (lambda x, r: x, "is right, given"),
]


# ------------------------------------------------------------------------- 6.5 (12) as printed, and mended


def worth(judge, real, fake):
    return judge(real).sigmoid().log().mean() + (1 - judge(fake).sigmoid()).log().mean()


def critics(e, d, photos, artworks, painted, unpainted):
    return worth(d, e(photos), e(painted)), worth(d, photos, unpainted)


CRITICS_WRONG = [
    (lambda e, d, c, s, t, u: (worth(d, e(c), e(t)), worth(d, c, t)), "the artwork made a photo"),
    (lambda e, d, c, s, t, u: (worth(d, e(c), e(u)), worth(d, c, u)), "as printed D_S gets I_c^T"),
    (lambda e, d, c, s, t, u: (worth(d, e(c), e(t)), worth(d, e(c), e(u))), "pictures, not features"),
    (lambda *a: [-x for x in critics(*a)], "you give what it lowers"),
    (lambda e, d, c, s, t, u: (worth(d, e(c), e(t)), worth(d, s, t)), "artworks are for D_T"),
    (lambda *a: critics(*a)[0], "of shape (2,)"),
]


# -------------------------------------------------------------------------------------------- 7 the metrics


def psnr(x, y):
    return 10 * torch.log10(1 / (x - y).square().mean())


PSNR_WRONG = [
    (lambda x, y: -psnr(x, y), "the sign is turned"),
    (lambda x, y: psnr(x, y) + 20 * math.log10(255), "not 255"),
    (lambda x, y: torch.log(1 / (x - y).square().mean()) * 10, "natural logarithm"),
    (lambda x, y: psnr(x, y) / 10, "ten decibels are one"),
    (lambda x, y: 2 * psnr(x, y), "not the square of that"),
]


def ssim(x, y, correction=0, c1=1e-4, c2=9e-4, light=True):
    shared = ((x - x.mean()) * (y - y.mean())).sum() / (len(x) - correction)
    spread = x.var(correction=correction) + y.var(correction=correction)
    level = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    return (level if light else 1) * (2 * shared + c2) / (spread + c2)


SSIM_WRONG = [
    (lambda x, y: ssim(x, y, correction=1), "you divide by n - 1"),
    (lambda x, y: ssim(x, y, light=False), "of the means, is missing"),
    (lambda x, y: ssim(x, y).abs(), "leave its sign"),
]


def diagonal_fid(m, v, n, w):
    return (m - n).square().sum() + (v.sqrt() - w.sqrt()).square().sum()


FID_WRONG = [
    (lambda m, v, n, w: (m - n).square().sum() + (v - w).square().sum(), "their roots are compared"),
    (lambda m, v, n, w: (v.sqrt() - w.sqrt()).square().sum(), "the means are missing"),
    (lambda m, v, n, w: (m - n).square().sum(), "the spreads differ, too"),
    (lambda m, v, n, w: diagonal_fid(m, v, n, w).sqrt(), "the SQUARED distance"),
    (lambda m, v, n, w: diagonal_fid(m, v, n, w) / len(m), "a sum over dimensions, not a mean"),
    (
        lambda m, v, n, w: (m - n).square().sum() + (v + w + 2 * (v * w).sqrt()).sum(),
        "the root is subtracted",
    ),
]


def off_diagonal(k):
    return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))


def kid(aa, bb, ab):
    return off_diagonal(aa) + off_diagonal(bb) - 2 * ab.mean()


KID_WRONG = [
    (lambda aa, bb, ab: aa.mean() + bb.mean() - 2 * ab.mean(), "no pair with itself"),
    (
        lambda aa, bb, ab: sum((k.sum() - k.trace()) / len(k) ** 2 for k in (aa, bb)) - 2 * ab.mean(),
        "n (n - 1) values are left",
    ),
    (lambda aa, bb, ab: kid(aa, bb, ab) + ab.mean(), "count twice"),
    (
        lambda aa, bb, ab: (
            kid(aa, bb, ab) + (2 * (ab.mean() - off_diagonal(ab)) if len(aa) == len(bb) else 0)
        ),
        "between the sets all pairs count",
    ),
]


def possible(percent, voters):
    return any(abs(100 * k / voters - percent) <= 0.0051 for k in range(voters + 1))


POSSIBLE_WRONG = [
    (lambda p, n: True, "voters would be"),
    (lambda p, n: False, "rounded to two decimals"),
    (lambda p, n: possible(p, n) or p > 100, "would be more than all 35 voters"),
    (lambda p, n: possible(p, 35), "of 48 voters"),
]


def tau(a, b):
    n = len(a)
    signs = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i in range(n) for j in range(i)]
    return float(sum(signs)) / (n * (n - 1) / 2)


def ranks(x):
    return x.argsort().argsort().double()


TAU_WRONG = [
    (lambda a, b: (tau(a, b) + 1) / 2, "the share in opposite order"),
    (lambda a, b: tau(a, b) / 2, "counts once"),
    (lambda a, b: torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1], "Spearman"),
    (lambda a, b: torch.corrcoef(torch.stack([a, b]))[0, 1], "their order alone"),
    (lambda a, b: 1.0, "Kendall's tau"),
]


def wins(i, j):
    return math.exp(i) / (math.exp(i) + math.exp(j))


WINS_WRONG = [
    (lambda i, j: i / (i + j), "take exp of them first"),
    (lambda i, j: wins(j, i), "the second one's"),
    (lambda i, j: math.exp(i - j), "the odds"),
    (lambda i, j: float(i > j), "Bradley and Terry's"),
]


def total(f, content, a, alpha, beta):
    return alpha * ((f - content) ** 2).sum() + beta * ((f @ f.T - a) ** 2).sum()


TOTAL_WRONG = [
    (lambda f, c, a, alpha, beta: total(f, c, a, beta, alpha), "alpha belongs to the content"),
    (
        lambda f, c, a, alpha, beta: alpha * ((f - c) ** 2).mean() + beta * ((f @ f.T - a) ** 2).mean(),
        "sums, not means",
    ),
    (
        lambda f, c, a, alpha, beta: (
            alpha * ((f @ f.T - c @ c.T) ** 2).sum() + beta * ((f @ f.T - a) ** 2).sum()
        ),
        "not by Gram matrices",
    ),
    (
        lambda f, c, a, alpha, beta: alpha * (f - c).norm() + beta * (f @ f.T - a).norm(),
        "square the differences",
    ),
]


# Checker -> (right answers, wrong answers with a part of the hint); an answer is the tuple of arguments.
CASES = {
    "q01_1": ([to_tensor, lambda a: torch.tensor(a / 255.0).movedim(-1, 0).unsqueeze(0)], TENSOR_WRONG),
    "q01_2": ([gram, lambda f: torch.einsum("ihw,jhw->ij", f, f)], GRAM_WRONG),
    "q01_3": ([shuffle, lambda f, g: f.flip(2)], SHUFFLE_WRONG),
    "q01_4": ([COUNTS, {**COUNTS, "relu4_2": 131328}], COUNTS_WRONG),
    "q01_5": ([gradient, lambda f, a: 4 * f @ f.T @ f - 4 * a @ f], GRADIENT_WRONG),
    "q01_6": ([total], TOTAL_WRONG),
    "q02_1": ([count], COUNT_WRONG),
    "q02_2": ([field], FIELD_WRONG),
    "q02_3": ([(STYLE, CONTENT), (tuple(STYLE[::-1]), set(CONTENT))], LAYERS_WRONG),
    "q02_4": ([NAMES], NAMES_WRONG),
    "q03_1": ([adam], ADAM_WRONG),
    "q03_2": ([hvp, lambda f, x, v: torch.autograd.functional.hessian(f, x) @ v], HVP_WRONG),
    "q03_3": ([metropolis, lambda d, t, u: u < math.exp(-max(d, 0) / t)], METROPOLIS_WRONG),
    "q03_4": ([lambda w, c, m: w * c**2], CONVERT_WRONG),
    "q03_5": ([masked_gram], MASKED_WRONG),
    "q04_1": ([instance_norm, instance_norm_of_torch], INSTANCE_NORM_WRONG),
    "q04_2": ([pairs, pairs_as_tensor], PAIRS_WRONG),
    "q04_3": ([adain, adain_of_biased_deviations, adain_with_epsilon], ADAIN_WRONG),
    "q04_4": ([break_even], BREAK_EVEN_WRONG),
    "q05_1": ([modulated_conv, modulated_features], MODULATED_CONV_WRONG),
    "q05_2": ([modres, lambda x, w, n, c: modres(x.float(), w.float(), n, c)], MODRES_WRONG),
    "q05_3": ([truncated, lambda w, c, p: torch.lerp(c.expand_as(w), w, p)], TRUNCATED_WRONG),
    "q05_4": ([mixed], MIXED_WRONG),
    "q05_5": ([contextual, contextual_by_library], CONTEXTUAL_WRONG),
    "q05_6": ([person_and_norms], CONTENT_TERM_WRONG),
    "q05_7": ([nearest], NEAREST_WRONG),
    "q05_8": ([fusion], FUSION_WRONG),
    "q05_9": ([style_pairs], STYLE_PAIRS_WRONG),
    "q06_1": ([rsu_field, field_measured], RSU_WRONG),
    "q06_2": ([within, within_by_library], WITHIN_WRONG),
    "q06_3": ([region_loss], REGION_LOSS_WRONG),
    "q06_4": ([match, match_by_skimage], MATCH_WRONG),
    "q06_5": ([critics], CRITICS_WRONG),
    "q07_1": ([psnr, lambda x, y: psnr(x.float(), y.float()).item()], PSNR_WRONG),
    "q07_2": ([ssim], SSIM_WRONG),
    "q07_3": ([diagonal_fid], FID_WRONG),
    "q07_4": ([kid], KID_WRONG),
    "q07_5": ([possible], POSSIBLE_WRONG),
    "q07_6": ([tau, lambda a, b: scipy.stats.kendalltau(a, b).statistic], TAU_WRONG),
    "q07_7": ([wins, lambda i, j: 1 / (1 + math.exp(j - i))], WINS_WRONG),
}


def ask(name, answer):
    return CHECKERS[name](*(answer if name == "q02_3" else (answer,)))  # which takes two


@pytest.mark.parametrize("name", CASES)
def test_right_answers_pass_and_wrong_ones_get_their_hint(capsys, name):
    number = f"{int(name[1:3])}.{name[4:]}"  # q01_2 is 1.2 in its notebook
    right, wrong = CASES[name]
    for answer in right:
        assert ask(name, answer) is True
        assert capsys.readouterr().out == f"✓ Exercise {number}: right.\n"
    for answer, hint in wrong:
        assert ask(name, answer) is False
        out, err = capsys.readouterr()
        assert out.startswith(f"✗ Exercise {number}: ")
        assert hint in out
        assert (out.count("✗"), err) == (1, "")


def test_every_checker_is_tested_here_and_says_what_it_asks():
    assert set(CASES) == set(CHECKERS)
    assert all(inspect.getdoc(check) for check in CHECKERS.values())


@pytest.mark.parametrize("nothing", [None, ...])
def test_a_stub_is_not_answered_yet(capsys, nothing):
    assert checks.q01_2(lambda _: nothing) is False
    expected = "✗ Exercise 1.2: not answered yet; replace the dots by your own line.\n"
    assert capsys.readouterr().out == expected


def test_one_wrong_entry_and_one_wrong_case_are_found():
    def one_wrong_entry(features):
        answer = gram(features)
        answer[-1, 0] += 0.01
        return answer

    assert checks.q01_2(one_wrong_entry) is False
    assert checks.q01_2(lambda f: gram(f) if len(f) == 3 else gram(f).abs()) is False
    assert checks.q01_2(lambda f: gram(f) * float("nan")) is False


def test_an_answer_in_float32_is_judged_like_any_other():
    assert checks.q01_2(lambda f: gram(f.float())) is True
    assert checks.q01_2(lambda f: gram(f.float()) * 1.001) is False


def test_an_answer_cannot_change_what_it_is_compared_with():
    assert checks.q01_2(lambda f: (gram(f), f.zero_())[0]) is True
    assert checks.q01_2(lambda f: gram(f.zero_())) is False


def test_checkers_ask_the_same_of_everyone():
    seen = [[], []]
    for asked in seen:
        checks.q01_2(lambda f, asked=asked: asked.append(f) or gram(f))
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert len({f.shape for f in seen[0]}) >= 3  # so none can be right by luck
