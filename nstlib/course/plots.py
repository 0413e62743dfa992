"""One house style for every figure: readable in print, on light and dark pages, and with any color vision."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

# Okabe & Ito's palette (2008): distinguishable with every common color vision; yellow is left out on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_RC: dict[Any, Any] = {
    "figure.facecolor": "white",  # opaque: a transparent figure loses its black labels on a dark page
    "savefig.facecolor": "white",
    "figure.dpi": 80,  # small enough that an executed notebook stays under 2 MB
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "image.cmap": "viridis",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings for the course, put back afterwards; a context, or a function's decorator."""
    with plt.rc_context(_RC):
        yield


@house_style()
def pictures(
    images: Sequence[Tensor],
    titles: Sequence[str] = (),
    *,
    columns: int = 4,
    width: float = 2.4,
    row_labels: Sequence[str] = (),
) -> Figure:
    """A grid of pictures.

    Args:
        images: each (1, 3, H, W) or (3, H, W), RGB in [0, 1]; sizes may differ.
        titles: one for each picture, or none.
        columns: pictures in a row.
        width: of one picture, in inches.
        row_labels: text at the left of each row.
    """
    rows = -(-len(images) // columns)
    arrays = [_array(image) for image in images]
    ratio = max(a.shape[0] / a.shape[1] for a in arrays)
    size = (width * columns, (width * ratio + (0.3 if titles else 0.05)) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for index, axis in enumerate(axes.flat):
        _bare(axis)
        axis.spines[:].set_visible(False)
        if index < len(arrays):
            axis.imshow(arrays[index], interpolation="lanczos")
        if index < len(titles):
            axis.set_title(titles[index])
    for row, label in enumerate(row_labels):
        axes[row, 0].set_ylabel(label)
    return figure


def batches(
    named: Mapping[str, Tensor], *, count: int = 4, across: bool = False, titles: Sequence[str] = (),
    width: float = 2.0,
) -> Figure:  # fmt: skip
    """Batches of pictures beside each other: each a column below its name, or a row behind it.

    Args:
        named: name -> (N, 3, H, W), RGB in [0, 1]; missing pictures stay white.
        count: pictures shown of each, at most.
        across: a row for each batch instead of a column.
        titles: of the columns, where the batches are rows.
        width: of one picture, in inches.
    """
    count = min(count, max(map(len, named.values())))
    blank = torch.ones_like(next(iter(named.values()))[0])
    lines = [[*batch[:count], *[blank] * (count - len(batch))] for batch in named.values()]
    if across:
        images = list(itertools.chain(*lines))
        return pictures(images, titles, columns=count, width=width, row_labels=[*named])
    return pictures(
        list(itertools.chain(*zip(*lines, strict=True))), [*named], columns=len(named), width=width
    )


@house_style()
def maps(features: Mapping[str, Tensor], count: int = 6) -> Figure:
    """The ``count`` most active channels of each layer, one layer a row.

    Args:
        features: layer name -> (1, C, H, W).
        count: channels shown for each layer.
    """
    size = (1.7 * count, 1.7 * len(features))
    figure, axes = plt.subplots(len(features), count, figsize=size, squeeze=False)
    for row, (name, activation) in enumerate(features.items()):
        chosen = activation[0].detach().float().cpu()
        order = chosen.mean(dim=(1, 2)).argsort(descending=True)[:count]
        for axis, channel in zip(axes[row], order, strict=False):
            axis.imshow(chosen[channel].numpy(), cmap="magma")
            axis.set_title(f"channel {int(channel)}", fontsize=8)
        for axis in axes[row]:
            _bare(axis)
        axes[row, 0].set_ylabel(f"{name}\n{tuple(chosen.shape)}", fontsize=8)
    return figure


@house_style()
def matrices(grams: Mapping[str, Tensor]) -> Figure:
    """Matrices side by side on one color scale, in the fourth root so that small entries are seen too.

    Args:
        grams: title -> (C, C) or (1, C, C).
    """
    values = {title: gram.detach().reshape(gram.shape[-2:]).float().cpu() for title, gram in grams.items()}
    top = max(v.abs().max().item() for v in values.values()) ** 0.25
    figure, axes = plt.subplots(1, len(values), figsize=(2.6 * len(values), 2.9), squeeze=False)
    for axis, (title, value) in zip(axes[0], values.items(), strict=True):
        axis.imshow(value.abs().pow(0.25).numpy(), vmin=0, vmax=top, interpolation="nearest")
        axis.set_title(title)
        axis.grid(False)
        axis.set_xlabel("channel j")
    axes[0, 0].set_ylabel("channel i")
    return figure


@house_style()
def curves(histories: Mapping[str, Sequence[Mapping[str, float]]], *, x: str = "iteration") -> Figure:
    """The total loss of several runs, on a logarithmic axis.

    Args:
        histories: label -> rows as in ``Result.history``.
        x: column of the horizontal axis: "iteration", "seconds" or, of a training, "step".
    """
    figure, axis = plt.subplots(figsize=(6.0, 3.3))
    dashes = itertools.cycle(["-", "--", "-.", ":"])
    for (label, rows), dash in zip(histories.items(), dashes, strict=False):
        axis.plot([r[x] for r in rows], [r["total"] for r in rows], label=label, linestyle=dash)
    axis.set(xlabel=x, ylabel="total loss", yscale="log")
    axis.legend()
    return figure


@house_style()
def terms(history: Sequence[Mapping[str, float]], names: Sequence[str], mark: tuple[float, str]) -> Figure:
    """The losses of one training, each at the steps that have it, on a logarithmic axis.

    Args:
        history: rows with "step" and losses, as in ``TrainingResult.history``.
        names: of the losses; one that no row has is left out.
        mark: a step at which a dotted line stands, and what it means.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.0))
    for name in names:
        rows = [(row["step"], row[name]) for row in history if name in row]
        if rows:
            axis.plot(*zip(*rows, strict=True), label=name, marker=".")
    axis.axvline(mark[0], color="#888888", linestyle=":", label=mark[1])
    axis.set(xlabel="step", ylabel="weighted loss", yscale="log")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@house_style()
def clouds(named: Mapping[str, Tensor], fixed: Tensor, moving_label: str, fixed_label: str) -> Figure:
    """Points in the plane beside each other, with the same fixed points marked in each.

    Args:
        named: title -> points (N, 2).
        fixed: points (M, 2).
        moving_label: what the points are.
        fixed_label: what the fixed points are.
    """
    figure, axes = plt.subplots(
        1, len(named), figsize=(3.4 * len(named), 3.0), sharex=True, sharey=True, squeeze=False
    )
    for axis, (title, points) in zip(axes[0], named.items(), strict=True):
        axis.scatter(*points.T.numpy(), s=14, alpha=0.6, label=moving_label)
        axis.scatter(*fixed.T.numpy(), marker="x", s=70, label=fixed_label)
        axis.set(title=title, xlabel="first number")
    axes[0, 0].set_ylabel("second number")
    axes[0, 0].legend()
    return figure


@house_style()
def bands(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[Mapping[str, float]]]]], x: str = "evaluations"
) -> Figure:
    """The total loss of methods that ran several times: mean, and from least to most as a band.

    Args:
        panels: title -> label of a method -> its runs, each with rows as in ``Result.history``.
        x: column of the horizontal axis.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.0), squeeze=False)
    for axis, (title, methods) in zip(axes[0], panels.items(), strict=True):
        dashes = itertools.cycle(["-", "--", "-.", ":"])
        for (label, runs), dash in zip(methods.items(), dashes, strict=False):
            # On one grid, as far as the shortest run goes: the steps of the runs may differ.
            ends = max(way[0][x] for way in runs), min(way[-1][x] for way in runs)
            grid = np.linspace(*ends, 100)
            losses = [np.interp(grid, [r[x] for r in way], [r["total"] for r in way]) for way in runs]
            (line,) = axis.plot(grid, np.mean(losses, 0), dash, label=label)
            low, high = np.min(losses, 0), np.max(losses, 0)
            axis.fill_between(grid, low, high, alpha=0.25, color=line.get_color())
        first = max(way[0]["total"] for runs in methods.values() for way in runs)
        axis.set(xlabel=x, yscale="log", title=title, ylim=(None, 1.2 * first))
    axes[0, 0].set_ylabel("total loss")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=8)
    return figure


