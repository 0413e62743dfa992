"""The layers of StyleGAN2, of which DualStyleGAN and the encoder of pSp are built as well.

Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN": the modulated convolution
(section 2.2, equations 1 to 3), skip generator and residual discriminator (section 4.1), and of 2018, "A
Style-Based Generator Architecture for Generative Adversarial Networks": mapping network, noise, blur. Names
and shapes of the weights are those of the PyTorch checkpoints that DualStyleGAN (paper A) and JoJoGAN
start from.

A style scales the input channels of a convolution's weights, so that each picture of a batch needs weights of
its own, and a grouped convolution, which is slow on processors and in bfloat16. The same sums come out when
the style scales the channels of the features instead, before a convolution that all pictures share:

    sum_i (s_i · w_oi) * x_i  =  sum_i w_oi * (s_i · x_i)              (equation 1, of feature map o)

and the demodulation (equation 3) is one number for each feature map, by which the result is multiplied.

Under ``torch.autocast`` the convolutions run in bfloat16; styles, demodulation and pictures stay in float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .style_generator import STYLE

GAIN = math.sqrt(2)
"""A leaky ReLU reduces the deviation of its input by about this factor; each is followed by it."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` in float32 or better, whatever autocast says: bfloat16 would round a style to 8 bits."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.to(exact), weight.to(exact), None if bias is None else bias.to(exact))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(N, C) or (C,) in the shape and number format of features (N, C, H, W)."""
    return values.to(x.dtype).reshape(-1, values.shape[-1], 1, 1)


def fast_layout(x: Tensor) -> Tensor:
    """Features as oneDNN and cuDNN convolve them fastest, channels last; what follows keeps the layout."""
    return x if x.device.type == "mps" else x.contiguous(memory_format=torch.channels_last)


class EqualLinear(nn.Module):
    """A linear layer with an equalized learning rate: weights of deviation 1, scaled where they are used.

    Args:
        inputs: numbers in.
        outputs: numbers out.
        bias: what the bias starts with.
        rate: how much slower than the others this layer learns (0.01 in the mapping network).
        activate: a leaky ReLU behind it.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.rate, self.activate = rate, activate

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        x = linear(x * (self.rate / math.sqrt(x.shape[-1])), self.weight, self.bias * self.rate)
        return F.leaky_relu(x, 0.2) * GAIN if self.activate else x


class EqualConv(nn.Module):
    """A convolution with an equalized learning rate, without a bias (:class:`Bias` brings one).

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: pixels a side of the filters, 1 or 3.
        halve: keep every second pixel, counted from the first; without it, a border of zeros keeps the size.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, halve: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H', W')."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        padding = 0 if self.halve else weight.shape[-1] // 2
        return F.conv2d(x, weight, stride=1 + self.halve, padding=padding)


class PixelNorm(nn.Module):
    """Codes brought to a mean square of 1."""

    def forward(self, z: Tensor) -> Tensor:
        """(..., 512) -> (..., 512)."""
        return z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-8)


def mapping_network(depth: int) -> nn.Sequential:
    """z to w, each code by itself: 8 layers in StyleGAN2, 2 in DualStyleGAN's T_s.

    Shape:
        (..., 512) -> (..., 512).
    """
    layers = (EqualLinear(STYLE, STYLE, rate=0.01, activate=True) for _ in range(depth))
    return nn.Sequential(PixelNorm(), *layers)


class Blur(nn.Module):
    """The low-pass filter [1, 3, 3, 1] in both directions, around a change of the size.

    Args:
        padding: zeros on each side.
        stride: 2 keeps every second pixel.
        gain: 4 behind a doubling of the size, which puts three zeros beside each value.
    """

    kernel: Tensor

    def __init__(self, padding: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", gain * taps[:, None] * taps)
        self.padding, self.stride = padding, stride

    def weight(self, x: Tensor) -> Tensor:
        """The filter once for each channel of x."""
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W') with H' = (H + 2 padding - 4) // stride + 1."""
        weight = self.weight(x).flip(2, 3)  # a convolution proper; torch's turns the filter around
        return F.conv2d(x, weight, bias, self.stride, self.padding, groups=x.shape[1])


