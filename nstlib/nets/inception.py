"""The Inception network of the Fréchet Inception Distance: the one of December 2015, and no other.

Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision" (Inception-v3), in
the TensorFlow graph of 2015-12-05 that Heusel et al. 2017 measured the FID with. Published FIDs (paper E,
Table 1) compare with nothing else: torchvision's Inception-v3 has other weights, and it differs in three
places of the graph. Here average pooling leaves the zero border out of its mean, the last block pools by
maximum, and the normalizations have no scale.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .official import check_layout, check_size, load_strict

SIDE = 299
"""Pixels a side of the pictures it takes."""

FEATURES = 2048
"""Features it gives for each picture."""

_EPSILON = 1e-3  # of the published normalizations
_PARTS = ("beta", "mean", "var")  # and the weight
_AVERAGE = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
# Of a convolution: channels out, then kernel, stride and padding where they are not 1, 1 and "keep the size".
_Layer = tuple[Any, ...]


class Conv(nn.Conv2d):
    """Convolution and ReLU; the published normalization is folded in, see :func:`from_official`.

    Padding keeps the size, unless ``padding`` is 0.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        same = (height // 2, width // 2) if padding is None else padding
        super().__init__(inputs, outputs, (height, width), stride, same)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H', W')."""
        return F.relu(super().forward(x), inplace=True)


def _tower(inputs: int, layers: Sequence[_Layer | nn.Module]) -> nn.Sequential:
    """Layers one after the other under the published names: ``pool``, ``conv``, ``conv_1`` ..."""
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in layers:
        if isinstance(layer, nn.Module):
            named["pool"] = layer
        else:
            number = sum(name.startswith("conv") for name in named)
            named[f"conv_{number}" if number else "conv"] = Conv(inputs, *layer)
            inputs = layer[0]
    return nn.Sequential(named)


class Block(nn.Module):
    """Branches side by side, each on the whole input; their outputs are stacked as channels.

    Args:
        inputs: channels in.
        conv: a single convolution as the first branch, or None.
        towers: layers one after the other, the branches behind it.
        pool: the last branch, or None.
    """

    def __init__(
        self,
        inputs: int,
        conv: _Layer | None,
        *towers: Sequence[_Layer | nn.Module],
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if conv is not None:
            self.conv = Conv(inputs, *conv)
        for number, layers in enumerate(towers):
            self.add_module(f"tower_{number}" if number else "tower", _tower(inputs, layers))
        if pool is not None:
            self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, sum of the branches' channels, H', W')."""
        return torch.cat([branch(x) for branch in self.children()], 1)


def block_a(inputs: int, pooled: int) -> Block:
    """The paper's Fig. 5, at 35 × 35: here one 5 × 5 stays, and two 3 × 3 take the other's place."""
    short, long = [(48,), (64, 5)], [(64,), (96, 3), (96, 3)]
    return Block(inputs, (64,), short, long, [_AVERAGE, (pooled,)])


def block_b() -> Block:
    """From 35 × 35 to 17 × 17 (the paper's Fig. 10)."""
    return Block(288, (384, 3, 2, 0), [(64,), (96, 3), (96, 3, 2, 0)], pool=nn.MaxPool2d(3, 2))


def block_c(middle: int) -> Block:
    """The paper's Fig. 6, at 17 × 17: 7 × 7 as 1 × 7 after 7 × 1."""
    row, column = (middle, (1, 7)), (middle, (7, 1))
    short = [(middle,), row, (192, (7, 1))]
    long = [(middle,), column, row, column, (192, (1, 7))]
    return Block(768, (192,), short, long, [_AVERAGE, (192,)])


def block_d() -> Block:
    """From 17 × 17 to 8 × 8."""
    short, halve = [(192,), (320, 3, 2, 0)], (192, 3, 2, 0)
    long = [(192,), (192, (1, 7)), (192, (7, 1)), halve]
    return Block(768, None, short, long, pool=nn.MaxPool2d(3, 2))


