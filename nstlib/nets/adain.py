"""The decoder of "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", Huang and
Belongie 2017.

It is the first four blocks of VGG-19 run backwards: from features at relu4_1 back to a picture.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import SettingError
from .winograd import conv3x3

# (channels out, whether the size is doubled afterwards) of each convolution, from relu4_1 to pixels.
_PLAN = (
    (256, True),
    (256, False),
    (256, False),
    (256, False),
    (128, True),
    (128, False),
    (64, True),
    (64, False),
)


class Conv3x3(nn.Conv2d):
    """A convolution of pictures that have a border of one pixel already, by the quickest way."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H + 2, W + 2) -> (N, outputs, H, W)."""
        return conv3x3(x, self.weight, self.bias, padding=0)


class Decoder(nn.Sequential):
    """Features to picture; the published release is a plain sequence, so its numbering is the layout.

    Shape:
        (N, 512, H, W), like relu4_1 of the normalized VGG-19 with reflection padding -> (N, 3, 8H, 8W), RGB,
        about [0, 1] (not clamped).
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        channels = 512
        for out, doubled in _PLAN:
            layers += [nn.ReflectionPad2d(1), Conv3x3(channels, out), nn.ReLU()]
            if doubled:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            channels = out
        super().__init__(*layers, nn.ReflectionPad2d(1), nn.Conv2d(channels, 3, 3))


def from_official(tensors: Mapping[str, Tensor]) -> Decoder:
    """A decoder with the published weights ("1.weight" ... "28.bias").

    Raises:
        SettingError: the tensors are not a decoder's.
    """
    net = Decoder()
    try:
        net.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise SettingError(
            "These weights are not those of an AdaIN decoder (keys '1.weight' to '28.bias'): give the "
            "published decoder's."
        ) from error
    return net.eval().requires_grad_(False)
