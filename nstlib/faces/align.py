"""Faces brought to a fixed frame: ArcFace's for recognition, FFHQ's for generators, and back where they were.

A similarity (turn, scale, shift) brings the five points of :func:`nstlib.faces.detect.find_faces` nearest to
ArcFace's template. The generators of faces have seen one framing only, that of FFHQ (Karras et al. 2019):
upright, with the eyes, the mouth and a good part of the hair always at the same places. In it the template's
square has a fixed place, :data:`PORTRAIT`.

    >>> portrait = align_portrait(photograph)                            # doctest: +SKIP
    >>> stylized = stylize(portrait.picture)                             # doctest: +SKIP
    >>> result = paste(photograph, portrait.theta, stylized)             # doctest: +SKIP
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from skimage.transform import estimate_transform
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ..errors import ImageError, SettingError
from ..nets.mobilefacenet import SIDE
from ..pictures.files import check_picture, check_whole
from .detect import Face, find_faces

TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""ArcFace's places (x, y) in its 112 × 112 pixels: the eyes, the nose's tip, the corners of the mouth."""

PORTRAIT = ((0.754, -0.004, -0.005), (0.004, 0.754, -0.0125))
"""Where the template lies in a portrait framed like FFHQ, as :func:`align` gives it: its mean over 60
generated faces (standard deviation 0.022 of the size, 0.012 of the turn, 0.015 of the place)."""

OVAL = ((0.0, 0.2), (0.78, 0.95), 0.35)
"""A face's oval in the template's square, from -1 to 1: its middle, its half axes, and the part of them over
which its border fades (ours): from the forehead to the chin."""

SIZE = 256
"""Pixels a side of a portrait, as the small generator of faces draws them."""

SOFTNESS = 0.12
"""Width of the border in which a pasted portrait fades into the picture, in sides of the portrait (ours)."""

# FFHQ's own recipe blurs by 2 % of the side and then fades to the median color; the distances are ours.
_BLUR = 0.02  # of the portrait's side: standard deviation of the blur outside the picture
_BLURRED, _FADED = 0.1, 1.0  # halves of the side outside it: blurred wholly; of the median color wholly
_FINEST = 16  # samples a side for a pixel: of larger faces some pixels are skipped


def align(image: Tensor, face: Face | None = None) -> Tensor:
    """Where a face is, as ArcFace wants it cut out.

    Args:
        image: (1, 3, H, W), RGB in [0, 1], any size.
        face: one of :func:`nstlib.faces.detect.find_faces`; by default the largest.

    Returns:
        (1, 2, 3), float32, on the CPU: theta of ``torch.nn.functional.affine_grid``. It counts in halves of
        the picture's width and height, and so holds for the same picture at another size too.

    Raises:
        ImageError: not one picture, or no face is found in it.
        AssetError: the detector cannot be had.
    """
    face = face or _found(image)[0]
    # InsightFace counts from the middle of the first pixel, we from its corner.
    template = 2 * (np.array(TEMPLATE) + 0.5) / SIDE - 1
    pixels = estimate_transform("similarity", template, face.points.double().numpy()).params[:2]
    halves = np.array([[image.shape[-1]], [image.shape[-2]]]) / 2
    return torch.tensor(pixels / halves - [[0, 0, 1]], dtype=torch.float32)[None]


def portrait_alignment() -> Tensor:
    """The alignment (1, 2, 3) that fits all portraits framed like FFHQ, without looking for their faces."""
    return torch.tensor([PORTRAIT])


def cut_out(images: Tensor, alignment: Tensor) -> Tensor:
    """Faces cut out to the template; what lies outside a picture is black, as InsightFace has it.

    Large faces are averaged down, so that every pixel of theirs counts (and gets its gradient).

    Args:
        images: (N, 3, H, W), RGB in [0, 1].
        alignment: (N, 2, 3), or (1, 2, 3) for all, from :func:`align`.

    Returns:
        (N, 3, 112, 112), differentiable with respect to the pictures.

    Raises:
        ImageError: not pictures.
        SettingError: the alignment does not fit them.
    """
    count = len(check_picture("pictures", images))
    if alignment.shape not in ((count, 2, 3), (1, 2, 3)):
        raise SettingError(f"An alignment {tuple(alignment.shape)} does not fit {count} pictures: see align.")
    thetas = alignment.to(images.device, torch.float32).expand(count, 2, 3).split(1)
    pairs = zip(images.float().split(1), thetas, strict=True)
    return torch.cat([sample(image, theta, (SIDE, SIDE), mode="bilinear") for image, theta in pairs])


