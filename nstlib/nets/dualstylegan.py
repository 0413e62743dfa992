"""DualStyleGAN: a face generator with a second, extrinsic path for the style of an artistic portrait.

Source: paper A, section 3.2, and Yang et al. 2022, "Pastiche Master: Exemplar-Based High-Resolution Portrait
Style Transfer" (section 3.2, figure 4). The intrinsic path is StyleGAN2. The extrinsic path enters it

- in the first 7 layers (4 to 32 pixels) through modulative residual blocks, ModRes, whose styles first pass a
  small network, T_s: the structure, such as large eyes or a strong chin;
- in the others by interpolating both paths' w, the extrinsic one after a linear layer, T_c: the colors.

Names and shapes of the weights are those of the published checkpoints, whose ``style`` is T_s, ``res.0`` to
``res.6`` are ModRes, and ``res.7`` on are T_c. In those checkpoints' moving average, T_s still has its random
initial weights, because only ``res`` was averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from .official import load_strict
from .style_generator import STRUCTURE, STYLE, StyleGenerator
from .stylegan2 import Generator, generator_plan
from .stylegan2_layers import Bias, EqualConv, EqualLinear, linear, mapping_network, per_channel


class AdaIN(nn.Module):
    """Each channel to mean 0 and deviation 1, then to a mean and deviation given by the style.

    Source: Huang and Belongie 2017, equation 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.style = nn.Linear(STYLE, 2 * channels)
        with torch.no_grad():
            self.style.bias.copy_(torch.cat([torch.ones(channels), torch.zeros(channels)]))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Features (N, channels, H, W) and styles (N, 512) -> features."""
        deviation, mean = linear(style, self.style.weight, self.style.bias).chunk(2, dim=1)
        return torch.addcmul(per_channel(mean, x), F.instance_norm(x), per_channel(deviation, x))


class ModRes(nn.Module):
    """The modulative residual block: adds a residual that depends on the style, small at first.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.norm2 = AdaIN(channels), AdaIN(channels)
        first, second = (EqualConv(channels, channels, 3) for _ in range(2))
        with torch.no_grad():
            # The residual is nearly 0 at first, so that training starts at StyleGAN2's faces.
            first.weight.mul_(0.01)
            second.weight.mul_(0.01)
        self.conv, self.conv2 = nn.Sequential(first, Bias(channels)), nn.Sequential(second, Bias(channels))

    def forward(self, x: Tensor, style: Tensor, weight: Tensor) -> Tensor:
        """Features (N, channels, H, W), structure codes (N, 512) and weights (N or 1,) -> features."""
        residual = self.conv2(self.norm2(self.conv(self.norm(x, style)), style))
        return torch.addcmul(x, residual, per_channel(weight[:, None], x))


class BottleneckModRes(nn.Module):
    """ModRes between two 1 × 1 convolutions: with 64 channels between them, a tenth of the weights.

    Ours; with it a trained style is a small file.

    Args:
        channels: in and out.
        middle: channels between the two 1 × 1 convolutions.
    """

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.narrow, self.widen = EqualConv(channels, middle, 1), EqualConv(middle, channels, 1)
        self.norm, self.norm2 = AdaIN(middle), AdaIN(middle)
        self.conv = nn.Sequential(EqualConv(middle, middle, 3), Bias(middle))
        with torch.no_grad():
            self.widen.weight.mul_(0.01)  # as in ModRes

    def forward(self, x: Tensor, style: Tensor, weight: Tensor) -> Tensor:
        """Features (N, channels, H, W), structure codes (N, 512) and weights (N or 1,) -> features."""
        residual = self.widen(self.norm2(self.conv(self.norm(self.narrow(x), style)), style))
        return torch.addcmul(x, residual, per_channel(weight[:, None], x))


class ColorTransform(EqualLinear):
    """T_c of one layer: a linear map of the extrinsic w, at first nearly the identity."""

    def __init__(self) -> None:
        super().__init__(STYLE, STYLE)
        with torch.no_grad():
            self.weight.mul_(0.01).add_(math.sqrt(STYLE) * torch.eye(STYLE))


