"""MSE, PSNR and SSIM against scikit-image, against numbers worked by hand, and what they refuse."""

from __future__ import annotations

import math

import pytest
import skimage.metrics
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib.errors import ImageError, SettingError
from nstlib.metrics import mse, psnr, ssim

MEASURES = [mse, psnr, ssim]


def pair(height, width, noise=0.1, seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(count, 3, height, width, generator=generator)
    return a, (a + noise * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def ssim_by_hand(a, b, kernel, unbias):
    """Paper A (11) in every window of these weights."""

    def mean(x):
        return F.conv2d(x.transpose(0, 1), kernel[None, None])

    a, b = a.double(), b.double()
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = (unbias * (mean(x * y) - mean(x) * mean(y)) for x, y in ((a, a), (b, b), (a, b)))
    c1, c2 = 0.01**2, 0.03**2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (light * (2 * cov + c2) / (var_a + var_b + c2)).mean().item()


def test_ssim_is_its_definition_in_both_windows():
    curve = torch.exp(-(torch.arange(-5.0, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    gaussian = curve[:, None] * curve / curve.sum() ** 2
    uniform = torch.full((7, 7), 1 / 49, dtype=torch.float64)
    for seed in range(3):
        a, b = pair(20, 31, 0.2, seed)
        assert ssim(a, b).item() == pytest.approx(ssim_by_hand(a, b, gaussian, 1), abs=1e-9)
        assert ssim(a, b, "uniform").item() == pytest.approx(ssim_by_hand(a, b, uniform, 49 / 48), abs=1e-9)
        assert abs(ssim(a, b) - ssim(a, b, "uniform")).item() > 1e-3


@settings(deadline=None, max_examples=15)
@given(
    height=st.integers(2, 40), width=st.integers(2, 40), noise=st.sampled_from([0.003, 0.1, 1.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_mse_and_psnr_equal_scikit_images(height, width, noise, seed):
    a, b = pair(height, width, noise, seed)
    x, y = (image[0].double().numpy() for image in (a, b))
    assert mse(a, b).item() == pytest.approx(skimage.metrics.mean_squared_error(x, y), abs=1e-12)
    expected = skimage.metrics.peak_signal_noise_ratio(x, y, data_range=1)
    assert psnr(a, b).item() == pytest.approx(expected, abs=1e-6)


def test_equal_pictures_and_opposite_ones():
    a = pair(16, 16)[0]
    black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    assert [measure(a, a).item() for measure in MEASURES] == pytest.approx([0, math.inf, 1])
    assert [measure(black, white).item() for measure in (mse, psnr)] == [1, 0]
    assert ssim(a, 1 - a).item() < 0


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_is_its_pictures_and_order_of_the_two_does_not_matter(measure):
    a, b = pair(15, 18, count=3)
    values = measure(a, b)
    assert (values.shape, values.dtype) == ((3,), torch.float64)
    torch.testing.assert_close(values, measure(b, a))
    alone = torch.cat([measure(a[n : n + 1], b[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(values, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_what_cannot_be_compared_is_refused_in_one_sentence(measure):
    good = torch.full((2, 3, 12, 12), 0.5)
    for other in (torch.zeros(2, 3, 13, 12), torch.zeros(1, 3, 12, 12)):
        with pytest.raises(SettingError, match=r"these are 2 of 12 × 12 pixels and") as caught:
            measure(good, other)
        assert "\n" not in str(caught.value)
    for bad, said in (
        (good * math.nan, "not numbers"),
        (good * 255, "128.*not from 0 to 1"),
        (good[0], "shape"),
    ):
        with pytest.raises(ImageError, match=f"second batch .*{said}"):
            measure(good, bad)
    measure(good, good * 2 + 0.001)  # rounding just outside


@pytest.mark.parametrize(("window", "side"), [("gaussian", 11), ("uniform", 7)])
def test_pictures_smaller_than_the_window_are_refused(window, side):
    small = torch.zeros(1, 3, side + 4, side - 1)
    with pytest.raises(ImageError, match=rf"too small: take one of at least {side} a side"):
        ssim(small, small, window)
    assert ssim(*[torch.zeros(1, 3, side, side)] * 2, window) == 1
    with pytest.raises(SettingError, match=r"one of gaussian, uniform, not 'hann'"):
        ssim(small, small, window="hann")
