"""Diagrams of networks and losses, drawn by code: the papers' figures, with what this library computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..errors import SettingError
from ..losses import gram_matrix as gram_of
from ..methods.gatys.settings import FIVE_BLOCKS
from ..nets.style_generator import STRUCTURE
from ..nets.vgg import architecture, receptive_field
from .plots import COLORS, house_style

WIDTH = 7.5  # inches: at 16 cm in print, 9 points become 7.6
MARKED: Mapping[str, Sequence[str]] = {"style layer": FIVE_BLOCKS, "content layer": ("relu4_2",)}

# Each kind of box has its own color, and for gray print its own corners and border.
_KINDS: dict[str, tuple[str, float, float, str]] = {  # color, radius of the corners, line width, line style
    "picture": (COLORS[0], 0.0, 1.2, "-"),
    "frozen network": (COLORS[6], 0.1, 1.2, "--"),
    "optimized": (COLORS[2], 0.1, 3.0, "-"),
    "features": (COLORS[5], 0.0, 1.2, ":"),
    "loss": (COLORS[1], 0.5, 1.4, "-"),
}
_HATCHES = ("////", "oo", "xxx")
# Kind ("" has no border), text, center across and up, width, height, in inches.
_Box = tuple[str, str, float, float, float, float]


def _page(height: float) -> tuple[Figure, plt.Axes]:
    """An empty figure whose coordinates are inches."""
    figure = plt.figure(figsize=(WIDTH, height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _draw_box(axes: plt.Axes, box: _Box) -> None:
    kind, text, x, y, width, height = box
    if kind:
        color, radius, line, dash = _KINDS[kind]
        style = f"round,pad=0,rounding_size={min(radius, height / 2)}" if radius else "square,pad=0"
        patch = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=style)
        patch.set(edgecolor=color, facecolor=(*to_rgb(color), 0.12), linewidth=line, linestyle=dash)
        axes.add_patch(patch)
    axes.text(x, y, text, ha="center", va="center", fontsize=9, linespacing=1.3)


def _corner(place: str) -> _Box:
    across, up = map(float, place.split(","))
    return "", "", across, up, 0, 0


def _route(a: _Box, b: _Box) -> list[tuple[float, float]]:
    """From box to box: straight where they face each other, else first across, then up or down."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a[2:], b[2:]
    right, up = (1 if bx > ax else -1), (1 if by > ay else -1)
    if abs(ay - by) <= max(ah, bh) / 2:
        y = ay if ah <= bh else by
        return [(ax + right * aw / 2, y), (bx - right * bw / 2, y)]
    if abs(ax - bx) <= max(aw, bw) / 2:
        x = ax if aw <= bw else bx
        return [(x, ay + up * ah / 2), (x, by - up * bh / 2)]
    return [(ax + right * aw / 2, ay), (bx, ay), (bx, by - up * bh / 2)]