def oval(alignment: Tensor, shape: Sequence[int]) -> Tensor:
    """Where a face is, as a soft mask: forehead to chin, without hair and ears, whatever lies before it.

    Args:
        alignment: (1, 2, 3), from :func:`align`.
        shape: (H, W) of the picture.

    Returns:
        (1, 1, H, W), float32 in [0, 1], on the CPU.
    """
    (x, y), (half_width, half_height), fading = OVAL
    grid = F.affine_grid(inverse(alignment), [1, 1, *shape], align_corners=False)
    radius = torch.hypot((grid[..., 0] - x) / half_width, (grid[..., 1] - y) / half_height)[:, None]
    return smoothstep((1 - radius) / fading + 0.5)


def smoothstep(x: Tensor) -> Tensor:
    """Clamped to [0, 1] and smooth at both ends, so that no line shows where a mask begins to fade."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


@dataclass(frozen=True)
class Portrait:
    """One face, framed like FFHQ.

    Attributes:
        picture: (1, 3, size, size), float32, RGB in [0, 1], on the device of the picture it was cut from.
        theta: (1, 2, 3), float32, on the CPU: where it was, as ``torch.nn.functional.affine_grid`` takes it
            (from the portrait's coordinates to the picture's, both from -1 to 1). It holds for the same
            picture at another size too.
    """

    picture: Tensor
    theta: Tensor


def align_portrait(image: Tensor, size: int = SIZE, *, face: int | None = None) -> Portrait:
    """Find a face and cut it out as FFHQ's pictures are.

    Where the frame reaches beyond the picture, the picture is mirrored, blurred and fades to its median
    color, as FFHQ's are: a black corner would be taken for hair or clothes.

    Args:
        image: (1, 3, H, W), RGB in [0, 1], any size.
        size: pixels a side of the portrait.
        face: which of the faces, counted from the left, the first is 1; by default the largest.

    Raises:
        ImageError: not one picture, or no face is found in it.
        SettingError: the size is not positive, or there are not so many faces.
        AssetError: the detector cannot be had.
    """
    return align_portraits(image, size, face=face)[0]


def align_portraits(image: Tensor, size: int = SIZE, *, face: int | str | None = "all") -> list[Portrait]:
    """All faces, largest first, or one of them, cut out as :func:`align_portrait` does.

    A face that lies on its side or upside down comes out upright; a warning says so.
    """
    check_whole("size", size)
    wanted = face if isinstance(face, str) or face is None else check_whole("face", face)
    found = _found(image)
    if wanted is None:
        found = found[:1]
    elif wanted != "all":
        if int(wanted) > len(found):
            raise SettingError(f"There is no face {face} in the picture: choose from 1 to {len(found)}.")
        found = sorted(found, key=lambda one: one.box[0] + one.box[2])[int(wanted) - 1 :][:1]
    portraits = []
    for one in found:
        across, down = (one.points[1] - one.points[0]).tolist()
        if quarters := round(math.atan2(down, across) / (math.pi / 2)) % 4:
            how = ("", "turned to the right", "upside down", "turned to the left")[quarters]
            warnings.warn(f"A face is {how} in the picture: it is painted upright.", stacklevel=3)
        theta = compose(align(image, one), inverse(portrait_alignment()))
        portraits.append(Portrait(cut_portrait(image, theta, size), theta))
    return portraits


def cut_portrait(image: Tensor, theta: Tensor, size: int = SIZE) -> Tensor:
    """Cut the square that theta says out of a picture, mirrored and blurred where it reaches beyond it.

    Args:
        image: (1, 3, H, W), RGB in [0, 1].
        theta: (1, 2, 3), of a :class:`Portrait`.
        size: pixels a side.

    Returns:
        (1, 3, size, size), on the picture's device.

    Raises:
        ImageError: not one picture.
    """
    theta = theta.float().to(check_picture("picture", image, count=1).device)
    picture = sample(image.detach().float(), theta, (size, size), "reflection").clamp(0, 1)
    grid = F.affine_grid(theta, [1, 1, size, size], align_corners=False)
    # How far outside the picture each pixel is, in halves of the portrait's side.
    sides = theta.new_tensor([image.shape[-1], image.shape[-2]])
    outside = ((grid.abs() - 1).clamp_min(0) * sides / (theta[0, :, 0] * sides).norm()).norm(dim=-1)[:, None]
    if not bool((outside > 0).any()):
        return picture
    inside = picture.flatten(2)[..., (outside == 0).flatten()]
    median = (inside if inside.shape[-1] else picture.flatten(2)).median(-1).values[..., None, None]
    radius = min(max(1, math.ceil(3 * _BLUR * size)), size - 1)
    blurred = gaussian_blur(picture, [2 * radius + 1] * 2, [_BLUR * size] * 2)
    picture = torch.lerp(picture, blurred, (outside / _BLURRED).clamp(0, 1))
    return torch.lerp(picture, median.expand_as(picture), (outside / _FADED).clamp(0, 1))


def paste(image: Tensor, theta: Tensor, stylized: Tensor, mask: Tensor | None = None) -> Tensor:
    """Put a portrait back where it was cut out; its border fades softly into the picture.

    Args:
        image: (1, 3, H, W), RGB in [0, 1]: the picture, also at another size than the face was found at.
        theta: (1, 2, 3), of the :class:`Portrait` that was cut out.
        stylized: (1, 3, size, size), RGB in [0, 1]: what became of the portrait, of any size.
        mask: (1, 1, size, size) in [0, 1]: what of it goes back, as :func:`nstlib.faces.parse.head_mask`
            finds it; None: the whole square.

    Returns:
        (1, 3, H, W), float32 in [0, 1], on the picture's device.

    Raises:
        ImageError: not one picture, or the portrait is not one.
    """
    check_picture("picture", image, count=1)
    check_picture("portrait", stylized, count=1)
    back = inverse(theta).to(image.device)
    height, width = image.shape[-2:]
    portrait = sample(stylized.detach().float().to(image.device), back, (height, width), "border")
    grid = F.affine_grid(back, [1, 1, height, width], align_corners=False)
    inwards = (1 - grid.abs().amax(-1))[:, None] / 2  # in sides of the portrait, from its border
    fading = smoothstep(inwards / SOFTNESS)
    if mask is not None:
        fading = fading * sample(mask.to(image.device), back, (height, width), mode="bilinear")
    return torch.lerp(image.detach().float(), portrait.clamp(0, 1), fading).clamp(0, 1)


def sample(
    image: Tensor, theta: Tensor, size: tuple[int, int], padding: str = "zeros", mode: str = "bicubic"
) -> Tensor:
    """A picture seen through theta; where pixels are many for one of the result, all of them count."""
    pixels = theta[0, :, :2] * theta.new_tensor([[image.shape[-1]], [image.shape[-2]]])
    steps = (pixels / theta.new_tensor([size[1], size[0]])).norm(dim=0)  # pixels from one of ours to the next
    finer = min(_FINEST, max(1, round(steps.max().item())))
    grid = F.affine_grid(theta, [1, 1, size[0] * finer, size[1] * finer], align_corners=False)
    samples = F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=False)
    return F.avg_pool2d(samples, finer)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The theta (1, 2, 3) that goes through `inner` first, then through `outer`."""
    return (_square(outer) @ _square(inner))[:, :2].float()


def inverse(theta: Tensor) -> Tensor:
    """The theta (1, 2, 3) that goes back."""
    return torch.linalg.inv(_square(theta))[:, :2].float()


def _square(theta: Tensor) -> Tensor:
    return torch.cat([theta.double(), theta.new_tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64)], 1)


def _found(image: Tensor) -> list[Face]:
    faces = find_faces(image)
    if not faces:
        height, width = image.shape[-2:]
        raise ImageError(
            f"No face was found in the picture ({width} × {height} pixels): take one that shows a face from "
            "the front, or leave it out."
        )
    return faces
