"""The decoder of "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", Huang and
Belongie 2017.

It mirrors the first four blocks of VGG-19: from features at relu4_1 back to a picture.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .official import load_strict
from .winograd import convolve

# Channels out of each convolution from relu4_1 to pixels; 2 doubles the size.
_LAYERS = (256, 2, 256, 256, 256, 128, 2, 128, 64, 2, 64)


class Conv3x3(nn.Conv2d):
    """A convolution of pictures that already have their border of one pixel, by the fastest way."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H + 2, W + 2) -> (N, outputs, H, W)."""
        return convolve(self, x)


class Decoder(nn.Sequential):
    """Features to picture; the published release is a plain sequence, so its numbering is the layout.

    Shape:
        (N, 512, H, W), like relu4_1 of the normalized VGG-19 with reflection padding -> (N, 3, 8H, 8W), RGB,
        about [0, 1] (not clamped).
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        channels = 512
        for one in _LAYERS:
            if one == 2:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            else:
                layers += [nn.ReflectionPad2d(1), Conv3x3(channels, one, 3), nn.ReLU()]
                channels = one
        super().__init__(*layers, nn.ReflectionPad2d(1), nn.Conv2d(channels, 3, 3))


def from_official(state_dict: Mapping[str, Tensor]) -> Decoder:
    """A frozen decoder with the published weights ("1.weight" ... "28.bias").

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    return load_strict("an AdaIN decoder", Decoder, state_dict)
