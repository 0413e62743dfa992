"""U²-Net: a U of stages, each of which is a U itself (Qin et al. 2020), in the published layout.

:class:`NestedU` is the U of stages: what U²-Net reads saliency from, and what paper E's two encoders are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .official import load_strict

Norm = Callable[[int], nn.Module]  # channels -> a layer that keeps the shape
Widths = Sequence[tuple[int, int]]  # channels inside and at the end of each stage


class ConvBlock(nn.Module):
    """A 3 × 3 convolution, a normalization, a ReLU: (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalize, cut off."""
        x = self.conv_s1(x)
        return F.relu(self.bn_s1(x).to(x.dtype))  # autocast's normalizations give float32: twice the memory


class RSU(nn.Module):
    """A residual U-block: a first convolution, and what a small U-Net adds to its result.

    Args:
        height: levels of the U. All but the last two pool by 2, the last one is dilated instead.
        inputs: channels in.
        middle: channels inside.
        outputs: channels out.
        dilated: dilate by 1, 2, 4 ... on the way down and never pool ("RSU-4F"): for maps that are small.
        norm: the normalization of all its convolutions.

    Shape:
        (N, inputs, H, W), any size -> (N, outputs, H, W).

    Source: Qin et al. 2020, section 3.1.
    """

    def __init__(
        self, height: int, inputs: int, middle: int, outputs: int, dilated: bool = False,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:  # fmt: skip
        super().__init__()
        self.height, self.dilated = height, dilated
        self.rebnconvin = ConvBlock(inputs, outputs, norm=norm)
        for n in range(1, height + 1):
            dilation = 2 ** (n - 1) if dilated else 2 if n == height else 1
            self.add_module(f"rebnconv{n}", ConvBlock(outputs if n == 1 else middle, middle, dilation, norm))
        for n in range(1, height):
            dilation = 2 ** (n - 1) if dilated else 1
            block = ConvBlock(2 * middle, outputs if n == 1 else middle, dilation, norm)
            self.add_module(f"rebnconv{n}d", block)

    def forward(self, x: Tensor) -> Tensor:
        """Down, up, and the residual."""
        entry = x = self.rebnconvin(x)
        found: list[Tensor] = []
        for n in range(1, self.height + 1):
            pooled = 1 < n < self.height and not self.dilated
            x = self.get_submodule(f"rebnconv{n}")(halved(x) if pooled else x)
            found.append(x)
        for n in range(self.height - 1, 0, -1):
            x = self.get_submodule(f"rebnconv{n}d")(torch.cat([sized(x, found[n - 1]), found[n - 1]], 1))
        return x + entry


class NestedU(nn.Module):
    """Stages of RSUs: down through ``stage1`` ... ``stageN``, each at half the size, up to ``stage1d``.

    The last two stages of the way down, and the first of the way up, are dilated.

    Args:
        heights: of the stages' RSUs, from the first; the way up has those of the way down.
        down: widths of the N stages of the way down.
        up: widths of the N - 1 stages of the way up, from stage 1.
        norm: normalization of all convolutions.

    Attributes:
        checkpointing: compute each stage again in the backward pass, instead of keeping what is in it.

    Shape:
        (N, 3, H, W), any size -> N maps: stage n of the way up at 1/2^(n-1) of the size, and the deepest one.

    Source: Qin et al. 2020, section 3.2; paper E (6) and (7), where they are F_1 ... F_4 and f_5.
    """

    def __init__(self, heights: Sequence[int], down: Widths, up: Widths, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stages, self.checkpointing = len(heights), False
        for n, (height, (middle, outputs)) in enumerate(zip(heights, down, strict=True), start=1):
            inputs = 3 if n == 1 else down[n - 2][1]
            self.add_module(f"stage{n}", RSU(height, inputs, middle, outputs, n >= self.stages - 1, norm))
        below = [*up[1:], down[-1]]
        for n, (height, (middle, outputs)) in enumerate(zip(heights, up, strict=False), start=1):
            inputs = below[n - 1][1] + down[n - 1][1]
            self.add_module(f"stage{n}d", RSU(height, inputs, middle, outputs, n == self.stages - 1, norm))

    def forward(self, images: Tensor) -> list[Tensor]:
        """What each stage of the way up gives, from the first; the deepest of the way down is the last."""
        down: list[Tensor] = []
        for n in range(1, self.stages + 1):
            down.append(self._stage(f"stage{n}", halved(down[-1]) if down else images))
        found = down[-1:]
        for n in range(self.stages - 1, 0, -1):
            joined = torch.cat([sized(found[0], down[n - 1]), down[n - 1]], 1)
            found.insert(0, self._stage(f"stage{n}d", joined))
        return found

    def _stage(self, name: str, x: Tensor) -> Tensor:
        stage = self.get_submodule(name)
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, x, use_reentrant=False)
        return stage(x)


class U2Net(NestedU):
    """U²-Net, or U²-Netp, which has the same stages with 16 and 64 channels all through.

    Shape:
        (N, 3, H, W), as torchvision normalizes -> seven maps (N, 1, H, W) in [0, 1] of what stands out: the
        fused one, then one of each stage.
    """

    def __init__(self, down: Widths, up: Widths) -> None:
        super().__init__((7, 6, 5, 4, 4, 4), down, up)
        for n, (_, channels) in enumerate([*up, down[-1]], start=1):
            self.add_module(f"side{n}", nn.Conv2d(channels, 1, 3, padding=1))
        self.outconv = nn.Conv2d(self.stages, 1, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Saliency, fused and of each stage."""
        sides = [self.get_submodule(f"side{n}")(x) for n, x in enumerate(super().forward(images), start=1)]
        sides = [sized(side, sides[0]) for side in sides]
        return [torch.sigmoid(x) for x in (self.outconv(torch.cat(sides, 1)), *sides)]


def halved(x: Tensor) -> Tensor:
    """(N, C, H, W) -> half the size, rounded up, by the maximum."""
    return F.max_pool2d(x, 2, ceil_mode=True)


def sized(x: Tensor, like: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, H, W) of another tensor's H and W, bilinear."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


# ---------------------------------------------------------------------------- published weights


def _widths(state_dict: Mapping[str, Tensor], stage: str) -> tuple[int, int]:
    parts = (state_dict[f"{stage}{part}.conv_s1.weight"] for part in ("rebnconv1", "rebnconvin"))
    middle, outputs = (len(part) for part in parts)
    return middle, outputs


def from_official(state_dict: Mapping[str, Tensor]) -> U2Net:
    """A frozen U²-Net or U²-Netp with the published weights.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """

    def make() -> U2Net:
        down = [_widths(state_dict, f"stage{n}.") for n in range(1, 7)]
        return U2Net(down, [_widths(state_dict, f"stage{n}d.") for n in range(1, 6)])

    return load_strict("U²-Net", make, state_dict)


def rsu_from_official(state_dict: Mapping[str, Tensor], dilated: bool = False) -> RSU:
    """A frozen residual U-block with published weights; height and channels are read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """

    def make() -> RSU:
        height = sum(key.endswith(".conv_s1.bias") for key in state_dict) // 2
        inputs = state_dict["rebnconvin.conv_s1.weight"].shape[1]
        return RSU(height, inputs, *_widths(state_dict, ""), dilated)

    return load_strict("a residual U-block", make, state_dict)


def rsu4f_from_official(state_dict: Mapping[str, Tensor]) -> RSU:
    """As :func:`rsu_from_official`, the dilated block, whose weights have the same names."""
    return rsu_from_official(state_dict, dilated=True)
