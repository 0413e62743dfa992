"""Stage four: each portrait's code fitted to the finished network, and new styles drawn from all of them.

The finished network has learned a style, not each portrait of it: so their extrinsic codes are changed a
little more, with the network fixed, until it draws them (:func:`refine_codes`). Then two small networks learn
to turn random numbers into such codes, of structure and of color apart, so that both can be combined anew
(:func:`train_sampler`, :func:`sample_styles`).

Sources: paper A, section 3.2.4, after Yang et al. 2022, "Pastiche Master"; Li and Malik 2018, "Implicit
Maximum Likelihood Estimation": of many drawn codes the nearest one to each wanted code moves towards it. So
every wanted code is drawn sooner or later; a critic would be content with some of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ...assets.weights import read_weights, save_weights
from ...errors import OptimizationError, SettingError
from ...losses import contextual_loss
from ...metrics import Lpips
from ...nets.dualstylegan import DualStyleGAN, Sampler, sampler_from_official
from ...nets.features import FeatureExtractor
from ...nets.style_generator import STRUCTURE, STYLE
from ...pictures.files import resize
from ...training import Callback, Schedule, Step, Task, TrainingResult, shuffled, train
from ..inversion import Likeness, noise_similarity
from .codes import Destylized
from .portrait_files import PortraitFiles, digest
from .stage_settings import SMALL, LatentSettings, SamplerSettings

CONTEXTUAL = "relu3_1"
"""VGG-19's layer that the contextual loss sees, as in the third stage."""

PARTS = ("structure", "color")

Told = Callable[[int, int, Mapping[str, float]], "bool | None"]
"""The portrait's number, the step, both from 0, and the losses before it; False ends this portrait."""


def refine_codes(
    net: DualStyleGAN,
    destylized: Destylized,
    settings: LatentSettings = SMALL.latent,
    folder: str | os.PathLike[str] | None = None,
    *,
    lpips: Lpips | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    callback: Told | None = None,
    progress: bool = True,
) -> Destylized:
    """Fit each portrait's extrinsic code to the network, which is fixed, as is the intrinsic code.

    Args:
        net: DualStyleGAN behind its third stage; stays as it is.
        destylized: the portraits with their codes.
        settings: see :class:`.LatentSettings`.
        folder: where to keep each portrait's code; the same call goes on from there.
        lpips: of the settings' network; None: made here.
        tensors: VGG-19's weights instead of the asset's (tests).
        callback: see :data:`Told`; what it ends is kept as it is.
        progress: show a progress bar.

    Returns:
        The same portraits and intrinsic codes with other extrinsic ones, on the CPU.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the portraits that are done are kept in the folder.
        OptimizationError: the loss is no longer a number; ``result`` holds the codes reached.
        SettingError: codes for another network, LPIPS of another network, a folder of other portraits.
    """
    if destylized.layers != net.layers:
        raise SettingError(
            f"The portraits have {destylized.layers} codes, and the network takes {net.layers}: give those "
            "of its own destylization."
        )
    if lpips is not None and lpips.backbone != settings.network:
        raise SettingError(
            f"The settings ask for LPIPS with {settings.network}, and the one given has {lpips.backbone}: "
            "change one of both."
        )
    described = {
        "stage": "latent", **asdict(settings), "network weights": digest(net),
        "portraits": digest(destylized.portraits), "intrinsic": digest(destylized.intrinsic),
        "extrinsic": digest(destylized.extrinsic),
    }  # fmt: skip
    files = PortraitFiles(folder, described)
    kept: list[Mapping[str, Tensor] | None] = [files.load(index) for index in range(len(destylized))]
    device = next(net.parameters()).device
    seen: FeatureExtractor | None = None
    if None in kept:  # once for all portraits
        if settings.perceptual_weight and lpips is None:
            lpips = Lpips(settings.network, device=device)
        if settings.contextual_weight:
            seen = FeatureExtractor(
                "vgg19", [CONTEXTUAL], device=device, precision="float32", tensors=tensors
            )
    portraits = resize(destylized.portraits.float(), (net.size, net.size))
    mine = [index for index in range(len(destylized)) if files.turn(index)]
    for index in tqdm(mine, "latent optimization", disable=not progress):
        if kept[index] is None:
            codes = (destylized.intrinsic[index, None], destylized.extrinsic[index, None])
            fit = _Fit(net, portraits[index, None].to(device), codes, settings, lpips, seen)
            try:
                fit.run(index, callback)
            except OptimizationError as error:
                reached = destylized.extrinsic.clone()
                for other, one in enumerate(kept[:index]):
                    if one is not None:
                        reached[other] = one["extrinsic"][0]
                reached[index] = error.result[0]
                error.result = reached
                raise
            kept[index] = {"extrinsic": fit.good}
            files.save(index, {"extrinsic": fit.good})
    done = [one["extrinsic"] for one in files.gather(kept, device)]
    return Destylized(torch.cat(done), destylized.intrinsic, destylized.portraits)


