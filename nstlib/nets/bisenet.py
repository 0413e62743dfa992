"""BiSeNet for face parsing: which of 19 classes (skin, hair, nose ...) each pixel belongs to.

Source: Yu et al. 2018, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", in the
form in which it was trained on CelebAMask-HQ and published: the context path is a ResNet-18, and the paper's
own spatial path is left out, the ResNet's features at an eighth of the size taking its place.
Paper E (section 3.4) cuts portraits into regions with such a parser.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from .official import load_strict

LABELS = (
    "background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear",
    "right ear", "earring", "nose", "inner mouth", "upper lip", "lower lip", "neck", "necklace", "cloth",
    "hair", "hat",
)  # fmt: skip
"""The 19 classes of CelebAMask-HQ in the order of the published weights."""


class ConvBlock(nn.Sequential):
    """Convolution, batch normalization, ReLU: (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU()))


class ResNet18(ResNet):
    """torchvision's ResNet-18 without its classifier, giving the last three of its four stages."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])
        del self.fc, self.avgpool

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) -> features of an 8th, a 16th and a 32nd of the size: 128, 256 and 512 channels."""
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        eighth = self.layer2(x)
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """The paper's ARM: each channel is weighted by its average over the whole picture."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs, outputs)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(_average(x))))


class ContextPath(nn.Module):
    """Features of the whole picture, brought back to an eighth of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBlock(128, 128)
        self.conv_head16 = ConvBlock(128, 128)
        self.conv_avg = ConvBlock(512, 128, kernel=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) -> the ResNet's 8th (128 channels), and context at an 8th and a 16th (128 each)."""
        eighth, sixteenth, last = self.resnet(images)
        context = self.arm32(last) + self.conv_avg(_average(last))
        context16 = self.conv_head32(_enlarge(context, sixteenth))
        context8 = self.conv_head16(_enlarge(self.arm16(sixteenth) + context16, eighth))
        return eighth, context8, context16


class FeatureFusion(nn.Module):
    """The paper's FFM: detail and context concatenated, each channel weighted by the whole picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convblk = ConvBlock(channels, channels, kernel=1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Two maps (N, C/2, H, W) -> (N, C, H, W)."""
        x = self.convblk(torch.cat([detail, context], 1))
        return x + x * torch.sigmoid(self.conv2(F.relu(self.conv1(_average(x)))))


class Head(nn.Sequential):
    """Scores of the classes from features: (N, inputs, H, W) -> (N, classes, H, W)."""

    def __init__(self, inputs: int, middle: int, classes: int) -> None:
        conv_out = nn.Conv2d(middle, classes, 1, bias=False)
        super().__init__(OrderedDict(conv=ConvBlock(inputs, middle), conv_out=conv_out))


class BiSeNet(nn.Module):
    """Face pictures to scores of the classes for every pixel.

    Args:
        classes: number of parts.

    Shape:
        input (N, 3, H, W), RGB normalized with ImageNet's mean and deviation, at least 32 pixels a side
        (trained at 512 × 512); output: see :meth:`forward`.
    """

    def __init__(self, classes: int = len(LABELS)) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion(256)
        self.conv_out = Head(256, 256, classes)
        self.conv_out16 = Head(128, 64, classes)
        self.conv_out32 = Head(128, 64, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores from the fused features, and from the context alone at an 8th and at a 16th.

        The first is the answer; the two others only serve training, as the paper's auxiliary losses.

        Returns:
            Three tensors (N, classes, H, W), before the softmax.
        """
        eighth, context8, context16 = self.cp(images)
        first, size = self.conv_out(self.ffm(eighth, context8)), images.shape[-2:]
        second, third = self.conv_out16(context8), self.conv_out32(context16)
        return _to_pixels(first, size), _to_pixels(second, size), _to_pixels(third, size)

    def labels(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """The class of each pixel, for pictures of another size than the one they are parsed at.

        The scores are enlarged and then compared: borders are smoother than in an enlarged label map.

        Args:
            images: as for :meth:`forward`.
            size: (H, W) of the answer.

        Returns:
            (N, H, W), int64.
        """
        eighth, context8, _ = self.cp(images)
        scores = self.conv_out(self.ffm(eighth, context8))
        # A class at a time: all 19 at once would take 76 bytes a pixel, a gigabyte for a photograph.
        labels = torch.zeros(len(scores), *size, dtype=torch.int64, device=scores.device)
        best = torch.full(labels.shape, -torch.inf, device=scores.device)
        for index, score in enumerate(scores.split(1, dim=1)):
            score = _to_pixels(score, size)[:, 0]
            labels[score > best] = index
            best = torch.maximum(best, score)
        return labels


def from_official(state_dict: Mapping[str, Tensor]) -> BiSeNet:
    """A frozen BiSeNet with published weights; the number of classes is read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    return load_strict("BiSeNet", lambda: BiSeNet(len(state_dict["conv_out.conv_out.weight"])), state_dict)


def _average(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    """To the size of another map by nearest neighbors, as in the published network."""
    return F.interpolate(x, like.shape[-2:], mode="nearest")


def _to_pixels(scores: Tensor, size: Sequence[int]) -> Tensor:
    """With corners aligned, as in training: otherwise borders move by up to 3.5 of 512 pixels."""
    return F.interpolate(scores, tuple(size), mode="bilinear", align_corners=True)
