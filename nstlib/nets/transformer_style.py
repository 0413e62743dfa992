"""The transformers of StyTr2 and Puff-Net, and Puff-Net's extractors of pure content and pure style.

Sources: Deng et al. 2022, "StyTr2: Image Style Transfer with Transformers"; Zheng et al. 2024, "Puff-Net:
Efficient Style Transfer with Pure Content and Style Feature Fusion Network". Names of parameters and what
the papers leave open are those of the authors' released programs. Those take square pictures of one size;
here content and style may have any sizes, each a multiple of 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adain import Decoder
from .official import blocks, load_strict

PATCH = 8
"""Pixels a side of a patch, of which the transformer gets one vector each."""

HEADS = 8  # of each attention, as published
GRID = 18  # places a side to which CAPE reduces the content: StyTr2, section 3.1
CHANNELS = 64  # of the extractors, as published


# ---------------------------------------------------------------------------- transformers


class PatchEmbedding(nn.Module):
    """A vector for each patch: (N, 3, 8 H, 8 W) -> (N, width, H, W)."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """A linear projection of the patch's pixels."""
        return self.proj(images)


class Layer(nn.Module):
    """Attentions, then two linear layers on each place; each is added to its input, and the sum normalized.

    Args:
        width: numbers of a vector.
        hidden: between the linear layers.
        attentions: 1, or 2 in StyTr2's decoder, whose first one the published files call ``self_attn``,
            though it looks at the style as well.
        dropout: part of the numbers that are left out in training.
    """

    def __init__(self, width: int, hidden: int, attentions: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.names = ("self_attn", "multihead_attn")[:attentions]
        for name in self.names:
            self.add_module(name, nn.MultiheadAttention(width, HEADS, dropout, batch_first=True))
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for number in range(1, attentions + 2):
            self.add_module(f"norm{number}", nn.LayerNorm(width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, queries: Tensor | None, position: Tensor | None, memory: Tensor) -> Tensor:
        """What each place of x finds in the memory, added to it.

        Args:
            x: (N, M, width).
            queries: (N, M, width), what is compared with the memory; None: x itself.
            position: (N, M, width), added to the queries; if the memory is x, to its keys as well.
            memory: (N, M', width).
        """
        own = memory is x  # self-attention
        added: Any = 0 if position is None else position
        for number, name in enumerate(self.names, 1):
            asked = (x if queries is None else queries) + added
            keys = asked if own else memory
            found = self.get_submodule(name)(asked, keys, memory, need_weights=False)[0]
            x = self.get_submodule(f"norm{number}")(x + self.dropout(found))
        found = self.linear2(self.dropout(F.relu(self.linear1(x))))
        return self.get_submodule(f"norm{len(self.names) + 1}")(x + self.dropout(found))


class Stack(nn.Module):
    """Layers, one after the other.

    Args:
        count: how many.
        layer: arguments of :class:`Layer`.
        norm: normalize once more at the end.
    """

    def __init__(self, count: int, *layer: Any, norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(*layer) for _ in range(count))
        self.norm = nn.LayerNorm(layer[0]) if norm else None
        for weight in self.parameters():  # the published beginning
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(
        self, x: Tensor, position: Tensor | None, memory: Tensor | None = None, queries: Tensor | None = None
    ) -> Tensor:
        """Vectors (N, M, width); without a memory each layer looks at what the last one gave."""
        for layer in self.layers:
            x = layer(x, queries, position, x if memory is None else memory)
        return x if self.norm is None else self.norm(x)


class Transformer(nn.Module):
    """StyTr2's: an encoder for the content, one for the style, and a decoder that looks up in the style.

    Args:
        width: numbers of a vector, a multiple of 8.
        layers: of each encoder and of the decoder.
        hidden: between the linear layers; None: four times the width, as published.
        dropout: see :class:`Layer`.

    Shape:
        content (N, width, H, W) and style (N, width, H', W') -> (N, width, H, W).
    """

    def __init__(
        self, width: int = 512, layers: int = 3, hidden: int | None = None, dropout: float = 0.1
    ) -> None:
        super().__init__()
        hidden = hidden or 4 * width
        self.encoder_c = Stack(layers, width, hidden, 1, dropout)
        self.encoder_s = Stack(layers, width, hidden, 1, dropout)
        self.decoder = Stack(layers, width, hidden, 2, dropout, norm=True)
        self.new_ps = nn.Conv2d(width, width, 1)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """StyTr2's equations (1) to (6)."""
        position = _columns(content_aware_position(self.new_ps, content))
        encoded = self.encoder_c(_columns(content), position)
        memory = self.encoder_s(_columns(style), None)
        return _places(self.decoder(encoded, position, memory), content)


class FusionTransformer(nn.Module):
    """Puff-Net's: encoder layers alone. Each asks anew for the content and looks up in the style.

    Args:
        width: see :class:`Transformer`; the shapes are its.
        layers: how many.
        hidden: see :class:`Transformer`.
        dropout: see :class:`Layer`.
        positional: add the position to the content. The paper does; the released program passes it one
            argument too far to the left, and computes without it.
    """

    def __init__(
        self, width: int = 512, layers: int = 3, hidden: int | None = None, dropout: float = 0.1,
        positional: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.positional = positional
        self.encoder = Stack(layers, width, hidden or 4 * width, 1, dropout)
        self.new_ps = nn.Conv2d(width, width, 1)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """It begins with the content; queries are always the content's, keys and values the style's."""
        asked = _columns(content)
        position = _columns(content_aware_position(self.new_ps, content)) if self.positional else None
        return _places(self.encoder(asked, position, _columns(style), asked), content)


def content_aware_position(project: nn.Module, content: Tensor) -> Tensor:
    """CAPE, StyTr2's equations (4) and (5): where a patch lies, told by what lies around it.

    The content is averaged to 18 × 18 places whatever its size, projected, and enlarged again, so that a
    picture of twice the size has the same positions.

    Args:
        project: of width numbers at each place.
        content: (N, width, H, W).

    Returns:
        (N, width, H, W).
    """
    found = project(F.adaptive_avg_pool2d(content, GRID))
    return F.interpolate(found, content.shape[-2:], mode="bilinear")


def _columns(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H W, C)."""
    return x.flatten(2).mT


def _places(x: Tensor, like: Tensor) -> Tensor:
    """(N, H W, C) -> (N, C, H, W)."""
    return x.mT.unflatten(2, like.shape[-2:])


class StyleTransformer(nn.Module):
    """Patches, a transformer, and a decoder back to pixels.

    Args:
        transformer: a :class:`Transformer`, or Puff-Net's.
        width: its width.

    Shape:
        contents (N, 3, H, W) and styles (N, 3, H', W'), RGB in [0, 1], all sides multiples of 8 and at least
        16 -> (N, 3, H, W), about [0, 1] (not clamped).
    """

    def __init__(self, transformer: nn.Module, width: int = 512) -> None:
        super().__init__()
        self.embedding, self.transformer = PatchEmbedding(width), transformer
        self.decoder = Decoder(width)

    def forward(self, contents: Tensor, styles: Tensor) -> Tensor:
        """The contents in the styles."""
        return self.decoder(self.transformer(self.embedding(contents), self.embedding(styles)))


# ---------------------------------------------------------------------------- Puff-Net's extractors


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
        self.shffleconv = nn.Conv2d(CHANNELS, CHANNELS, 1)  # so spelled in the published layout

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
        self.pre, self.post = _entry(), _exit(nn.BatchNorm2d(3))
        self.net = nn.Sequential(*(_Coupling() for _ in range(3)))

    def forward(self, images: Tensor) -> Tensor:
        """Three invertible steps between two maps that are not."""
        return self.post(self.net(self.pre(images)))


class _Norm(nn.Module):
    """Layer normalization of the channels at each place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.movedim(1, 3)).movedim(3, 1)


class _ChannelAttention(nn.Module):
    """Channels look at channels, all places being one long vector (Restormer, Zamir et al. 2022)."""

    def __init__(self, channels: int, heads: int = HEADS // 2) -> None:
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

    def __init__(self, heads: int = HEADS // 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, 1, 3)))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = self.weight.repeat(channels // len(self.weight), 1, 1)
        return F.conv1d(x.flatten(2), weight, padding=1, groups=channels).view_as(x)


class _LightConvolution(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = _RasterConvolution(), _Norm(2 * channels)
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
        self.pre, self.post = _entry(), _exit()
        self.norm1, self.norm2 = _Norm(CHANNELS), _Norm(CHANNELS)
        self.attn, self.conv = _ChannelAttention(CHANNELS // 2), _LightConvolution(CHANNELS // 2)
        self.mlp = _GatedMlp(CHANNELS)

    def forward(self, images: Tensor) -> Tensor:
        """Far and near beside each other, then the gated layers; the residual is that of both."""
        x = self.norm1(self.pre(images))
        far, near = x.chunk(2, 1)
        both = torch.cat([far + self.attn(far), near + self.conv(near)], 1)
        return self.post(x + self.mlp(self.norm2(both)))


# ---------------------------------------------------------------------------- published weights


def embedding_from_official(state_dict: Mapping[str, Tensor]) -> PatchEmbedding:
    """A frozen embedding with published weights; the width is read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape; also below.
    """
    return load_strict(
        "an embedding of StyTr2", lambda: PatchEmbedding(len(state_dict["proj.weight"])), state_dict
    )


def transformer_from_official(state_dict: Mapping[str, Tensor]) -> Transformer:
    """StyTr2's frozen transformer; its sizes are read from the weights."""
    return load_strict(
        "StyTr2's transformer", lambda: Transformer(*_sizes(state_dict, "encoder_c")), state_dict
    )


def fusion_from_official(state_dict: Mapping[str, Tensor]) -> FusionTransformer:
    """Puff-Net's frozen transformer, with the position of the paper; its sizes are read from the weights."""
    return load_strict(
        "Puff-Net's transformer", lambda: FusionTransformer(*_sizes(state_dict, "encoder")), state_dict
    )


def content_extractor_from_official(state_dict: Mapping[str, Tensor]) -> ContentExtractor:
    """Puff-Net's frozen extractor of content."""
    return load_strict("Puff-Net's content extractor", ContentExtractor, state_dict)


def style_extractor_from_official(state_dict: Mapping[str, Tensor]) -> StyleExtractor:
    """Puff-Net's frozen extractor of style."""
    return load_strict("Puff-Net's style extractor", StyleExtractor, state_dict)


def _sizes(state_dict: Mapping[str, Tensor], stack: str) -> tuple[int, int, int]:
    """Width, layers, and what is between the linear layers."""
    hidden, width = state_dict[f"{stack}.layers.0.linear1.weight"].shape
    return width, blocks(state_dict, f"{stack}.layers."), hidden
