"""MobileStyleGAN: 512 random numbers to a face of 1024 pixels that belongs to nobody.

Sources: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN" (the mapping network,
which is StyleGAN2's own, trained on FFHQ), and Belousov 2021, "MobileStyleGAN: A Lightweight Convolutional
Neural Network for High-Fidelity Image Synthesis" (the synthesis network, which learned from StyleGAN2's
pictures). The released graph, which is followed here, has the paper's demodulation folded into its weights.

Between sizes stands an inverse Haar wavelet: a quarter of the channels are averages of 2 × 2 pixels, the
others their differences. The last features become 12 such coefficients, 4 for each of red, green and blue.

:class:`FacePrior` is the small generator made of it: the layers up to 128 pixels, and a head of our own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .official import load_in_order
from .style_generator import STRUCTURE, STYLE, After, StyleGenerator, check_codes

CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64)
"""Channels of the released network's features at 4, 8, 16 ... 512 pixels."""

CUT = 5
"""Doublings of the size before the distilled head: features of 128 pixels, a picture of 256."""

LIGHT = 160
"""Channels that the released network's last three modulations scale."""

SCALE = 64
"""About the size of features of 128 pixels: divided by it, they meet weights that an optimizer can change."""


class MappingNetwork(nn.Sequential):
    """z, drawn from the normal distribution, to w: StyleGAN2's eight layers.

    Shape:
        input (..., 512), output (..., 512).
    """

    def __init__(self) -> None:
        super().__init__(*(nn.Linear(STYLE, STYLE) for _ in range(8)))

    def forward(self, z: Tensor) -> Tensor:
        """(..., 512) -> (..., 512), each code by itself."""
        x = z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-8)
        for layer in self:
            x = F.leaky_relu(layer(x), 0.2) * math.sqrt(2)
        return x


