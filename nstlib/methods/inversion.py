"""Which code does a generator draw this picture from? Read off by an encoder, or searched for by descent.

Sources: paper A, section 3.2.1 (latent optimization), after Yang et al. 2022, "Pastiche Master"; the descent
itself is that of Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from .. import assets
from ..assets.weights import read_weights
from ..errors import Fraction, ImageError, NotNegative, OptimizationError, Positive, SettingError, settings
from ..errors import Settings as Base
from ..faces.identity import Identity, portrait_alignment
from ..metrics import Lpips
from ..nets.face_encoder import SIZE, FaceEncoder, from_state
from ..nets.mobilestylegan import FacePrior
from ..nets.style_generator import StyleGenerator, check_codes
from ..pictures.files import check_picture, resize

Encoder = Callable[[Tensor], Tensor]
"""Portraits (N, 3, S, S) in [0, 1] -> codes (N, layers, 512), w+ or z+."""

Space = Literal["w", "z"]
Pixels = Annotated[int, Field(ge=32)]  # the smallest side that LPIPS takes with AlexNet

_TINY = 1e-8  # keeps the slope of a root finite at 0


@settings
class Settings(Base):
    """What is minimized, and how. Losses are means over one picture; pixels count in [-1, 1]."""

    space: Space = "z"  # of the codes that are changed: "z" is z+, paper A; "w" is w+
    network: Literal["vgg16", "alexnet"] = "vgg16"  # LPIPS'; released code
    loss_resolution: Pixels = 256  # pixels a side at most that LPIPS gets; released code
    perceptual_weight: NotNegative = 1.0  # of LPIPS; released code
    pixel_weight: NotNegative = 0.0  # of the mean absolute difference: ours
    identity_weight: NotNegative = 0.1  # of 1 - cosine; released code
    layer_std_weight: NotNegative = 1.0  # of the codes' standard deviation over the layers; released code
    start_weight: NotNegative = 0.0  # of the mean squared distance to the start: ours
    noise_weight: NotNegative = 1e5  # of the noise maps' self-similarity; StyleGAN2, appendix D
    noises: bool = True  # whether noise maps are changed as well, if the generator has some; released code
    learning_rate: Positive = 0.1  # of Adam; StyleGAN2, appendix D
    warmup_fraction: Fraction = 0.05  # of the steps, in which the rate grows to that, linearly; the same
    anneal_fraction: Fraction = 0.25  # of the steps, in which it falls to 0, by a cosine; the same

    def factor(self, number: int, steps: int) -> float:
        """Of the learning rate at a step, counted from 0: above 0 in each, so that none is for nothing."""
        grown = min(1.0, (number + 1) / (self.warmup_fraction * steps)) if self.warmup_fraction else 1.0
        return grown * annealed(number / steps, self.anneal_fraction)


def annealed(progress: float, fraction: float) -> float:
    """A learning rate's factor: 1, and in the last ``fraction`` of the steps down to 0 by half a cosine."""
    left = min(1.0, (1 - progress) / fraction) if fraction else 1.0
    return (1 - math.cos(math.pi * left)) / 2


AS_RELEASED = Settings()
"""DualStyleGAN's destylization: 300 steps from an encoder's z+."""

SMALL = Settings(
    space="w", network="alexnet", pixel_weight=0.5, identity_weight=0.3, layer_std_weight=0.0,
    start_weight=0.01, learning_rate=0.06,
)  # fmt: skip
"""Ours, for the face prior of 256 pixels on a processor: 100 steps from the mean face."""


@dataclass
class Inversion:
    """Codes, and what the generator draws from them; all on the CPU."""

    codes: Tensor  # (N, layers, 512), w+
    latent: Tensor  # (N, layers, 512), what was changed: z+ in the space "z", else the same as codes
    pictures: Tensor  # (N, 3, S, S), RGB in [0, 1]
    noises: list[Tensor | None]  # the maps they are drawn with; empty for a generator without
    history: list[dict[str, float]]  # the losses before each step


