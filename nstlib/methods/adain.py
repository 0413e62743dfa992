"""AdaIN: any style in one forward pass (Huang and Belongie 2017), with the published decoder.

Style, for Gatys, is a Gram matrix that an optimization approaches. Here it is less, mean and spread of each
channel at one layer, and so little that a picture's features can simply be given them (equation 8 there); a
decoder trained once turns the result back into pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import assets
from ..errors import SettingError, settings
from ..errors import Settings as Base
from ..nets.adain import from_official
from ..nets.features import FeatureExtractor
from ..pictures import color
from ..pictures.files import check_mask, check_picture
from . import base
from .base import Method, NoOptions, blend, color_mode, pad_to_multiple, postprocess

LAYER = "relu4_1"
STRIDE = 8  # of that layer


class StyleStatistics(NamedTuple):
    """All that AdaIN knows of a style: mean and deviation of each channel, (N, C, 1, 1) each."""

    mean: Tensor
    deviation: Tensor


def channel_statistics(features: Tensor, mask: Tensor | None = None) -> StyleStatistics:
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
    return StyleStatistics(mean, (spread + 1e-5).sqrt())


def adain(content: Tensor, style: StyleStatistics, mask: Tensor | None = None) -> Tensor:
    """``sigma(s) * (c - mu(c)) / sigma(c) + mu(s)``: equation 8 of Huang and Belongie.

    Args:
        content: features (N, C, H, W).
        style: mean and deviation, from :func:`channel_statistics`.
        mask: where the content's own statistics are taken.

    Returns:
        (N, C, H, W), float32.
    """
    mean, deviation = channel_statistics(content, mask)
    return style.deviation * (content.float() - mean) / deviation + style.mean


@settings
class Options(Base):
    """What :meth:`AdaIN.stylize` takes besides the common arguments."""

    shares: tuple[float, ...] | None = None  # how much of each style is blended in; None: all alike

    def __post_init__(self) -> None:
        if self.shares is not None and (min(self.shares) < 0 or sum(self.shares) <= 0):
            raise SettingError(f"shares are not negative and not all 0, and these are {list(self.shares)}.")


class AdaIN(Method):
    """Arbitrary style transfer by the authors' decoder; the arguments of :class:`Method`.

    It was trained on photographs and paintings at large; there is nothing to fit.

    Example:
        >>> picture = AdaIN().stylize(content, style, strength=0.8)             # doctest: +SKIP
    """

    summary = "any style, in one forward pass"
    options_class = Options
    takes = frozenset(
        {"size", "color", "precision", "style_size", "movement", "shares", "strength", "regions"}
    )

    def __init__(self, settings: NoOptions | None = None, **options: Any) -> None:
        super().__init__(settings, **options)
        self.encoder = FeatureExtractor(
            "vgg19", [LAYER], padding="reflect", device=self.device, precision=self.precision
        )
        form: dict[str, Any] = {"memory_format": self.encoder.memory_format}
        decoder = from_official(assets.load_tensors("adain_decoder"))
        self.decoder = decoder.to(self.encoder.device, self.encoder.precision).to(**form)

    @torch.no_grad()
    def statistics(self, style: Tensor) -> StyleStatistics:
        """A style, encoded once: for :meth:`stylize` in place of the picture, for many pictures or a film.

        Args:
            style: (1, 3, H, W), as it is: its colors are not matched to any content's.

        Raises:
            ImageError: not a picture.
        """
        return channel_statistics(self.encoder(check_picture("style", style, 2 * STRIDE))[LAYER])

    @torch.no_grad()
    def stylize(
        self, content: Tensor, style: Any = None, *, strength: float = 1.0, keep_colors: bool | str = False,
        masks: Sequence[Tensor] | None = None, **own: Any,
    ) -> Tensor:  # fmt: skip
        """One or several styles on a picture, see :meth:`Method.stylize`.

        Args:
            content: (N, 3, H, W), RGB in [0, 1], any size of at least 16 pixels.
            style: (1, 3, H', W'), or what :meth:`statistics` has found of it, or several of them.
            strength: 0 gives the content as the decoder reproduces it (their section 7.4).
            keep_colors: see :mod:`nstlib.pictures.color`.
            masks: one (1, 1, H, W) a style: each style in its own region, the content elsewhere.
            own: see :class:`Options`.

        Raises:
            ImageError: a mask of another size than the content.
            SettingError: no style, shares or masks that do not go with the styles, or both of them;
                statistics where the style's colors are to be matched to the content's.
        """
        styles = [style] if isinstance(style, StyleStatistics) else base.style_list(style)
        shares = Options(**own).shares
        if shares is not None and masks is not None:
            raise SettingError("Blend styles by shares or place them by masks, not both.")
        for name, given in (("shares", shares), ("masks", masks)):
            if given is not None and len(given) != len(styles):
                raise SettingError(f"{len(styles)} styles need as many {name}, not {len(given)}.")
        base.check_strength(strength)
        check_picture("content", content, 2 * STRIDE)
        features = self.encoder(pad_to_multiple(content, STRIDE))[LAYER].float()
        how = color_mode(keep_colors)
        found = [self._found(one, content, how) for one in styles]
        if masks is None:
            weights = shares or (1.0,) * len(styles)
            parts = [w / sum(weights) * adain(features, one) for w, one in zip(weights, found, strict=True)]
            styled = torch.stack(parts).sum(0)
        else:
            styled = features
            for mask, one in zip(masks, found, strict=True):
                mask = check_mask("mask of a style", mask, content).to(features)
                small = F.interpolate(pad_to_multiple(mask, STRIDE), features.shape[-2:], mode="area")
                styled = styled + small * (adain(features, one, small) - features)
        mixed = (features + strength * (styled - features)).to(self.encoder.precision)
        made = self.decoder(mixed.contiguous(memory_format=self.encoder.memory_format))
        # The decoder alters what it was given unchanged as well; outside the masks the picture stays.
        return blend(postprocess(made, content, how), content, 1.0, masks)

    def _found(self, style: Tensor | StyleStatistics, content: Tensor, how: str) -> StyleStatistics:
        if isinstance(style, Tensor):
            return self.statistics(color.prepare_style(how, style, content[:1]))
        if how != "style":
            raise SettingError(f"Statistics have their own colors, and not '{how}': give a picture.")
        return style