class LiveCurve:
    """Losses that grow on the page while a network learns: a callback for :func:`nstlib.training.train`.

    Args:
        *losses: columns of the history to draw.
        every: seconds between two drawings.
    """

    def __init__(self, *losses: str, every: float = 1.0) -> None:
        self.losses, self.every = losses or ("total",), every
        with house_style():
            self.figure, self.axis = plt.subplots(figsize=(6.0, 3.0))
        self._handle: Any = None
        self._drawn = -math.inf

    def __call__(self, progress: Any) -> None:
        """Draw, if it is time to, or the last step."""
        if progress.step < progress.steps and time.monotonic() - self._drawn < self.every:
            return
        with house_style():
            self.axis.clear()
            steps = [row["step"] for row in progress.history]
            for name in self.losses:
                self.axis.plot(steps, [row[name] for row in progress.history], label=name)
            left = progress.seconds * (progress.steps / progress.step - 1)
            title = f"step {progress.step} of {progress.steps}, {progress.seconds:.0f} s"
            title += f", about {left:.0f} s to go" if left >= 1 else ""
            self.axis.set(title=title, xlabel="step", ylabel="loss")
            self.axis.set_yscale("log")
            self.axis.legend()
        if self._handle is None:
            from IPython.display import display

            self._handle = display(self.figure, display_id=True)
        else:
            self._handle.update(self.figure)
        self._drawn = time.monotonic()

    def finish(self) -> Figure:
        """The figure as it stands; the page keeps it, and matplotlib will not show it a second time."""
        plt.close(self.figure)
        return self.figure