class _Fit:
    """The descent of one portrait's extrinsic code."""

    def __init__(
        self, net: DualStyleGAN, portrait: Tensor, codes: tuple[Tensor, Tensor], settings: LatentSettings,
        lpips: Lpips | None, seen: FeatureExtractor | None,
    ) -> None:  # fmt: skip
        first = next(net.parameters())
        self.net, self.settings, self.seen = net, settings, seen
        self.intrinsic, extrinsic = (one.detach().to(first) for one in codes)
        self.likeness = Likeness(portrait, settings.likeness(), lpips, device=first.device)
        with torch.no_grad():
            self.goal = None if seen is None else self._features(2 * portrait - 1)
        self.structure = extrinsic[:, :STRUCTURE].clone().requires_grad_(True)
        self.color = extrinsic[:, STRUCTURE:].clone().requires_grad_(True)
        maps = net.generator.noise_maps("fixed", 1)
        self.maps = [None if m is None else m.detach().clone().requires_grad_(True) for m in maps]
        self.noises = [m for m in self.maps if m is not None]
        self.good = extrinsic.cpu().clone()

    def run(self, index: int, callback: Told | None) -> None:
        """Take all steps; ``good`` is what was reached."""
        s = self.settings
        groups = [([self.structure], s.structure_rate), ([self.color], s.color_rate)]
        groups += [(self.noises, s.noise_rate)] if self.noises else []
        changed = [tensor for tensors, _ in groups for tensor in tensors]
        adam = torch.optim.Adam([{"params": tensors, "lr": rate} for tensors, rate in groups])
        for number in range(s.steps):
            with torch.enable_grad():
                losses = self.losses()
                total = torch.stack(list(losses.values())).sum()
                gradients = torch.autograd.grad(total, changed)
            if not all(bool(t.isfinite().all()) for t in (total, *gradients)):
                raise OptimizationError(
                    f"The loss of portrait {index + 1} is not a number at step {number + 1}: lower the "
                    "rates; the last good codes are kept.",
                    self.good,
                )
            self.good = self._joined()
            for tensor, gradient in zip(changed, gradients, strict=True):
                tensor.grad = gradient
            adam.step()
            told = {"total": float(total.detach())} | {k: float(v.detach()) for k, v in losses.items()}
            if callback is not None and callback(index, number, told) is False:
                break
        if bool(self._joined().isfinite().all()):
            self.good = self._joined()

    def losses(self) -> dict[str, Tensor]:
        """Weighted scalars: "perceptual", "contextual", "noise", those that have a weight."""
        s = self.settings
        code = torch.cat([self.structure, self.color], 1)
        noise: str | list[Tensor | None] = self.maps if self.noises else "fixed"
        drawn = self.net(self.intrinsic, code, space="w", extrinsic_space="w", noise=noise)
        losses = {name: values.sum() for name, values in self.likeness(drawn).items()}
        if self.goal is not None:
            losses["contextual"] = s.contextual_weight * contextual_loss(
                self._features(drawn), self.goal, s.bandwidth
            )
        if self.noises and s.noise_weight:
            losses["noise"] = s.noise_weight * noise_similarity(self.noises).sum()
        return losses

    def _features(self, pictures: Tensor) -> Tensor:
        assert self.seen is not None
        if pictures.shape[-1] > self.settings.seen:
            pictures = F.adaptive_avg_pool2d(pictures, self.settings.seen)
        return self.seen((pictures + 1) / 2)[CONTEXTUAL]

    def _joined(self) -> Tensor:
        return torch.cat([self.structure, self.color], 1).detach().cpu()


