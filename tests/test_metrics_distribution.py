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
from nstlib.metrics import (
    FidBiasWarning,
    InceptionFeatures,
    bootstrap,
    fid,
    frechet_distance,
    kid,
    mean_interval,
)
from nstlib.metrics.distribution import _kid_by_counts, resize_antialiased, resize_tensorflow

pytestmark = pytest.mark.filterwarnings("ignore::nstlib.metrics.FidBiasWarning")


def features(count, dimensions, seed=0, power=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, dimensions, generator=generator, dtype=torch.float64) ** power + shift


def torchmetrics_fid(a, b):
    return _compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()).item()


# ----------------------------------------------------------------------------------------------------- FID


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 60), m=st.integers(2, 60), d=st.integers(2, 40), seed=st.integers(0, 99))
def test_fid_is_torchmetrics(n, m, d, seed):
    a, b = features(n, d, seed), features(m, d, seed + 100, power=2)
    # Its eigenvalues of a product without full rank are 0 but for rounding, whose root is 1e-8.
    assert fid(a, b) == pytest.approx(torchmetrics_fid(a, b), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(50, 50, 64), (40, 90, 64), (300, 200, 64), (300, 20, 64)])
def test_fid_is_torchmetrics_below_and_above_the_number_of_dimensions(n, m, d):
    a, b = features(n, d, 1), features(m, d, 2, power=3)
    assert fid(a, b) == pytest.approx(torchmetrics_fid(a, b), rel=1e-6)
    assert fid(b, a) == pytest.approx(fid(a, b), rel=1e-9)


def test_fid_by_hand():
    # One dimension: means 1 and 5, variances 2 and 8 of a sample: (5 - 1)² + 2 + 8 - 2 sqrt(16).
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [7.0]])
    assert fid(a, b) == pytest.approx(16 + 2 + 8 - 2 * 4)


@pytest.mark.parametrize("count", [2, 7, 100])
def test_fid_of_equal_sets_is_0_in_any_order_and_of_moved_ones_is_the_move(count):
    a = features(count, 30)
    assert fid(a, a) == pytest.approx(0, abs=1e-10)
    assert fid(a, a.flip(0)) == pytest.approx(0, abs=1e-10)
    assert fid(a, a) >= 0
    assert fid(a, a + 2) == pytest.approx(4 * 30)
    assert fid(a, a + 1e-3) == pytest.approx(1e-6 * 30, rel=1e-4)


def test_fid_does_not_depend_on_where_zero_is():
    a, b = features(20, 30, 0), features(25, 30, 1, power=2)
    assert fid(a + 1000, b + 1000) == pytest.approx(fid(a, b), rel=1e-8)


def test_too_few_pictures_are_warned_of_with_the_bias_measured():
    a, b = features(20, 64), features(30, 64, 1)
    with pytest.warns(
        FidBiasWarning, match=r"FID of 20 and 30 pictures with 64 features is too high"
    ) as said:
        fid(a, b)
    apart = frechet_distance(a[::2], a[1::2])
    assert f"are {apart:.4g} apart" in str(said[0].message)
    assert apart > frechet_distance(a, b) > 0  # nothing but bias: both sets have one distribution
    with pytest.warns(FidBiasWarning, match=r"of 3 and 3 pictures with 64 features is too high: compare"):
        fid(a[:3], b[:3])


def test_enough_pictures_and_the_plain_distance_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fid(features(64, 64), features(65, 64, 1))
        frechet_distance(features(4, 64), features(5, 64, 1))


# ----------------------------------------------------------------------------------------------------- KID


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 40), d=st.integers(1, 30), seed=st.integers(0, 99))
def test_kid_is_torchmetrics(n, d, seed):
    a, b = features(n, d, seed), features(n, d, seed + 100, power=2)
    assert kid(a, b) == pytest.approx(poly_mmd(a, b).item(), rel=1e-9, abs=1e-12)


