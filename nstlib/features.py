"""Feature maps by name: picture in, activations of named layers out.

One extractor for VGG-16, VGG-19 and AlexNet. It normalizes for itself, computes nothing beyond the deepest
layer asked for, and picks the fastest precision that leaves the picture unchanged to the eye.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from . import assets
from .errors import SettingError
from .nets.vgg import LayeredNet, smallest_side

NETWORKS = ("vgg16", "vgg19", "alexnet", "vgg19_torchvision")

# torchvision's networks (and LPIPS', which are the same numbers) were trained on RGB normalized like this.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on: "auto" takes CUDA, then Apple's MPS, then the processor.

    Raises:
        SettingError: the device asked for is not there.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise SettingError(
            f"'{device}' is no device; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise SettingError(
            "No CUDA GPU is usable here; use device='cpu' (or 'auto'), or install NVIDIA's driver."
        )
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError("Apple's MPS is not usable here; use device='cpu' (or 'auto').")
    return resolved


def processor_likes_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AMX or AVX512-BF16).

    Without it bfloat16 is emulated and several times slower than float32.
    """
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        if getattr(torch.cpu, probe, lambda: False)():
            return True
    return False


def resolve_precision(
    precision: str | torch.dtype = "auto", device: torch.device | str = "cpu"
) -> torch.dtype:
    """The number format of the convolutions.

    "auto" is bfloat16 where the hardware is good at it (a processor with AMX or AVX512-BF16, a CUDA GPU from
    Ampere on), float32 elsewhere. Gram matrices and losses are float32 in either case.

    Raises:
        SettingError: not one of "auto", "float32", "bfloat16", "float64".
    """
    if isinstance(precision, torch.dtype):
        return precision
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
    if precision in formats:
        return formats[precision]
    if precision != "auto":
        raise SettingError(
            f"precision is 'auto', 'float32', 'bfloat16' or 'float64' (for checks), not '{precision}'."
        )
    kind = torch.device(device).type
    if kind == "cpu":
        return torch.bfloat16 if processor_likes_bfloat16() else torch.float32
    if kind == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8:
        return torch.bfloat16
    return torch.float32


class FeatureExtractor(nn.Module):
    """Pictures in, activations of named layers out; frozen, and differentiable with respect to the picture.

    Args:
        network: "vgg16" (torchvision's weights), "vgg19" (the normalized one of Gatys et al. 2016, average
            activation 1 per filter), "vgg19_torchvision" (needs the internet) or "alexnet".
        layers: names such as "relu4_2" or "conv4_2" (VGG) and "relu3" (AlexNet).
        pooling: "max" or "average".
        precision: see :func:`resolve_precision`.
        device: see :func:`resolve_device`.
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
        self,
        network: str = "vgg19",
        layers: Sequence[str] = ("relu4_2",),
        *,
        pooling: str = "max",
        precision: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if network not in NETWORKS:
            raise SettingError(f"There is no network '{network}' here: choose one of {', '.join(NETWORKS)}.")
        self.network = network
        self.layer_names = tuple(dict.fromkeys(layers))
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        # MPS gains nothing from channels_last; oneDNN and cuDNN do.
        self.memory_format = torch.contiguous_format if self.device.type == "mps" else torch.channels_last
        net = LayeredNet(network, self.layer_names, pooling)
        weights = assets.load_tensors(network) if tensors is None else tensors
        self.net = net.load_layers(weights)
        self.first: nn.Conv2d | None = None
        if network == "vgg19":
            # The published normalized VGG-19 carries its own normalization: a 1x1 convolution that turns
            # RGB in [0, 1] into BGR in [0, 255] minus the mean. It stays in float32: bfloat16 would round it.
            self.first = nn.Conv2d(3, 3, 1)
            self.first.load_state_dict({"weight": weights["conv0.weight"], "bias": weights["conv0.bias"]})
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()
        entry = torch.float64 if self.precision == torch.float64 else torch.float32
        self.to(self.device, entry)
        self.net.to(dtype=self.precision, memory_format=self.memory_format)

    def normalize(self, images: Tensor) -> Tensor:
        """What the network itself sees: (N, 3, H, W), RGB in [0, 1] -> its own color order and scale."""
        if self.first is not None:
            return self.first(images)
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Activations of the named layers, in the order they were asked for."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise SettingError(
                f"A batch of pictures has the shape (N, 3, H, W), not {tuple(images.shape)}; "
                "load_image gives the right one."
            )
        shortest = min(images.shape[-2:])
        for name in self.layer_names:
            least = smallest_side(self.network, name)
            if shortest < least:
                raise SettingError(
                    f"A picture of {images.shape[-1]}×{images.shape[-2]} pixels is too small for {name} of "
                    f"{self.network}: it needs {least} pixels a side; enlarge it or take a shallower layer."
                )
        x = self.normalize(images.to(self.device, self.mean.dtype))
        x = x.to(self.precision).contiguous(memory_format=self.memory_format)
        found = self.net(x)
        return {name: found[name] for name in self.layer_names}