class Upsample(Blur):
    """Twice the size: zeros put between the pixels, then the filter. Always in float32, for pictures."""

    def __init__(self) -> None:
        super().__init__(padding=1, stride=2, gain=4.0)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, 2 H, 2 W)."""
        with torch.autocast(x.device.type, enabled=False):
            return F.conv_transpose2d(x, self.weight(x), bias, 2, 1, groups=x.shape[1])


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style (equations 1 to 3).

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: pixels a side of the filters.
        upsample: double the size, then blur.
        demodulate: bring each feature map back to a deviation of 1 (equation 3).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, upsample: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(STYLE, inputs, bias=1.0)
        self.demodulate = demodulate
        self.blur = Blur(padding=1, gain=4.0) if upsample else None

    def factors(self, style: Tensor) -> Tensor:
        """The factors of the sums: styles (N, inputs) -> (N, outputs), float32.

        The equalized learning rate's 1 / sqrt(inputs · kernel²), and the demodulation.
        """
        scale = 1 / math.sqrt(self.weight[0, 0].numel())
        if not self.demodulate:
            return style.new_full((len(style), self.weight.shape[1]), scale)
        # The sum over i and k of (s_i · w_oik)², from which s_i² can be taken out.
        power = linear(style.square(), self.weight[0].square().sum((2, 3)))
        return scale * torch.rsqrt(scale**2 * power + 1e-8)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution without any style; ``weight`` is (outputs, inputs, kernel, kernel)."""
        if self.blur is None:
            return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), bias)

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None = None, gain: float = 1.0) -> Tensor:
        """Modulate, convolve, demodulate, multiply by ``gain``, add ``bias``.

        Args:
            x: features (N, inputs, H, W).
            w: styles (N, 512).
            bias: (outputs,).
            gain: of the features, not of the bias.

        Returns:
            (N, outputs, H, W), or twice the size.
        """
        style = self.modulation(w)
        factor = gain * self.factors(style)
        if len(x) == 1 and x.numel() > self.weight.numel():
            # One picture, and fewer weights than pixels: there it is the weights that are cheaper to scale.
            weight = self.weight[0] * style[0, :, None, None] * factor[0, :, None, None, None]
            return self.convolve(x, weight, bias)
        x = self.convolve(x * per_channel(style, x), self.weight[0])
        factor = per_channel(factor, x)
        return x * factor if bias is None else torch.addcmul(per_channel(bias, x), x, factor)


class Noise(nn.Module):
    """The strength of the noise, one number for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class Bias(nn.Module):
    """Bias and leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        # Positive factors pass a leaky ReLU, so the gain goes first, together with the bias.
        return F.leaky_relu_(torch.add(per_channel(GAIN * self.bias, x), x, alpha=GAIN), 0.2)


class StyledConv(nn.Module):
    """Modulated 3 × 3 convolution, noise, bias, leaky ReLU: one layer of the generator."""

    def __init__(self, inputs: int, outputs: int, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, upsample)
        self.noise = Noise()
        self.activate = Bias(outputs)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Features (N, inputs, H, W), styles (N, 512), noise (1 or N, 1, H', W') -> (N, outputs, H', W')."""
        # As in Bias: the gain goes first, where it costs nothing. In place, which spares half the memory.
        x = self.conv(x, w, GAIN * self.activate.bias, GAIN)
        if noise is not None:
            x = x.add_((GAIN * self.noise.weight * noise).to(x.dtype))
        return F.leaky_relu_(x, 0.2)


class ToRGB(nn.Module):
    """Features to their contribution to the picture (figure 7b)."""

    def __init__(self, inputs: int, upsample: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.conv = ModulatedConv(inputs, 3, 1, demodulate=False)
        if upsample:
            self.upsample = Upsample()

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None = None) -> Tensor:
        """Features (N, inputs, H, W), styles (N, 512), picture (N, 3, H / 2, W / 2) -> (N, 3, H, W)."""
        rgb = self.conv(x, w).to(self.bias.dtype) + self.bias
        return rgb if image is None else rgb + self.upsample(image)


class Constant(nn.Module):
    """The learned features of 4 × 4 pixels that every picture starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, number: int) -> Tensor:
        """(number, channels, 4, 4)."""
        return fast_layout(self.input.expand(number, -1, -1, -1))
