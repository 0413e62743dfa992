"""How the networks behind the small DualStyleGAN learn: the face prior's head, its critic, and the encoder.

None of them is a paper's of its own. The head (:class:`nstlib.nets.mobilestylegan.DistilledHead`) learns to
give at once what MobileStyleGAN gives after more layers; the encoder (:class:`nstlib.nets.face_encoder
.FaceEncoder`) learns to read a face's codes off its picture, from pairs without limit: the prior draws them.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from .. import assets
from ..assets.weights import read_weights
from ..faces.generated import Faces, cached, listed
from ..faces.identity import Identity, portrait_alignment
from ..metrics import Lpips
from ..nets.face_encoder import SIZE, FaceEncoder
from ..nets.face_encoder import from_state as encoder_from_state
from ..nets.features import FeatureExtractor
from ..nets.hardware import resolve_device
from ..nets.mobilestylegan import CUT, DistilledHead
from ..nets.style_generator import STYLE, StyleGenerator
from ..nets.stylegan2 import Discriminator, discriminator_from_official
from ..pictures.files import load_image, resize
from ..training import Schedule, Step, Task, TrainingResult, shuffled, train

ENCODER, CRITIC = "face_encoder.safetensors", "face_critic.safetensors"
"""Files of the course's own, in ``data/weights``."""

CRITIC_CHANNELS = (128, 128, 128, 96, 64, 32)
"""Of the critic's features at 4, 8 ... 128 pixels: a fiftieth of configuration F's weights."""


@dataclass(frozen=True)
class PriorSettings:
    """What the head is trained for; all values are ours."""

    pixel_weight: float = 1.0  # mean absolute difference, in [-1, 1]
    perceptual_weight: float = 0.5  # the same of VGG-16's features, divided by what the target's measure
    layers: tuple[str, ...] = ("relu1_2", "relu2_2")
    adversarial_weight: float = 0.05
    r1_weight: float = 10.0  # StyleGAN2's
    r1_every: int = 16  # StyleGAN2's
    learning_rate: float = 1e-3
    critic_rate: float = 2e-3
    decay: float = 0.1  # the last step's learning rate as a part of the first's, by a cosine