class SamplerTask(Task):
    """One step of both sampling networks: codes drawn, the nearest one to each wanted code moved to it.

    The nearest is looked for anew in each step, among codes of one pass, so nothing has to be kept between
    steps, and batch normalization sees as many random numbers as it will be used with, not the chosen ones.
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

    def describe(self) -> dict[str, Any]:
        """See :class:`nstlib.training.Task`."""
        described = {k: v for k, v in asdict(self.settings).items() if k not in ("steps", "batch")}
        # The rate falls towards the end, so with another end it is another training.
        until = {"until": self.settings.steps} if self.settings.fall else {}
        return {"method": "sampler", **described, "portraits": digest(self.codes), **until}

    def batch(self, positions: Sequence[int]) -> Tensor:
        """Codes (N, layers, 512) with the noise that belongs to them."""
        wanted = []
        for one in shuffled(self.count, self.seed, positions):
            random = np.random.default_rng([self.seed, one, 4])
            noise = torch.from_numpy(random.standard_normal(tuple(self.codes.shape[1:]), np.float32))
            wanted.append(self.codes[one % len(self.codes)] + self.settings.jitter * noise)
        return torch.stack(wanted)

    def step(self, step: Step) -> dict[str, Tensor]:
        """See :class:`nstlib.training.Task`."""
        s, losses = self.settings, {}
        left = min(1.0, (1 - step.number / s.steps) / s.fall) if s.fall else 1.0
        z = {name: torch.randn(s.pool, s.inputs, generator=step.generator) for name in PARTS}
        for name, wanted in zip(PARTS, _parts(step.batch), strict=True):
            for group in self.optimizers[name].param_groups:
                group["lr"] = s.learning_rate * (1 - math.cos(math.pi * left)) / 2
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


@dataclass(frozen=True)
class Samplers:
    """Two networks that draw extrinsic codes, of structure and of color; frozen."""

    structure: Sampler  # 7 codes
    color: Sampler  # the others
    about: dict[str, Any] = field(default_factory=dict)  # what is known of their training

    @property
    def layers(self) -> int:
        """Codes of a w+."""
        return sum(net.lin_out.out_features for net in (self.structure, self.color)) // STYLE

    def save(self, path: str | os.PathLike[str], **about: Any) -> Path:
        """Write both as float16 safetensors, with what is known of their training in the header.

        Raises:
            ImageError: the file cannot be written.
        """
        state = {
            f"{name}.{key}": tensor
            for name in PARTS
            for key, tensor in getattr(self, name).state_dict().items()
        }
        return save_weights(path, state, {"method": "sampler", **self.about, **about})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Samplers:
        """What :meth:`save` has written, on the CPU.

        Raises:
            SettingError: there is no such file, or it holds something else.
        """
        tensors, about = read_weights(Path(path), "as Samplers.save writes it")
        found = cls.of(tensors, about=about)
        if found is None:
            raise SettingError(f"'{path}' holds no samplers: name a file that Samplers.save has written.")
        return found

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], prefix: str = "", about: Mapping[str, Any] | None = None
    ) -> Samplers | None:
        """From a file's tensors, "structure.lin1.weight" and so on, behind a prefix; None if it has none.

        Raises:
            SettingError: a tensor is missing, left over or of another shape.
        """
        split: dict[str, dict[str, Tensor]] = {name: {} for name in PARTS}
        for key, tensor in tensors.items():
            name, _, rest = key.removeprefix(prefix).partition(".")
            if key.startswith(prefix) and name in split:
                split[name][rest] = tensor.float() if tensor.is_floating_point() else tensor
        if not any(split.values()):
            return None
        structure, color = (sampler_from_official(split[name]) for name in PARTS)
        return cls(structure, color, dict(about or {}))


def train_sampler(
    codes: Destylized | Tensor,
    settings: SamplerSettings = SMALL.sampler,
    folder: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    callback: Callback | None = None,
    progress: bool = True,
) -> tuple[Samplers, TrainingResult]:
    """Train both sampling networks on the portraits' extrinsic codes.

    Args:
        codes: (K, layers, 512), w+, or the portraits with theirs (:func:`refine_codes`).
        settings: see :class:`.SamplerSettings`.
        folder: where to keep checkpoints; the same call goes on from there.
        seed: of first weights and training.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        callback: see :func:`nstlib.training.train`.
        progress: show a progress bar.

    Returns:
        The networks, frozen, and the training's result.

    Raises:
        OptimizationError: see :func:`nstlib.training.train`.
        SettingError: the same, or no codes.
    """
    given = codes.extrinsic if isinstance(codes, Destylized) else codes
    if given.ndim != 3 or not len(given) or given.shape[1] <= STRUCTURE or given.shape[2] != STYLE:
        raise SettingError(
            f"Extrinsic codes are (K, layers, {STYLE}) with more than {STRUCTURE} layers, not "
            f"{tuple(given.shape)}."
        )
    if not bool(given.isfinite().all()):
        raise SettingError("A code has a value that is no number: destylize its portrait again.")
    given = given.detach().float().cpu()
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        nets = {
            name: Sampler(part.shape[1], settings.inputs)
            for name, part in zip(PARTS, _parts(given), strict=True)
        }
    task = SamplerTask(nets, given, settings, seed)
    result = train(
        task, Schedule(settings.steps, settings.batch, seed=seed), folder, device=device, precision="float32",
        callback=callback, progress=progress,
    )  # fmt: skip
    structure, color = (net.requires_grad_(False).eval() for net in nets.values())
    about = {"settings": asdict(settings), "portraits": len(given), "steps": result.step}
    return Samplers(structure, color, about), result


@torch.no_grad()
def sample_styles(samplers: Samplers, count: int, seed: int = 0) -> Tensor:
    """Extrinsic codes of styles that the collection might have held, structure and color drawn apart.

    Args:
        samplers: from :func:`train_sampler`, or published ones.
        count: how many.
        seed: another one gives others; style i depends on it and i alone (to rounding).

    Returns:
        (count, layers, 512), w+, where the samplers are.

    Raises:
        SettingError: a negative count or seed.
    """
    if count < 0 or seed < 0:
        raise SettingError(f"count and seed are 0 or more, not {count} and {seed}.")
    found = []
    for number, net in enumerate((samplers.structure, samplers.color)):
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
