"""StyleGAN2 and DualStyleGAN the plain way, from a state dict with the published names.

What tests hold nstlib.nets.stylegan2 and nstlib.nets.dualstylegan to, and what a benchmark times them
against. Every picture of a batch gets convolutions with weights of its own, computed in groups; a filter is
"put zeros between, pad, filter, keep every n-th"; noise, bias and leaky ReLU are steps of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
STRUCTURE = 7


def equal_linear(state: State, name: str, x: Tensor, rate: float = 1.0) -> Tensor:
    weight = state[f"{name}.weight"]
    return x @ (weight * rate / math.sqrt(weight.shape[1])).T + state[f"{name}.bias"] * rate


def activate(x: Tensor, bias: Tensor) -> Tensor:
    return F.leaky_relu(x + bias[:, None, None], 0.2) * math.sqrt(2)


def mapping(state: State, name: str, depth: int, z: Tensor) -> Tensor:
    x = z / (z.square().mean(-1, keepdim=True) + 1e-8).sqrt()
    for index in range(1, depth + 1):
        x = F.leaky_relu(equal_linear(state, f"{name}.{index}", x, 0.01), 0.2) * math.sqrt(2)
    return x


def upfirdn(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    n, c, height, width = x.shape
    if up > 1:
        spread = x.new_zeros(n, c, height, up, width, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.reshape(n, c, height * up, width * up)
    x = F.pad(x.reshape(n * c, 1, *x.shape[2:]), (*pad, *pad))
    x = F.conv2d(x, kernel.flip(0, 1)[None, None])
    return x.reshape(n, c, *x.shape[2:])[:, :, ::down, ::down]


def modulated_conv(state: State, name: str, x: Tensor, w: Tensor, demodulate: bool = True) -> Tensor:
    style = equal_linear(state, f"{name}.modulation", w)
    _, outputs, inputs, kernel, _ = state[f"{name}.weight"].shape
    weight = state[f"{name}.weight"] / math.sqrt(inputs * kernel**2) * style[:, None, :, None, None]
    if demodulate:
        weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    n = len(x)
    x = x.reshape(1, n * inputs, *x.shape[2:])
    if f"{name}.blur.kernel" not in state:
        x = F.conv2d(x, weight.flatten(0, 1), padding=kernel // 2, groups=n)
        return x.reshape(n, outputs, *x.shape[2:])
    x = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    return upfirdn(x.reshape(n, outputs, *x.shape[2:]), state[f"{name}.blur.kernel"], pad=(1, 1))


def styled_conv(state: State, name: str, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
    x = modulated_conv(state, f"{name}.conv", x, w)
    if noise is not None:
        x = x + state[f"{name}.noise.weight"] * noise
    return activate(x, state[f"{name}.activate.bias"])


def to_rgb(state: State, name: str, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
    rgb = modulated_conv(state, f"{name}.conv", x, w, demodulate=False) + state[f"{name}.bias"]
    if image is None:
        return rgb
    return rgb + upfirdn(image, state[f"{name}.upsample.kernel"], up=2, pad=(2, 1))


def generator(
    state: State,
    w_plus: Tensor,
    maps: Sequence[Tensor | None] | None = None,
    name: str = "",
    after: Callable[[int, Tensor], Tensor] = lambda _, x: x,
) -> Tensor:
    """w+ (N, layers, 512) to pictures; the noise is the network's own if none is given."""
    layers = w_plus.shape[1]
    if maps is None:
        maps = [state[f"{name}noises.noise_{index}"] for index in range(layers - 1)]
    x = state[f"{name}input.input"].repeat(len(w_plus), 1, 1, 1)
    x = after(0, styled_conv(state, f"{name}conv1", x, w_plus[:, 0], maps[0]))
    image = to_rgb(state, f"{name}to_rgb1", x, w_plus[:, 1], None)
    for index in range(1, layers - 1):
        x = styled_conv(state, f"{name}convs.{index - 1}", x, w_plus[:, index], maps[index])
        x = after(index, x)
        if index % 2 == 0:
            image = to_rgb(state, f"{name}to_rgbs.{index // 2 - 1}", x, w_plus[:, index + 1], image)
    return image


def adain(state: State, name: str, x: Tensor, style: Tensor) -> Tensor:
    factors = style @ state[f"{name}.style.weight"].T + state[f"{name}.style.bias"]
    deviation, mean = factors[:, :, None, None].chunk(2, 1)
    variance, average = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return deviation * (x - average) / (variance + 1e-5).sqrt() + mean


def mod_res(state: State, name: str, x: Tensor, style: Tensor, weight: float) -> Tensor:
    residual = x
    for part in ("", "2"):
        residual = adain(state, f"{name}.norm{part}", residual, style)
        filters = state[f"{name}.conv{part}.0.weight"]
        residual = F.conv2d(residual, filters / math.sqrt(filters[0].numel()), padding=1)
        residual = activate(residual, state[f"{name}.conv{part}.1.bias"])
    return x + weight * residual


def dualstylegan(state: State, w_plus: Tensor, art: Tensor, weights: Sequence[float], last: int) -> Tensor:
    """Both paths' w+ to pictures; layers beyond ``last`` have the intrinsic path alone."""
    structure = mapping(state, "style", 2, art)
    used = [weight if index <= last else 0 for index, weight in enumerate(weights)]
    codes = [
        code if index < STRUCTURE else (1 - used[index]) * code
        + used[index] * equal_linear(state, f"res.{index}", art[:, index])
        for index, code in enumerate(w_plus.unbind(1))
    ]  # fmt: skip

    def after(index: int, x: Tensor) -> Tensor:
        if index >= STRUCTURE or not used[index]:
            return x
        return mod_res(state, f"res.{index}", x, structure[:, index], used[index])

    return generator(state, torch.stack(codes, 1), name="generator.", after=after)
