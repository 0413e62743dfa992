"""The same objective for pictures larger than memory: evaluated tile by tile, with the style of the whole.

A tile alone has another Gram matrix than the picture, so tiles stylized one by one change in style from one
to the next. Here the statistics of all tiles are summed first; then each tile is differentiated against that
sum. Loss and gradient are those of the whole picture, up to rounding: there can be no seam.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import SettingError
from ...nets.hardware import give_back_memory
from ...nets.vgg import receptive_field
from .objective import Objective, Statistics, averaged

# Four poolings of VGG up to its fifth block: tiles that begin at multiples of 16 pool as the whole does.
ALIGN = 16

Where = tuple[slice, slice]


class Tile(NamedTuple):
    """One tile, and the window around it that its features depend on: rows and columns of the picture."""

    inner: Where
    window: Where


class Piece(NamedTuple):
    """A tile's own features at one layer, and where in the whole feature map they belong."""

    features: Tensor
    where: Where


class Region(NamedTuple):
    """A guide's mask at one layer (None: everywhere), and its sum of squares: the Gram matrix's divisor."""

    mask: Tensor | None
    weight: float


def cut(shape: Sequence[int], side: int, margin: int) -> list[Tile]:
    """Cut a picture of (H, W) into tiles of about ``side`` pixels with ``margin`` pixels around them."""
    axes: list[list[tuple[slice, slice]]] = []
    for length in (int(shape[0]), int(shape[1])):
        count = -(-length // side)
        step = -(-length // (count * ALIGN)) * ALIGN
        edges = [*range(0, length, step), length]
        if len(edges) > 2 and edges[-1] - edges[-2] < 2 * ALIGN:  # too thin for the deepest layer
            del edges[-2]
        axes.append(
            [(slice(a, b), slice(max(0, a - margin), min(length, b + margin))) for a, b in pairwise(edges)]
        )
    return [Tile((r, c), (rows, columns)) for r, rows in axes[0] for c, columns in axes[1]]


class TiledObjective(Objective):
    """:class:`Objective` in memory that grows no more with the picture than the picture itself.

    It takes about twice as long: features are computed twice, and margins more than once.

    Args:
        *arguments: as for :class:`Objective`.
        tile: side of a tile in pixels, a multiple of 16. Its window is larger by the receptive field of the
            deepest layer, 80 pixels on each side for relu5_1 of VGG-19.
        **options: as for :class:`Objective`.

    Raises:
        SettingError: a network that is not a VGG, or a Hessian product.
    """

    def __init__(self, *arguments: Any, tile: int = 1024, **options: Any) -> None:
        extractor, settings = arguments[0], arguments[3]
        if not extractor.network.startswith("vgg"):
            raise SettingError(
                "Tiles need a network whose layers halve the picture: take vgg19 or vgg16 instead of "
                f"{extractor.network}, or a smaller picture."
            )
        names = {*settings.style_layers, *settings.content_layers}
        fields = {name: receptive_field(extractor.network, name) for name in names}
        self.strides = {name: step for name, (_, step) in fields.items()}
        deepest = max(side for side, _ in fields.values())
        self.margin = -(-(deepest // 2 + 1) // ALIGN) * ALIGN
        self.side = tile
        self.content_tiles: list[dict[str, Tensor]] = []
        self.face_tiles: list[dict[str, tuple[Tensor, Tensor]]] = []  # see Objective.face_targets
        self.content_scale: dict[str, float] = {}
        self.regions: list[dict[str, Region]] = []  # of each guide, by layer
        super().__init__(*arguments, **options)
        give_back_memory()

    # -- targets, tile by tile

    def _content_features(self, content: Tensor) -> dict[str, Tensor]:
        names = self.settings.content_layers
        masks, size = {}, dict.fromkeys(self.face_layers, 0.0)
        if self.faces:
            mask, share = self._face_mask(content)
            for name in self.face_layers:
                height, width = (side // self.strides[name] for side in content.shape[-2:])
                masks[name] = share * averaged(mask, (height, width))
        for pieces in self._scan(content):
            # A clone, or the view would keep the whole window's features alive.
            self.content_tiles.append({name: pieces[name].features.clone() for name in names})
            self.face_tiles.append({})
            for name, mask in masks.items():
                here = mask[..., *pieces[name].where]
                if bool(here.any()):
                    features = self.repainted(name, pieces[name].features)
                    self.face_tiles[-1][name] = (features.to(self.extractor.precision), here)
                    size[name] += (here * features.square()).sum().item() / share
        for tile in self.face_tiles:
            for name, (features, here) in tile.items():
                tile[name] = (features, here / size[name])
        for name in names:
            # What this layer's sum of squares is multiplied by to give its part of the content term.
            count = sum(found[name].numel() for found in self.content_tiles)
            scale = {"mean": 1 / count, "sum": 1.0, "half_sum": 0.5}[self.content_reduction]
            if self.relative:
                squares = sum(found[name].float().square().sum().item() for found in self.content_tiles)
                scale = 1 / max(squares, 1e-12 * count)
            self.content_scale[name] = scale * self.content_share
        return {}

    def _style_statistics(self, style: Tensor) -> dict[str, Statistics]:
        regions = self._regions(style, [None])
        total: list[dict[str, Statistics]] = [{}]
        for pieces in self._scan(style):
            _add(total, self._parts(pieces, regions))
        return total[0]

    def _regions(self, image: Tensor, masks: Sequence[Tensor | None]) -> list[dict[str, Region]]:
        """Masks averaged down to each style layer's size."""
        regions = []
        for mask in masks:
            found = {}
            for name in self.settings.style_layers:
                height, width = (side // self.strides[name] for side in image.shape[-2:])
                if mask is None:
                    found[name] = Region(None, float(height * width))
                    continue
                # Rounded as the masked features will be, so that the parts of all tiles weigh 1 together.
                small = averaged(mask, (height, width)).to(self.extractor.precision)
                found[name] = Region(small, small.float().square().sum().item())
                if not found[name].weight:
                    raise SettingError(
                        f"The mask is empty at {name}, so there is no style to measure: take a larger "
                        "region, a larger picture or a shallower layer."
                    )
            regions.append(found)
        return regions

    # -- one tile

    def _scan(self, image: Tensor) -> Iterator[dict[str, Piece]]:
        """The features of each tile in turn."""
        for tile in cut(image.shape[-2:], self.side, self.margin):
            yield self._pieces(image[..., *tile.window], tile, image.shape[-2:])

    def _pieces(self, window: Tensor, tile: Tile, shape: Sequence[int]) -> dict[str, Piece]:
        """The features of a window, cut to the tile, by layer."""
        pieces = {}
        for name, features in self.extractor(window).items():
            step, inside, whole = self.strides[name], [], []
            for axis in (0, 1):
                begin, end, first = tile.inner[axis].start, tile.inner[axis].stop, tile.window[axis].start
                # At the picture's edge pooling cuts odd pixels off, so the last tile goes to the end.
                stop = shape[axis] // step if end == shape[axis] else end // step
                inside.append(slice((begin - first) // step, stop - first // step))
                whole.append(slice(begin // step, stop))
            pieces[name] = Piece(features[:, :, inside[0], inside[1]], (whole[0], whole[1]))
        return pieces

    def _parts(
        self, pieces: Mapping[str, Piece], regions: Sequence[Mapping[str, Region]]
    ) -> list[dict[str, Statistics]]:
        """A tile's part of each region's statistics, so weighted that the parts of all tiles sum to them."""
        plain_sum = self.settings.style_distance == "gram" and self.how.divisor == "none"
        parts: list[dict[str, Statistics]] = []
        for region in regions:
            parts.append({})
            for name, (mask, weight) in region.items():
                features, where = pieces[name]
                own = None if mask is None else mask[..., *where]
                area = features[0, 0].numel() if own is None else own.float().square().sum().item()
                if area:
                    share = 1.0 if plain_sum else area / weight
                    parts[-1][name] = tuple(part * share for part in self.statistics(features, own))
        return parts

    def _held(self, pieces: Mapping[str, Piece], number: int) -> dict[str, Tensor]:
        """A tile's part of the terms of content and face."""
        content = torch.zeros((), device=self.extractor.device)
        face = content.clone()
        for name, target in self.content_tiles[number].items() if self.content_tiles else ():
            squared = (pieces[name].features.float() - target.float()).square().sum()
            content = content + self.content_scale[name] * squared
        for name, (target, weights) in self.face_tiles[number].items() if self.faces else ():
            face = face + (weights * (pieces[name].features.float() - target.float()).square()).sum()
        return {"content": content} | ({"face": face} if self.faces else {})

    # -- the whole picture

    @torch.no_grad()
    def measure(self, image: Tensor) -> tuple[dict[str, Tensor], list[dict[str, Statistics]]]:
        """Terms and statistics of the whole picture, without gradients: ask :meth:`gradient`."""
        self.regions = self.regions or self._regions(image, [target.mask for target in self.targets])
        held: dict[str, Tensor] = {}
        total: list[dict[str, Statistics]] = [{} for _ in self.targets]
        for number, pieces in enumerate(self._scan(image)):
            held = {name: held.get(name, 0) + part for name, part in self._held(pieces, number).items()}
            _add(total, self._parts(pieces, self.regions))
        return held, total

    def gradient(self, image: Tensor) -> tuple[dict[str, float], Tensor]:
        """Every term as numbers, and the total's gradient: dL/dG of the whole, then each tile against it."""
        self.evaluations += 1
        canvas = self.canvas(image.detach()).requires_grad_(True)
        held, found = self.measure(canvas.detach())
        leaves = [
            part.requires_grad_(True) for layers in found for parts in layers.values() for part in parts
        ]
        terms = self.all_terms(canvas, held, found)
        # One backward pass through what needs no network: to the pixels, and to the statistics.
        gradient, slopes = torch.zeros_like(canvas), iter(leaves)
        if terms["total"].requires_grad:
            gradient, *rest = torch.autograd.grad(terms["total"], [canvas, *leaves], materialize_grads=True)
            slopes = iter(rest)
        wanted = [{name: [next(slopes) for _ in parts] for name, parts in layers.items()} for layers in found]
        for number, tile in enumerate(cut(canvas.shape[-2:], self.side, self.margin)):
            window = canvas.detach()[..., *tile.window].clone().requires_grad_(True)
            pieces = self._pieces(window, tile, canvas.shape[-2:])
            parts = self._held(pieces, number)
            surrogate = torch.stack([self.weight(name) * part for name, part in parts.items()]).sum()
            for slope, part in zip(wanted, self._parts(pieces, self.regions), strict=True):
                for name, statistics in part.items():
                    for of_loss, own in zip(slope[name], statistics, strict=True):
                        surrogate = surrogate + (of_loss * own).sum()
            if surrogate.requires_grad:  # not where a texture's mask leaves the tile out
                gradient[..., *tile.window] += torch.autograd.grad(surrogate, window)[0]
        give_back_memory()  # what the tiles leave is too broken up for the optimizer's vectors
        if self.paint is not None:
            gradient = gradient * self.paint
        return {name: term.item() for name, term in terms.items()}, gradient

    def hessian_vector(self, image: Tensor, vector: Tensor) -> Tensor:
        """Not to be had tile by tile."""
        raise SettingError(
            "Newton's method cannot work in tiles: take 'lbfgs' or 'adam', or a smaller picture."
        )


def _add(total: list[dict[str, Statistics]], parts: list[dict[str, Statistics]]) -> None:
    """Add one tile's statistics to the sums."""
    for sums, found in zip(total, parts, strict=True):
        for name, part in found.items():
            before = sums.get(name)
            sums[name] = part if before is None else tuple(a + b for a, b in zip(before, part, strict=True))
