"""CycleGAN's networks, and those of portrait drawing, which are made of the same parts.

Sources: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks"
(CycleGAN), appendix 7.2; Isola et al. 2017 (the discriminator of patches); Yi et al. 2020, "Unpaired Portrait
Drawing Generation via Asymmetric Cycle Mapping" (the style code). The layouts are those of the authors'
PyTorch programs. All pictures here are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .official import load_strict

STRIDE = 4
"""Factor by which a side is reduced before the residual blocks: sides come out as multiples of it."""


def _normalized(layer: nn.Module, channels: int, activation: nn.Module) -> list[nn.Module]:
    return [layer, nn.InstanceNorm2d(channels), activation]  # as published: it learns nothing


def _encoder(inputs: int, width: int) -> list[nn.Module]:
    """(N, inputs, H, W) -> (N, 4 width, H / 4, W / 4)."""
    return [
        nn.ReflectionPad2d(3),
        *_normalized(nn.Conv2d(inputs, width, 7), width, nn.ReLU()),
        *_normalized(nn.Conv2d(width, 2 * width, 3, 2, 1), 2 * width, nn.ReLU()),
        *_normalized(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), 4 * width, nn.ReLU()),
    ]


def _decoder(outputs: int, width: int) -> list[nn.Module]:
    """(N, 4 width, H / 4, W / 4) -> (N, outputs, H, W)."""
    return [
        *_normalized(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1), 2 * width, nn.ReLU()),
        *_normalized(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1), width, nn.ReLU()),
        nn.ReflectionPad2d(3),
        nn.Conv2d(width, outputs, 7),
        nn.Tanh(),
    ]


def _draw_weights(module: nn.Module) -> None:
    """The published beginning: weights with a standard deviation of 0.02, biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), *_normalized(nn.Conv2d(channels, channels, 3), channels, nn.ReLU()),
            nn.ReflectionPad2d(1), *_normalized(nn.Conv2d(channels, channels, 3), channels, nn.Identity()),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """A picture of one domain becomes one of the other.

    Args:
        width: channels of the first layer; twice as many, then four times, in the middle. 64 as published.
        blocks: residual blocks in the middle: 9 as published for 256 pixels, 6 for 128.
        inputs: channels of the given pictures.
        outputs: channels of the result.

    Shape:
        (N, inputs, H, W), H and W multiples of 4 and at least 16 -> (N, outputs, H, W), in [-1, 1].
    """

    def __init__(self, width: int = 64, blocks: int = 9, inputs: int = 3, outputs: int = 3) -> None:
        super().__init__()
        middle = [ResidualBlock(4 * width) for _ in range(blocks)]
        self.model = nn.Sequential(*_encoder(inputs, width), *middle, *_decoder(outputs, width))
        self.apply(_draw_weights)

    def forward(self, images: Tensor) -> Tensor:
        """Down twice, through the residual blocks, up twice."""
        return self.model(images)


class DrawingGenerator(nn.Module):
    """A photograph becomes a drawing in one of several styles, or between them.

    Args:
        width: as of :class:`ResnetGenerator`.
        blocks: likewise.
        styles: numbers of a style code.
        inputs: channels of the photographs.
        outputs: channels of the drawings.

    Shape:
        (N, inputs, H, W), H and W multiples of 4 and at least 16, and codes (N, styles), which every place of
        the middle gets -> (N, outputs, H, W), in [-1, 1].
    """

    def __init__(
        self, width: int = 64, blocks: int = 9, styles: int = 3, inputs: int = 3, outputs: int = 1
    ) -> None:
        super().__init__()
        channels = 4 * width
        self.styles = styles
        self.model0 = nn.Sequential(*_encoder(inputs, width))
        self.model = nn.Sequential(
            *_normalized(nn.Conv2d(channels + styles, channels, 3, 1, 1), channels, nn.ReLU()),
            *[ResidualBlock(channels) for _ in range(blocks)],
            *_decoder(outputs, width),
        )
        self.apply(_draw_weights)

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        """Down twice, the code beside the features, through the residual blocks, up twice."""
        features = self.model0(images)
        spread = codes.to(features)[:, :, None, None].expand(-1, -1, *features.shape[-2:])
        return self.model(torch.cat([features, spread], 1))


