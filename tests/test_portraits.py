"""Faces framed like FFHQ, and put back: drawn faces whose place is known, read by a parser of colors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_identity import FakeParser, draw, paint, placed
from torch import Tensor

from nstlib import assets
from nstlib.errors import ImageError, SettingError
from nstlib.faces.align import Portrait, align_portrait, cut_portrait, paste
from nstlib.faces.identity import TEMPLATE, portrait_alignment
from nstlib.faces.parse import Face
from nstlib.pictures.files import load_image, resize

UPRIGHT = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])
"""Half a square picture, around its middle."""


def through(theta: Tensor, x: float, y: float) -> tuple[float, float]:
    """Where a place of the portrait is in the picture, both from -1 to 1."""
    (a, b, c), (d, e, f) = theta[0].tolist()
    return a * x + b * y + c, d * x + e * y + f


def expected_places(size: tuple[int, int], scale: complex, shift: complex) -> list[tuple[complex, complex]]:
    """The template's five points: in the portrait (from -1 to 1), and in the picture's pixels."""
    places = []
    for px, py in TEMPLATE:
        x, y = through(portrait_alignment(), (px + 0.5) / 56 - 1, (py + 0.5) / 56 - 1)
        places.append((complex(x, y), scale * complex(px + 0.5, py + 0.5) + shift))
    return places


@settings(max_examples=8, deadline=None)
@given(
    height=st.integers(150, 240), width=st.integers(150, 240),
    part=st.floats(0.5, 0.8), degrees=st.floats(-30, 30),
)  # fmt: skip
def test_a_face_comes_to_lie_where_ffhq_has_it(height, width, part, degrees):
    scale, shift = placed(height, width, part, degrees)
    portrait = align_portrait(paint(draw(height, width, scale, shift)), 64, FakeParser())
    assert portrait.picture.shape == (1, 3, 64, 64)
    assert portrait.theta.shape == (1, 2, 3)
    for at, pixel in expected_places((height, width), scale, shift):
        x, y = through(portrait.theta, at.real, at.imag)
        found = complex((x + 1) / 2 * width, (y + 1) / 2 * height)
        assert abs(found - pixel) / abs(scale) < 2.5  # of the template's 112 pixels


def test_a_portrait_framed_like_ffhq_is_itself_again():
    # Where the template lies in a portrait of 256 pixels, as scale and shift.
    (a, _, c), (d, _, f) = portrait_alignment()[0].tolist()
    scale = complex(a, d) * 256 / 112
    shift = complex(c + 1, f + 1) * 128 - scale * complex(56, 56)
    image = paint(draw(256, 256, scale, shift))
    portrait = align_portrait(image, 256, FakeParser())
    corners = [complex(x, y) for x in (-1, 1) for y in (-1, 1)]
    moved = [abs(complex(*through(portrait.theta, p.real, p.imag)) - p) * 128 for p in corners]
    assert max(moved) < 6
    assert (portrait.picture - image).abs().mean() < 0.03


def test_of_several_faces_the_largest_counts_or_the_one_that_is_asked_for():
    small, large = (0.7 + 0j, 20 + 110j), (1.1 + 0j, 150 + 40j)
    labels = draw(240, 320, *large)
    labels[:, :130] = draw(240, 320, *small)[:, :130]
    image = paint(labels)

    def faces() -> list[Face]:
        middles = [scale * complex(56, 66) + shift for scale, shift in (large, small)]
        return [Face(m.imag, m.real, 66 * s[0].real) for m, s in zip(middles, (large, small), strict=True)]

    for face, (scale, shift) in ((None, large), (1, small), (2, large)):
        portrait = align_portrait(image, 32, FakeParser(faces()), face=face)
        for at, pixel in expected_places((240, 320), scale, shift):
            x, y = through(portrait.theta, at.real, at.imag)
            assert abs(complex((x + 1) * 160, (y + 1) * 120) - pixel) < 5, face
    with pytest.raises(SettingError, match="Face 3 is wanted, but 2 faces were found: choose from 1 to 2"):
        align_portrait(image, 32, FakeParser(faces()), face=3)
    with pytest.raises(SettingError, match="Face 2 is wanted, but 1 face was found"):
        align_portrait(image, 32, FakeParser(faces()[:1]), face=2)


def test_without_a_face_one_sentence_says_so():
    blank = torch.full((1, 3, 90, 120), 0.9)
    for face in (None, 1):
        with pytest.raises(
            ImageError, match=r"No face was found in the picture \(120 × 90 pixels\): take one"
        ):
            align_portrait(blank, 32, FakeParser(), face=face)


def test_what_makes_no_sense_is_refused():
    image = torch.rand(1, 3, 40, 40)
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(SettingError, match="size is"):
            align_portrait(image, wrong, FakeParser())
        with pytest.raises(SettingError, match="face is"):
            align_portrait(image, 32, FakeParser(), face=wrong)
    with pytest.raises(ImageError, match="One picture is wanted"):
        align_portrait(image.repeat(2, 1, 1, 1), 32, FakeParser())
    with pytest.raises(ImageError, match="has the shape"):
        align_portrait(image[0], 32, FakeParser())
    with pytest.raises(ImageError, match="no numbers"):
        align_portrait(image * torch.nan, 32, FakeParser())
    for theta in (torch.zeros(2, 3), torch.zeros(2, 2, 3), "theta"):
        with pytest.raises(SettingError, match="theta has the shape"):
            cut_portrait(image, theta, 32)
    with pytest.raises(SettingError, match="to a line"):
        paste(image, torch.zeros(1, 2, 3), image)
    for softness in (-0.1, 0.6, math.nan, "soft"):
        with pytest.raises(SettingError, match="softness is"):
            paste(image, UPRIGHT, image, softness)


# ---------------------------------------------------------------------------------------------- cutting out


def test_the_whole_of_a_picture_is_that_picture(picture):
    image = picture(64, 64)
    whole = torch.eye(2, 3)[None]
    torch.testing.assert_close(cut_portrait(image, whole, 64), image, rtol=0, atol=1e-5)
    half = cut_portrait(image, whole, 32)
    assert (half - resize(image, (32, 32))).abs().mean() < 0.02


def test_every_pixel_of_a_large_picture_counts():
    fine = ((torch.arange(256)[:, None] + torch.arange(256)) % 2).float().expand(1, 3, -1, -1)
    gray = cut_portrait(fine, UPRIGHT, 32)
    torch.testing.assert_close(gray, torch.full_like(gray, 0.5), rtol=0, atol=1e-3)


def test_outside_a_picture_is_its_mirror_image_blurred_and_then_its_color(picture):
    image = 0.2 + 0.6 * picture(60, 60)
    four = cut_portrait(image, 4 * torch.eye(2, 3)[None], 120)  # the picture is 30 pixels in the middle
    inside = four[..., 46:74, 46:74]
    assert (inside - cut_portrait(image, torch.eye(2, 3)[None], 30)[..., 1:29, 1:29]).abs().max() < 1e-4
    assert four.min() > 0.15  # not black
    assert four[..., :6, :].std(dim=(2, 3)).max() < inside.std(dim=(2, 3)).min() / 3
    median = inside.flatten(2).median(-1).values
    edge = cut_portrait(image, 4 * torch.eye(2, 3)[None], 120)[..., 0, :].mean(-1)
    assert (edge - median).abs().max() < 0.05


# ------------------------------------------------------------------------------------------------- put back


@pytest.mark.parametrize("degrees", [0, 25])
def test_what_was_cut_out_goes_back_where_it_was(picture, degrees):
    image = resize(picture(30, 40), (120, 160))
    turn = 0.4 * torch.tensor(math.cos(math.radians(degrees)))
    skew = 0.4 * torch.tensor(math.sin(math.radians(degrees)))
    theta = torch.tensor([[[turn * 0.75, -skew * 0.75, 0.1], [skew, turn, -0.05]]])
    again = paste(image, theta, cut_portrait(image, theta, 96))
    assert (again - image).abs().max() < 0.1
    assert (again - image).abs().mean() < 0.004
    black = paste(image, theta, torch.zeros(1, 3, 50, 50), softness=0.0)
    changed = (black != image).any(1).float().mean()
    assert changed == pytest.approx(0.3 * 0.4, abs=0.02)  # the portrait's part of the area


def test_the_border_is_soft():
    white, black = torch.ones(1, 3, 100, 100), torch.zeros(1, 3, 64, 64)
    row = paste(white, UPRIGHT, black, softness=0.2)[0, 0, 50]
    assert row[:25].min() == 1
    assert row[36:64].max() == 0
    assert bool((row[25:36].diff() < 0).all())
    assert row[24:37].diff().abs().max() < 0.2
    hard = paste(white, UPRIGHT, black, softness=0)[0, 0, 50]
    assert hard.unique().tolist() == [0, 1]


def test_a_portrait_beyond_the_border_of_a_picture_is_pasted_as_far_as_it_goes():
    theta = torch.tensor([[[0.5, 0.0, -1.0], [0.0, 0.5, -1.0]]])
    result = paste(torch.ones(1, 3, 80, 80), theta, torch.zeros(1, 3, 32, 32), softness=0.1)
    assert result[..., :10, :10].max() == 0
    assert result[..., 30:, 30:].min() == 1


def test_a_face_found_in_a_small_copy_is_pasted_into_the_large_one():
    portrait = Portrait(torch.zeros(1, 3, 16, 16), UPRIGHT)
    large = paste(torch.ones(1, 3, 400, 600), portrait.theta, portrait.picture, softness=0)
    assert large[..., 105:295, 155:445].max() == 0
    assert large.mean() == pytest.approx(0.75, abs=0.01)


@pytest.mark.weights
def test_a_photograph_is_framed_like_ffhq():
    portrait = align_portrait(load_image(assets.data_path("portraits/obama.jpg")), 128)
    again = align_portrait(portrait.picture, 128)
    assert (again.theta - torch.eye(2, 3)).abs().max() < 0.08
