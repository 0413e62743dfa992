"""What all generators with styles have in common, so that methods work with any of them.

A code is z (drawn from the normal distribution) or w (what the mapping network makes of it), and one for all
layers (N, 512) or, as z+ or w+, one for each (N, layers, 512). StyleGAN2 (:mod:`nstlib.nets.stylegan2`) is
such a generator, and so is the small one that runs in a fifth of a second
(:class:`nstlib.nets.mobilestylegan.FacePrior`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import SettingError, known

STYLE = 512
"""Numbers of z and of w."""

STRUCTURE = 7
"""The layers whose style is structure (4 to 32 pixels); in all further ones it is color."""

After = Callable[[int, Tensor], Tensor]
"""The index of a convolution and its features -> the features for the next layer."""


def check_codes(codes: Tensor, layers: int) -> None:
    """Raises a SettingError unless codes are (N, 512) or (N, layers, 512)."""
    if codes.shape[1:] not in ((STYLE,), (layers, STYLE)):
        raise SettingError(f"Codes are (N, {STYLE}) or (N, {layers}, {STYLE}), not {tuple(codes.shape)}.")


class StyleGenerator(nn.Module):
    """Codes to pictures; a subclass defines the mapping network ``style`` and :meth:`synthesize`.

    Attributes:
        size: pixels a side of the pictures.
        layers: codes of a z+ or w+.
        structure_channels: of the features behind each of the first 7 convolutions.
        style: the mapping network, (..., 512) -> (..., 512).
    """

    size: int
    layers: int
    structure_channels: tuple[int, ...]
    style: nn.Module

    def forward(
        self, codes: Tensor, *, space: str = "z", truncation: float = 1.0, center: Tensor | None = None,
        noise: Sequence[Tensor | None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Codes to pictures, differentiable.

        Args:
            codes: z or w (N, 512), z+ or w+ (N, layers, 512).
            space: "z" or "w".
            truncation: see :meth:`w_plus`.
            center: see :meth:`w_plus`.
            noise: for each convolution a map (1 or N, 1, H, W), or None for no noise; by default the
                network's own, see :meth:`noise_maps`.

        Returns:
            (N, 3, size, size), RGB, about [-1, 1] (not clamped).

        Raises:
            SettingError: codes of another shape; an unknown space.
        """
        w_plus = self.w_plus(codes, space, truncation, center)
        return self.synthesize(w_plus, self.noise_maps() if noise is None else noise)

    def w_plus(
        self, codes: Tensor, space: str = "w", truncation: float = 1.0, center: Tensor | None = None
    ) -> Tensor:
        """Codes of any kind to one w for each layer.

        Args:
            codes: z or w (N, 512), z+ or w+ (N, layers, 512).
            space: "z" or "w".
            truncation: how far from the center the w's stay: 1 leaves them, 0 gives the center.
            center: (512,), (1, 512) or (1, layers, 512); None: 0, as in DualStyleGAN (StyleGAN2 takes the
                mean of w, :meth:`mean_w`).

        Returns:
            (N, layers, 512).

        Raises:
            SettingError: another shape or space.
        """
        check_codes(codes, self.layers)
        w = self.style(codes) if known("space of codes", space, ("z", "w")) == "z" else codes
        w = w[:, None].expand(-1, self.layers, -1) if w.ndim == 2 else w
        return w * truncation if center is None else center + truncation * (w - center)

    @torch.no_grad()
    def mean_w(self, samples: int = 4096, generator: torch.Generator | None = None) -> Tensor:
        """The mean of w over so many random z: (1, 512)."""
        first = next(self.style.parameters())
        where = first.device if generator is None else generator.device  # the only one it draws on
        z = torch.randn(samples, STYLE, generator=generator, dtype=first.dtype, device=where)
        return self.style(z.to(first.device)).mean(0, keepdim=True)

    def noise_maps(self) -> list[Tensor | None]:
        """The network's own noise for each convolution; none here, where it is a part of the layers."""
        return []

    def synthesize(
        self, w_plus: Tensor, maps: Sequence[Tensor | None], after: After = lambda _, x: x
    ) -> Tensor:
        """One w for each layer, and the noise, to pictures.

        Args:
            w_plus: (N, layers, 512).
            maps: as :meth:`noise_maps` gives them.
            after: takes the index of a convolution and its features, and returns the features for the next
                layer; here DualStyleGAN adds its structure.

        Returns:
            (N, 3, size, size).
        """
        raise NotImplementedError