def test_kid_of_unequal_sets_is_its_definition():
    a, b = features(5, 3), features(4, 3, 1)

    def k(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    within = [np.mean([k(x, y) for x, y in itertools.permutations(s, 2)]) for s in (a, b)]
    between = np.mean([k(x, y) for x, y in itertools.product(a, b)])
    assert kid(a, b) == pytest.approx(sum(within) - 2 * between, rel=1e-12)


def test_kid_is_unbiased():
    """Over all sets that can be drawn from two small populations, its mean is their own distance exactly."""
    p = torch.tensor([[0.0, 1.0], [2.0, 0.5], [1.0, 3.0]], dtype=torch.float64)
    q = torch.tensor([[1.0, 1.0], [0.0, 2.0], [2.5, 0.0]], dtype=torch.float64)

    def mean_kernel(x, y):
        return ((x @ y.T / 2 + 1) ** 3).mean()

    exact = float(mean_kernel(p, p) + mean_kernel(q, q) - 2 * mean_kernel(p, q))
    for n, m in ((2, 2), (3, 2)):
        drawn_a, drawn_b = (
            [population[list(rows)] for rows in itertools.product(range(3), repeat=size)]
            for population, size in ((p, n), (q, m))
        )
        values = [kid(a, b) for a in drawn_a for b in drawn_b]
        assert np.mean(values) == pytest.approx(exact, rel=1e-10)
        equal = [
            kid(a, b) for a in drawn_a for b in [p[list(r)] for r in itertools.product(range(3), repeat=m)]
        ]
        assert np.mean(equal) == pytest.approx(0, abs=1e-10)


def test_kid_of_small_sets_is_right_where_fid_is_not():
    small = [(features(8, 40, s), features(8, 40, 1000 + s)) for s in range(200)]
    values = torch.tensor([kid(a, b) for a, b in small], dtype=torch.float64)
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean()) < 4 * error
    distances = torch.tensor([frechet_distance(a, b) for a, b in small])
    assert distances.mean() > 20 * distances.std() / math.sqrt(len(small))


def test_subsets_of_kid_have_its_mean_and_their_own_seed():
    a, b = features(60, 10), features(50, 10, 1, power=2)
    whole = kid(a, b)
    assert kid(a, b, 400, size=20) == pytest.approx(whole, rel=0.1)
    assert kid(a, b, 5, size=20) == kid(a, b, 5, size=20, seed=0)
    assert kid(a, b, 5, size=20) != kid(a, b, 5, size=20, seed=1)
    assert kid(a[:50], b, 3) == pytest.approx(kid(a[:50], b), rel=1e-12)  # subsets of all there are


def test_kid_in_blocks_is_kid(monkeypatch):
    a, b = features(23, 6), features(17, 6, 1)
    whole = kid(a, b)
    monkeypatch.setattr("nstlib.metrics.distribution._BLOCK", 5)
    assert kid(a, b) == pytest.approx(whole, rel=1e-12)


# ---------------------------------------------------------------------------------------- bad features


@pytest.mark.parametrize("measure", [fid, kid, frechet_distance])
def test_features_that_cannot_be_compared_are_refused(measure):
    good = features(5, 4)
    with pytest.raises(SettingError, match=r"needs at least 2 pictures a set, and the first has 1"):
        measure(good[:1], good)
    with pytest.raises(SettingError, match=r"the second has 0"):
        measure(good, good[:0])
    with pytest.raises(SettingError, match=r"these have 4 and 3 numbers"):
        measure(good, good[:, :3])
    with pytest.raises(SettingError, match=r"the second set is \(5,\)"):
        measure(good, good[:, 0])
    with pytest.raises(SettingError, match=r"the first set is ndarray"):
        measure(good.numpy(), good)
    for value in (math.nan, math.inf):
        bad = good.clone()
        bad[2, 1] = value
        with pytest.raises(SettingError, match=r"features of picture 3 of the second set are not numbers"):
            measure(good, bad)


