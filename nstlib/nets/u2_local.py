"""Paper E's generator: two nested-U encoders, a local feature fusion module (LFFM), two decoders.

The paper has no code. It says what the parts are; how wide they are, how maps of five sizes are concatenated,
and in what "two encoders of different structure" differ, it does not say. What we take:

- The content encoder is that of its Fig. 3: stages of RSUs of heights 7, 6, 5, 4F, 4F and 4F, 5, 6, 7, with
  instance normalization, which takes the photograph's light and color out of its features. The style encoder
  is lower (5, 4, 4, 3F, 3F and so on), as texture is local, and normalizes over all channels together, which
  leaves the channels' own strengths, the style, as they are.
- F = concat(F1 ... F4, f5), equation (8), is at a quarter of the size: attention looks at pairs of places.
- The decoders get F1 and F2 of the picture they restyle at their own sizes too, so that its lines stay sharp,
  and paint over that picture with the other one's mean and spread of colors in each region. So an untrained
  generator gives these colors, and has texture to learn above all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .official import load_strict
from .u2net import ConvBlock, NestedU, Norm, halved, sized

_KEYS = 64  # sides of the map that attention looks at: more than 4096 places of a style add nothing but time
_NOISE = 4  # channels
_Seen = Sequence[Any]  # a picture, its masks or None, and the maps of its encoder
_WITHIN = 10.0  # how much more likely, as a logarithm, a place looks into its own region than elsewhere


def normalized(x: Tensor) -> Tensor:
    """(N, C, H, W), each channel with mean 0 and deviation 1 over the picture."""
    spread, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
    return (x - mean) / (spread + 1e-5).sqrt()


def recolor(
    images: Tensor, others: Tensor, masks: Tensor | None = None, other_masks: Tensor | None = None
) -> Tensor:
    """Pictures with the mean and deviation of other pictures' colors, region by region.

    Args:
        images: (N, 3, H, W) in [0, 1].
        others: (N, 3, H', W').
        masks: (N, R, H, W), which sum to 1 at each pixel; None: the whole picture.
        other_masks: (N, R, H', W'). A region that one of both lacks gets what the whole picture would.

    Returns:
        (N, 3, H, W).
    """
    whole = (torch.ones_like(x[:, :1]) for x in (images, others))
    scale, shift, _ = _recoloring(images, others, *whole)
    if masks is None or other_masks is None:
        return images * scale.mT.unsqueeze(3) + shift.mT.unsqueeze(3)
    own_scale, own_shift, known = _recoloring(images, others, masks.to(images), other_masks.to(others))
    scale, shift = torch.where(known, own_scale, scale), torch.where(known, own_shift, shift)
    spread = (torch.einsum("nrhw,nrc->nchw", masks.to(images), x) for x in (scale, shift))
    return images * next(spread) + next(spread)


def _recoloring(
    images: Tensor, others: Tensor, masks: Tensor, other_masks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each region's colors are multiplied by, what is added, and if it is there: (N, R, 3 or 1)."""
    means, deviations = [], []
    known = torch.ones((), dtype=torch.bool, device=images.device)
    for x, m in ((images, masks), (others, other_masks)):
        known = known & (m.mean((2, 3)) > 1e-3).unsqueeze(2)
        weights = m / m.sum((2, 3), keepdim=True).clamp_min(1e-6)
        means.append(torch.einsum("nrhw,nchw->nrc", weights, x))
        squares = torch.einsum("nrhw,nchw->nrc", weights, x.square())
        deviations.append((squares - means[-1].square()).clamp_min(1e-4).sqrt())
    scale = (deviations[1] / deviations[0]).clamp(max=3)  # a flat wall must not become noise
    return scale, means[1] - scale * means[0], known