@house_style()
def boxes(image: Tensor, sides: Mapping[str, int], *, center: tuple[float, float] = (0.5, 0.5)) -> Figure:
    """Squares drawn on a picture around one point: what a pixel of each layer sees.

    Args:
        image: (1, 3, H, W), RGB in [0, 1].
        sides: label -> side of the square in pixels.
        center: (across, down) as fractions of the picture.
    """
    array = _array(image)
    height, width = array.shape[:2]
    x, y = center[0] * width, center[1] * height
    figure, axis = plt.subplots(figsize=(5.2, 4.2))
    axis.imshow(array)
    for (label, side), color in zip(sides.items(), COLORS, strict=False):
        corner = (x - side / 2, y - side / 2)
        square = Rectangle(corner, side, side, fill=False, linewidth=2, edgecolor=color, label=label)
        axis.add_patch(square)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.axis("off")
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


@house_style()
def diagram(
    boxes: Mapping[str, tuple[float, float, str, int]], arrows: Sequence[tuple[str, str]],
    size: tuple[float, float],
) -> Figure:  # fmt: skip
    """Boxes and arrows: the parts of a network.

    Args:
        boxes: name -> (across, up, text, number of its color in `COLORS`).
        arrows: from which box to which, by name.
        size: of the figure, in inches.
    """
    figure, axis = plt.subplots(figsize=size)
    drawn = {}
    for name, (x, y, text, color) in boxes.items():
        look: dict[str, Any] = {"boxstyle": "round,pad=0.4", "edgecolor": COLORS[color]}
        look["facecolor"] = (*to_rgb(COLORS[color]), 0.15)
        drawn[name] = axis.text(x, y, text, ha="center", va="center", fontsize=9, bbox=look)
    for start, end in arrows:
        patches = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        look = {"arrowstyle": "-|>", "color": "#555555", "shrinkA": 2, "shrinkB": 2}
        axis.annotate("", boxes[end][:2], boxes[start][:2], arrowprops=look | patches)
    across, up = [box[0] for box in boxes.values()], [box[1] for box in boxes.values()]
    axis.set(xlim=(min(across) - 0.6, max(across) + 0.6), ylim=(min(up) - 0.6, max(up) + 0.6))
    axis.axis("off")
    return figure


def _bare(axis: plt.Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.grid(False)


def _array(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) -> (H, W, 3) for imshow."""
    picture = image[0] if image.ndim == 4 else image
    return picture.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()
