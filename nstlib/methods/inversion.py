"""Which code does a generator draw this picture from? Read off by an encoder, or searched for by descent.

A generator turns codes into faces, and what can be done to a face is done to its code; so a portrait's code
has to be found first. An encoder gives one in one pass, near the portrait but not equal to it. The descent
begins there (or at the mean face) and changes the code until the picture is the portrait.

Sources: paper A, section 3.2.1 (latent optimization), after Yang et al. 2022, "Pastiche Master"; the descent
itself is that of Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix D.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..errors import Changeable, ImageError, OptimizationError, SettingError
from ..faces.identity import Identity, portrait_alignment
from ..metrics import Lpips
from ..nets.face_encoder import SIZE, FaceEncoder
from ..nets.style_generator import STYLE, StyleGenerator
from ..pictures.files import resize

SPACES = ("w", "z")
NETWORKS = ("vgg16", "alexnet")

_LEAST = 32  # pixels a side that LPIPS needs with AlexNet
_TINY = 1e-8  # keeps the slope of a root finite at 0
_MEAN_OF = 4096  # w's


@dataclass(frozen=True)
class Settings(Changeable):
    """What is minimized, and how. Losses are means over one picture; pixels count in [-1, 1]."""

    space: str = "z"  # of the codes that are changed: "z" is z+, paper A; "w" is w+
    network: str = "vgg16"  # LPIPS'; released code
    seen: int = 256  # pixels a side at most that LPIPS sees; released code
    perceptual_weight: float = 1.0  # of LPIPS; released code
    pixel_weight: float = 0.0  # of the mean absolute difference: ours
    identity_weight: float = 0.1  # of 1 - cosine; released code
    spread_weight: float = 1.0  # of the codes' standard deviation over the layers, its mean; released code
    start_weight: float = 0.0  # of the mean squared distance to the start: ours
    noise_weight: float = 1e5  # of the noise maps' self-similarity; StyleGAN2, appendix D
    noises: bool = True  # whether noise maps are changed as well, if the generator has some; released code
    learning_rate: float = 0.1  # of Adam; StyleGAN2, appendix D
    rise: float = 0.05  # part of the steps in which the rate grows to that, linearly; the same
    fall: float = 0.25  # part of the steps in which it falls to 0, by a cosine; the same

    def __post_init__(self) -> None:
        for name, known in (("space", SPACES), ("network", NETWORKS)):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} is one of {', '.join(known)}, not '{getattr(self, name)}'.")
        self._not_negative(*(key for key in asdict(self) if key.endswith("_weight")))
        self._positive("learning_rate")
        if not (0 <= self.rise <= 1 and 0 <= self.fall <= 1):
            raise SettingError(f"rise and fall are parts of 1, not {self.rise} and {self.fall}.")
        if self.seen < _LEAST:
            raise SettingError(f"seen is {self.seen} pixels, but must be {_LEAST} or more.")
        if not self.perceptual_weight + self.pixel_weight > 0:
            raise SettingError("Nothing is compared: give perceptual_weight or pixel_weight above 0.")

    def rate(self, number: int, steps: int) -> float:
        """The learning rate of a step, counted from 0: above 0 in each, so that none is for nothing."""
        grown = min(1.0, (number + 1) / (self.rise * steps)) if self.rise else 1.0
        left = min(1.0, (1 - number / steps) / self.fall) if self.fall else 1.0
        return self.learning_rate * grown * (1 - math.cos(math.pi * left)) / 2


AS_RELEASED = Settings()
"""DualStyleGAN's destylization: 300 steps from an encoder's z+."""

SMALL = Settings(
    space="w", network="alexnet", pixel_weight=0.5, identity_weight=0.3, spread_weight=0.0,
    start_weight=0.01, learning_rate=0.06,
)  # fmt: skip
"""Ours, for the face prior of 128 pixels on a processor: 100 steps from the mean face."""


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each step."""

    step: int  # steps done: 1, 2, ...
    steps: int
    losses: Mapping[str, float]  # before this step, means over the pictures: "total" and its weighted parts
    seconds: float
    pictures: Tensor  # before this step: (N, 3, S, S) in [0, 1], on the CPU


