"""StyleGAN2: 512 random numbers to a picture, and its discriminator.

Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN": skip generator and
residual discriminator (section 4.1, figure 7), of the size of its configuration F. Names and shapes of the
weights are those of the PyTorch checkpoints that DualStyleGAN (paper A) and JoJoGAN start from. The layers,
and how a style enters them, stand in :mod:`nstlib.nets.stylegan2_layers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import known
from .official import blocks, check_size, load_strict
from .style_generator import STRUCTURE, After, StyleGenerator
from .stylegan2_layers import (
    Bias,
    Blur,
    Constant,
    EqualConv,
    EqualLinear,
    StyledConv,
    ToRGB,
    fast_layout,
    mapping_network,
)

SIZES = (32, 64, 128, 256, 512, 1024)
"""Pixels a side of the pictures there are layouts for."""

CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64, 32)
"""Channels of the features at 4, 8, 16 ... 1024 pixels: configuration F, "channel multiplier 2"."""


JOJOGAN_BLOCKS = (1, 3, 4, 5)
"""The discriminator's blocks whose features JoJoGAN compares; 0 is the 1 × 1 convolution from RGB. A network
for less than 128 pixels has the first of them only."""


def channels_for(size: int, channels: Sequence[int] | None = None) -> tuple[int, ...]:
    """Channels of the features at 4, 8, 16 ... ``size`` pixels: configuration F's, or those given.

    Raises:
        SettingError: a size without a layout.
    """
    level = SIZES.index(known("StyleGAN2 for pictures of size", size, SIZES))
    return CHANNELS[: level + 4] if channels is None else tuple(channels)


class Generator(StyleGenerator):
    """Codes to pictures; see :class:`nstlib.nets.style_generator.StyleGenerator` for what a code is.

    Args:
        size: pixels a side of the pictures, a power of two from 32 to 1024.
        channels: of the features at 4, 8, 16 ... ``size`` pixels; None: configuration F's.

    Attributes:
        layers: codes of a z+ or w+: 2 log2(size) - 2, 18 at 1024 pixels.
        size: pixels a side.

    Raises:
        SettingError: another size.
    """

    def __init__(self, size: int = 1024, channels: Sequence[int] | None = None) -> None:
        super().__init__()
        channels = channels_for(size, channels)
        self.size, self.layers = size, 2 * len(channels)
        self.structure_channels = tuple(channels[(index + 1) // 2] for index in range(STRUCTURE))
        self.style = mapping_network(8)
        self.input = Constant(channels[0])
        self.conv1 = StyledConv(channels[0], channels[0])
        self.to_rgb1 = ToRGB(channels[0], upsample=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for before, here in pairwise(channels):
            self.convs.extend([StyledConv(before, here, upsample=True), StyledConv(here, here)])
            self.to_rgbs.append(ToRGB(here))
        for index in range(self.layers - 1):
            side = 4 << (index + 1) // 2
            self.noises.register_buffer(f"noise_{index}", torch.randn(1, 1, side, side))

    def noise_maps(self) -> list[Tensor | None]:
        """The network's own noise for each convolution: layers - 1 maps (1, 1, H, W)."""
        return [self.noises.get_buffer(f"noise_{index}") for index in range(self.layers - 1)]

    def synthesize(
        self, w_plus: Tensor, maps: Sequence[Tensor | None], after: After = lambda _, x: x
    ) -> Tensor:
        """See :meth:`StyleGenerator.synthesize`."""
        x = after(0, self.conv1(self.input(len(w_plus)), w_plus[:, 0], maps[0]))
        image = self.to_rgb1(x, w_plus[:, 1])
        for level, to_rgb in enumerate(self.to_rgbs):
            for index in (2 * level + 1, 2 * level + 2):
                x = after(index, self.convs[index - 1](x, w_plus[:, index], maps[index]))
            image = to_rgb(x, w_plus[:, index + 1], image)
        return image


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """One more channel: how much the pictures of a group differ.

    Source: Karras et al. 2017, "Progressive Growing of GANs", section 3. Of a batch of 8, pictures 0, 2, 4
    and 6 are a group, and 1, 3, 5 and 7. Where N cannot be cut into groups of 4, they are smaller, down to
    single pictures, which do not differ.

    Args:
        x: features (N, C, H, W).
        group: pictures of a group at most.

    Returns:
        (N, C + 1, H, W).
    """
    number, _, height, width = x.shape
    size = next(size for size in range(group, 0, -1) if number % size == 0)
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    variance = exact.unflatten(0, (size, number // size)).var(0, correction=0)
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3)).repeat(size).to(x.dtype)
    return torch.cat([x, deviation.reshape(-1, 1, 1, 1).expand(-1, 1, height, width)], 1)


