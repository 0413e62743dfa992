"""What is minimized: content, style and the optional terms of one picture, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...errors import SettingError
from ...losses import (
    GaussianStyle,
    content_loss,
    feature_moments,
    gaussian_style,
    gram_distance,
    gram_matrix,
    style_normalization,
    total_variation,
    wasserstein2,
)
from ...nets.features import FeatureExtractor
from .settings import Settings

NOTHING = "There is nothing to aim at: give a content picture, a style picture, or both."


@dataclass(frozen=True)
class Guide:
    """A style, or several blended, and the region it goes to (paper E's local control; Gatys et al. 2017).

    Args:
        styles: pictures (1, 3, H', W') of any sizes; their Gram matrices are averaged.
        shares: how much each counts in the average; None: all alike. They are scaled to sum to 1.
        mask: (1, 1, H, W) in [0, 1] at the content's size: where the style goes; None: everywhere.
        style_masks: for each style None, or (1, 1, H', W'): the part of the painting that counts.
        strength: factor on the style weight for this region.
    """

    styles: tuple[Tensor, ...]
    shares: tuple[float, ...] | None = None
    mask: Tensor | None = None
    style_masks: tuple[Tensor | None, ...] | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not self.styles:
            raise SettingError("A guide needs at least one style picture.")
        shares = self.shares or (1.0,) * len(self.styles)
        if len(shares) != len(self.styles):
            raise SettingError(f"{len(self.styles)} styles need as many shares, not {len(shares)}.")
        if any(not 0 <= share < math.inf for share in shares) or not sum(shares) > 0:
            raise SettingError(f"Shares are 0 or positive, and not all 0, unlike {tuple(shares)}.")
        if not 0 <= self.strength < math.inf:
            raise SettingError(f"The strength of a guide must be 0 or positive, not {self.strength!r}.")
        object.__setattr__(self, "shares", tuple(share / sum(shares) for share in shares))
        masks = self.style_masks or (None,) * len(self.styles)
        if len(masks) != len(self.styles):
            raise SettingError(f"{len(self.styles)} styles need as many style_masks, not {len(masks)}.")
        pairs = zip(masks, self.styles, strict=True)
        object.__setattr__(self, "style_masks", tuple(m if m is None else _mask(m, s) for m, s in pairs))
        object.__setattr__(self, "mask", self.mask if self.mask is None else _mask(self.mask, None))


class Statistics(NamedTuple):
    """What a style is at one layer: Gram matrix (1, C, C), and mean (1, C) where the distance needs it."""

    gram: Tensor
    mean: Tensor | None


@dataclass
class Counts:
    """How often an objective was asked; forward and backward pass together are one evaluation."""

    values: int = 0  # forward only
    gradients: int = 0  # forward and backward
    products: int = 0  # Hessian times a vector: forward, backward, and backward through both

    @property
    def evaluations(self) -> float:
        """In units of one gradient: a value is half of it, a product three (measured: 0.4 and 3)."""
        return 0.5 * self.values + self.gradients + 3 * self.products


@dataclass(frozen=True)
class Anchor:
    """A picture to hold on to, and where: the temporal term of Ruder et al. 2016 (the warped last frame)."""

    image: Tensor  # (1, 3, H, W)
    mask: Tensor  # (1, 1, H, W): 1 where the flow is trusted


@dataclass
class _Target:
    """One guide, ready: its statistics by layer and its mask at each layer's size."""

    statistics: dict[str, Statistics | GaussianStyle]
    size: dict[str, float]  # what a relative term is divided by
    strength: float
    mask: Tensor | None
    masks: dict[str, Tensor] = field(default_factory=dict)


class Objective:
    """L_total of paper A (4) for one pair of pictures: ``objective(image)`` gives every term by name.

    With ``style_normalization="relative"`` each layer's style term is ``|G - G_s|² / |G_s|²`` and the content
    term ``|F - F_c|² / |F_c|²``: 1 means "as far off as an empty feature map". Published normalizations
    depend on the network's scale, so a weight found for VGG-19 fails on AlexNet; relative terms carry over.

    Where every guide has a mask, only the masked pixels are free: the network is shown
    ``content + m (image - content)`` with m the masks' sum, so nothing bleeds out of a region and the border
    is optimized as it will be seen.

    Args:
        extractor: gives all content and style layers of ``settings``.
        content: (1, 3, H, W) or None (texture synthesis: no content term).
        style: (1, 3, H', W') of any size, or guides, or None (content reconstruction: no style term).
        settings: see :class:`Settings`.
        anchor: the picture of the temporal term, if there is one.

    Attributes:
        counts: how often value, gradient and Hessian products were asked for.

    Raises:
        SettingError: nothing to aim at, or masks that do not fit.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        content: Tensor | None,
        style: Tensor | Sequence[Guide] | None,
        settings: Settings,
        *,
        anchor: Anchor | None = None,
    ) -> None:
        guides = as_guides(style)
        if content is None and not guides:
            raise SettingError(NOTHING)
        self.extractor, self.settings, self.counts = extractor, settings, Counts()
        self.relative = settings.style_normalization == "relative"
        self.how = style_normalization("gatys_notebook" if self.relative else settings.style_normalization)
        device = extractor.device
        self.content = None if content is None else content.to(device)
        self.anchor = anchor and Anchor(anchor.image.to(device), anchor.mask.to(device))
        self.content_targets: dict[str, Tensor] = {}
        with torch.no_grad():
            if self.content is not None:
                self.content_targets = self._content_features(self.content)
            self.targets = [self._target(guide) for guide in guides]
        self.paint = self._painted(guides)
        count = len(settings.style_layers)
        self.layer_weights = dict(
            zip(settings.style_layers, settings.layer_weights or (1 / count,) * count, strict=True)
        )

    # -- what the pictures give beforehand

    def _content_features(self, content: Tensor) -> dict[str, Tensor]:
        found = self.extractor(content)
        return {name: found[name] for name in self.settings.content_layers}

    def _style_statistics(self, style: Tensor, mask: Tensor | None) -> dict[str, Statistics]:
        found = self.extractor(style)
        return {
            name: self.statistics(found[name], None if mask is None else at_features(mask, found[name]))
            for name in self.settings.style_layers
        }

    def _target(self, guide: Guide) -> _Target:
        """Averages the statistics of a guide's styles."""
        assert guide.shares is not None
        assert guide.style_masks is not None
        device = self.extractor.device
        found = [
            self._style_statistics(style.to(device), None if mask is None else mask.to(device))
            for style, mask in zip(guide.styles, guide.style_masks, strict=True)
        ]
        statistics: dict[str, Statistics | GaussianStyle] = {}
        size: dict[str, float] = {}
        for name in self.settings.style_layers:
            gram = torch.stack([s * f[name].gram for s, f in zip(guide.shares, found, strict=True)]).sum(0)
            if self.settings.style_distance == "gram":
                statistics[name] = Statistics(gram, None)
                size[name] = max(gram.square().mean().item(), 1e-12)
                continue
            means = [f[name].mean for f in found]
            mean = torch.stack([s * m for s, m in zip(guide.shares, means, strict=True) if m is not None])
            mean = mean.sum(0)
            statistics[name] = gaussian_style((mean, _covariance(gram, mean)))
            size[name] = max(gram.diagonal(dim1=1, dim2=2).sum().item(), 1e-12)  # E|F|² = |mean|² + tr C
        mask = None if guide.mask is None else guide.mask.to(device)
        if mask is not None and self.content is not None:
            check_fit(mask, self.content, "content")
        if mask is not None and not bool(mask.max() > 0):
            raise SettingError("The mask of a region is empty: leave the region out.")
        return _Target(statistics, size, guide.strength, mask)

    def _painted(self, guides: Sequence[Guide]) -> Tensor | None:
        paint = None if self.content is None else painted(guides)
        return None if paint is None else paint.to(self.extractor.device)

    # -- what a picture is held to

    def canvas(self, image: Tensor) -> Tensor:
        """The picture with everything outside the masks put back to the content."""
        if self.paint is None or self.content is None:
            return image
        return self.content + self.paint * (image - self.content)

    def statistics(self, features: Tensor, mask: Tensor | None = None) -> Statistics:
        """Gram matrix and, for the Wasserstein distance, mean of (1, C, H, W) features."""
        if self.settings.style_distance == "gram":
            return Statistics(gram_matrix(features, self.how.divisor, mask), None)
        mean, covariance = feature_moments(features, mask)
        # Kept as second moment: unlike covariances, those of a picture's tiles add up.
        return Statistics(covariance + mean[:, :, None] * mean[:, None, :], mean)

    def content_term(self, name: str, features: Tensor, target: Tensor) -> Tensor:
        """The content term of one layer, before alpha."""
        term = content_loss(features, target, "mean" if self.relative else self.settings.content_reduction)
        return term / target.float().square().mean().clamp_min(1e-12) if self.relative else term

    @property
    def content_share(self) -> float:
        """A (3), B (3) and D sum over their layers; a mean over positions goes with a mean over layers."""
        summed = not self.relative and self.settings.content_reduction != "mean"
        return 1.0 if summed else 1 / max(1, len(self.content_targets))

    def style_terms(self, found: Sequence[Mapping[str, Statistics]]) -> dict[str, Tensor]:
        """The style terms from each guide's statistics: "style", and "style/LAYER" before layer weights."""
        terms: dict[str, Tensor] = {}
        total: Tensor | None = None
        for target, statistics in zip(self.targets, found, strict=True):
            for name, is_now in statistics.items():
                wanted = target.statistics[name]
                if isinstance(wanted, GaussianStyle):
                    assert is_now.mean is not None
                    term = wasserstein2((is_now.mean, _covariance(is_now.gram, is_now.mean)), wanted)
                else:
                    term = gram_distance(is_now.gram, wanted.gram, self.how.reduction)
                if self.relative:
                    term = term / target.size[name]
                term = target.strength * term
                key = f"style/{name}"
                terms[key] = terms[key] + term if key in terms else term
                weighted = self.layer_weights[name] * term
                total = weighted if total is None else total + weighted
        return terms if total is None else {"style": total, **terms}

    def pixel_terms(self, image: Tensor) -> dict[str, Tensor]:
        """The terms that need no network: "tv" and "temporal"."""
        s, terms = self.settings, {"tv": image.new_zeros(())}
        if s.tv_weight:
            terms["tv"] = total_variation(image)
        if self.anchor is not None:
            terms["temporal"] = (self.anchor.mask * (image - self.anchor.image).square()).mean()
        return terms

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum, A (4)."""
        s = self.settings
        total = s.content_weight * terms["content"] + s.style_weight * terms["style"]
        total = total + s.tv_weight * terms["tv"]
        return total + s.temporal_weight * terms["temporal"] if "temporal" in terms else total

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Every term: "total" is what is minimized; the others come before their weights alpha, beta."""
        image = self.canvas(image)
        features = self.extractor(image)
        zero = image.new_zeros(())
        content = zero
        for name, target in self.content_targets.items():
            content = content + self.content_share * self.content_term(name, features[name], target)
        found = []
        for guide in self.targets:
            for name in guide.statistics if guide.mask is not None else ():
                if name not in guide.masks:
                    guide.masks[name] = at_features(guide.mask, features[name])
            found.append(
                {name: self.statistics(features[name], guide.masks.get(name)) for name in guide.statistics}
            )
        terms = {"content": content, "style": zero, **self.style_terms(found), **self.pixel_terms(image)}
        return {"total": self.total(terms), **terms}

    # -- what optimizers ask

    def value(self, image: Tensor) -> dict[str, float]:
        """Every term of a picture as numbers, without a backward pass."""
        self.counts.values += 1
        with torch.no_grad():
            return {name: term.item() for name, term in self(image).items()}

    def gradient(self, image: Tensor) -> tuple[dict[str, float], Tensor]:
        """Every term as numbers, and the total's gradient with respect to the picture, A (6) and (7)."""
        self.counts.gradients += 1
        x = image.detach().requires_grad_(True)
        terms = self(x)
        (gradient,) = torch.autograd.grad(terms["total"], x)
        return {name: term.item() for name, term in terms.items()}, gradient

    def hessian_vector(self, image: Tensor, vector: Tensor) -> Tensor:
        """The total's Hessian times a vector (1, 3, H, W), exact, by differentiating the gradient."""
        self.counts.products += 1
        x = image.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self(x)["total"], x, create_graph=True)
        (product,) = torch.autograd.grad(gradient, x, vector)
        return product


