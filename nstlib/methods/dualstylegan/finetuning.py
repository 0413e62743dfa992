"""Progressive fine-tuning: how the extrinsic path learns, first to move structure, then a style.

Source: paper A, section 3.2.3, equations (8) to (10). The first stage needs no step: a new extrinsic path
adds nearly nothing to the structure and hands the colors on as they are. In the second, on faces alone, the
path is given another face as its style and learns to give what the generator makes of both codes mixed. In
the third it learns from portraits with their codes, see :class:`.Destylized`. The generator stays as it is,
so what is saved is the path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ... import losses
from ...faces.identity import Identity, portrait_alignment
from ...nets.dualstylegan import DualStyleGAN
from ...nets.features import FeatureExtractor
from ...nets.hardware import seeded
from ...nets.style_generator import STRUCTURE, STYLE
from ...nets.stylegan2 import Discriminator
from ...training import Callback, Schedule, Step, Task, TrainingResult, digest, shuffled, train
from .destylization import Destylized, augment, augmentation, discriminator_step, moved
from .settings import LAYERS, StructureSettings, StyleSettings

FEATURES = {"relu2_1": 128, "relu3_1": 256}
"""VGG-19's layers that the quick discriminator gets, and their channels."""

Features = dict[str, Tensor]

_KEPT = 400  # portraits whose features are kept in memory: up to 6 MB each
_SAMPLES = 1024  # of w, by which their mean and deviation are known


class ExtrinsicPath(nn.Module):
    """The part of a DualStyleGAN that learns: called, the whole network; saved and averaged, this part alone.

    Args:
        net: whose parts these are.

    Attributes:
        path_length: the running mean of the path length penalty.
    """

    path_length: Tensor

    def __init__(self, net: DualStyleGAN) -> None:
        super().__init__()
        self.style, self.res = net.style, net.res
        self.register_buffer("path_length", torch.zeros(()))
        self.__dict__["whole"] = net  # not as a module of this one: the generator would be saved with it

    def forward(self, intrinsic: Tensor, extrinsic: Tensor) -> Tensor:
        """Codes w+ (N, layers, 512) of faces and of styles -> pictures (N, 3, size, size), about [-1, 1]."""
        # The noise is fixed: the goal of the second stage has the same one, and differs in style alone.
        return self.__dict__["whole"](intrinsic, extrinsic, space="w", extrinsic_space="w")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExtrinsicPath:
        self.__dict__["whole"].generator._apply(fn)  # to another device together
        return super()._apply(fn, recurse)


class FeatureDiscriminator(nn.Module):
    """A small network on each layer of VGG-19's features, which scores every patch.

    Over the features of a network that knows pictures, few examples and little time are enough. Ours gets the
    layers as they are, without the paper's random mixing.

    Source: Sauer et al. 2021, "Projected GANs Converge Faster".
    """

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(self._head(channels) for channels in FEATURES.values())

    def forward(self, *views: Sequence[Tensor]) -> list[list[Tensor]]:
        """Features (N, C, H, W) of each layer -> scores (N, 1, H / 2, W / 2); of each view."""
        counts = [len(view[0]) for view in views]
        # Together: each pass sharpens a layer's spectral norm, in which views must not differ.
        layers = [torch.cat(layer) for layer in zip(*views, strict=True)]
        scores = [head(layer).split(counts) for head, layer in zip(self.heads, layers, strict=True)]
        return [list(view) for view in zip(*scores, strict=True)]

    @staticmethod
    def _head(channels: int, width: int = 64) -> nn.Sequential:
        # Bounded slopes instead of a gradient penalty, which would have to be differentiated twice.
        return nn.Sequential(
            spectral_norm(nn.Conv2d(channels, width, 1)), nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, width, 3, stride=2, padding=1)), nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 1, 1)),
        )  # fmt: skip


