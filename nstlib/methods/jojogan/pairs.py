"""The pairs of JoJoGAN, and how a generator learns from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SettingError
from ...faces.identity import Identity, portrait_alignment
from ...nets.style_generator import STYLE, StyleGenerator
from ...training import Step, Task
from ..face_networks import cosine
from .settings import Settings

_LEAST = 1e-3  # size that a tensor counts as having at least: one of zeros learns, too


class PairsTask(Task):
    """One step: codes of the style, mixed with random ones, and the generator is to give the style picture.

    Args:
        net: what learns, all but its mapping network.
        source: the generator before; what random codes are mapped by, and the identity is compared to.
        targets: the style pictures, (S, 3, size, size) in [-1, 1].
        codes: w+ of these, (S, layers, 512).
        features: pictures in [-1, 1] -> list of feature maps.
        settings: see :class:`Settings`.
        steps: of the whole training, by which the learning rate falls.
        identity: tells faces apart, if that has a weight.
        compared: what ``features`` are of: "discriminator" or "vgg".
    """

    def __init__(
        self, net: StyleGenerator, source: StyleGenerator, targets: Tensor, codes: Tensor,
        features: Callable[[Tensor], Sequence[Tensor]], settings: Settings, steps: int,
        identity: Identity | None = None, compared: str = "discriminator",
    ) -> None:  # fmt: skip
        self.source, self.codes, self.features, self.settings = source, codes, features, settings
        self.steps, self.identity, self.compared = steps, identity, compared
        self.mask = settings.mask(source.layers).to(codes)
        with torch.no_grad():
            self.targets = [layer.float() for layer in features(targets)]
            self.first = source(codes[:1], space="w")
        if not self.targets:
            raise SettingError("The features to compare have no layers: give a discriminator that has some.")
        net.requires_grad_(True).style.requires_grad_(False)
        learning = [p for p in net.parameters() if p.requires_grad]
        sizes = [max(float(p.detach().square().mean().sqrt()), _LEAST) for p in learning]
        self.rates = [settings.learning_rate * (x if settings.relative_rates else 1.0) for x in sizes]
        self.modules: dict[str, nn.Module] = {"net": net}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": torch.optim.Adam(
                [{"params": [p], "lr": rate} for p, rate in zip(learning, self.rates, strict=True)],
                betas=(0.0, 0.99),
            )
        }

    @cached_property
    def center(self) -> Tensor:
        """The mean w, (1, 512)."""
        return self.source.mean_w(generator=torch.Generator(self.codes.device).manual_seed(0))

    def describe(self) -> dict[str, Any]:
        """All of the settings, and the generator and the style, as a few of their numbers."""
        few = [self.first, *self.codes, *self.targets]
        numbers = [[round(float(v), 4) for v in some.flatten()[:3]] for some in few]
        settings = {k: v for k, v in asdict(self.settings).items() if k not in ("steps", "batch")}
        described = {
            "method": "jojogan", "compared": self.compared, "styles": len(self.codes), "numbers": numbers,
            **settings,
        }  # fmt: skip
        # The learning rate falls towards the end, so with another end it is another training.
        return described | ({"until": self.steps} if self.settings.decay != 1 else {})

    def batch(self, positions: Sequence[int]) -> Tensor:
        """Which styles: in turn, so that each is shown as often as the others."""
        return torch.tensor([position % len(self.codes) for position in positions])

    def mixed(self, which: Tensor, generator: torch.Generator) -> Tensor:
        """Codes of these styles, some of them replaced by random ones: (N, layers, 512).

        Args:
            which: numbers of styles, (N,).
            generator: of the random codes, on the CPU.
        """
        z = torch.randn(len(which), STYLE, generator=generator).to(self.codes)
        with torch.no_grad():
            w = self.source.style(z)
            if self.settings.truncation != 1:
                w = torch.lerp(self.center, w, self.settings.truncation)
        return torch.lerp(self.codes[which], w[:, None], self.mask)

    def step(self, step: Step) -> dict[str, Tensor]:
        """See :class:`nstlib.training.Task`."""
        s, which = self.settings, step.batch.to(self.codes.device)
        fallen = float(cosine(step.number, self.steps, s.decay))
        for group, rate in zip(self.optimizers["main"].param_groups, self.rates, strict=True):
            group["lr"] = rate * fallen
        codes = self.mixed(which, step.generator)
        own = self.source.noise_maps("fixed")
        noise: str | list[Tensor | None] = "fixed"
        if own and s.noise == "random":
            # Drawn on the CPU, so that it is the same on every device.
            noise = [
                None if m is None else torch.randn(len(codes), *m.shape[1:], generator=step.generator).to(m)
                for m in own
            ]
        made = step.modules["net"](codes, space="w", noise=noise).float()
        losses = {"features": self.difference(made, which)}
        if s.identity_weight and self.identity is not None:
            with torch.no_grad():
                before = self.source(codes, space="w", noise=noise)
            a, b = (self.identity.embed((x + 1) / 2, portrait_alignment()) for x in (made, before))
            losses["identity"] = s.identity_weight * (1 - (a * b).sum(1).mean())
        total = torch.stack([*losses.values()]).sum()
        step.descend(total)
        return {"total": total, **losses}

    def difference(self, made: Tensor, which: Tensor) -> Tensor:
        """Mean absolute difference of the features, averaged over the layers.

        Args:
            made: pictures (N, 3, size, size) in [-1, 1].
            which: numbers of the styles they are to be, (N,).
        """
        losses = []
        for found, wanted in zip(self.features(made), self.targets, strict=True):
            loss = F.l1_loss(found.float(), wanted[which])
            losses.append(loss / wanted.abs().mean() if self.settings.relative_features else loss)
        return torch.stack(losses).mean()
