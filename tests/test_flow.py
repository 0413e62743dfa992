"""Flow, warping and flicker, held to motions that are known: the signs, the units and what is hidden."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nstlib.errors import ImageError, SettingError
from nstlib.pictures.flow import camera_move, consistency, flicker, optical_flow, warp


def smooth_picture(height: int, width: int, offset: tuple[float, float] = (0, 0)) -> Tensor:
    """Waves without an edge; `offset` (right, down) in pixels moves what is seen in it, exactly."""
    y, x = torch.meshgrid(torch.arange(height) - offset[1], torch.arange(width) - offset[0], indexing="ij")
    waves = [
        torch.sin(x / 5 + phase) * torch.cos(y / 7 - phase) + torch.sin((x + y) / 11) for phase in (0, 1, 2)
    ]
    return torch.stack(waves)[None].float() / 4 + 0.5


def disk(height: int, width: int, radius: float = 0.3, softness: float = 3.0) -> Tensor:
    """A soft mask in the middle, radius in shorter sides, softness in pixels."""
    y = torch.arange(height).view(-1, 1) - (height - 1) / 2
    x = torch.arange(width).view(1, -1) - (width - 1) / 2
    return ((radius * min(height, width) - (x**2 + y**2).sqrt()) / softness + 0.5).clamp(0, 1)[None, None]


def uniform(height: int, width: int, right: float, down: float) -> Tensor:
    return torch.tensor([float(right), float(down)]).view(1, 2, 1, 1).expand(1, 2, height, width).contiguous()


# ---------------------------------------------------------------------------------------------------- flow


@pytest.mark.parametrize(("right", "down"), [(3.0, 0.0), (0.0, -2.0), (-1.5, 2.5)])
def test_flow_says_where_a_pixel_of_the_first_picture_is_in_the_second(right, down):
    first, second = smooth_picture(72, 90), smooth_picture(72, 90, (right, down))
    flow = optical_flow(first, second)
    inner = flow[..., 8:-8, 8:-8]
    assert flow.shape == (1, 2, 72, 90)
    assert flow.dtype == torch.float32
    assert inner[:, 0].mean().item() == pytest.approx(right, abs=0.15)  # channel 0: to the right
    assert inner[:, 1].mean().item() == pytest.approx(down, abs=0.15)  # channel 1: down
    assert (warp(second, flow) - first)[..., 8:-8, 8:-8].abs().mean() < 0.01


def test_flow_computed_on_smaller_pictures_is_in_pixels_of_the_large_ones():
    first, second = smooth_picture(96, 128), smooth_picture(96, 128, (4, -2))
    flow = optical_flow(first, second, side=64)
    assert flow.shape == (1, 2, 96, 128)
    inner = flow[..., 16:-16, 16:-16].mean(dim=(0, 2, 3))
    assert inner.tolist() == pytest.approx([4, -2], abs=0.3)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 24), st.integers(2, 24))
def test_a_picture_that_stays_has_no_flow_at_any_size(height, width):
    image = smooth_picture(height, width)
    assert optical_flow(image, image).abs().max() == 0


# ---------------------------------------------------------------------------------------------------- warp


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 2, 3]))
def test_warping_by_nothing_changes_not_a_bit(height, width, channels):
    image = torch.rand(1, channels, height, width)
    assert torch.equal(warp(image, torch.zeros(1, 2, height, width)), image)


def test_warping_fetches_from_where_the_flow_points_to():
    image = torch.rand(1, 3, 9, 11)
    fetched = warp(image, uniform(9, 11, 2, 1))
    assert torch.allclose(fetched[..., :-1, :-2], image[..., 1:, 2:], atol=1e-6)
    assert torch.allclose(fetched[..., :-1, -1], image[..., 1:, -1], atol=1e-6)  # outside: the border
    halfway = warp(image, uniform(9, 11, 0.5, 0))
    assert torch.allclose(halfway[..., :-1], (image[..., :-1] + image[..., 1:]) / 2, atol=1e-6)


# --------------------------------------------------------------------------------------------- consistency


def test_what_comes_from_outside_the_picture_is_not_trusted():
    mask = consistency(uniform(20, 24, 3, 0), uniform(20, 24, -3, 0))  # all goes right, the left is new
    expected = torch.ones(1, 1, 20, 24)
    expected[..., :3] = 0
    assert torch.equal(mask, expected)


def test_what_a_moving_square_uncovers_and_its_edge_are_not_trusted():
    forward, backward = torch.zeros(1, 2, 32, 40), torch.zeros(1, 2, 32, 40)
    forward[:, 0, 10:22, 8:20] = 4  # where the square was
    backward[:, 0, 10:22, 12:24] = -4  # where it is
    mask = consistency(forward, backward)[0, 0]
    assert mask[10:22, 8:12].max() == 0  # uncovered
    assert mask[12:20, 23:25].max() == 0  # the square's front: a motion boundary
    assert mask[12:20, 14:22].min() == 1  # the square itself, which is known from before
    assert mask[:8].min() == 1
    assert mask[24:].min() == 1
    assert mask[:, 26:].min() == 1


def test_the_constants_are_those_of_the_paper():
    """|w~ + b|² > 0.01 (|w~|² + |b|²) + 0.5 and |grad b|² > 0.01 |b|² + 0.002, on either side of equality."""
    still = torch.zeros(1, 2, 9, 9)
    for length, trusted in ((math.sqrt(0.5 / 0.99) - 1e-3, 1), (math.sqrt(0.5 / 0.99) + 1e-3, 0)):
        assert consistency(uniform(9, 9, length, 0), still)[..., 4, 4] == trusted
    for slope, trusted in ((math.sqrt(0.002) - 1e-4, 1), (math.sqrt(0.002) + 1e-4, 0)):
        tilt = still.clone()
        tilt[:, 1] = slope * (torch.arange(9.0) - 4)  # zero in the middle, where the slope alone counts
        assert consistency(-tilt, tilt)[..., 4, 4] == trusted


# ------------------------------------------------------------------------------------------------- flicker


def test_flicker_is_in_units_of_the_pictures_range():
    dark, light = torch.full((1, 3, 8, 9), 0.4), torch.full((1, 3, 8, 9), 0.5)
    still, everywhere = [torch.zeros(1, 2, 8, 9)] * 2, [torch.ones(1, 1, 8, 9)] * 2
    assert flicker([dark, light, dark], still, everywhere) == pytest.approx(0.1, abs=1e-6)
    assert flicker([dark, dark, light], still, everywhere) == pytest.approx(0.05, abs=1e-6)


def test_flicker_does_not_look_where_the_mask_is_zero():
    before, after = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    after[..., :4] = 1
    right_half = torch.ones(1, 1, 8, 8)
    right_half[..., :4] = 0
    still = [torch.zeros(1, 2, 8, 8)]
    assert flicker([before, after], still, [torch.ones(1, 1, 8, 8)]) == pytest.approx(0.5)
    assert flicker([before, after], still, [right_half]) == 0


def test_flicker_follows_the_motion_and_finds_what_was_added_to_it():
    clip = camera_move(smooth_picture(64, 72), 4, zoom=1.1, shift=(6, 3), foreground_mask=disk(64, 72))
    moving = flicker(clip.frames, clip.flows, clip.masks)
    unfollowed = flicker(clip.frames, [torch.zeros_like(flow) for flow in clip.flows], clip.masks)
    restless = [(frame + 0.05 * (-1) ** t).clamp(0, 1) for t, frame in enumerate(clip.frames)]
    assert moving < 0.003
    assert unfollowed > 10 * moving
    assert flicker(restless, clip.flows, clip.masks) == pytest.approx(0.1, abs=0.01)


# --------------------------------------------------------------------------------------------- camera_move


def test_a_pan_has_the_flow_it_was_asked_for():
    image = smooth_picture(40, 50)
    clip = camera_move(image, 5, zoom=1, shift=(8, -4))
    assert len(clip.frames) == 5
    assert len(clip.flows) == len(clip.masks) == 4
    assert torch.allclose(clip.frames[0], image, atol=1e-5)
    for flow, mask in zip(clip.flows, clip.masks, strict=True):
        assert torch.allclose(flow, uniform(40, 50, -2, 1), atol=1e-5)  # backward, a quarter of the way
        assert torch.equal(mask[..., :-1, 2:], torch.ones(1, 1, 39, 48))
        assert mask[..., -1, :].max() == 0  # came in from below
        assert mask[..., :2].max() == 0  # and from the left
    assert torch.allclose(clip.frames[4][..., :36, 8:], image[..., 4:, :42], atol=1e-4)


def test_the_flow_is_true_wherever_the_mask_says_so():
    image = smooth_picture(70, 84)
    clip = camera_move(image, 4, zoom=1.15, shift=(9, 5), foreground_mask=disk(70, 84), parallax=2.5)
    for before, after, flow, mask in zip(
        clip.frames[:-1], clip.frames[1:], clip.flows, clip.masks, strict=True
    ):
        wrong = (warp(before, flow) - after).abs().mean(dim=1, keepdim=True)
        assert (wrong * mask).max() < 0.02
        assert 0.6 < mask.mean() < 0.99


def test_the_foreground_moves_by_its_own_amount_and_uncovers_the_background():
    clip = camera_move(
        smooth_picture(64, 64), 2, zoom=1, shift=(3, 0), foreground_mask=disk(64, 64), parallax=3
    )
    flow, mask = clip.flows[0], clip.masks[0]
    assert flow[0, :, 32, 41].tolist() == pytest.approx([-9, 0], abs=1e-4)
    assert flow[0, :, 4, 41].tolist() == pytest.approx([-3, 0], abs=1e-4)
    assert mask[0, 0, 32, 41] == 1
    # The disk's left edge was at 12 and is at 21; the background's point there now came from below the disk.
    assert mask[0, 0, 32, 17:20].max() == 0
    assert torch.isfinite(clip.frames[1]).all()


def test_the_background_behind_the_foreground_is_continued_from_its_surroundings():
    image = torch.full((1, 3, 48, 48), 0.2)
    cover = disk(48, 48, softness=1)
    image = image * (1 - cover) + 0.9 * cover
    clip = camera_move(image, 2, zoom=1, shift=(6, 0), foreground_mask=cover, parallax=2)
    uncovered = clip.frames[1][0, :, 24, 12:20]
    assert torch.allclose(uncovered, torch.full_like(uncovered, 0.2), atol=0.02)


# --------------------------------------------------------------------------------------------- bad inputs

GOOD = torch.full((1, 3, 8, 8), 0.5)
STILL = torch.zeros(1, 2, 8, 8)
ALL = torch.ones(1, 1, 8, 8)

REFUSED = {
    "other size": (lambda: optical_flow(GOOD, GOOD[..., :7]), ImageError, "8, 8.* and .*8, 7.*resize"),
    "side": (lambda: optical_flow(GOOD, GOOD, side=2.5), SettingError, "side is 2.5.*whole number"),
    "warp: flow": (lambda: warp(GOOD, GOOD), ImageError, r"A flow is \(1, 2, H, W\) in pixels"),
    "warp: batch": (lambda: warp(GOOD.expand(2, 3, 8, 8), STILL), ImageError, r"not \(1, 2, 8, 8\) and \(2"),
    "one frame": (lambda: flicker([GOOD], [], []), SettingError, "1 frames, 0 flows"),
    "mask": (lambda: flicker([GOOD] * 2, [STILL], [ALL + 1]), ImageError, "mask 0 has values outside"),
    "empty": (lambda: flicker([GOOD] * 2, [STILL], [STILL[:, :1]]), SettingError, "no pixel to compare"),
    "still": (lambda: camera_move(GOOD, 1), SettingError, "frames is 1.*at least 2"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(call, error, message):
    with refused(error, match=message):
        call()
