"""Figures: drawn to the end without a warning, in a style that leaves matplotlib as it was."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

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
            return [axis for axis in figure.axes if axis.images]

        yield draw
    plt.close("all")
    assert dict(matplotlib.rcParams) == before  # whatever was drawn


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("count", "columns"), [(1, 4), (4, 3), (9, 4)])
def test_pictures(drawn, picture, count, columns):
    images = [picture(8 + 3 * i, 20 - i, i) for i in range(count)]
    titles = [f"n° {i}" for i in range(count)]
    figure = plots.pictures(images, titles, columns=columns, width=1, row_labels=["one"])
    axes = drawn(figure)
    assert len(figure.axes) == columns * -(-count // columns)
    assert [axis.get_title() for axis in axes] == titles
    assert figure.axes[0].get_ylabel() == "one"
    for axis, image in zip(axes, images, strict=True):
        assert np.allclose(axis.images[0].get_array(), image[0].permute(1, 2, 0))
        assert len(axis.get_xticks()) == len(axis.get_yticks()) == 0


def test_batches_are_columns_or_rows_and_missing_pictures_are_white(drawn):
    named = {"three": torch.rand(3, 3, 8, 8), "one": torch.rand(1, 3, 8, 8)}
    down = drawn(plots.batches(named, count=2, width=1))
    assert [axis.get_title() for axis in down] == ["three", "one", "", ""]
    across = drawn(plots.batches(named, across=True, titles=["a", "b", "c"], width=1))
    assert [axis.get_ylabel() for axis in across] == ["three", "", "", "one", "", ""]
    for axes, white in ((down, 3), (across, 5)):
        assert axes[white].images[0].get_array().min() == 1
        found = axes[0].images[0].get_array()
        assert np.allclose(found, named["three"][0].permute(1, 2, 0))


# ----------------------------------------------------------------------------------------- maps and matrices


def test_maps_show_the_most_active_channels(drawn):
    activation = torch.zeros(1, 5, 6, 7)
    activation[0, :, 2, 3] = torch.tensor([1.0, 5.0, 3.0, 4.0, 2.0])
    few = torch.rand(1, 2, 5, 4).to(torch.bfloat16)
    figure = plots.maps({"relu1_1": activation, "relu2_1": few}, count=3)
    assert len(drawn(figure)) == 3 + 2
    assert [axis.get_title() for axis in figure.axes[:3]] == ["channel 1", "channel 3", "channel 2"]
    assert figure.axes[0].get_ylabel() == "relu1_1\n(5, 6, 7)"
    assert np.allclose(figure.axes[1].images[0].get_array(), activation[0, 3])


@pytest.mark.parametrize("count", [1, 3])
def test_matrices_share_one_scale(drawn, count):
    grams = {f"gram {i}": torch.rand(1, 4 + i, 4 + i) * 10**i - 0.1 for i in range(count)}
    axes = drawn(plots.matrices(grams))
    assert [axis.get_title() for axis in axes] == list(grams)
    ((low, high),) = {axis.images[0].get_clim() for axis in axes}
    shown = axes[-1].images[0].get_array()
    assert np.allclose(shown**4, grams[f"gram {count - 1}"][0].abs(), rtol=1e-4, atol=1e-6)
    assert (low, high) == (0, pytest.approx(np.max(shown), rel=1e-5))


# --------------------------------------------------------------------------------------------- curves, boxes


def test_curves(drawn):
    rows = [{"iteration": i, "seconds": 0.1 * i, "total": 1 / i} for i in range(1, 6)]
    histories = {f"run {i}": rows for i in range(5)}
    figure = plots.curves(histories, x="seconds")
    drawn(figure)
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_yscale()) == ("seconds", "total loss", "log")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(histories)
    # By color and dash: told apart in gray print as well.
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == 5
    assert len({line.get_linestyle() for line in axis.lines}) == 4
    assert np.allclose(axis.lines[0].get_xdata(), [0.1, 0.2, 0.3, 0.4, 0.5])
    assert np.allclose(axis.lines[0].get_ydata(), [1 / i for i in range(1, 6)])


def test_terms_stand_at_the_steps_that_have_them(drawn):
    history = [{"step": 1, "a": 2.0}, {"step": 2, "b": 1.0}, {"step": 3, "a": 1.0}]
    figure = plots.terms(history, ("a", "b", "c"), (1.5, "stopped"))
    drawn(figure)
    lines = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert lines == {"a": [1, 3], "b": [2], "stopped": [1.5, 1.5]}


def test_clouds_have_the_same_fixed_points(drawn):
    fixed, points = torch.zeros(2, 2), torch.rand(5, 2)
    figure = plots.clouds({"a": points, "b": 2 * points}, fixed, "drawn", "known")
    drawn(figure)
    for axis, times in zip(figure.axes, (1, 2), strict=True):
        first, second = (np.asarray(one.get_offsets()) for one in axis.collections)
        assert np.allclose(first, times * points)
        assert np.allclose(second, fixed)


def test_boxes(drawn, picture):
    sides = {f"layer {i}": 4 * i + 3 for i in range(7)}
    figure = plots.boxes(picture(20, 30), sides, center=(0.25, 0.5))
    drawn(figure)
    (axis,) = figure.axes
    assert [(box.get_width(), box.get_height()) for box in axis.patches] == [(s, s) for s in sides.values()]
    for box in axis.patches:
        assert box.get_x() + box.get_width() / 2 == pytest.approx(0.25 * 30)
        assert box.get_y() + box.get_height() / 2 == pytest.approx(0.5 * 20)
    assert len({box.get_edgecolor() for box in axis.patches}) == 7
    # A box larger than the picture does not shrink it.
    assert (axis.get_xlim(), axis.get_ylim()) == ((0, 30), (20, 0))


# ------------------------------------------------------------------------------------------ the live curve


def test_a_live_curve_grows_and_is_shown_once(monkeypatch):
    shown = []

    def display(figure, display_id):
        assert display_id is True
        shown.append("display")
        return SimpleNamespace(update=lambda figure: shown.append("update"))

    monkeypatch.setattr("IPython.display.display", display)
    live, seldom = plots.LiveCurve("total", "style", every=0.0), plots.LiveCurve(every=3600.0)
    rows = []
    for step in range(1, 5):
        rows.append({"step": step, "seconds": step / 2, "total": 1 / step, "style": 0.5 / step})
        live(SimpleNamespace(step=step, steps=4, seconds=step / 2, history=rows))
    assert shown == ["display", "update", "update", "update"]
    figure = live.finish()
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["total", "style"]
    assert np.allclose(axis.lines[0].get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4])
    assert axis.get_title() == "step 4 of 4, 2 s"
    assert figure.number not in plt.get_fignums()  # or the page would show it a second time
    shown.clear()
    for step in range(1, 5):
        seldom(SimpleNamespace(step=step, steps=4, seconds=step / 2, history=rows))
    assert shown == ["display", "update"]  # the first, and always the last
    seldom.finish()


def test_diagram(drawn):
    boxes = {"a": (0, 0, "in\n3 × 4", 0), "b": (1, 1, "out", 1), "c": (1, -1, "there", 2)}
    figure = plots.diagram(boxes, [("a", "b"), ("a", "c")], (4, 3))
    drawn(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["in\n3 × 4", "out", "there", "", ""]


def test_bands_span_the_runs(drawn):
    runs = [
        [{"evaluations": i, "seconds": 2 * i, "total": height / i} for i in range(1, n)]
        for height, n in ((1, 6), (3, 9))
    ]
    figure = plots.bands({"from noise": {"one": runs, "two": runs[:1]}, "from the photograph": {"one": runs}})
    drawn(figure)
    axes = figure.axes
    assert [axis.get_title() for axis in axes] == ["from noise", "from the photograph"]
    line = axes[0].lines[0]
    assert line.get_xdata()[[0, -1]] == pytest.approx([1, 5])  # as far as the shorter run goes
    assert line.get_ydata()[[0, -1]] == pytest.approx([2, 0.4])
    edges = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((0.2, 3))
