"""The encoder of pSp: a face picture to one code for each layer of StyleGAN2.

Sources: Richardson et al. 2021, "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation"
(section 3.1, figure 2: features at three sizes, a small convolutional head for each code); for its backbone,
Deng et al. 2019, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (a ResNet of "improved
residual" units), and Hu et al. 2018, "Squeeze-and-Excitation Networks". Paper A (section 3.2, stage one)
finds a portrait's face with such an encoder, which DualStyleGAN's authors trained to give z+ instead of w+.
The backbone by itself, IR-SE50, is the recognizer behind their identity loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .official import blocks, check_size, load_strict
from .stylegan2_layers import EqualLinear

UNITS = (3, 4, 14, 3)
"""Residual units of the backbone's four stages; the first of each halves the size."""

CHANNELS = (64, 128, 256, 512)
"""Channels of the four stages."""

FACE = 112
"""Pixels a side of the faces that IR-SE50 recognizes."""

PICTURE = 256
"""Pixels a side of the pictures that pSp encodes."""


class SqueezeExcitation(nn.Module):
    """Each channel weighted by a function of all channels' averages over the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class Unit(nn.Module):
    """ArcFace's residual unit: normalize, convolve, PReLU, convolve, normalize, weight, add the input.

    Args:
        inputs: channels that come in.
        outputs: channels that go out, at least 16.
        stride: 2 halves the size.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs),
        )
        # A pooling of single pixels takes every second one.
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return self.shortcut_layer(x) + self.res_layer(x)


class Backbone(nn.Module):
    """The convolutional part of IR-SE50: pictures to the features of its stages."""

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        first = channels[0]
        conv = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.input_layer = nn.Sequential(conv, nn.BatchNorm2d(first), nn.PReLU(first))
        units: list[nn.Module] = []
        before = first
        for here, number in zip(channels, UNITS, strict=True):
            units += [Unit(before, here, 2), *(Unit(here, here, 1) for _ in range(number - 1))]
            before = here
        self.body = nn.Sequential(*units)

    def stages(self, images: Tensor) -> list[Tensor]:
        """(N, 3, S, S) -> the features of the four stages, of a half to a sixteenth of the size."""
        x, found, position = self.input_layer(images), [], 0
        for number in UNITS:
            x = self.body[position : position + number](x)
            found.append(x)
            position += number
        return found


class IrSe50(Backbone):
    """An aligned face to an embedding of 512 numbers, close together for pictures of one person.

    Args:
        channels: of the four stages; the last is also how many numbers come out.

    Shape:
        input (N, 3, 112, 112), RGB in [-1, 1]; output (N, 512), each of unit length.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__(channels)
        last = channels[-1]
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(last * (FACE // 16) ** 2, last),
            nn.BatchNorm1d(last),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """(N, 3, 112, 112) -> (N, 512), of unit length.

        Raises:
            SettingError: faces of another shape.
        """
        x = self.stages(check_size("IR-SE50", faces, FACE))[-1]
        return F.normalize(self.output_layer(x))


class Head(nn.Module):
    """Features to one code: halved until a single pixel is left, then a linear layer.

    Args:
        channels: of the features; also the numbers of the code.
        halvings: how often the size is halved, 4 for features of 16 pixels.
    """

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(halvings):
            layers += [nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, H) -> (N, channels)."""
        return self.linear(self.convs(x).flatten(1))


class PspEncoder(Backbone):
    """Pictures to codes: 3 from the coarsest features, 4 from finer ones, all others from the finest.

    Args:
        codes: how many, the generator's ``layers``: 18 for 1024 pixels.
        channels: of the backbone's four stages; the last is also how many numbers a code has.

    Shape:
        input (N, 3, 256, 256), RGB in [-1, 1]; output (N, codes, 512): z+, w+ or their difference from the
        mean w, whichever the weights were trained for.
    """

    def __init__(self, codes: int = 18, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__(channels)
        width = channels[-1]
        self.styles = nn.ModuleList(
            Head(width, 4 if index < 3 else 5 if index < 7 else 6) for index in range(codes)
        )
        self.latlayer1 = nn.Conv2d(channels[2], width, 1)
        self.latlayer2 = nn.Conv2d(channels[1], width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 256, 256) -> (N, codes, 512).

        Raises:
            SettingError: pictures of another shape.
        """
        _, fine, middle, coarse = self.stages(check_size("pSp's encoder", images, PICTURE))
        middle = self.latlayer1(middle) + _enlarge(coarse, middle)
        fine = self.latlayer2(fine) + _enlarge(middle, fine)
        sources = (
            coarse if index < 3 else middle if index < 7 else fine for index in range(len(self.styles))
        )
        return torch.stack([head(x) for head, x in zip(self.styles, sources, strict=True)], 1)


def psp_from_official(state_dict: Mapping[str, Tensor]) -> PspEncoder:
    """A frozen encoder with published weights, its number of codes and its channels read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    codes = blocks(state_dict, "styles.")
    return load_strict("pSp's encoder", lambda: PspEncoder(codes, _channels(state_dict)), state_dict)


def ir_se50_from_official(state_dict: Mapping[str, Tensor]) -> IrSe50:
    """A frozen IR-SE50 with published weights.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    return load_strict("IR-SE50", lambda: IrSe50(_channels(state_dict)), state_dict)


def _channels(state_dict: Mapping[str, Tensor]) -> list[int]:
    """Of the four stages: the outputs of the first convolution of each."""
    firsts = (sum(UNITS[:stage]) for stage in range(len(UNITS)))
    return [len(state_dict[f"body.{first}.res_layer.1.weight"]) for first in firsts]


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    """To the size of another map, with corners aligned, as in training."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)
