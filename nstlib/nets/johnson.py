"""The image transformation network of Johnson, Alahi and Fei-Fei 2016: one forward pass, one style.

Sources: "Perceptual Losses for Real-Time Style Transfer and Super-Resolution" and its supplement, Table 1
(the layers); Ulyanov et al. 2016, "Instance Normalization" (instead of the paper's batch normalization). The
layout is that of the weights published with PyTorch's example. It differs from the supplement in padding by
reflection, and in enlarging with nearest neighbors instead of a transposed convolution.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .official import blocks, load_strict

STRIDE = 4
"""Factor by which a side is reduced before the residual blocks: sides come out as multiples of it."""


class ConvLayer(nn.Module):
    """Reflection padding, then a convolution: with zeros instead, every picture would get a frame."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride))."""
        return self.conv2d(F.pad(x, (self.padding,) * 4, mode="reflect"))


class UpsampleConvLayer(nn.Module):
    """Twice the size by nearest neighbors, reflection padding, 3 × 3 convolution: no checkerboard, unlike a
    transposed convolution (Odena et al. 2016).

    In the enlarged picture each row stands twice, so a 3 × 3 kernel covers only two different rows: one of
    its weights meets one of them, two meet the other. Adding those two first gives the same numbers with
    2 × 2 kernels on the small picture, one for each of a pixel's four places: 16 products instead of 36.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, 2 H, 2 W)."""
        (height, width), bias = x.shape[-2:], self.conv2d.bias
        # Reflecting the enlarged picture at its border repeats the small one's last pixel.
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        four = F.conv2d(padded, self._four_kernels(), None if bias is None else bias.repeat(4))
        places = [
            part[..., down : down + height, right : right + width]
            for part, (down, right) in zip(four.chunk(4, 1), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True)
        ]
        # (N, outputs, 2, 2, H, W): the place within the pixel, then the pixel.
        stacked = torch.stack(places, 2)
        return F.pixel_shuffle(stacked.flatten(1, 2), 2)

    def _four_kernels(self) -> Tensor:
        """(4 outputs, inputs, 2, 2): for the places above left, above right, below left, below right."""
        weight = self.conv2d.weight

        def folded(w: Tensor, dim: int) -> tuple[Tensor, Tensor]:
            first, middle, last = w.unbind(dim)
            return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)

        return torch.cat([kernel for rows in folded(weight, 2) for kernel in folded(rows, 3)])


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions, added to the input; no ReLU after the sum (Gross and Wilber 2016)."""

    def __init__(self, channels: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, 3)
        self.in1 = norm(channels, affine=True)
        self.conv2 = ConvLayer(channels, channels, 3)
        self.in2 = norm(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        return x + self.in2(self.conv2(F.relu(self.in1(self.conv1(x)))))


class TransformNet(nn.Module):
    """Pictures to pictures in the style that the network was trained for.

    Args:
        width: channels of the first layer; twice as many, then four times, in the middle. 32 as published.
        blocks: residual blocks in the middle: 5 as published.
        normalization: "instance" as published, or "batch" as in the paper (notebook 04 compares them).

    Shape:
        (N, 3, H, W), RGB in [0, 255], H and W of at least 16 -> (N, 3, H', W'), about [0, 255] (not clamped),
        where H' and W' are H and W rounded up to multiples of 4.
    """

    def __init__(self, width: int = 32, blocks: int = 5, normalization: str = "instance") -> None:
        super().__init__()
        norm = nn.InstanceNorm2d if normalization == "instance" else nn.BatchNorm2d
        self.width, self.blocks, self.normalization = width, blocks, normalization
        self.conv1, self.in1 = ConvLayer(3, width, 9), norm(width, affine=True)
        self.conv2, self.in2 = ConvLayer(width, 2 * width, 3, 2), norm(2 * width, affine=True)
        self.conv3, self.in3 = ConvLayer(2 * width, 4 * width, 3, 2), norm(4 * width, affine=True)
        for index in range(1, blocks + 1):
            self.add_module(f"res{index}", ResidualBlock(4 * width, norm))
        self.deconv1, self.in4 = UpsampleConvLayer(4 * width, 2 * width), norm(2 * width, affine=True)
        self.deconv2, self.in5 = UpsampleConvLayer(2 * width, width), norm(width, affine=True)
        self.deconv3 = ConvLayer(width, 3, 9)

    def forward(self, images: Tensor) -> Tensor:
        """Down twice, through the residual blocks, up twice."""
        x = F.relu(self.in1(self.conv1(images)))
        x = F.relu(self.in2(self.conv2(x)))
        x = F.relu(self.in3(self.conv3(x)))
        for index in range(1, self.blocks + 1):
            x = self.get_submodule(f"res{index}")(x)
        x = F.relu(self.in4(self.deconv1(x)))
        x = F.relu(self.in5(self.deconv2(x)))
        return self.deconv3(x)


def from_official(state_dict: Mapping[str, Tensor]) -> TransformNet:
    """A frozen network with published weights; its width and number of blocks are read from them.

    The files of 2017 also hold running means and variances, which instance normalization does not use; they
    are left out. Weights of a network with batch normalization need theirs.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    own = {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}
    # Only batch normalization counts its batches.
    batch = any(key.endswith("num_batches_tracked") for key in own)
    if not batch:
        own = {key: t for key, t in own.items() if not key.endswith((".running_mean", ".running_var"))}
    number, normalization = max(blocks(own, "res") - 1, 0), "batch" if batch else "instance"
    return load_strict(
        "a transformation network of Johnson et al. in the layout of PyTorch's fast_neural_style example",
        lambda: TransformNet(len(own["conv1.conv2d.weight"]), number, normalization),
        own,
    )