class DualStyleGAN(nn.Module):
    """An intrinsic code (the face) and an extrinsic one (the style) to a picture.

    Args:
        size: pixels a side of the pictures, a power of two from 32 to 1024.
        channels: of the features at 4, 8, 16 ... ``size`` pixels; None: configuration F's.
        source: another generator as the intrinsic path, instead of such a StyleGAN2; see :meth:`over`.
        bottleneck_channels: of a smaller extrinsic path, see :class:`BottleneckModRes`; None: as published.

    Attributes:
        generator: the intrinsic path, a whole StyleGAN2 (or the source).
        style: T_s.
        res: 7 ModRes, then a T_c for each further layer.
        layers: codes of a z+ or w+, 18 at 1024 pixels: 7 of structure, 11 of color.
        size: pixels a side.

    Raises:
        SettingError: another size.
    """

    def __init__(
        self, size: int = 1024, channels: Sequence[int] | None = None, *,
        source: StyleGenerator | None = None, bottleneck_channels: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.style = mapping_network(2)
        self.generator = Generator(size, channels) if source is None else source
        self.size, self.layers = self.generator.size, self.generator.layers
        structure: list[nn.Module] = [
            ModRes(width) if bottleneck_channels is None else BottleneckModRes(width, bottleneck_channels)
            for width in self.generator.structure_channels
        ]
        self.res = nn.ModuleList([*structure, *(ColorTransform() for _ in range(self.layers - STRUCTURE))])

    @classmethod
    def over(cls, source: StyleGenerator, bottleneck_channels: int | None = 64) -> DualStyleGAN:
        """A new extrinsic path on any generator with styles, which itself stays as it is."""
        return cls(source=source, bottleneck_channels=bottleneck_channels)

    def extrinsic_state(self) -> dict[str, Tensor]:
        """The weights of the extrinsic path alone: T_s, ModRes and T_c."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("generator.")}

    def forward(
        self, intrinsic: Tensor, extrinsic: Tensor | None = None, *, space: str = "z",
        extrinsic_space: str = "z", interp_weights: float | Sequence[float] | Tensor = 1.0,
        fuse_index: int | None = None, keep_colors: bool = False, truncation: float = 1.0,
        center: Tensor | None = None, noise: Sequence[Tensor | None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Codes to pictures, differentiable.

        Args:
            intrinsic: the face: z or w (N, 512), z+ or w+ (N, layers, 512).
            extrinsic: the style, likewise, N or a single one for all; None: StyleGAN2's own picture.
            space: of ``intrinsic``: "z" or "w".
            extrinsic_space: of ``extrinsic``: "z" or "w".
            interp_weights: how much of the extrinsic path enters each layer: a number, (layers,) or
                (N, layers), see :func:`layer_weights`. With 0 the layer is StyleGAN2's.
            fuse_index: the last layer with the extrinsic path, counted from 0, except that 0 means none, as
                in the released code; None: all have it.
            keep_colors: keep the face's colors: the color layers get its w, not truncated, instead of the
                style's.
            truncation: of the intrinsic w, 1 for none. The released program has 0.75.
            center: the w to truncate toward; None: 0. See :meth:`StyleGenerator.w_plus`.
            noise: see :meth:`StyleGenerator.forward`.

        Returns:
            (N, 3, size, size), RGB, about [-1, 1] (not clamped).

        Raises:
            SettingError: codes or weights of another shape; an unknown space.
        """
        source = self.generator
        face = source.w_plus(intrinsic, space)
        w_plus = source.w_plus(face, "w", truncation, center)
        maps = source.noise_maps() if noise is None else noise
        if extrinsic is None:
            return source.synthesize(w_plus, maps)
        art = source.w_plus(extrinsic, extrinsic_space)
        art = art.expand(len(face), -1, -1)
        if keep_colors:
            art = torch.cat([art[:, :STRUCTURE], face[:, STRUCTURE:]], 1)
        weights = self._weights(interp_weights, face)
        fused = self._fused(weights, fuse_index)
        structure = self.style(art[:, :STRUCTURE])

        mixed = list(w_plus.unbind(1))
        for index in range(STRUCTURE, self.layers):
            if fused[index]:
                color = self.res[index](art[:, index])
                mixed[index] = torch.lerp(mixed[index], color, weights[:, index, None])

        def residual(index: int, x: Tensor) -> Tensor:
            if index >= STRUCTURE or not fused[index]:
                return x
            return self.res[index](x, structure[:, index], weights[:, index])

        return source.synthesize(torch.stack(mixed, 1), maps, residual)

    def _weights(self, weights: float | Sequence[float] | Tensor, face: Tensor) -> Tensor:
        """In the shape (1 or N, layers), on the device of the faces' codes."""
        found = torch.as_tensor(weights, dtype=face.dtype, device=face.device)
        if found.ndim == 0:
            return found.expand(1, self.layers)
        if found.shape not in ((self.layers,), (1, self.layers), (len(face), self.layers)):
            raise SettingError(
                f"interp_weights {tuple(found.shape)} are not one for each layer ({self.layers})."
            )
        return found.reshape(-1, self.layers)

    def _fused(self, weights: Tensor, fuse_index: int | None) -> list[bool]:
        """Which layers the extrinsic path enters; for a weight of 0 nothing is computed."""
        last = self.layers if fuse_index is None else fuse_index
        entered = weights.detach().ne(0).any(0).tolist()
        return [0 < last >= index and (one or weights.requires_grad) for index, one in enumerate(entered)]


def layer_weights(
    layers: int, structure: float | Sequence[float] = 1.0, color: float | Sequence[float] = 1.0
) -> list[float]:
    """``interp_weights`` from one strength, or one for each layer, of the structure and of the color.

    Args:
        layers: of the network.
        structure: from 0, the face's, to 1, the style's; a number, or 7 of them.
        color: likewise; a number, or layers - 7 of them.

    Raises:
        SettingError: another number of strengths.
    """
    found: list[float] = []
    for name, given, number in (("structure", structure, STRUCTURE), ("color", color, layers - STRUCTURE)):
        each = [float(given)] * number if isinstance(given, int | float) else [float(one) for one in given]
        if len(each) != number:
            raise SettingError(f"{name} is one number, or one for each of {number} layers, not {len(each)}.")
        found += each
    return found


def from_official(state_dict: Mapping[str, Tensor]) -> DualStyleGAN:
    """A frozen DualStyleGAN with published weights ("g_ema" of a checkpoint), its size read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    return load_strict(
        "DualStyleGAN", lambda: DualStyleGAN(*generator_plan(state_dict, "generator.")), state_dict
    )


class Sampler(nn.Module):
    """Random numbers to extrinsic codes, distributed like those of a style's portraits.

    Source: paper A, section 3.2 (stage four, the sampling network): one such network draws the 7
    structure codes, another one the color codes.

    Args:
        codes: number of codes, each of 512 numbers.
        inputs: random numbers, and the width of the layers.

    Shape:
        input (N, inputs), drawn from the normal distribution; output (N, codes · 512), as published;
        :meth:`codes` gives the same as codes.
    """

    def __init__(self, codes: int, inputs: int = 128) -> None:
        super().__init__()
        self.lin1, self.bn1 = nn.Linear(inputs, inputs, bias=False), nn.BatchNorm1d(inputs)
        self.lin2, self.bn2 = nn.Linear(inputs, inputs, bias=False), nn.BatchNorm1d(inputs)
        self.lin_out = nn.Linear(inputs, codes * STYLE, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """(N, inputs) -> (N, codes · 512)."""
        x = F.relu(self.bn1(self.lin1(z)))
        x = F.relu(self.bn2(self.lin2(x)))
        return self.lin_out(x)

    def codes(self, z: Tensor) -> Tensor:
        """(N, inputs) -> (N, codes, 512)."""
        return self(z).unflatten(1, (-1, STYLE))


def sampler_from_official(state_dict: Mapping[str, Tensor]) -> Sampler:
    """A frozen sampler with published weights; the number of its codes is read from them.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """

    def make() -> Sampler:
        codes, inputs = len(state_dict["lin_out.weight"]) // STYLE, len(state_dict["lin1.weight"])
        return Sampler(codes, inputs)

    return load_strict("DualStyleGAN's sampler", make, state_dict)
