"""Colors kept: luminance and chroma against scikit-image's YIQ, histograms and moments against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2yiq

from nstlib import assets
from nstlib.errors import ImageError, SettingError
from nstlib.pictures import color
from nstlib.pictures.files import load_image

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
TRANSFORMS = (color.match_luminance, color.match_histogram, color.coral, color.luminance_only)


def random(height, width, seed=0, low=0.0, high=1.0):
    """Independent pixels whose channels are correlated, in [low, high]."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(1, 3, height, width, generator=generator)
    mix = torch.rand(3, 3, generator=generator) + torch.eye(3)
    mixed = torch.einsum("ij,njhw->nihw", mix / mix.sum(1, keepdim=True), pixels)
    return low + (high - low) * mixed


def gray(height, width, seed=0):
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed)).expand(1, 3, -1, -1)


def flat(height, width, *rgb):
    return torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, height, width)


def yiq(image):
    """(3, H, W) of Y, I, Q, from the library that knows them."""
    return torch.from_numpy(rgb2yiq(image[0].double().numpy(), channel_axis=0))


def moments(image):
    pixels = image[0].flatten(1).double().numpy()
    return pixels.mean(1), np.cov(pixels, bias=True)


# --------------------------------------------------------------------------------------------- luminance only


def test_luminance_is_the_librarys():
    image = random(7, 5)
    assert color.luminance(image).shape == (1, 1, 7, 5)
    torch.testing.assert_close(color.luminance(image)[0, 0].double(), yiq(image)[0], rtol=0, atol=1e-3)
    white, red = flat(1, 1, 1.0, 1.0, 1.0), flat(1, 1, 1.0, 0.0, 0.0)
    assert color.luminance(white).item() == pytest.approx(1)
    assert color.luminance(red).item() == pytest.approx(0.299)


def test_luminance_comes_from_the_result_and_chroma_from_the_content():
    result, content = random(9, 8, 1, 0.4, 0.6), random(9, 8, 2, 0.4, 0.6)  # far from 0 and 1: all colors fit
    kept = color.luminance_only(result, content)
    torch.testing.assert_close(yiq(kept)[0], yiq(result)[0], rtol=0, atol=2e-4)
    torch.testing.assert_close(yiq(kept)[1:], yiq(content)[1:], rtol=0, atol=2e-4)
    assert (kept - result).abs().max() > 0.01


@settings(deadline=None, max_examples=50)
@given(size=sizes, other=sizes, seed=st.integers(0, 2**31))
def test_luminance_is_exact_and_the_hue_is_kept_where_a_color_does_not_fit(size, other, seed):
    result, content = random(*size, seed), random(*size, seed + 1).square()
    kept = color.luminance_only(result, content)
    assert kept.min() >= 0
    assert kept.max() <= 1
    torch.testing.assert_close(color.luminance(kept), color.luminance(result), rtol=0, atol=1e-6)
    before = content - color.luminance(content)
    after = kept - color.luminance(kept)
    # Parallel, not longer, and not turned around: paler, with the same hue.
    assert (torch.linalg.cross(before, after, dim=1)).abs().max() < 1e-6
    assert (before * after).sum(1).min() > -1e-6
    assert (after.norm(dim=1) <= before.norm(dim=1) + 1e-6).all()
    assert color.luminance_only(result, random(*other, seed)).shape == result.shape


def test_a_color_is_as_strong_as_fits():
    kept = color.luminance_only(flat(1, 1, 0.9, 0.9, 0.9), flat(1, 1, 0.2, 0.2, 0.8))  # blue, but very bright
    assert kept[0, 2].item() == pytest.approx(1, abs=1e-6)
    assert kept[0, 0].item() < 0.9