def as_guides(style: Tensor | Sequence[Tensor] | Sequence[Guide] | None) -> list[Guide]:
    """A style picture, several to be blended alike, or guides -> guides."""
    if style is None:
        return []
    if isinstance(style, Tensor):
        return [Guide((style,))]
    if isinstance(style, Guide):
        return [style]
    strange = [item for item in style if not isinstance(item, Guide | Tensor)]
    if strange:
        raise SettingError(
            f"A style is a picture (1, 3, H, W) or a Guide, not a {type(strange[0]).__name__}: load it with "
            "load_image."
        )
    guides = [item for item in style if isinstance(item, Guide)]
    pictures = tuple(item for item in style if isinstance(item, Tensor))
    if guides and pictures:
        raise SettingError("Give style pictures or guides, not both: put each picture into a guide.")
    return guides or ([Guide(pictures)] if pictures else [])


def painted(guides: Sequence[Guide]) -> Tensor | None:
    """The sum of all masks (1, 1, H, W), at most 1: what is free to change; None: everything."""
    masks = [guide.mask for guide in guides if guide.mask is not None]
    if not masks or len(masks) < len(guides):
        return None
    return torch.stack(masks).sum(0).clamp(0, 1)


def check_fit(mask: Tensor, picture: Tensor, name: str) -> None:
    """Refuse a mask that has not its picture's height and width.

    Raises:
        SettingError: they differ.
    """
    if mask.shape[-2:] != picture.shape[-2:]:
        raise SettingError(
            f"A mask of {mask.shape[-1]}×{mask.shape[-2]} does not fit the {name} picture of "
            f"{picture.shape[-1]}×{picture.shape[-2]}: make it from that picture."
        )


