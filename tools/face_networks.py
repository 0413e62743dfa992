"""Trains the networks of faces that the course carries: the face prior's head, and the encoder.

    python tools/face_networks.py face-prior
    python tools/face_networks.py encoder

A run that was stopped or killed goes on when the same command is given again. None of both is a paper's of
its own. The head (:class:`nstlib.nets.mobilestylegan.DistilledHead`) learns to give at once what
MobileStyleGAN gives after more layers; the encoder (:class:`nstlib.nets.face_encoder.FaceEncoder`) learns to
read a face's codes off its picture, from pairs without limit: the prior draws them.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from nstlib.assets.weights import save_weights
from nstlib.errors import Count, Fraction, NotNegative, Positive, Settings, settings
from nstlib.faces.generated import Faces, cached, listed
from nstlib.faces.identity import Identity, portrait_alignment
from nstlib.losses import generator_loss
from nstlib.methods.dualstylegan.destylization import discriminator_step, source_discriminator
from nstlib.methods.inversion import mean_w
from nstlib.metrics import Lpips
from nstlib.nets import hardware
from nstlib.nets.face_encoder import SIZE, FaceEncoder, from_state
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.mobilefacenet import MobileFaceNet
from nstlib.nets.mobilestylegan import CUT, SCALE, DistilledHead, haar
from nstlib.nets.style_generator import STYLE, StyleGenerator
from nstlib.nets.stylegan2 import Discriminator
from nstlib.pictures.files import load_image, resize
from nstlib.training import Schedule, Step, Task, TrainingResult, cosine_decay, shuffled, train

FIRST = 64  # faces of the least squares

SIDE = 8 << CUT
"""Pixels a side of the prior's pictures."""

DISCRIMINATOR_CHANNELS = (128, 128, 128, 128, 96, 64, 32)
"""Of its features at 4, 8 ... 256 pixels: a fiftieth of configuration F's weights."""

# The steps of `shipped` are those of the course's own files.
PRESETS: dict[str, dict[str, dict[str, int]]] = {
    "face-prior": {
        "shipped": {"steps": 200, "batch": 2, "faces": 380, "first": 1000},
        "smoke": {"steps": 2, "batch": 1, "faces": 2, "first": 2},
        "paper": {"steps": 50_000, "batch": 16, "faces": 10_000, "first": 1500},
    },
    "encoder": {
        "shipped": {"steps": 600, "batch": 6},
        "smoke": {"steps": 2, "batch": 2},
        "paper": {"steps": 100_000, "batch": 16},
    },
}


@settings
class PriorSettings(Settings):
    """What the head is trained for; all values are ours."""

    pixel_weight: NotNegative = 1.0  # mean absolute difference, in [-1, 1]
    perceptual_weight: NotNegative = 0.5  # of VGG-16's features, divided by what the target's measure
    layers: tuple[str, ...] = ("relu1_2", "relu2_2")
    adversarial_weight: NotNegative = 0.05
    r1_weight: NotNegative = 10.0  # StyleGAN2's
    r1_every: Count = 16  # StyleGAN2's
    learning_rate: Positive = 3e-3  # times each tensor's size
    discriminator_rate: Positive = 2e-3
    decay: Positive = 0.1  # the last step's learning rate as a part of the first's, by a cosine


