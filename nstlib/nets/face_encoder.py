"""Pictures of faces to the codes of the small generator: the encoder of pSp, made small.

Sources: Richardson et al. 2021, "Encoding in Style" (features at several sizes, a code for each layer, as
what it lacks to the mean of w), with the layers of MobileFaceNet (Chen et al. 2018) as its trunk, whose
published weights, which know faces, are what training begins with. Ours in how the heads are shared: three
feature maps meet at 8 × 8, and one vector of them serves all layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from .mobilefacenet import MobileFaceNet
from .official import blocks, build, length
from .style_generator import STYLE

SIZE = 128
"""Pixels a side of the pictures that are encoded."""

_ENDS = (7, 14, 18)  # of the trunk: behind its features of 32, 16 and 8 pixels
_TAPS = ((128, 16), (256, 16), (512, 32))  # channels of these, and how many of them go on


class FaceEncoder(nn.Module):
    """Aligned faces to one w for each layer.

    Args:
        layers: codes, the generator's ``layers``.
        width: of the vector that all codes are made of.

    Attributes:
        mean: (512,), the generator's mean w, from which the codes are counted.

    Shape:
        input (N, 3, 128, 128), RGB in [-1, 1]; output (N, layers, 512), w+.
    """

    mean: Tensor

    def __init__(self, layers: int = 10, width: int = 384) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*list(MobileFaceNet().children())[: _ENDS[-1]])
        self.taps = nn.ModuleList(nn.Conv2d(channels, kept, 1) for channels, kept in _TAPS)
        vector = 64 * sum(kept for _, kept in _TAPS)
        self.shared = nn.Sequential(
            nn.LayerNorm(vector), nn.Linear(vector, width), nn.LeakyReLU(0.2), nn.LayerNorm(width)
        )
        heads = [nn.Linear(width, STYLE) for _ in range(layers)]
        for head in heads:  # the mean face at first
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        self.codes = nn.ModuleList(heads)
        self.register_buffer("mean", torch.zeros(STYLE))

    def begin_with(self, recognizer: MobileFaceNet, mean: Tensor) -> FaceEncoder:
        """Take a recognizer's layers as the trunk, and the generator's mean w (1, 512) or (512,)."""
        layers = list(recognizer.children())[: _ENDS[-1]]
        self.trunk.load_state_dict(nn.Sequential(*layers).state_dict())
        self.mean.copy_(mean.reshape(STYLE))
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 128, 128) -> (N, layers, 512).

        Raises:
            SettingError: pictures of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
            raise SettingError(
                f"The face encoder sees (N, 3, {SIZE}, {SIZE}), not {tuple(images.shape)}: cut the faces out "
                "to that size first."
            )
        x, found = images.contiguous(memory_format=torch.channels_last), []
        for index, layer in enumerate(self.trunk, 1):
            x = layer(x)
            if index in _ENDS:
                tap = self.taps[_ENDS.index(index)]
                found.append(F.adaptive_avg_pool2d(tap(x), SIZE // 16))
        shared = self.shared(torch.cat(found, 1).flatten(1))
        return torch.stack([head(shared) for head in self.codes], 1) + self.mean


def from_state(state_dict: Mapping[str, Tensor]) -> FaceEncoder:
    """A frozen encoder with the weights of one that was trained, whatever their number format.

    Raises:
        SettingError: a tensor is missing, left over or of another shape.
    """
    layers, width = blocks(state_dict, "codes.") or 10, length(state_dict, "shared.1.weight", 0, 384)
    exact = {key: tensor.float() for key, tensor in state_dict.items()}
    return build("the face encoder", lambda: FaceEncoder(layers, width), exact)
