"""Stage one, destylization: which face might be behind this portrait?

A portrait by itself teaches nothing about style; a portrait beside the face it might have been drawn from
does. Nobody has such pairs, so they are made, in three steps that each can be looked at:

1. latent initialization: an encoder reads a code off the portrait (:func:`initial_codes`), which gives a face
   that is alike only roughly, because the encoder knows photographs;
2. latent optimization: the generator is fine-tuned until it draws such portraits (:func:`fine_tune_source`),
   and the code is searched for from which that one draws this portrait (:func:`optimized_codes`);
3. image embedding: from the same code the generator as it was draws a face (:func:`photographic`), and the
   encoder reads that face's code, which lies among those of real faces.

The released code fine-tunes against a discriminator alone, for 600 steps of 32 pictures. Ours may have one,
too, but learns from VGG-16's features if it has none, which takes some hundred pictures.

Source: paper A, section 3.2.1, after Yang et al. 2022, "Pastiche Master", section 3.1.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm

from ... import losses
from ...assets.writing import write_atomic
from ...errors import OptimizationError, SettingError
from ...faces.identity import Identity
from ...metrics import Lpips
from ...nets.dualstylegan import DualStyleGAN
from ...nets.features import FeatureExtractor
from ...nets.hardware import seeded
from ...nets.style_generator import STYLE, StyleGenerator, check_codes
from ...nets.stylegan2 import Discriminator
from ...pictures.files import resize
from ...training import Checkpoints, Schedule, Step, Task, TrainingResult, digest, shuffled, train
from ..inversion import Encoder, at_most, check_portraits, invert, mean_w
from .settings import SMALL, DestylizationSettings

MOMENTS, CONTEXTUAL, CONTENT = ("relu1_2", "relu2_2", "relu3_3"), "relu3_3", "relu4_3"
"""VGG-16's layers of the source's losses: ours; the first are Johnson's."""

_RESOLUTION = 256  # pixels a side at most that VGG-16 gets


@dataclass(frozen=True)
class Destylized:
    """K portraits of one style, and their codes in w+."""

    extrinsic: Tensor  # (K, layers, 512): of the portrait as it is
    intrinsic: Tensor  # (K, layers, 512): of the photograph that might be behind it
    portraits: Tensor  # (K, 3, S, S), RGB in [0, 1]

    def __len__(self) -> int:
        return len(self.portraits)

    def check(self, net: DualStyleGAN) -> None:
        """Raises a SettingError unless a network draws such portraits from such codes."""
        layers, size = self.extrinsic.shape[1], self.portraits.shape[-1]
        if (layers, size) != (net.layers, net.size):
            raise SettingError(
                f"This network makes {net.size} pixels from {net.layers} codes, but the portraits have "
                f"{size} pixels and {layers} codes: destylize them with the same generator."
            )


# ------------------------------------------------------------------ portraits done one by one


def each_portrait(
    count: int, prepare: Callable[[], Callable[[int], Mapping[str, Tensor]]],
    folder: str | os.PathLike[str] | None, description: Mapping[str, Any], *, name: str,
    progress: bool = True,
) -> list[dict[str, Tensor]]:  # fmt: skip
    """What is computed for each portrait; with a folder, an interrupted run goes on behind the last one.

    Portraits do not know of each other, so several processes (``accelerate launch``) take turns with them,
    and find each other's results in the folder.

    Args:
        count: of portraits.
        prepare: gives what computes the tensors of one, by its number; not called where all are done.
        folder: keeps a file for each; None keeps nothing.
        description: everything that, changed, would give other results.
        name: of the progress bar.
        progress: show it.

    Raises:
        SettingError: the folder holds other portraits' results, or several processes have none in common.
    """
    from accelerate import PartialState

    group = PartialState(cpu=not torch.cuda.is_available())
    with group.main_process_first():
        files = None if folder is None else Checkpoints(folder, description).folder

    def load(index: int) -> dict[str, Tensor] | None:
        if files is None:
            return None
        try:
            return safetensors.torch.load_file(files / f"{index:04d}.safetensors")
        except (OSError, SafetensorError):  # not done, or damaged
            return None

    found = [load(index) for index in range(count)]
    compute = prepare() if None in found else found.__getitem__
    for index in tqdm(range(group.process_index, count, group.num_processes), name, disable=not progress):
        if found[index] is None:
            try:
                made = compute(index)
            except OptimizationError as error:
                raise OptimizationError(f"Portrait {index + 1}: {error}") from error
            found[index] = {key: tensor.detach().cpu().contiguous() for key, tensor in made.items()}
            if files is not None:
                write_atomic(files / f"{index:04d}.safetensors", safetensors.torch.save(found[index]))
    group.wait_for_everyone()
    done = [one or load(index) for index, one in enumerate(found)]
    if None in done:
        raise SettingError(f"Portrait {done.index(None) + 1} is not in '{folder}': let all processes see it.")
    return [one for one in done if one is not None]