class PriorTask(Task):
    """One step of head and critic: features of 64 pixels to the whole network's picture, made smaller.

    Args:
        head: what learns.
        critic: what tells its pictures from the whole network's; learns too.
        faces: the generator.
        pictures: its faces, as files, and ``w``, their styles (see :func:`nstlib.faces.generated.cached`).
        settings: see :class:`PriorSettings`.
        steps: of the whole training.
        tensors: VGG-16's weights instead of the asset's (tests).
    """

    def __init__(
        self, head: DistilledHead, critic: Discriminator, faces: Faces, pictures: Sequence[Path], w: Tensor,
        settings: PriorSettings, steps: int, seed: int = 0, tensors: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.faces, self.pictures, self.w, self.settings = faces, list(pictures), w, settings
        self.seen = FeatureExtractor("vgg16", settings.layers, device=faces.device, tensors=tensors)
        self.steps, self.seed = steps, seed
        self.modules: dict[str, nn.Module] = {"head": head, "critic": critic}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": torch.optim.Adam(head.parameters(), settings.learning_rate, betas=(0.5, 0.99)),
            "critic": torch.optim.Adam(critic.parameters(), settings.critic_rate, betas=(0.0, 0.99)),
        }

    def describe(self) -> dict[str, Any]:
        """See :class:`nstlib.training.Task`."""
        return {
            "method": "face-prior",
            "faces": len(self.pictures),
            "planned": self.steps,
            **asdict(self.settings),
        }

    @torch.no_grad()
    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Features (N, 512, 64, 64), the head's styles (N, 512), pictures (N, 3, 128, 128) in [-1, 1]."""
        chosen = shuffled(len(self.pictures), self.seed, positions)
        w = self.w[chosen].to(self.faces.device)
        features = self.faces.synthesis.features(w, CUT)
        side = 2 * features.shape[-1]
        pictures = torch.cat([resize(load_image(self.pictures[i]), (side, side)) for i in chosen])
        return features, w, 2 * pictures - 1

    def step(self, step: Step) -> dict[str, Tensor]:
        """See :class:`nstlib.training.Task`."""
        settings = self.settings
        rate = cosine(step.number, self.steps, settings.decay)
        for name, first in (("main", settings.learning_rate), ("critic", settings.critic_rate)):
            for group in self.optimizers[name].param_groups:
                group["lr"] = first * rate
        features, w, target = step.batch
        critic = step.modules["critic"]
        picture = step.modules["head"](features, w)
        critic.requires_grad_(False)
        pixel = (picture - target).abs().mean()
        perceptual = self._perceptual(picture, target)
        judged = F.softplus(-critic(picture)).mean()
        total = (
            settings.pixel_weight * pixel + settings.perceptual_weight * perceptual
            + settings.adversarial_weight * judged
        )  # fmt: skip
        step.descend(total, "main")
        critic.requires_grad_(True)
        losses = {"total": total, "pixel": pixel, "perceptual": perceptual, "adversarial": judged}
        if settings.adversarial_weight:
            losses["critic"] = self._criticize(step, critic, picture.detach(), target)
        return losses

    def _perceptual(self, picture: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.seen((target + 1) / 2)
        found = self.seen((picture + 1) / 2)
        return torch.stack([(found[k] - v).abs().mean() / v.abs().mean() for k, v in wanted.items()]).sum()

    def _criticize(self, step: Step, critic: nn.Module, drawn: Tensor, real: Tensor) -> Tensor:
        penalized = step.number % self.settings.r1_every == 0
        real = real.detach().requires_grad_(penalized)
        of_real = critic(real)
        loss = F.softplus(critic(drawn)).mean() + F.softplus(-of_real).mean()
        if penalized:
            (gradient,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
            r1 = gradient.square().sum((1, 2, 3)).mean()
            loss = loss + self.settings.r1_weight / 2 * self.settings.r1_every * r1
        step.descend(loss, "critic")
        return loss


@dataclass(frozen=True)
class EncoderSettings:
    """What the encoder is trained for; all values are ours."""

    truncation: tuple[float, float] = (0.4, 1.0)  # of each face, drawn between these two
    mixed: float = 0.5  # of the faces have the coarse codes of one w and the fine ones of another
    latent_weight: float = 1.0  # mean squared difference of codes, in units of their variance
    rendered: int = 1  # faces of a step that are drawn again from their codes, which costs most of the time
    pixel_weight: float = 0.5  # mean absolute difference of these, in [-1, 1]
    perceptual_weight: float = 1.0  # their LPIPS (AlexNet)
    identity_weight: float = 0.3  # 1 - cosine of their identities
    jitter: float = 0.04  # of the picture's place, size and turn, as parts of 1: photographs lie no better
    colors: float = 0.15  # of brightness, contrast and each channel
    beginning: int = 1500  # faces whose codes a linear map is fitted to, which training begins with
    learning_rate: float = 2e-5  # of that map, which has 4096 inputs
    trunk_rate: float = 1e-4  # of the layers that know faces already
    decay: float = 0.05


class EncoderTask(Task):
    """One step of the encoder: pictures drawn from random codes, and those codes to be found again.

    Args:
        net: what learns.
        prior: the generator, frozen.
        settings: see :class:`EncoderSettings`.
        steps: of the whole training.
        seed: of the faces.
        lpips: measures what pictures drawn again differ by, from [0, 1]; None: LPIPS with AlexNet.
        identity: tells faces apart; None: leave the identities out.
    """

    def __init__(
        self, net: FaceEncoder, prior: StyleGenerator, settings: EncoderSettings, steps: int, seed: int = 0,
        lpips: nn.Module | None = None, identity: Identity | None = None,
    ) -> None:  # fmt: skip
        self.net, self.prior, self.settings, self.steps, self.seed = net, prior, settings, steps, seed
        self.lpips = Lpips("alexnet") if lpips is None else lpips
        self.identity = identity
        self.modules: dict[str, nn.Module] = {"net": net}
        known = list(net.trunk.parameters())
        ids = {id(p) for p in known}
        self.rates = (settings.learning_rate, settings.trunk_rate)
        groups = [[p for p in net.parameters() if id(p) not in ids], known]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": torch.optim.Adam(
                [{"params": p, "lr": rate} for p, rate in zip(groups, self.rates, strict=True)]
            )
        }
        self.center = prior.mean_w(generator=torch.Generator().manual_seed(0))
        z = torch.randn(1024, STYLE, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            self.variance = (prior.style(z.to(self.center.device)) - self.center).square().mean(0)

    def describe(self) -> dict[str, Any]:
        """See :class:`nstlib.training.Task`."""
        return {"method": "encoder", "planned": self.steps, "faces_seed": self.seed, **asdict(self.settings)}

    @torch.no_grad()
    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (N, layers, 512), their pictures as the encoder sees them, and as they are, in [-1, 1]."""
        codes, seen, drawn = [], [], []
        for position in positions:
            random = np.random.default_rng([self.seed, position, 2])
            code = self._codes(random)
            # One by one: in a batch of another size the same face may differ in its last bits.
            picture = self.prior.synthesize(code, self.prior.noise_maps("fixed", 1)).clamp(-1, 1)
            codes.append(code)
            drawn.append(picture)
            seen.append(_disturbed(picture, random, self.settings))
        return torch.cat(codes), torch.cat(seen), torch.cat(drawn)

    def _codes(self, random: np.random.Generator) -> Tensor:
        z = torch.tensor(random.standard_normal((2, STYLE), np.float32)).to(self.center.device)
        truncation = random.uniform(*self.settings.truncation)
        w = torch.lerp(self.center, self.prior.style(z), truncation)
        cut = int(random.integers(1, self.prior.layers)) if random.random() < self.settings.mixed else 0
        return torch.stack([w[1] if layer < cut else w[0] for layer in range(self.prior.layers)])[None]

    def step(self, step: Step) -> dict[str, Tensor]:
        """See :class:`nstlib.training.Task`."""
        settings = self.settings
        rate = cosine(step.number, self.steps, settings.decay)
        for group, first in zip(self.optimizers["main"].param_groups, self.rates, strict=True):
            group["lr"] = first * rate
        codes, seen, drawn = step.batch
        found = step.modules["net"](seen)
        latent = ((found - codes).square() / self.variance).mean()
        total, losses = settings.latent_weight * latent, {"latent": latent}
        if settings.rendered:
            wanted, some = drawn[: settings.rendered], found[: settings.rendered]
            again = self.prior.synthesize(some, self.prior.noise_maps("fixed", len(some)))
            losses["pixel"] = (again - wanted).abs().mean()
            again, wanted = (again.clamp(-1, 1) + 1) / 2, (wanted + 1) / 2
            losses["perceptual"] = self.lpips(again, wanted).mean()
            total = total + settings.pixel_weight * losses["pixel"]
            total = total + settings.perceptual_weight * losses["perceptual"]
            if self.identity is not None and settings.identity_weight:
                place = portrait_alignment()
                a, b = self.identity.embed(again, place), self.identity.embed(wanted, place)
                losses["identity"] = 1 - (a * b).sum(1).mean()
                total = total + settings.identity_weight * losses["identity"]
        step.descend(total, "main", clip=5.0)
        return {"total": total, **losses}


def _disturbed(picture: Tensor, random: np.random.Generator, settings: EncoderSettings) -> Tensor:
    """As photographs come: a little off in place, size, turn and colors, not quite sharp."""
    j, c = settings.jitter, settings.colors
    angle, size = random.uniform(-j, j) * 2, 1 + random.uniform(-j, j)
    x, y = random.uniform(-j, j, 2)
    cos, sin = np.cos(angle) * size, np.sin(angle) * size
    theta = torch.tensor([[[cos, -sin, x], [sin, cos, y]]], dtype=torch.float32, device=picture.device)
    grid = F.affine_grid(theta, list(picture.shape), align_corners=False)
    moved = F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)
    if random.random() < 0.5:
        small = int(random.integers(48, 112))
        moved = F.interpolate(
            F.interpolate(moved, (small, small), mode="bilinear", antialias=True),
            moved.shape[-2:], mode="bilinear",
        )  # fmt: skip
    gain = torch.from_numpy(1 + random.uniform(-c, c, (1, 3, 1, 1)).astype(np.float32)).to(moved)
    return (moved * gain + float(random.uniform(-c, c)) / 2).clamp(-1, 1)


def fit_prior(
    faces: Faces, count: int, schedule: Schedule, settings: PriorSettings | None = None,
    folder: str | os.PathLike[str] | None = None, **options: Any,
) -> tuple[DistilledHead, Discriminator, TrainingResult]:  # fmt: skip
    """Train the head of the face prior, and a critic of its pictures, from the head there is.

    Args:
        faces: the generator; training begins with the weights of its distilled head, which stay as they are.
        count: how many of its faces to learn from; they are drawn into the cache at 256 pixels.
        schedule: see :class:`nstlib.training.Schedule`.
        settings: see :class:`PriorSettings`.
        folder: where to keep checkpoints; the same call goes on from there.
        options: ``callback`` and ``progress`` of :func:`nstlib.training.train`; ``tensors``, VGG-16's.

    Returns:
        Head and critic, frozen, and the training's result.

    Raises:
        OptimizationError: see :func:`nstlib.training.train`.
        SettingError: the same.
    """
    settings = settings or PriorSettings()
    tensors = options.pop("tensors", None)
    folder_of_faces = cached(count, 2 * SIZE, faces=faces, progress=options.get("progress", True))
    pictures, w = listed(folder_of_faces, count)
    head = copy.deepcopy(faces.distilled_head).requires_grad_(True)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(schedule.seed)
        critic = Discriminator(SIZE, CRITIC_CHANNELS)
    task = PriorTask(head, critic, faces, pictures, w, settings, schedule.steps, schedule.seed, tensors)
    result = train(task, schedule, folder, device=faces.device, **options)
    for name, module in task.modules.items():
        module.load_state_dict(result.averages.get(name, module.state_dict()))
    return head.requires_grad_(False).eval(), critic.requires_grad_(False).eval(), result


def fit_encoder(
    prior: StyleGenerator, schedule: Schedule, settings: EncoderSettings | None = None,
    folder: str | os.PathLike[str] | None = None, *, identity: Identity | None = None, **options: Any,
) -> tuple[FaceEncoder, TrainingResult]:  # fmt: skip
    """Train an encoder for a generator of 128 pixels.

    Args:
        prior: the generator, frozen; draws as many faces as the schedule asks for.
        schedule: see :class:`nstlib.training.Schedule`.
        settings: see :class:`EncoderSettings`.
        folder: where to keep checkpoints; the same call goes on from there.
        identity: whose network the encoder's trunk begins with; None: made here.
        options: ``callback`` and ``progress`` of :func:`nstlib.training.train`; ``lpips`` of the task.

    Returns:
        The encoder, frozen, and the training's result.

    Raises:
        OptimizationError: see :func:`nstlib.training.train`.
        SettingError: the same.
    """
    device = next(prior.parameters()).device
    identity = Identity(device) if identity is None else identity
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(schedule.seed)
        net = FaceEncoder(prior.layers)
    net.begin_with(identity.net, prior.mean_w(generator=torch.Generator().manual_seed(0)).cpu())
    task = EncoderTask(
        net, prior, settings or EncoderSettings(), schedule.steps, schedule.seed, options.pop("lpips", None),
        identity,
    )  # fmt: skip
    begun = folder is not None and any(Path(folder).glob("step-*"))  # then its weights are in there
    if not begun and task.settings.beginning:
        _begin(task, options.get("progress", True))
    result = train(task, schedule, folder, device=device, **options)
    net.load_state_dict(result.averages.get("net", net.state_dict()))
    return net.requires_grad_(False).eval(), result


@torch.no_grad()
def _begin(task: EncoderTask, progress: bool) -> None:
    """Fit the encoder's linear part to faces that the training itself will not see."""
    settings = replace(task.settings, mixed=0.0)
    other = copy.copy(task)
    other.settings, other.seed = settings, task.seed + 1
    net, features, w = task.net.to(task.center.device).eval(), [], []
    for index in tqdm(range(settings.beginning), "first faces", disable=not progress):
        codes, seen, _ = other.batch([index])
        features.append([one.cpu() for one in net.features(seen)])
        w.append(codes[:, 0].cpu())
    joined = [torch.cat(maps) for maps in zip(*features, strict=True)]
    net.cpu().begin_by_least_squares(joined, torch.cat(w))


def load_encoder(
    path: str | os.PathLike[str] | None = None, device: str | torch.device = "auto"
) -> FaceEncoder:
    """An encoder from its file; None: the one the course carries.

    Raises:
        SettingError: the file holds no such network.
    """
    tensors, _ = read_weights(Path(path) if path else assets.data_path(f"weights/{ENCODER}"))
    return encoder_from_state(tensors).to(resolve_device(device))


def load_critic(
    path: str | os.PathLike[str] | None = None, device: str | torch.device = "auto"
) -> Discriminator:
    """The critic that the prior's head was trained with, from its file; None: the one the course carries.

    Raises:
        SettingError: the file holds no such network.
    """
    tensors, _ = read_weights(Path(path) if path else assets.data_path(f"weights/{CRITIC}"))
    exact = {key: tensor.float() for key, tensor in tensors.items()}
    return discriminator_from_official(exact).to(resolve_device(device))


def cosine(number: int, steps: int, last: float) -> float:
    """From 1 at the first step to ``last`` at the end, by half a cosine."""
    return last + (1 - last) * (1 + math.cos(math.pi * min(1.0, number / max(1, steps)))) / 2
