"""Where pixels go between two pictures of a film: optical flow, warping, what can be trusted, flicker.

A flow is a float32 tensor (1, 2, H, W) in pixels, channel 0 to the right (x), channel 1 down (y). It stands
on the pixels of the picture it starts from: the point x of `first` is found at x + flow(x) in `second`, so
``warp(second, flow)`` looks like `first`. Between neighbors of a film the *backward* flow, from the later
picture to the earlier one, is the one to warp with: ``warp(frames[t - 1], flow)`` looks like ``frames[t]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from skimage.registration import optical_flow_tvl1
from torch import Tensor
from torch.nn import functional as F

from ..errors import ImageError, SettingError
from .color import luminance
from .files import check_mask, check_picture, check_whole, resize


def optical_flow(first: Tensor, second: Tensor, *, side: int = 256) -> Tensor:
    """Estimate how far each pixel of `first` has moved in `second`: TV-L1 (Zach, Pock & Bischof 2007).

    The brightness alone is looked at, and at most `side` pixels of it along the longest side; the flow is
    enlarged to the pictures' size afterwards. On clips of `camera_move` (three portraits, 256 pixels, motion
    of 3) it is wrong by 0.09 pixels on average and takes half a second on one core, at a `side` of 128 by
    0.18 in a quarter of that; with twice the motion, noise and a brightness that changes by 3 %, by 0.4.
    (scikit-image's other method, iterative Lucas-Kanade, has 0.12 and 1.2 in the same time.)

    Args:
        first: Picture (1, 3, H, W) in [0, 1], on whose pixels the flow stands.
        second: Picture of the same shape.
        side: Longest side at which the flow is computed.

    Returns:
        Flow (1, 2, H, W) in pixels, such that ``warp(second, flow)`` looks like `first`.

    Raises:
        ImageError: one of the two is no picture, or they differ in size.
        SettingError: `side` is not a whole number of at least 16.
    """
    for picture in (first, second):
        check_picture("film's frame", picture, count=1)
    if first.shape != second.shape:
        sizes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ImageError(f"A film's frames have one size, unlike {sizes}: resize one of them first.")
    small = [resize(picture.detach(), check_whole("side", side, 16)) for picture in (first, second)]
    height, width = small[0].shape[-2:]
    gray = [luminance(picture).float().cpu() for picture in small]
    rows_then_columns = torch.from_numpy(optical_flow_tvl1(*(g[0, 0].numpy() for g in gray)))
    flow = rows_then_columns.flip(0)[None].to(first)
    if flow.shape[-2:] == first.shape[-2:]:
        return flow
    scale = flow.new_tensor([first.shape[-1] / width, first.shape[-2] / height]).view(1, 2, 1, 1)
    return F.interpolate(flow, first.shape[-2:], mode="bilinear", align_corners=False) * scale


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch each pixel from where the flow points to: out(x) = image(x + flow(x)), bilinear.

    A zero flow gives exactly the same values back. What lies outside takes the nearest pixel of the border;
    `consistency` marks it as not to be trusted. Differentiable in both arguments.

    Args:
        image: (1, C, H, W): a picture, a mask or another flow.
        flow: (1, 2, H, W) in pixels.

    Returns:
        (1, C, H, W).

    Raises:
        ImageError: the shapes do not fit together.
    """
    if flow.shape != (1, 2, *image.shape[2:]) or len(image) != 1:
        raise ImageError(
            "A flow is (1, 2, H, W) in pixels, and what it moves (1, C, H, W) of that size, not "
            f"{tuple(flow.shape)} and {tuple(image.shape)}: see optical_flow."
        )
    return _sample(image, _pixels(flow) + flow.to(_precise(flow)), "bilinear", "border")


def _precise(tensor: Tensor) -> torch.dtype:
    """Float64 where there is one: grid_sample wants [-1, 1], and in float32 the way there loses the pixel."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _pixels(like: Tensor) -> Tensor:
    """The coordinates of the pixels' centers, (1, 2, H, W): x and y from 0."""
    height, width = like.shape[-2:]
    dtype = _precise(like)
    y = torch.arange(height, dtype=dtype, device=like.device)
    x = torch.arange(width, dtype=dtype, device=like.device)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]


def _sample(image: Tensor, where: Tensor, mode: str, padding: str) -> Tensor:
    """The image's values at the pixel coordinates (1, 2, H, W)."""
    height, width = image.shape[-2:]
    last = where.new_tensor([max(width - 1, 1), max(height - 1, 1)]).view(1, 2, 1, 1)
    grid = (where / last * 2 - 1).permute(0, 2, 3, 1)
    values = F.grid_sample(image.to(grid.dtype), grid, mode=mode, padding_mode=padding, align_corners=True)
    return values.to(image.dtype)