# ------------------------------------------------------------------ against a discriminator


def source_discriminator(
    given: Discriminator | None, size: int, channels: Sequence[int] | None = None, seed: int = 0
) -> Discriminator:
    """StyleGAN2's discriminator, ready to learn: a copy of the one given, or a new one.

    Args:
        given: has learned with the source; stays as it is.
        size: pixels a side of a new one's pictures.
        channels: of a new one; None: configuration F's.
        seed: of a new one's weights.
    """
    if given is not None:
        return copy.deepcopy(given).requires_grad_(True)
    with seeded(seed):
        return Discriminator(size, channels)


def discriminator_step(
    step: Step, generated: Tensor, real: Tensor, *, r1_weight: float, r1_every: int, number: int | None = None
) -> Tensor:
    """One step of ``step.modules["discriminator"]``, with the R1 penalty in every so many of them.

    Args:
        step: of the task.
        generated: pictures (N, 3, H, W) in [-1, 1].
        real: pictures, likewise.
        r1_weight: StyleGAN2's gamma.
        r1_every: steps.
        number: of the discriminator's steps before; None: ``step.number``.

    Returns:
        The loss.
    """
    discriminator = step.modules["discriminator"].requires_grad_(True)
    penalized = r1_weight > 0 and (step.number if number is None else number) % r1_every == 0
    real = real.detach().requires_grad_(penalized)
    scores = discriminator(real)
    loss = losses.discriminator_loss(discriminator(generated.detach()), scores)
    if penalized:
        loss = loss + r1_weight / 2 * r1_every * losses.r1_penalty(scores, real)
    step.descend(loss, "discriminator")
    return loss


def augmentation(
    random: np.random.Generator, flip: float = 0.5, shift: float = 0.125, colors: float = 0.2
) -> list[float]:
    """Six numbers for one picture: mirrored or not, moved down and across, brightness, saturation, contrast.

    A few portraits are soon known by heart. So what a discriminator gets is augmented at random, generated
    and real pictures alike (Zhao et al. 2020, "Differentiable Augmentation"). Released code: adaptively.

    Args:
        random: what they are drawn from.
        flip: part of the pictures that is mirrored.
        shift: at most, as a part of the side.
        colors: at most, of brightness, saturation, contrast.
    """
    mirrored = float(random.random() < flip)
    moves, recolored = random.uniform(-shift, shift, 2), random.uniform(-colors, colors, 3)
    return [mirrored, *moves.tolist(), *recolored.tolist()]


