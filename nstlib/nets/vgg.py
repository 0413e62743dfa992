"""The networks that perceptual losses take features from: VGG-16, VGG-19, AlexNet, each layer with a name.

Sources: Simonyan & Zisserman 2015 (VGG, configurations D and E); Krizhevsky 2014 (AlexNet, the one-tower
version that torchvision and LPIPS use). Papers A and C take features of VGG-16, B and D of VGG-19, and B
compares AlexNet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError, known

Border = Literal["zeros", "reflect"]


@dataclass(frozen=True)
class Layer:
    """One named layer. ``kind`` is "conv", "relu" or "pool"; ``channels`` are those of its output."""

    name: str
    kind: str
    channels: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0


def _conv_relu(number: str, channels: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> list[Layer]:
    conv = Layer(f"conv{number}", "conv", channels, kernel, stride, padding)
    return [conv, Layer(f"relu{number}", "relu", channels)]


def _vgg(*convolutions_per_block: int) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for block, count in enumerate(convolutions_per_block, start=1):
        channels = min(32 << block, 512)
        for index in range(1, count + 1):
            layers += _conv_relu(f"{block}_{index}", channels)
        layers.append(Layer(f"pool{block}", "pool", channels, 2, 2))
    return tuple(layers)


ARCHITECTURES: dict[str, tuple[Layer, ...]] = {
    "vgg16": _vgg(2, 2, 3, 3, 3),
    "vgg19": _vgg(2, 2, 4, 4, 4),
    "alexnet": (
        *_conv_relu("1", 64, 11, 4, 2),
        Layer("pool1", "pool", 64, 3, 2),
        *_conv_relu("2", 192, 5, 1, 2),
        Layer("pool2", "pool", 192, 3, 2),
        *_conv_relu("3", 384),
        *_conv_relu("4", 256),
        *_conv_relu("5", 256),
        Layer("pool5", "pool", 256, 3, 2),
    ),
    "vgg19_torchvision": _vgg(2, 2, 4, 4, 4),
}


def architecture(network: str) -> tuple[Layer, ...]:
    """All layers of a network of :data:`ARCHITECTURES`, first to last.

    Raises:
        SettingError: no such network.
    """
    return ARCHITECTURES[known("network", network, ARCHITECTURES)]


def layers_up_to(network: str, names: Sequence[str]) -> tuple[Layer, ...]:
    """The layers of ``network`` up to the deepest one of ``names``.

    Raises:
        SettingError: an unknown layer, or none at all.
    """
    layers = architecture(network)
    all_names = [layer.name for layer in layers]
    if not names:
        raise SettingError(f"Name at least one layer of {network}, for example '{all_names[1]}'.")
    numbers = [all_names.index(known(f"layer of {network}", name, all_names)) for name in names]
    return layers[: max(numbers) + 1]


def output_size(size: int, layer: Layer) -> int:
    """Pixels along one side of the output of ``layer`` for ``size`` pixels of input (0 or less: none)."""
    return (size + 2 * layer.padding - layer.kernel) // layer.stride + 1


def smallest_side(network: str, name: str) -> int:
    """The smallest side of a picture, in pixels, for which layer ``name`` still has one pixel."""
    side = 1
    for layer in reversed(layers_up_to(network, [name])):
        # Invert output_size: the least input that gives `side` pixels of output.
        side = max(1, (side - 1) * layer.stride + layer.kernel - 2 * layer.padding)
    return side


def receptive_field(network: str, name: str) -> tuple[int, int]:
    """The part of the picture that one pixel of layer ``name`` depends on.

    With kernel sizes ``k_i`` and strides ``s_i``, the field is ``1 + sum_i (k_i - 1) * prod_{j<i} s_j``
    and the step from one pixel to its neighbor ``prod_i s_i``.

    Returns:
        (side of the square, step between neighbors), both in pixels of the picture.
    """
    field, step = 1, 1
    for layer in layers_up_to(network, [name]):
        field += (layer.kernel - 1) * step
        step *= layer.stride
    return field, step


class LayeredNet(nn.Module):
    """The convolutional part of a VGG or AlexNet, up to the deepest layer that is needed.

    Args:
        network: see :func:`architecture`.
        names: layers whose activations :meth:`forward` returns.
        pooling: "max" as trained, or "average" as Gatys et al. 2016 (section 2) recommend for synthesis.
        padding: of the convolutions, "zeros" as trained, or "reflect", with which AdaIN's decoder was
            trained: it leaves no frame at the border.

    Shape:
        input (N, 3, H, W), already normalized for the network; output: name -> (N, C_l, H_l, W_l).
    """

    def __init__(
        self, network: str, names: Sequence[str], pooling: str = "max", padding: Border = "zeros"
    ) -> None:
        super().__init__()
        self.names = frozenset(names)
        self.layers = layers_up_to(network, list(names))
        self.pooling = pooling
        channels = 3
        for layer in self.layers:
            if layer.kind == "conv":
                sizes = channels, layer.channels, layer.kernel, layer.stride, layer.padding
                self.add_module(layer.name, nn.Conv2d(*sizes, padding_mode=padding))
                channels = layer.channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Activations of the named layers."""
        found, x = {}, images
        for layer in self.layers:
            if layer.kind == "conv":
                x = self.get_submodule(layer.name)(x)
            elif layer.kind == "relu":
                # In place saves a third of the memory; not if the convolution's own output is needed.
                x = F.relu(x, inplace=layer.name.replace("relu", "conv") not in self.names)
            else:
                pool = F.max_pool2d if self.pooling == "max" else F.avg_pool2d
                x = pool(x, layer.kernel, layer.stride)
            if layer.name in self.names:
                found[layer.name] = x
        return found

    def load_layers(self, tensors: Mapping[str, Tensor]) -> LayeredNet:
        """Load the weights of this net's convolutions from ``tensors`` ("conv1_1.weight", ...)."""
        self.load_state_dict({key: tensors[key] for key in self.state_dict()})
        return self
