"""AdaIN: statistics exchanged, the published decoder, and what stylize promises."""

from __future__ import annotations

import pytest
import torch
from conftest import rand
from gatys_helpers import left
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn

from nstlib.errors import ImageError, SettingError
from nstlib.methods.adain import AdaIN, adain, channel_statistics
from nstlib.nets.adain import from_official
from nstlib.nets.vgg import LayeredNet
from nstlib.pictures import color


@pytest.fixture
def method(random_networks):
    return AdaIN(device="cpu", precision="float32")


# ------------------------------------------------------------------------------------------------ statistics


@examples(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(2, 9), width=st.integers(2, 9))
def test_the_content_takes_the_styles_mean_and_deviation(seed, height, width):
    content = rand(2, 4, height, width, seed=seed)
    style = channel_statistics(10 * rand(1, 4, 5, 7, seed=seed + 1) - 3)
    mean, deviation = channel_statistics(adain(content, style))
    torch.testing.assert_close(mean, style[0].expand_as(mean), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deviation, style[1].expand_as(deviation), rtol=2e-2, atol=1e-2)


def test_statistics_are_torchs_unbiased_ones_and_a_masks_are_those_of_its_pixels():
    x, mask = rand(2, 3, 4, 6), torch.zeros(1, 1, 4, 6)
    mask[..., :3] = 1
    for where, pixels, correction in ((None, x, 1), (mask, x[..., :3], 0)):
        mean, deviation = channel_statistics(x, where)
        torch.testing.assert_close(mean[..., 0, 0], pixels.mean((2, 3)))
        variance = pixels.flatten(2).var(2, correction=correction)
        torch.testing.assert_close(deviation[..., 0, 0], (variance + 1e-5).sqrt())


# --------------------------------------------------------------------------------------------------- decoder


def test_the_decoder_is_the_published_sequence():
    def conv(inputs, outputs, relu=True):
        return [nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3), *([nn.ReLU()] if relu else [])]

    def up():
        return nn.Upsample(scale_factor=2, mode="nearest")

    published = nn.Sequential(
        *conv(512, 256), up(), *conv(256, 256), *conv(256, 256), *conv(256, 256), *conv(256, 128), up(),
        *conv(128, 128), *conv(128, 64), up(), *conv(64, 64), *conv(64, 3, relu=False),
    )  # fmt: skip
    keys = [f"{n}.{kind}" for n in (1, 5, 8, 11, 14, 18, 21, 25, 28) for kind in ("weight", "bias")]
    assert list(published.state_dict()) == keys
    x = torch.randn(1, 512, 3, 4, generator=torch.Generator().manual_seed(1))
    ours = from_official(published.state_dict())
    with torch.no_grad():
        assert torch.equal(ours(x), published(x))
    assert not any(p.requires_grad for p in ours.parameters())


def test_the_encoder_reflects_at_the_border():
    torch.manual_seed(3)
    zeros, mirrored = LayeredNet("vgg19", ["relu1_1"]), LayeredNet("vgg19", ["relu1_1"], padding="reflect")
    mirrored.load_state_dict(zeros.state_dict())
    x = rand(1, 3, 6, 6)
    found = mirrored(x)["relu1_1"]
    by_hand = torch.relu(
        torch.conv2d(
            nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), zeros.conv1_1.weight, zeros.conv1_1.bias
        )
    )
    torch.testing.assert_close(found, by_hand)
    assert not torch.allclose(found, zeros(x)["relu1_1"])


# -------------------------------------------------------------------------------------------------- stylize


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (40, 23)])
def test_any_size_comes_back_and_no_strength_gives_the_decoded_content(method, size):
    content = rand(2, 3, *size)
    one, other = (method.stylize(content, rand(1, 3, 20, 33, seed=s), strength=0) for s in (1, 2))
    assert torch.equal(one, other)
    made = method.stylize(content, rand(1, 3, 20, 33, seed=1))
    assert not torch.equal(made, one)
    assert (made.shape, made.dtype) == (content.shape, torch.float32)
    assert 0 <= made.min() <= made.max() <= 1


