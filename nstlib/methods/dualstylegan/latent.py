"""Stage four: each portrait's code fitted to the finished network, and new styles drawn from all of them.

The finished network has learned a style, not each portrait of it: so their extrinsic codes are changed a
little more, with the network fixed, until it draws them (:func:`refine_codes`). Then two small networks learn
to turn random numbers into such codes, of structure and of color apart, so that both can be combined anew
(:func:`train_sampler`, :func:`sample_styles`).

Sources: paper A, section 3.2.4, after Yang et al. 2022, "Pastiche Master"; Li and Malik 2018, "Implicit
Maximum Likelihood Estimation": of many drawn codes the nearest one to each wanted code moves towards it. So
every wanted code is drawn sooner or later; a generator against a discriminator would be content with some.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...losses import contextual_loss
from ...metrics import Lpips
from ...nets.dualstylegan import DualStyleGAN, Sampler
from ...nets.features import FeatureExtractor
from ...nets.hardware import seeded
from ...nets.style_generator import STRUCTURE
from ...training import Schedule, Step, Task, TrainingResult, digest, shuffled, train
from ..inversion import ReconstructionLoss, annealed, at_most, descend, noise_similarity
from ..inversion import Settings as InversionSettings
from .destylization import Destylized, each_portrait
from .settings import SMALL, LatentSettings, SamplerSettings

CONTEXTUAL = "relu3_1"
"""VGG-19's layer of the contextual loss, as in the third stage."""

PARTS = ("structure", "color")


def refine_codes(
    net: DualStyleGAN, destylized: Destylized, settings: LatentSettings = SMALL.latent,
    folder: str | os.PathLike[str] | None = None, *, progress: bool = True,
) -> Destylized:  # fmt: skip
    """Fit each portrait's extrinsic code to the network, which is fixed, as is the intrinsic code.

    Args:
        net: DualStyleGAN behind its third stage; stays as it is.
        destylized: the portraits with their codes.
        settings: see :class:`.LatentSettings`.
        folder: where to keep each portrait's code; the same call goes on from there.
        progress: show a progress bar.

    Returns:
        The same portraits and intrinsic codes with other extrinsic ones, on the CPU.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the portraits that are done are kept in the folder.
        OptimizationError: the loss is no longer a number.
        SettingError: codes for another network, a folder of other portraits.
    """
    destylized.check(net)
    described = {
        "stage": "latent", **asdict(settings), "network weights": digest(net),
        "portraits": digest(destylized.portraits), "intrinsic": digest(destylized.intrinsic),
        "extrinsic": digest(destylized.extrinsic),
    }  # fmt: skip
    first = next(net.parameters())

    def prepare() -> Callable[[int], dict[str, Tensor]]:
        lpips = Lpips(settings.network, device=first.device)
        extractor = FeatureExtractor("vgg19", [CONTEXTUAL], device=first.device, precision="float32")

        def compute(index: int) -> dict[str, Tensor]:
            of_all = (destylized.portraits, destylized.intrinsic, destylized.extrinsic)
            portrait, face, style = (part[index, None].to(first) for part in of_all)
            return {"extrinsic": _refined(net, portrait, face, style, settings, lpips, extractor)}

        return compute

    done = each_portrait(
        len(destylized), prepare, folder, described, name="latent optimization", progress=progress
    )
    codes = torch.cat([one["extrinsic"] for one in done])
    return Destylized(codes, destylized.intrinsic, destylized.portraits)


def _refined(
    net: DualStyleGAN, portrait: Tensor, intrinsic: Tensor, extrinsic: Tensor, s: LatentSettings,
    lpips: Lpips, extractor: FeatureExtractor,
) -> Tensor:  # fmt: skip
    """One portrait's extrinsic code (1, layers, 512), searched for from the one it has."""
    likeness = InversionSettings(
        network=s.network, loss_resolution=s.loss_resolution, identity_weight=0.0,
        perceptual_weight=s.perceptual_weight,
    )  # fmt: skip
    reconstruction = ReconstructionLoss(portrait, likeness, lpips, device=portrait.device)
    structure, color = extrinsic[:, :STRUCTURE].clone(), extrinsic[:, STRUCTURE:].clone()
    maps = [None if m is None else m.detach().clone() for m in net.generator.noise_maps()]
    noises = [m for m in maps if m is not None]

    def features(pictures: Tensor) -> Tensor:
        return extractor((at_most(pictures, s.loss_resolution) + 1) / 2)[CONTEXTUAL]

    with torch.no_grad():
        goal = features(2 * portrait - 1)

    def losses() -> dict[str, Tensor]:
        drawn = net(intrinsic, torch.cat([structure, color], 1), space="w", extrinsic_space="w", noise=maps)
        parts = {name: values.sum() for name, values in reconstruction(drawn).items()}
        parts["contextual"] = s.contextual_weight * contextual_loss(features(drawn), goal, s.bandwidth)
        if noises and s.noise_weight:
            parts["noise"] = s.noise_weight * noise_similarity(noises).sum()
        return parts

    groups = [([structure], s.structure_rate), ([color], s.color_rate)]
    descend([*groups, (noises, s.noise_rate)] if noises else groups, losses, s.steps, progress=False)
    return torch.cat([structure, color], 1).detach()


