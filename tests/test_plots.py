"""Figures: drawn to the end without a warning, in a style that leaves matplotlib as it was."""

from __future__ import annotations

import itertools
import warnings
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from skimage.color import deltaE_ciede2000, rgb2lab

from nstlib.course import plots


@pytest.fixture(autouse=True)
def drawn():
    """``drawn(figure)``: really draw it, for layout and text warn only then; warnings are errors."""
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        def draw(figure):
            assert isinstance(figure, Figure)
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())
            assert pixels[..., :3].std() > 1  # something is on it
            assert pixels[0, 0].tolist() == [255, 255, 255, 255]  # opaque white
            return pixels

        yield draw
    plt.close("all")
    assert dict(matplotlib.rcParams) == before  # whatever was drawn


def shown_axes(figure):
    return [axis for axis in figure.axes if axis.images]


# --------------------------------------------------------------------------------------------------- style


def test_house_style_is_put_back():
    before = dict(matplotlib.rcParams)
    with plots.house_style():
        assert matplotlib.rcParams["savefig.facecolor"] == "white"
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == list(plots.COLORS)
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before


def test_house_style_is_put_back_after_an_error():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), plots.house_style():
        raise ZeroDivisionError
    assert dict(matplotlib.rcParams) == before


def linear(colors):
    srgb = np.array([to_rgb(color) for color in colors])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


# Machado, Oliveira & Fernandes 2009, severity 1, for linear RGB.
COLOR_VISION = {
    "all cones": np.eye(3),
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}  # fmt: skip