@pytest.mark.parametrize(("subsets", "size"), [(0, 10), (-1, 10), (3, 1)])
def test_impossible_subsets_are_refused(subsets, size):
    with pytest.raises(SettingError, match=r"KID takes 1 subset or more of 2 pictures or more"):
        kid(features(5, 4), features(5, 4, 1), subsets, size=size)


# ------------------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize("statistic", [fid, kid, frechet_distance])
@pytest.mark.parametrize(("n", "m", "d"), [(12, 9, 20), (9, 12, 20), (30, 14, 8)])
def test_the_fast_way_is_drawing_pictures(statistic, n, m, d):
    a, b = features(n, d), features(m, d, 1, power=2)
    fast = bootstrap(statistic, a, b, count=40, seed=3)
    if statistic is not kid:
        slow = bootstrap(lambda x, y: statistic(x, y), a, b, count=40, seed=3)
        assert fast == pytest.approx(slow, rel=1e-6)
    assert fast.value == statistic(a, b)
    assert fast.low < fast.value < fast.high


def test_a_repeated_picture_is_no_pair_with_itself():
    """Drawn sets then have the sets' own KID on average, where copies would lift it."""
    a, b = features(15, 10), features(15, 10, 1)
    drawn = _kid_by_counts(kid, (a, b))
    generator = torch.Generator().manual_seed(0)
    draws = [[torch.randint(15, (15,), generator=generator) for _ in range(2)] for _ in range(400)]
    without = torch.tensor([drawn(draw) for draw in draws])
    copied = torch.tensor([kid(a[i], b[j]) for i, j in draws])
    assert abs(without.mean() - kid(a, b)) < 4 * without.std() / 20
    assert copied.mean() > kid(a, b) + 4 * copied.std() / 20
    everyone = [torch.arange(15), torch.arange(15)]
    assert drawn(everyone) == pytest.approx(kid(a, b), rel=1e-9)


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
        found = mean_interval(torch.rand(40, generator=generator), count=200, level=0.9)
        inside += found.low <= 0.5 <= found.high
    assert 165 <= inside <= 195  # 180 expected, 4.2 standard deviation; a little fewer is the method's


def test_the_interval_of_a_mean_by_hand():
    values = torch.tensor([0.0, 1.0])
    found = mean_interval(values, count=4000)
    assert found.value == 0.5
    assert found.low == pytest.approx(0, abs=0.05)  # a quarter of the draws has twice the same
    assert found.high == pytest.approx(1, abs=0.05)
    assert mean_interval(torch.full((5,), 0.25)) == (0.25, 0.25, 0.25)


def test_seed_level_and_count_do_what_they_say():
    values = features(30, 1)[:, 0]
    assert mean_interval(values) == mean_interval(values, seed=0, count=1000, level=0.95)
    assert mean_interval(values) != mean_interval(values, seed=1)
    narrow, wide = mean_interval(values, level=0.5), mean_interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_one_picture_says_nothing_and_an_infinite_mean_is_infinite():
    assert mean_interval(torch.tensor([0.5])) == (0.5, -math.inf, math.inf)
    assert mean_interval(torch.tensor([30.0, math.inf])) == (math.inf,) * 3


def test_the_bias_is_warned_of_once_and_not_with_every_draw():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        bootstrap(fid, features(6, 10), features(6, 10, 1), count=20)
    assert len([w for w in said if w.category is FidBiasWarning]) == 1


def test_two_pictures_have_a_kid_interval_of_numbers():
    found = bootstrap(kid, features(2, 5), features(2, 5, 1), count=50)
    assert not any(math.isnan(x) for x in found)