class ReconstructionLoss:
    """How far drawn pictures are from the targets, each from its own.

    Args:
        targets: (N, 3, S, S), RGB in [0, 1].
        settings: the weights; see :class:`Settings`.
        lpips: of the settings' network; None: made here.
        identity: None: made here, if it has a weight.
        device: where to.
    """

    def __init__(
        self, targets: Tensor, settings: Settings, lpips: Lpips | None = None,
        identity: Identity | None = None, device: str | torch.device = "auto",
    ) -> None:  # fmt: skip
        self.settings, self.targets = settings, 2 * targets - 1
        with torch.no_grad():
            if settings.perceptual_weight:
                self.net: Any = (lpips or Lpips(settings.network, device=device)).net
                self.features = self._features(self.targets)
            if settings.identity_weight:
                self.identity = identity or Identity(device)
                self.faces = self.identity.embed(targets, portrait_alignment())

    def __call__(self, drawn: Tensor) -> dict[str, Tensor]:
        """Weighted losses, (N,) each: those of "perceptual", "pixel", "identity" that have a weight.

        Args:
            drawn: (N, 3, S, S), about [-1, 1]; not clamped, or what is too bright would have no slope.
        """
        s, losses = self.settings, {}
        if s.perceptual_weight:
            pairs = zip(self.net.lins, self._features(drawn), self.features, strict=True)
            parts = [lin((a - b).square()).mean((1, 2, 3)) for lin, a, b in pairs]
            losses["perceptual"] = s.perceptual_weight * torch.stack(parts).sum(0)
        if s.pixel_weight:
            losses["pixel"] = s.pixel_weight * (drawn - self.targets).abs().mean((1, 2, 3))
        if s.identity_weight:
            faces = self.identity.embed((drawn + 1) / 2, portrait_alignment())
            losses["identity"] = s.identity_weight * (1 - (faces * self.faces).sum(1))
        return losses

    def _features(self, pictures: Tensor) -> list[Tensor]:
        """LPIPS' normalized features; unlike the package's, with a finite slope where all of them are 0."""
        small = at_most(pictures, self.settings.loss_resolution)
        scaled = self.net.scaling_layer(small.contiguous(memory_format=torch.channels_last))
        return [x * (x.square().sum(1, keepdim=True) + _TINY).rsqrt() for x in self.net.net(scaled)]


def at_most(pictures: Tensor, side: int) -> Tensor:
    """Square pictures (N, 3, S, S), made smaller where they have more pixels a side."""
    return F.adaptive_avg_pool2d(pictures, side) if pictures.shape[-1] > side else pictures


def descend(
    groups: Sequence[tuple[Sequence[Tensor], float]], losses: Callable[[], Mapping[str, Tensor]], steps: int,
    *, factor: Callable[[int, int], float] = lambda number, steps: 1.0,
    after: Callable[[], None] = lambda: None, progress: bool = True,
) -> list[dict[str, float]]:  # fmt: skip
    """Adam on codes and noise maps, in place: the descent of every search for a code.

    Args:
        groups: what is changed, each with its learning rate.
        losses: weighted losses, scalars or (N,); their sum is minimized.
        steps: how many.
        factor: of the learning rates, from a step's number and their count.
        after: called behind each step.
        progress: show a progress bar on standard error.

    Returns:
        The losses before each step.

    Raises:
        OptimizationError: a number is none any more.
    """
    changed = [tensor.requires_grad_(True) for tensors, _ in groups for tensor in tensors]
    adam = torch.optim.Adam([{"params": list(tensors), "lr": rate} for tensors, rate in groups])
    history = []
    for number in tqdm(range(steps), "descent", unit="step", disable=not progress):
        with torch.enable_grad():
            parts = losses()
            total = torch.stack(list(parts.values())).sum(0)
            gradients = torch.autograd.grad(total.sum(), changed)
        for tensor, gradient in zip(changed, gradients, strict=True):
            tensor.grad = gradient
        for group, (_, rate) in zip(adam.param_groups, groups, strict=True):
            group["lr"] = rate * factor(number, steps)
        adam.step()
        after()
        if not all(bool(tensor.isfinite().all()) for tensor in (total, *changed)):
            raise OptimizationError(f"The loss is no number at step {number + 1}: lower the learning rate.")
        row = {name: float(part.detach().mean()) for name, part in {"total": total, **parts}.items()}
        history.append({"step": number + 1, **row})
    return history


