"""Faces that are nobody's, as many as you like: drawn from random numbers, aligned like FFHQ.

What a network is trained on that must see many faces, and what a distribution of faces is measured by (FID),
without a photograph of anybody. Each face comes with its style w, from which it can be drawn again, or with
another style in some layers.

    >>> faces = Faces()                                        # doctest: +SKIP
    >>> w = faces.w(4, seed=1)                                 # doctest: +SKIP
    >>> faces.pictures(w, size=256).shape                      # doctest: +SKIP
    torch.Size([4, 3, 256, 256])
    >>> folder = cached(1000, size=256)                        # doctest: +SKIP

The weights come from a teacher and photographs (StyleGAN2, FFHQ) that are for non-commercial use only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from .. import assets
from ..assets.writing import write_atomic
from ..errors import AssetError, SettingError
from ..nets.hardware import resolve_device
from ..nets.mobilestylegan import STYLE, DistilledHead, FacePrior, from_official
from ..pictures.files import check_whole, resize, save_image

TRUNCATION = 0.7
"""How far from the mean style faces are drawn: 1 as far as the network learned, 0 the mean face."""

LICENCE = "MobileStyleGAN (Apache-2.0), taught by StyleGAN2 on FFHQ: for non-commercial use"

_MEAN_OF = 4096  # styles: their mean is off by 1/64 of their spread
_BLOCK = 64  # styles that are computed together
_HEAD = "weights/mobilestylegan_256.safetensors"
_STYLES = "styles.safetensors"  # in a folder of faces


class Faces:
    """A source of faces.

    Args:
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        tensors: weights instead of the assets', ``"mapping"`` and ``"synthesis"`` as ``assets.load_tensors``
            gives them, and if need be ``"head"``, the small generator's (tests, own networks).

    Raises:
        AssetError: the weights cannot be had.
        SettingError: no such device, or the tensors are not MobileStyleGAN's.
    """

    def __init__(
        self, device: str | torch.device = "auto", tensors: Mapping[str, Mapping[str, Tensor]] | None = None
    ) -> None:
        self.device = resolve_device(device)
        names = ("mapping", "synthesis")
        tensors = tensors or {name: assets.load_tensors(f"mobilestylegan_{name}") for name in names}
        mapping, synthesis = from_official(tensors["mapping"], tensors["synthesis"])
        self.mapping, self.synthesis = mapping.to(self.device), synthesis.to(self.device)
        self._head = tensors.get("head")

    @cached_property
    def mean_w(self) -> Tensor:
        """The mean style (1, 512), which truncation draws styles to."""
        with torch.no_grad():
            return self.mapping(_normal(range(_MEAN_OF), seed=0).to(self.device)).mean(0, keepdim=True)

    @cached_property
    def distilled_head(self) -> DistilledHead:
        """The head of the small generator, behind the features of 128 pixels."""
        tensors = self._head or safetensors.torch.load_file(assets.data_path(_HEAD))
        head = DistilledHead(len(tensors["near.weight"]))
        head.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
        return head.to(self.device).requires_grad_(False).eval()

    def prior(self) -> FacePrior:
        """The small generator of 256 pixels with these weights, frozen; what methods train styles on."""
        return FacePrior.of(self.mapping, self.synthesis, self.distilled_head).to(self.device)

    def w(self, count: int, seed: int = 0) -> Tensor:
        """The styles of the first faces of a seed, each from its own random numbers.

        Args:
            count: how many.
            seed: another one gives other faces.

        Returns:
            (count, 512); face i depends on seed and i alone.

        Raises:
            SettingError: a number is negative.
        """
        check_whole("count", count, 0)
        check_whole("seed", seed, 0)
        # Always the same blocks: in a batch of another size a style differs in its last bits.
        blocks = range(0, count, _BLOCK)
        with torch.no_grad():
            found = [self.mapping(_normal(range(i, i + _BLOCK), seed).to(self.device)) for i in blocks]
        w = torch.cat([self.mean_w[:0], *found])[:count]
        return self.mean_w + TRUNCATION * (w - self.mean_w)

    def pictures(self, w: Tensor, size: int = 256) -> Tensor:
        """Draw faces, differentiable with respect to w.

        Args:
            w: styles (N, 512), or w+ (N, 23, 512) with one for each layer, coarse to fine.
            size: pixels a side, up to 1024; up to 512 the network's last doubling is spared.

        Returns:
            (N, 3, size, size), RGB in [0, 1].

        Raises:
            SettingError: a size beyond the network's, or w of another shape.
        """
        if not 1 <= size <= self.synthesis.size:
            raise SettingError(f"Faces have from 1 to {self.synthesis.size} pixels a side, not {size}.")
        w = w.to(self.device)
        half = 2 * size <= self.synthesis.size
        pictures = self.synthesis.coefficients(w)[:, :3] / 2 if half else self.synthesis(w)
        return resize(((pictures + 1) / 2).clamp(0, 1), (size, size))


def cached(
    count: int, size: int = 256, seed: int = 0, *, device: str | torch.device = "auto",
    faces: Faces | None = None, progress: bool = True,
) -> Path:  # fmt: skip
    """A folder in the cache with at least the first ``count`` faces of a seed; what is missing is drawn.

    Faces lie there as ``000000.jpg``, ``000001.jpg`` ... (quality 95) and their styles in one file. Each file
    is whole or not there, so that work that was interrupted goes on, and more faces are added to fewer.

    Args:
        count: how many faces; there may be more, :func:`listed` gives the first ones.
        size: pixels a side, up to 1024.
        seed: another one gives other faces.
        device: where to draw; the weights are loaded only if there is something to draw.
        faces: draws them, instead of a source made for this.
        progress: show a progress bar.

    Raises:
        AssetError: the weights cannot be had.
        ImageError: the cache cannot be written.
        SettingError: as :meth:`Faces.w` and :meth:`Faces.pictures`.
    """
    folder = assets.cache_dir() / "faces" / f"{size}px-seed{seed}-truncation{TRUNCATION:g}"
    if not _missing(folder, check_whole("count", count, 0)):
        return folder
    faces = Faces(device) if faces is None else faces
    styles = faces.w(count, seed)
    for index in tqdm(_missing(folder, count), desc="faces", unit="", disable=not progress):
        if _picture(folder, index).exists():  # now, or another process has drawn it meanwhile
            continue
        with torch.no_grad():
            picture = faces.pictures(styles[index : index + 1], size)
        settings = {"face": index, "seed": seed, "truncation": TRUNCATION, "licence": LICENCE}
        save_image(picture, _picture(folder, index), settings=settings)
    if len(_styles(folder)) < count:
        write_atomic(folder / _STYLES, safetensors.torch.save({"w": styles.cpu()}))
    return folder


def listed(folder: Path, count: int) -> tuple[list[Path], Tensor]:
    """The first faces of a folder that :func:`cached` gave: picture files, and styles (count, 512).

    Raises:
        AssetError: there are not so many.
    """
    if _missing(folder, count):
        raise AssetError(f"{folder} has no {count} faces: ask faces.cached for them.")
    return [_picture(folder, index) for index in range(count)], _styles(folder)[:count]


def _normal(indices: range, seed: int) -> Tensor:
    """z (N, 512): each row from a random stream of its own, the same on every machine."""
    rows = [np.random.default_rng([seed, index]).standard_normal(STYLE, np.float32) for index in indices]
    return torch.tensor(np.stack(rows)) if rows else torch.zeros(0, STYLE)


def _picture(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.jpg"


def _missing(folder: Path, count: int) -> list[int]:
    """The faces whose picture or style is missing."""
    held = len(_styles(folder)) if count else 0
    return [index for index in range(count) if index >= held or not _picture(folder, index).exists()]


def _styles(folder: Path) -> Tensor:
    """The styles (N, 512) that a folder has; none, if there is no whole file of them."""
    try:
        return safetensors.torch.load_file(folder / _STYLES)["w"]
    except (OSError, SafetensorError):
        return torch.zeros(0, STYLE)
