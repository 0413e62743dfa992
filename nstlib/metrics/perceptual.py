"""What two pictures differ in to a network's eye: LPIPS, and the content and style distance of VGG.

Both look at feature maps instead of pixels. LPIPS weighs their channels so that the distance agrees with what
people called more alike; the VGG distances are the losses of style transfer, used as a ruler.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import assets
from ..errors import known
from ..losses import gram_matrix
from ..nets.features import FeatureExtractor
from ..nets.hardware import resolve_device
from ..nets.vgg import architecture, smallest_side
from .pixel import check_pair

# Our name of a backbone -> the lpips package's, and the deepest layer it looks at.
_BACKBONES = {"alexnet": ("alex", "relu5"), "vgg16": ("vgg", "relu5_3")}

CONTENT_LAYER = "relu4_2"  # Gatys et al. 2016; paper B
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # the five blocks: the same sources


class Lpips(nn.Module):
    """Learned perceptual image patch similarity (paper E, section 4.1): 0 for equal pictures, small is alike.

    The module and the five heads are the ``lpips`` package's (version 0.1 of the weights); the backbone is
    filled with the course's own AlexNet or VGG-16, which are the same numbers as the package downloads.
    Papers mostly report AlexNet; its authors advise VGG-16 as a loss. The two differ, so tables name it.

    Args:
        backbone: "alexnet" or "vgg16".
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        tensors: backbone weights to use instead of the asset's, keyed "conv1.weight", ... (tests).

    Shape:
        two (N, 3, H, W) in [0, 1] of one size, at least 31 (AlexNet) or 16 (VGG-16) pixels a side;
        output (N,) in float32, differentiable with respect to both.

    Raises:
        SettingError: unknown backbone or device; pictures that differ in number or size.
        ImageError: not pictures, values outside [0, 1], or too small.
        AssetError: the weights cannot be had.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
    """

    def __init__(
        self, backbone: str = "alexnet", *, device: str | torch.device = "auto",
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.device = resolve_device(device)
        self.least = smallest_side(backbone, _BACKBONES[known("backbone of LPIPS", backbone, _BACKBONES)][1])
        self.net = _package_module(backbone, assets.load_tensors(backbone) if tensors is None else tensors)
        self.requires_grad_(False).eval()
        self.to(self.device).to(memory_format=torch.channels_last)  # a fifth faster on a processor

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of a's picture n to b's picture n, for all n."""
        check_pair(a, b, least=self.least)
        a, b = (
            x.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last) for x in (a, b)
        )
        return self.net(a, b, normalize=True).flatten()


def _package_module(backbone: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The package's LPIPS with its own heads and our convolutions."""
    import lpips  # here: it brings in scipy and matplotlib, which not every user of Lpips' module needs

    name = _BACKBONES[backbone][0]
    # On "meta" nothing is allocated: the package would draw a whole random VGG-16, half a gigabyte, first.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision by names that torchvision has deprecated
        net = lpips.LPIPS(pretrained=False, net=name, pnet_rand=True, verbose=False)
    net.scaling_layer = lpips.ScalingLayer()
    heads = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{name}.pth"
    state = torch.load(heads, map_location="cpu", weights_only=True)
    # The package lists its heads twice (lin0 ... and lins), so the same tensors are given under both names.
    state |= {key.replace("lin", "lins.", 1): value for key, value in state.items()}
    ours = (layer.name for layer in architecture(backbone) if layer.kind == "conv")
    theirs = (key for key, module in net.net.named_modules() if isinstance(module, nn.Conv2d))
    for own, key in zip(ours, theirs, strict=True):
        state |= {f"net.{key}.{part}": tensors[f"{own}.{part}"] for part in ("weight", "bias")}
    net.load_state_dict(state | net.scaling_layer.state_dict(prefix="scaling_layer."), assign=True)
    return net


class VggDistance:
    """Content and style loss of Gatys et al. 2016 as distances between any two pictures.

    Through the normalized VGG-19, in float32 whatever the hardware likes: a measured number must not depend
    on the machine. The scale is this network's: compare within one table, not with losses of another program.

    Args:
        device: see :func:`nstlib.nets.hardware.resolve_device`.

    Raises:
        AssetError: the weights cannot be had.

    Source: papers A (1)-(3), B (3)-(5).
    """

    def __init__(self, *, device: str | torch.device = "auto") -> None:
        self.features: Callable[[Tensor], Mapping[str, Tensor]] = FeatureExtractor(
            "vgg19", (CONTENT_LAYER, *STYLE_LAYERS), precision="float32", device=device
        )

    def content(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared difference of relu4_2: how far the pictures' contents are apart, place by place.

        Args:
            a: (N, 3, H, W) in [0, 1].
            b: of the same shape.

        Returns:
            (N,) in float32, differentiable.

        Raises:
            ImageError: not pictures, or values outside [0, 1].
            SettingError: the two differ in number or size, or are too small for the network.
        """
        check_pair(a, b)
        maps_a, maps_b = (self.features(x)[CONTENT_LAYER] for x in (a, b))
        return (maps_a - maps_b).square().mean((1, 2, 3))

    def style(self, a: Tensor, b: Tensor) -> Tensor:
        """How far the pictures' styles are apart, wherever things are in them.

        The mean over relu1_1 ... relu5_1 of the mean squared difference of their Gram matrices, each divided
        by H·W.

        Args:
            a: (N, 3, H, W) in [0, 1].
            b: (N, 3, H', W') of any size.

        Returns:
            (N,) in float32, differentiable.

        Raises:
            ImageError: not pictures, or values outside [0, 1].
            SettingError: the two differ in number, or are too small for the network.
        """
        check_pair(a, b, same_size=False)
        maps_a, maps_b = self.features(a), self.features(b)
        terms = [
            (gram_matrix(maps_a[layer]) - gram_matrix(maps_b[layer])).square().mean((1, 2))
            for layer in STYLE_LAYERS
        ]
        return torch.stack(terms).mean(0)
