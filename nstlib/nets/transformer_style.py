"""The transformers of StyTr2 and Puff-Net, and what turns pictures into their vectors and back.

Sources: Deng et al. 2022, "StyTr2: Image Style Transfer with Transformers"; Zheng et al. 2024, "Puff-Net:
Efficient Style Transfer with Pure Content and Style Feature Fusion Network". Names of parameters and what
the papers leave open are those of the authors' released programs. Those take square pictures of one size;
here content and style may have any sizes, each a multiple of 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .adain import Decoder
from .official import blocks, load_strict

PATCH = 8
"""Pixels a side of a patch, of which the transformer gets one vector each."""

HEADS = 8  # of each attention, as published
GRID = 18  # places a side to which CAPE reduces the content: StyTr2, section 3.1


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
        width: numbers of a vector; four times as many between the linear layers.
        attentions: 1, or 2 in StyTr2's decoder, whose first one the published files call ``self_attn``,
            though it looks at the style as well.
        dropout: part of the numbers that are left out in training.
    """

    def __init__(self, width: int, attentions: int, dropout: float) -> None:
        super().__init__()
        self.names = ("self_attn", "multihead_attn")[:attentions]
        for name in self.names:
            self.add_module(name, nn.MultiheadAttention(width, HEADS, dropout, batch_first=True))
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
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
        dropout: see :class:`Layer`.

    Shape:
        content (N, width, H, W) and style (N, width, H', W') -> (N, width, H, W).
    """

    def __init__(self, width: int = 512, layers: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder_c, self.encoder_s = (Stack(layers, width, 1, dropout) for _ in range(2))
        self.decoder = Stack(layers, width, 2, dropout, norm=True)
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
        dropout: see :class:`Layer`.
        positional: add the position to the content. The paper does; the released program passes it one
            argument too far to the left, and computes without it.
    """

    def __init__(
        self, width: int = 512, layers: int = 3, dropout: float = 0.1, positional: bool = True
    ) -> None:
        super().__init__()
        self.positional = positional
        self.encoder = Stack(layers, width, 1, dropout)
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
    return load_strict("StyTr2's transformer", lambda: Transformer(*_sizes(state_dict)), state_dict)


def fusion_from_official(state_dict: Mapping[str, Tensor]) -> FusionTransformer:
    """Puff-Net's frozen transformer, with the position of the paper; its sizes are read from the weights."""
    return load_strict("Puff-Net's transformer", lambda: FusionTransformer(*_sizes(state_dict)), state_dict)


def _sizes(state_dict: Mapping[str, Tensor]) -> tuple[int, int]:
    """Width and layers."""
    stack = next((key for key in state_dict if key.startswith("encoder")), "").split(".")[0]
    return len(state_dict["new_ps.weight"]), blocks(state_dict, f"{stack}.layers.")