def _mask(mask: Tensor, style: Tensor | None) -> Tensor:
    """A mask in float32, or an error that says what is wrong with it."""
    if mask.ndim != 4 or mask.shape[:2] != (1, 1):
        raise SettingError(
            f"A mask has the shape (1, 1, H, W), not {tuple(mask.shape)}: reshape it with "
            "mask.view(1, 1, *mask.shape[-2:])."
        )
    if not bool(((mask >= -1e-3) & (mask <= 1 + 1e-3)).all()):  # NaN is refused as well
        raise SettingError("A mask's values are from 0 to 1, and this one has others: call mask.clamp(0, 1).")
    if style is not None:
        check_fit(mask, style, "style")
    return mask.float().clamp(0, 1)


def at_features(mask: Tensor | None, features: Tensor) -> Tensor:
    """A mask (1, 1, H, W) averaged down to the feature map's size."""
    assert mask is not None
    return averaged(mask, (features.shape[-2], features.shape[-1]))


def averaged(mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """A mask averaged down to (H', W'); on the processor, as MPS wants sizes that divide each other."""
    return adaptive_avg_pool2d(mask.float().cpu(), shape).to(mask.device)


def _covariance(gram: Tensor, mean: Tensor) -> Tensor:
    """The second moment without the mean's part."""
    return gram - mean[:, :, None] * mean[:, None, :]
