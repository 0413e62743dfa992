"""Diagrams of networks and losses, drawn by code: figures of the papers, with what this library computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from nstlib.course.plots import COLORS, house_style
from nstlib.losses import gram_matrix as compute_gram
from nstlib.nets.vgg import architecture, receptive_field

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
MARKED: Mapping[str, Sequence[str]] = {"style": STYLE_LAYERS, "content": ("relu4_2",)}

# Each kind of box has its own color, and its own corners and border for gray print.
_KINDS: dict[str, tuple[str, float, float, str]] = {  # color, rounding in inches, line width, line style
    "picture": (COLORS[0], 0.0, 1.2, "-"),
    "frozen network": (COLORS[6], 0.1, 1.2, "--"),
    "trained": (COLORS[2], 0.1, 3.0, "-"),
    "features": (COLORS[5], 0.0, 1.0, ":"),
    "loss": (COLORS[1], 0.21, 1.4, "-"),
}
_HATCHES = ("////", "....", "xxxx")
_Box = tuple[str, str, float, float, float, float]  # kind, text, center across, up, width, height


def _page(width: float, height: float) -> tuple[Figure, plt.Axes]:
    """An empty figure whose coordinates are inches; call it in the house style."""
    figure = plt.figure(figsize=(width, height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _draw_box(axes: plt.Axes, box: _Box) -> None:
    kind, text, x, y, width, height = box
    if kind in _KINDS:
        color, rounding, line, dash = _KINDS[kind]
        corners = f"round,pad=0,rounding_size={rounding}" if rounding else "square,pad=0"
        look = {"edgecolor": color, "linewidth": line, "linestyle": dash, "boxstyle": corners}
        corner = (x - width / 2, y - height / 2)
        axes.add_patch(
            FancyBboxPatch(corner, width, height, facecolor=(*plt.cm.colors.to_rgb(color), 0.12), **look)
        )
    axes.text(x, y, text, ha="center", va="center", fontsize=9)


def _route(a: _Box, b: _Box) -> list[tuple[float, float]]:
    """From box to box: straight where they face each other, else first across, then up or down."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a[2:], b[2:]
    right, up = (1 if bx > ax else -1), (1 if by > ay else -1)
    if abs(ay - by) < max(ah, bh) / 2:
        y = ay if ah <= bh else by
        return [(ax + right * aw / 2, y), (bx - right * bw / 2, y)]
    if abs(ax - bx) < max(aw, bw) / 2:
        x = ax if aw <= bw else bx
        return [(x, ay + up * ah / 2), (x, by - up * bh / 2)]
    return [(ax + right * aw / 2, ay), (bx, ay), (bx, by - up * bh / 2)]


def _flow(size: tuple[float, float], boxes: Mapping[str, _Box], arrows: str, back: str = "") -> Figure:
    """Boxes and arrows, with a legend of the kinds that occur.

    Args:
        size: of the figure, in inches.
        boxes: name -> kind ("" is text alone), text, center and size in inches.
        arrows: "a>b c>d", by the names of boxes.
        back: arrows drawn dashed: gradients.
    """
    with house_style():
        figure, axes = _page(*size)
        for box in boxes.values():
            _draw_box(axes, box)
        for pairs, color, dash in ((arrows, "#444444", "-"), (back, COLORS[1], "--")):
            for pair in pairs.split():
                *line, end = _route(*(boxes[name] for name in pair.split(">")))
                for one, other in zip(line, line[1:], strict=False):
                    axes.plot(*zip(one, other, strict=True), color=color, linestyle=dash, linewidth=1.3)
                look = {"arrowstyle": "-|>", "color": color, "linestyle": dash, "shrinkA": 0, "shrinkB": 0}
                axes.annotate("", end, line[-1], arrowprops=look | {"linewidth": 1.3})
        kinds = [kind for kind in _KINDS if any(box[0] == kind for box in boxes.values())]
        for index, kind in enumerate(kinds):
            x = size[0] * (index + 0.5) / len(kinds)
            _draw_box(axes, (kind, kind, x, 0.2, 1.2, 0.26))
    return figure


