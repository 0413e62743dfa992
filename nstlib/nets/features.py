"""Feature maps by name: picture in, activations of named layers out.

One extractor for VGG-16, VGG-19 and AlexNet. It normalizes the picture, computes nothing beyond the deepest
layer that is needed, and chooses the fastest precision that changes nothing to the eye.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .. import assets
from ..errors import SettingError
from .hardware import resolve_device, resolve_precision
from .vgg import Border, LayeredNet, smallest_side

# torchvision's networks (LPIPS uses the same) were trained on RGB normalized with these.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class FeatureExtractor(nn.Module):
    """Pictures in, activations of named layers out; frozen, and differentiable with respect to the picture.

    Args:
        network: "vgg16" (torchvision's weights), "vgg19" (the normalized one of Gatys et al. 2016, average
            activation 1 per filter), "vgg19_torchvision" (needs the internet) or "alexnet".
        layers: names such as "relu4_2" or "conv4_2" (VGG) and "relu3" (AlexNet).
        pooling: "max" or "average".
        padding: "zeros" or "reflect", see :class:`nstlib.nets.vgg.LayeredNet`.
        precision: see :func:`nstlib.nets.hardware.resolve_precision`.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        tensors: weights to use instead of the asset's, keyed "conv1_1.weight", ... (tests, own networks).

    Shape:
        input (N, 3, H, W), RGB in [0, 1], any H and W that leave the deepest layer one pixel;
        output: name -> (N, C_l, H_l, W_l) in the extractor's precision.

    Raises:
        SettingError: unknown network, layer, pooling, precision or device; picture too small for a layer.
        AssetError: the weights cannot be had.

    Example:
        >>> features = FeatureExtractor("vgg19", ["relu1_1", "relu4_2"])      # doctest: +SKIP
        >>> features(image)["relu4_2"].shape                                  # doctest: +SKIP
        torch.Size([1, 512, 64, 64])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: str = "vgg19", layers: Sequence[str] = ("relu4_2",), *, pooling: str = "max",
        padding: Border = "zeros", precision: str | torch.dtype = "auto", device: str | torch.device = "auto",
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if isinstance(layers, str):
            raise SettingError(f"layers is a list of names: write ['{layers}'].")
        self.network = network
        self.layer_names = tuple(dict.fromkeys(layers))
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        # MPS gains nothing from channels_last; oneDNN and cuDNN do.
        self.memory_format = torch.contiguous_format if self.device.type == "mps" else torch.channels_last
        net = LayeredNet(network, self.layer_names, pooling, padding)
        weights = assets.load_tensors(network) if tensors is None else tensors
        # The published normalized VGG-19 carries its own normalization: a 1x1 convolution that turns RGB in
        # [0, 1] into BGR in [0, 255] minus the mean. It stays in float32: bfloat16 would round it.
        self.first = nn.Conv2d(3, 3, 1) if network == "vgg19" else None
        self.net = net.load_layers(weights)
        if self.first is not None:
            self.first.load_state_dict({part: weights[f"conv0.{part}"] for part in ("weight", "bias")})
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()
        entry = torch.float64 if self.precision == torch.float64 else torch.float32
        self.to(self.device, entry)
        self.net.to(self.precision).to(memory_format=self.memory_format)

    def normalize(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), RGB in [0, 1] -> the color order and scale that the network was trained with."""
        if self.first is not None:
            return self.first(images)
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Activations of the named layers, in the order of ``layers``."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise SettingError(f"Pictures are (N, 3, H, W), not {tuple(images.shape)}: see load_image.")
        least, deepest = max((smallest_side(self.network, name), name) for name in self.layer_names)
        if min(images.shape[-2:]) < least:
            raise SettingError(
                f"A picture of {images.shape[-1]}×{images.shape[-2]} pixels is too small for {deepest} of "
                f"{self.network}: it needs {least} pixels a side; enlarge it or take a shallower layer."
            )
        x = self.normalize(images.to(self.device, self.mean.dtype))
        x = x.to(self.precision).contiguous(memory_format=self.memory_format)
        found = self.net(x)
        return {name: found[name] for name in self.layer_names}
