"""Exercises of notebooks 01 and 02."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...nets.vgg import architecture, receptive_field
from ._verdict import SHAPES, UNANSWERED, Outcome, equal, features_of, missing, verdict


def q01_1(gram: Callable[[Tensor], Tensor]) -> bool:
    """The Gram matrix of paper A (1): (C, H, W) -> (C, C), a plain sum over positions."""

    def judge() -> Outcome:
        for seed, shape in enumerate(SHAPES):
            features = features_of(seed, shape)
            answer = gram(features.clone())
            if missing(answer):
                return UNANSWERED
            c, h, w = shape
            if tuple(answer.shape) == (h * w, h * w) and h * w != c:
                return (
                    f"({h * w}, {h * w}) compares positions; the Gram matrix compares channels, ({c}, {c})."
                )
            if tuple(answer.shape) != (c, c):
                return f"{c} channels give a ({c}, {c}) matrix, yours is {tuple(answer.shape)}."
            right = torch.einsum("ihw,jhw->ij", features, features)
            if equal(answer, right):
                continue
            for divisor, name in ((h * w, "H·W"), (c * h * w, "C·H·W")):
                if equal(answer * divisor, right):
                    return f"you divide by {name}; equation (1) of paper A is a plain sum."
            return f"for shape {shape} some entries differ: entry (i, j) sums F_ik·F_jk over positions k."
        return None

    return verdict("Exercise 1.1", judge)


def q01_2(shuffle: Callable[[Tensor, torch.Generator], Tensor]) -> bool:
    """Shuffle positions so that the Gram matrix stays: one permutation, the same for every channel."""

    def judge() -> Outcome:
        for seed, shape in enumerate(((3, 6, 5), (4, 9, 8), (2, 16, 16))):
            features = features_of(seed, shape)
            answer = shuffle(features.clone(), torch.Generator().manual_seed(seed))
            if missing(answer):
                return UNANSWERED
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

    return verdict("Exercise 1.2", judge)


def q01_3(answer: Mapping[str, int]) -> bool:
    """Independent numbers in the Gram matrices of VGG-19's relu1_1 ... relu5_1: C(C+1)/2 each."""
    names = [f"relu{block}_1" for block in range(1, 6)]
    channels = {layer.name: layer.channels for layer in architecture("vgg19")}

    def judge() -> Outcome:
        if missing(answer) or any(missing(answer.get(name)) for name in names):
            return f"not answered yet; give a number for each of {', '.join(names)}."
        wrong = [name for name in names if answer[name] != channels[name] * (channels[name] + 1) // 2]
        if not wrong:
            return None
        if all(answer[name] == channels[name] ** 2 for name in wrong):
            return "C² counts every pair twice: the matrix is symmetric."
        if all(answer[name] == channels[name] * (channels[name] - 1) // 2 for name in wrong):
            return "you left out the diagonal: a channel also has a product with itself."
        return f"wrong for {', '.join(wrong)}: how many entries lie on and above the diagonal?"

    return verdict("Exercise 1.3", judge)


def q01_4(gradient: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Gradient of ``sum_ij (G_ij - A_ij)²`` with respect to F (C, M), A symmetric: 4 (G - A) F."""

    def judge() -> Outcome:
        for seed, (c, m) in enumerate(((3, 7), (6, 4), (1, 5))):
            features = features_of(seed, (c, m, 1))[..., 0].requires_grad_(True)
            other = features_of(seed + 50, (c, m, 1))[..., 0]
            target = other @ other.T
            loss = (features @ features.T - target).square().sum()
            (right,) = torch.autograd.grad(loss, features)
            answer = gradient(features.detach().clone(), target)
            if missing(answer):
                return UNANSWERED
            if tuple(answer.shape) != (c, m):
                return f"the gradient has the shape of F, ({c}, {m}); yours is {tuple(answer.shape)}."
            if equal(answer, right):
                continue
            if equal(-answer, right):
                return "the sign is wrong: this is the way downhill, not the gradient."
            for factor in (2.0, 4.0, 0.5):
                if equal(answer * factor, right):
                    return (
                        f"right up to a factor: autograd has {factor:g} times yours; F is twice in G = F Fᵀ."
                    )
            return f"autograd disagrees for C={c}, M={m}: differentiate (F Fᵀ)_ij with respect to F_ab first."
        return None

    return verdict("Exercise 1.4", judge)


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
            if missing(answer):
                return UNANSWERED
            weights = sum(k * k * i * o for k, i, o in triples)
            right = weights + sum(o for _, _, o in triples)
            if answer == right:
                continue
            if answer == weights:
                return f"{network}: you forgot the biases, one for each output channel."
            return f"{network} has {right:,} parameters in its convolutions, not {answer:,}."
        return None

    return verdict("Exercise 2.1", judge)


def q02_2(field: Callable[[Sequence[tuple[int, int]]], tuple[int, int]]) -> bool:
    """Receptive field and step from a list of (kernel, stride)."""

    def judge() -> Outcome:
        cases = (("vgg16", "conv3_1"), ("vgg19", "conv5_4"), ("alexnet", "conv4"), ("vgg16", "conv1_2"))
        for network, name in cases:
            layers = architecture(network)
            last = [layer.name for layer in layers].index(name)
            pairs = [(layer.kernel, layer.stride) for layer in layers[: last + 1]]
            answer = field(pairs)
            if missing(answer):
                return UNANSWERED
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

    return verdict("Exercise 2.2", judge)


def q02_3(style: Sequence[str], content: Sequence[str]) -> bool:
    """Paper A's layers by name: the first five convolutions, and the fifth and sixth."""

    def judge() -> Outcome:
        if missing(style) or missing(content) or not style or not content:
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

    return verdict("Exercise 2.3", judge)


def q02_4(names: Mapping[str, str]) -> bool:
    """The PyTorch tutorial's "conv_1" ... "conv_5" in the field's names."""

    def judge() -> Outcome:
        convolutions = [layer.name for layer in architecture("vgg19") if layer.kind == "conv"]
        right = {f"conv_{index}": convolutions[index - 1] for index in range(1, 6)}
        if missing(names) or any(missing(names.get(key)) for key in right):
            return f"not answered yet; give a name for each of {', '.join(right)}."
        wrong = [key for key in right if names[key] != right[key]]
        if not wrong:
            return None
        if all(names[key] == f"conv{key[-1]}_1" for key in wrong):
            return "one would expect that, but the tutorial counts convolutions, not blocks."
        return f"wrong for {', '.join(wrong)}: count the convolutions of VGG-19 from the input."

    return verdict("Exercise 2.4", judge)