def _inside(where: Tensor) -> Tensor:
    """1 where the pixel coordinates (1, 2, H, W) lie in the picture, else 0: a mask (1, 1, H, W)."""
    height, width = where.shape[-2:]
    last = where.new_tensor([width - 1, height - 1]).view(1, 2, 1, 1)
    # Flows are float32: a point of the border may come out a rounding error beside it.
    return ((where >= -1e-3) & (where <= last + 1e-3)).all(dim=1, keepdim=True).float()


def consistency(forward: Tensor, backward: Tensor) -> Tensor:
    """Which pixels of the later picture have been seen in the earlier one, and where their flow is sure.

    Going back and forth again must lead home: a pixel counts as newly uncovered where
    ``|w~ + b|² > 0.01 (|w~|² + |b|²) + 0.5``, with b the backward flow and w~(x) = forward(x + b(x)); and as
    a motion boundary, where estimated flows are least exact, if ``|grad b_x|² + |grad b_y|² > 0.01 |b|² +
    0.002``. Ruder, Dosovitskiy & Brox 2016, "Artistic style transfer for videos", section 4, with the
    constants of Sundaram, Brox & Keutzer 2010. Added here: what comes from outside the picture.

    Args:
        forward: Flow (1, 2, H, W) from the earlier picture to the later one.
        backward: Flow (1, 2, H, W) from the later picture to the earlier one.

    Returns:
        Mask (1, 1, H, W) on the pixels of the later picture: 1 may be compared with
        ``warp(earlier, backward)``, 0 may not.

    Raises:
        ImageError: one of the two is no flow, or they differ in size.
    """
    there = warp(forward, backward)
    amounts = there.square().sum(dim=1, keepdim=True), backward.square().sum(dim=1, keepdim=True)
    home = (there + backward).square().sum(dim=1, keepdim=True) <= 0.01 * sum(amounts) + 0.5
    smooth = _gradient_energy(backward) <= 0.01 * amounts[1] + 0.002
    return _inside(_pixels(backward) + backward) * (home & smooth)


