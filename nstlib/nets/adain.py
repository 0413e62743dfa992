"""The decoder of "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", Huang and
Belongie 2017.

It mirrors the first four blocks of VGG-19: from features at relu4_1 back to a picture.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .official import load_strict

# Parts of the channels at relu4_1 that come out of each convolution from there to pixels; 0 doubles the size.
_LAYERS = (2, 0, 2, 2, 2, 4, 0, 4, 8, 0, 8)


class Decoder(nn.Sequential):
    """Features to picture; the published release is a plain sequence, so its numbering is the layout.

    StyTr2 and Puff-Net have the same one.

    Args:
        width: channels of the features; 512 as published.

    Shape:
        (N, width, H, W), like relu4_1 of the normalized VGG-19 with reflection padding -> (N, 3, 8H, 8W),
        RGB, about [0, 1] (not clamped).
    """

    def __init__(self, width: int = 512) -> None:
        layers: list[nn.Module] = []
        channels = width
        for part in _LAYERS:
            if not part:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            else:
                layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width // part, 3), nn.ReLU()]
                channels = width // part
        super().__init__(*layers, nn.ReflectionPad2d(1), nn.Conv2d(channels, 3, 3))


def from_official(state_dict: Mapping[str, Tensor]) -> Decoder:
    """A frozen decoder with the published weights ("1.weight" ... "28.bias").

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    return load_strict("an AdaIN decoder", Decoder, state_dict)
