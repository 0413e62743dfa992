"""AdaIN: any style in one forward pass (Huang and Belongie 2017), with the published decoder.

Style, for Gatys, is a Gram matrix that an optimization approaches. Here it is less, mean and spread of each
channel at one layer, and so little that a picture's features can simply be given them (equation 8 there); a
decoder trained once turns the result back into pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import assets
from ..errors import SettingError
from ..nets.adain import from_official
from ..nets.features import FeatureExtractor
from ..pictures import color
from .feedforward import check_pictures, finished, padded

LAYER = "relu4_1"
STRIDE = 8  # of that layer


@dataclass(frozen=True)
class StyleStatistics:
    """All that AdaIN knows of a style: mean and deviation of each channel, (1, 512, 1, 1) each."""

    mean: Tensor
    deviation: Tensor


def channel_statistics(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the picture, or over a mask.

    Args:
        features: (N, C, H, W).
        mask: (N or 1, 1, H, W) in [0, 1], weights of the positions; None: all alike.

    Returns:
        Both (N, C, 1, 1), float32. Without a mask the unbiased deviation, as the authors take it.
    """
    x = features.float()
    if mask is None:
        spread, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=1)
    else:
        weight = mask / mask.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
        mean = (weight * x).sum(dim=(2, 3), keepdim=True)
        spread = (weight * (x - mean).square()).sum(dim=(2, 3), keepdim=True)
    return mean, (spread + 1e-5).sqrt()


def adain(content: Tensor, style: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
    """``sigma(s) * (c - mu(c)) / sigma(c) + mu(s)``: equation 8 of Huang and Belongie.

    Args:
        content: features (N, C, H, W).
        style: mean and deviation, from :func:`channel_statistics`.
        mask: where the content's own statistics are taken.

    Returns:
        (N, C, H, W), float32.
    """
    mean, deviation = channel_statistics(content, mask)
    return style[1] * (content.float() - mean) / deviation + style[0]


class AdaIN:
    """Arbitrary style transfer behind the course's common protocol.

    Args:
        strength: 0 gives the content as the decoder sees it, 1 the full style (their section 7.4).
        color: "style", or how to keep the content's colors, see :mod:`nstlib.pictures.color`.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: see :func:`nstlib.nets.hardware.resolve_precision`.
        encoder: weights of the normalized VGG-19 instead of the asset's (tests).
        decoder: the decoder's weights instead of the asset's.

    Raises:
        AssetError: the weights cannot be had.
        SettingError: a strength outside 0 to 1, or no such way with colors.

    Example:
        >>> picture = AdaIN(strength=0.8).stylize(content, style)             # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        strength: float = 1.0,
        color: str = "style",
        device: str | torch.device = "auto",
        precision: str | torch.dtype = "auto",
        encoder: Mapping[str, Tensor] | None = None,
        decoder: Mapping[str, Tensor] | None = None,
    ) -> None:
        if not 0 <= strength <= 1:
            raise SettingError(f"strength is from 0 (the content) to 1 (the full style), not {strength}.")
        self.strength, self.color = strength, color
        self.encoder = FeatureExtractor(
            "vgg19", [LAYER], padding="reflect", device=device, precision=precision, tensors=encoder
        )
        weights = assets.load_tensors("adain_decoder") if decoder is None else decoder
        form: dict[str, Any] = {"memory_format": self.encoder.memory_format}
        self.decoder = from_official(weights).to(self.encoder.device, self.encoder.precision).to(**form)

    def fit(self, faces: object = None, styles: object = None) -> AdaIN:
        """The authors' decoder was trained on photographs and paintings at large; there is nothing to add."""
        return self

    @torch.no_grad()
    def statistics(self, style: Tensor) -> StyleStatistics:
        """A style, looked at once: for :meth:`stylize` in place of the picture, for many pictures or a film.

        Args:
            style: (1, 3, H, W), as it is: its colors are not matched to any content's.

        Raises:
            ImageError: not a picture.
        """
        check_pictures("style", style, 2 * STRIDE)
        return StyleStatistics(*channel_statistics(self._encode(style)))

    @torch.no_grad()
    def stylize(
        self,
        content: Tensor,
        style: Tensor | StyleStatistics | Sequence[Tensor | StyleStatistics],
        *,
        shares: Sequence[float] | None = None,
        masks: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """One or several styles on a picture, in one pass.

        Args:
            content: (N, 3, H, W), RGB in [0, 1], any size of at least 16 pixels.
            style: (1, 3, H', W'), or what :meth:`statistics` has found of it, or several of them.
            shares: how much of each style is blended in; None: alike. They are divided by their sum.
            masks: one (1, 1, H, W) a style instead: each style in its own region, the content elsewhere.

        Returns:
            (N, 3, H, W), in [0, 1].

        Raises:
            SettingError: no style, shares or masks that do not go with the styles, or both of them;
                statistics where the style's colors are to be matched to the content's.
            ImageError: not a picture.
        """
        styles = [style] if isinstance(style, Tensor | StyleStatistics) else list(style)
        weights = _shares(len(styles), shares, masks)
        check_pictures("content", content, 2 * STRIDE)
        if masks is not None:
            for mask in masks:
                if mask.shape[-2:] != content.shape[-2:]:
                    raise SettingError(
                        f"A mask of {mask.shape[-1]}×{mask.shape[-2]} does not fit the content of "
                        f"{content.shape[-1]}×{content.shape[-2]}: make it from that picture."
                    )
        features = self._encode(padded(content, STRIDE))
        found = [self._found(one, content) for one in styles]
        if masks is None:
            styled = sum(share * adain(features, one) for share, one in zip(weights, found, strict=True))
        else:
            styled = features
            for mask, one in zip(masks, found, strict=True):
                small = F.interpolate(padded(mask.to(features), STRIDE), features.shape[-2:], mode="area")
                styled = styled + small * (adain(features, one, small) - features)
        mixed = features + self.strength * (styled - features)
        made = self.decoder(
            mixed.to(self.encoder.precision).contiguous(memory_format=self.encoder.memory_format)
        )
        made = finished(made, content, self.color)
        if masks is not None:
            # The decoder alters what it was given unchanged as well; outside the masks the picture stays.
            paint = torch.stack([m.cpu() for m in masks]).sum(0).clamp(0, 1)
            made = content.cpu() + paint * (made - content.cpu())
        return made

    def _encode(self, images: Tensor) -> Tensor:
        return self.encoder(images)[LAYER].float()

    def _found(self, style: Tensor | StyleStatistics, content: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(style, Tensor):
            style = self.statistics(color.prepare_style(self.color, style, content[:1]))
        elif self.color != "style":
            raise SettingError(
                f"A style's statistics have its own colors, and '{self.color}' is to change them: give the "
                "style as a picture."
            )
        return style.mean, style.deviation


def _shares(count: int, shares: Sequence[float] | None, masks: Sequence[Tensor] | None) -> list[float]:
    if not count:
        raise SettingError("The list of styles is empty: give a style picture.")
    if shares is not None and masks is not None:
        raise SettingError("Blend styles by shares or place them by masks, not both.")
    for name, given in (("shares", shares), ("masks", masks)):
        if given is not None and len(given) != count:
            raise SettingError(f"{count} styles need as many {name}, not {len(given)}.")
    weights = [1.0] * count if shares is None else [float(share) for share in shares]
    if min(weights) < 0 or sum(weights) <= 0:
        raise SettingError(f"shares are not negative and not all 0, and these are {list(weights)}.")
    return [weight / sum(weights) for weight in weights]
