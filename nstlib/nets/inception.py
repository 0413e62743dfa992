"""The Inception network of the Fréchet Inception Distance: the one of December 2015, and no other.

Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision" (Inception-v3), in
the TensorFlow graph of 2015-12-05 that Heusel et al. 2017 measured the FID with. Published FIDs (paper E,
Table 1) compare with nothing else: torchvision's Inception-v3 has other weights, and it differs in three
places of the graph. Here average pooling leaves the zero border out of its mean, the last block pools by
maximum, and the normalizations have no scale. The blocks are torchvision's, with these differences put in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception

from .official import check_layout, check_size, load_strict

SIDE = 299
"""Pixels a side of the pictures it takes."""

FEATURES = 2048
"""Features it gives for each picture."""

_EPSILON = 1e-3  # of the published normalizations
_PARTS = ("beta", "mean", "var")  # and the weight
_AVERAGE = nn.AvgPool2d(3, 1, 1, count_include_pad=False)


class Conv(nn.Conv2d):
    """Convolution and ReLU; the published normalization is folded in, see :func:`from_official`."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H', W')."""
        return F.relu(super().forward(x), inplace=True)


class Pooling(nn.Module):
    """One of torchvision's blocks whose last branch pools in another way.

    Args:
        block: A, C or E.
        pool: keeps the size; the branch's 1 × 1 convolution follows it.
    """

    def __init__(self, block: Any, pool: nn.Module = _AVERAGE) -> None:
        super().__init__()
        self.block, self.last = block, nn.Sequential(pool, block.branch_pool)
        block.branch_pool = nn.Identity()  # what the block's own pooling gives is left out

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, sum of the branches' channels, H, W)."""
        return torch.cat([*self.block._forward(x)[:-1], self.last(x)], 1)


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
                conv=Conv(3, 32, 3, 2),
                conv_1=Conv(32, 32, 3),
                conv_2=Conv(32, 64, 3, padding=1),
                pool0=nn.MaxPool2d(3, 2),
                conv_3=Conv(64, 80, 1),
                conv_4=Conv(80, 192, 3),
                pool1=nn.MaxPool2d(3, 2),
                mixed=Pooling(inception.InceptionA(192, 32, Conv)),
                mixed_1=Pooling(inception.InceptionA(256, 64, Conv)),
                mixed_2=Pooling(inception.InceptionA(288, 64, Conv)),
                mixed_3=inception.InceptionB(288, Conv),
                mixed_4=Pooling(inception.InceptionC(768, 128, Conv)),
                mixed_5=Pooling(inception.InceptionC(768, 160, Conv)),
                mixed_6=Pooling(inception.InceptionC(768, 160, Conv)),
                mixed_7=Pooling(inception.InceptionC(768, 192, Conv)),
                mixed_8=inception.InceptionD(768, Conv),
                mixed_9=Pooling(inception.InceptionE(1280, Conv)),
                mixed_10=Pooling(inception.InceptionE(2048, Conv), nn.MaxPool2d(3, 1, 1)),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 299, 299) -> (N, 2048).

        Raises:
            SettingError: another shape.
        """
        check_size("FID's Inception", images, SIDE, "resize the pictures")
        return super().forward(images.contiguous(memory_format=torch.channels_last)).mean((2, 3))


# Convolutions of each branch in the published graph, under "", "tower.", "tower_1." and "tower_2.".
_A, _B, _C, _D = (1, 2, 3, 1), (1, 3), (1, 3, 5, 1), (0, 2, 4)
_BRANCHES = {
    "mixed": _A, "mixed_1": _A, "mixed_2": _A, "mixed_3": _B,
    "mixed_4": _C, "mixed_5": _C, "mixed_6": _C, "mixed_7": _C, "mixed_8": _D,
}  # fmt: skip
_FORKS = (
    "conv", "tower_conv", "tower_mixed_conv", "tower_mixed_conv_1", "tower_1_conv", "tower_1_conv_1",
    "tower_1_mixed_conv", "tower_1_mixed_conv_1", "tower_2_conv",
)  # fmt: skip


def published_names() -> list[str]:
    """The convolutions' names in the published graph, in the order of this network's own."""

    def numbered(prefix: str, count: int) -> list[str]:
        return [f"{prefix}conv_{number}" if number else f"{prefix}conv" for number in range(count)]

    names = numbered("", 5)
    for block, counts in _BRANCHES.items():
        for tower, count in zip(("", "tower.", "tower_1.", "tower_2."), counts, strict=False):
            names += numbered(f"{block}.{tower}", count)
    return names + [f"{block}.{fork}" for block in ("mixed_9", "mixed_10") for fork in _FORKS]


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
    layers = [key.removesuffix(".bias") for key in own if key.endswith(".bias")]
    names = dict(zip(layers, published_names(), strict=True))
    published, folded = {}, {}
    for layer, name in names.items():
        published[f"{name}.weight"] = own[f"{layer}.weight"]
        published |= {f"{name}.{part}": own[f"{layer}.bias"] for part in _PARTS}
    check_layout("the FID Inception", published, tensors)
    for layer, name in names.items():
        weight, beta, mean, var = (tensors[f"{name}.{part}"].double() for part in ("weight", *_PARTS))
        scale = (var + _EPSILON).rsqrt()
        folded[f"{layer}.weight"] = (weight * scale[:, None, None, None]).float()
        folded[f"{layer}.bias"] = (beta - mean * scale).float()
    net = load_strict("the FID Inception", FIDInception, folded)
    return net.to(memory_format=torch.channels_last)
