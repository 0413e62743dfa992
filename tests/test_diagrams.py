"""Diagrams: what must be on them is there, and each text can be read."""

from __future__ import annotations

from itertools import combinations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.patches import FancyBboxPatch

from nstlib.course import diagrams
from nstlib.errors import SettingError
from nstlib.nets.vgg import architecture, receptive_field

ALEXNET = {"style": ("conv1", "relu2", "relu3"), "content": ("relu4",)}
EACH = {
    "vgg19": lambda: diagrams.vgg(),
    "vgg16": lambda: diagrams.vgg("vgg16", {"a": ["conv1_1"], "b": ["relu5_1"], "c": ["pool1"]}),
    "alexnet": lambda: diagrams.vgg("alexnet", ALEXNET),
    "training_loop": diagrams.training_loop,
    "gram_matrix": lambda: diagrams.gram_matrix(torch.rand(5, 8, 8)),
    "johnson": lambda: diagrams.feed_forward("johnson"),
    "adain": lambda: diagrams.feed_forward("adain"),
    "dualstylegan": diagrams.dualstylegan,
}  # fmt: skip


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def extents(figure):
    """Where each text is, in pixels of the drawn figure."""
    figure.canvas.draw()
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    return [(text.get_text(), text.get_window_extent()) for text in texts]


@pytest.mark.parametrize("name", EACH)
def test_texts_neither_overlap_nor_leave_the_figure(name):
    figure = EACH[name]()
    found = extents(figure)
    width, height = figure.canvas.get_width_height()
    for text, box in found:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text  # noqa: PT018
    for (one, a), (other, b) in combinations(found, 2):
        assert not a.overlaps(b), (one, other)
    # A text in a box stays within its border, and no two boxes touch.
    frames = [
        patch.get_window_extent() for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)
    ]
    for text, box in found:
        for frame in frames:
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            assert inside or not frame.overlaps(box), text
    assert not any(a.overlaps(b) for a, b in combinations(frames, 2))


@pytest.mark.parametrize("network", ["vgg19", "vgg16", "alexnet"])
def test_the_network_has_its_names_and_receptive_fields(network):
    marked = ALEXNET if network == "alexnet" else diagrams.MARKED
    figure = diagrams.vgg(network, marked)
    texts = [text.get_text() for text in figure.axes[0].texts]
    names = [layer.name for layer in architecture(network) if layer.kind != "conv"]
    if network == "alexnet":
        names[0] = "conv1"  # the one of the pair that is marked
    assert [text for text in texts if text in names] == names
    assert [t for t in texts if t.isdigit()] == [str(receptive_field(network, name)[0]) for name in names]
    looks = {}
    for name, bar in zip(names, figure.axes[0].patches, strict=False):
        use = next((use for use, layers in marked.items() if name in layers), None)
        looks.setdefault(use, set()).add((bar.get_edgecolor(), bar.get_hatch()))
    # One color and one hatch for each use: told apart in gray print as well.
    assert all(len(look) == 1 for look in looks.values())
    assert len({hatch for look in looks.values() for _, hatch in look}) == 3


def test_the_gram_matrix_shows_the_most_active_maps():
    features = torch.zeros(1, 7, 16, 12)
    features[0, :, :8, :6] = torch.arange(7.0)[:, None, None]
    figure = diagrams.gram_matrix(features)
    *maps, rows, columns, gram = [np.asarray(a.images[0].get_array()) for a in figure.axes[1:]]
    assert [one.max() for one in maps] == [6, 5, 4, 3, 2]
    assert np.array_equal(rows.T, columns)
    assert np.allclose(gram, rows @ columns)
    assert gram.shape == (5, 5)


def test_what_is_optimized_is_marked():
    found = {}
    for name in ("training_loop", "johnson", "adain", "dualstylegan"):
        axes = EACH[name]().axes[0]
        thick = [p for p in axes.patches if p.get_linewidth() == 3]
        texts = [text for text in axes.texts if text.get_text()]
        inside = [t.get_text() for t in texts if any(p.get_bbox().contains(*t.get_position()) for p in thick)]
        found[name] = inside[:-1]  # the last one is the legend's
    assert found["training_loop"] == ["picture $I$"]
    assert found["johnson"] == ["transformation\nnetwork"]
    assert found["adain"] == ["decoder"]
    assert len(found["dualstylegan"]) == 3


def test_an_unknown_diagram():
    with pytest.raises(SettingError, match="choose 'johnson' or 'adain'"):
        diagrams.feed_forward("gatys")