def test_one_share_of_all_is_that_style_alone(method):
    content, styles = rand(1, 3, 24, 24), [rand(1, 3, 24, 24, seed=1), rand(1, 3, 24, 24, seed=2) ** 3]
    alone = [method.stylize(content, style) for style in styles]
    torch.testing.assert_close(method.stylize(content, styles, shares=[0, 5]), alone[1])
    mixed = method.stylize(content, styles)
    assert not torch.allclose(mixed, alone[0])
    torch.testing.assert_close(mixed, method.stylize(content, styles, shares=[3, 3]))


def test_each_mask_has_its_style_and_outside_the_picture_stays(method):
    content, styles = rand(1, 3, 32, 40), [rand(1, 3, 24, 24, seed=1), rand(1, 3, 24, 24, seed=2) ** 3]
    masks = [left(32, 40, 12), left(32, 40, 12).flip(3)]
    made, exchanged = (method.stylize(content, styles, masks=order) for order in (masks, masks[::-1]))
    assert torch.equal(made[..., 12:28], content[..., 12:28])
    for side in (slice(None, 12), slice(28, None)):
        assert not torch.allclose(made[..., side], content[..., side], atol=1e-2)
        assert not torch.allclose(made[..., side], exchanged[..., side], atol=1e-2)


def test_luminance_keeps_the_contents_colors(method):
    content = 0.25 + 0.5 * rand(1, 3, 24, 24)
    style = rand(1, 3, 24, 24, seed=1)
    plain = method.stylize(content, color.prepare_style("luminance", style, content))
    assert torch.equal(method.stylize(content, style, keep_colors=True), color.luminance_only(plain, content))


STYLE = rand(1, 3, 16, 16)


@pytest.mark.parametrize(
    ("error", "words", "style", "options"),
    [
        (SettingError, "2 styles need as many shares, not 1", [STYLE, STYLE], {"shares": [1.0]}),
        (SettingError, "not negative", [STYLE, STYLE], {"shares": [1.0, -1.0]}),
        (SettingError, "not both", STYLE, {"shares": [1.0], "masks": [torch.ones(1, 1, 24, 24)]}),
        (
            ImageError,
            "mask of a style is 1 of 9 × 9 pixels and its",
            STYLE,
            {"masks": [torch.ones(1, 1, 9, 9)]},
        ),
        (SettingError, "strength is from 0", STYLE, {"strength": 1.1}),
    ],
)
def test_bad_input_is_one_sentence(method, error, words, style, options):
    with pytest.raises(error, match=words):
        method.stylize(rand(1, 3, 24, 24), style, **options)


@pytest.mark.weights
def test_the_real_decoder_gives_the_picture_back_and_takes_on_a_style():
    from nstlib import assets
    from nstlib.pictures import files as images

    content = images.load_image(assets.data_path("portraits/collins_face.jpg"), size=192)
    style = images.load_image(assets.data_path("paintings/starry_night.jpg"), size=192)
    back = AdaIN().stylize(content, style, strength=0)
    styled = AdaIN().stylize(content, style)
    pictures = torch.stack([one.flatten() for one in (content, back, styled)])
    _, near, far = torch.corrcoef(pictures)[0]
    assert near > 0.75
    assert 0.3 < far < near
    apart = [(one.mean((2, 3)) - style.mean((2, 3))).abs().mean() for one in (back, styled)]
    assert apart[1] < apart[0]


def test_statistics_stand_for_the_picture(method):
    content, style, other = rand(1, 3, 32, 40), rand(1, 3, 24, 24, seed=1), rand(1, 3, 40, 16, seed=2)
    known = method.statistics(style)
    assert known.mean.shape == known.deviation.shape == (1, 512, 1, 1)
    torch.testing.assert_close(method.stylize(content, known), method.stylize(content, style))
    mixed = method.stylize(content, [known, other], shares=[1, 3])
    torch.testing.assert_close(mixed, method.stylize(content, [style, other], shares=[1, 3]))
    with pytest.raises(SettingError, match="give a picture"):
        method.stylize(content, known, keep_colors="coral")
    with pytest.raises(ImageError, match="too small"):
        method.statistics(rand(1, 3, 15, 40))