def invert(
    pictures: Tensor, generator: StyleGenerator, *, start: Tensor | None = None, steps: int = 100,
    settings: Settings = SMALL, lpips: Lpips | None = None, identity: Identity | None = None,
    progress: bool = True,
) -> Inversion:  # fmt: skip
    """Search for the codes from which a generator draws these pictures.

    Each picture is searched for by itself, whatever the others are; several at once only save time on a GPU.

    Args:
        pictures: (N, 3, H, W), RGB in [0, 1], square and aligned as the generator draws; resized to its size.
        generator: stays as it is.
        start: codes to begin with, an encoder's: (N, layers, 512), (N, 512), or one for all; in the space of
            the settings. None: the mean w, in the space "w" only.
        steps: of Adam; 0 gives the start's pictures.
        settings: see :class:`Settings`.
        lpips: see :class:`ReconstructionLoss`.
        identity: the same.
        progress: show a progress bar on standard error.

    Returns:
        The codes, and what they give.

    Raises:
        ImageError: not pictures, or not square.
        OptimizationError: the loss is no longer a number.
        SettingError: codes of another shape, no start in the space "z".
    """
    targets = check_portraits(pictures)
    first, s = next(generator.parameters()), settings
    targets = resize(targets.to(first), (generator.size, generator.size))
    begin = _start(start, generator, s.space, len(targets)).to(first)
    loss = ReconstructionLoss(targets, s, lpips, identity, first.device)
    codes = begin.clone()
    # The network's own maps to begin with: whoever draws from the codes later has these.
    maps = [
        None if m is None else m.detach().expand(len(targets), -1, -1, -1).clone()
        for m in generator.noise_maps()
    ]
    noises = [m for m in maps if m is not None] if s.noises else []

    def losses() -> dict[str, Tensor]:
        parts = loss(generator.synthesize(generator.w_plus(codes, s.space), maps))
        if s.layer_std_weight:
            parts["layer_std"] = s.layer_std_weight * (codes.var(1) + _TINY).sqrt().mean(1)
        if s.start_weight:
            parts["start"] = s.start_weight * (codes - begin).square().mean((1, 2))
        if noises and s.noise_weight:
            parts["noise"] = s.noise_weight * noise_similarity(noises)
        return parts

    history = descend(
        [([codes, *noises], s.learning_rate)], losses, steps, factor=s.factor,
        after=lambda: _normalize(noises), progress=progress,
    )  # fmt: skip
    with torch.no_grad():
        w_plus = generator.w_plus(codes.detach(), s.space)
        drawn = ((generator.synthesize(w_plus, maps).float() + 1) / 2).clamp(0, 1).cpu()
    kept = [None if m is None else m.detach().cpu() for m in maps]
    return Inversion(w_plus.clone().cpu(), codes.detach().cpu(), drawn, kept, history)


@torch.no_grad()
def _normalize(noises: Sequence[Tensor]) -> None:
    """Noise stays noise: mean 0, deviation 1 (StyleGAN2, appendix D)."""
    for noise in noises:
        noise.sub_(noise.mean((1, 2, 3), keepdim=True))
        noise.div_(noise.square().mean((1, 2, 3), keepdim=True).sqrt() + _TINY)


