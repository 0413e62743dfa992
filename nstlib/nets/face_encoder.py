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
from .official import blocks, check_size, length, load_strict
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

    @torch.no_grad()
    def begin_by_least_squares(self, features: list[Tensor], w: Tensor, ridge: float = 0.5) -> None:
        """Set taps and heads so that they answer w as well as a linear map of the trunk's features can.

        The taps become the features' principal components, the heads a ridge regression of these, of rank
        ``width``: all codes alike, as the faces have one w.

        Args:
            features: of N pictures, as :meth:`features` gives them.
            w: theirs, (N, 512).
            ridge: added to the diagonal of the components' covariance between pictures, whose mean is 1.
        """
        parts = []
        for tap, maps in zip(self.taps, features, strict=True):
            assert isinstance(tap, nn.Conv2d)
            pixels = maps.movedim(1, 3).flatten(0, 2)
            mean = pixels.mean(0)
            _, directions = torch.linalg.eigh((pixels - mean).T @ (pixels - mean))
            kept = directions[:, -tap.out_channels :].T
            tap.weight.copy_(kept[:, :, None, None])
            assert tap.bias is not None
            tap.bias.copy_(-kept @ mean)
            parts.append(tap(maps).flatten(1))
        x = torch.cat(parts, 1)
        mean, deviation = x.mean(0), x.std(0) + 1e-6
        x = (x - mean) / deviation
        kernel = x @ x.T / x.shape[1]
        wanted = w - self.mean
        solved = torch.linalg.solve(kernel + ridge * torch.eye(len(x)), wanted)
        _, _, rows = torch.linalg.svd(kernel @ solved, full_matrices=False)
        rows = rows[: self.shared.out_features]
        weight = (x.T @ solved / x.shape[1]) @ rows.T / deviation[:, None]
        self.shared.weight[: len(rows)] = weight.T
        self.shared.bias[: len(rows)] = -mean @ weight
        for head in self.codes:
            assert isinstance(head, nn.Linear)
            head.weight[:, : len(rows)] = rows.T


def from_state(state_dict: Mapping[str, Tensor]) -> FaceEncoder:
    """A frozen encoder with trained weights, of any number format.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    layers, width = blocks(state_dict, "codes.") or 10, length(state_dict, "shared.weight", 0, WIDTH)
    exact = {key: tensor.float() for key, tensor in state_dict.items()}
    return load_strict("the face encoder", lambda: FaceEncoder(layers, width), exact)