Callback = Callable[[Progress], "bool | None"]


@dataclass
class Inversion:
    """Codes, and what the generator draws from them; all on the CPU."""

    codes: Tensor  # (N, layers, 512), w+
    latent: Tensor  # (N, layers, 512), what was changed: z+ in the space "z", else the same as codes
    pictures: Tensor  # (N, 3, S, S), RGB in [0, 1]
    noises: list[Tensor | None]  # the maps they are drawn with; empty for a generator without
    history: list[dict[str, float]] = field(default_factory=list)  # a row a step: "step", "seconds", losses
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        """Time the descent took."""
        return self.history[-1]["seconds"] if self.history else 0.0


class Likeness:
    """How far drawn pictures are from the ones wanted, each from its own; ready to be asked many times.

    Args:
        wanted: (N, 3, S, S), RGB in [0, 1].
        settings: the weights; see :class:`Settings`.
        lpips: measures; None: made here.
        identity: the same; asked only if its weight is above 0.
        device: where to.
    """

    def __init__(
        self, wanted: Tensor, settings: Settings, lpips: Lpips | None = None,
        identity: Identity | None = None, device: str | torch.device = "auto",
    ) -> None:  # fmt: skip
        self.settings = settings
        self.wanted = 2 * wanted - 1
        self.lpips, self.identity = lpips, identity
        with torch.no_grad():
            if settings.perceptual_weight:
                self.lpips = Lpips(settings.network, device=device) if lpips is None else lpips
                self.maps = self._features(self.wanted)
            if settings.identity_weight:
                self.identity = Identity(device) if identity is None else identity
                self.faces = self.identity.embed(wanted, portrait_alignment())

    def __call__(self, drawn: Tensor) -> dict[str, Tensor]:
        """Weighted losses, (N,) each: those of "perceptual", "pixel", "identity" that have a weight.

        Args:
            drawn: (N, 3, S, S), about [-1, 1]; not clamped, or what is too bright would have no slope.
        """
        s, losses = self.settings, {}
        if s.perceptual_weight:
            losses["perceptual"] = s.perceptual_weight * self._lpips(drawn)
        if s.pixel_weight:
            losses["pixel"] = s.pixel_weight * (drawn - self.wanted).abs().mean((1, 2, 3))
        if s.identity_weight:
            assert self.identity is not None
            faces = self.identity.embed((drawn + 1) / 2, portrait_alignment())
            losses["identity"] = s.identity_weight * (1 - (faces * self.faces).sum(1))
        return losses

    def _features(self, pictures: Tensor) -> list[Tensor]:
        assert self.lpips is not None
        side = pictures.shape[-1]
        if side > self.settings.seen:
            pictures = F.adaptive_avg_pool2d(pictures, self.settings.seen)
        net: Any = self.lpips.net
        found = net.net(net.scaling_layer(pictures.contiguous(memory_format=torch.channels_last)))
        return [x * (x.square().sum(1, keepdim=True) + _TINY).rsqrt() for x in found]

    def _lpips(self, drawn: Tensor) -> Tensor:
        """LPIPS whose half is known already, and whose slope is finite where all features are 0."""
        assert self.lpips is not None
        net: Any = self.lpips.net
        pairs = zip(net.lins, self._features(drawn), self.maps, strict=True)
        return torch.stack([lin((a - b).square()).mean((1, 2, 3)) for lin, a, b in pairs]).sum(0)


@torch.no_grad()
def encode(pictures: Tensor, encoder: FaceEncoder) -> Tensor:
    """The codes an encoder reads off portraits, in one pass.

    Args:
        pictures: (N, 3, H, W), RGB in [0, 1], aligned like FFHQ.
        encoder: see :func:`nstlib.methods.face_networks.load_encoder`.

    Returns:
        (N, layers, 512), w+, where the encoder is.

    Raises:
        ImageError: not pictures.
    """
    first = next(encoder.parameters())
    small = resize(check_portraits(pictures), (SIZE, SIZE))
    return encoder(2 * small.to(first) - 1)