class SamplerTask(Task):
    """One step of both sampling networks: codes drawn, the nearest one to each wanted code moved to it.

    The nearest is looked for anew in each step, among codes of one pass, so nothing has to be kept between
    steps, and batch normalization gets as many random numbers as it will be used with, not the chosen ones.
    Each wanted code has a share of them, drawn by lot, to choose from. If all chose from all, the copies of
    one code would choose the same drawn one, and most would never be chosen and never learn.

    Args:
        samplers: what learns, "structure" and "color".
        codes: (K, layers, 512), w+.
        settings: see :class:`.SamplerSettings`.
        seed: of the noise on the codes, and their order.
    """

    def __init__(
        self, samplers: Mapping[str, Sampler], codes: Tensor, settings: SamplerSettings, seed: int = 0
    ) -> None:
        self.settings, self.codes, self.seed = settings, codes, seed
        self.modules: dict[str, nn.Module] = dict(samplers)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(net.parameters(), settings.learning_rate) for name, net in samplers.items()
        }
        self.choices = min(settings.pool, max(2, round(settings.choices * len(codes))))
        self.count = -(-settings.codes // len(codes)) * len(codes)
        self.sources = {"portraits": digest(codes)}

    def batch(self, positions: Sequence[int]) -> Tensor:
        """Codes (N, layers, 512) with the noise that belongs to them."""
        wanted = []
        for one in shuffled(self.count, self.seed, positions):
            random = np.random.default_rng([self.seed, one, 4])
            noise = torch.from_numpy(random.standard_normal(tuple(self.codes.shape[1:]), np.float32))
            wanted.append(self.codes[one % len(self.codes)] + self.settings.jitter * noise)
        return torch.stack(wanted)

    def rate(self, progress: float) -> float:
        """1, and in the last part of the steps down to 0."""
        return annealed(progress, self.settings.anneal_fraction)

    def step(self, step: Step) -> dict[str, Tensor]:
        """One step of each network."""
        s, losses = self.settings, {}
        z = {name: torch.randn(s.pool, s.inputs, generator=step.generator) for name in PARTS}
        for name, wanted in zip(PARTS, _parts(step.batch), strict=True):
            drawn, goal = step.modules[name](z[name].to(step.device)).float(), wanted.flatten(1)
            with torch.no_grad():
                # |a - b|² but for |goal|², which is the same for all drawn codes.
                distances = drawn.square().sum(1) - 2 * goal @ drawn.T
                order = torch.rand(distances.shape, generator=step.generator).argsort(1)[:, : self.choices]
                order = order.to(step.device)
                nearest = order.gather(1, distances.gather(1, order).argmin(1, keepdim=True)).squeeze(1)
            # Not drawn[nearest]: its gradient adds up rows in whatever order threads come to them.
            losses[name] = (drawn.index_select(0, nearest) - goal).square().mean()
            step.descend(losses[name], name)
        return {"total": torch.stack(list(losses.values())).sum(), **losses}


def train_sampler(
    codes: Destylized | Tensor, settings: SamplerSettings = SMALL.sampler,
    folder: str | os.PathLike[str] | None = None, *, seed: int = 0, **options: Any,
) -> tuple[nn.ModuleDict, TrainingResult]:  # fmt: skip
    """Train two networks that draw extrinsic codes, of "structure" and of "color".

    Args:
        codes: (K, layers, 512), w+, or the portraits with theirs (:func:`refine_codes`).
        settings: see :class:`.SamplerSettings`.
        folder: where to keep checkpoints; the same call goes on from there.
        seed: of first weights and training.
        options: ``device``, ``callback`` and ``progress`` of :func:`nstlib.training.train`.

    Returns:
        The networks, frozen, and the training's result.

    Raises:
        OptimizationError: see :func:`nstlib.training.train`.
        SettingError: the same.
    """
    given = codes.extrinsic if isinstance(codes, Destylized) else codes
    given = given.detach().float().cpu()
    with seeded(seed):
        pairs = zip(PARTS, _parts(given), strict=True)
        nets = {name: Sampler(part.shape[1], settings.inputs) for name, part in pairs}
    schedule = Schedule(steps=settings.steps, batch=settings.batch, seed=seed)
    task = SamplerTask(nets, given, settings, seed)
    result = train(task, schedule, folder, precision="float32", **options)
    return nn.ModuleDict(nets).requires_grad_(False).eval(), result


@torch.no_grad()
def sample_styles(samplers: nn.ModuleDict, count: int, seed: int = 0) -> Tensor:
    """Extrinsic codes of styles that the collection might have held, structure and color drawn apart.

    Args:
        samplers: from :func:`train_sampler`, or published ones.
        count: how many.
        seed: another one gives others; style i depends on it and i alone (to rounding).

    Returns:
        (count, layers, 512), w+, where the samplers are.
    """
    found = []
    for number, part in enumerate(PARTS):
        net: Any = samplers[part]
        weight = net.lin1.weight
        rows = [
            np.random.default_rng([seed, index, 5 + number]).standard_normal(weight.shape[1], np.float32)
            for index in range(count)
        ]
        # A copy, since numpy's memory starts anywhere, and a product's last bits depend on where it starts.
        z = torch.tensor(np.array(rows, np.float32).reshape(count, weight.shape[1]))
        found.append(net.codes(z.to(weight)))
    return torch.cat(found, 1)


def _parts(codes: Tensor) -> tuple[Tensor, Tensor]:
    return codes[:, :STRUCTURE], codes[:, STRUCTURE:]
