"""Portraits cut out of pictures as FFHQ's are, and put back where they came from.

The generators of faces (StyleGAN2, the small prior of :mod:`nstlib.faces.generated`) have seen one framing
only: that
of FFHQ (Karras et al. 2019), upright, with the eyes, the mouth and a good part of the hair always at the
same places. DualStyleGAN, JoJoGAN and their encoders want their pictures so, photographs and paintings alike.

FFHQ's framing lies in a fixed place around ArcFace's template, for which :func:`nstlib.faces.identity.align`
finds
the face. Of 60 generated faces, which are framed so from the start, the template's square was found with a
size of 0.744 ± 0.025 of the picture's side, a turn of 0.2° ± 1.0° and a middle that strayed by 0.010 (across)
and 0.012 (down) of half the side; :data:`nstlib.faces.identity.PORTRAIT` is that place. Cut out again from
themselves at 128 pixels, their faces moved by 1.2 pixels on average (9 of 10 by less than 1.8).

    >>> portrait = align_portrait(photograph)                            # doctest: +SKIP
    >>> stylized = stylize(portrait.picture)                             # doctest: +SKIP
    >>> result = paste(photograph, portrait.theta, stylized)             # doctest: +SKIP
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError, SettingError
from .identity import align, portrait_alignment
from .parse import FaceParser

SIZE = 128
"""Pixels a side, as the small generator of faces draws them."""

SOFTNESS = 0.12
"""Width of the border in which a pasted portrait fades into the picture, in sides of the portrait (ours)."""

# FFHQ's own recipe blurs by 2 % of the side and then fades to the median color; the distances are ours.
_BLUR = 0.02  # of the portrait's side: standard deviation of the blur outside the picture
_BLURRED, _FADED = (
    0.1,
    1.0,
)  # halves of the side outside the picture: blurred wholly; of the median color wholly
_AROUND = 2.0  # sides of a found face that are looked at to align it
_FINEST = 16  # samples a side for a pixel: of larger faces some pixels are skipped


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


def align_portrait(
    image: Tensor, size: int = SIZE, parser: FaceParser | None = None, *, face: int | None = None
) -> Portrait:
    """Find a face and cut it out as FFHQ's pictures are.

    Where the frame reaches beyond the picture, the picture is mirrored, blurred and fades to its median
    color, as FFHQ's are: a black corner would be taken for hair or clothes.

    Args:
        image: (1, 3, H, W), RGB in [0, 1], any size.
        size: pixels a side of the portrait.
        parser: to use one for several pictures.
        face: which of the faces, counted from the left, the first is 1; by default the largest.

    Raises:
        ImageError: not one picture, or no face is found in it.
        SettingError: the size is not positive, or there are not so many faces.
        AssetError: the parser's weights cannot be had.
    """
    _check(image)
    if not (isinstance(size, int) and not isinstance(size, bool) and size >= 1):
        raise SettingError(f"size is {size!r}, but must be a whole number of pixels, 1 or more.")
    if face is not None and not (isinstance(face, int) and not isinstance(face, bool) and face >= 1):
        raise SettingError(f"face is {face!r}, but faces are counted from the left, and the first is 1.")
    parser = parser or FaceParser()
    theta = _compose(_locate(image, parser, face), _inverse(portrait_alignment()))
    return Portrait(cut_portrait(image, theta, size), theta)


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
        SettingError: theta has another shape, or shrinks the picture to nothing.
    """
    _check(image)
    theta = _check_theta(theta).to(image.device)
    picture = _sample(image.detach().float(), theta, (size, size), "reflection").clamp(0, 1)
    grid = F.affine_grid(theta, [1, 1, size, size], align_corners=False)
    # How far outside each pixel is, in halves of the portrait's side.
    beyond = (grid.abs() - 1).clamp_min(0) * _halves(image, theta)
    outside = beyond.norm(dim=-1)[:, None]
    if not bool((outside > 0).any()):
        return picture
    inside = picture.flatten(2)[..., (outside == 0).flatten()]
    median = (inside if inside.shape[-1] else picture.flatten(2)).median(-1).values[..., None, None]
    picture = torch.lerp(picture, _blurred(picture, _BLUR * size), (outside / _BLURRED).clamp(0, 1))
    return torch.lerp(picture, median.expand_as(picture), (outside / _FADED).clamp(0, 1))


