"""Films frame by frame: still films stay still, flow lessens flicker, cuts begin anew; on small networks."""

from __future__ import annotations

import itertools

import gatys_helpers
import pytest
import torch

from nstlib.errors import ImageError
from nstlib.methods import gatys
from nstlib.methods.gatys import stylize_clip, transfer
from nstlib.pictures.flow import Clip, camera_move, flicker, warp

pytestmark = pytest.mark.usefixtures("one_thread")  # some compare bits

SHALLOW = gatys_helpers.SHALLOW.changed(iterations=6, temporal_weight=300.0)
QUIET = {"device": "cpu", "precision": "float32", "progress": False}


@pytest.fixture
def paint(random_networks, picture):
    """``paint(frames)``: the painted frames of the shallow network, on the style of a small picture."""

    def run(frames, settings=SHALLOW, **options):
        return list(stylize_clip(frames, picture(30, 28, 9), settings, **{**QUIET, **options}))

    return run


@pytest.fixture
def told(monkeypatch):
    """What each frame's optimization was given."""
    calls = []
    stylize = transfer.stylize

    def listen(content, style, settings, **options):
        calls.append((settings, options.get("start"), options.get("anchor")))
        return stylize(content, style, settings, **options)

    monkeypatch.setattr(transfer, "stylize", listen)
    return calls


@pytest.fixture(scope="module")
def moving(picture) -> Clip:
    """A camera that moves over a picture, with some noise in each frame, as film has it."""
    still = torch.nn.functional.interpolate(picture(12, 12, 4), (40, 48), mode="bicubic").clamp(0, 1)
    moved = camera_move(still, 4, zoom=1.1, shift=(4.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    noisy = [(f + 0.02 * torch.randn(f.shape, generator=generator)).clamp(0, 1) for f in moved.frames]
    return Clip(noisy, moved.flows, moved.masks)


def test_a_still_film_stays_still(paint, picture):
    """Each frame starts from the last one, and the anchor holds it there."""
    frame = picture(24, 31, 1)

    def largest_change(weight):
        frames = paint([frame] * 4, iterations=18, temporal_weight=weight)
        return max((b.image - a.image).abs().max().item() for a, b in itertools.pairwise(frames))

    assert largest_change(1e4) < 0.2 / 255
    assert largest_change(gatys.TEMPORAL_WEIGHT) < 1 / 255
    assert largest_change(0.0) > 1 / 255  # it was the anchor that held it


def test_flow_lessens_flicker(paint, moving):
    """Noise in the film and a start from noise send each frame by itself to another end."""

    def measured(**options):
        frames = [frame.image for frame in paint(moving.frames, iterations=12, init="noise", **options)]
        return flicker(frames, moving.flows, moving.masks)

    assert measured() < 0.7 * measured(flow=None)


def test_one_frame_is_a_picture(paint, picture, random_networks):
    (frame,) = paint([picture(24, 31, 1)])
    expected = gatys.stylize(picture(24, 31, 1), picture(30, 28, 9), SHALLOW, **QUIET)
    assert torch.equal(frame.image, expected.image)
    assert (frame.flow, frame.mask) == (None, None)
    assert frame.result.history[-1]["iteration"] == 6
    assert random_networks == ["vgg16", "vgg16"]  # once for the film, once for the picture


def test_frames_are_given_out_and_asked_for_one_by_one(paint, picture, random_networks):
    asked = []

    def frames():
        for number in range(3):
            asked.append(number)
            yield picture(24, 31, 1)

    painted = stylize_clip(frames(), picture(30, 28, 9), SHALLOW, **QUIET)
    assert asked == []
    next(painted)
    assert asked == [0]
    next(painted)
    assert asked == [0, 1]
    assert random_networks == ["vgg16"]  # the network is loaded once


def test_later_frames_take_a_third_of_the_iterations_at_full_size(paint, told, moving):
    paint(moving.frames[:2], iterations=9, smallest=32)
    paint(moving.frames[:2], iterations=2)
    counts = [settings.iterations for settings, _, _ in told]
    assert counts == [9, 3, 2, 1]
    assert [settings.smallest for settings, _, _ in told] == [32, None, None, None]


def test_a_frame_starts_from_the_moved_paint_and_is_held_to_it(paint, told, moving):
    frames = paint(moving.frames[:2])
    (_, start, anchor), (_, flow, mask, _) = told[1], vars(frames[1]).values()
    assert told[0][1:] == (None, None)
    moved = warp(frames[0].image, flow)
    assert torch.equal(anchor.image, moved)
    assert torch.equal(anchor.mask, mask)
    trusted = mask.expand_as(start) == 1
    assert 0 < trusted.float().mean() < 1
    assert torch.equal(start[trusted], moved[trusted])


def test_where_nothing_moved_there_the_start_has_the_colors_of_the_paint(paint, told, picture):
    """Bare photograph would stay visible through a third of the iterations."""
    red = picture(32, 32, 1) * torch.tensor([1.0, 0.2, 0.2]).view(1, 3, 1, 1)
    outside = torch.zeros(1, 2, 32, 32)
    outside[:, 0, :, :12] = -40.0  # what stands there comes from beyond the border
    frames = paint([red, red], flow=lambda *_: outside, style_weight=1e4, iterations=20)
    start, paint_of_it, mask = told[1][1], frames[0].image, frames[1].mask

    def off(image):
        return (image.mean((2, 3)) - paint_of_it.mean((2, 3))).abs().max()

    bare = mask.expand_as(start) == 0
    assert off(red) > 0.1
    assert off(torch.where(bare, start, paint_of_it)) < 0.3 * off(torch.where(bare, red, paint_of_it))


def test_after_a_cut_a_frame_is_painted_like_the_first(paint, told, picture):
    scenes = [picture(40, 40, seed) for seed in (1, 1, 2, 2)]
    frames = paint(scenes, iterations=9)
    assert [settings.iterations for settings, _, _ in told] == [9, 3, 9, 3]
    assert [frame.flow is None for frame in frames] == [True, False, True, False]
    alone = gatys.stylize(scenes[2], picture(30, 28, 9), SHALLOW, iterations=9, **QUIET)
    assert torch.equal(frames[2].image, alone.image)


def test_frames_of_different_sizes_are_one_sentence(paint, picture):
    with pytest.raises(ImageError, match=r"one size, unlike \(1, 3, 24, 25\) and \(1, 3, 24, 31\): resize"):
        paint([picture(24, 31, 1), picture(24, 25, 1)])


def test_what_is_no_frame_is_told(paint, picture):
    with pytest.raises(ImageError, match=r"film's frame 1 .*\(3, 24, 31\)"):
        paint(picture(24, 31, 1))  # iterating over a batch loses the first dimension
    with pytest.raises(ImageError, match=r"film's frame 2 .*str"):
        paint([picture(24, 31, 1), "frame.png"])


def test_control_c_ends_the_film_with_the_frame_reached(monkeypatch, paint, moving):
    evaluate, count = gatys.Objective.gradient, []

    def interrupted(self, image):
        count.append(1)
        if len(count) == 8:
            raise KeyboardInterrupt
        return evaluate(self, image)

    monkeypatch.setattr(gatys.Objective, "gradient", interrupted)
    frames = paint(moving.frames, SHALLOW.changed(optimizer="adam"))
    assert [frame.result.interrupted for frame in frames] == [False, True]
    assert [len(frame.result.history) for frame in frames] == [6, 1]
    assert frames[1].image.shape == moving.frames[1].shape