@pytest.mark.parametrize("vision", COLOR_VISION)
def test_colors_are_told_apart_with_any_color_vision(vision):
    seen = np.clip(linear(plots.COLORS) @ np.array(COLOR_VISION[vision]).T, 0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(srgb[None])[0]
    nearest = min(deltaE_ciede2000(a, b) for a, b in itertools.combinations(lab, 2))
    # Measured: 22.2 with all cones, 12.2, 12.5 and 10.9 without one kind. About 2 is just visible side by
    # side; red and green of matplotlib's own cycle come to 4.6 without green cones.
    assert nearest > (20 if vision == "all cones" else 10)


def test_colors_stand_out_on_white():
    luminance = linear(plots.COLORS) @ [0.2126, 0.7152, 0.0722]
    contrast = 1.05 / (luminance + 0.05)
    # Measured: orange 2.25, sky blue 2.31, the others 3.06 and more (WCAG's bound for graphics is 3).
    assert contrast.min() > 2.2
    assert (contrast[:4] > 3).all()  # the first four, which most figures use
    assert len(set(plots.COLORS)) == len(plots.COLORS) >= 7


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("columns", [1, 3, 4])
def test_pictures(drawn, picture, count, columns):
    images = [picture(8 + 3 * i, 20 - i, i) for i in range(count)]
    figure = plots.pictures(images, [f"n° {i}" for i in range(count)], columns=columns, width=1)
    drawn(figure)
    axes = shown_axes(figure)
    assert len(axes) == count
    assert len(figure.axes) == columns * -(-count // columns)
    assert [axis.get_title() for axis in axes] == [f"n° {i}" for i in range(count)]
    for axis, image in zip(axes, images, strict=True):
        assert np.allclose(axis.images[0].get_array(), image[0].permute(1, 2, 0))
        assert len(axis.get_xticks()) == len(axis.get_yticks()) == 0


def test_pictures_without_titles_with_row_labels(drawn, picture):
    figure = plots.pictures([picture(8, 8)] * 4, columns=2, row_labels=["one", "two"])
    drawn(figure)
    assert [figure.axes[0].get_ylabel(), figure.axes[2].get_ylabel()] == ["one", "two"]
    assert all(axis.get_title() == "" for axis in figure.axes)


@pytest.mark.parametrize("shape", [(1, 3, 6, 5), (3, 6, 5), (1, 3, 1, 1), (1, 3, 40, 2), (1, 3, 2, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_tensor_that_is_a_picture(drawn, shape, dtype):
    image = torch.linspace(-0.2, 1.2, int(np.prod(shape))).reshape(shape).to(dtype).requires_grad_(True)
    figure = plots.pictures([image], ["x"])
    drawn(figure)
    array = shown_axes(figure)[0].images[0].get_array()
    assert array.shape == (*shape[-2:], 3)
    assert array.min() >= 0
    assert array.max() <= 1


# ----------------------------------------------------------------------------------------- maps and matrices


def test_maps_show_the_most_active_channels(drawn):
    activation = torch.zeros(1, 5, 6, 7)
    activation[0, :, 2, 3] = torch.tensor([1.0, 5.0, 3.0, 4.0, 2.0])
    figure = plots.maps({"relu1_1": activation, "relu2_1": activation[..., 1:4, 1:4]}, count=3)
    drawn(figure)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["channel 1", "channel 3", "channel 2"] * 2
    assert figure.axes[0].get_ylabel() == "relu1_1\n(5, 6, 7)"
    assert np.allclose(figure.axes[1].images[0].get_array(), activation[0, 3])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_maps_of_few_channels_and_in_bfloat16(drawn, layers):
    features = {f"layer {i}": torch.rand(1, 2, 5 + i, 4).to(torch.bfloat16) for i in range(layers)}
    figure = plots.maps(features, count=4)
    drawn(figure)
    assert len(shown_axes(figure)) == 2 * layers
    assert len(figure.axes) == 4 * layers


@pytest.mark.parametrize("count", [1, 2, 5])
def test_matrices_share_one_scale(drawn, count):
    grams = {f"gram {i}": torch.rand(1, 4 + i, 4 + i) * 10**i - 0.1 for i in range(count)}
    figure = plots.matrices(grams)
    drawn(figure)
    axes = shown_axes(figure)
    assert [axis.get_title() for axis in axes] == list(grams)
    assert len({axis.images[0].get_clim() for axis in axes}) == 1
    assert axes[0].images[0].get_clim()[0] == 0
    shown = axes[-1].images[0].get_array()
    assert np.allclose(shown**4, grams[f"gram {count - 1}"][0].abs(), rtol=1e-4, atol=1e-6)
    assert np.max(shown) == pytest.approx(axes[0].images[0].get_clim()[1], rel=1e-5)


def test_a_matrix_without_batch(drawn):
    drawn(plots.matrices({"one": torch.eye(3), "other": torch.zeros(3, 3)}))
    plots.matrices({"nothing at all": torch.zeros(3, 3)}).canvas.draw()


# --------------------------------------------------------------------------------------------- curves, boxes


def history(length, start=1.0):
    return [
        {"iteration": i, "seconds": 0.1 * i, "total": start / i, "style": 2 * start / i}
        for i in range(1, length + 1)
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("log", [True, False])
def test_curves(drawn, count, log):
    histories = {f"run {i}": history(5 + i, 1.0 + i) for i in range(count)}
    figure = plots.curves(histories, log=log)
    drawn(figure)
    (axis,) = figure.axes
    assert len(axis.lines) == count
    assert axis.get_yscale() == ("log" if log else "linear")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(histories)
    looks = {(line.get_color(), line.get_linestyle()) for line in axis.lines}
    assert len(looks) == count  # by color and dash: told apart in gray print as well
    assert len({line.get_linestyle() for line in axis.lines}) == min(count, 4)
    assert np.allclose(axis.lines[0].get_ydata(), [1 / i for i in range(1, 6)])


def test_curves_of_another_column_over_seconds(drawn):
    figure = plots.curves({"a": history(4)}, y="style", x="seconds")
    drawn(figure)
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("seconds", "style loss")
    assert np.allclose(axis.lines[0].get_xdata(), [0.1, 0.2, 0.3, 0.4])
    assert np.allclose(axis.lines[0].get_ydata(), [2, 1, 2 / 3, 0.5])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_boxes(drawn, picture, count):
    sides = {f"layer {i}": 4 * i + 3 for i in range(count)}
    figure = plots.boxes(picture(20, 30), sides, center=(0.25, 0.5))
    drawn(figure)
    (axis,) = figure.axes
    boxes = axis.patches
    assert [(box.get_width(), box.get_height()) for box in boxes] == [(s, s) for s in sides.values()]
    for box in boxes:
        assert box.get_x() + box.get_width() / 2 == pytest.approx(0.25 * 30)
        assert box.get_y() + box.get_height() / 2 == pytest.approx(0.5 * 20)
    assert len({box.get_edgecolor() for box in boxes}) == count
    assert axis.get_xlim() == (0, 30)  # a box larger than the picture does not shrink it
    assert axis.get_ylim() == (20, 0)


def test_a_figure_can_be_saved(tmp_path, picture):
    figure = plots.pictures([picture(8, 8)], ["a"])
    for ending in ("png", "jpg", "svg"):
        figure.savefig(tmp_path / f"figure.{ending}")
        assert (tmp_path / f"figure.{ending}").stat().st_size > 1000


# ------------------------------------------------------------------------------------------ the live curve


def test_a_live_curve_grows_and_is_shown_once(monkeypatch):
    shown = []

    def display(figure, display_id):
        assert display_id is True
        shown.append(("display", figure))
        return SimpleNamespace(update=lambda figure: shown.append(("update", figure)))

    monkeypatch.setattr("IPython.display.display", display)
    live = plots.LiveCurve("total", "style", every=0.0)
    rows = []
    for step in range(1, 5):
        rows.append({"step": step, "seconds": step / 2, "total": 1 / step, "style": 0.5 / step})
        live(SimpleNamespace(step=step, steps=4, seconds=step / 2, history=rows))
    assert [kind for kind, _ in shown] == ["display", "update", "update", "update"]
    figure = live.finish()
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["total", "style"]
    assert np.allclose(axis.lines[0].get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4])
    assert axis.get_title() == "step 4 of 4, 2 s"
    assert figure.number not in plots.plt.get_fignums()  # or the page would show it a second time


def test_a_live_curve_is_not_drawn_at_every_step(monkeypatch):
    drawn = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: SimpleNamespace(update=drawn.append))
    live = plots.LiveCurve(every=3600.0)
    row = {"step": 1, "seconds": 1.0, "total": 1.0}
    for step in (1, 2, 3, 100):
        live(SimpleNamespace(step=step, steps=100, seconds=10.0, history=[row]))
    assert len(drawn) == 1  # the first one is displayed, the last one always drawn
    live.finish()


# ------------------------------------------------------------------------------------------- two paths


def test_two_paths_shows_every_code_and_what_it_weighs(drawn):
    parts = [
        {"code": n, "kind": "structure" if n < 7 else "color", "side": 4 << (n + 1) // 2,
         "channels": 12 if n < 7 else None, "weights": 1_234_567 if n < 7 else 2_000}
        for n in range(10)
    ]  # fmt: skip
    figure = plots.two_paths(parts, mapping=1_500_000, synthesis=2_100, structure=525_312)
    drawn(figure)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("ModRes\n1.2 M") == 7
    assert texts.count("$T_c$\n2.0 k") == 3
    assert {"4 px\n12", "64 px", "$T_s$, 0.5 M", "intrinsic\n2.1 k"} <= set(texts)