class ResidualBlock(nn.Module):
    """Half the size: two convolutions, and beside them a 1 × 1 convolution (figure 7c)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(EqualConv(inputs, inputs, 3), Bias(inputs))
        self.conv2 = nn.Sequential(Blur(padding=2), EqualConv(inputs, outputs, 3, halve=True), Bias(outputs))
        # Blurred only where pixels remain: a 1 × 1 convolution looks at no others.
        self.skip = nn.Sequential(Blur(padding=1, stride=2), EqualConv(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / 2, W / 2)."""
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


class DiscriminatorFeatures(nn.Module):
    """The discriminator's blocks without its last layers: JoJoGAN compares pictures by their features.

    Args:
        size: pixels a side of the pictures, a power of two from 32 to 1024.
        channels: of the features at 4, 8, 16 ... ``size`` pixels; None: configuration F's.

    Raises:
        SettingError: another size.
    """

    def __init__(self, size: int = 1024, channels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.size = size
        plan = channels_for(size, channels)[::-1]
        self.convs = nn.Sequential(nn.Sequential(EqualConv(3, plan[0], 1), Bias(plan[0])))
        self.convs.extend(ResidualBlock(*pair) for pair in pairwise(plan))

    def forward(self, images: Tensor) -> list[Tensor]:
        """See :meth:`features`."""
        return self.features(images)

    def features(self, images: Tensor) -> list[Tensor]:
        """Pictures (N, 3, size, size), RGB in [-1, 1], to features (N, C, size / 2**k, size / 2**k).

        Raises:
            SettingError: pictures of another shape.
        """
        x, found = self.check(images), []
        for number, block in enumerate(self.convs[: JOJOGAN_BLOCKS[-1] + 1]):
            x = block(x)
            if number in JOJOGAN_BLOCKS:
                found.append(x)
        return found

    def check(self, images: Tensor) -> Tensor:
        """The pictures in the layout that convolutions are fastest in; a SettingError for another shape."""
        return fast_layout(check_size("This discriminator", images, self.size, "resize the pictures"))


class Discriminator(DiscriminatorFeatures):
    """Pictures to one score each: the larger, the more the picture looks like those it was trained on.

    Args:
        size: pixels a side of the pictures, a power of two from 32 to 1024.
        channels: of the features at 4, 8, 16 ... ``size`` pixels; None: configuration F's.

    Raises:
        SettingError: another size.
    """

    def __init__(self, size: int = 1024, channels: Sequence[int] | None = None) -> None:
        super().__init__(size, channels)
        last = channels_for(size, channels)[0]
        self.final_conv = nn.Sequential(EqualConv(last + 1, last, 3), Bias(last))
        self.final_linear = nn.Sequential(EqualLinear(16 * last, last, activate=True), EqualLinear(last, 1))

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Pictures (N, 3, size, size), RGB in [-1, 1], to scores (N, 1), before any sigmoid.

        Raises:
            SettingError: pictures of another shape.
        """
        x = self.final_conv(minibatch_deviation(self.convs(self.check(images))))
        return self.final_linear(x.flatten(1))


def generator_from_official(state_dict: Mapping[str, Tensor]) -> Generator:
    """A frozen generator with published weights, its size and channels read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    return load_strict("StyleGAN2's generator", lambda: Generator(*generator_plan(state_dict)), state_dict)


def generator_plan(state_dict: Mapping[str, Tensor], prefix: str = "") -> tuple[int, list[int]]:
    """Size and channels of the generator whose weights have such names: what :class:`Generator` takes."""
    names = ["to_rgb1", *(f"to_rgbs.{index}" for index in range(blocks(state_dict, f"{prefix}to_rgbs.")))]
    channels = [state_dict[f"{prefix}{name}.conv.weight"].shape[2] for name in names]
    return 2 << len(channels), channels


def discriminator_from_official(state_dict: Mapping[str, Tensor]) -> Discriminator:
    """A frozen discriminator with published weights, its size and channels read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    what = "StyleGAN2's discriminator"
    return load_strict(what, lambda: Discriminator(*_discriminator_plan(state_dict)), state_dict)


def features_from_official(state_dict: Mapping[str, Tensor]) -> DiscriminatorFeatures:
    """JoJoGAN's frozen discriminator without its last layers; the whole one has :meth:`features` as well.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    what = "JoJoGAN's discriminator"
    return load_strict(what, lambda: DiscriminatorFeatures(*_discriminator_plan(state_dict)), state_dict)


def _discriminator_plan(state_dict: Mapping[str, Tensor]) -> tuple[int, list[int]]:
    last = blocks(state_dict, "convs.") - 1
    names = [*(f"convs.{index}.conv2.1" for index in range(last, 0, -1)), "convs.0.0"]
    channels = [len(state_dict[f"{name}.weight"]) for name in names]
    return 2 << len(channels), channels