def paste(image: Tensor, theta: Tensor, stylized: Tensor, softness: float = SOFTNESS) -> Tensor:
    """Put a portrait back where it was cut out; its border fades softly into the picture.

    Args:
        image: (1, 3, H, W), RGB in [0, 1]: the picture, also at another size than the face was found at.
        theta: (1, 2, 3), of the :class:`Portrait` that was cut out.
        stylized: (1, 3, size, size), RGB in [0, 1]: what became of the portrait, of any size.
        softness: width of the border in which it fades, in sides of the portrait: 0 for none, to 0.5.

    Returns:
        (1, 3, H, W), float32 in [0, 1], on the picture's device.

    Raises:
        ImageError: not one picture, or the portrait is not one.
        SettingError: theta has another shape, or the softness is no such width.
    """
    _check(image)
    _check(stylized)
    if not (isinstance(softness, int | float) and 0 <= softness <= 0.5):
        raise SettingError(f"softness is {softness!r}, but must be a part of the portrait's side, 0 to 0.5.")
    theta = _check_theta(theta)
    back = _inverse(theta).to(image.device)
    height, width = image.shape[-2:]
    portrait = _sample(stylized.detach().float().to(image.device), back, (height, width), "border")
    grid = F.affine_grid(back, [1, 1, height, width], align_corners=False)
    inwards = (1 - grid.abs().amax(-1))[:, None] / 2  # in sides of the portrait, from its border
    mask = (inwards / softness).clamp(0, 1) if softness > 0 else (inwards >= 0).float()
    mask = mask * mask * (3 - 2 * mask)  # smooth at both ends, so that no line shows where the fading begins
    return torch.lerp(image.detach().float(), portrait.clamp(0, 1), mask).clamp(0, 1)


def _locate(image: Tensor, parser: FaceParser, face: int | None) -> Tensor:
    """The alignment (1, 2, 3) to ArcFace's template of the face that is wanted."""
    height, width = image.shape[-2:]
    nothing = ImageError(
        f"No face was found in the picture ({width} × {height} pixels): take one that shows a face from the "
        "front, or cut it out more closely first."
    )
    if face is None:
        try:
            return align(image, parser)
        except ImageError as error:
            if not bool(image.detach().isfinite().all()):
                raise
            raise nothing from error
    found = sorted(parser.faces(image), key=lambda one: one.x)
    if not found:
        raise nothing
    if face > len(found):
        number = "1 face was" if len(found) == 1 else f"{len(found)} faces were"
        raise SettingError(f"Face {face} is wanted, but {number} found: choose from 1 to {len(found)}.")
    rows, columns = found[face - 1].window(_AROUND, height, width)
    try:
        theta = align(image[..., rows, columns], parser)
    except ImageError as error:
        raise ImageError(
            f"Face {face} of {len(found)} is too hard to make out to be aligned: cut it out of the picture "
            "more closely, or choose another one."
        ) from error
    # The window's coordinates, from -1 to 1, in the picture's.
    (top, bottom), (left, right) = ((one.start, one.stop) for one in (rows, columns))
    window = torch.tensor(
        [
            [(right - left) / width, 0, (left + right) / width - 1],
            [0, (bottom - top) / height, (top + bottom) / height - 1],
        ]
    )
    return _compose(window[None], theta)


def _sample(image: Tensor, theta: Tensor, size: tuple[int, int], padding: str) -> Tensor:
    """A picture seen through theta; where pixels are many for one of the result, all of them count."""
    pixels = theta[0, :, :2] * theta.new_tensor([[image.shape[-1]], [image.shape[-2]]])
    steps = (pixels / theta.new_tensor([size[1], size[0]])).norm(dim=0)  # pixels from one of ours to the next
    finer = min(_FINEST, max(1, round(steps.max().item())))
    grid = F.affine_grid(theta, [1, 1, size[0] * finer, size[1] * finer], align_corners=False)
    samples = F.grid_sample(image, grid, mode="bicubic", padding_mode=padding, align_corners=False)
    return F.avg_pool2d(samples, finer)


def _halves(image: Tensor, theta: Tensor) -> Tensor:
    """Half the picture's width and height, in halves of the portrait's side."""
    height, width = image.shape[-2:]
    side = torch.complex(theta[0, 0, 0] * width, theta[0, 1, 0] * height).abs()
    return torch.stack([width / side, height / side])


def _blurred(picture: Tensor, sigma: float) -> Tensor:
    """Blurred by a Gaussian with so many pixels of standard deviation."""
    radius = min(max(1, math.ceil(3 * sigma)), min(picture.shape[-2:]) - 1)
    if radius < 1:
        return picture
    places = torch.arange(-radius, radius + 1, device=picture.device)
    kernel = torch.exp(-0.5 * (places / max(sigma, 1e-3)) ** 2)
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    picture = F.pad(picture, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(picture, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def _square(theta: Tensor) -> Tensor:
    return torch.cat([theta.double(), theta.new_tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64)], 1)


def _compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Through `inner` first, then through `outer`."""
    return (_square(outer) @ _square(inner))[:, :2].float()


def _inverse(theta: Tensor) -> Tensor:
    return torch.linalg.inv(_square(theta))[:, :2].float()


def _check_theta(theta: Tensor) -> Tensor:
    if not isinstance(theta, Tensor) or theta.shape != (1, 2, 3):
        what = tuple(theta.shape) if isinstance(theta, Tensor) else type(theta).__name__
        raise SettingError(f"theta has the shape (1, 2, 3), not {what}: take that of a Portrait.")
    if not abs(torch.linalg.det(theta[0, :, :2].double()).item()) > 1e-12:
        raise SettingError("theta shrinks the portrait to a line: take that of a Portrait.")
    return theta.detach().float()


def _check(image: Tensor) -> Tensor:
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ImageError(f"A picture has the shape (1, 3, H, W), not {what}; load_image gives the right one.")
    if len(image) != 1:
        raise ImageError(f"One picture is wanted, not a batch of {len(image)}: pass image[i:i+1].")
    return image