class PatchDiscriminator(nn.Module):
    """Scores each patch of a picture: near 1 for a real one, near 0 for a generated one.

    Args:
        width: channels of the first layer, doubled by each layer up to eight times. 64 as published.
        layers: convolutions that halve the size: 3 as published, where a patch has 70 × 70 pixels.
        inputs: channels of the pictures.
        classes: how many styles to tell apart; with 0 there is no classifier. That of Yi et al. takes
            512 × 512 pixels only; ours averages over the places, for any size.

    Shape:
        (N, inputs, H, W), H and W at least 4 · 2^layers -> scores (N, 1, h, w), and with a classifier the
        logits (N, classes) as well.
    """

    def __init__(self, width: int = 64, layers: int = 3, inputs: int = 3, classes: int = 0) -> None:
        super().__init__()
        channels = [width * min(2**n, 8) for n in range(layers + 1)]
        parts = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for n in range(1, layers + 1):
            convolution = nn.Conv2d(channels[n - 1], channels[n], 4, 2 if n < layers else 1, 1)
            parts += _normalized(convolution, channels[n], nn.LeakyReLU(0.2))
        self.model = nn.Sequential(*parts, nn.Conv2d(channels[-1], 1, 4, 1, 1))
        self.classifier = None if not classes else nn.Sequential(
            nn.Conv2d(channels[-2], channels[-1], 4, 2, 1), nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels[-1], classes, 1), nn.Flatten(),
        )  # fmt: skip
        self.apply(_draw_weights)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The scores; with a classifier, scores and logits."""
        if self.classifier is None:
            return self.model(images)
        features = self.model[:-4](images)
        return self.model[-4:](features), self.classifier(features)


# ---------------------------------------------------------------------------- published weights


def generator_from_official(state_dict: Mapping[str, Tensor]) -> ResnetGenerator:
    """A frozen generator with published weights; all sizes are read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    own = _learned(state_dict)

    def make() -> ResnetGenerator:
        outputs, inputs = own["model.1.weight"].shape[:2]
        return ResnetGenerator(outputs, _blocks(own), inputs, _outputs(own))

    return load_strict("a ResNet generator of CycleGAN", make, own)


def drawing_from_official(state_dict: Mapping[str, Tensor]) -> DrawingGenerator:
    """A frozen generator of portrait drawings with published weights; all sizes are read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    own = _learned(state_dict)

    def make() -> DrawingGenerator:
        first, entry = own["model0.1.weight"], own["model.0.weight"]
        styles = entry.shape[1] - entry.shape[0]
        return DrawingGenerator(len(first), _blocks(own), styles, first.shape[1], _outputs(own))

    return load_strict("a generator of portrait drawings with a style code", make, own)


def discriminator_from_official(state_dict: Mapping[str, Tensor]) -> PatchDiscriminator:
    """A frozen discriminator with published weights, without a classifier; all sizes are read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    own = _learned(state_dict)

    def make() -> PatchDiscriminator:
        outputs, inputs = own["model.0.weight"].shape[:2]
        return PatchDiscriminator(outputs, sum(key.endswith(".weight") for key in own) - 2, inputs)

    return load_strict("a discriminator of patches", make, own)


def _learned(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what instance normalization does not use: before PyTorch 0.4 it kept running statistics."""
    unused = (".running_mean", ".running_var", ".num_batches_tracked")
    return {k.removeprefix("module."): t for k, t in state_dict.items() if not k.endswith(unused)}


def _blocks(state_dict: Mapping[str, Tensor]) -> int:
    return sum(key.endswith("conv_block.1.weight") for key in state_dict)


def _outputs(state_dict: Mapping[str, Tensor]) -> int:
    """Channels of the result: those of the last convolution, in whatever order a file has them."""
    layers = [int(k.split(".")[1]) for k in state_dict if k.startswith("model.") and k.endswith(".weight")]
    return len(state_dict[f"model.{max(layers)}.weight"])
