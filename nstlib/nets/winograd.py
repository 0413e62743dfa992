"""A 3 × 3 convolution with a quarter of the multiplications, for processors.

Source: Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.3:
F(4 × 4, 3 × 3). A tile of 4 × 4 results takes 144 multiplications for each pair of channels, one at a time.
But filter and tile are polynomials, and convolving them means multiplying these. Evaluated at the six points
0, ±1, ±2 and infinity in both directions, that takes 36 multiplications:

    Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A                                                          (equation 12)

where d are 6 × 6 pixels. Summed over the channels, each of the 36 points is a product of matrices, which
processors are fastest at. It loses about one more decimal to rounding than the plain sum.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

B_T = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
       (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))  # fmt: skip
G = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
     (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))  # fmt: skip
A_T = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

CHANNELS = 128
"""Fewest channels ..."""

VALUES = 2**16
"""... and fewest channels times pixels for which the saved multiplications outweigh the transforms."""


def convolve(conv: nn.Module, x: Tensor) -> Tensor:
    """``conv(x)``, by :func:`conv3x3` if it is a 3 × 3 convolution of stride 1."""
    if not isinstance(conv, nn.Conv2d) or (conv.kernel_size, conv.stride) != ((3, 3), (1, 1)):
        return conv(x)
    padding = int(conv.padding[0])
    if conv.padding_mode == "reflect":
        x, padding = F.pad(x, (padding,) * 4, mode="reflect"), 0
    return conv3x3(x, conv.weight, conv.bias, padding)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
    """``F.conv2d``, by Winograd's method where that is faster.

    That is in float32 on a processor, with frozen filters, many channels and many pixels; everywhere else
    this is ``F.conv2d``. Gradients of x, of any order, are computed in the same way, except without padding.

    Args:
        x: (N, inputs, H, W).
        weight: (outputs, inputs, 3, 3).
        bias: (outputs,).
        padding: 1 for zeros around the picture; 0 if x already has a border of one pixel.

    Returns:
        (N, outputs, H, W), or (N, outputs, H - 2, W - 2) without padding.
    """
    if not _pays(x, weight, padding):
        return F.conv2d(x, weight, bias, padding=padding)
    y = _watched(x, weight, False) if padding else _convolved(x, weight, False, 0)
    return y if bias is None else y.add_(bias[:, None, None])


def _watched(x: Tensor, weight: Tensor, turned: bool) -> Tensor:
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _Convolution.apply(x, weight, turned)
        return y
    return _convolved(x, weight, turned, 1)


class _Convolution(torch.autograd.Function):
    """With padding 1, where the gradient is a convolution of the same kind: filters turned by 180°."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, turned: bool) -> Tensor:
        ctx.weight, ctx.turned = weight, turned  # it is frozen, so no gradient is lost
        return _convolved(x, weight, turned, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _watched(gradient, ctx.weight, not ctx.turned), None, None


def _pays(x: Tensor, weight: Tensor, padding: int) -> bool:
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    gradient = torch.is_grad_enabled() and (weight.requires_grad or (x.requires_grad and not padding))
    height, width = (side + 2 * padding - 2 for side in x.shape[2:])
    return (
        plain
        and not gradient
        and not torch.is_autocast_enabled("cpu")
        and min(weight.shape[:2]) >= CHANNELS
        and min(weight.shape[:2]) * height * width >= VALUES
        and len(x) > 0
    )


def _both_ways(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """A matrix applied to columns and then to rows, as one matrix for all pixels of a tile."""
    square = torch.tensor(matrix, dtype=torch.float32, device="cpu")
    return torch.kron(square, square)


# Filters at the 36 points, by their weights: four times the memory of these in each direction, for as long as
# the network lives. Computed anew for each picture, they take much of a small one's time.
_POINTS: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _filters(weight: Tensor, turned: bool) -> Tensor:
    """A convolution's filters, or those of its gradient, at the 36 points: (36, inputs, outputs)."""
    if weight.is_inference():  # it has no version that counts changes
        return _at_points(weight, turned)
    state = (weight._version, weight.data_ptr())  # changes in place, and new memory
    kept = _POINTS.setdefault(weight, {})
    of, filters = kept.get(turned, (None, None))
    if of != state:
        filters = _at_points(weight, turned)
        kept[turned] = (state, filters)
    return filters


def _at_points(weight: Tensor, turned: bool) -> Tensor:
    w = weight.detach()
    w = w.flip(2, 3) if turned else w.transpose(0, 1)
    return (_both_ways(G) @ w.flatten(0, 1).flatten(1).T).view(36, *w.shape[:2])


def _convolved(x: Tensor, weight: Tensor, turned: bool, padding: int) -> Tensor:
    filters = _filters(weight, turned)
    # A picture at a time: its tiles take more than twice the memory of its features.
    return torch.cat([_convolve(one, filters, padding) for one in x.split(1)])


def _convolve(x: Tensor, filters: Tensor, padding: int) -> Tensor:
    """One picture's features (1, inputs, H, W) and the filters at 36 points (36, inputs, outputs)."""
    inputs = x.shape[1]
    height, width = (side + 2 * padding - 2 for side in x.shape[2:])
    rows, columns = -(-height // 4), -(-width // 4)  # the last tiles may hang over the edge
    around = (padding, padding + 4 * columns - width, padding, padding + 4 * rows - height)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *around))[0]
    tiles = padded.unfold(0, 6, 4).unfold(1, 6, 4).permute(3, 4, 0, 1, 2)  # (6, 6, rows, columns, inputs)
    points = (_both_ways(B_T) @ tiles.reshape(36, -1)).view(36, -1, inputs)
    y = _both_ways(A_T) @ (points @ filters).view(36, -1)
    y = y.view(4, 4, rows, columns, -1).permute(2, 0, 3, 1, 4).reshape(1, 4 * rows, 4 * columns, -1)
    return y[:, :height, :width].permute(0, 3, 1, 2)  # channels last in memory
