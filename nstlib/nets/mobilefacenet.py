"""MobileFaceNet: a cut-out face in, 512 numbers out that lie close together for pictures of one person.

Sources: Chen et al. 2018, "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices" (the layers), and Deng et al. 2019, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition"
(the training, after which the cosine of two answers tells how alike two faces are). In the form InsightFace
published as w600k_mbf: twice as wide as the paper's, and with a plain linear layer at the end. DualStyleGAN
(paper A) keeps a portrait's identity by such a network's answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import SettingError

SIDE = 112
"""Pixels a side of what the network sees."""

EMBEDDING = 512
"""What it says of a face: so many numbers."""


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and PReLU; the published file has its normalizations folded in already."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(conv, nn.PReLU(outputs))


class Bottleneck(nn.Sequential):
    """Widen, look around in each channel alone, narrow without a nonlinearity: the paper's bottleneck.

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
    """A face cut out to ArcFace's template in, its embedding out; see :mod:`nstlib.faces.identity` for the
    cutting.

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
        if faces.shape[1:] != (3, SIDE, SIDE):
            raise SettingError(
                f"MobileFaceNet sees (N, 3, {SIDE}, {SIDE}), not {tuple(faces.shape)}: cut the faces out "
                "first."
            )
        return super().forward(faces)


def from_official(tensors: Mapping[str, Tensor]) -> MobileFaceNet:
    """A frozen MobileFaceNet with the tensors that ``assets.load_tensors("arcface_mobilefacenet")`` gives.

    The published graph has nodes with running numbers instead of names ("Conv_0.weight", "PRelu_1.weight"
    ...) in the order in which they are computed, which is the order of the layers above.

    Raises:
        SettingError: a tensor is missing, left over or of another shape.
    """
    net = MobileFaceNet()
    own = {key: one for key, one in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    try:
        published = sorted(tensors, key=lambda key: (int(key.split(".")[0].split("_")[1]), _part(key)))
    except (IndexError, ValueError):
        published = []
    fits = len(published) == len(own) and all(
        # A PReLU's slopes lie in the file as (C, 1, 1), and here as (C,).
        _part(key) == _part(name) and tensors[name].squeeze().shape == own[key].squeeze().shape
        for key, name in zip(own, published, strict=True)
    )
    if not fits:
        raise SettingError(
            f"These {len(tensors)} tensors are not MobileFaceNet's {len(own)}, of which one is missing, left "
            "over or of another shape: give what assets.load_tensors('arcface_mobilefacenet') gives."
        )
    state = {key: tensors[name].reshape(own[key].shape) for key, name in zip(own, published, strict=True)}
    net.load_state_dict(state, strict=False)
    return net.requires_grad_(False).eval()


def _part(key: str) -> int:
    """Where a tensor stands among those of its layer."""
    return ("weight", "bias", "running_mean", "running_var").index(key.rsplit(".", 1)[1])
