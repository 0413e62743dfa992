"""Puff-Net's extractors of pure content and pure style.

Source: Zheng et al. 2024, "Puff-Net: Efficient Style Transfer with Pure Content and Style Feature Fusion
Network". Names of parameters and what the paper leaves open are those of the authors' released program.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from .official import load_strict

CHANNELS = 64  # as published
HEADS = 4  # of the attention and of the convolution along rows, as published


def _entry() -> nn.Sequential:
    """(N, 3, H, W) -> (N, 64, H, W)."""
    half = CHANNELS // 2
    return nn.Sequential(
        nn.Conv2d(3, half, 1), nn.ReLU(), nn.Conv2d(half, CHANNELS, 1),
        nn.ReflectionPad2d(1), nn.Conv2d(CHANNELS, CHANNELS, 3), nn.ReLU(),
    )  # fmt: skip


def _exit(*last: nn.Module) -> nn.Sequential:
    """(N, 64, H, W) -> (N, 3, H, W)."""
    half = CHANNELS // 2
    return nn.Sequential(
        nn.Conv2d(CHANNELS, half, 1), nn.ReLU(), nn.Conv2d(half, 3, 1),
        nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3), nn.ReLU(), *last,
    )  # fmt: skip


@torch.no_grad()
def _passing(layer: nn.Module) -> nn.Module:
    """A layer whose convolutions begin near the identity: ours.

    As released, weights begin at random and small. Of six random beginnings five had a color that ended
    behind the last ReLU as 0 for every picture, which no gradient brings back.
    """
    for part in layer.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.mul_(0.1).add_(nn.init.dirac_(torch.empty_like(part.weight)))
    return layer


class _Residual(nn.Module):
    """MobileNetV2's inverted residual block, without the residual: twice as many channels in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        parts = [
            (nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            (nn.ReflectionPad2d(1), nn.Conv2d(wide, wide, 3, groups=wide, bias=False), nn.BatchNorm2d(wide)),
            (nn.ReLU6(), nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU6()),
        ]
        self.bottleneckBlock = nn.Sequential(*chain(*parts))

    def forward(self, x: Tensor) -> Tensor:
        return self.bottleneckBlock(x)


class _Coupling(nn.Module):
    """A step that could be undone: each half of the channels changes the other one (Dinh et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        half = CHANNELS // 2
        self.theta_phi, self.theta_rho, self.theta_eta = (_Residual(half) for _ in range(3))
        self.shffleconv = _passing(nn.Conv2d(CHANNELS, CHANNELS, 1))  # so spelled in the published layout

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.shffleconv(x).chunk(2, 1)
        second = second + self.theta_phi(first)
        first = first * self.theta_rho(second).exp() + self.theta_eta(second)
        return torch.cat([first, second], 1)


class ContentExtractor(nn.Module):
    """What is left of a picture without its style; the published layout calls it "detail".

    Shape:
        (N, 3, H, W), RGB in [0, 1] -> (N, 3, H, W): a picture for the transformer, not for the eye; its
        values are normalized over the batch, not in [0, 1].
    """

    def __init__(self) -> None:
        super().__init__()
        self.pre, self.post = _passing(_entry()), _passing(_exit(nn.BatchNorm2d(3)))
        self.net = nn.Sequential(*(_Coupling() for _ in range(3)))

    def forward(self, images: Tensor) -> Tensor:
        """Three invertible steps between two maps that are not."""
        return self.post(self.net(self.pre(images)))


def _norm(channels: int) -> nn.Module:
    """Layer normalization of the channels at each place."""
    return nn.Sequential(OrderedDict(body=LayerNorm2d(channels)))


class _ChannelAttention(nn.Module):
    """Channels look at channels, all places being one long vector (Restormer, Zamir et al. 2022)."""

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv1 = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv2 = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, bias=False)
        self.proj = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv2(self.qkv1(x)).flatten(2).unflatten(1, (3, len(self.scale), -1))
        queries, keys, values = parts.unbind(1)  # (N, heads, channels of a head, H W)
        queries, keys = F.normalize(queries, dim=3) * self.scale, F.normalize(keys, dim=3)
        found = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
        return self.proj(found.flatten(1, 2).view_as(x))


class _RasterConvolution(nn.Module):
    """Each place mixed with the one before and the one behind it in its row; rows follow one another.

    A filter serves every fourth channel ("lightweight convolution", Wu et al. 2019).
    """

    def __init__(self, heads: int = HEADS) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, 1, 3)))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = self.weight.repeat(channels // len(self.weight), 1, 1)
        return F.conv1d(x.flatten(2), weight, padding=1, groups=channels).view_as(x)


class _LightConvolution(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = _RasterConvolution(), _norm(2 * channels)
        self.project1 = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.project2 = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.project2(self.norm(self.project1(self.conv(x))))


class _GatedMlp(nn.Module):
    """Half of the channels decides how much of the other half passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.project_in = nn.Conv2d(channels, wide, 1, bias=False)
        self.dwconv = nn.Conv2d(wide, wide, 3, padding=1, groups=channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, passed = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(gate) * passed)


class StyleExtractor(nn.Module):
    """What is left of a picture without its content; the published layout calls it "base".

    Attention for what is far (half of the channels), a convolution for what is near (the other half), as in
    the Lite Transformer (Wu et al. 2020).

    Shape:
        (N, 3, H, W), RGB in [0, 1] -> (N, 3, H, W), not negative: a picture for the transformer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pre, self.post = _passing(_entry()), _passing(_exit())
        self.norm1, self.norm2 = _norm(CHANNELS), _norm(CHANNELS)
        self.attn, self.conv = _ChannelAttention(CHANNELS // 2), _LightConvolution(CHANNELS // 2)
        self.mlp = _GatedMlp(CHANNELS)

    def forward(self, images: Tensor) -> Tensor:
        """Far and near beside each other, then the gated layers; the residual is that of both."""
        x = self.norm1(self.pre(images))
        far, near = x.chunk(2, 1)
        both = torch.cat([far + self.attn(far), near + self.conv(near)], 1)
        return self.post(x + self.mlp(self.norm2(both)))


def content_extractor_from_official(state_dict: Mapping[str, Tensor]) -> ContentExtractor:
    """Puff-Net's frozen extractor of content.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape; also below.
    """
    return load_strict("Puff-Net's content extractor", ContentExtractor, state_dict)


def style_extractor_from_official(state_dict: Mapping[str, Tensor]) -> StyleExtractor:
    """Puff-Net's frozen extractor of style."""
    return load_strict("Puff-Net's style extractor", StyleExtractor, state_dict)