def invert(
    pictures: Tensor,
    generator: StyleGenerator,
    *,
    start: Tensor | None = None,
    steps: int = 100,
    settings: Settings = SMALL,
    lpips: Lpips | None = None,
    identity: Identity | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Inversion:
    """Search for the codes from which a generator draws these pictures.

    Each picture is searched for by itself, whatever the others are; several at once only save time on a GPU.

    Args:
        pictures: (N, 3, H, W), RGB in [0, 1], square and aligned as the generator draws; resized to its size.
        generator: stays as it is.
        start: codes to begin with, an encoder's: (N, layers, 512), (N, 512), or one for all; in the space of
            the settings. None: the mean w, in the space "w" only.
        steps: of Adam; 0 gives the start's pictures.
        settings: see :class:`Settings`.
        lpips: of the settings' network; None: made here.
        identity: None: made here, if the settings give it a weight.
        callback: called after each step; returning False stops, with everything up to then kept.
        progress: show a progress bar on standard error.

    Returns:
        The codes; after Ctrl-C what was reached, with ``interrupted=True``.

    Raises:
        ImageError: not pictures, or not square.
        OptimizationError: the loss is no longer a number; its ``result`` holds the last good codes.
        SettingError: codes of another shape, no start in the space "z", LPIPS of another network.
    """
    wanted = check_portraits(pictures)
    if steps < 0:
        raise SettingError(f"steps is {steps}, but must be 0 or more.")
    if lpips is not None and lpips.backbone != settings.network:
        raise SettingError(
            f"The settings ask for LPIPS with {settings.network}, and the one given has {lpips.backbone}: "
            "change one of both."
        )
    first = next(generator.parameters())
    wanted = resize(wanted.to(first), (generator.size, generator.size))
    begin = _start(start, generator, settings.space, len(wanted)).to(first)
    search = _Search(generator, wanted, begin, settings, lpips, identity)
    search.run(steps, callback, progress)
    return search.found()


class _Search:
    """The state of one descent."""

    def __init__(
        self, generator: StyleGenerator, wanted: Tensor, begin: Tensor, settings: Settings,
        lpips: Lpips | None, identity: Identity | None,
    ) -> None:  # fmt: skip
        self.generator, self.settings, self.begin = generator, settings, begin
        self.likeness = Likeness(wanted, settings, lpips, identity, wanted.device)
        self.codes = begin.clone().requires_grad_(True)
        # The network's own maps to begin with: whoever draws from the codes later has these.
        own = generator.noise_maps("fixed", len(wanted))
        self.maps: list[Tensor | None] = [
            None if m is None else m.detach().expand(len(wanted), -1, -1, -1).clone() for m in own
        ]
        changed = [m for m in self.maps if m is not None] if settings.noises else []
        self.changed = [self.codes, *(m.requires_grad_(True) for m in changed)]
        self.good = [t.detach().clone() for t in self.changed]
        self.history: list[dict[str, float]] = []
        self.interrupted = False

    def run(self, steps: int, callback: Callback | None, progress: bool) -> None:
        """Descend, until it is enough."""
        adam = torch.optim.Adam(self.changed, self.settings.learning_rate)
        began = time.perf_counter()
        bar = tqdm(total=steps, desc="inversion", unit="step", disable=not progress)
        try:
            with bar, torch.enable_grad():
                for number in range(steps):
                    total, parts, drawn = self.losses()
                    gradients = torch.autograd.grad(total.sum(), self.changed)
                    self._check(number, [total, *gradients])
                    self.good = [t.detach().clone() for t in self.changed]
                    for group in adam.param_groups:
                        group["lr"] = self.settings.rate(number, steps)
                    for tensor, gradient in zip(self.changed, gradients, strict=True):
                        tensor.grad = gradient
                    adam.step()
                    self._normalize()
                    row = {k: float(v.detach().mean()) for k, v in {"total": total, **parts}.items()}
                    seconds = time.perf_counter() - began
                    self.history.append({"step": number + 1, "seconds": round(seconds, 3), **row})
                    bar.update()
                    bar.set_postfix(loss=f"{row['total']:.4g}", refresh=False)
                    if callback is not None:
                        seen = _shown(drawn)
                        if callback(Progress(number + 1, steps, row, seconds, seen)) is False:
                            break
        except KeyboardInterrupt:
            self.interrupted = True
        if all(bool(t.isfinite().all()) for t in self.changed):
            self.good = [t.detach() for t in self.changed]

    def losses(self) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Those of each picture, (N,): the total and its weighted parts; and the pictures in [-1, 1]."""
        s = self.settings
        w_plus = self.generator.w_plus(self.codes, s.space)
        drawn = self.generator.synthesize(w_plus, self.maps)
        parts = self.likeness(drawn)
        if s.spread_weight:
            parts["spread"] = s.spread_weight * (self.codes.var(1) + _TINY).sqrt().mean(1)
        if s.start_weight:
            parts["start"] = s.start_weight * (self.codes - self.begin).square().mean((1, 2))
        if len(self.changed) > 1 and s.noise_weight:
            parts["noise"] = s.noise_weight * noise_similarity(self.changed[1:])
        return torch.stack(list(parts.values())).sum(0), parts, drawn

    def _check(self, number: int, tensors: list[Tensor]) -> None:
        if not all(bool(t.isfinite().all()) for t in tensors):
            raise OptimizationError(
                f"The loss is not a number at step {number + 1}: lower the learning rate; the last good "
                "codes are kept.",
                self.found(),
            )

    @torch.no_grad()
    def _normalize(self) -> None:
        """Noise stays noise: mean 0, deviation 1 (StyleGAN2, appendix D)."""
        for noise in self.changed[1:]:
            noise.sub_(noise.mean((1, 2, 3), keepdim=True))
            noise.div_(noise.square().mean((1, 2, 3), keepdim=True).sqrt() + _TINY)

    @torch.no_grad()
    def found(self) -> Inversion:
        """What was good last."""
        codes, *noises = self.good
        given = iter(noises)
        maps = [m if m is None or not noises else next(given) for m in self.maps]
        w_plus = self.generator.w_plus(codes, self.settings.space)
        drawn = self.generator.synthesize(w_plus, maps)
        kept = [None if m is None else m.detach().cpu() for m in maps]
        return Inversion(
            w_plus.clone().cpu(), codes.cpu(), _shown(drawn), kept, self.history, self.interrupted
        )


def noise_similarity(maps: list[Tensor]) -> Tensor:
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
    if not isinstance(pictures, Tensor) or pictures.ndim != 4 or pictures.shape[1] != 3 or not len(pictures):
        found = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
        raise ImageError(f"Portraits have the shape (N, 3, S, S), not {found}: load them with load_image.")
    height, width = pictures.shape[-2:]
    if height != width:
        raise ImageError(f"A portrait is square, not {width}×{height} pixels: cut the face out first.")
    if not bool(((pictures >= 0) & (pictures <= 1)).all()):  # also NaN
        raise ImageError("Portraits have values in [0, 1], and these have others: see load_image.")
    return pictures.detach().float()


def _start(start: Tensor | None, generator: StyleGenerator, space: str, count: int) -> Tensor:
    if start is None:
        if space == "z":
            raise SettingError(
                "In the space 'z' there is no mean to begin with: give an encoder's codes as start, or take "
                "the space 'w'."
            )
        start = generator.mean_w(_MEAN_OF, torch.Generator(_device(generator)).manual_seed(0))
    if start.shape[1:] not in ((STYLE,), (generator.layers, STYLE)) or len(start) not in (1, count):
        raise SettingError(
            f"The start of {count} pictures is ({count}, {generator.layers}, {STYLE}), or one for all, and "
            f"not {tuple(start.shape)}."
        )
    if not bool(start.isfinite().all()):
        raise SettingError("The start has values that are no numbers: encode the pictures again.")
    plus = start[:, None].expand(-1, generator.layers, -1) if start.ndim == 2 else start
    return plus.detach().expand(count, -1, -1)


def _device(generator: StyleGenerator) -> torch.device:
    return next(generator.parameters()).device


def _shown(drawn: Tensor) -> Tensor:
    return ((drawn.detach().float() + 1) / 2).clamp(0, 1).cpu()
