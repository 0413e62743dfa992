"""What the methods of one forward pass share: what they refuse, sizes that fit, colors put back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError
from ..pictures import color


def check_pictures(name: str, pictures: object, least: int) -> Tensor:
    """Pictures (N, 3, H, W) of so many pixels a side at least, as they were given.

    Raises:
        ImageError: they are none, or smaller.
    """
    if not isinstance(pictures, Tensor) or pictures.ndim != 4 or pictures.shape[1] != 3:
        found = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
        raise ImageError(f"The {name} has the shape (N, 3, H, W), not {found}: load it with load_image.")
    if min(pictures.shape[-2:]) < least:
        raise ImageError(
            f"The {name} of {pictures.shape[-1]}×{pictures.shape[-2]} pixels is too small: take one of "
            f"{least} pixels a side at least."
        )
    return pictures


def padded(images: Tensor, stride: int) -> Tensor:
    """Continued to multiples of ``stride`` by its own mirror image, so that a network gives the whole back.

    The result is to be cut to the size of ``images``; what is added lies below and to the right.
    """
    down, right = (-images.shape[-2]) % stride, (-images.shape[-1]) % stride
    return F.pad(images, (0, right, 0, down), mode="reflect") if down or right else images


def finished(made: Tensor, content: Tensor, how: str) -> Tensor:
    """Network's pictures at the content's size, in [0, 1], on the CPU, with the colors that were asked for.

    Args:
        made: (N, 3, H', W'), at least as large as the content.
        content: (N, 3, H, W).
        how: see :func:`nstlib.pictures.color.finish`.
    """
    made = made[..., : content.shape[-2], : content.shape[-1]].float().clamp(0, 1).cpu()
    if how != "luminance":
        return made
    pairs = zip(made.split(1), content.cpu().split(1), strict=True)
    return torch.cat([color.finish(how, m, c) for m, c in pairs])
