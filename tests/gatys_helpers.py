"""A small network, settings and masks for the tests of Gatys' method."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nstlib.methods.gatys import PLAIN
from nstlib.nets.features import FeatureExtractor

SHALLOW = PLAIN.changed(
    network="vgg16", content_layers=("relu1_2",), style_layers=("relu1_1", "relu2_1"), iterations=4
)


def shallow_net(tensors: dict[str, Tensor], precision: str = "float32", **options: Any) -> FeatureExtractor:
    """VGG-16 as far as the layers of SHALLOW."""
    names = ["relu1_1", "relu1_2", "relu2_1"]
    return FeatureExtractor("vgg16", names, precision=precision, device="cpu", tensors=tensors, **options)


def left(height: int, width: int, columns: int) -> Tensor:
    """A mask (1, 1, H, W) of the first so many columns."""
    mask = torch.zeros(1, 1, height, width)
    mask[..., :columns] = 1
    return mask