class SanetBlock(nn.Module):
    """Style attention: each place of the content takes the style's features where these are like its own.

    With masks it is the LFFM: a place of a region looks into the same region of the style. Multiplying the
    features with the masks, as paper E (section 3.4) has it, would leave the places outside in the softmax,
    as zeros; so the masks are added to the scores, as logarithms of how likely a place is looked at. A place
    in no region, or in one that the style has not, looks everywhere.

    Args:
        channels: of the features.

    Shape:
        content (N, C, H, W), style (N, C, H', W'), masks (N, R, H, W) and (N, R, H', W') in [0, 1], one for
        each of R regions -> (N, C, H, W).

    Source: Park and Lee 2019, "Arbitrary Style Transfer with Style-Attentional Networks", section 3.2, with
    the published names.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f, self.g, self.h, self.out_conv = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(
        self, content: Tensor, style: Tensor, content_masks: Tensor | None = None,
        style_masks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """``content + out_conv(softmax(f(content) . g(style)) h(style))``."""
        query, key, value = self.f(normalized(content)), self.g(normalized(style)), self.h(style)
        if content_masks is not None and style_masks is not None:
            # As further channels they need no matrix of all pairs of places.
            query = torch.cat([query, _WITHIN * content_masks.to(query)], 1)
            key = torch.cat([key, style_masks.to(key)], 1)
            value = F.pad(value, (0, 0, 0, 0, 0, style_masks.shape[1]))
        query, key, value = (x.flatten(2).mT.unsqueeze(1) for x in (query, key, value))
        found = F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1).mT
        return content + self.out_conv(found[:, : content.shape[1]].reshape(content.shape))


class Splice(nn.Module):
    """What the LFFM replaces, for the ablation of E's Fig. 7 (b): features side by side, one convolution.

    Of the style every place gets the mean of its region's features, as nothing else has its place. Arguments
    and shapes of :class:`SanetBlock`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = nn.Conv2d(2 * channels, channels, 1)

    def forward(
        self, content: Tensor, style: Tensor, content_masks: Tensor | None = None,
        style_masks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Concatenate and merge."""
        if content_masks is None or style_masks is None:
            content_masks, style_masks = content[:, :1].detach() * 0 + 1, style[:, :1].detach() * 0 + 1
        shares = style_masks / style_masks.sum((2, 3), keepdim=True).clamp_min(1e-6)
        means = torch.einsum("nrhw,nchw->nrc", shares.to(style), style)
        spread = torch.einsum("nrhw,nrc->nchw", content_masks.to(style), means)
        return content + self.merge(torch.cat([content, spread], 1))


class PlainEncoder(nn.Module):
    """What the nested U replaces, for the ablation of Fig. 6 (a): five stages of two 3 × 3 convolutions each.

    Shape:
        that of :class:`nstlib.nets.u2net.NestedU`.
    """

    def __init__(self, channels: tuple[int, ...], norm: Norm) -> None:
        super().__init__()
        pairs = zip((3, *channels), channels, strict=False)
        stages = (nn.Sequential(ConvBlock(a, b, norm=norm), ConvBlock(b, b, norm=norm)) for a, b in pairs)
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """What each stage gives."""
        found: list[Tensor] = []
        for stage in self.stages:
            found.append(stage(halved(found[-1]) if found else images))
        return found


LAYER_NORM: Norm = partial(nn.GroupNorm, 1)
"""Normalizes a picture's channels together, so that each keeps its part."""

INSTANCE_NORM: Norm = partial(nn.InstanceNorm2d, affine=True)
"""Normalizes each channel of a picture, and learns a scale and a shift of each."""


class Decoder(nn.Module):
    """Fused features and two finer maps to a picture: convolutions, and two enlargements in between.

    Each size gets a few channels of noise: skin and sky are smooth, and a convolution of what is smooth is
    smooth again, so there would be nothing to make brush strokes of (Ulyanov et al. 2016, "Texture
    Networks"). In training the noise is always new; afterwards it is always the same.

    Args:
        channels: of the fused features, of F2 and of F1.
        width: channels at the full size; twice as many at half of it, four times at a quarter.
    """

    def __init__(self, channels: tuple[int, int, int], width: int) -> None:
        super().__init__()
        fused, half, full = (_NOISE + count for count in channels)
        self.at_quarter = _convolutions(fused, 4 * width, 4 * width)
        self.at_half = _convolutions(4 * width + half, 2 * width, 2 * width)
        self.at_full = _convolutions(2 * width + full, 2 * width, width)
        self.last = nn.Conv2d(width, 3, 1)
        nn.init.normal_(self.last.weight, std=0.05)  # it begins near the recolored picture
        nn.init.zeros_(self.last.get_parameter("bias"))

    def forward(self, fused: Tensor, half: Tensor, full: Tensor, under: Tensor) -> Tensor:
        """(N, fused, h, w), (N, half, H/2, W/2), (N, full, H, W), (N, 3, H, W) -> (N, 3, H, W) in [0, 1]."""
        x = self.at_quarter(torch.cat([fused, self._noise(fused)], 1))
        x = self.at_half(torch.cat([sized(x, half), normalized(half), self._noise(half)], 1))
        x = self.at_full(torch.cat([sized(x, full), normalized(full), self._noise(full)], 1))
        return torch.sigmoid(under.clamp(0.02, 0.98).logit() + self.last(x))

    def _noise(self, like: Tensor) -> Tensor:
        generator = None if self.training else torch.Generator().manual_seed(0)
        noise = torch.randn(1, _NOISE, *like.shape[2:], generator=generator)
        return noise.expand(len(like), -1, -1, -1).to(like)


def _convolutions(*channels: int) -> nn.Module:
    layers = (nn.Conv2d(a, b, 3, padding=1, padding_mode="reflect") for a, b in pairwise(channels))
    return nn.Sequential(*(nn.Sequential(layer, nn.LeakyReLU(0.2)) for layer in layers))


class Generator(nn.Module):
    """Both pictures in, both restyled out: paper E (4), and with the pictures' parts exchanged (2).

    Args:
        width: channels of the first stage; 2, 2, 3 and 3 times as many in the others.
        encoders: "two" of different structure; "one" for both pictures, the content's (Fig. 6 (b)); "plain":
            two without a U (Fig. 6 (a)).
        fusion: "attention" (the LFFM) or "concat" (Fig. 7 (b)).
        checkpointing: compute each stage, and what follows a picture at a time, again in the backward pass,
            instead of keeping what is in them.

    Shape:
        photographs and artworks (N, 3, H, W) in [0, 1], any size of at least 33 pixels, with or without
        masks (N, R, H, W) of the same R regions -> photographs in the artworks' style, and the reverse.
    """

    def __init__(
        self, width: int = 16, encoders: str = "two", fusion: str = "attention", checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        outputs = tuple(width * k for k in (1, 2, 2, 3, 3))
        self.content_encoder: nn.Module
        self.style_encoder: nn.Module
        if encoders == "plain":
            self.content_encoder = PlainEncoder(outputs, INSTANCE_NORM)
            self.style_encoder = PlainEncoder(outputs, LAYER_NORM)
        else:
            widths = [(one // 2, one) for one in outputs]
            self.content_encoder = NestedU((7, 6, 5, 4, 4), widths, widths[:4], INSTANCE_NORM)
            low = NestedU((5, 4, 4, 3, 3), widths, widths[:4], LAYER_NORM)
            self.style_encoder = self.content_encoder if encoders == "one" else low
            self.content_encoder.checkpointing = low.checkpointing = checkpointing
        lffm = SanetBlock if fusion == "attention" else Splice
        self.style_lffm, self.content_lffm = lffm(sum(outputs)), lffm(sum(outputs))
        channels = (sum(outputs), outputs[1], outputs[0])
        self.style_decoder, self.content_decoder = Decoder(channels, width), Decoder(channels, width)

    def forward(
        self, photos: Tensor, artworks: Tensor, photo_masks: Tensor | None = None,
        artwork_masks: Tensor | None = None, back: bool = True,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """(I_c, I_s) -> (I_c^T, I_s^S); without ``back`` the first alone, and the sizes may differ."""
        photo = photos, photo_masks, *self.content_encoder(photos)
        artwork = artworks, artwork_masks, *self.style_encoder(artworks)
        made = self._restyle("style", photo, artwork)
        return made, self._restyle("content", artwork, photo) if back else None

    def _restyle(self, name: str, own: _Seen, other: _Seen) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return self._paint(name, own, other)
        made = []
        for n in range(len(own[0])):  # nothing here looks from one picture of the batch at another
            one = [[x if x is None else x[n : n + 1] for x in seen] for seen in (own, other)]
            made.append(checkpoint(self._paint, name, *one, use_reentrant=False))
        return torch.cat(made)

    def _paint(self, name: str, own: _Seen, other: _Seen) -> Tensor:
        lffm, decoder = (self.get_submodule(f"{name}_{part}") for part in ("lffm", "decoder"))
        (images, masks, *maps), (others, other_masks, *other_maps) = own, other
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 is too coarse for a variance
            under = recolor(images.float(), others.float(), masks, other_masks)
        here, there = concatenated(maps), concatenated(other_maps)
        keys = (min(there.shape[2], _KEYS), min(there.shape[3], _KEYS))
        there = F.adaptive_avg_pool2d(there, keys)
        if masks is not None and other_masks is not None:
            masks = F.adaptive_avg_pool2d(masks, (here.shape[2], here.shape[3]))
            other_masks = F.adaptive_avg_pool2d(other_masks, keys)
        return decoder(lffm(here, there, masks, other_masks), maps[1], maps[0], under)


def concatenated(maps: list[Tensor]) -> Tensor:
    """Five maps (N, C_n, H_n, W_n) at the size of the third: paper E (8)."""
    finer = [F.adaptive_avg_pool2d(x, (maps[2].shape[2], maps[2].shape[3])) for x in maps[:2]]
    return torch.cat([*finer, *(sized(x, maps[2]) for x in maps[2:])], 1)


def sanet_from_official(state_dict: Mapping[str, Tensor]) -> SanetBlock:
    """A frozen block of style attention with the published weights.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    return load_strict("a SANet block", lambda: SanetBlock(len(state_dict["f.weight"])), state_dict)
