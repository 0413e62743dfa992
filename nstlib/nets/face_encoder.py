"""Pictures of faces to the codes of the small generator: a small version of pSp's encoder.

Sources: Richardson et al. 2021, "Encoding in Style" (features at several sizes, a code for each layer, as
its difference from the mean w). The trunk is MobileFaceNet's (Chen et al. 2018), and training starts from its
published weights. Ours is how the heads are shared: three feature maps are pooled to 8 × 8, and one vector
made of them serves all layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mobilefacenet import MobileFaceNet
from .official import blocks, check_size, load_strict
from .style_generator import STYLE

SIZE = 128
"""Pixels a side of the pictures that are encoded."""

_ENDS = (7, 14, 18)  # of the trunk: behind its features of 32, 16 and 8 pixels
_TAPS = ((128, 16), (256, 16), (512, 32))  # channels of these, and how many of them go on
WIDTH = 256
"""Size of the vector from which all codes of a face are computed."""


class FaceEncoder(nn.Module):
    """Aligned faces to one w for each layer.

    Args:
        layers: codes, the generator's ``layers``.
        width: of the vector from which all codes are computed.

    Attributes:
        mean: (512,), the generator's mean w, which is added to the codes.

    Shape:
        input (N, 3, 128, 128), RGB in [-1, 1]; output (N, layers, 512), w+.
    """

    mean: Tensor

    def __init__(self, layers: int = 10, width: int = WIDTH) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*list(MobileFaceNet().children())[: _ENDS[-1]])
        self.taps = nn.ModuleList(nn.Conv2d(channels, kept, 1) for channels, kept in _TAPS)
        vector = 64 * sum(kept for _, kept in _TAPS)
        self.shared = nn.Linear(vector, width)
        heads = [nn.Linear(width, STYLE) for _ in range(layers)]
        for head in heads:  # the mean face at first
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        self.codes = nn.ModuleList(heads)
        self.register_buffer("mean", torch.zeros(STYLE))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 128, 128) -> (N, layers, 512).

        Raises:
            SettingError: pictures of another shape.
        """
        maps = [tap(x) for tap, x in zip(self.taps, self.features(images), strict=True)]
        shared = self.shared(torch.cat([x.flatten(1) for x in maps], 1))
        return torch.stack([head(shared) for head in self.codes], 1) + self.mean

    def features(self, images: Tensor) -> list[Tensor]:
        """The trunk's features: (N, 128, 8, 8), (N, 256, 8, 8), (N, 512, 8, 8), from fine to coarse.

        Raises:
            SettingError: pictures of another shape.
        """
        check_size("The face encoder", images, SIZE)
        x, found = images.contiguous(memory_format=torch.channels_last), []
        for index, layer in enumerate(self.trunk, 1):
            x = layer(x)
            if index in _ENDS:
                found.append(F.adaptive_avg_pool2d(x, SIZE // 16))
        return found


def from_state(state_dict: Mapping[str, Tensor]) -> FaceEncoder:
    """A frozen encoder with trained weights, of any number format.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    layers = blocks(state_dict, "codes.")
    exact = {key: tensor.float() for key, tensor in state_dict.items()}
    return load_strict(
        "the face encoder", lambda: FaceEncoder(layers, len(state_dict["shared.weight"])), exact
    )