def test_the_style_is_matched_in_mean_and_spread_of_luminance():
    style, content = random(20, 10, 1, 0.0, 0.3), random(8, 12, 2, 0.4, 0.7)
    matched = color.match_luminance(style, content)
    assert matched.shape == style.shape
    assert torch.equal(matched[:, 0], matched[:, 1])
    assert torch.equal(matched[:, 0], matched[:, 2])
    now, wanted = color.luminance(matched), color.luminance(content)
    assert now.mean().item() == pytest.approx(wanted.mean().item(), abs=1e-5)
    assert now.std(correction=0).item() == pytest.approx(wanted.std(correction=0).item(), rel=1e-4)
    assert torch.equal(matched[0, 0].flatten().argsort(), color.luminance(style).flatten().argsort())


# ----------------------------------------------------------------------------------------- histogram, moments


def test_histograms_agree_channel_by_channel():
    style, content = random(30, 20, 1), random(16, 25, 2).square()
    matched = color.match_histogram(style, content)
    assert matched.shape == style.shape
    levels = torch.linspace(0.02, 0.98, 25)
    for channel in range(3):
        ours, theirs = (p[0, channel].flatten().quantile(levels) for p in (matched, content))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)
        order = matched[0, channel].flatten()[style[0, channel].flatten().argsort()]
        assert (order.diff() >= 0).all(), "what was brighter is not darker now"


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_coral_gives_the_contents_mean_and_covariance(seed):
    style, content = random(12, 15, seed, 0.1, 0.9), random(20, 9, seed + 1, 0.4, 0.6)  # nothing is clamped
    matched = color.coral(style, content)
    assert matched.shape == style.shape
    for ours, theirs in zip(moments(matched), moments(content), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_coral_makes_no_color_of_the_noise_of_a_gray_painting():
    style = gray(24, 24) * 0.8 + 0.1
    noisy = style + 0.2 / 255 * torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    content = random(24, 24, 2, 0.3, 0.7)
    # A fifth of a level would be stretched over a hundredfold to give the content's spread of colors.
    assert (color.coral(noisy, content) - color.coral(style, content)).abs().max() < 0.1


# ------------------------------------------------------------------------------------ all of them, and errors


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("style", [flat(4, 5, 0.2, 0.7, 0.4), flat(1, 1, 0.0, 0.0, 0.0), gray(5, 4)])
@pytest.mark.parametrize("content", [flat(5, 4, 0.9, 0.1, 0.3), flat(1, 1, 1.0, 1.0, 1.0), gray(3, 7)])
def test_flat_and_gray_pictures_are_safe(transform, style, content):
    before = style.clone(), content.clone()
    changed = transform(style, content)
    assert changed.shape == style.shape
    assert changed.dtype == torch.float32
    assert changed.is_contiguous()
    assert torch.isfinite(changed).all()
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(style, before[0])
    assert torch.equal(content, before[1])


def test_an_unknown_mode_is_one_sentence():
    image = random(3, 3)
    for call in (color.prepare_style, color.finish):
        with pytest.raises(SettingError, match="no way with colors 'lab': choose one of style, luminance"):
            call("lab", image, image)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("wrong", [torch.rand(2, 3, 4, 4), torch.rand(1, 1, 4, 4), "face.jpg"])
def test_what_is_no_picture_is_one_sentence(transform, wrong):
    for pictures in ((wrong, random(4, 4)), (random(4, 4), wrong)):
        with pytest.raises(ImageError, match=r"The picture is a tensor \(1, 3, H, W\)"):
            transform(*pictures)


def test_the_starry_night_in_a_portraits_colors():
    content = load_image(assets.data_path("portraits/collins_face.jpg"), size=96)
    style = load_image(assets.data_path("paintings/starry_night.jpg"), size=96)
    distance = {}
    for how in color.COLOR_MODES:
        prepared = color.prepare_style(how, style, content)
        distance[how] = (prepared.mean((2, 3)) - content.mean((2, 3))).norm().item()
        own = color.luminance_only(style, content) if how == "luminance" else style
        assert torch.equal(color.finish(how, style, content), own)
    assert distance["style"] > 0.3, "blue, and a face is not"
    assert distance["histogram"] < 0.01
    assert distance["coral"] < 0.05  # what is clamped is lost
    assert distance["luminance"] < 0.15  # gray
