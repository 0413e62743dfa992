"""Tiles: the same loss and gradient as the whole picture's, no seams, and windows that do not grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import rand
from gatys_helpers import SHALLOW
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn

from nstlib.errors import SettingError
from nstlib.losses import STYLE_NORMALIZATIONS
from nstlib.methods.gatys import (
    FIVE_BLOCKS,
    PLAIN,
    Anchor,
    Guide,
    Objective,
    TiledObjective,
    stylize,
    transfer,
)  # fmt: skip
from nstlib.nets.vgg import layers_up_to

DEEP = PLAIN.changed(network="vgg19", content_layers=("relu4_2",), style_layers=FIVE_BLOCKS)


class Thin(nn.Module):
    """VGG-19 with four filters a layer, in float64: as deep as the real one, and fast."""

    network = "vgg19"
    device = torch.device("cpu")
    precision = torch.float64

    def __init__(self, names=(*FIVE_BLOCKS, "relu4_2"), pooling="max"):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.names, self.pooling, self.seen = names, pooling, []
        self.layers, self.kernels = layers_up_to(self.network, names), {}
        channels = 3
        for layer in self.layers:
            if layer.kind == "conv":
                kernel = torch.randn(4, channels, 3, 3, generator=generator, dtype=torch.float64)
                self.kernels[layer.name] = kernel * (2 / (9 * channels)) ** 0.5
                channels = 4

    def forward(self, images):
        self.seen.append(tuple(images.shape[-2:]))
        x, found = 4 * images.double() - 2, {}
        for layer in self.layers:
            if layer.kind == "conv":
                x = nn.functional.conv2d(x, self.kernels[layer.name], padding=1) + 0.1
            elif layer.kind == "relu":
                x = x.relu()
            else:
                x = (nn.functional.max_pool2d if self.pooling == "max" else nn.functional.avg_pool2d)(x, 2)
            found[layer.name] = x
        return {name: found[name] for name in self.names}


def random_mask(height, width, seed):
    """A soft region with hard zeros, so that some tiles have no part in it."""
    coarse = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    mask = ((smooth - 0.4) * 3).clamp(0, 1)
    mask[..., 0, 0] = 0.7  # never empty
    return mask


def assert_same(whole, tiled, image, tolerance):
    terms, gradient = whole.gradient(image)
    parts, pieced = tiled.gradient(image)
    assert parts == pytest.approx(terms, rel=tolerance, abs=1e-9)
    assert tiled.value(image) == pytest.approx(terms, rel=tolerance, abs=1e-9)
    assert (pieced - gradient).norm() <= 10 * tolerance * gradient.norm()
    # Nor is it off at single pixels, along a border, say.
    assert (pieced - gradient).abs().max() <= 10 * tolerance * gradient.abs().max()


# ------------------------------------------------------------------------------------------------- cutting


# --------------------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("layer", ["relu1_1", "relu2_1", "relu5_1", "conv3_4", "pool4"])
def test_the_margin_is_as_wide_as_the_layer_sees(layer):
    # With the layer alone, so that another one's margin does not help.
    settings = replace(DEEP, content_layers=(layer,), style_layers=(layer,))
    net = Thin((layer,))
    shape = (130, 200)
    content, style, image = (rand(1, 3, *s, seed=i) for i, s in enumerate((shape, (90, 70), shape)))
    tiled = TiledObjective(net, content, style, settings, tile=64)
    assert_same(Objective(net, content, style, settings), tiled, image, 1e-6)
    if layer != "relu1_1":  # and no wider than to the next multiple of 16: a smaller one is seen
        tiled.margin -= 16 if layer in ("relu2_1", "relu3_1") else 32
        off = tiled.gradient(image)[1] - Objective(net, content, style, settings).gradient(image)[1]
        assert off.norm() > 1e-4 * tiled.gradient(image)[1].norm()


@pytest.mark.parametrize(
    ("distance", "normalization", "reduction"),
    [
        ("gram", "relative", "mean"),
        ("wasserstein2", "relative", "mean"),
        *(("gram", name, "mean") for name in STYLE_NORMALIZATIONS),
        ("gram", "as_printed", "sum"),
        ("gram", "gatys_paper", "half_sum"),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_every_distance_and_scale_is_that_of_the_whole(distance, normalization, reduction, masked):
    net, (height, width) = Thin(), (97, 150)
    settings = replace(
        DEEP, style_distance=distance, style_normalization=normalization, content_reduction=reduction,
        content_layers=("relu4_2", "relu3_1"), layer_weights=(0.1, 1.0, 0.5, 2.0, 0.0), tv_weight=0.3,
        temporal_weight=2.0, style_weight=3.0, content_weight=0.7,
    )  # fmt: skip
    content, image, held = (rand(1, 3, height, width, seed=seed) for seed in (1, 2, 3))
    styles = rand(1, 3, 70, 131, seed=4), rand(1, 3, 140, 66, seed=5)
    guides = [Guide(styles, (1.0, 3.0))]
    if masked:
        guides = [
            Guide(styles, (1.0, 3.0), mask=random_mask(height, width, 6)),
            Guide(styles[:1], mask=random_mask(height, width, 8)),
        ]
    anchor = Anchor(held, random_mask(height, width, 9))
    net.names = tuple(dict.fromkeys((*settings.content_layers, *settings.style_layers)))
    whole = Objective(net, content, guides, settings, anchor=anchor)
    tiled = TiledObjective(net, content, guides, settings, anchor=anchor, tile=64)
    # The square roots of wasserstein2 make more of float32's rounding.
    assert_same(whole, tiled, image, 1e-4 if distance == "wasserstein2" else 1e-5)


@examples(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(16, 150), st.integers(16, 150)), blocks=st.integers(2, 6),
    seed=st.integers(0, 10**6), masked=st.booleans(),
)  # fmt: skip
def test_any_size_any_tile(shape, blocks, seed, masked):
    net = Thin()
    content, image = rand(1, 3, *shape, seed=seed), rand(1, 3, *shape, seed=seed + 1)
    mask = random_mask(*shape, seed + 2) if masked else None
    guides = [Guide((rand(1, 3, 40 + seed % 50, 77, seed=seed + 3),), mask=mask)]
    whole = Objective(net, content, guides, DEEP)
    # Masks are averaged in float32, and a small distance is the difference of large sums.
    assert_same(whole, TiledObjective(net, content, guides, DEEP, tile=16 * blocks), image, 1e-4)


def test_a_textures_mask_may_leave_tiles_out():
    net, image = Thin(), rand(1, 3, 64, 400, seed=1)
    mask = torch.zeros(1, 1, 64, 400)
    mask[..., :50] = 1
    guides = [Guide((rand(1, 3, 80, 90, seed=3),), mask=mask)]
    whole, tiled = Objective(net, None, guides, DEEP), TiledObjective(net, None, guides, DEEP, tile=64)
    assert_same(whole, tiled, image, 1e-6)
    assert not tiled.gradient(image)[1][..., 200:].any()


# ------------------------------------------------------------------------------------------ seams, memory


def test_windows_do_not_grow_with_the_picture():
    largest = []
    for width in (300, 600, 1500):
        net = Thin()
        content, style = rand(1, 3, 70, width, seed=1), rand(1, 3, width, 66, seed=2)
        tiled = TiledObjective(net, content, style, DEEP, tile=64)
        tiled.gradient(content)
        tiled.value(content)
        largest.append(tuple(max(sizes) for sizes in zip(*net.seen, strict=True)))
        assert max(map(max, net.seen)) < 64 + 32 + 2 * tiled.margin
    assert largest[0] == largest[1] == largest[2]


# -------------------------------------------------------------------------------------- when, and when not


def test_tiles_are_used_where_asked_for_or_needed(net, picture, monkeypatch):
    made = []

    class Watched(TiledObjective):
        def __init__(self, *arguments, **options):
            made.append((tuple(arguments[1].shape[-2:]), options["tile"]))
            super().__init__(*arguments, **options)

    monkeypatch.setattr(transfer, "TiledObjective", Watched)
    options = {"extractor": net, "progress": False, "iterations": 1}
    content, style = picture(40, 50, 1), picture(30, 30, 2)
    stylize(content, style, SHALLOW, **options)
    assert made == []
    stylize(content, style, SHALLOW, tile=64, **options)
    assert made == [((40, 50), 64)]
    monkeypatch.setattr(transfer, "WHOLE_PIXELS", 1999)
    made.clear()
    stylize(content, style, SHALLOW, smallest=16, **options)
    assert made == [((40, 50), transfer.TILE)]  # not at the smaller sizes


def test_alexnet_goes_without_tiles_unless_they_are_asked_for(random_networks, picture, monkeypatch):
    monkeypatch.setattr(transfer, "WHOLE_PIXELS", 100)
    content, style = picture(70, 80, 1), picture(64, 64, 2)
    options = {"network": "alexnet", "iterations": 1, "progress": False, "device": "cpu"}
    assert stylize(content, style, **options).image.shape == content.shape
    with pytest.raises(SettingError, match=r"take vgg19 or vgg16 instead of alexnet, or a smaller picture"):
        stylize(content, style, tile=64, **options)


def test_what_cannot_be_done_in_tiles_is_one_sentence(net, picture):
    content, style = picture(70, 90, 1), picture(30, 30, 2)
    with pytest.raises(SettingError, match=r"Newton's method cannot work in tiles: take 'lbfgs' or 'adam'"):
        stylize(content, style, SHALLOW, extractor=net, progress=False, tile=64, optimizer="newton_cg")
    nearly = Guide((style,), mask=torch.full((1, 1, 70, 90), 1e-30))
    with pytest.raises(SettingError, match=r"The mask is empty at relu1_1, so there is no style to measure"):
        TiledObjective(net, content, [nearly], SHALLOW, tile=64).value(content)
