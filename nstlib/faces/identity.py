"""How alike two faces are, whoever drew them: the identity that a stylized portrait should keep.

Source: ArcFace (Deng et al. 2019), whose network answers with a direction in 512 dimensions; the cosine of
two directions is high for pictures of one person and near 0 for two people. DualStyleGAN (paper A) trains
with such a cosine as a loss. The network knows faces cut out to one template only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import assets
from ..errors import SettingError
from ..nets.hardware import resolve_device
from ..nets.mobilefacenet import from_official
from ..pictures.files import check_picture
from .align import align, cut_out, portrait_alignment

__all__ = ["Identity", "align", "portrait_alignment"]


class Identity:
    """Cosine similarity of the faces in two batches of pictures.

    Args:
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        tensors: weights instead of the asset's, in the published layout (tests, own networks).

    Raises:
        AssetError: the weights cannot be had.
        SettingError: no such device, or the tensors are not MobileFaceNet's.

    Example:
        >>> identity = Identity()                                   # doctest: +SKIP
        >>> identity(photograph, stylized)                          # doctest: +SKIP
        tensor([0.7312])
        >>> alignment = align(photograph)                           # doctest: +SKIP
        >>> loss = 1 - identity.embed(picture, alignment) @ target  # doctest: +SKIP
    """

    def __init__(
        self, device: str | torch.device = "auto", tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        self.device = resolve_device(device)
        weights = assets.load_tensors("arcface_mobilefacenet") if tensors is None else tensors
        self.net = from_official(weights).to(self.device)

    def embed(self, images: Tensor, alignment: Tensor | None = None) -> Tensor:
        """The directions of the faces, differentiable with respect to the pictures once they are aligned.

        Args:
            images: (N, 3, H, W), RGB in [0, 1], any size.
            alignment: (N, 2, 3) or (1, 2, 3) from :func:`nstlib.faces.align.align`; by default each picture's
                largest face is looked for.

        Returns:
            (N, 512), float32, of length 1.

        Raises:
            ImageError: not a picture, or no face is found in it.
            SettingError: the alignment does not fit the pictures.
            AssetError: the detector cannot be had.
        """
        if alignment is None:
            alignment = _align_all(images)
        return F.normalize(self.net(2 * cut_out(images.to(self.device), alignment) - 1))

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """How alike the faces of each pair are: the cosine, (N,), 1 for equal pictures.

        If the pictures have equal sizes, both faces are cut out where A's is: a stylized picture's own face
        often cannot be found, and its lines lie where the photograph's are. If not, each where its own is.

        Args:
            a: (N, 3, H, W), RGB in [0, 1]: the photographs.
            b: (N, 3, H', W'): what became of them.

        Raises:
            SettingError: the batches have different numbers of pictures.
            ImageError: not a picture, or no face is found in it.
        """
        if len(check_picture("pictures", a)) != len(check_picture("pictures", b)):
            raise SettingError(f"{len(a)} and {len(b)} pictures are no pairs: give as many of each.")
        alignment = _align_all(a)
        shared = alignment if a.shape[-2:] == b.shape[-2:] else None
        return (self.embed(a, alignment) * self.embed(b, shared)).sum(1)


def _align_all(images: Tensor) -> Tensor:
    """(N, 2, 3): where the largest face of each picture is."""
    return torch.cat([align(image) for image in check_picture("pictures", images).split(1)])
