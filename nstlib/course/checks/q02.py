"""Checkers of notebook 02: the layers of VGG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...nets.vgg import architecture
from .exercise import Known, entries, exercise, missing, verdict

NETWORKS = {name: architecture(name) for name in ("vgg16", "vgg19", "alexnet")}
CONVOLUTIONS = {
    network: [layer for layer in layers if layer.kind == "conv"] for network, layers in NETWORKS.items()
}


def _triples(network: str) -> list[tuple[int, int, int]]:
    into = [3, *(layer.channels for layer in CONVOLUTIONS[network])]
    return [(layer.kernel, i, layer.channels) for layer, i in zip(CONVOLUTIONS[network], into, strict=False)]


@exercise([(_triples(network),) for network in NETWORKS])
def q02_1(triples: Sequence[tuple[int, int, int]]) -> Known:
    """Parameters of a stack of convolutions given as (kernel, channels in, channels out)."""
    weights = sum(k * k * i * o for k, i, o in triples)
    biases = sum(o for _, _, o in triples)
    return weights + biases, {
        "you forgot the biases, one for each output channel.": weights,
        "a filter is a square: k × k weights for each channel that comes in.": sum(
            k * i * o + o for k, i, o in triples
        ),
        "each filter has weights for all channels that come in.": sum(k * k * o + o for k, _, o in triples),
    }


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


@exercise([([0.5, 0.2], [1.0, 3.0]), ([0.9, 0.4, 0.1, 0.04], [256.0, 64.0, 16.0, 4.0]), ([0.7], [5.0])])
def q02_4(distances: Sequence[float], weights: Sequence[float]) -> Known:
    """The share of each layer in paper D's style loss, from its distances and weights."""
    terms = [w * x for w, x in zip(weights, distances, strict=True)]
    return [term / sum(terms) for term in terms], {
        "shares are parts of the whole loss: divide by the sum of all terms.": terms,
        "those are the shares of the weights; the distances count, too.": [w / sum(weights) for w in weights],
        "the weights are missing: a term is w^l times the distance.": [x / sum(distances) for x in distances],
    }


@exercise([(2.0, 10.0), (0.5, 100.0), (50.0, 5000.0)])
def q02_5(k: float, beta: float) -> Known:
    """Content loss (3), style loss (2) and style weight of a network whose activations are k times larger."""
    return (k**2, k**4, beta / k**2), {
        "a Gram matrix grows by k², and (2) squares it once more.": (k**2, k**2, beta),
        "the factors of the losses are right; the new weight must undo what style gained.": (
            k**2, k**4, beta * k**2,
        ),
        "only the ratio of style to content counts, and content grows as well.": (k**2, k**4, beta / k**4),
    }  # fmt: skip


def q02_6(names: Mapping[str, str]) -> bool:
    """The PyTorch tutorial's "conv_1" ... "conv_5" in the field's names."""
    right = {f"conv_{i}": CONVOLUTIONS["vgg19"][i - 1].name for i in range(1, 6)}
    blocks = {f"conv_{i}": f"conv{i}_1" for i in range(1, 6)}
    mistakes = {"one would expect that, but the tutorial counts convolutions, not blocks.": blocks}
    otherwise = "count the convolutions of VGG-19 from the input."
    return entries("2.6", names, right, mistakes, kind="name", otherwise=otherwise)
