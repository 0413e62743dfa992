"""What is minimized: content, style and the optional terms of one picture, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...errors import NotNegative, SettingError, settings
from ...errors import Settings as Base
from ...faces.align import oval
from ...faces.identity import Identity
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
from ...pictures.files import check_mask, check_picture
from .settings import Settings

# What a style is at one layer: its Gram matrix (1, C, C); for the Wasserstein distance the second moment
# (1, C, C) and the mean (1, C), because, unlike covariances, those of a picture's tiles add up.
Statistics = tuple[Tensor, ...]

# What the face's content (times keep_face²) and its identity (times keep_face) count; found by eye at 0.5,
# where a person is known at once and the face is still painted.
FACE_WEIGHT, IDENTITY_WEIGHT = 1.6, 0.4


@settings
class Guide(Base):
    """A style, or several blended, and the region it goes to (paper E's local control; Gatys et al. 2017).

    Args:
        styles: pictures (1, 3, H', W') of any sizes; their Gram matrices are averaged.
        shares: how much each counts in the average; None: all alike.
        mask: (1, 1, H, W) in [0, 1] at the content's size: where the style goes; None: everywhere.
    """

    styles: tuple[Tensor, ...]
    shares: tuple[NotNegative, ...] | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        for style in self.styles:
            check_picture("style picture", style, count=1)
        count, shares = len(self.styles), self.shares
        if shares is not None and (len(shares) != count or not sum(shares)):
            raise SettingError(f"{count} styles need as many shares, not all of them 0, unlike {shares}.")
        if self.mask is not None:
            check_mask("mask of a region", self.mask)


@dataclass(frozen=True)
class Anchor:
    """A picture to hold on to, and where: the temporal term of Ruder et al. 2016 (the warped last frame)."""

    image: Tensor  # (1, 3, H, W)
    mask: Tensor  # (1, 1, H, W): 1 where the flow is trusted


@dataclass
class _Target:
    """One guide, ready to be compared with."""

    mask: Tensor | None
    style: dict[str, Any] = field(default_factory=dict)  # by layer: a Gram matrix, or a GaussianStyle
    size: dict[str, float] = field(default_factory=dict)  # what a relative term is divided by
    masks: dict[str, Tensor] = field(default_factory=dict)  # at each layer's size


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
        faces: where the content's faces are, from :func:`nstlib.faces.align.align`: with
            ``settings.keep_face`` above 0 they stay the persons' own (see :data:`FACE_WEIGHT`).

    Attributes:
        evaluations: work done so far, in gradients: a value counts half of one, a product with the Hessian
            three (measured: 0.4 and 3).

    Raises:
        SettingError: an empty mask.
    """

    def __init__(
        self, extractor: FeatureExtractor, content: Tensor | None, style: Tensor | Sequence[Guide] | None,
        settings: Settings, *, anchor: Anchor | None = None, faces: Sequence[Tensor] = (),
    ) -> None:  # fmt: skip
        guides = as_guides(style)
        self.extractor, self.settings, self.evaluations = extractor, settings, 0.0
        self.relative = settings.style_normalization == "relative"
        self.how = style_normalization("gatys_notebook" if self.relative else settings.style_normalization)
        self.content_reduction = "mean" if self.relative else settings.content_reduction
        # A (3), B (3) and D sum over their layers; a mean over positions goes with a mean over layers.
        self.content_share = 1 / len(settings.content_layers) if self.content_reduction == "mean" else 1.0
        device = extractor.device
        self.content = None if content is None else content.to(device)
        self.anchor = anchor and Anchor(anchor.image.to(device), anchor.mask.to(device))
        self.content_targets: dict[str, Tensor] = {}
        self.faces = faces if self.content is not None and settings.keep_face else ()
        # Middle layers: the first knows nothing but color and grain, the last is blind to who it is.
        self.face_layers = (settings.style_layers[1:-1] or settings.style_layers) if self.faces else ()
        # Where the faces are, their features, and how much each place counts.
        self.face_targets: dict[str, tuple[tuple[slice, slice], Tensor, Tensor]] = {}
        with torch.no_grad():
            self.targets = [self._target(guide) for guide in guides]
            if self.content is not None:
                if self.faces:
                    self.identity = Identity(device)
                    self.persons = [self.identity.embed(self.content, face)[0] for face in faces]
                    self.palette = self._palette(self.content)
                self.content_targets = self._content_features(self.content)
        paint = None if content is None else painted(guides)
        self.paint = None if paint is None else paint.to(device)
        count = len(settings.style_layers)
        weights = settings.layer_weights or (1 / count,) * count
        self.layer_weights = dict(zip(settings.style_layers, weights, strict=True))

    # -- what the pictures give beforehand

    def _content_features(self, content: Tensor) -> dict[str, Tensor]:
        found = self.extractor(content)
        if self.faces:
            mask, share = self._face_mask(content)
            for name in self.face_layers:
                target, here = self.repainted(name, found[name]), averaged(mask, found[name].shape[-2:])
                weights, (rows, columns) = here * share / (here * target.square()).sum(), extent(here)
                inside = (..., rows, columns)
                self.face_targets[name] = ((rows, columns), target[inside].clone(), weights[inside])
        return {name: found[name] for name in self.settings.content_layers}

    def _palette(self, content: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What turns the content's mean and spread in each channel into the painting's: factor and shift.

        It is AdaIN (Huang and Belongie (8)), by layer: a face held to the photograph's own features would
        fight the painting's colors, and lose where the two are far apart, as a dark gray photograph and gold.
        """
        if self.settings.style_distance == "gram" or not self.targets:
            return {}  # Gram matrices know no mean
        found, palette = self._style_statistics(content), {}
        for name in self.face_layers:
            styles = [target.style[name] for target in self.targets]
            mean, covariance = moments(found[name])
            wanted = torch.stack([style.mean for style in styles]).mean(0)
            wide = torch.stack([style.covariance.diagonal(dim1=1, dim2=2) for style in styles]).mean(0)
            spread = covariance.diagonal(dim1=1, dim2=2).clamp_min(1e-12)
            factor = (wide.to(mean) / spread).sqrt().clamp_max(5)  # a channel that is silent stays quiet
            shift = wanted - factor * mean
            palette[name] = (factor[..., None, None], shift[..., None, None])
        return palette

    def repainted(self, layer: str, features: Tensor) -> Tensor:
        """The content's features (1, C, H, W) with the painting's mean and spread, in float32."""
        if layer not in self.palette:
            return features.float()
        factor, shift = self.palette[layer]
        return features.float() * factor + shift

    def _face_mask(self, content: Tensor) -> tuple[Tensor, float]:
        """All faces' soft ovals (1, 1, H, W), and what a layer's part of the face's term is multiplied by.

        Style is an average over the picture, so a small face needs less to hold against it; a fifth at least.
        """
        shape = content.shape[-2:]
        mask = torch.stack([oval(face, shape) for face in self.faces]).amax(0).to(content.device)
        return mask, (8 * mask.mean().item() + 0.2) / len(self.face_layers)

    def _style_statistics(self, style: Tensor) -> dict[str, Statistics]:
        found = self.extractor(style)
        return {name: self.statistics(found[name]) for name in self.settings.style_layers}

    def _target(self, guide: Guide) -> _Target:
        """Averages the statistics of a guide's styles."""
        device, mask = self.extractor.device, guide.mask
        if mask is not None:
            if not bool(mask.max() > 0):
                raise SettingError("The mask of a region is empty: leave the region out.")
            mask = mask.float().to(device)
        target = _Target(mask)
        given = guide.shares or (1.0,) * len(guide.styles)
        shares = [share / sum(given) for share in given]
        found = [self._style_statistics(style.to(device)) for style in guide.styles]
        for name in self.settings.style_layers:
            blend = [
                torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(0)
                for parts in zip(*(statistics[name] for statistics in found), strict=True)
            ]
            if self.settings.style_distance == "gram":
                target.style[name] = blend[0]
                size = blend[0].square().mean()
            else:
                target.style[name] = gaussian_style(moments(blend), dtype=blend[0].dtype)
                size = blend[0].diagonal(dim1=1, dim2=2).sum()  # E|F|² = |mean|² + tr C
            target.size[name] = max(size.item(), 1e-12)
        return target

    # -- what a picture is held to

    def canvas(self, image: Tensor) -> Tensor:
        """The picture with everything outside the masks put back to the content."""
        if self.paint is None or self.content is None:
            return image
        return self.content + self.paint * (image - self.content)

    def statistics(self, features: Tensor, mask: Tensor | None = None) -> Statistics:
        """What is compared of the style of features (1, C, H, W)."""
        if self.settings.style_distance == "gram":
            return (gram_matrix(features, self.how.divisor, mask),)
        mean, covariance = feature_moments(features, mask)
        return covariance + mean[:, :, None] * mean[:, None, :], mean

    def all_terms(
        self, image: Tensor, held: Mapping[str, Tensor], found: Sequence[Mapping[str, Statistics]]
    ) -> dict[str, Tensor]:
        """Every term of a picture with these terms of content and face and these statistics of each guide.

        "total" is A (4); "style/LAYER" comes before the layer's weight.
        """
        s, zero = self.settings, image.new_zeros(())
        terms = {**held, "style": zero}
        for target, statistics in zip(self.targets, found, strict=True):
            for name, now in statistics.items():
                wanted = target.style[name]
                if isinstance(wanted, GaussianStyle):
                    term = wasserstein2(moments(now), wanted)
                else:
                    term = gram_distance(now[0], wanted, self.how.reduction)
                if self.relative:
                    term = term / target.size[name]
                key = f"style/{name}"
                terms[key] = terms[key] + term if key in terms else term
                terms["style"] = terms["style"] + self.layer_weights[name] * term
        terms["tv"] = total_variation(image) if s.tv_weight else zero
        total = s.style_weight * terms["style"] + s.tv_weight * terms["tv"]
        total = total + sum(self.weight(name) * term for name, term in held.items())
        if self.faces:
            pairs = zip(self.faces, self.persons, strict=True)
            alike = [self.identity.embed(image, face)[0] @ person for face, person in pairs]
            terms["identity"] = 1 - torch.stack(alike).mean()
            total = total + IDENTITY_WEIGHT * s.keep_face * terms["identity"]
        if self.anchor is not None:
            terms["temporal"] = (self.anchor.mask * (image - self.anchor.image).square()).mean()
            total = total + s.temporal_weight * terms["temporal"]
        return {"total": total, **terms}

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Every term: "total" is what is minimized; the others come before their weights alpha, beta."""
        image = self.canvas(image)
        return self.all_terms(image, *self.measure(image))

    def weight(self, term: str) -> float:
        """What the term "content" or "face" is multiplied by."""
        s = self.settings
        return s.content_weight if term == "content" else FACE_WEIGHT * s.keep_face**2

    def measure(self, image: Tensor) -> tuple[dict[str, Tensor], list[dict[str, Statistics]]]:
        """The terms "content" and, with faces, "face"; and the statistics where each guide looks."""
        features = self.extractor(image)
        content, face = image.new_zeros(()), image.new_zeros(())
        for name, wanted in self.content_targets.items():
            term = content_loss(features[name], wanted, self.content_reduction)
            if self.relative:
                term = term / wanted.float().square().mean().clamp_min(1e-12)
            content = content + self.content_share * term
        for name, ((rows, columns), wanted, weights) in self.face_targets.items():
            here = features[name][..., rows, columns].float()
            face = face + (weights * (here - wanted).square()).sum()
        found = []
        for target in self.targets:
            if target.mask is not None and not target.masks:
                target.masks = {n: averaged(target.mask, features[n].shape[-2:]) for n in target.style}
            found.append(
                {name: self.statistics(features[name], target.masks.get(name)) for name in target.style}
            )
        return {"content": content} | ({"face": face} if self.faces else {}), found

    # -- what optimizers ask

    def value(self, image: Tensor) -> dict[str, float]:
        """Every term of a picture as numbers, without a backward pass."""
        self.evaluations += 0.5
        with torch.no_grad():
            return {name: term.item() for name, term in self(image).items()}

    def gradient(self, image: Tensor) -> tuple[dict[str, float], Tensor]:
        """Every term as numbers, and the total's gradient with respect to the picture, A (6) and (7)."""
        self.evaluations += 1
        x = image.detach().requires_grad_(True)
        terms = self(x)
        (gradient,) = torch.autograd.grad(terms["total"], x)
        return {name: term.item() for name, term in terms.items()}, gradient

    def hessian_vector(self, image: Tensor, vector: Tensor) -> Tensor:
        """The total's Hessian times a vector (1, 3, H, W), exact, by differentiating the gradient."""
        self.evaluations += 3
        x = image.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self(x)["total"], x, create_graph=True)
        (product,) = torch.autograd.grad(gradient, x, vector)
        return product


def as_guides(style: Tensor | Guide | Sequence[Tensor] | Sequence[Guide] | None) -> list[Guide]:
    """A style picture, several to be blended alike, or guides -> guides."""
    items: Any = [] if style is None else [style] if isinstance(style, Tensor | Guide) else list(style)
    if items and all(isinstance(item, Tensor) for item in items):
        return [Guide(tuple(items))]
    if not all(isinstance(item, Guide) for item in items):
        raise SettingError(
            "A style is a picture (1, 3, H, W), several of them, or several Guides: load it with load_image."
        )
    return items


def painted(guides: Sequence[Guide]) -> Tensor | None:
    """The sum of all masks (1, 1, H, W), at most 1: what is free to change; None: everything."""
    masks = [guide.mask.float() for guide in guides if guide.mask is not None]
    if not masks or len(masks) < len(guides):
        return None
    return torch.stack(masks).sum(0).clamp(0, 1)


def averaged(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """A mask averaged down to (H', W'); on the processor, as MPS wants sizes that divide each other."""
    return adaptive_avg_pool2d(mask.float().cpu(), (shape[0], shape[1])).to(mask.device)


def extent(mask: Tensor) -> tuple[slice, slice]:
    """The rows and columns in which a mask (1, 1, H, W) is above 0."""
    shown = [mask[0, 0].amax(dim).nonzero().flatten().tolist() for dim in (1, 0)]
    rows, columns = (slice(found[0], found[-1] + 1) if found else slice(0, 0) for found in shown)
    return rows, columns


def moments(statistics: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Second moment and mean -> mean and covariance."""
    second, mean = statistics
    return mean, second - mean[:, :, None] * mean[:, None, :]
