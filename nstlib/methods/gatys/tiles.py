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

Masks = Sequence[Tensor | None]
Where = tuple[slice, slice]


class Tile(NamedTuple):
    """One tile, and the window around it that its features depend on: rows and columns of the picture."""

    inner: Where
    window: Where


class Piece(NamedTuple):
    """A tile's own features at one layer, and where in the whole feature map they belong."""

    features: Tensor
    where: Where


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
        self.content_scale: dict[str, float] = {}
        super().__init__(*arguments, **options)
        give_back_memory()

    # -- targets, tile by tile

    def _content_features(self, content: Tensor) -> dict[str, Tensor]:
        names = self.settings.content_layers
        squares, counts = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
        for tile in self._tiles(content):
            # A clone, or the view would keep the whole window's features alive.
            pieces = self._pieces(content[..., *tile.window], tile, content.shape[-2:])
            found = {name: piece.features.clone() for name, piece in pieces if name in names}
            self.content_tiles.append(found)
            for name, features in found.items():
                squares[name] += features.float().square().sum().item()
                counts[name] += features.numel()
        how = self.settings.content_reduction
        for name in names:
            # What this layer's sum of squares is multiplied by to give its part of the content term.
            if self.relative:
                scale = 1 / max(squares[name], 1e-12 * counts[name])
            else:
                scale = {"mean": 1 / max(1, counts[name]), "sum": 1.0, "half_sum": 0.5}[how]
            mean = self.relative or how == "mean"
            self.content_scale[name] = scale / len(names) if mean else scale
        return {}

    def _style_statistics(self, style: Tensor, mask: Tensor | None) -> dict[str, Statistics]:
        masks = {name: [m] for name, m in self._at_layers(style, mask).items()}
        weights = self._weights(style, masks)  # refuses a mask that is empty
        total: list[dict[str, Statistics]] = [{}]
        for tile in self._tiles(style):
            pieces = dict(self._pieces(style[..., *tile.window], tile, style.shape[-2:]))
            _add(total, self._parts(pieces, masks, weights))
        return total[0]

    def _at_layers(self, image: Tensor, mask: Tensor | None) -> dict[str, Tensor | None]:
        """A mask averaged down to each style layer's size; None stays None."""
        height, width = image.shape[-2:]
        strides = {name: self.strides[name] for name in self.settings.style_layers}
        # Rounded as the masked features will be, so that the parts of all tiles weigh 1 together.
        return {
            name: None
            if mask is None
            else averaged(mask, (height // s, width // s)).to(self.extractor.precision)
            for name, s in strides.items()
        }

    def _weights(self, image: Tensor, masks: Mapping[str, Masks]) -> dict[str, list[float]]:
        """What the Gram sums of the whole picture are divided by: each mask's sum of squares."""
        height, width = image.shape[-2:]
        weights: dict[str, list[float]] = {}
        for name, found in masks.items():
            area = float((height // self.strides[name]) * (width // self.strides[name]))
            weights[name] = [area if mask is None else mask.float().square().sum().item() for mask in found]
            if not all(weights[name]):
                raise SettingError(
                    f"The mask is empty at {name}, so there is no style to measure: take a larger region, a "
                    "larger picture or a shallower layer."
                )
        return weights

    def _tiles(self, image: Tensor) -> list[Tile]:
        return cut(image.shape[-2:], self.side, self.margin)

    # -- one tile

    def _pieces(self, window: Tensor, tile: Tile, shape: Sequence[int]) -> Iterator[tuple[str, Piece]]:
        """The features of a window, cut to the tile, layer by layer."""
        for name, features in self.extractor(window).items():
            step, inside, whole = self.strides[name], [], []
            for axis in (0, 1):
                begin, end, first = tile.inner[axis].start, tile.inner[axis].stop, tile.window[axis].start
                # At the picture's edge pooling cuts odd pixels off, so the last tile goes to the end.
                stop = shape[axis] // step if end == shape[axis] else end // step
                inside.append(slice((begin - first) // step, stop - first // step))
                whole.append(slice(begin // step, stop))
            yield name, Piece(features[:, :, inside[0], inside[1]], (whole[0], whole[1]))

    def _parts(
        self,
        pieces: Mapping[str, Piece],
        masks: Mapping[str, Masks],
        weights: Mapping[str, Sequence[float]],
    ) -> list[dict[str, Statistics]]:
        """A tile's part of each mask's statistics, so weighted that the parts of all tiles sum to them."""
        plain_sum = self.settings.style_distance == "gram" and self.how.divisor == "none"
        count = max((len(found) for found in masks.values()), default=0)
        parts: list[dict[str, Statistics]] = [{} for _ in range(count)]
        for name, found in masks.items():
            features, where = pieces[name]
            for index, mask in enumerate(found):
                own = None if mask is None else mask[..., *where]
                area = features[0, 0].numel() if own is None else own.float().square().sum().item()
                if not area:
                    continue
                share = 1.0 if plain_sum else area / weights[name][index]
                gram, mean = self.statistics(features, own)
                parts[index][name] = Statistics(gram * share, None if mean is None else mean * share)
        return parts

    def _content_part(self, pieces: Mapping[str, Piece], number: int) -> Tensor:
        """A tile's part of the content term."""
        total = torch.zeros((), device=self.extractor.device)
        for name, target in self.content_tiles[number].items() if self.content_tiles else ():
            squared = (pieces[name].features.float() - target.float()).square().sum()
            total = total + self.content_scale[name] * squared
        return total

    # -- the whole picture

    def _all_masks(self, image: Tensor) -> dict[str, Masks]:
        """Layer -> each guide's mask there."""
        for target in self.targets:
            if target.mask is not None and not target.masks:
                target.masks.update(
                    {n: m for n, m in self._at_layers(image, target.mask).items() if m is not None}
                )
        names = self.settings.style_layers if self.targets else ()
        return {name: [target.masks.get(name) for target in self.targets] for name in names}

    def _first_pass(self, image: Tensor) -> tuple[dict[str, Tensor], list[dict[str, Statistics]]]:
        """Content term and statistics of the whole picture, without gradients."""
        masks = self._all_masks(image)
        weights = self._weights(image, masks)
        content = torch.zeros((), device=self.extractor.device)
        total: list[dict[str, Statistics]] = [{} for _ in self.targets]
        with torch.no_grad():
            for number, tile in enumerate(self._tiles(image)):
                pieces = dict(self._pieces(image[..., *tile.window], tile, image.shape[-2:]))
                content = content + self._content_part(pieces, number)
                _add(total, self._parts(pieces, masks, weights))
        return {"content": content}, total

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Every term of the whole picture; not differentiable, ask :meth:`gradient`."""
        with torch.no_grad():
            image = self.canvas(image.detach())
            terms, found = self._first_pass(image)
            terms = {**terms, "style": image.new_zeros(()), **self.style_terms(found)}
            terms |= self.pixel_terms(image)
            return {"total": self.total(terms), **terms}

    def gradient(self, image: Tensor) -> tuple[dict[str, float], Tensor]:
        """Every term as numbers, and the total's gradient: dL/dG of the whole, then each tile against it."""
        self.counts.gradients += 1
        s = self.settings
        canvas = self.canvas(image.detach()).requires_grad_(True)
        pixels = self.pixel_terms(canvas)
        terms, found = self._first_pass(canvas.detach())
        leaves = [
            t.requires_grad_(True)
            for layers in found
            for both in layers.values()
            for t in both
            if t is not None
        ]
        style = self.style_terms(found)
        terms = {**terms, "style": canvas.new_zeros(()), **style, **pixels}
        total = self.total(terms)
        # One backward pass through what needs no network: to the pixels, and to the statistics.
        reached = (
            torch.autograd.grad(total, [canvas, *leaves], allow_unused=True) if total.requires_grad else ()
        )
        gradient = torch.zeros_like(canvas) if not reached or reached[0] is None else reached[0]
        slopes = iter(reached[1:])
        wanted = [
            {
                name: Statistics(next(slopes), None if both.mean is None else next(slopes))
                for name, both in layers.items()
            }
            for layers in found
        ]
        masks = self._all_masks(canvas)
        weights = self._weights(canvas, masks)
        for number, tile in enumerate(self._tiles(canvas)):
            window = canvas.detach()[..., *tile.window].clone().requires_grad_(True)
            pieces = dict(self._pieces(window, tile, canvas.shape[-2:]))
            surrogate = s.content_weight * self._content_part(pieces, number)
            for slope, part in zip(wanted, self._parts(pieces, masks, weights), strict=True):
                for name, both in part.items():
                    for of_loss, own in zip(slope[name], both, strict=True):
                        if of_loss is not None and own is not None:
                            surrogate = surrogate + (of_loss * own).sum()
            if surrogate.requires_grad:  # not where a texture's mask leaves the tile out
                gradient[..., *tile.window] += torch.autograd.grad(surrogate, window)[0]
        give_back_memory()  # what the tiles leave is too broken up for the optimizer's vectors
        if self.paint is not None:
            gradient = gradient * self.paint
        return {name: term.item() for name, term in {"total": total, **terms}.items()}, gradient

    def hessian_vector(self, image: Tensor, vector: Tensor) -> Tensor:
        """Not to be had tile by tile."""
        raise SettingError(
            "Newton's method cannot work in tiles: take 'lbfgs' or 'adam', or a smaller picture."
        )


def _add(total: list[dict[str, Statistics]], parts: list[dict[str, Statistics]]) -> None:
    """Add one tile's statistics to the sums."""
    for sums, found in zip(total, parts, strict=True):
        for name, (gram, mean) in found.items():
            before = sums.get(name)
            if before is not None:
                gram = before.gram + gram
                mean = None if mean is None or before.mean is None else before.mean + mean
            sums[name] = Statistics(gram, mean)
