"""The source that draws portraits: a generator of faces, fine-tuned until its pictures have their style.

From one code the two then draw the same face, once as a photograph and once as such a portrait: so a
portrait's code under the one is a code of the face behind it under the other (:mod:`.destylization`).

The released code fine-tunes against a critic alone, for 600 steps of 32 pictures. Ours may have a critic,
too, but learns from what VGG-16 sees if it has none, which takes some hundred pictures.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SettingError
from ...losses import content_loss, contextual_loss, feature_moments
from ...nets.features import FeatureExtractor
from ...nets.style_generator import STYLE, StyleGenerator
from ...pictures.files import resize
from ...training import Callback, Schedule, Step, Task, TrainingResult, shuffled, train
from ..inversion import check_portraits
from .critic import augmentation, augmented_pictures, fooled, told_apart
from .portrait_files import digest
from .settings import Settings as Augmented
from .stage_settings import SMALL, DestylizationSettings

MOMENTS, CONTEXTUAL, CONTENT = ("relu1_2", "relu2_2", "relu3_3"), "relu3_3", "relu4_3"
"""VGG-16's layers that the source's losses see: ours; the first are Johnson's."""

_SEEN = 256  # pixels a side at most that VGG-16 sees
_MEAN_OF = 4096  # w's
_AUGMENTED = Augmented(flip=0.5, shift=0.125, colors=0.2)  # released code: adaptively; ours: fixed


