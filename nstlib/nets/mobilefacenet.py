"""MobileFaceNet: an aligned face to an embedding of 512 numbers, close together for pictures of one person.

Sources: Chen et al. 2018, "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices" (the layers), and Deng et al. 2019, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition"
(the training: the cosine of two embeddings says how alike two faces are). In the form InsightFace
published as w600k_mbf: twice as wide as the paper's, and with a plain linear layer at the end. DualStyleGAN
(paper A) keeps a portrait's identity by such embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from .official import check_size, load_in_order

SIDE = 112
"""Pixels a side of the faces it takes."""

EMBEDDING = 512
"""Numbers of an embedding."""

_PARTS = ("weight", "bias", "running_mean", "running_var")
_NAME = re.compile(rf".+_(\d+)\.({'|'.join(_PARTS)})")


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and PReLU; the published file has its normalizations folded in already."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(conv, nn.PReLU(outputs))


class Bottleneck(nn.Sequential):
    """The paper's bottleneck: 1 × 1 convolution, depthwise 3 × 3, and 1 × 1 without a nonlinearity.

    Args:
        inputs: channels that come in.
        middle: channels in between.
        outputs: channels that go out.
        stride: 2 halves the size; with 1 the input is added to the output.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            _conv(inputs, middle),
            _conv(middle, middle, 3, stride, groups=middle),
            nn.Conv2d(middle, outputs, 1),
        )
        self.residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return x + super().forward(x) if self.residual else super().forward(x)


class MobileFaceNet(nn.Sequential):
    """Faces aligned to ArcFace's template to their embeddings; :mod:`nstlib.faces.identity` aligns them.

    Shape:
        input (N, 3, 112, 112), RGB in [-1, 1]; output (N, 512), not normalized to unit length.
    """

    def __init__(self) -> None:
        super().__init__(
            _conv(3, 128, 3, 2),
            _conv(128, 128, 3, groups=64),
            Bottleneck(128, 128, 128, 2),
            *(Bottleneck(128, 128, 128) for _ in range(4)),
            Bottleneck(128, 256, 256, 2),
            *(Bottleneck(256, 256, 256) for _ in range(6)),
            Bottleneck(256, 512, 256, 2),
            *(Bottleneck(256, 256, 256) for _ in range(2)),
            _conv(256, 512),
            _conv(512, 64),
            nn.Flatten(),
            nn.Linear(64 * (SIDE // 16) ** 2, EMBEDDING),
            nn.BatchNorm1d(EMBEDDING),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """(N, 3, 112, 112) -> (N, 512), differentiable with respect to the faces.

        Raises:
            SettingError: another shape.
        """
        check_size("MobileFaceNet", faces, SIDE)
        return super().forward(faces)


def from_official(tensors: Mapping[str, Tensor]) -> MobileFaceNet:
    """A frozen MobileFaceNet with the tensors that ``assets.load_tensors("arcface_mobilefacenet")`` gives.

    The published graph has nodes with running numbers instead of names ("Conv_0.weight", "PRelu_1.weight"
    ...) in the order in which they are computed, which is the order of the layers above.

    Raises:
        SettingError: a tensor is missing, unexpected or of another size.
    """
    found = {match: tensors[match[0]] for match in map(_NAME.fullmatch, tensors) if match}
    ordered = sorted(found, key=lambda match: (int(match[1]), _PARTS.index(match[2])))
    given = [found[match] for match in ordered] if len(found) == len(tensors) else []
    return load_in_order("MobileFaceNet", "arcface_mobilefacenet", MobileFaceNet, given)