class PriorTask(Task):
    """One step of head and discriminator: features to the whole network's picture, made smaller.

    Args:
        head: what learns.
        discriminator: what tells its pictures from the whole network's; learns too.
        faces: the generator.
        pictures: its faces, as files, and ``w``, their styles (see :func:`nstlib.faces.generated.cached`).
        settings: see :class:`PriorSettings`.
        steps: of the whole training.
        tensors: VGG-16's weights instead of the asset's (tests).
    """

    def __init__(
        self, head: DistilledHead, discriminator: Discriminator, faces: Faces, pictures: Sequence[Path],
        w: Tensor, settings: PriorSettings, steps: int, seed: int = 0,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.faces, self.pictures, self.w, self.settings = faces, list(pictures), w, settings
        self.extractor = FeatureExtractor("vgg16", settings.layers, device=faces.device, tensors=tensors)
        self.steps, self.seed = steps, seed
        self.modules: dict[str, nn.Module] = {"head": head, "discriminator": discriminator}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": torch.optim.Adam(relative_rates(head, settings.learning_rate), betas=(0.5, 0.99)),
            "discriminator": torch.optim.Adam(
                discriminator.parameters(), settings.discriminator_rate, betas=(0.0, 0.99)
            ),
        }

    def describe(self) -> dict[str, Any]:
        """The settings, and how long and from how many faces."""
        described = {"method": "face-prior", "faces": len(self.pictures), "planned": self.steps}
        return {**described, **asdict(self.settings)}

    @torch.no_grad()
    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Features (N, 256, 128, 128), the head's styles (N, 512), pictures (N, 3, 256, 256) in [-1, 1]."""
        return self.faces_at(shuffled(len(self.pictures), self.seed, positions))

    @torch.no_grad()
    def faces_at(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the faces with these numbers."""
        w = self.w[chosen].to(self.faces.device)
        features = self.faces.synthesis.features(w, CUT)
        side = 2 * features.shape[-1]
        pictures = torch.cat([resize(load_image(self.pictures[i]), (side, side)) for i in chosen])
        return features, w, 2 * pictures - 1

    def rate(self, progress: float) -> float:
        """From 1 to the settings' ``decay``, along half a cosine."""
        return cosine_decay(progress, self.settings.decay)

    def step(self, step: Step) -> dict[str, Tensor]:
        """One step of the head, and one of the discriminator."""
        s = self.settings
        features, w, target = step.batch
        picture = step.modules["head"](features, w)
        scores = step.modules["discriminator"].requires_grad_(False)(picture)
        losses = {
            "pixel": (picture - target).abs().mean(),
            "perceptual": self._perceptual(picture, target),
            "adversarial": generator_loss(scores),
        }
        total = (
            s.pixel_weight * losses["pixel"] + s.perceptual_weight * losses["perceptual"]
            + s.adversarial_weight * losses["adversarial"]
        )  # fmt: skip
        step.descend(total, "main")
        if s.adversarial_weight:
            losses["discriminator"] = discriminator_step(
                step, picture, target, r1_weight=s.r1_weight, r1_every=s.r1_every
            )
        return {"total": total, **losses}

    def _perceptual(self, picture: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.extractor((target + 1) / 2)
        found = self.extractor((picture + 1) / 2)
        return torch.stack([(found[k] - v).abs().mean() / v.abs().mean() for k, v in wanted.items()]).sum()


@settings
class EncoderSettings(Settings):
    """What the encoder is trained for; all values are ours."""

    truncation: tuple[NotNegative, NotNegative] = (0.4, 1.0)  # of each face, drawn between these two
    mixed: Fraction = 0.5  # of the faces have the coarse codes of one w and the fine ones of another
    latent_weight: NotNegative = 1.0  # mean squared difference of codes, in units of their variance
    rendered: int = 1  # faces of a step that are drawn again from their codes, which costs most of the time
    pixel_weight: NotNegative = 0.5  # mean absolute difference of these, in [-1, 1]
    perceptual_weight: NotNegative = 1.0  # their LPIPS (AlexNet)
    identity_weight: NotNegative = 0.3  # 1 - cosine of their identities
    jitter: NotNegative = (
        0.04  # of the picture's place, size and turn, as parts of 1: photographs lie no better
    )
    colors: NotNegative = 0.15  # of brightness, contrast and each channel
    beginning: int = 1500  # faces whose codes a linear map is fitted to, which training begins with
    learning_rate: Positive = 2e-5  # of that map, which has 4096 inputs
    trunk_rate: Positive = 1e-4  # of the layers that know faces already
    decay: Positive = 0.05


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
        rest = [p for p in net.parameters() if id(p) not in ids]
        groups = [
            {"params": rest, "lr": settings.learning_rate}, {"params": known, "lr": settings.trunk_rate}
        ]  # fmt: skip
        self.optimizers: dict[str, torch.optim.Optimizer] = {"main": torch.optim.Adam(groups)}
        self.center = mean_w(prior)
        z = torch.randn(1024, STYLE, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            self.variance = (prior.style(z.to(self.center.device)) - self.center).square().mean(0)

    def describe(self) -> dict[str, Any]:
        """The settings, and how long."""
        return {"method": "encoder", "planned": self.steps, "faces_seed": self.seed, **asdict(self.settings)}

    @torch.no_grad()
    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (N, layers, 512), their pictures as the encoder sees them, and as they are, in [-1, 1]."""
        codes, seen, drawn = [], [], []
        for position in positions:
            random = np.random.default_rng([self.seed, position, 2])
            code = self._codes(random)
            # One by one: in a batch of another size the same face may differ in its last bits.
            picture = self.prior.synthesize(code, self.prior.noise_maps()).clamp(-1, 1)
            codes.append(code)
            drawn.append(picture)
            seen.append(F.adaptive_avg_pool2d(augment(picture, random, self.settings), SIZE))
        return torch.cat(codes), torch.cat(seen), torch.cat(drawn)

    def _codes(self, random: np.random.Generator) -> Tensor:
        z = torch.tensor(random.standard_normal((2, STYLE), np.float32)).to(self.center.device)
        truncation = random.uniform(*self.settings.truncation)
        w = torch.lerp(self.center, self.prior.style(z), truncation)
        cut = int(random.integers(1, self.prior.layers)) if random.random() < self.settings.mixed else 0
        return torch.stack([w[1] if layer < cut else w[0] for layer in range(self.prior.layers)])[None]

    def rate(self, progress: float) -> float:
        """From 1 to the settings' ``decay``, along half a cosine."""
        return cosine_decay(progress, self.settings.decay)

    def step(self, step: Step) -> dict[str, Tensor]:
        """One step of the encoder."""
        settings = self.settings
        codes, seen, drawn = step.batch
        found = step.modules["net"](seen)
        latent = ((found - codes).square() / self.variance).mean()
        total, losses = settings.latent_weight * latent, {"latent": latent}
        if settings.rendered:
            wanted, some = drawn[: settings.rendered], found[: settings.rendered]
            again = self.prior.synthesize(some, self.prior.noise_maps())
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


def augment(picture: Tensor, random: np.random.Generator, settings: EncoderSettings) -> Tensor:
    """As photographs come: a little off in place, size, turn and colors, not quite sharp."""
    j, c = settings.jitter, settings.colors
    angle, size = random.uniform(-j, j) * 2, 1 + random.uniform(-j, j)
    x, y = random.uniform(-j, j, 2)
    cos, sin = np.cos(angle) * size, np.sin(angle) * size
    theta = torch.tensor([[[cos, -sin, x], [sin, cos, y]]], dtype=torch.float32, device=picture.device)
    grid = F.affine_grid(theta, list(picture.shape), align_corners=False)
    moved = F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)
    if random.random() < 0.5:
        small = int(random.integers(*(size * picture.shape[-1] // 128 for size in (48, 112))))
        moved = F.interpolate(
            F.interpolate(moved, (small, small), mode="bilinear", antialias=True),
            moved.shape[-2:], mode="bilinear",
        )  # fmt: skip
    gain = torch.from_numpy(1 + random.uniform(-c, c, (1, 3, 1, 1)).astype(np.float32)).to(moved)
    return (moved * gain + float(random.uniform(-c, c)) / 2).clamp(-1, 1)


def fit_prior(
    faces: Faces, count: int, schedule: Schedule, settings: PriorSettings | None = None,
    folder: str | os.PathLike[str] | None = None, first: int = 0, **options: Any,
) -> tuple[DistilledHead, TrainingResult]:  # fmt: skip
    """Train the head of the face prior against a new discriminator, from the least squares solution.

    Args:
        faces: the generator; stays as it is.
        count: how many of its faces to learn from; they are drawn into the cache at 512 pixels.
        schedule: see :class:`nstlib.training.Schedule`.
        settings: see :class:`PriorSettings`.
        folder: where to keep checkpoints; the same call goes on from there.
        first: steps on pixels alone, before.
        options: ``callback`` and ``progress`` of :func:`nstlib.training.train`; ``tensors``, VGG-16's.

    Returns:
        The head, frozen, and the training's result.
    """
    tensors = options.pop("tensors", None)
    drawn = cached(count, 2 * SIDE, faces=faces, progress=options.get("progress", True))
    pictures, w = listed(drawn, count)
    head = DistilledHead(faces.synthesis.channels[CUT]).to(faces.device)
    head.modulation.requires_grad_(False)
    head.light.requires_grad_(False)
    discriminator = source_discriminator(None, SIDE, DISCRIMINATOR_CHANNELS, schedule.seed)
    task = PriorTask(
        head, discriminator, faces, pictures, w, settings or PriorSettings(), schedule.steps, schedule.seed,
        tensors,
    )  # fmt: skip
    if folder is None or not Path(folder, "checkpoint.pt").exists():  # else its weights are in there
        begin_head(head, task, first, schedule.seed)
        rates = relative_rates(head, task.settings.learning_rate)
        task.optimizers["main"] = torch.optim.Adam(rates, betas=(0.5, 0.99))
    result = train(task, schedule, folder, device=faces.device, **options)
    head.load_state_dict(result.averages.get("head", head.state_dict()))
    return head.requires_grad_(False).eval(), result


def relative_rates(head: DistilledHead, rate: float) -> list[dict[str, Any]]:
    """Learning rates in proportion to each tensor's size."""
    rates = {p: rate * max(float(p.detach().square().mean().sqrt()), 1.5e-3) for p in head.parameters()}
    return [{"params": [p], "lr": size} for p, size in rates.items() if p.requires_grad]


def begin_head(head: DistilledHead, task: PriorTask, steps: int, seed: int) -> None:
    """The best linear map from what the next level would look at, and from there Adam on pixels alone.

    Each face's features are computed once, so that a step costs what the head does.
    """
    kept = [
        tuple(part.half() for part in task.faces_at([i])) for i in tqdm(range(len(task.pictures)), "features")
    ]
    inputs = head.near.in_channels + 1
    squares, products = torch.zeros(inputs, inputs), torch.zeros(inputs, 12)
    with torch.no_grad():
        net, last = task.faces.synthesis, task.faces.synthesis.levels[-1]
        head.modulation.load_state_dict(net.levels[CUT].up.state_dict())
        lights = [last.conv1.modulation, last.conv2.modulation, net.modulation]
        weight = torch.cat([one.weight for one in lights])
        center, spread = (weight @ task.w.T).mean(1), (weight @ task.w.T).std(1) + 1e-6
        head.light.weight.copy_(weight / spread[:, None])
        head.light.bias.copy_(-center / spread)
        head.near.weight.zero_()[:, :, 1, 1] = 1
        for parameter in head.detail[2].parameters():
            parameter.zero_()
        for features, w, picture in kept[:FIRST]:
            x = head.modulation(features.float(), w.float()).flatten(2)[0].T / SCALE
            x = torch.cat([x, torch.ones(len(x), 1)], 1)
            squares += x.T @ x
            products += x.T @ haar(picture.float()).flatten(2)[0].T
        ridge = 1e-4 * squares.diagonal().mean() * torch.eye(inputs)
        solved = torch.linalg.solve(squares + ridge, products)
        head.to_img.weight.copy_(solved[:-1].T[:, :, None, None])
        head.to_img.bias.copy_(solved[-1])
    optimizer = torch.optim.AdamW(relative_rates(head, 1e-2), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for step in (bar := tqdm(range(steps), "pixels")):
        some = [kept[i] for i in shuffled(len(kept), seed, [2 * step, 2 * step + 1])]
        features, w, picture = (torch.cat(parts).float() for parts in zip(*some, strict=True))
        loss = (head(features, w) - picture).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        bar.set_postfix(pixel=f"{loss.item():.3f}")


def fit_encoder(
    prior: StyleGenerator, schedule: Schedule, settings: EncoderSettings | None = None,
    folder: str | os.PathLike[str] | None = None, identity: Identity | None = None,
    start: FaceEncoder | None = None, **options: Any,
) -> tuple[FaceEncoder, TrainingResult]:  # fmt: skip
    """Train the encoder of a generator of faces.

    Args:
        prior: the generator; stays as it is.
        schedule: see :class:`nstlib.training.Schedule`.
        settings: see :class:`EncoderSettings`.
        folder: where to keep checkpoints; the same call goes on from there.
        identity: its network's layers are what the encoder begins with; None: made here.
        start: an encoder to begin with instead, of no more codes; what is missing are copies of its last one.
        options: ``callback`` and ``progress`` of :func:`nstlib.training.train`; ``lpips``.

    Returns:
        The encoder, frozen, and the training's result.
    """
    device = next(prior.parameters()).device
    identity = identity or Identity(device)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(schedule.seed)
        net = FaceEncoder(prior.layers)
    if start is None:
        begin_with_recognizer(net, identity.net, mean_w(prior).cpu())
    else:
        state, last = start.state_dict(), len(start.codes) - 1
        for index, part in itertools.product(range(last + 1, prior.layers), ("weight", "bias")):
            state[f"codes.{index}.{part}"] = state[f"codes.{last}.{part}"]
        net.load_state_dict(state)
    task = EncoderTask(
        net, prior, settings or EncoderSettings(), schedule.steps, schedule.seed, options.pop("lpips", None),
        identity,
    )  # fmt: skip
    begun = folder is not None and Path(folder, "checkpoint.pt").exists()  # its weights are in there
    if start is None and not begun and task.settings.beginning:
        begin(task, options.get("progress", True))
    result = train(task, schedule, folder, device=device, **options)
    net.load_state_dict(result.averages.get("net", net.state_dict()))
    return net.requires_grad_(False).eval(), result


@torch.no_grad()
def begin(task: EncoderTask, progress: bool) -> None:
    """Fit the encoder's linear part to faces that the training itself will not see."""
    other = copy.copy(task)
    other.settings, other.seed = replace(task.settings, mixed=0.0), task.seed + 1
    net, features, w = task.net.to(task.center.device).eval(), [], []
    for index in tqdm(range(task.settings.beginning), "first faces", disable=not progress):
        codes, seen, _ = other.batch([index])
        features.append([one.cpu() for one in net.features(seen)])
        w.append(codes[:, 0].cpu())
    joined = [torch.cat(maps) for maps in zip(*features, strict=True)]
    begin_by_least_squares(net.cpu(), joined, torch.cat(w))


def begin_with_recognizer(net: FaceEncoder, recognizer: MobileFaceNet, mean: Tensor) -> None:
    """Set the trunk to a recognizer's layers, and the mean to the generator's mean w, (1, 512) or (512,)."""
    layers = list(recognizer.children())[: len(net.trunk)]
    net.trunk.load_state_dict(nn.Sequential(*layers).state_dict())
    net.mean.copy_(mean.flatten())


@torch.no_grad()
def begin_by_least_squares(net: FaceEncoder, features: list[Tensor], w: Tensor, ridge: float = 0.5) -> None:
    """Set taps and heads to the best linear map from the trunk's features to w.

    The taps become the features' principal components, the heads a ridge regression of these, of rank
    ``width``: the same for all codes, as each face has one w.

    Args:
        net: the encoder.
        features: of N pictures, as :meth:`FaceEncoder.features` gives them.
        w: theirs, (N, 512).
        ridge: added to the diagonal of the components' covariance between pictures, whose mean is 1.
    """
    parts = []
    for tap, maps in zip(net.taps, features, strict=True):
        assert isinstance(tap, nn.Conv2d)
        pixels = maps.movedim(1, 3).flatten(0, 2)
        mean = pixels.mean(0)
        _, directions = torch.linalg.eigh((pixels - mean).T @ (pixels - mean))
        kept = directions[:, -tap.out_channels :].T
        tap.weight.copy_(kept[:, :, None, None])
        assert tap.bias is not None
        tap.bias.copy_(-kept @ mean)
        parts.append(tap(maps).flatten(1))
    x = torch.cat(parts, 1)
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / deviation
    kernel = x @ x.T / x.shape[1]
    solved = torch.linalg.solve(kernel + ridge * torch.eye(len(x)), w - net.mean)
    _, _, rows = torch.linalg.svd(kernel @ solved, full_matrices=False)
    rows = rows[: net.shared.out_features]
    weight = (x.T @ solved / x.shape[1]) @ rows.T / deviation[:, None]
    net.shared.weight[: len(rows)] = weight.T
    net.shared.bias[: len(rows)] = -mean @ weight
    for head in net.codes:
        assert isinstance(head, nn.Linear)
        head.weight[:, : len(rows)] = rows.T


@click.command()
@click.argument("network", type=click.Choice(list(PRESETS)))
@click.option("--preset", type=click.Choice(["shipped", "smoke", "paper"]), default="shipped")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("."), help="Where the files go.")
@click.option("--seed", type=int, default=0)
@click.option("--device", default="auto")
@click.option("--start", type=click.Path(path_type=Path), help="An encoder's file to begin with.")
@click.option("--steps", type=int, help="Instead of the preset's.")
def main(
    network: str, preset: str, folder: Path, seed: int, device: str, start: Path | None, steps: int | None
) -> None:
    """Train one of the networks."""
    hardware.keep_freed_memory()
    values, faces, run = PRESETS[network][preset], Faces(device), folder / f"{network}.run"
    schedule = Schedule(steps=steps or values["steps"], batch=values["batch"], average=0.995, seed=seed)
    net: nn.Module
    if network == "face-prior":
        net, result = fit_prior(faces, values["faces"], schedule, folder=run, first=values["first"])
        name, about = "mobilestylegan_256", {"network": "face prior's head", "faces": values["faces"]}
    else:
        begun = None if start is None else from_state(load_file(start))
        net, result = fit_encoder(faces.prior(), schedule, folder=run, start=begun)
        name, about = "face_encoder", {"network": "face encoder"}
    if not result.interrupted:
        about |= {
            "seed": seed, "steps": result.step, "batch": schedule.batch, "seconds": round(result.seconds),
            "losses": result.losses,
        }  # fmt: skip
        save_weights(folder / f"{name}.safetensors", net.state_dict(), about)


if __name__ == "__main__":
    main()
