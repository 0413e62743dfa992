"""Exercise checkers: ``checks.q01_1(my_gram)`` says what is right, or what to look at.

A checker calls the answer on several random cases, so an answer that is right in one case, one entry or one
shape is not taken for right. It never raises on a wrong answer: it prints one sentence and returns False.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..losses import gram_matrix
from ..nets.vgg import architecture, receptive_field
from ..normalizations import style_weight_factor

Outcome = str | None  # None: right; otherwise the hint


def _verdict(question: str, judge: Callable[[], Outcome]) -> bool:
    try:
        hint = judge()
    except Exception as error:  # whatever the student's code raises is an answer to be commented on
        hint = f"your code stopped with {type(error).__name__}: {error}"
    print(f"✓ {question}: right." if hint is None else f"✗ {question}: {hint}")
    return hint is None


def _missing(answer: Any) -> bool:
    return answer is None or answer is ...


def _features(seed: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _equal(answer: Tensor, right: Tensor) -> bool:
    """Equal as far as float32 can be: students may compute in it."""
    return torch.allclose(answer.double(), right, rtol=1e-4, atol=1e-5)


_SHAPES = ((3, 4, 5), (5, 7, 2), (8, 1, 6), (1, 3, 3))
_UNANSWERED = "not answered yet; replace the dots by your own line."


def q01_1(gram: Callable[[Tensor], Tensor]) -> bool:
    """The Gram matrix of paper A (1): (C, H, W) -> (C, C), a plain sum over positions."""

    def judge() -> Outcome:
        for seed, shape in enumerate(_SHAPES):
            features = _features(seed, shape)
            answer = gram(features.clone())
            if _missing(answer):
                return _UNANSWERED
            c, h, w = shape
            if tuple(answer.shape) == (h * w, h * w) and h * w != c:
                return (
                    f"({h * w}, {h * w}) compares positions; the Gram matrix compares channels, ({c}, {c})."
                )
            if tuple(answer.shape) != (c, c):
                return f"{c} channels give a ({c}, {c}) matrix, yours is {tuple(answer.shape)}."
            right = torch.einsum("ihw,jhw->ij", features, features)
            if _equal(answer, right):
                continue
            for divisor, name in ((h * w, "H·W"), (c * h * w, "C·H·W")):
                if _equal(answer * divisor, right):
                    return f"you divide by {name}; equation (1) of paper A is a plain sum."
            return f"for shape {shape} some entries differ: entry (i, j) sums F_ik·F_jk over positions k."
        return None

    return _verdict("Exercise 1.1", judge)


def q01_2(shuffle: Callable[[Tensor, torch.Generator], Tensor]) -> bool:
    """Shuffle positions so that the Gram matrix stays: one permutation, the same for every channel."""

    def judge() -> Outcome:
        for seed, shape in enumerate(((3, 6, 5), (4, 9, 8), (2, 16, 16))):
            features = _features(seed, shape)
            answer = shuffle(features.clone(), torch.Generator().manual_seed(seed))
            if _missing(answer):
                return _UNANSWERED
            if tuple(answer.shape) != shape:
                return f"the shape must stay {shape}, yours is {tuple(answer.shape)}."
            if torch.equal(answer, features):
                return "nothing has moved."
            if not torch.equal(answer.flatten(1).sort()[0], features.flatten(1).sort()[0]):
                return "each channel must keep its own values; only their places change."
            before = torch.einsum("ihw,jhw->ij", features, features)
            after = torch.einsum("ihw,jhw->ij", answer, answer)
            if not torch.allclose(before, after):
                return "the Gram matrix has changed: every channel must be shuffled by the SAME permutation."
            moved = (answer != features).any(0).double().mean()
            if moved < 0.5:
                return "only a few positions have moved; shuffle all of them."
        return None

    return _verdict("Exercise 1.2", judge)


def q01_3(answer: Mapping[str, int]) -> bool:
    """Independent numbers in the Gram matrices of VGG-19's relu1_1 ... relu5_1: C(C+1)/2 each."""
    names = [f"relu{block}_1" for block in range(1, 6)]
    channels = {layer.name: layer.channels for layer in architecture("vgg19")}

    def judge() -> Outcome:
        if _missing(answer) or any(_missing(answer.get(name)) for name in names):
            return f"not answered yet; give a number for each of {', '.join(names)}."
        wrong = [name for name in names if answer[name] != channels[name] * (channels[name] + 1) // 2]
        if not wrong:
            return None
        if all(answer[name] == channels[name] ** 2 for name in wrong):
            return "C² counts every pair twice: the matrix is symmetric."
        if all(answer[name] == channels[name] * (channels[name] - 1) // 2 for name in wrong):
            return "you left out the diagonal: a channel also has a product with itself."
        return f"wrong for {', '.join(wrong)}: how many entries lie on and above the diagonal?"

    return _verdict("Exercise 1.3", judge)


def q01_4(gradient: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Gradient of ``sum_ij (G_ij - A_ij)²`` with respect to F (C, M), A symmetric: 4 (G - A) F."""

    def judge() -> Outcome:
        for seed, (c, m) in enumerate(((3, 7), (6, 4), (1, 5))):
            features = _features(seed, (c, m, 1))[..., 0].requires_grad_(True)
            other = _features(seed + 50, (c, m, 1))[..., 0]
            target = other @ other.T
            loss = (features @ features.T - target).square().sum()
            (right,) = torch.autograd.grad(loss, features)
            answer = gradient(features.detach().clone(), target)
            if _missing(answer):
                return _UNANSWERED
            if tuple(answer.shape) != (c, m):
                return f"the gradient has the shape of F, ({c}, {m}); yours is {tuple(answer.shape)}."
            if _equal(answer, right):
                continue
            if _equal(-answer, right):
                return "the sign is wrong: this is the way downhill, not the gradient."
            for factor in (2.0, 4.0, 0.5):
                if _equal(answer * factor, right):
                    return (
                        f"right up to a factor: autograd has {factor:g} times yours; F is twice in G = F Fᵀ."
                    )
            return f"autograd disagrees for C={c}, M={m}: differentiate (F Fᵀ)_ij with respect to F_ab first."
        return None

    return _verdict("Exercise 1.4", judge)


def q02_1(count: Callable[[Sequence[tuple[int, int, int]]], int]) -> bool:
    """Parameters of a stack of convolutions given as (kernel, channels in, channels out)."""

    def judge() -> Outcome:
        for network in ("vgg16", "vgg19", "alexnet"):
            triples, channels = [], 3
            for layer in architecture(network):
                if layer.kind == "conv":
                    triples.append((layer.kernel, channels, layer.channels))
                    channels = layer.channels
            answer = count(triples)
            if _missing(answer):
                return _UNANSWERED
            weights = sum(k * k * i * o for k, i, o in triples)
            right = weights + sum(o for _, _, o in triples)
            if answer == right:
                continue
            if answer == weights:
                return f"{network}: you forgot the biases, one for each output channel."
            return f"{network} has {right:,} parameters in its convolutions, not {answer:,}."
        return None

    return _verdict("Exercise 2.1", judge)


def q02_2(field: Callable[[Sequence[tuple[int, int]]], tuple[int, int]]) -> bool:
    """Receptive field and step from a list of (kernel, stride)."""

    def judge() -> Outcome:
        cases = (("vgg16", "conv3_1"), ("vgg19", "conv5_4"), ("alexnet", "conv4"), ("vgg16", "conv1_2"))
        for network, name in cases:
            layers = architecture(network)
            last = [layer.name for layer in layers].index(name)
            pairs = [(layer.kernel, layer.stride) for layer in layers[: last + 1]]
            answer = field(pairs)
            if _missing(answer):
                return _UNANSWERED
            if not isinstance(answer, tuple) or len(answer) != 2:
                return "give back a pair: (side of the field, step)."
            side, step = receptive_field(network, name)
            if tuple(answer) == (side, step):
                continue
            if answer[1] != step:
                return (
                    f"{network} {name}: the step is the product of all strides, {step}; yours is {answer[1]}."
                )
            return (
                f"{network} {name}: the field has {side} pixels, yours {answer[0]}: each layer adds "
                "(kernel - 1) times the step BEFORE it."
            )
        return None

    return _verdict("Exercise 2.2", judge)


def q02_3(style: Sequence[str], content: Sequence[str]) -> bool:
    """Paper A's layers by name: the first five convolutions, and the fifth and sixth."""

    def judge() -> Outcome:
        if _missing(style) or _missing(content) or not style or not content:
            return "not answered yet; give two lists of names such as 'conv1_1'."
        convolutions = [layer.name for layer in architecture("vgg16") if layer.kind == "conv"]
        if any(name not in convolutions for name in [*style, *content]):
            return f"the names are {', '.join(convolutions[:7])}, ..."
        if sorted(style) == [f"conv{b}_1" for b in range(1, 6)]:
            return "these are the five BLOCKS of papers B and D; A says the first five convolutions."
        if sorted(style) != convolutions[:5]:
            return "style: count the convolutions from the input, across the pooling layers, up to five."
        if sorted(content) != convolutions[4:6]:
            return (
                "the style layers are right; content: the fifth and the sixth convolution in the same count."
            )
        return None

    return _verdict("Exercise 2.3", judge)


def q02_4(names: Mapping[str, str]) -> bool:
    """The PyTorch tutorial's "conv_1" ... "conv_5" in the field's names."""

    def judge() -> Outcome:
        convolutions = [layer.name for layer in architecture("vgg19") if layer.kind == "conv"]
        right = {f"conv_{index}": convolutions[index - 1] for index in range(1, 6)}
        if _missing(names) or any(_missing(names.get(key)) for key in right):
            return f"not answered yet; give a name for each of {', '.join(right)}."
        wrong = [key for key in right if names[key] != right[key]]
        if not wrong:
            return None
        if all(names[key] == f"conv{key[-1]}_1" for key in wrong):
            return "one would expect that, but the tutorial counts convolutions, not blocks."
        return f"wrong for {', '.join(wrong)}: count the convolutions of VGG-19 from the input."

    return _verdict("Exercise 2.4", judge)


def q03_1(step: Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]) -> bool:
    """One step of Adam: (gradient, m, v, t) -> (change of x, new m, new v); lr 0.02, betas 0.9, 0.999."""

    def judge() -> Outcome:
        for seed in range(3):
            x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
            adam = torch.optim.Adam([x], lr=0.02, betas=(0.9, 0.999), eps=1e-8)
            m = v = torch.zeros(4, dtype=torch.float64)
            for t in range(1, 5):
                gradient = _features(10 * seed + t, (4, 1, 1)).flatten()
                before = x.detach().clone()
                x.grad = gradient.clone()
                adam.step()
                answer = step(gradient.clone(), m.clone(), v.clone(), t)
                if _missing(answer):
                    return _UNANSWERED
                change, m, v = answer
                right = x.detach() - before
                if _equal(change * 1e2, right * 1e2):
                    continue
                if _equal(-change * 1e2, right * 1e2):
                    return "the sign is wrong: x changes against the gradient."
                if t == 1 and _equal(change * 1e2, right * 1e2 * 0.1 / 0.001**0.5):
                    return "step 1 is too long: divide m by 1 - 0.9^t and v by 1 - 0.999^t."
                return f"at step {t} torch's Adam changes x by {right[0]:.5f}, yours by {change[0]:.5f}."
        return None

    return _verdict("Exercise 3.1", judge)


def q03_2(product: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]) -> bool:
    """Hessian times a vector without the Hessian: (f, x, v) -> H(x) v, by differentiating twice."""

    def judge() -> Outcome:
        functions: list[Callable[[Tensor], Tensor]] = [
            lambda x: (x**4).sum() + (x[0] * x[1] * x[2]),
            lambda x: torch.outer(x, x).sub(1).square().sum(),
            lambda x: x.sin().prod() + x.exp().sum(),
        ]
        for number, function in enumerate(functions):
            x, v = (_features(20 + number + k, (3 + number, 1, 1)).flatten() for k in (0, 50))
            hessian = torch.autograd.functional.hessian(function, x)
            answer = product(function, x.clone(), v.clone())
            if _missing(answer):
                return _UNANSWERED
            if tuple(answer.shape) != tuple(x.shape):
                return f"H v has the shape of x, {tuple(x.shape)}; yours is {tuple(answer.shape)}."
            if _equal(answer, hessian @ v):
                continue
            (gradient,) = torch.autograd.functional.jacobian(function, x)[None]
            if _equal(answer, gradient) or _equal(answer, gradient * v):
                return "this is the gradient, not its derivative: differentiate gradient · v once more."
            if _equal(answer, hessian.sum(1)):
                return "this is H times ones: where does v come in?"
            return f"wrong for function {number + 1}: H v is {[round(n, 3) for n in (hessian @ v).tolist()]}."
        return None

    return _verdict("Exercise 3.2", judge)


def q03_3(accept: Callable[[float, float, float], bool]) -> bool:
    """Metropolis' rule: (change of the loss, temperature, uniform number in [0, 1)) -> take the step?"""

    def judge() -> Outcome:
        cases = [
            (d, t, u) for d in (-2.0, 0.0, 0.1, 0.5, 3.0) for t in (0.1, 1.0, 5.0) for u in (0.05, 0.5, 0.95)
        ]
        for change, temperature, u in cases:
            answer = accept(change, temperature, u)
            if _missing(answer):
                return _UNANSWERED
            right = change <= 0 or u < math.exp(-change / temperature)
            if bool(answer) == right:
                continue
            if change <= 0:
                return f"a step that does not raise the loss (change {change}) is always taken."
            return (
                f"change {change}, temperature {temperature}, u {u}: a worse picture is taken if u is below "
                f"exp(-{change}/{temperature}) = {math.exp(-change / temperature):.3f}, so {right} is right."
            )
        return None

    return _verdict("Exercise 3.3", judge)


def q03_4(convert: Callable[[float, int, int], float]) -> bool:
    """A layer's style weight found with Gatys' notebook's scale, in that of PyTorch's tutorial: (w, C, M)."""

    def judge() -> Outcome:
        for weight, channels, positions in ((1.0, 64, 4096), (5.0, 512, 196), (0.1, 3, 7)):
            answer = convert(weight, channels, positions)
            if _missing(answer):
                return _UNANSWERED
            factor = style_weight_factor("gatys_notebook", "neural_style_pt", channels, positions)
            if math.isclose(answer, weight * factor, rel_tol=1e-6):
                continue
            if math.isclose(answer * factor, weight, rel_tol=1e-6):
                return "the wrong way round: the tutorial's loss is smaller, so its weight is larger."
            if math.isclose(answer, weight * channels, rel_tol=1e-6):
                return "the Gram matrix is C times smaller, but the loss is its SQUARED difference."
            return f"w = {weight}, C = {channels}, M = {positions} gives {weight * factor:g}, not {answer:g}."
        return None

    return _verdict("Exercise 3.4", judge)


def q03_5(gram: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Paper E (10) with the region's own size taken out: F (C, H, W), mask (H, W) -> (C, C)."""

    def judge() -> Outcome:
        for seed, (c, h, w) in enumerate(_SHAPES[:3]):
            features = _features(seed + 70, (c, h, w))
            mask = _features(seed + 90, (1, h, w))[0].sigmoid().float().double()
            right = gram_matrix(features[None], "hw", mask[None, None])[0]
            answer = gram(features.clone(), mask.clone())
            if _missing(answer):
                return _UNANSWERED
            if tuple(answer.shape) != (c, c):
                return f"{c} channels give a ({c}, {c}) matrix, yours is {tuple(answer.shape)}."
            if _equal(answer, right):
                continue
            rows = (features * mask).flatten(1)
            if _equal(answer, rows @ rows.T):
                return "not divided yet: a large region would outweigh a small one; divide by the sum of m²."
            for divisor, name in ((h * w, "H·W"), (mask.sum().item(), "the sum of m")):
                if _equal(answer * divisor, rows @ rows.T):
                    return f"you divide by {name}; each position weighs m², so their sum is the divisor."
            if _equal(answer, (features.flatten(1) * mask.flatten()) @ features.flatten(1).T / mask.sum()):
                return (
                    "mask the features BEFORE the product, as (10) does: then each position weighs m², not m."
                )
            return f"for shape {(c, h, w)} some entries differ: (F·m)(F·m)ᵀ over the sum of m²."
        return None

    return _verdict("Exercise 3.5", judge)