class Modulation(nn.Linear):
    """Scales each channel by a linear function of w."""

    def __init__(self, channels: int) -> None:
        super().__init__(STYLE, channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:  # type: ignore[override]
        """Features (N, channels, H, W) and styles (N, 512) -> features."""
        return x * super().forward(w)[:, :, None, None]


class StyledConv(nn.Module):
    """Modulation, 3 × 3 convolution, the noise StyleGAN2 adds (here one map for all pictures), leaky ReLU.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        side: pixels a side, which the noise map has too.
        separable: a 3 × 3 convolution of each channel by itself, then a 1 × 1 of all: a ninth of the work.
    """

    def __init__(self, inputs: int, outputs: int, side: int, separable: bool = True) -> None:
        super().__init__()
        self.modulation = Modulation(inputs)
        if separable:
            depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
            self.conv = nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1))
        else:
            self.conv = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.noise = nn.Parameter(torch.zeros(1, 1, side, side))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Features (N, inputs, side, side) and styles (N, 512) -> features (N, outputs, side, side)."""
        # In place, which spares half the memory; the gradients need only what comes out.
        return F.leaky_relu_(self.conv(self.modulation(x, w)).add_(self.noise), 0.2)


class Level(nn.Module):
    """One doubling of the size: wavelet, convolution, convolution, each with a style of its own."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.up = Modulation(inputs)
        self.conv1 = StyledConv(inputs // 4, outputs, side)
        self.conv2 = StyledConv(outputs, outputs, side)

    def forward(self, x: Tensor, styles: Sequence[Tensor], after: After, index: int) -> Tensor:
        """Features (N, inputs, H, W) and three styles (N, 512) -> features (N, outputs, 2 H, 2 W)."""
        x = after(index, self.conv1(inverse_haar(self.up(x, styles[0])), styles[1]))
        return after(index + 1, self.conv2(x, styles[2]))


class SynthesisNetwork(nn.Module):
    """w to a picture of twice the size of the last features: 1024 pixels in the released network.

    Args:
        channels: of the features at 4, 8, 16 ... pixels, each a multiple of 4.

    Attributes:
        layers: number of styles: one at 4 pixels, three at each further size, one before the picture. 23 in
            the released network.
        size: pixels a side of the pictures.
        channels: of the features at 4, 8, 16 ... pixels.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        self.layers, self.size = 3 * len(channels) - 1, 4 << len(channels)
        self.channels = tuple(channels)
        self.input = nn.Parameter(torch.zeros(1, channels[0], 4, 4))
        self.conv1 = StyledConv(channels[0], channels[0], 4, separable=False)
        self.levels = nn.ModuleList(
            Level(inputs, outputs, 8 << index) for index, (inputs, outputs) in enumerate(pairwise(channels))
        )
        self.modulation = Modulation(channels[-1])
        self.to_img = nn.Conv2d(channels[-1], 12, 1)

    def forward(self, w: Tensor) -> Tensor:
        """Styles to pictures, differentiable.

        Args:
            w: (N, 512), one style for all layers, or w+ (N, layers, 512), one for each.

        Returns:
            (N, 3, size, size), RGB, about [-1, 1] (not clamped).

        Raises:
            SettingError: w has another shape.
        """
        return inverse_haar(self.coefficients(w))

    def coefficients(self, w: Tensor) -> Tensor:
        """Styles to the picture's wavelet coefficients (N, 12, size / 2, size / 2).

        The first three channels are twice the picture of half the size, for which the last doubling is not
        needed.
        """
        return self.to_img(self.modulation(self.features(w), self.w_plus(w)[:, -1]))

    def features(self, w: Tensor, levels: int | None = None, after: After = lambda _, x: x) -> Tensor:
        """Styles to the features after so many doublings of the size, or after all.

        Args:
            w: as for :meth:`forward`.
            levels: doublings; None: all.
            after: takes the index of a convolution and its features, and returns those for the next layer.

        Returns:
            (N, channels[levels], 4 · 2**levels, 4 · 2**levels).
        """
        first, *styles = self.w_plus(w).unbind(1)
        x = after(0, self.conv1(self.input.expand(len(first), -1, -1, -1), first))
        for index, level in enumerate(self.levels[:levels]):
            x = level(x, styles[3 * index : 3 * index + 3], after, 2 * index + 1)
        return x

    def w_plus(self, w: Tensor) -> Tensor:
        """One style for each layer: (N, 512) repeated, (N, layers, 512) as it is.

        Raises:
            SettingError: another shape.
        """
        check_codes(w, self.layers)
        return w[:, None].expand(-1, self.layers, -1) if w.ndim == 2 else w


class DistilledHead(nn.Module):
    """Features of 128 pixels to a picture of 256, by a head of our own.

    It was trained on the whole network's pictures, reduced to that size: the same face, softer. Its two maps
    of styles, ``modulation`` and ``light``, are the released network's own and learn nothing.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int = CHANNELS[CUT]) -> None:
        super().__init__()
        self.modulation = Modulation(channels)
        # Features beyond the border are those on it: with zeros the picture gets a frame.
        self.near = nn.Conv2d(
            channels, channels, 3, padding=1, groups=channels, bias=False, padding_mode="replicate"
        )
        self.to_img = nn.Conv2d(channels, 12, 1)
        self.detail = nn.Sequential(
            nn.Conv2d(channels, 64, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 12, 3, padding=1, padding_mode="replicate"),
        )
        # What the layers left out do to the light, by their own modulations: they have fewer numbers than w,
        # so that a few hundred faces teach what to make of them, a matrix and a shift of the colors.
        self.light, self.color = nn.Linear(STYLE, LIGHT), nn.Linear(LIGHT, 12)
        nn.init.zeros_(self.color.weight)
        nn.init.zeros_(self.color.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Features (N, channels, 128, 128), styles (N, 512) -> pictures (N, 3, 256, 256), about [-1, 1]."""
        x = self.near(self.modulation(x, style)) / SCALE
        picture = inverse_haar(self.to_img(x) + self.detail(x))
        matrix, shift = self.color(self.light(style)).split((9, 3), 1)
        changed = torch.einsum("nij,njhw->nihw", matrix.unflatten(1, (3, 3)), picture)
        return picture + changed + shift[:, :, None, None]


class FacePrior(StyleGenerator):
    """Codes to faces of 256 pixels in a fifth of a second, by layers that correspond to StyleGAN2's.

    What StyleGAN2 knows of faces lies in its coarse layers, and those are kept (they learned from StyleGAN2,
    on FFHQ); the later ones cost most of the time, and :class:`DistilledHead` replaces them. So whatever a
    method does with a StyleGAN2 of 1024 pixels can be done here at 256, on a processor.

    MobileStyleGAN has three styles at each size, StyleGAN2 two: here the doubling and the convolution behind
    it share one, as in StyleGAN2. So codes 0 to 6 are structure (4 to 32 pixels), 7 to 10 belong to the
    features of 64 and 128 pixels, 11 to the head, and the code of a face is (12, 512).

    Args:
        channels: of the features at 4, 8, 16 ... pixels, each a multiple of 4, four sizes at least.

    Attributes:
        synthesis: MobileStyleGAN's own layers.
        head: features to a picture.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS[: CUT + 1]) -> None:
        super().__init__()
        self.style = MappingNetwork()
        self.synthesis = SynthesisNetwork(channels)
        del self.synthesis.modulation, self.synthesis.to_img  # the head stands in for them
        self.head = DistilledHead(channels[-1])
        self.size, self.layers = 4 << len(channels), 2 * len(channels)
        self.structure_channels = tuple(channels[(index + 1) // 2] for index in range(STRUCTURE))

    @classmethod
    def of(cls, mapping: MappingNetwork, synthesis: SynthesisNetwork, head: DistilledHead) -> FacePrior:
        """The prior with the weights of networks that are there: copies, frozen."""
        prior = cls(synthesis.channels[: CUT + 1])
        prior.style.load_state_dict(mapping.state_dict())
        prior.head.load_state_dict(head.state_dict())
        prior.synthesis.load_state_dict(synthesis.state_dict(), strict=False)  # its last levels stay behind
        return prior.requires_grad_(False).eval()

    def synthesize(
        self, w_plus: Tensor, maps: Sequence[Tensor | None] = (), after: After = lambda _, x: x
    ) -> Tensor:
        """See :meth:`StyleGenerator.synthesize`; there are no maps."""
        pairs = range(1, self.layers - 2, 2)  # at each size a code for doubling and convolution, then one
        own = [0, *(code for first in pairs for code in (first, first, first + 1)), -1]
        return self.head(self.synthesis.features(w_plus[:, own], after=after), w_plus[:, -1])


def inverse_haar(x: Tensor) -> Tensor:
    """Wavelet coefficients to twice the size, where each 2 × 2 pixels are sums and differences of four.

    Args:
        x: (N, 4 C, H, W): C averages, then for each of the C its differences downward, to the right, and
            diagonally.

    Returns:
        (N, C, 2 H, 2 W).
    """
    quarter = x.shape[1] // 4
    low, high = x[:, :quarter] / 2, x[:, quarter:] / 2
    down, right, diagonal = high.unflatten(1, (quarter, 3)).unbind(2)
    top, bottom = low + down, low - down
    left, slope = right + diagonal, right - diagonal
    pixels = torch.stack([top + left, top - left, bottom + slope, bottom - slope], 2)
    return F.pixel_shuffle(pixels.flatten(1, 2), 2)


def haar(pictures: Tensor) -> Tensor:
    """The reverse of :func:`inverse_haar`: (N, C, 2 H, 2 W) -> (N, 4 C, H, W)."""
    a, b, c, d = F.pixel_unshuffle(pictures, 2).unflatten(1, (-1, 4)).unbind(2)
    low, high = a + b + c + d, torch.stack([a + b - c - d, a - b + c - d, a - b - c + d], 2)
    return torch.cat([low, high.flatten(1, 2)], 1) / 2


def from_official(
    mapping: Dictionary[str, Tensor], synthesis: Dictionary[str, Tensor]
) -> tuple[MappingNetwork, SynthesisNetwork]:
    """Both networks, frozen, with the tensors that ``assets.load_tensors`` gives for them.

    The released graphs have operations with running numbers ("MatMul_11", "Conv_22" ...) in the order in
    which they are computed, which is the order of the layers above. The factors behind the modulations
    ("Mul_20") are folded into these; constants that say nothing new (slopes, the wavelet's ±√½) are left out.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    pairs = zip(_of(mapping, "MatMul"), _of(mapping, "Reshape"), strict=False)
    layers = [tensor for pair in pairs for tensor in pair]
    mapper = load_in_order("MobileStyleGAN", "mobilestylegan_mapping", MappingNetwork, layers)

    filters, modulations = [[one] for one in _of(synthesis, "Conv")], _modulations(synthesis)
    # Of the maps and biases that are added: noise and bias of each convolution, the picture's bias at last.
    added = [[one] for one in _of(synthesis, "Add") if one.ndim == 4]
    # Depthwise, 1 × 1, depthwise, 1 × 1 at each level: the last of the four has its channels.
    channels = [len(one) for (one,) in filters[:-1:4]] or CHANNELS
    styled = [added, modulations, filters, filters, added]
    order = [added, modulations, filters, added]
    order += (len(channels) - 1) * [modulations, *styled, *styled] + [modulations, filters, added]
    tensors = _of(synthesis, "Expand")
    for queue in order:
        tensors += queue.pop(0) if queue else []
    unexpected = [tensor for queue in (filters, modulations, added) for part in queue for tensor in part]
    name, tensors = "mobilestylegan_synthesis", tensors + unexpected
    return mapper, load_in_order("MobileStyleGAN", name, lambda: SynthesisNetwork(channels), tensors)


def _of(tensors: Dictionary[str, Tensor], operation: str) -> list[Tensor]:
    """The constants of one kind of operation, by its number."""
    found = {int(m[1]): tensors[m[0]] for m in map(re.compile(rf"{operation}_(\d+)").fullmatch, tensors) if m}
    return [found[number] for number in sorted(found)]


def _modulations(tensors: Dictionary[str, Tensor]) -> list[list[Tensor]]:
    """Weight and bias of each modulation, with the factor that the released graph applies behind it."""
    weights, biases = _of(tensors, "MatMul"), [one for one in _of(tensors, "Add") if one.ndim == 2]
    factors = iter(_of(tensors, "Mul"))
    found = []
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=False)):
        # The wavelets' have none: the second modulation, and every third after it, but not the picture's.
        plain = index % 3 == 1 and index < len(weights) - 1
        factor = torch.ones(()) if plain else next(factors, torch.ones(())).reshape(())
        found.append([weight * factor, bias[0] * factor])
    return found
