"""MSE, PSNR and SSIM against scikit-image, against numbers worked by hand, and what they refuse."""

from __future__ import annotations

import math

import pytest
import skimage.metrics
import torch
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib.errors import ImageError, SettingError
from nstlib.metrics import mse, psnr, ssim

MEASURES = [mse, psnr, ssim]


def pair(height, width, noise=0.1, seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(count, 3, height, width, generator=generator)
    return a, (a + noise * torch.randn(a.shape, generator=generator)).clamp(0, 1)


@settings(deadline=None, max_examples=15)
@given(
    height=st.integers(11, 40), width=st.integers(11, 40), noise=st.sampled_from([0.003, 0.1, 1.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_ssim_equals_scikit_images_in_both_windows(height, width, noise, seed):
    a, b = pair(height, width, noise, seed)
    x, y = (image[0].permute(1, 2, 0).double().numpy() for image in (a, b))
    windows = {
        "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
        "uniform": {"win_size": 7},
    }
    for window, options in windows.items():
        expected = skimage.metrics.structural_similarity(x, y, data_range=1, channel_axis=2, **options)
        assert ssim(a, b, window).item() == pytest.approx(expected, abs=1e-6)


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
        with refused(SettingError, match=r"these are 2 of 12 × 12 pixels and"):
            measure(good, other)
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
    with pytest.raises(SettingError, match=r"'hann'.*: choose one of gaussian, uniform"):
        ssim(small, small, window="hann")