def noise_similarity(maps: Sequence[Tensor]) -> Tensor:
    """How much noise maps carry of the picture: their squared correlation with themselves, one pixel on.

    At every size down to 8 pixels; at each halving the mean of four is doubled, which keeps the deviation.

    Args:
        maps: (N, 1, H, W) each.

    Returns:
        (N,): near 0 for real noise.

    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix D.
    """
    total = maps[0].new_zeros(len(maps[0]))
    for noise in maps:
        while True:
            for axis in (2, 3):
                total = total + (noise * noise.roll(1, axis)).mean((1, 2, 3)).square()
            if noise.shape[-1] <= 8:
                break
            noise = 2 * F.avg_pool2d(noise, 2)
    return total


def check_portraits(pictures: Tensor) -> Tensor:
    """Square pictures with values in [0, 1], as they were given.

    Raises:
        ImageError: they are something else.
    """
    check_picture("portrait", pictures)
    height, width = pictures.shape[-2:]
    if height != width:
        raise ImageError(f"A portrait is square, not {width}×{height} pixels: cut it out by align_portrait.")
    if not bool(((pictures >= 0) & (pictures <= 1)).all()):
        raise ImageError("Portraits have values in [0, 1], and these have others: see load_image.")
    return pictures.detach().float()


@torch.no_grad()
def encode(pictures: Tensor, encoder: FaceEncoder) -> Tensor:
    """The codes w+ (N, layers, 512) that an encoder reads off portraits, in one pass.

    Args:
        pictures: (N, 3, H, W), RGB in [0, 1], aligned like FFHQ.
        encoder: the network.

    Raises:
        ImageError: not such portraits.
    """
    small = resize(check_portraits(pictures), (SIZE, SIZE))
    return encoder(2 * small.to(next(encoder.parameters())) - 1)


def course_encoder(generator: StyleGenerator) -> Encoder:
    """What reads the codes w+ of a generator off portraits: the encoder that the course carries.

    Raises:
        AssetError: its weights cannot be had.
        SettingError: it is for the face prior, and not for this generator.
    """
    if not isinstance(generator, FacePrior):
        raise SettingError("The course's encoder is for its own generator: give this one's.")
    weights = read_weights(assets.data_path("weights/face_encoder.safetensors"))[0]
    return partial(encode, encoder=from_state(weights).to(next(generator.parameters()).device))


def find_codes(
    portraits: Tensor, generator: StyleGenerator, encoder: Encoder, steps: int = 0, space: Space = "w"
) -> Tensor:
    """The codes w+ (N, layers, 512) of portraits: the encoder's, or found by descent from there.

    Args:
        portraits: (N, 3, H, W), RGB in [0, 1], aligned like FFHQ; resized to the generator's size.
        generator: stays as it is.
        encoder: see :data:`Encoder`.
        steps: of :func:`invert`; 0 takes the encoder's codes as they are.
        space: of the encoder's codes.

    Raises:
        ImageError: not such portraits.
        SettingError: the encoder is for another generator.
    """
    first = next(generator.parameters())
    pictures = resize(check_portraits(portraits), (generator.size, generator.size)).to(first)
    with torch.no_grad():
        codes = generator.w_plus(encoder(pictures), space)
    if not steps:
        return codes
    return invert(pictures, generator, start=codes, steps=steps, progress=False).codes.to(first)


def mean_w(generator: StyleGenerator) -> Tensor:
    """The mean w (1, 512) of a generator, always the same."""
    device = next(generator.parameters()).device
    return generator.mean_w(generator=torch.Generator(device).manual_seed(0))


def _start(start: Tensor | None, generator: StyleGenerator, space: str, count: int) -> Tensor:
    if start is None:
        if space == "z":
            raise SettingError("In the space 'z' there is no mean to begin with: give codes as start.")
        start = mean_w(generator)
    check_codes(start, generator.layers)
    plus = start[:, None].expand(-1, generator.layers, -1) if start.ndim == 2 else start
    return plus.detach().expand(count, -1, -1)
