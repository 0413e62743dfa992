"""Faces brought to ArcFace's frame and to FFHQ's, and put back: faces whose points are known."""

from __future__ import annotations

import cmath
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nstlib import assets
from nstlib.errors import ImageError, SettingError
from nstlib.faces import align as door
from nstlib.faces.align import (
    TEMPLATE,
    align,
    align_portrait,
    align_portraits,
    cut_out,
    cut_portrait,
    paste,
    portrait_alignment,
)
from nstlib.faces.detect import Face
from nstlib.pictures.files import load_image, resize

UPRIGHT = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])
"""Half a square picture, around its middle."""


def face_at(scale: complex, shift: complex) -> Face:
    """The template's face, of which pixel t lies at scale · t + shift."""
    points = [scale * complex(x + 0.5, y + 0.5) + shift for x, y in TEMPLATE]
    middle, half = scale * complex(56, 64) + shift, abs(scale) * 40
    box = (middle.real - half, middle.imag - half, middle.real + half, middle.imag + half)
    return Face(box, torch.tensor([[p.real, p.imag] for p in points]), 0.8)


def placed(height: int, width: int, part: float, degrees: float) -> tuple[complex, complex]:
    """Scale and shift of a face in the middle, its template `part` of the longer side."""
    scale = cmath.rect(part * max(height, width) / 112, math.radians(degrees))
    return scale, complex(width, height) / 2 - scale * complex(56, 60)


@pytest.fixture
def found(monkeypatch) -> Callable[..., None]:
    """``found(face, ...)``: what the detector gives from now on, largest first."""

    def give(*faces: Face) -> None:
        monkeypatch.setattr(door, "find_faces", lambda image: list(faces))

    return give


def through(theta: Tensor, place: complex, size: tuple[int, int]) -> complex:
    """The pixel that a place of the frame (from -1 to 1) shows."""
    x, y = (theta[0].double() @ torch.tensor([place.real, place.imag, 1.0], dtype=torch.float64)).tolist()
    return complex((x + 1) / 2 * size[1], (y + 1) / 2 * size[0])


def framed(size: tuple[int, int]) -> list[complex]:
    """Where the template's five points are in a portrait, from -1 to 1."""
    places = [complex((x + 0.5) / 56 - 1, (y + 0.5) / 56 - 1) for x, y in TEMPLATE]
    return [through(portrait_alignment(), place, (2, 2)) - (1 + 1j) for place in places]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(100, 260), width=st.integers(100, 260),
    part=st.floats(0.1, 0.9), degrees=st.floats(-180, 180),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:A face is")
def test_a_face_comes_to_lie_where_arcface_and_ffhq_have_it(found, height, width, part, degrees):
    face = face_at(*placed(height, width, part, degrees))
    found(face)
    image = torch.rand(1, 3, height, width)
    pixels = [complex(x, y) for x, y in face.points.tolist()]
    portrait = align_portrait(image, 24)
    assert portrait.picture.shape == (1, 3, 24, 24)
    for place, (x, y), pixel in zip(framed((2, 2)), TEMPLATE, pixels, strict=True):
        assert abs(through(portrait.theta, place, (height, width)) - pixel) < 0.01
        place = complex((x + 0.5) / 56 - 1, (y + 0.5) / 56 - 1)
        assert abs(through(align(image), place, (height, width)) - pixel) < 0.01


def test_points_that_no_similarity_brings_to_the_template_are_fitted_by_least_squares(found):
    """A face half turned away: the fit is the one that complex regression gives."""
    points = torch.tensor([[60.0, 50.0], [80.0, 52.0], [85.0, 68.0], [62.0, 90.0], [78.0, 91.0]])
    theta = align(torch.rand(1, 3, 150, 150), Face((50, 30, 90, 100), points, 0.9))
    template = torch.tensor([complex(x + 0.5, y + 0.5) for x, y in TEMPLATE])
    wanted = torch.view_as_complex(points)
    a, b = template - template.mean(), wanted - wanted.mean()
    scale = (a.conj() * b).sum() / a.abs().square().sum()
    expected = scale * (template - template.mean()) + wanted.mean()
    for (x, y), pixel in zip(TEMPLATE, expected.tolist(), strict=True):
        assert abs(through(theta, complex((x + 0.5) / 56 - 1, (y + 0.5) / 56 - 1), (150, 150)) - pixel) < 0.01


def test_of_several_faces_the_largest_counts_or_the_one_that_is_asked_for(found):
    left, right = face_at(0.7 + 0j, 20 + 110j), face_at(1.1 + 0j, 150 + 40j)
    found(right, left)
    image = torch.rand(1, 3, 240, 320)
    for number, face in ((None, right), (1, left), (2, right)):
        portrait = align_portrait(image, 32, face=number)
        eye = complex(*face.points[0].tolist())
        assert abs(through(portrait.theta, framed((2, 2))[0], (240, 320)) - eye) < 0.01
    for portrait, face in zip(align_portraits(image, 32, face="all"), (right, left), strict=True):
        eye = complex(*face.points[0].tolist())
        assert abs(through(portrait.theta, framed((2, 2))[0], (240, 320)) - eye) < 0.01
    with pytest.raises(SettingError, match="There is no face 3 in the picture: choose from 1 to 2"):
        align_portrait(image, 32, face=3)
    found(left)
    with pytest.raises(SettingError, match="There is no face 2 in the picture: choose from 1 to 1"):
        align_portrait(image, 32, face=2)
    found()
    with pytest.raises(ImageError, match=r"No face was found in the picture \(320 × 240 pixels\): take one"):
        align_portrait(image, 32)


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, 265])
def test_a_turned_face_is_painted_upright_and_it_is_said(found, degrees):
    face = face_at(*placed(200, 240, 0.5, degrees))
    found(face)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (portrait,) = align_portraits(torch.rand(1, 3, 200, 240), 32)
    eyes = [through(portrait.theta, place, (200, 240)) for place in framed((2, 2))[:2]]
    assert all(abs(a - complex(*b)) < 0.01 for a, b in zip(eyes, face.points.tolist()[:2], strict=True))
    said = {90: "turned to the right", 180: "upside down", 265: "turned to the left"}.get(degrees)
    assert [said in str(one.message) for one in caught] == [True] * bool(said)