def vgg(network: str = "vgg19", marked: Mapping[str, Sequence[str]] = MARKED) -> Figure:
    """The layers of a network with their sizes, names and receptive fields.

    Args:
        network: see :func:`nstlib.nets.vgg.architecture`.
        marked: what layers are used for -> their names, up to three uses.

    Raises:
        SettingError: no such network.
    """
    layers = architecture(network)
    use = {layer: label for label, names in marked.items() for layer in names}
    looks = dict(zip(marked, zip(COLORS, _HATCHES, strict=False), strict=False))
    columns = [layer for layer in layers if layer.kind != "conv"]
    with house_style():
        figure, axes = _page(7.5, 3.6)
        pitch = 6.7 / len(columns)
        start = 0.75
        block: list[float] = []
        for index, layer in enumerate(columns):
            x = start + pitch * index
            field, step = receptive_field(network, layer.name)
            name = layer.name if layer.name in use else layer.name.replace("relu", "conv")
            name = name if name in use else layer.name
            height = 2.0 / (1 + torch.tensor(float(step)).log2().item() * 0.5)
            look = {"facecolor": "#dddddd", "edgecolor": "#888888"}
            if name in use:
                color, hatch = looks[use[name]]
                look = {"facecolor": (*plt.cm.colors.to_rgb(color), 0.25), "edgecolor": color, "hatch": hatch}
            if layer.kind == "pool":
                look["facecolor"] = "white"
            axes.add_patch(Rectangle((x - pitch * 0.35, 1.75 - height / 2), pitch * 0.7, height, **look))
            weight = "bold" if name in use else "normal"
            axes.text(x, 0.7, name, rotation=90, ha="center", va="top", fontsize=8, fontweight=weight)
            axes.text(x, 0.75, str(field), ha="center", va="bottom", fontsize=8, fontweight=weight)
            block.append(x)
            if layer.kind == "pool":
                scale = "" if step == 2 else f"/{step // 2}"
                title = f"{layer.channels} maps\nH{scale} × W{scale}"
                axes.text(sum(block) / len(block), 3.35, title, ha="center", va="top", fontsize=8)
                block = []
        axes.text(0.05, 0.75, "receptive\nfield (px)", fontsize=8)
        for index, (label, (color, hatch)) in enumerate(looks.items()):
            look = {"facecolor": (*plt.cm.colors.to_rgb(color), 0.25), "edgecolor": color, "hatch": hatch}
            axes.add_patch(Rectangle((0.1, 2.9 - 0.3 * index), 0.2, 0.2, **look))
            axes.text(0.36, 3.0 - 0.3 * index, label, va="center", fontsize=8)
    return figure


def training_loop() -> Figure:
    """Gatys' optimization: the network stays as it is, the pixels change (papers A, Figures 1-2, D, 2-5)."""
    boxes: dict[str, _Box] = {
        "content": ("picture", "content $I_c$", 0.75, 3.6, 1.2, 0.5),
        "x": ("picture", "picture $I$\n(optimized)", 0.75, 2.5, 1.2, 0.5),
        "style": ("picture", "style $I_s$", 0.75, 1.4, 1.2, 0.5),
        "vgg": ("frozen network", "VGG", 2.1, 2.5, 0.8, 2.8),
        "fc": ("features", "features\n$F^l(I_c)$", 3.4, 3.6, 1.1, 0.5),
        "fx": ("features", "features, Gram\n$F^l(I),\\ G^l(I)$", 3.4, 2.5, 1.1, 0.5),
        "gs": ("features", "Gram matrix\n$G^l(I_s)$", 3.4, 1.4, 1.1, 0.5),
        "lc": ("loss", "content loss $L_c$\nA (3)", 4.95, 3.05, 1.25, 0.5),
        "ls": ("loss", "style loss $L_s$\nA (2)", 4.95, 1.95, 1.25, 0.5),
        "total": ("loss", "total $L$\n$\\alpha L_c + \\beta L_s$", 6.65, 2.5, 1.2, 0.6),
        "step": (
            "",
            "gradient $\\partial L/\\partial I$, step of the optimizer on the pixels",
            3.7,
            0.75,
            3.9,
            0.3,
        ),
    }
    arrows = "content>vgg x>vgg style>vgg vgg>fc vgg>fx vgg>gs fc>lc fx>lc fx>ls gs>ls lc>total ls>total"
    return _flow((7.5, 4.2), boxes, arrows, "total>step step>x")


def gram_matrix(features: Tensor | None = None) -> Figure:
    """The Gram matrix as a picture: maps as rows, times the same as columns (paper D, Figure 7; A (1)).

    Args:
        features: (C, H, W) or (1, C, H, W), of which the five most active maps are drawn, at 8 × 8 positions;
            None: random ones.
    """
    if features is None:
        features = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0)) ** 2
    maps = features.detach().float().cpu().reshape(-1, *features.shape[-2:])
    maps = maps[maps.mean((1, 2)).argsort(descending=True)[:5]]
    maps = adaptive_avg_pool2d(maps, 8)
    rows = maps.flatten(1)
    with house_style():
        figure, axes = _page(7.5, 3.4)
        count = len(rows)

        def image(values: Tensor, left: float, low: float, width: float, height: float) -> plt.Axes:
            part = figure.add_axes((left / 7.5, low / 3.4, width / 7.5, height / 3.4))
            part.imshow(values.numpy(), aspect="auto", interpolation="nearest")
            part.set(xticks=[], yticks=[])
            part.grid(False)
            return part

        for index, one in enumerate(maps):
            image(one, 0.15, 2.35 - 0.5 * index, 0.45, 0.45)
        image(rows, 1.2, 1.1, 2.6, 1.0)
        image(rows.T, 4.3, 0.3, 1.0, 2.6)
        image(compute_gram(maps[None], "none")[0], 5.9, 1.1, 1.0, 1.0)
        axes.text(0.38, 2.95, f"{count} feature\nmaps, H × W", ha="center", fontsize=9)
        axes.text(2.5, 2.2, "$F$: C × M, a map a row", ha="center", fontsize=9)
        axes.text(4.8, 3.0, "$F^T$: M × C", ha="center", fontsize=9)
        axes.text(6.4, 2.2, "$G = F F^T$: C × C", ha="center", fontsize=9)
        axes.text(4.05, 1.6, "·", ha="center", va="center", fontsize=18)
        axes.text(5.6, 1.6, "=", ha="center", va="center", fontsize=18)
    return figure