@pytest.mark.parametrize("options", [{"count": 0}, {"level": 0.0}, {"level": 1.0}, {"level": math.nan}])
def test_impossible_intervals_are_refused(options):
    with pytest.raises(SettingError, match=r"one draw or more and a level between 0 and 1"):
        mean_interval(torch.rand(4), **options)


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(SettingError, match=r"Value 2 of 3 is not a number: leave it out"):
        mean_interval(torch.tensor([1.0, math.nan, 2.0]))
    with pytest.raises(SettingError, match=r"nothing to draw from"):
        mean_interval(torch.tensor([]))
    with pytest.raises(SettingError, match=r"nothing to draw from"):
        bootstrap(torch.mean)
    with pytest.raises(SettingError, match=r"statistic of these samples is not a number"):
        mean_interval(torch.tensor([math.inf, -math.inf]))


# -------------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize(("height", "width"), [(40, 61), (500, 333), (299, 299), (1, 1), (700, 20)])
def test_antialiased_is_pillows_bicubic(height, width, picture):
    image = picture(height, width)
    found = resize_antialiased(image, 299)
    for channel in range(3):
        band = Image.fromarray(image[0, channel].numpy())
        expected = np.asarray(band.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 1)
        np.testing.assert_allclose(found[0, channel].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(4, 3), (13, 9), (5, 5), (1, 1)])
def test_tensorflow_is_its_definition(height, width, picture):
    image, side = picture(height, width), 7
    expected = torch.zeros(3, side, side)
    for i, j in itertools.product(range(side), repeat=2):
        y, x = i * height / side, j * width / side
        for row, tall in ((int(y), 1 - y % 1), (int(y) + 1, y % 1)):
            for column, broad in ((int(x), 1 - x % 1), (int(x) + 1, x % 1)):
                expected[:, i, j] += tall * broad * image[0, :, min(row, height - 1), min(column, width - 1)]
    torch.testing.assert_close(resize_tensorflow(image, side)[0], expected)


def test_a_picture_of_the_networks_size_is_not_touched(picture):
    image = picture(299, 299)
    for resize in (resize_antialiased, resize_tensorflow):
        torch.testing.assert_close(resize(image, 299), image, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------- the network


class Corner(torch.nn.Module):
    """Stands in for Inception: what it was given, at three places."""

    def forward(self, images):
        assert images.shape[1:] == (3, 299, 299)
        assert len(images) <= 2
        return images[:, :, [0, 150, -1], [0, 150, -1]].flatten(1)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr("nstlib.nets.inception.from_official", lambda tensors: Corner())


@pytest.mark.parametrize("resize", ["antialiased", "tensorflow"])
def test_the_network_sees_its_size_and_scale_in_small_batches(resize, stand_in, picture):
    net = InceptionFeatures(resize, device="cpu", tensors={}, batch=2)
    images = torch.cat([picture(30, 41, seed) for seed in range(5)])
    found = net(images)
    assert found.dtype == torch.float64
    assert found.shape == (5, 9)
    shrink = {"antialiased": resize_antialiased, "tensorflow": resize_tensorflow}[resize]
    expected = Corner()((shrink(images[4:], 299) * 255 - 128) / 128)
    torch.testing.assert_close(found[4:], expected.double())
    flat = net(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]))
    assert flat.unique().tolist() == [-1, 127 / 128]


def test_the_two_resizes_differ_where_a_picture_is_fine(picture):
    image = picture(700, 700)
    assert (resize_antialiased(image, 299) - resize_tensorflow(image, 299)).abs().max() > 0.05


def test_bad_pictures_and_settings_are_refused(stand_in):
    net = InceptionFeatures(device="cpu", tensors={})
    bad = torch.zeros(2, 3, 20, 20)
    bad[1, 0, 0, 0] = math.nan
    with pytest.raises(ImageError, match=r"not numbers \(NaN or infinity\) in picture 2 of 2"):
        net(bad)
    with pytest.raises(SettingError, match=r"one of antialiased, tensorflow, not 'bilinear'"):
        InceptionFeatures("bilinear")
    with pytest.raises(SettingError, match=r"batch is 0"):
        InceptionFeatures(batch=0)


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
