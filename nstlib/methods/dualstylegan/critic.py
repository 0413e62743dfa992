"""Critics of pictures: StyleGAN2's, and a quick one that looks at features which the losses compute anyway.

Source of the second: Sauer et al. 2021, "Projected GANs Converge Faster": small networks over the frozen
features of one that knows pictures tell real from drawn ones with few examples and in little time. Ours sees
the raw layers, without their random mixing.

A few portraits are soon known by heart. So what a critic sees is mirrored, moved and changed in color at
random, drawn and real pictures alike (Zhao et al. 2020, "Differentiable Augmentation"). Of StyleGAN2's critic
it is the pictures, of the quick one the features; those have no colors, only a contrast.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ...nets.stylegan2 import Discriminator
from .settings import Settings

FEATURES = {"relu2_1": 128, "relu3_1": 256}
"""What the quick critic looks at, and its channels."""

DRAWS = 6
"""Numbers that one augmentation takes, see :func:`augmentation`."""


class FeatureCritic(nn.Module):
    """A small network on each layer of features, which judges every patch.

    Args:
        channels: of each layer.
        width: channels of the networks.
    """

    def __init__(self, channels: Sequence[int] = tuple(FEATURES.values()), width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_head(inputs, width) for inputs in channels)

    def forward(self, *views: Sequence[Tensor]) -> list[list[Tensor]]:
        """Features (N, C, H, W) of each layer -> judgements (N, 1, H / 2, W / 2); of each view."""
        counts = [len(view[0]) for view in views]
        # Together: each pass sharpens a layer's spectral norm, in which views must not differ.
        layers = [torch.cat(layer) for layer in zip(*views, strict=True)]
        judged = [head(layer).split(counts) for head, layer in zip(self.heads, layers, strict=True)]
        return [list(view) for view in zip(*judged, strict=True)]


class PictureCritic(nn.Module):
    """StyleGAN2's discriminator in the same terms: a view is a list with the pictures alone.

    Args:
        net: the discriminator.
    """

    def __init__(self, net: Discriminator) -> None:
        super().__init__()
        self.net = net

    def forward(self, *views: Sequence[Tensor]) -> list[list[Tensor]]:
        """Pictures (N, 3, size, size) in [-1, 1] -> judgements (N, 1); of each view."""
        # One by one: a judgement is of a picture among its like (the minibatch's deviation).
        return [[self.net(view[0])] for view in views]


def _head(inputs: int, width: int) -> nn.Sequential:
    # Bounded slopes instead of a gradient penalty, which would have to be differentiated twice.
    return nn.Sequential(
        spectral_norm(nn.Conv2d(inputs, width, 1)), nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, width, 3, stride=2, padding=1)), nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, 1, 1)),
    )  # fmt: skip


def make_critic(settings: Settings, size: int, seed: int = 0) -> nn.Module:
    """A critic that has learned nothing yet.

    Args:
        settings: say which.
        size: pixels a side of the pictures.
        seed: of its weights.
    """
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        if settings.critic == "features":
            return FeatureCritic()
        return PictureCritic(Discriminator(size, settings.critic_channels))


def source_critic(
    given: Discriminator | None, size: int, channels: Sequence[int] | None = None, seed: int = 0
) -> Discriminator:
    """What judges the fine-tuned source, ready to learn: a copy of the one given, or a new one.

    Args:
        given: has learned with the source; stays as it is.
        size: pixels a side of a new one's pictures.
        channels: of a new one; None: configuration F's.
        seed: of a new one's weights.
    """
    if given is not None:
        return copy.deepcopy(given).requires_grad_(True)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        return Discriminator(size, channels)


def fooled(judgements: Sequence[Tensor], hinge: bool) -> Tensor:
    """What a generator minimizes, from the critic's judgements of its pictures."""
    parts = [-one.mean() if hinge else F.softplus(-one).mean() for one in judgements]
    return torch.stack(parts).mean()


def told_apart(drawn: Sequence[Tensor], real: Sequence[Tensor], hinge: bool) -> Tensor:
    """What a critic minimizes: the hinge loss (Lim and Ye 2017), or the logistic one (StyleGAN2)."""
    parts = [
        F.relu(1 + a).mean() + F.relu(1 - b).mean() if hinge else F.softplus(a).mean() + F.softplus(-b).mean()
        for a, b in zip(drawn, real, strict=True)
    ]
    return torch.stack(parts).mean()


def augmentation(random: np.random.Generator, settings: Settings) -> list[float]:
    """One picture's numbers: mirrored or not, moved down and across, brightness, saturation, contrast."""
    mirrored = float(random.random() < settings.flip)
    moved = random.uniform(-settings.shift, settings.shift, 2)
    colors = random.uniform(-settings.colors, settings.colors, 3)
    return [mirrored, *moved.tolist(), *colors.tolist()]


def augmented_pictures(pictures: Tensor, draws: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [-1, 1] as a critic sees them, differentiable.

    Args:
        pictures: any number.
        draws: (N, 6), see :func:`augmentation`.
    """
    brightness, saturation, contrast = (draws[:, i].to(pictures).view(-1, 1, 1, 1) for i in (3, 4, 5))
    gray = pictures.mean(1, keepdim=True)
    x = gray + (1 + saturation) * (pictures - gray) + brightness
    middle = x.mean((1, 2, 3), keepdim=True)
    return _placed(middle + (1 + contrast) * (x - middle), draws)


def augmented_features(features: Sequence[Tensor], draws: Tensor) -> list[Tensor]:
    """The features (N, C, H, W) of some layers, likewise: each layer of a picture in the same way."""
    gain = 1 + draws[:, 5].view(-1, 1, 1, 1)
    return [_placed(layer * gain.to(layer), draws) for layer in features]


def _placed(x: Tensor, draws: Tensor) -> Tensor:
    """Mirrored and moved by whole pixels; what comes in at the border is 0."""
    height, width = x.shape[-2:]
    placed = []
    for one, (mirrored, down, across) in zip(x.split(1), draws[:, :3].tolist(), strict=True):
        a, b = round(across * width), round(down * height)
        placed.append(F.pad(one.flip(3) if mirrored else one, (a, -a, b, -b)))
    return torch.cat(placed)