def augment(pictures: Tensor, draws: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [-1, 1] by the numbers (N, 6) of :func:`augmentation`, differentiable."""
    brightness, saturation, contrast = (draws[:, i].to(pictures).view(-1, 1, 1, 1) for i in (3, 4, 5))
    gray = pictures.mean(1, keepdim=True)
    x = gray + (1 + saturation) * (pictures - gray) + brightness
    middle = x.mean((1, 2, 3), keepdim=True)
    return moved(middle + (1 + contrast) * (x - middle), draws)


def moved(x: Tensor, draws: Tensor) -> Tensor:
    """Mirrored and moved by whole pixels; what comes in at the border is 0."""
    height, width = x.shape[-2:]
    placed = []
    for one, (mirrored, down, across) in zip(x.split(1), draws[:, :3].tolist(), strict=True):
        a, b = round(across * width), round(down * height)
        placed.append(F.pad(one.flip(3) if mirrored else one, (a, -a, b, -b)))
    return torch.cat(placed)


# ------------------------------------------------------------------ the source that draws portraits


class StyleDistance:
    """How far drawn pictures are from a set of portraits in style, and from other pictures in content.

    The features' mean and second moment over all pictures and positions are the style as a whole; few
    pictures are enough to learn from them, where a discriminator would soon know each portrait by heart.

    Args:
        portraits: (K, 3, S, S), RGB in [0, 1].
        settings: the weights.
        device: where to.
    """

    def __init__(
        self, portraits: Tensor, settings: DestylizationSettings, device: str | torch.device = "auto"
    ) -> None:
        self.settings = settings
        layers = [*MOMENTS, *([CONTENT] if settings.content_weight else [])]
        self.extractor = FeatureExtractor("vgg16", layers, device=device, precision="float32")
        with torch.no_grad():
            found = [_moments(self._features(2 * one - 1)) for one in portraits.split(1)]
        self.goal = [torch.stack(parts).mean(0) for parts in zip(*found, strict=True)]

    def __call__(self, drawn: Tensor, portraits: Tensor, before: Tensor) -> dict[str, Tensor]:
        """Weighted losses, scalars: those of "moments", "contextual", "content" that have a weight.

        Args:
            drawn: (N, 3, S, S), about [-1, 1].
            portraits: some of the set, one for each picture, in [-1, 1].
            before: what the source drew from the same codes, in [-1, 1].
        """
        s, found = self.settings, {}
        features = self._features(drawn)
        with torch.no_grad():
            goal = self._features(portraits) if s.contextual_weight else {}
            kept = self._features(before) if s.content_weight else {}
        if s.moments_weight:
            pairs = zip(_moments(features), self.goal, strict=True)
            parts = [(have - goal).square().sum() / goal.square().sum() for have, goal in pairs]
            found["moments"] = s.moments_weight * torch.stack(parts).mean()
        if s.contextual_weight:
            likeness = losses.contextual_loss(features[CONTEXTUAL], goal[CONTEXTUAL])
            found["contextual"] = s.contextual_weight * likeness
        if s.content_weight:
            share = losses.content_loss(features[CONTENT], kept[CONTENT]) / kept[CONTENT].square().mean()
            found["content"] = s.content_weight * share
        return found

    def _features(self, pictures: Tensor) -> dict[str, Tensor]:
        return self.extractor((at_most(pictures, _RESOLUTION) + 1) / 2)


def _moments(features: Mapping[str, Tensor]) -> list[Tensor]:
    """Mean (C,) and second moment (C, C) of each layer, over pictures and positions."""
    found = []
    for name in MOMENTS:
        mean, covariance = losses.feature_moments(features[name])
        found += [mean.mean(0), (covariance + mean[:, :, None] * mean[:, None]).mean(0)]
    return found


class SourceTask(Task):
    """One step of the source: pictures from random codes, to be like the portraits.

    Args:
        source: what learns; its weights that are frozen by the settings do not.
        before: the source as it was; draws the codes and what is to be kept.
        portraits: (K, 3, S, S), RGB in [0, 1], of the source's size.
        settings: see :class:`.DestylizationSettings`.
        seed: of codes, order and augmentation.
        discriminator: pictures (N, 3, S, S) in [-1, 1] -> scores; learns too. None: there is none.
    """

    def __init__(
        self, source: StyleGenerator, before: StyleGenerator, portraits: Tensor,
        settings: DestylizationSettings, seed: int = 0, discriminator: nn.Module | None = None,
    ) -> None:  # fmt: skip
        self.before, self.portraits, self.settings, self.seed = before, portraits, settings, seed
        self.center = mean_w(before)
        self.distance = None
        if settings.moments_weight + settings.contextual_weight + settings.content_weight > 0:
            self.distance = StyleDistance(portraits, settings, self.center.device)
        for name, parameter in source.named_parameters():
            parameter.requires_grad_(not name.startswith(settings.frozen))
        learning = [p for p in source.parameters() if p.requires_grad]
        # Against a discriminator, which changes, momentum does harm; against a fixed goal it helps.
        adam: dict[str, Any] = {"lr": settings.tuning_rate, "betas": (0.0 if discriminator else 0.9, 0.99)}
        self.modules, self.optimizers = {"source": source}, {"main": torch.optim.Adam(learning, **adam)}
        if discriminator is not None:
            self.modules |= {"discriminator": discriminator}
            self.optimizers |= {"discriminator": torch.optim.Adam(discriminator.parameters(), **adam)}
        self.sources = {"portraits": digest(portraits), "source": digest(before)}

    def describe(self) -> dict[str, Any]:
        """Without settings that the fine-tuning does not depend on, or that its schedule says."""
        return {key: value for key, value in super().describe().items() if key not in _LATER}

    @torch.no_grad()
    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Codes z (N, 512), portraits (N, 3, S, S) in [-1, 1], numbers of the augmentation (2N, 6)."""
        z, draws = [], []
        for position in positions:
            random = np.random.default_rng([self.seed, position, 3])
            z.append(torch.from_numpy(random.standard_normal((1, STYLE), np.float32)))
            draws += [augmentation(random) for _ in range(2)]
        chosen = shuffled(len(self.portraits), self.seed, positions)
        return torch.cat(z), 2 * self.portraits[chosen] - 1, torch.tensor(draws)

    def step(self, step: Step) -> dict[str, Tensor]:
        """One step of the source, and one of the discriminator."""
        s, (z, portraits, draws) = self.settings, step.batch
        near: dict[str, Any] = {"truncation": s.tuning_truncation, "center": self.center}
        drawn = step.modules["source"](z, **near)
        parts: dict[str, Tensor] = {}
        if self.distance is not None:
            with torch.no_grad():
                before = self.before(z, **near) if s.content_weight else drawn
            parts = self.distance(drawn, portraits, before)
        discriminator = step.modules.get("discriminator")
        if discriminator is not None:
            generated, real = augment(drawn, draws[::2]), augment(portraits, draws[1::2])
            scores = discriminator.requires_grad_(False)(generated)
            parts["adversarial"] = s.adversarial_weight * losses.generator_loss(scores)
        total = torch.stack(list(parts.values())).sum()
        step.descend(total)
        if discriminator is not None:
            parts["discriminator"] = discriminator_step(
                step, generated, real, r1_weight=s.r1_weight, r1_every=s.r1_every
            )
        return {"total": total, **parts}


_LATER = ("steps", "inversion", "restored", "truncation", "center", "tuning_steps", "tuning_batch")


def fine_tune_source(
    source: StyleGenerator, portraits: Tensor, settings: DestylizationSettings = SMALL.destylization,
    folder: str | os.PathLike[str] | None = None, *, discriminator: nn.Module | None = None, seed: int = 0,
    **options: Any,
) -> tuple[StyleGenerator, TrainingResult]:  # fmt: skip
    """A copy of the source that draws from the same codes, but in the style of the portraits.

    Args:
        source: stays as it is.
        portraits: (K, 3, H, W), RGB in [0, 1], square, aligned like FFHQ.
        settings: the weights say what it learns from.
        folder: where to keep checkpoints; the same call goes on from there.
        discriminator: of pictures (N, 3, S, S) in [-1, 1] of the source's size, see
            :func:`source_discriminator`; learns in place. None: a new one, if it has a weight.
        seed: of the training.
        options: ``callback`` and ``progress`` of :func:`nstlib.training.train`.

    Returns:
        The copy, frozen, and the training's result.

    Raises:
        ImageError: no portraits, or not square.
        OptimizationError: see :func:`nstlib.training.train`.
        SettingError: the same.
    """
    device = next(source.parameters()).device
    portraits = resize(check_portraits(portraits), (source.size, source.size)).cpu()
    if discriminator is None and settings.adversarial_weight:
        discriminator = source_discriminator(None, source.size, seed=seed)
    changed = copy.deepcopy(source)
    task = SourceTask(changed, source, portraits, settings, seed, discriminator)
    schedule = Schedule(steps=settings.tuning_steps, batch=settings.tuning_batch, seed=seed)
    result = train(task, schedule, folder, device=device, precision="float32", **options)
    return changed.requires_grad_(False).eval(), result


# ------------------------------------------------------------------ the three steps


@torch.no_grad()
def initial_codes(portraits: Tensor, encoder: Encoder, source: StyleGenerator) -> Tensor:
    """The first step: the codes that an encoder reads off portraits, (K, layers, 512), where the source is.

    Raises:
        ImageError: no portraits, or not square.
        SettingError: the encoder's codes do not fit the source.
    """
    codes = torch.cat([encoder(one) for one in check_portraits(portraits).split(1)])
    check_codes(codes, source.layers)
    return codes.to(next(source.parameters()))


def optimized_codes(
    portraits: Tensor, tuned: StyleGenerator, start: Tensor,
    settings: DestylizationSettings = SMALL.destylization, **options: Any,
) -> Tensor:  # fmt: skip
    """The second step: codes from which the fine-tuned source draws the portraits, in the encoder's colors.

    Args:
        portraits: (K, 3, H, W), RGB in [0, 1].
        tuned: see :func:`fine_tune_source`.
        start: (K, layers, 512), see :func:`initial_codes`.
        settings: steps, inversion, restored.
        options: ``lpips``, ``identity`` and ``progress`` of :func:`nstlib.methods.inversion.invert`.

    Returns:
        (K, layers, 512), in the space of the start.

    Raises:
        OptimizationError, SettingError: see :func:`nstlib.methods.inversion.invert`.
    """
    found = invert(
        portraits, tuned, start=start, steps=settings.steps, settings=settings.inversion, **options
    )
    codes = found.latent.to(start)
    # Under the tuned source the colors are its own, whatever the code; under the source they would be wrong.
    return torch.cat([codes[:, : settings.restored], start[:, settings.restored :]], 1)


@torch.no_grad()
def photographic(
    codes: Tensor, source: StyleGenerator, settings: DestylizationSettings = SMALL.destylization
) -> Tensor:
    """The third step: the faces that the source draws from the portraits' codes, (K, 3, S, S) in [0, 1].

    Args:
        codes: (K, layers, 512), in the space of the inversion's settings.
        source: as it was.
        settings: inversion's space, truncation, center.
    """
    center = mean_w(source) if settings.center == "mean" else None
    drawn = source(codes, space=settings.inversion.space, truncation=settings.truncation, center=center)
    return ((drawn + 1) / 2).clamp(0, 1)


def destylize(
    portraits: Tensor, source: StyleGenerator, encoder: Encoder,
    settings: DestylizationSettings = SMALL.destylization, folder: str | os.PathLike[str] | None = None, *,
    tuned: StyleGenerator | None = None, discriminator: nn.Module | None = None,
    identity: Identity | None = None, seed: int = 0, progress: bool = True,
) -> Destylized:  # fmt: skip
    """All three steps, portrait by portrait.

    Args:
        portraits: (K, 3, H, W), RGB in [0, 1], square, aligned like FFHQ.
        source: the generator of faces; stays as it is.
        encoder: what reads codes off pictures, see :data:`Encoder`.
        settings: see :class:`.DestylizationSettings`.
        folder: where to keep what is done, the fine-tuned source too; the same call goes on from there.
        tuned: a source that is fine-tuned already; None: by :func:`fine_tune_source`.
        discriminator: for that.
        identity: None: made here, if the inversion gives it a weight.
        seed: of the fine-tuning.
        progress: show progress bars.

    Returns:
        The portraits, at the source's size, with their codes, on the CPU.

    Raises:
        ImageError: no portraits, or not square.
        KeyboardInterrupt: after Ctrl-C; the portraits that are done are kept in the folder.
        OptimizationError: a loss is no longer a number.
        SettingError: settings that do not fit, or a folder of other portraits.
    """
    portraits = resize(check_portraits(portraits), (source.size, source.size)).cpu()
    described = {
        "stage": "destylization", **asdict(settings), "portraits": digest(portraits), "seed": seed,
        "source": digest(source), "tuned": None if tuned is None else digest(tuned),
    }  # fmt: skip

    def prepare() -> Callable[[int], dict[str, Tensor]]:
        device, s = next(source.parameters()).device, settings.inversion
        options: dict[str, Any] = {
            "lpips": Lpips(s.network, device=device) if s.perceptual_weight else None,
            "identity": identity or (Identity(device) if s.identity_weight else None),
        }
        drawing = tuned
        if drawing is None:
            drawing, result = fine_tune_source(
                source, portraits, settings, folder and Path(folder, "source"), discriminator=discriminator,
                seed=seed, progress=progress,
            )  # fmt: skip
            if result.interrupted:
                raise KeyboardInterrupt

        def compute(index: int) -> dict[str, Tensor]:
            portrait = portraits[index, None]
            start = initial_codes(portrait, encoder, source)
            codes = optimized_codes(portrait, drawing, start, settings, progress=False, **options)
            face = initial_codes(photographic(codes, source, settings), encoder, source)
            with torch.no_grad():
                return {"extrinsic": source.w_plus(codes, s.space), "intrinsic": source.w_plus(face, s.space)}

        return compute

    done = each_portrait(len(portraits), prepare, folder, described, name="destylization", progress=progress)
    extrinsic, intrinsic = (torch.cat([one[key] for one in done]) for key in ("extrinsic", "intrinsic"))
    return Destylized(extrinsic, intrinsic, portraits)
