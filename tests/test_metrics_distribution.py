"""FID and KID against torchmetrics and exact expectations, the intervals against repeated measuring."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from nstlib.errors import ImageError, SettingError
from nstlib.metrics import FidBiasWarning, InceptionFeatures, bootstrap, fid, frechet_distance, kid
from nstlib.metrics.distribution import resize_antialiased, resize_tensorflow

pytestmark = pytest.mark.filterwarnings("ignore::nstlib.metrics.FidBiasWarning")


def features(count, dimensions, seed=0, power=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, dimensions, generator=generator, dtype=torch.float64) ** power


def torchmetrics_fid(a, b):
    return _compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()).item()


# ----------------------------------------------------------------------------------------------------- FID


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 60), m=st.integers(2, 60), d=st.integers(2, 40), seed=st.integers(0, 99))
def test_fid_is_torchmetrics(n, m, d, seed):
    a, b = features(n, d, seed), features(m, d, seed + 100, power=2)
    # Its eigenvalues of a product without full rank are 0 but for rounding, whose root is 1e-8.
    assert fid(a, b) == pytest.approx(torchmetrics_fid(a, b), rel=1e-4, abs=1e-6)
    assert fid(b, a) == pytest.approx(fid(a, b), rel=1e-9, abs=1e-9)
    assert fid(a + 1000, b + 1000) == pytest.approx(fid(a, b), rel=1e-6, abs=1e-6)
    assert fid(a, a.flip(0)) == pytest.approx(0, abs=1e-9)


def test_too_few_pictures_are_warned_of_with_the_bias_measured():
    a, b = features(20, 64), features(30, 64, 1)
    with pytest.warns(
        FidBiasWarning, match=r"FID of 20 and 30 pictures with 64 features is too high"
    ) as said:
        fid(a, b)
    apart = frechet_distance(a[::2], a[1::2])
    assert f"are {apart:.4g} apart" in str(said[0].message)
    with pytest.warns(FidBiasWarning, match=r"of 3 and 3 pictures with 64 features is too high: compare"):
        fid(a[:3], b[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fid(features(64, 64), features(65, 64, 1))
        frechet_distance(a, b)


# ----------------------------------------------------------------------------------------------------- KID


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 40), d=st.integers(1, 30), seed=st.integers(0, 99))
def test_kid_is_torchmetrics(n, d, seed):
    a, b = features(n, d, seed), features(n, d, seed + 100, power=2)
    assert kid(a, b) == pytest.approx(poly_mmd(a, b).item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("measure", [fid, kid])
def test_one_picture_is_refused(measure):
    good = features(5, 4)
    with pytest.raises(SettingError, match=r"needs at least 2 pictures a set, and the first has 1"):
        measure(good[:1], good)
    with pytest.raises(SettingError, match=r"the second has 0"):
        measure(good, good[:0])


# ------------------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize(("n", "m", "d"), [(12, 9, 20), (9, 12, 20), (30, 14, 8)])
def test_drawing_by_counts_is_drawing_pictures(n, m, d):
    a, b = features(n, d), features(m, d, 1, power=2)
    fast, slow = (bootstrap(x, a, b, count=40, seed=3) for x in (fid, lambda x, y: frechet_distance(x, y)))
    assert fast == pytest.approx(slow, rel=1e-6)
    assert fast.low < fast.value < fast.high


@pytest.mark.parametrize("n", [15, 2])
def test_a_picture_and_its_copies_are_no_pair_in_drawn_sets(n):
    a, b = features(n, 10), features(9, 10, 1)

    def of_different_pictures(*sets):
        (aa, bb, ab), apart = (
            [(x @ y.T / 10 + 1) ** 3 for x, y in ((sets[0], sets[0]), (sets[1], sets[1]), sets)],
            [torch.cdist(x, x) > 1e-9 for x in sets],
        )
        return aa[apart[0]].mean() + bb[apart[1]].mean() - 2 * ab.mean()  # of one picture only: no number

    wanted = bootstrap(of_different_pictures, a, b, count=60)
    assert bootstrap(kid, a, b, count=60) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("statistic", "n"), [(fid, 80), (kid, 40)])
def test_intervals_are_as_wide_as_measurements_scatter(statistic, n):
    pairs = [(features(n, 6, s), features(n, 6, 500 + s, power=1.5)) for s in range(120)]
    scatter = np.std([statistic(a, b) for a, b in pairs])
    widths = [np.subtract(*bootstrap(statistic, a, b, count=120)[:0:-1]) for a, b in pairs[:12]]
    assert 0.7 < np.mean(widths) / (2 * 1.96 * scatter) < 1.4


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(200):
        found = bootstrap(torch.mean, torch.rand(40, generator=generator), count=200, level=0.9)
        inside += found.low <= 0.5 <= found.high
    assert 165 <= inside <= 195  # 180 expected, 4.2 standard deviation; a little fewer is the method's


def test_seed_and_level_do_what_they_say():
    values = features(30, 1)[:, 0]
    assert bootstrap(torch.mean, values) == bootstrap(torch.mean, values, seed=0, count=1000, level=0.95)
    assert bootstrap(torch.mean, values) != bootstrap(torch.mean, values, seed=1)
    narrow, wide = (bootstrap(torch.mean, values, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert bootstrap(torch.mean, torch.full((5,), 0.25)) == (0.25, 0.25, 0.25)


def test_one_picture_says_nothing_and_an_infinite_mean_is_infinite():
    assert bootstrap(torch.mean, torch.tensor([0.5])) == (0.5, -math.inf, math.inf)
    assert bootstrap(torch.mean, torch.tensor([30.0, math.inf])) == (math.inf,) * 3


def test_the_bias_is_warned_of_once_and_not_with_every_draw():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        bootstrap(fid, features(6, 10), features(6, 10, 1), count=20)
    assert len([w for w in said if w.category is FidBiasWarning]) == 1


# -------------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize(("height", "width"), [(40, 61), (500, 333), (700, 20)])
def test_antialiased_is_pillows_bicubic(height, width, picture):
    image = picture(height, width)
    found = resize_antialiased(image, 299)
    for channel in range(3):
        band = Image.fromarray(image[0, channel].numpy())
        expected = np.asarray(band.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 1)
        np.testing.assert_allclose(found[0, channel].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(4, 3), (13, 9), (7, 7)])
def test_tensorflow_is_its_definition(height, width, picture):
    image, side = picture(height, width), 7
    expected = torch.zeros(3, side, side)
    for i, j in itertools.product(range(side), repeat=2):
        y, x = i * height / side, j * width / side
        for row, tall in ((int(y), 1 - y % 1), (int(y) + 1, y % 1)):
            for column, broad in ((int(x), 1 - x % 1), (int(x) + 1, x % 1)):
                expected[:, i, j] += tall * broad * image[0, :, min(row, height - 1), min(column, width - 1)]
    torch.testing.assert_close(resize_tensorflow(image, side)[0], expected)


# ---------------------------------------------------------------------------------------------- the network


class Corner(torch.nn.Module):
    """Stands in for Inception: what it was given, at three places."""

    def forward(self, images):
        assert images.shape[1:] == (3, 299, 299)
        return images[:, :, [0, 150, -1], [0, 150, -1]].flatten(1)


@pytest.mark.parametrize("resize", ["antialiased", "tensorflow"])
def test_the_network_sees_its_size_and_scale(resize, monkeypatch, picture):
    monkeypatch.setattr("nstlib.assets.load_tensors", lambda name: {})
    monkeypatch.setattr("nstlib.nets.inception.from_official", lambda tensors: Corner())
    net = InceptionFeatures(resize, device="cpu")
    images = torch.cat([picture(30, 41, seed) for seed in range(10)])
    found = net(images)
    assert (found.dtype, found.shape) == (torch.float64, (10, 9))
    shrink = {"antialiased": resize_antialiased, "tensorflow": resize_tensorflow}[resize]
    expected = Corner()((shrink(images[9:], 299) * 255 - 128) / 128)
    torch.testing.assert_close(found[9:], expected.double())
    flat = net(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]))
    assert flat.unique().tolist() == [-1, 127 / 128]
    with pytest.raises(ImageError, match="not numbers"):
        net(images * math.nan)
    with pytest.raises(SettingError, match=r"'bilinear'.*: choose one of antialiased, tensorflow"):
        InceptionFeatures("bilinear")


@pytest.mark.weights
def test_real_features_tell_noise_from_pictures(picture):
    net = InceptionFeatures(device="cpu")
    smooth = torch.cat([picture(64, 80, seed) for seed in range(3)])
    noisy = (smooth + 0.5 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    a, b = net(smooth), net(noisy)
    assert a.shape == (3, 2048)
    assert (a >= 0).all()
    torch.testing.assert_close(net(smooth[2:]), a[2:], rtol=1e-4, atol=1e-4)
    assert fid(a, b) > 2 * fid(a, net(smooth.flip(3)))
    assert fid(a, a) == pytest.approx(0, abs=1e-8)