@house_style()
def _flow(height: float, boxes: Mapping[str, _Box], arrows: str, gradients: str = "") -> Figure:
    """Boxes and arrows over a legend of the kinds that occur.

    Args:
        height: of the figure, in inches.
        boxes: by name.
        arrows: "a>b a>7.4,0.8>c": from box to box, by their names, through corners.
        gradients: likewise, drawn dashed.
    """
    figure, axes = _page(height)
    for box in boxes.values():
        _draw_box(axes, box)
    for paths, color, dash in ((arrows, "#444444", "-"), (gradients, COLORS[1], "--")):
        look: dict[str, Any] = {"color": color, "linewidth": 1.3}
        for path in paths.split():
            stops = [boxes.get(name) or _corner(name) for name in path.split(">")]
            *line, end = [point for a, b in pairwise(stops) for point in _route(a, b)]
            axes.plot(*zip(*line, strict=True), linestyle=dash, **look)
            arrow = look | {"arrowstyle": "-|>", "linestyle": dash, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", end, line[-1], arrowprops=arrow)
    kinds = [kind for kind in _KINDS if any(box[0] == kind for box in boxes.values())]
    for index, kind in enumerate(kinds):
        _draw_box(axes, (kind, kind, WIDTH * (index + 0.5) / len(kinds), 0.2, 1.2, 0.26))
    return figure


@house_style()
def vgg(network: str = "vgg19", marked: Mapping[str, Sequence[str]] = MARKED) -> Figure:
    """The layers of a network with their sizes, names and receptive fields (papers A, Figure 1, D, Figure 5).

    Args:
        network: see :func:`nstlib.nets.vgg.architecture`.
        marked: what layers are used for -> their names; up to three uses.

    Raises:
        SettingError: no such network.
    """
    gray, white = ({"facecolor": face, "edgecolor": "#888888"} for face in ("#dddddd", "white"))
    looks: dict[str, dict[str, Any]] = {
        use: {"facecolor": (*to_rgb(color), 0.25), "edgecolor": color, "hatch": hatch}
        for use, color, hatch in zip(marked, COLORS, _HATCHES, strict=False)
    }
    look_of = {name: looks[use] for use, names in marked.items() for name in names}
    layers = architecture(network)
    # A convolution and its ReLU share a column, under the name that is marked, else the ReLU's.
    columns = [
        conv if layer.kind == "relu" and conv.name in look_of else layer
        for conv, layer in zip((layers[0], *layers), layers, strict=False)
        if layer.kind != "conv"
    ]
    pitch, block, scale = 6.65 / len(columns), list[float](), 1
    figure, axes = _page(3.7)
    axes.text(0.05, 0.95, "receptive\nfield (px)", fontsize=8, va="bottom")
    for index, layer in enumerate(columns):
        x = 0.85 + pitch * index
        field, step = receptive_field(network, layer.name)
        height = 1.9 / step**0.4
        look = look_of.get(layer.name, white if layer.kind == "pool" else gray)
        axes.add_patch(Rectangle((x - pitch * 0.35, 2.2 - height / 2), pitch * 0.7, height, **look))
        weight = "bold" if layer.name in look_of else "normal"
        text: dict[str, Any] = {"ha": "center", "fontsize": 8, "fontweight": weight}
        axes.text(x, 0.95, str(field), va="bottom", **text)
        axes.text(x, 0.9, layer.name, rotation=90, va="top", **text)
        block.append(x)
        if layer.kind == "pool":  # the last one of its block, and already on the next scale
            side = "" if scale == 1 else f"/{scale}"
            title = f"{layer.channels} maps\nH{side} × W{side}"
            axes.text(sum(block) / len(block), 3.3, title, ha="center", va="bottom", fontsize=8)
            block = []
        scale = step
    for index, (use, look) in enumerate((looks | {"pooling": white}).items()):
        axes.add_patch(Rectangle((0.85 + 1.5 * index, 0.06), 0.25, 0.17, **look))
        axes.text(1.17 + 1.5 * index, 0.145, use, va="center", fontsize=8)
    return figure


def training_loop() -> Figure:
    """Gatys' loop: the network stays as it is, the pixels change (papers A, Figure 2, D, Figures 2 and 4)."""
    boxes: dict[str, _Box] = {
        "content": ("picture", "content $I_c$", 0.85, 3.8, 1.15, 0.5),
        "x": ("optimized", "picture $I$", 0.85, 2.7, 1.15, 0.5),
        "style": ("picture", "style $I_s$", 0.85, 1.6, 1.15, 0.5),
        "vgg": ("frozen network", "VGG\n\nthe same\nfor all", 2.15, 2.7, 0.8, 2.8),
        "fc": ("features", "features\n$F^l(I_c)$", 3.45, 3.8, 1.1, 0.5),
        "fx": ("features", "$F^l(I)$ and\nGram $G^l(I)$", 3.45, 2.7, 1.1, 0.5),
        "gs": ("features", "Gram matrix\n$G^l(I_s)$", 3.45, 1.6, 1.1, 0.5),
        "lc": ("loss", "content loss\n$L_c$, A (3)", 4.95, 3.25, 1.2, 0.5),
        "ls": ("loss", "style loss\n$L_s$, A (2)", 4.95, 2.15, 1.2, 0.5),
        "total": ("loss", "$\\alpha L_c + \\beta L_s$\nA (4)", 6.6, 2.7, 1.2, 0.5),
        "step": ("", "gradient with respect to the pixels,\none step of the optimizer", 3.8, 0.8, 2.7, 0.5),
    }
    arrows = "content>vgg x>vgg style>vgg vgg>fc vgg>fx vgg>gs fc>lc fx>lc fx>ls gs>ls lc>total ls>total"
    return _flow(4.2, boxes, arrows, "total>7.4,0.8>step step>0.1,2.7>x")


@house_style()
def gram_matrix(features: Tensor) -> Figure:
    """The Gram matrix as a picture: a map a row, times a map a column (paper A (1); D, Figure 7).

    Args:
        features: (C, H, W) or (1, C, H, W), of which the five most active maps are drawn, in $F$ reduced to
            8 × 8 positions.
    """
    maps = features.detach().float().cpu().reshape(-1, *features.shape[-2:])
    maps = maps[maps.mean((1, 2)).argsort(descending=True)[:5]]
    small = adaptive_avg_pool2d(maps, 8)
    rows, gram, last = small.flatten(1), gram_of(small[None], "none")[0], len(maps) - 1
    boxes = [(one, 0.33, 2.4 - 0.5 * index, 0.45, 0.45, None) for index, one in enumerate(maps)]
    texts = (
        (0.55, 3.2, "C feature maps\nH × W"), (1.06, 1.65, "→"), (1.06, 1.35, "flatten"),
        (2.6, 2.35, "$F$: C × M, with M = H · W"), (2.6, 0.95, "row $i$"), (4.15, 1.65, "×"),
        (4.95, 3.1, "$F^T$: M × C"), (4.95, 0.2, "column $j$"), (5.83, 1.65, "="),
        (6.7, 2.35, "$G = F F^T$: C × C"), (6.7, 0.95, "entry $G_{ij}$"),
    )  # fmt: skip
    figure, axes = _page(3.5)
    for values, left, low, width, height, mark in (
        *boxes,
        (rows, 1.35, 1.15, 2.5, 1.0, (0, 0, rows.shape[1], 1)),
        (rows.T, 4.45, 0.4, 1.0, 2.5, (last, 0, 1, rows.shape[1])),
        (gram, 6.2, 1.15, 1.0, 1.0, (last, 0, 1, 1)),
    ):
        part = figure.add_axes((left / WIDTH, low / 3.5, width / WIDTH, height / 3.5))
        part.imshow(values.numpy(), aspect="auto", interpolation="nearest")
        part.axis("off")
        if mark:
            frame = Rectangle((mark[0] - 0.5, mark[1] - 0.5), mark[2], mark[3], clip_on=False)
            part.add_patch(frame)
            frame.set(facecolor="none", edgecolor=COLORS[1], linewidth=3)
    for x, y, text in texts:
        axes.text(x, y, text, ha="center", va="center", fontsize=18 if len(text) == 1 else 9)
    return figure


def feed_forward(method: str) -> Figure:
    """A network that stylizes in one pass, and the losses that train it.

    Args:
        method: "johnson" (Johnson et al. 2016, Figure 2) or "adain" (Huang and Belongie 2017, Figure 2).

    Raises:
        SettingError: another method.
    """
    update = ("", "gradient with respect\nto the weights")
    statistics = ("features", "$t$ = AdaIN\n\ncontent with\n$\\mu$, $\\sigma$ of the\nstyle")
    johnson: dict[str, _Box] = {
        "style": ("picture", "style $y_s$", 0.7, 3.3, 1.1, 0.5),
        "x": ("picture", "content $x$", 0.7, 2.3, 1.1, 0.5),
        "net": ("optimized", "transformation\nnetwork", 2.1, 2.3, 1.2, 0.6),
        "y": ("picture", "result $\\hat y$", 3.4, 2.3, 0.9, 0.5),
        "vgg": ("frozen network", "VGG-16\n\nloss\nnetwork", 4.65, 2.35, 0.9, 2.5),
        "ls": ("loss", "style loss\n(Gram)", 5.9, 2.95, 1.1, 0.5),
        "lc": ("loss", "content loss\n(features)", 5.9, 1.75, 1.1, 0.5),
        "total": ("loss", "sum", 6.95, 2.35, 0.6, 0.5),
        "update": (*update, 4.65, 0.75, 1.6, 0.4),
        "note": ("", "after training, only this row is used", 2.2, 2.85, 2.4, 0.2),
    }
    adain: dict[str, _Box] = {
        "c": ("picture", "content", 0.5, 2.9, 0.75, 0.5),
        "s": ("picture", "style", 0.5, 1.9, 0.75, 0.5),
        "enc": ("frozen network", "VGG-19\nto\nrelu4_1", 1.5, 2.4, 0.75, 1.5),
        "ada": (*statistics, 2.7, 2.4, 1.05, 1.5),
        "dec": ("optimized", "decoder", 3.85, 2.4, 0.75, 0.5),
        "out": ("picture", "result", 4.85, 2.4, 0.75, 0.5),
        "enc2": ("frozen network", "VGG-19", 5.85, 2.4, 0.75, 0.5),
        "lc": ("loss", "content loss\n(features, $t$)", 6.75, 3.5, 1.1, 0.5),
        "ls": ("loss", "style loss\n($\\mu$, $\\sigma$)", 6.75, 1.3, 1.1, 0.5),
        "update": (*update, 5.3, 0.75, 1.6, 0.4),
    }
    if method == "johnson":
        arrows = "style>vgg x>net net>y y>vgg x>0.7,1.4>vgg vgg>ls vgg>lc ls>total lc>total"
        return _flow(3.8, johnson, arrows, "total>7.4,0.75>update update>net")
    if method == "adain":
        arrows = "c>enc s>enc enc>ada ada>dec dec>out out>enc2 enc2>lc enc2>ls ada>2.7,3.5>lc enc>1.5,1.3>ls"
        return _flow(4.0, adain, arrows, "lc>7.4,0.75>update ls>7.4,0.75>update update>dec")
    raise SettingError(f"There is no diagram of '{method}': choose 'johnson' or 'adain'.")


def dualstylegan() -> Figure:
    """DualStyleGAN's two paths into one generator (paper A, Figure 3 and section 3.2.2)."""
    rest = STRUCTURE + 1
    boxes: dict[str, _Box] = {
        "face": ("picture", "face", 0.6, 3.7, 0.9, 0.5),
        "e": ("frozen network", "encoder,\nmapping", 1.85, 3.7, 1.0, 0.5),
        "w": ("features", "intrinsic code\n$w^+$, 18 × 512", 3.25, 3.7, 1.2, 0.5),
        "start": ("features", "constant\n4 × 4", 3.25, 2.75, 0.9, 0.5),
        "coarse": ("frozen network", f"coarse\nlayers 1–{STRUCTURE}\n4 to 32 px", 4.6, 2.75, 1.1, 0.75),
        "fine": ("frozen network", f"fine\nlayers {rest}–18\n64 to 1024 px", 6.0, 2.75, 1.1, 0.75),
        "out": ("picture", "result", 7.1, 2.75, 0.65, 0.5),
        "style": ("picture", "style\nportrait", 0.6, 0.95, 0.9, 0.5),
        "e2": ("frozen network", "encoder,\nmapping", 1.85, 0.95, 1.0, 0.5),
        "ws": ("features", "extrinsic code\n$w_e^+$, 18 × 512", 3.25, 0.95, 1.2, 0.5),
        "ts": ("optimized", "$T_s$", 4.6, 0.95, 0.6, 0.4),
        "mod": ("optimized", f"ModRes\nweights $w_1 … w_{STRUCTURE}$", 4.6, 1.8, 1.1, 0.55),
        "structure": ("", "structure: a\nresidual is added", 3.3, 1.8, 1.3, 0.4),
        "tc": ("optimized", f"$T_c$\nweights $w_{rest} … w_{{18}}$", 6.0, 1.8, 1.1, 0.55),
        "color": ("", "color: codes\nare mixed", 7.05, 1.8, 0.9, 0.4),
    }
    intrinsic = "face>e e>w w>coarse w>fine start>coarse coarse>fine fine>out"
    extrinsic = " style>e2 e2>ws ws>ts ts>mod mod>coarse ws>3.25,0.5>6,0.5>tc tc>fine"
    return _flow(4.1, boxes, intrinsic + extrinsic)