def feed_forward(method: str) -> Figure:
    """A network that stylizes in one pass, and the losses that train it.

    Args:
        method: "johnson" (Johnson et al. 2016, Figure 2) or "adain" (Huang and Belongie 2017, Figure 2).
    """
    if method == "johnson":
        boxes: dict[str, _Box] = {
            "x": ("picture", "content $x$", 0.7, 2.9, 1.1, 0.5),
            "net": ("trained", "transformation\nnetwork", 2.2, 2.9, 1.2, 0.6),
            "y": ("picture", "result $\\hat y$", 3.7, 2.9, 1.1, 0.5),
            "style": ("picture", "style $y_s$", 0.7, 1.5, 1.1, 0.5),
            "vgg": ("frozen network", "VGG-16\n(loss network)", 5.2, 2.2, 1.2, 2.0),
            "lc": ("loss", "content loss", 6.75, 2.9, 1.2, 0.5),
            "ls": ("loss", "style loss", 6.75, 1.5, 1.2, 0.5),
            "back": ("", "gradient: changes the weights", 3.9, 0.7, 2.2, 0.3),
        }
        return _flow((7.5, 3.6), boxes, "x>net net>y y>vgg style>vgg vgg>lc vgg>ls", "ls>back back>net")
    boxes = {
        "c": ("picture", "content $c$", 0.65, 2.9, 1.0, 0.5),
        "s": ("picture", "style $s$", 0.65, 1.7, 1.0, 0.5),
        "enc": ("frozen network", "VGG-19\nto relu4_1", 1.9, 2.3, 1.0, 1.8),
        "ada": ("features", "AdaIN\n$\\mu(s), \\sigma(s)$", 3.2, 2.3, 1.0, 1.8),
        "dec": ("trained", "decoder", 4.45, 2.3, 0.9, 0.6),
        "out": ("picture", "result", 5.6, 2.3, 0.9, 0.5),
        "enc2": ("frozen network", "VGG-19", 6.75, 2.3, 0.9, 0.5),
        "lc": ("loss", "content loss", 6.75, 3.1, 1.2, 0.5),
        "ls": ("loss", "style loss", 6.75, 1.5, 1.2, 0.5),
        "back": ("", "gradient: changes the weights", 5.0, 0.7, 2.2, 0.3),
    }
    arrows = "c>enc s>enc enc>ada ada>dec dec>out out>enc2 enc2>lc enc2>ls"
    return _flow((7.5, 3.6), boxes, arrows, "ls>back back>dec")


def dualstylegan() -> Figure:
    """DualStyleGAN's two paths into one generator (paper A, Figure 3 and section 3.2.2)."""
    boxes: dict[str, _Box] = {
        "z": ("features", "face code $z$", 0.75, 3.4, 1.2, 0.5),
        "f": ("frozen network", "mapping $f$", 2.25, 3.4, 1.1, 0.5),
        "coarse": ("frozen network", "layers 1-7\n4 to 32 px\nstructure", 3.9, 2.3, 1.2, 0.9),
        "fine": ("frozen network", "layers 8-18\n64 to 1024 px\ncolor", 5.9, 2.3, 1.2, 0.9),
        "out": ("picture", "picture", 7.0, 2.3, 0.7, 0.5),
        "ze": ("features", "style code $z_e^+$", 0.75, 0.9, 1.2, 0.5),
        "f2": ("frozen network", "mapping $f$", 2.25, 0.9, 1.1, 0.5),
        "ts": ("trained", "$T_s$, ModRes\n× $w_{1-7}$", 3.9, 0.9, 1.2, 0.6),
        "tc": ("trained", "$T_c$\n× $w_{8-18}$", 5.9, 0.9, 1.2, 0.6),
    }
    arrows = "z>f f>coarse f>fine coarse>fine fine>out ze>f2 f2>ts ts>coarse tc>fine"
    return _flow((7.5, 4.0), boxes, arrows)
