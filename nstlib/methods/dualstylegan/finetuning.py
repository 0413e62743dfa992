"""Progressive fine-tuning: how the extrinsic path learns, first to move structure, then a style.

Source: paper A, section 3.2.3, equations (8) to (10). The first stage needs no step: a new extrinsic path
adds nearly nothing to the structure and hands the colors on as they are. In the second, on faces alone, the
path is given another face as its style and learns to give what the generator makes of both codes mixed. In
the third it learns from portraits with their codes, see :class:`Destylized`. The generator stays as it is, so
what is saved is the path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SettingError
from ...faces.identity import Identity, portrait_alignment
from ...losses import contextual_loss, feature_matching
from ...nets.dualstylegan import DualStyleGAN
from ...nets.features import FeatureExtractor
from ...nets.style_generator import STYLE
from ...training import Schedule, Step, Task, TrainingResult, shuffled, train
from ..face_networks import cosine
from .codes import Destylized
from .critic import (
    FEATURES,
    FeatureCritic,
    augmentation,
    augmented_features,
    augmented_pictures,
    fooled,
    make_critic,
    told_apart,
)
from .path import ExtrinsicPath, extrinsic_weights, residual_norms, uneven
from .settings import LAYERS, StructureSettings, StyleSettings

Views = tuple[list[Tensor], list[Tensor]]
"""What a critic sees of drawn pictures and of real ones."""

_KEPT = 1_500_000_000  # bytes of portraits' features that are kept in memory
_SAMPLES = 1024  # of w, by which their mean and deviation are known


class FineTuning(Task):
    """One training step of the second stage or of the third, by the kind of settings.

    Args:
        net: what learns; its generator is frozen.
        settings: of the stage.
        steps: of the whole training, by which the learning rate falls.
        styles: the style's portraits and codes; for the third stage.
        critic: to go on with; None: a new one.
        identity: tells faces apart, in the third stage; None leaves the identity out.
        seed: of the faces and of the critic.
        tensors: VGG-19's weights instead of the asset's (tests).
        precision: of VGG-19's features.

    Raises:
        SettingError: there are no styles for the third stage, or they do not fit the network; a critic of
            another kind.
    """

    def __init__(
        self,
        net: DualStyleGAN,
        settings: StructureSettings | StyleSettings,
        steps: int,
        *,
        styles: Destylized | None = None,
        critic: nn.Module | None = None,
        identity: Identity | None = None,
        seed: int = 0,
        tensors: Mapping[str, Tensor] | None = None,
        precision: str | torch.dtype = "auto",
    ) -> None:
        if isinstance(settings, StyleSettings):
            _fitting(styles, net)
        self.net, self.settings, self.steps, self.seed = net, settings, steps, seed
        self.styles = styles if isinstance(settings, StyleSettings) else None
        self.identity = identity if isinstance(settings, StyleSettings) else None
        self.quick = settings.critic == "features"
        net.generator.requires_grad_(False).eval()
        self.path = ExtrinsicPath(net).requires_grad_(True)
        device = next(net.generator.parameters()).device
        looked_at: dict[str, Any] = {"device": device, "precision": precision, "tensors": tensors}
        layers = self._layers()
        self.seen = FeatureExtractor("vgg19", layers, **looked_at) if layers else None
        with torch.no_grad():
            z = torch.randn(_SAMPLES, STYLE, generator=torch.Generator().manual_seed(0))
            w = net.generator.style(z.to(device))
            self.center, self.deviation = w.mean(0), w.std(0)
        self.modules: dict[str, nn.Module] = {"net": self.path}
        betas = (0.0, 0.99)  # StyleGAN2's
        self.rates = {"main": settings.learning_rate}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": torch.optim.Adam(self.path.parameters(), settings.learning_rate, betas=betas)
        }
        if settings.adversarial_weight:
            critic = make_critic(settings, net.size, seed) if critic is None else critic
            if isinstance(critic, FeatureCritic) != self.quick:
                raise SettingError(
                    f"The settings ask for a critic of the kind '{settings.critic}', and the one given is of "
                    "another: change the setting, or begin with a new critic."
                )
            self.critic = critic.to(device).requires_grad_(True)
            self.modules["critic"], self.rates["critic"] = self.critic, settings.critic_rate
            self.optimizers["critic"] = torch.optim.Adam(
                self.critic.parameters(), settings.critic_rate, betas=betas
            )
        self._kept: dict[int, dict[str, Tensor]] = {}

    def _layers(self) -> list[str]:
        """The layers of VGG-19 that a loss with a weight looks at."""
        s = self.settings
        wanted = {n for n, weight in zip(LAYERS, s.perceptual_layers, strict=True) if s.perceives and weight}
        if isinstance(s, StyleSettings):
            wanted |= set(LAYERS[2:] if s.contextual_weight else ())
            wanted |= set(LAYERS[1:] if s.matching_weight else ())
        if self.quick and s.adversarial_weight:
            wanted |= set(FEATURES)
        return sorted(wanted)

    def describe(self) -> dict[str, Any]:
        """All of the settings, the seed, and the generator and the styles, as a few of their numbers."""
        described = {
            "method": "dualstylegan", "stage": "structure" if self.styles is None else "style",
            "faces_seed": self.seed, "identity": self.identity is not None,
            "generator": [self.net.size, *_few(self.center)], **asdict(self.settings),
        }  # fmt: skip
        if self.styles is not None:
            few = *_few(self.styles.extrinsic), *_few(self.styles.portraits)
            described["styles"] = [len(self.styles), *few]
        # The learning rate falls towards the end, so with another end it is another training.
        return described | ({"planned": self.steps} if self.settings.decay != 1 else {})

    def batch(self, positions: Sequence[int]) -> dict[str, Any]:
        """Random numbers, and which portraits: all from the position alone."""
        z, augment, jitter = [], [], []
        for position in positions:
            random = np.random.default_rng([self.seed, position, 3])
            z.append(random.standard_normal((2, STYLE), np.float32))
            augment.append([augmentation(random, self.settings) for _ in range(2)])
            jitter.append(random.standard_normal((self.net.layers, STYLE), np.float32))
        found: dict[str, Any] = {"z": torch.tensor(np.stack(z)), "augment": torch.tensor(augment)}
        if self.styles is not None:
            chosen = shuffled(len(self.styles), self.seed, positions)
            found |= {
                "chosen": chosen, "jitter": torch.tensor(np.stack(jitter)),
                "extrinsic": self.styles.extrinsic[chosen], "intrinsic": self.styles.intrinsic[chosen],
            }  # fmt: skip
            if not self.quick and self.settings.adversarial_weight:
                found["real"] = 2 * self.styles.portraits[chosen] - 1
        return found

    def step(self, step: Step) -> dict[str, Tensor]:
        """The pictures of the batch, their losses, one step of the path, and one of the critic."""
        s = self.settings
        fallen = float(cosine(step.number, self.steps, s.decay))  # NumPy's numbers cannot be saved
        for name, first in self.rates.items():
            for group in self.optimizers[name].param_groups:
                group["lr"] = first * fallen
        parts, views = self._style(step, s) if isinstance(s, StyleSettings) else self._structure(step, s)
        total = torch.stack(list(parts.values())).sum()
        step.descend(total, "main")
        losses = {"total": total, **parts}
        if views is not None:
            losses["critic"] = self._criticize(step, views)
        return losses

    def _structure(self, step: Step, s: StructureSettings) -> tuple[dict[str, Tensor], Views | None]:
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
        parts: dict[str, Tensor] = {}
        if s.perceives:
            parts["perceptual"] = s.perceptual_weight * self._perceptual(found, wanted)
        views = self._judged(parts, step, (made, found), (goal, wanted))
        return self._with_path(parts, step, face, other), views

    def _style(self, step: Step, s: StyleSettings) -> tuple[dict[str, Tensor], Views | None]:
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
            views = self._judged(parts, step, (made, found), (batch.get("real"), wanted))
            if s.contextual_weight:
                loss = contextual_loss(found[LAYERS[2]], wanted[LAYERS[2]], s.bandwidth)
                parts["contextual"] = s.contextual_weight * loss
            if s.matching_weight:
                losses = [feature_matching(found[name], wanted[name]) for name in LAYERS[1:]]
                parts["matching"] = s.matching_weight * torch.stack(losses).sum()
            if self.identity is not None and identity_weight:
                parts["identity"] = identity_weight * self._other_face(made, face)
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
        """From [-1, 1] to [0, 1], as large as is looked at."""
        times = pictures.shape[-1] // self.settings.seen
        return (F.avg_pool2d(pictures, times) if times > 1 else pictures) / 2 + 0.5

    def _features(self, pictures: Tensor) -> dict[str, Tensor]:
        return {} if self.seen is None else self.seen(self._small(pictures))

    def _portraits(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        """The portraits' features: computed once, one by one, and kept in half the precision."""
        found = [self._portrait(index) for index in chosen]
        return {name: torch.cat([one[name] for one in found]).float() for name in found[0]}

    def _portrait(self, index: int) -> dict[str, Tensor]:
        if index in self._kept:
            return self._kept[index]
        assert self.styles is not None
        with torch.no_grad():
            picture = self.styles.portraits[index : index + 1].to(self.center.device)
            seen = self._features(2 * picture - 1)
        # Rounded whether kept or not, so that what fits into memory changes no number.
        half = {name: t.half() if t.dtype == torch.float32 else t for name, t in seen.items()}
        size = sum(t.numel() * t.element_size() for t in half.values())
        if (1 + len(self._kept)) * size <= _KEPT:
            self._kept[index] = half
        return half

    def _perceptual(self, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(
            [
                weight * (found[name].float() - wanted[name]).abs().mean()
                for name, weight in zip(LAYERS, self.settings.perceptual_layers, strict=True)
                if weight
            ]
        ).sum()

    def _other_face(self, made: Tensor, codes: Tensor) -> Tensor:
        """1 - the cosine of the picture's face and the generator's own."""
        assert self.identity is not None
        if not bool(made.isfinite().all()):  # embed would raise its own error; descend knows what to do
            return made.sum() * torch.nan
        with torch.no_grad():
            plain = self._small(self.net(codes, space="w")).clamp(0, 1)
            wanted = self.identity.embed(plain, portrait_alignment())
        found = self.identity.embed(self._small(made).clamp(0, 1), portrait_alignment())
        return 1 - (found * wanted).sum(1).mean()

    def _judged(
        self, parts: dict[str, Tensor], step: Step,
        made: tuple[Tensor, Mapping[str, Tensor]], real: tuple[Tensor | None, Mapping[str, Tensor]],
    ) -> Views | None:  # fmt: skip
        """Add the adversarial loss; what the critic has seen, for its own step."""
        if not self.settings.adversarial_weight:
            return None
        drawn, true = step.batch["augment"].unbind(1)
        views = self._view(*made, drawn), self._view(*real, true)
        self.critic.requires_grad_(False)
        loss = fooled(self.critic(views[0])[0], self.quick)
        self.critic.requires_grad_(True)
        parts["adversarial"] = self.settings.adversarial_weight * loss
        return views

    def _view(self, pictures: Tensor | None, features: Mapping[str, Tensor], draws: Tensor) -> list[Tensor]:
        if self.quick:
            return augmented_features([features[name].float() for name in FEATURES], draws)
        assert pictures is not None
        return [augmented_pictures(pictures, draws)]

    def _criticize(self, step: Step, views: Views) -> Tensor:
        s = self.settings
        number = s.judged(step.number) if isinstance(s, StyleSettings) else step.number
        penalized = not self.quick and s.r1_weight > 0 and number % s.r1_every == 0
        drawn, real = ([one.detach() for one in view] for view in views)
        if penalized:
            real[0].requires_grad_(True)
        of_drawn, of_real = step.modules["critic"](drawn, real)
        loss = told_apart(of_drawn, of_real, self.quick)
        if penalized:
            (slope,) = torch.autograd.grad(of_real[0].sum(), real[0], create_graph=True)
            loss = loss + s.r1_weight / 2 * s.r1_every * slope.square().sum((1, 2, 3)).mean()
        step.descend(loss, "critic")
        return loss

    def _with_path(
        self, parts: dict[str, Tensor], step: Step, face: Tensor, style: Tensor
    ) -> dict[str, Tensor]:
        """Add path length regularization, every so often, on half of the batch."""
        s = self.settings
        if not s.path_weight or step.number % s.path_every:
            return parts
        some = max(1, len(face) // 2)
        loss = uneven(self.path, step.modules["net"], face[:some], style[:some], step.generator)
        return {**parts, "path": s.path_weight * s.path_every * loss}


def fine_tune(
    net: DualStyleGAN,
    settings: StructureSettings | StyleSettings,
    schedule: Schedule,
    folder: str | os.PathLike[str] | None = None,
    *,
    precision: str | torch.dtype = "auto",
    callback: Any = None,
    progress: bool = True,
    **options: Any,
) -> tuple[nn.Module | None, TrainingResult]:
    """Train a DualStyleGAN's extrinsic path for one stage, from the weights it has.

    Args:
        net: what learns; it has the final weights afterwards, and is frozen.
        settings: of the second or the third stage.
        schedule: see :class:`nstlib.training.Schedule`; the settings' own number of steps is ``steps``.
        folder: where to keep checkpoints; the same call, with the same first weights, goes on from there.
        precision: see :func:`nstlib.training.train`.
        callback: the same.
        progress: the same.
        options: ``styles``, ``critic``, ``identity``, ``tensors`` of :class:`FineTuning`.

    Returns:
        The critic, for the next stage, and the training's result.

    Raises:
        OptimizationError: see :func:`nstlib.training.train`.
        SettingError: the same, or the styles do not fit the network.
    """
    first = {k: t.detach().clone() for k, t in net.style.state_dict().items()}
    task = FineTuning(net, settings, schedule.steps, seed=schedule.seed, precision=precision, **options)
    try:
        result = train(
            task, schedule, folder, device=task.center.device, precision=precision, callback=callback,
            progress=progress,
        )  # fmt: skip
        kept = None if settings.average_transform or not result.averages else first
        net.load_state_dict({**net.state_dict(), **extrinsic_weights(result, kept)})
    finally:
        net.requires_grad_(False).eval()
    return task.modules.get("critic"), result


def _fitting(styles: Destylized | None, net: DualStyleGAN) -> None:
    if styles is None:
        raise SettingError(
            "The third stage learns from portraits with their codes: give styles, a Destylized set."
        )
    if styles.layers != net.layers or styles.size != net.size:
        raise SettingError(
            f"This network makes {net.size} pixels from {net.layers} codes, but the portraits have "
            f"{styles.size} pixels and {styles.layers} codes: destylize them with the same generator."
        )


def _few(tensor: Tensor) -> list[float]:
    return [round(float(v), 3) for v in tensor.flatten()[:3]]