class FineTuning(Task):
    """One training step of the second stage or of the third, by the kind of settings.

    Args:
        net: what learns; its generator is frozen.
        settings: of the stage.
        styles: the style's portraits and codes; for the third stage.
        discriminator: to go on with; None: a new one.
        identity: tells faces apart, in the third stage; None leaves the identity out.
        seed: of the faces and of the discriminator.
        precision: of VGG-19's features.

    Raises:
        SettingError: the styles do not fit the network.
    """

    def __init__(
        self, net: DualStyleGAN, settings: StructureSettings | StyleSettings, *,
        styles: Destylized | None = None, discriminator: nn.Module | None = None,
        identity: Identity | None = None, seed: int = 0, precision: str | torch.dtype = "auto",
    ) -> None:  # fmt: skip
        third = isinstance(settings, StyleSettings)
        if third and styles is not None:
            styles.check(net)
        self.net, self.settings, self.decay, self.seed = net, settings, settings.decay, seed
        self.styles, self.identity = (styles, identity) if third else (None, None)
        self.quick = settings.discriminator == "features"
        net.generator.requires_grad_(False).eval()
        self.path = ExtrinsicPath(net).requires_grad_(True)
        device = next(net.generator.parameters()).device
        layers = LAYERS[0 if settings.perceptual_layers[0] else 1 :]
        self.extractor = FeatureExtractor("vgg19", layers, device=device, precision=precision)
        with torch.no_grad():
            z = torch.randn(_SAMPLES, STYLE, generator=torch.Generator().manual_seed(0))
            w = net.generator.style(z.to(device))
            self.center, self.deviation = w.mean(0), w.std(0)
        adam = partial(torch.optim.Adam, betas=(0.0, 0.99))  # StyleGAN2's
        self.modules: dict[str, nn.Module] = {"net": self.path}
        self.optimizers = {"main": adam(self.path.parameters(), settings.learning_rate)}
        if settings.adversarial_weight:
            if discriminator is None:
                size, channels = net.size, settings.discriminator_channels
                with seeded(seed):
                    discriminator = FeatureDiscriminator() if self.quick else Discriminator(size, channels)
            self.discriminator = discriminator.to(device).requires_grad_(True)
            self.modules["discriminator"] = self.discriminator
            judged = adam(self.discriminator.parameters(), settings.discriminator_rate)
            self.optimizers["discriminator"] = judged
        self._portrait = lru_cache(_KEPT)(self._portrait_features)
        told = [] if self.styles is None else [digest(self.styles.extrinsic), digest(self.styles.portraits)]
        self.sources = {
            "stage": type(settings).__name__, "faces_seed": seed, "styles": told,
            "identity": self.identity is not None, "generator": digest(net.generator),
        }  # fmt: skip

    def batch(self, positions: Sequence[int]) -> dict[str, Any]:
        """Random numbers, and which portraits: all from the position alone."""
        s, z, draws, jitter = self.settings, [], [], []
        for position in positions:
            random = np.random.default_rng([self.seed, position, 3])
            z.append(random.standard_normal((2, STYLE), np.float32))
            draws.append([augmentation(random, s.flip, s.shift, s.colors) for _ in range(2)])
            jitter.append(random.standard_normal((self.net.layers, STYLE), np.float32))
        found: dict[str, Any] = {"z": torch.tensor(np.stack(z)), "augment": torch.tensor(draws)}
        if self.styles is not None:
            chosen = shuffled(len(self.styles), self.seed, positions)
            found |= {
                "chosen": chosen, "jitter": torch.tensor(np.stack(jitter)),
                "extrinsic": self.styles.extrinsic[chosen], "intrinsic": self.styles.intrinsic[chosen],
            }  # fmt: skip
            if not self.quick and s.adversarial_weight:
                found["real"] = 2 * self.styles.portraits[chosen] - 1
        return found

    def step(self, step: Step) -> dict[str, Tensor]:
        """The pictures of the batch, their losses, one step of the path, and one of the discriminator."""
        s = self.settings
        parts, views = self._style(step, s) if isinstance(s, StyleSettings) else self._structure(step, s)
        total = torch.stack(list(parts.values())).sum()
        step.descend(total, "main")
        found = {"total": total, **parts}
        if views is not None:
            found["discriminator"] = self._discriminator_step(step, *views)
        return found

    def _structure(self, step: Step, s: StructureSettings) -> Any:
        """Equation (8) on faces: a face in the style of another one, and what the mixture of codes gives."""
        face, other = self._random_codes(step.batch["z"]).unbind(1)
        face, other = (self.net.generator.w_plus(w) for w in (face, other))
        kept = s.codes_kept(step.number)
        with torch.no_grad():
            goal = self.net(torch.cat([face[:, :kept], other[:, kept:]], 1), space="w")
        made = step.modules["net"](face, other)
        with torch.no_grad():
            wanted = self._features(goal)
        found = self._features(made)
        parts = {"perceptual": s.perceptual_weight * self._perceptual(found, wanted)}
        views = self._adversarial(parts, step, (made, found), (goal, wanted))
        return self._with_path(parts, step, face, other), views

    def _style(self, step: Step, s: StyleSettings) -> Any:
        """Equations (8) to (10) on portraits: with the faces behind them, or in their style random ones."""
        batch, parts, views = step.batch, {}, None
        identity_weight, norms_weight = s.phase(step.number)
        if s.pairs(step.number):
            face, style = batch["intrinsic"], batch["extrinsic"]
            found, wanted = self._features(step.modules["net"](face, style)), self._portraits(batch["chosen"])
            parts["perceptual"] = s.perceptual_weight * self._perceptual(found, wanted)
        else:
            style = batch["extrinsic"] + s.jitter * self.deviation * batch["jitter"]
            face = self._random_faces(batch["z"], s)
            made = step.modules["net"](face, style)
            found, wanted = self._features(made), self._portraits(batch["chosen"])
            views = self._adversarial(parts, step, (made, found), (batch.get("real"), wanted))
            if s.contextual_weight:
                loss = losses.contextual_loss(found[LAYERS[2]], wanted[LAYERS[2]], s.bandwidth)
                parts["contextual"] = s.contextual_weight * loss
            if s.matching_weight:
                apart = [losses.feature_matching(found[name], wanted[name]) for name in LAYERS[1:]]
                parts["matching"] = s.matching_weight * torch.stack(apart).sum()
            if self.identity is not None and identity_weight:
                parts["identity"] = identity_weight * self._identity_loss(made, face)
        if norms_weight:
            parts["norms"] = norms_weight * residual_norms(self.net)
        return self._with_path(parts, step, face, style), views

    def _random_codes(self, z: Tensor) -> Tensor:
        """z (..., 512) to w."""
        with torch.no_grad():
            return torch.lerp(self.center, self.net.generator.style(z), self.settings.truncation)

    def _random_faces(self, z: Tensor, s: StyleSettings) -> Tensor:
        """z (N, 2, 512) to w+ of the first, with the second's last codes."""
        face, other = self._random_codes(z).unbind(1)
        codes = self.net.generator.w_plus(face).clone()
        if s.resampled is not None:  # of no weight in the picture itself, but in the face it is to resemble
            codes[:, s.resampled :] = other[:, None]
        return codes

    def _small(self, pictures: Tensor) -> Tensor:
        """From [-1, 1] to [0, 1], at the resolution of the losses."""
        times = pictures.shape[-1] // self.settings.loss_resolution
        return (F.avg_pool2d(pictures, times) if times > 1 else pictures) / 2 + 0.5

    def _features(self, pictures: Tensor) -> Features:
        return self.extractor(self._small(pictures))

    def _portraits(self, chosen: Sequence[int]) -> Features:
        """The portraits' features, one by one."""
        found = [self._portrait(index) for index in chosen]
        return {name: torch.cat([one[name] for one in found]).float() for name in found[0]}

    @torch.no_grad()
    def _portrait_features(self, index: int) -> Features:
        """Of one portrait, in half the precision, as many of them are kept."""
        assert self.styles is not None
        picture = self.styles.portraits[index : index + 1].to(self.center.device)
        features = self._features(2 * picture - 1)
        return {name: t.half() if t.dtype == torch.float32 else t for name, t in features.items()}

    def _perceptual(self, found: Features, wanted: Features) -> Tensor:
        weights = zip(LAYERS, self.settings.perceptual_layers, strict=True)
        apart = [w * (found[n].float() - wanted[n]).abs().mean() for n, w in weights if w]
        return torch.stack(apart).sum()

    def _identity_loss(self, made: Tensor, codes: Tensor) -> Tensor:
        """1 - the cosine of the picture's face and the generator's own."""
        assert self.identity is not None
        if not bool(made.isfinite().all()):  # embed would raise its own error; descend knows what to do
            return made.sum() * torch.nan
        with torch.no_grad():
            plain = self._small(self.net(codes, space="w")).clamp(0, 1)
            wanted = self.identity.embed(plain, portrait_alignment())
        found = self.identity.embed(self._small(made).clamp(0, 1), portrait_alignment())
        return 1 - (found * wanted).sum(1).mean()

    def _adversarial(
        self, parts: dict[str, Tensor], step: Step, made: tuple[Tensor, Features],
        real: tuple[Tensor | None, Features],
    ) -> tuple[list[Tensor], list[Tensor]] | None:  # fmt: skip
        """Add the generator's loss; what the discriminator gets, of generated and of real pictures."""
        if not self.settings.adversarial_weight:
            return None
        generated, true = step.batch["augment"].unbind(1)
        views = self._view(*made, generated), self._view(*real, true)
        self.discriminator.requires_grad_(False)
        scores = self.discriminator(views[0])[0] if self.quick else [self.discriminator(views[0][0])]
        self.discriminator.requires_grad_(True)
        loss = torch.stack([losses.generator_loss(one, self.quick) for one in scores]).mean()
        parts["adversarial"] = self.settings.adversarial_weight * loss
        return views

    def _view(self, pictures: Tensor | None, features: Features, draws: Tensor) -> list[Tensor]:
        """Augmented: the picture; or features, which have no colors, only a contrast."""
        if self.quick:
            gain = 1 + draws[:, 5].view(-1, 1, 1, 1)
            return [moved(features[name].float() * gain, draws) for name in FEATURES]
        assert pictures is not None
        return [augment(pictures, draws)]

    def _discriminator_step(self, step: Step, generated: list[Tensor], real: list[Tensor]) -> Tensor:
        s = self.settings
        if not self.quick:
            number = s.discriminator_steps(step.number) if isinstance(s, StyleSettings) else step.number
            return discriminator_step(
                step, generated[0], real[0], r1_weight=s.r1_weight, r1_every=s.r1_every, number=number
            )
        views = [[one.detach() for one in view] for view in (generated, real)]
        pairs = zip(*step.modules["discriminator"](*views), strict=True)
        loss = torch.stack([losses.discriminator_loss(a, b, hinge=True) for a, b in pairs]).mean()
        step.descend(loss, "discriminator")
        return loss

    def _with_path(
        self, parts: dict[str, Tensor], step: Step, face: Tensor, style: Tensor
    ) -> dict[str, Tensor]:
        """Add the path length penalty, every so often, on half of the batch."""
        s, some = self.settings, max(1, len(face) // 2)
        if not s.path_weight or step.number % s.path_every:
            return parts
        codes = style[:some].detach().clone().requires_grad_(True)
        made = step.modules["net"](face[:some], codes)
        loss = losses.path_length_penalty(made, codes, self.path.path_length, step.generator)
        return {**parts, "path": s.path_weight * s.path_every * loss}


def residual_norms(net: DualStyleGAN) -> Tensor:
    """The sum of the norms, not squared, of the residual blocks' weights: paper A (10), as released."""
    blocks = list(net.res)[:STRUCTURE]
    return torch.stack([p.norm() for block in blocks for p in block.parameters()]).sum()


def extrinsic_weights(
    result: TrainingResult, first_transform: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """What a training gives in the end, as :meth:`DualStyleGAN.extrinsic_state` names it.

    Args:
        result: of a training of :class:`FineTuning`.
        first_transform: T_s as it was before the training, to stand in for what was learned; see
            ``average_transform`` of the settings. It makes sense only together with an average.

    Returns:
        The averages if they were taken, else the last weights.
    """
    state = result.averages.get("net") or result.modules["net"].state_dict()
    weights = {k: t.detach().clone() for k, t in state.items() if k != "path_length"}
    return weights | {f"style.{k}": t.clone() for k, t in (first_transform or {}).items()}


def fine_tune(
    net: DualStyleGAN, settings: StructureSettings | StyleSettings, schedule: Schedule,
    folder: str | os.PathLike[str] | None = None, *, precision: str | torch.dtype = "auto",
    callback: Callback | None = None, progress: bool = True, **options: Any,
) -> tuple[nn.Module | None, TrainingResult]:  # fmt: skip
    """Train a DualStyleGAN's extrinsic path for one stage, from the weights it has.

    Args:
        net: what learns; it has the final weights afterwards, and is frozen.
        settings: of the second or the third stage.
        schedule: see :class:`nstlib.training.Schedule`; the settings' own number of steps is ``steps``.
        folder: where to keep checkpoints; the same call, with the same first weights, goes on from there.
        precision: see :func:`nstlib.training.train`.
        callback: the same.
        progress: the same.
        options: ``styles``, ``discriminator``, ``identity`` of :class:`FineTuning`.

    Returns:
        The discriminator, for the next stage, and the training's result.

    Raises:
        OptimizationError: see :func:`nstlib.training.train`.
        SettingError: the same, or the styles do not fit the network.
    """
    first = {k: t.detach().clone() for k, t in net.style.state_dict().items()}
    task = FineTuning(net, settings, seed=schedule.seed, precision=precision, **options)
    try:
        result = train(
            task, schedule, folder, device=task.center.device, precision=precision, callback=callback,
            progress=progress,
        )  # fmt: skip
        kept = None if settings.average_transform or not result.averages else first
        net.load_state_dict({**net.state_dict(), **extrinsic_weights(result, kept)})
    finally:
        net.requires_grad_(False).eval()
    return task.modules.get("discriminator"), result