def _gradient_energy(flow: Tensor) -> Tensor:
    """The squared gradients of both channels, summed, by central differences: (1, 1, H, W)."""
    padded = F.pad(flow, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return (dx.square() + dy.square()).sum(dim=1, keepdim=True)


def flicker(frames: Sequence[Tensor], flows: Sequence[Tensor], masks: Sequence[Tensor]) -> float:
    """How much a film changes beyond its motion: the temporal (warping) error, 0 for a film that only moves.

    The mean over all neighbors, all trusted pixels and the three channels of
    ``|frames[t] - warp(frames[t - 1], flows[t - 1])|``. It tells frames stylized one by one from frames
    stylized together; it says nothing about how good they look, and a gray film scores best of all. The flow
    is that of the *content* film. Warping is interpolation: sharp frames have a small error even without any
    flicker, so compare with the error of the content film itself.

    Args:
        frames: Pictures (1, 3, H, W) in [0, 1], at least two.
        flows: Backward flows (1, 2, H, W), one fewer: ``flows[t - 1]`` from frame t to frame t - 1.
        masks: As many masks (1, 1, H, W) as flows, 1 where the pixel is compared.

    Returns:
        The error in units of the pictures' range [0, 1].

    Raises:
        ImageError: something is no picture, flow or mask, or differs in size.
        SettingError: the numbers of frames, flows and masks do not fit, or no pixel is left to compare.
    """
    if not 1 <= len(frames) - 1 == len(flows) == len(masks):
        raise SettingError(
            f"There are {len(frames)} frames, {len(flows)} flows and {len(masks)} masks: pass two frames or "
            "more, and one flow and mask for each pair of neighbors."
        )
    errors = []
    for t, flow in enumerate(flows, start=1):
        change = (frames[t] - warp(frames[t - 1], flow)).abs().mean(dim=1, keepdim=True)
        weight = check_mask(f"clip's mask {t - 1}", masks[t - 1], change)
        if weight.sum() > 0:  # after a cut there may be no pixel that has been seen before
            errors.append(((change * weight).sum() / weight.sum()).item())
    if not errors:
        raise SettingError("The masks leave no pixel to compare in any pair of frames: check what they mark.")
    return sum(errors) / len(errors)


# ------------------------------------------------------------------------------------ a clip of known motion


class Clip(NamedTuple):
    """Frames with their true motion; the flows and masks are those that `warp` and `flicker` want."""

    frames: list[Tensor]  # (1, 3, H, W) in [0, 1]
    flows: list[Tensor]  # backward, (1, 2, H, W) in pixels: warp(frames[t - 1], flows[t - 1]) is frames[t]
    masks: list[Tensor]  # (1, 1, H, W): 1 where that is true, 0 where something was hidden or outside


def camera_move(
    image: Tensor, frames: int, *, zoom: float = 1.1, shift: tuple[float, float] = (0.0, 0.0),
    foreground_mask: Tensor | None = None, parallax: float = 2.0,
) -> Clip:  # fmt: skip
    """A short film with exactly known motion from one still: the camera comes nearer and moves sideways.

    Each point p of the still goes to ``center + zoom^(a t) (p - center) + a t shift`` with t from 0 to 1
    over the clip, a = 1 for the background and a = `parallax` for the foreground: what is near moves more,
    and covers and uncovers what lies behind it. The background behind the foreground is filled smoothly from
    its surroundings; past the border the still is mirrored.

    Args:
        image: The still (1, 3, H, W) in [0, 1]; it is the first frame, up to the edge of the foreground.
        frames: How many frames, at least 2.
        zoom: Magnification of the last frame, above 0; above 1 comes nearer.
        shift: By how many pixels, (right, down), the last frame is moved.
        foreground_mask: Soft mask (1, 1, H, W), 1 on what is near; None: the picture is one plane. Rather
            too wide than too narrow: what it leaves out of a head stays behind with the background.
        parallax: How many times as much the foreground moves.

    Returns:
        The frames, and for each pair of neighbors the backward flow and where it is true.

    Raises:
        ImageError: the still is no picture, or the mask no mask of its size.
        SettingError: fewer than 2 frames.
    """
    check_picture("image", image, count=1)
    count = check_whole("frames", frames, 2)
    behind, cover = image, torch.zeros_like(image[:, :1])
    if foreground_mask is not None:
        cover = check_mask("foreground_mask", foreground_mask, image)
        # Wider than the mask, whose soft edge would leave a pale ghost of the foreground behind.
        behind = _fill(image, 1 - F.max_pool2d(cover, 7, stride=1, padding=3))
    pixels = _pixels(image)
    center = pixels[..., -1:, -1:] / 2
    direction = pixels.new_tensor(shift).view(1, 2, 1, 1)

    def place(points: Tensor, t: float, amount: float) -> Tensor:  # from the still to frame t
        return center + zoom ** (amount * t) * (points - center) + amount * t * direction

    def origin(points: Tensor, t: float, amount: float) -> Tensor:  # and back
        return center + (points - center - amount * t * direction) / zoom ** (amount * t)

    clip = Clip([], [], [])
    covers: list[Tensor] = []
    for i in range(count):
        t, before = i / (count - 1), (i - 1) / (count - 1)
        far, near = origin(pixels, t, 1.0), origin(pixels, t, parallax)
        covers.append(_sample(cover, near, "bilinear", "reflection"))
        front = _sample(image, near, "bicubic", "reflection")
        back = _sample(behind, far, "bicubic", "reflection")
        clip.frames.append((covers[-1] * front + (1 - covers[-1]) * back).clamp(0, 1))
        if i == 0:
            continue
        from_far, from_near = place(far, before, 1.0), place(near, before, parallax)
        is_near = covers[-1] > 0.5
        source = torch.where(is_near, from_near, from_far)
        # True are pixels that show one plane alone, here and (with their neighbors) where they come from.
        was_covered = _sample(covers[-2], source, "bilinear", "border")
        low, high = torch.minimum(covers[-1], was_covered), torch.maximum(covers[-1], was_covered)
        alone = torch.where(is_near, low > 0.99, high < 0.01)
        clip.flows.append((source - pixels).to(image.dtype))
        clip.masks.append(alone.to(image.dtype) * _inside(source))
    return clip


def _halve(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, 2, ceil_mode=True, count_include_pad=False)


def _fill(image: Tensor, known: Tensor) -> Tensor:
    """Continue a picture smoothly into where `known` (1, 1, H, W) is 0, from coarse to fine."""
    height, width = image.shape[-2:]
    if max(height, width) == 1:
        return image
    weight = _halve(known)
    coarse = _fill(_halve(image * known) / weight.clamp(min=1e-6), (weight > 0).to(image.dtype))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return image * known + smooth * (1 - known)