class StyleDistance:
    """How far drawn pictures are from a set of portraits in style, and from other pictures in content.

    The features' mean and second moment over all pictures and positions are the style as a whole; few
    pictures are enough to learn from them, where a critic would soon know each portrait by heart.

    Args:
        portraits: (K, 3, S, S), RGB in [0, 1].
        settings: the weights.
        device: where to.
        tensors: VGG-16's weights instead of the asset's (tests).
    """

    def __init__(
        self, portraits: Tensor, settings: DestylizationSettings, device: str | torch.device = "auto",
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        layers = [*MOMENTS, *([CONTENT] if settings.keeping_weight else [])]
        self.seen = FeatureExtractor("vgg16", layers, device=device, precision="float32", tensors=tensors)
        with torch.no_grad():
            found = [_pooled(self._features(2 * one - 1)) for one in portraits.split(1)]
        self.goal = {
            name: tuple(torch.stack([one[name][i] for one in found]).mean(0) for i in range(2))
            for name in MOMENTS
        }

    def __call__(self, drawn: Tensor, portraits: Tensor, before: Tensor) -> dict[str, Tensor]:
        """Weighted losses, scalars: those of "moments", "contextual", "keeping" that have a weight.

        Args:
            drawn: (N, 3, S, S), about [-1, 1].
            portraits: some of the set, one for each picture, in [-1, 1].
            before: what the source drew from the same codes, in [-1, 1].
        """
        s, losses = self.settings, {}
        features = self._features(drawn)
        if s.moments_weight:
            found = _pooled(features)
            parts = [_relative(a, b) for n in MOMENTS for a, b in zip(found[n], self.goal[n], strict=True)]
            losses["moments"] = s.moments_weight * torch.stack(parts).mean()
        with torch.no_grad():
            goal = self._features(portraits) if s.contextual_weight else {}
            kept = self._features(before) if s.keeping_weight else {}
        if s.contextual_weight:
            losses["contextual"] = s.contextual_weight * contextual_loss(
                features[CONTEXTUAL], goal[CONTEXTUAL]
            )
        if s.keeping_weight:
            size = kept[CONTENT].square().mean()
            losses["keeping"] = s.keeping_weight * content_loss(features[CONTENT], kept[CONTENT]) / size
        return losses

    def _features(self, pictures: Tensor) -> dict[str, Tensor]:
        if pictures.shape[-1] > _SEEN:
            pictures = F.adaptive_avg_pool2d(pictures, _SEEN)
        return self.seen((pictures + 1) / 2)


def _pooled(features: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean (C,) and second moment (C, C) of each layer, over pictures and positions."""
    pooled = {}
    for name in MOMENTS:
        mean, covariance = feature_moments(features[name])
        pooled[name] = mean.mean(0), (covariance + mean[:, :, None] * mean[:, None]).mean(0)
    return pooled


def _relative(found: Tensor, goal: Tensor) -> Tensor:
    return (found - goal).square().sum() / goal.square().sum()


class SourceTask(Task):
    """One step of the source: pictures from random codes, to be like the portraits.

    Args:
        source: what learns; its weights that are frozen by the settings do not.
        before: the source as it was; draws the codes and what is to be kept.
        portraits: (K, 3, S, S), RGB in [0, 1], of the source's size.
        settings: see :class:`.DestylizationSettings`.
        seed: of codes, order and augmentation.
        critic: pictures (N, 3, S, S) in [-1, 1] -> judgements; learns too. None: there is none.
        distance: see :class:`StyleDistance`, or what is called like it; None: there is none.
    """

    def __init__(
        self, source: StyleGenerator, before: StyleGenerator, portraits: Tensor,
        settings: DestylizationSettings, seed: int = 0, critic: nn.Module | None = None,
        distance: Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]] | None = None,
    ) -> None:  # fmt: skip
        self.before, self.portraits, self.settings, self.seed = before, portraits, settings, seed
        self.distance, self.critic = distance, critic
        for name, parameter in source.named_parameters():
            parameter.requires_grad_(not name.startswith(settings.frozen))
        learning = [p for p in source.parameters() if p.requires_grad]
        if not learning:
            raise SettingError(
                f"All weights of the source are frozen by {', '.join(settings.frozen)}: leave some to learn."
            )
        if critic is None and distance is None:
            raise SettingError(
                "The source has nothing to learn from: give a critic, or a weight of moments, contextual or "
                "keeping above 0."
            )
        rate = settings.tuning_rate
        # Against a critic, whose judgement changes, momentum does harm; against a fixed goal it helps.
        momentum = 0.9 if critic is None else 0.0
        self.modules: dict[str, nn.Module] = {"source": source}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": torch.optim.Adam(learning, rate, betas=(momentum, 0.99))
        }
        if critic is not None:
            self.modules["critic"] = critic
            self.optimizers["critic"] = torch.optim.Adam(critic.parameters(), rate, betas=(0.0, 0.99))
        self.center = center_of(before)

    def describe(self) -> dict[str, Any]:
        """See :class:`nstlib.training.Task`."""
        described = {k: v for k, v in asdict(self.settings).items() if k not in _LATER}
        critic = type(self.critic).__name__ if self.critic is not None else None
        sources = {"portraits": digest(self.portraits), "source": digest(self.before)}
        return {"method": "destylization", **described, **sources, "critic": critic}

    @torch.no_grad()
    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Codes z (N, 512), portraits (N, 3, S, S) in [-1, 1], what a critic's augmentation takes (2N, 6)."""
        z, draws = [], []
        for position in positions:
            random = np.random.default_rng([self.seed, position, 3])
            z.append(torch.from_numpy(random.standard_normal((1, STYLE), np.float32)))
            draws += [augmentation(random, _AUGMENTED) for _ in range(2)]
        chosen = shuffled(len(self.portraits), self.seed, positions)
        return torch.cat(z), 2 * self.portraits[chosen] - 1, torch.tensor(draws)

    def step(self, step: Step) -> dict[str, Tensor]:
        """See :class:`nstlib.training.Task`."""
        s, (z, portraits, draws) = self.settings, step.batch
        near: dict[str, Any] = {"truncation": s.tuning_truncation, "center": self.center}
        drawn = step.modules["source"](z, **near)
        losses: dict[str, Tensor] = {}
        if self.distance is not None:
            with torch.no_grad():
                before = self.before(z, **near) if s.keeping_weight else drawn
            losses = self.distance(drawn, portraits, before)
        if "critic" in step.modules:
            critic = step.modules["critic"].requires_grad_(False)
            losses["adversarial"] = s.adversarial_weight * fooled(
                [critic(self._seen(drawn, draws[::2]))], False
            )
        total = torch.stack(list(losses.values())).sum()
        step.descend(total)
        if "critic" in step.modules:
            losses["critic"] = self._criticize(step, drawn.detach(), portraits, draws)
        return {"total": total, **losses}

    def _criticize(self, step: Step, drawn: Tensor, portraits: Tensor, draws: Tensor) -> Tensor:
        s, critic = self.settings, step.modules["critic"].requires_grad_(True)
        penalized = step.number % s.r1_every == 0 and s.r1_weight > 0
        real = self._seen(portraits, draws[1::2]).detach().requires_grad_(penalized)
        of_real = critic(real)
        loss = told_apart([critic(self._seen(drawn, draws[::2]))], [of_real], False)
        if penalized:
            (slope,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
            loss = loss + s.r1_weight / 2 * s.r1_every * slope.square().sum((1, 2, 3)).mean()
        step.descend(loss, "critic")
        return loss

    def _seen(self, pictures: Tensor, draws: Tensor) -> Tensor:
        return augmented_pictures(pictures, draws) if self.settings.augmented else pictures


_LATER = ("steps", "inversion", "restored", "truncation", "center", "tuning_steps", "tuning_batch")
"""Settings that the fine-tuning does not depend on, or that its schedule says."""


def fine_tune_source(
    source: StyleGenerator,
    portraits: Tensor,
    settings: DestylizationSettings = SMALL.destylization,
    folder: str | os.PathLike[str] | None = None,
    *,
    critic: nn.Module | None = None,
    seed: int = 0,
    tensors: Mapping[str, Tensor] | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> tuple[StyleGenerator, TrainingResult]:
    """A copy of the source that draws from the same codes, but in the style of the portraits.

    Args:
        source: stays as it is.
        portraits: (K, 3, H, W), RGB in [0, 1], square, aligned like FFHQ.
        settings: the weights say what it learns from.
        folder: where to keep checkpoints; the same call goes on from there.
        critic: of pictures (N, 3, S, S) in [-1, 1] of the source's size, such as
            :class:`nstlib.nets.stylegan2.Discriminator`; learns in place. Needed where
            ``adversarial_weight`` is above 0.
        seed: of the training.
        tensors: VGG-16's weights instead of the asset's (tests).
        callback: see :func:`nstlib.training.train`.
        progress: show a progress bar.

    Returns:
        The copy, frozen, and the training's result.

    Raises:
        ImageError: no portraits, or not square.
        OptimizationError: see :func:`nstlib.training.train`.
        SettingError: the same; nothing to learn, or a critic missing or too many.
    """
    device = next(source.parameters()).device
    portraits = resize(check_portraits(portraits), (source.size, source.size)).cpu()
    if (critic is not None) != (settings.adversarial_weight > 0):
        raise SettingError(
            "adversarial_weight is above 0 if there is a critic, and only then: give a Discriminator as "
            "critic, or set the weight to 0."
        )
    changed = copy.deepcopy(source)
    if not settings.tuning_steps:
        return changed.requires_grad_(False).eval(), TrainingResult(0, {"source": changed}, {})
    distance = None
    if settings.moments_weight + settings.contextual_weight + settings.keeping_weight > 0:
        distance = StyleDistance(portraits, settings, device, tensors)
    task = SourceTask(changed, source, portraits, settings, seed, critic, distance)
    schedule = Schedule(settings.tuning_steps, settings.tuning_batch, seed=seed)
    result = train(
        task, schedule, folder, device=device, precision="float32", callback=callback, progress=progress
    )
    return changed.requires_grad_(False).eval(), result


def center_of(source: StyleGenerator) -> Tensor:
    """The mean w (1, 512) of a source, always the same."""
    device = next(source.parameters()).device
    return source.mean_w(_MEAN_OF, torch.Generator(device).manual_seed(0))