def test_what_makes_no_sense_is_refused():
    image = torch.rand(1, 3, 40, 40)
    for wrong in (0, -1, 2.5):
        with pytest.raises(SettingError, match="size is"):
            align_portrait(image, wrong)
        with pytest.raises(SettingError, match="face is"):
            align_portrait(image, 32, face=wrong)
    for picture in (image.repeat(2, 1, 1, 1), image[0], image * torch.nan):
        with pytest.raises(ImageError):
            align_portrait(picture, 32)


# ---------------------------------------------------------------------------------------------- cutting out


def test_the_whole_of_a_picture_is_that_picture(picture):
    image, whole = picture(112, 112), torch.eye(2, 3)[None]
    torch.testing.assert_close(cut_portrait(image, whole, 112), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(cut_out(image, whole), image, rtol=0, atol=1e-5)
    half = cut_portrait(image, whole, 56)
    assert (half - resize(image, (56, 56))).abs().mean() < 0.02


def test_every_pixel_of_a_large_picture_counts():
    fine = ((torch.arange(448)[:, None] + torch.arange(448)) % 2).float().expand(1, 3, -1, -1)
    for gray in (cut_portrait(fine, UPRIGHT, 56), cut_out(fine, torch.eye(2, 3)[None])):
        torch.testing.assert_close(gray, torch.full_like(gray, 0.5), rtol=0, atol=1e-3)


def test_an_alignment_holds_for_the_picture_at_another_size(picture):
    image = resize(picture(30, 25), (360, 300))
    theta = align(image, face_at(*placed(360, 300, 0.7, 12)))
    small, large = cut_out(resize(image, (240, 200)), theta), cut_out(resize(image, (900, 750)), theta)
    assert (small - large).abs().mean() < 0.02


def test_outside_a_picture_arcface_has_black():
    twice = cut_out(torch.ones(1, 3, 50, 50), 2 * torch.eye(2, 3)[None])
    assert twice[..., :27, :].max() == 0
    assert twice[..., 40:70, 40:70].min() == pytest.approx(1)


def test_outside_a_picture_ffhq_has_its_mirror_image_blurred_and_then_its_color(picture):
    image = 0.2 + 0.6 * picture(60, 60)
    four = cut_portrait(image, 4 * torch.eye(2, 3)[None], 120)  # the picture is 30 pixels in the middle
    inside = four[..., 46:74, 46:74]
    assert (inside - cut_portrait(image, torch.eye(2, 3)[None], 30)[..., 1:29, 1:29]).abs().max() < 1e-4
    assert four.min() > 0.15  # not black
    assert four[..., :6, :].std(dim=(2, 3)).max() < inside.std(dim=(2, 3)).min() / 3
    median = inside.flatten(2).median(-1).values
    assert (four[..., 0, :].mean(-1) - median).abs().max() < 0.05


# ------------------------------------------------------------------------------------------------- put back


@pytest.mark.parametrize("degrees", [0, 25])
def test_what_was_cut_out_goes_back_where_it_was(picture, degrees):
    image = resize(picture(30, 40), (120, 160))
    turn = 0.4 * math.cos(math.radians(degrees))
    skew = 0.4 * math.sin(math.radians(degrees))
    theta = torch.tensor([[[turn * 0.75, -skew * 0.75, 0.1], [skew, turn, -0.05]]])
    again = paste(image, theta, cut_portrait(image, theta, 96))
    assert (again - image).abs().max() < 0.1
    assert (again - image).abs().mean() < 0.004
    changed = (paste(image, theta, torch.zeros(1, 3, 50, 50)) != image).any(1).float().mean()
    assert changed == pytest.approx(0.3 * 0.4, abs=0.02)  # the portrait's part of the area


def test_the_border_is_soft():
    white, black = torch.ones(1, 3, 100, 100), torch.zeros(1, 3, 64, 64)
    row = paste(white, UPRIGHT, black)[0, 0, 50]
    assert row[:25].min() == 1
    assert row[31:69].max() == 0
    assert bool((row[25:31].diff() < 0).all())
    assert row[24:32].diff().abs().max() < 0.3


# --------------------------------------------------------------------------------------- with the detector


@pytest.mark.weights
@pytest.mark.parametrize("name", ["obama", "collins", "einstein"])
def test_a_photograph_is_framed_like_ffhq(name):
    portrait = align_portrait(load_image(assets.data_path(f"portraits/{name}.jpg")), 128)
    again = align_portrait(portrait.picture, 128)
    assert (again.theta - torch.eye(2, 3)).abs().max() < 0.08
