"""MSE, PSNR and SSIM against scikit-image, against numbers worked by hand, and what they refuse."""

from __future__ import annotations

import math

import pytest
import skimage.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib.errors import ImageError, SettingError
from nstlib.metrics import mse, psnr, ssim, ssim_map
from nstlib.metrics.pixel import WINDOWS, check_pair, check_pictures

MEASURES = [mse, psnr, ssim]
SCIKIT = {
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform": {},
}


def pair(height, width, noise=0.1, seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(count, 3, height, width, generator=generator)
    return a, (a + noise * torch.randn(a.shape, generator=generator)).clamp(0, 1)


# ------------------------------------------------------------------------------------- against scikit-image


@settings(deadline=None, max_examples=20)
@given(
    height=st.integers(11, 40),
    width=st.integers(11, 40),
    noise=st.sampled_from([0.0, 0.003, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_all_three_equal_scikit_images(height, width, noise, seed):
    a, b = pair(height, width, noise, seed)
    x, y = (image[0].double().numpy() for image in (a, b))
    assert mse(a, b).item() == pytest.approx(skimage.metrics.mean_squared_error(x, y), abs=1e-12)
    if noise:
        expected = skimage.metrics.peak_signal_noise_ratio(x, y, data_range=1)
        assert psnr(a, b).item() == pytest.approx(expected, abs=1e-6)
    for window, options in SCIKIT.items():
        expected = skimage.metrics.structural_similarity(x, y, data_range=1, channel_axis=0, **options)
        assert ssim(a, b, window).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_map_of_ssim_is_scikit_images_inside(window):
    a, b = pair(20, 26)
    _, full = skimage.metrics.structural_similarity(
        a[0].double().numpy(), b[0].double().numpy(),
        data_range=1, channel_axis=0, full=True, **SCIKIT[window],
    )  # fmt: skip
    cut = len(WINDOWS[window].weights) // 2
    torch.testing.assert_close(
        ssim_map(a, b, window)[0], torch.from_numpy(full)[:, cut:-cut, cut:-cut], rtol=0, atol=1e-9
    )


# ------------------------------------------------------------------------------------------------- by hand


def test_black_against_white_and_equal_pictures():
    black, white = torch.zeros(1, 3, 12, 12), torch.ones(1, 3, 12, 12)
    assert mse(black, white).tolist() == [1.0]
    assert psnr(black, white).tolist() == [0.0]
    assert mse(white, white).tolist() == [0.0]
    assert psnr(white, white).tolist() == [math.inf]
    for window in WINDOWS:
        assert ssim(white, white, window).item() == pytest.approx(1, abs=1e-12)
        # Two flat pictures have no structure to differ in: only the brightness term is left.
        assert ssim(black, white, window).item() == pytest.approx(1e-4 / 1.0001, rel=1e-9)


def test_one_pixel_by_hand():
    a = torch.zeros(1, 3, 4, 5)
    b = a.clone()
    b[0, 1, 2, 3] = 0.5
    assert mse(a, b).item() == 0.25 / 60
    assert psnr(a, b).item() == pytest.approx(10 * math.log10(240))


def test_the_windows_are_those_of_the_definitions():
    gaussian, uniform = WINDOWS["gaussian"], WINDOWS["uniform"]
    assert (len(gaussian.weights), len(uniform.weights)) == (11, 7)
    assert gaussian.weights[6] / gaussian.weights[5] == pytest.approx(math.exp(-1 / (2 * 1.5**2)))
    assert sum(gaussian.weights) == pytest.approx(1)
    assert not gaussian.sample
    assert uniform.sample


def test_the_two_windows_say_different_things():
    a, b = pair(32, 32, 0.2)
    assert abs(ssim(a, b, "gaussian") - ssim(a, b, "uniform")).item() > 1e-3


# ------------------------------------------------------------------------------------------------ properties


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_is_its_pictures_and_order_of_the_two_does_not_matter(measure):
    a, b = pair(15, 18, count=3)
    values = measure(a, b)
    assert values.shape == (3,)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, measure(b, a))
    alone = torch.cat([measure(a[n : n + 1], b[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(values, alone, rtol=1e-12, atol=1e-12)


def test_more_noise_is_worse_by_every_measure():
    ladder = [pair(24, 24, noise, seed=3) for noise in (0.01, 0.03, 0.1, 0.3, 1.0)]
    for measure, sign in ((mse, 1), (psnr, -1), (ssim, -1)):
        values = [sign * measure(a, b).item() for a, b in ladder]
        assert values == sorted(values)
        assert len(set(values)) == 5


@pytest.mark.parametrize("measure", MEASURES)
def test_the_gradient_is_the_measures_own(measure):
    a, b = pair(12, 11)
    b = (0.1 + 0.8 * b).double().requires_grad_()
    direction = torch.randn(b.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(measure(a, b).sum(), b)
    step = 1e-5
    slope = (measure(a, b + step * direction) - measure(a, b - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5)


# ---------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize("measure", MEASURES)
def test_different_sizes_and_numbers_are_refused_in_one_sentence(measure):
    with pytest.raises(SettingError, match=r"these have 13×12 and 12×13 pixels: resize or crop") as caught:
        measure(torch.zeros(1, 3, 12, 13), torch.zeros(1, 3, 13, 12))
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingError, match=r"there are 2 and 1 of them"):
        measure(torch.zeros(2, 3, 12, 12), torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("second", [False, True])
def test_a_value_that_is_no_number_is_refused_and_its_picture_named(measure, value, second):
    good = torch.full((3, 3, 12, 12), 0.5)
    bad = good.clone()
    bad[1, 2, 3, 4] = value
    with pytest.raises(ImageError, match=r"not numbers \(NaN or infinity\) in picture 2 of 3") as caught:
        measure(*((good, bad) if second else (bad, good)))
    assert str(caught.value).startswith("The second batch" if second else "The first batch")


@pytest.mark.parametrize("scale", [255.0, -1.0, 1.02])
def test_values_outside_0_to_1_are_refused(scale):
    with pytest.raises(ImageError, match=r"in picture 1 of 1, not from 0 to 1"):
        mse(scale * torch.ones(1, 3, 12, 12), torch.ones(1, 3, 12, 12))


def test_rounding_just_outside_0_to_1_is_measured():
    assert mse(torch.full((1, 3, 4, 4), 1.001), torch.ones(1, 3, 4, 4)).item() == pytest.approx(
        1e-6, rel=1e-3
    )


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(0, 3, 8, 8), torch.zeros(1, 3, 0, 8),
     torch.zeros(1, 8, 8, 3), [torch.zeros(1, 3, 8, 8)], torch.zeros(1, 3, 8, 8, dtype=torch.uint8)],
)  # fmt: skip
def test_what_is_no_batch_of_pictures_is_refused(images):
    with pytest.raises(ImageError, match=r"^The batch (is|has|holds) "):
        check_pictures(images)


@pytest.mark.parametrize(("window", "side"), [("gaussian", 11), ("uniform", 7)])
def test_pictures_smaller_than_the_window_are_refused(window, side):
    small = torch.zeros(1, 3, side + 4, side - 1)
    with pytest.raises(
        SettingError, match=rf"{side - 1}×{side + 4} pixels is smaller than the {window} window .* {side} pix"
    ):
        ssim(small, small, window)
    assert ssim_map(*[torch.zeros(1, 3, side, side)] * 2, window).shape == (1, 3, 1, 1)


def test_an_unknown_window_is_refused():
    with pytest.raises(SettingError, match=r"one of gaussian, uniform, not 'hann'"):
        ssim(*pair(16, 16), window="hann")


def test_sizes_may_differ_where_that_is_said():
    a, b = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 6, 7)
    assert check_pair(a, b, same_size=False) == (a, b)