class BlockE(nn.Module):
    """The paper's Fig. 7, at 8 × 8: two branches fork into 1 × 3 and 3 × 1; ``pool`` is what differs."""

    def __init__(self, inputs: int, pool: nn.Module) -> None:
        super().__init__()
        row, column = (1, 3), (3, 1)
        self.conv = Conv(inputs, 320)
        self.tower_conv = Conv(inputs, 384)
        self.tower_mixed_conv = Conv(384, 384, row)
        self.tower_mixed_conv_1 = Conv(384, 384, column)
        self.tower_1_conv = Conv(inputs, 448)
        self.tower_1_conv_1 = Conv(448, 384, 3)
        self.tower_1_mixed_conv = Conv(384, 384, row)
        self.tower_1_mixed_conv_1 = Conv(384, 384, column)
        self.tower_2_pool = pool
        self.tower_2_conv = Conv(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, 8, 8) -> (N, 2048, 8, 8)."""
        a, b = self.tower_conv(x), self.tower_1_conv_1(self.tower_1_conv(x))
        branches = (
            self.conv(x),
            self.tower_mixed_conv(a),
            self.tower_mixed_conv_1(a),
            self.tower_1_mixed_conv(b),
            self.tower_1_mixed_conv_1(b),
            self.tower_2_conv(self.tower_2_pool(x)),
        )
        return torch.cat(branches, 1)


class FIDInception(nn.Sequential):
    """Pictures to 2048 features each: the layer before the classifier, averaged over its 8 × 8 places.

    Shape:
        input (N, 3, 299, 299), RGB, (255 · x - 128) / 128 of a picture x in [0, 1]; as in the
        graph, so that white is 127/128. How a picture is resized changes an FID too (Parmar et al. 2022), so
        it is left to the caller, who states it.
        output (N, 2048), float32, 0 or more.
    """

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                conv=Conv(3, 32, 3, 2, 0),
                conv_1=Conv(32, 32, 3, 1, 0),
                conv_2=Conv(32, 64, 3),
                pool0=nn.MaxPool2d(3, 2),
                conv_3=Conv(64, 80),
                conv_4=Conv(80, 192, 3, 1, 0),
                pool1=nn.MaxPool2d(3, 2),
                mixed=block_a(192, 32),
                mixed_1=block_a(256, 64),
                mixed_2=block_a(288, 64),
                mixed_3=block_b(),
                mixed_4=block_c(128),
                mixed_5=block_c(160),
                mixed_6=block_c(160),
                mixed_7=block_c(192),
                mixed_8=block_d(),
                mixed_9=BlockE(1280, _AVERAGE),
                mixed_10=BlockE(2048, nn.MaxPool2d(3, 1, 1)),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 299, 299) -> (N, 2048).

        Raises:
            SettingError: another shape.
        """
        check_size("FID's Inception", images, SIDE, "resize the pictures")
        return super().forward(images.contiguous(memory_format=torch.channels_last)).mean((2, 3))


def from_official(tensors: Mapping[str, Tensor]) -> FIDInception:
    """A frozen FIDInception with the published tensors, as ``assets.load_tensors("fid_inception")`` has them.

    Each published layer is a convolution without bias and a normalization without scale. The second is folded
    into the first (weight / deviation, bias beta - mean / deviation), which is the same function in half the
    memory traffic: this network is never trained.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        own = FIDInception().state_dict()
    names = [key.removesuffix(".bias") for key in own if key.endswith(".bias")]
    published, folded = {}, {}
    for name in names:
        published[f"{name}.weight"] = own[f"{name}.weight"]
        published |= {f"{name}.{part}": own[f"{name}.bias"] for part in _PARTS}
    check_layout("the FID Inception", published, tensors)
    for name in names:
        weight, beta, mean, var = (tensors[f"{name}.{part}"].double() for part in ("weight", *_PARTS))
        scale = (var + _EPSILON).rsqrt()
        folded[f"{name}.weight"] = (weight * scale[:, None, None, None]).float()
        folded[f"{name}.bias"] = (beta - mean * scale).float()
    net = load_strict("the FID Inception", FIDInception, folded)
    return net.to(memory_format=torch.channels_last)
