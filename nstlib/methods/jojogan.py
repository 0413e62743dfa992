"""One portrait is enough: JoJoGAN fine-tunes a generator of faces until everything it draws has its style.

Chong and Forsyth 2022, "JoJoGAN: One Shot Face Stylization". A network needs pairs to learn a style from: a
face, and the same face in the style. There is one picture in the style, and no face to it. Inversion finds a
face: the codes from which the generator draws something like the style picture. Then the fine codes are
replaced by random ones. That is another face each time, of the same structure, and each is paired with the
style picture. A generator that learns to give the style picture for all of them has to take the style into
its weights, and keeps what the coarse codes say of a face.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..color import finish
from ..errors import ImageError, SettingError
from ..faces import Faces
from ..features import FeatureExtractor
from ..hardware import resolve_device
from ..identity import Identity, portrait_alignment
from ..images import resize
from ..nets.style_generator import STRUCTURE, STYLE, StyleGenerator
from ..nets.stylegan2 import DiscriminatorFeatures
from ..training import Callback, Schedule, Step, TrainingResult, train
from ..weights import read_weights, save_weights
from .face_networks import cosine, load_encoder
from .inversion import check_portraits, encode

KEEPING_COLORS = (9, 11, 15, 16, 17)
"""Codes that are mixed where colors are to be kept, of those a generator has: released code's, for 1024
pixels. The others from 7 on stay in charge of the colors, because the pairs do not teach to overrule them."""

COMPARED = ("auto", "discriminator", "vgg")

Encode = Callable[[Tensor], Tensor]
"""Portraits (N, 3, size, size) in [0, 1] -> their codes w+ (N, layers, 512)."""


@dataclass(frozen=True)
class Settings:
    """What the generator is fine-tuned for."""

    steps: int = 300  # released code's notebook
    batch: int | None = None  # pairs of a step; None: one of each style picture; released code
    learning_rate: float = 2e-3  # of Adam (0, 0.99); released code
    decay: float = 1.0  # the last step's learning rate as a part of the first's, by a cosine: ours
    mixed: tuple[int, ...] | None = None  # codes that are mixed; None: as keep_colors says
    keep_colors: bool = False  # False: all codes from 7 on are mixed, True: KEEPING_COLORS; released code
    mixing: float = 1.0  # how far mixed codes go from the style's, 0, to random ones, 1; released code
    truncation: float = 1.0  # of the random codes to the mean w: 1 is none, as released
    noise: str = "random"  # of the generator's maps, if it has some: "fixed", "random"; released code
    compare: str = "auto"  # features of the "discriminator" or "vgg"; "auto": the former if it was given
    vgg_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")  # of VGG-16: ours
    relative: bool = False  # each layer's difference is divided by what the style's features measure: ours
    identity_weight: float = 0.0  # of 1 - cosine to the face before fine-tuning; the paper's, optional

    def __post_init__(self) -> None:
        for name in ("learning_rate", "decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SettingError(f"{name} is {value}, but must be above 0.")
        if self.steps < 1 or (self.batch is not None and self.batch < 1):
            raise SettingError(f"steps and batch are 1 or more, not {self.steps} and {self.batch}.")
        if not (0 <= self.mixing <= 1 and 0 <= self.truncation <= 1):
            raise SettingError(
                f"mixing and truncation are from 0 to 1, not {self.mixing} and {self.truncation}."
            )
        if not (math.isfinite(self.identity_weight) and self.identity_weight >= 0):
            raise SettingError(f"identity_weight is {self.identity_weight}, but must be 0 or more.")
        if self.noise not in ("fixed", "random"):
            raise SettingError(f"noise is 'fixed' or 'random', not '{self.noise}'.")
        if self.compare not in COMPARED:
            raise SettingError(f"compare is one of {', '.join(COMPARED)}, not '{self.compare}'.")
        if self.compare != "discriminator" and not self.vgg_layers:
            raise SettingError("vgg_layers is empty: name the layers of VGG-16 that are compared.")
        if self.mixed is not None and (not self.mixed or min(self.mixed) < 0):
            raise SettingError(f"mixed has the numbers of codes, from 0, one at least, not {self.mixed}.")

    def changed(self, **values: Any) -> Settings:
        """A copy with some values changed.

        Raises:
            SettingError: an unknown name, or a value that makes no sense.
        """
        unknown = sorted(values.keys() - asdict(self).keys())
        if unknown:
            raise SettingError(f"There is no setting '{unknown[0]}': they are {', '.join(asdict(self))}.")
        return replace(self, **values)

    def mask(self, layers: int) -> Tensor:
        """How far each of a generator's codes goes to a random one: (layers, 1), 0 for those that stay.

        Raises:
            SettingError: a code is to be mixed that the generator does not have.
        """
        if self.mixed is not None:
            chosen = list(self.mixed)
            if max(chosen) >= layers:
                raise SettingError(
                    f"mixed names code {max(chosen)}, and the generator has 0 to {layers - 1}: leave it out."
                )
        elif self.keep_colors:
            chosen = [code for code in KEEPING_COLORS if code < layers]
        else:
            chosen = list(range(STRUCTURE, layers))
        if not chosen:
            raise SettingError(f"Of {layers} codes none would be mixed: name some in mixed.")
        mask = torch.zeros(layers, 1)
        mask[chosen] = self.mixing
        return mask


AS_RELEASED = Settings()
"""The released notebook: 300 steps, compared by the discriminator of StyleGAN2 for 1024 pixels."""

AS_PRINTED = Settings()
"""The paper's own numbers are those of the released code."""


class PairsTask:
    """One step: codes of the style, mixed with random ones, and the generator is to give the style picture.

    Args:
        net: what learns, all but its mapping network.
        source: the generator before; what random codes are mapped by, and the identity is compared to.
        targets: the style pictures, (S, 3, size, size) in [-1, 1].
        codes: w+ of these, (S, layers, 512).
        features: pictures in [-1, 1] -> list of feature maps.
        settings: see :class:`Settings`.
        steps: of the whole training, by which the learning rate falls.
        identity: tells faces apart, if that has a weight.
        compared: what ``features`` are of: "discriminator" or "vgg".
    """

    def __init__(
        self, net: StyleGenerator, source: StyleGenerator, targets: Tensor, codes: Tensor,
        features: Callable[[Tensor], Sequence[Tensor]], settings: Settings, steps: int,
        identity: Identity | None = None, compared: str = "discriminator",
    ) -> None:  # fmt: skip
        self.source, self.codes, self.features, self.settings = source, codes, features, settings
        self.steps, self.identity, self.compared = steps, identity, compared
        self.mask = settings.mask(source.layers).to(codes)
        with torch.no_grad():
            self.targets = [layer.float() for layer in features(targets)]
            self.first = source(codes[:1], space="w")
        if not self.targets:
            raise SettingError("The features to compare have no layers: give a discriminator that has some.")
        net.requires_grad_(True).style.requires_grad_(False)
        learning = [p for p in net.parameters() if p.requires_grad]
        self.modules: dict[str, nn.Module] = {"net": net}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": torch.optim.Adam(learning, settings.learning_rate, betas=(0.0, 0.99))
        }

    @cached_property
    def center(self) -> Tensor:
        """The mean w, (1, 512)."""
        return self.source.mean_w(generator=torch.Generator(self.codes.device).manual_seed(0))

    def describe(self) -> dict[str, Any]:
        """All of the settings, and the generator and the style, as a few of their numbers."""
        few = [self.first, *self.codes, *self.targets]
        numbers = [[round(float(v), 4) for v in some.flatten()[:3]] for some in few]
        settings = {k: v for k, v in asdict(self.settings).items() if k not in ("steps", "batch")}
        described = {
            "method": "jojogan", "compared": self.compared, "styles": len(self.codes), "numbers": numbers,
            **settings,
        }  # fmt: skip
        # The learning rate falls towards the end, so with another end it is another training.
        return described | ({"until": self.steps} if self.settings.decay != 1 else {})

    def batch(self, positions: Sequence[int]) -> Tensor:
        """Which styles: in turn, so that each is shown as often as the others."""
        return torch.tensor([position % len(self.codes) for position in positions])

    def mixed(self, which: Tensor, generator: torch.Generator) -> Tensor:
        """Codes of these styles, some of them replaced by random ones: (N, layers, 512).

        Args:
            which: numbers of styles, (N,).
            generator: of the random codes, on the CPU.
        """
        z = torch.randn(len(which), STYLE, generator=generator).to(self.codes)
        with torch.no_grad():
            w = self.source.style(z)
            if self.settings.truncation != 1:
                w = torch.lerp(self.center, w, self.settings.truncation)
        return torch.lerp(self.codes[which], w[:, None], self.mask)

    def step(self, step: Step) -> dict[str, Tensor]:
        """See :class:`nstlib.training.Task`."""
        s, which = self.settings, step.batch.to(self.codes.device)
        rate = float(s.learning_rate * cosine(step.number, self.steps, s.decay))
        for group in self.optimizers["main"].param_groups:
            group["lr"] = rate
        codes = self.mixed(which, step.generator)
        own = self.source.noise_maps("fixed")
        noise: str | list[Tensor | None] = "fixed"
        if own and s.noise == "random":
            # Drawn on the CPU, so that it is the same on every device.
            noise = [
                None if m is None else torch.randn(len(codes), *m.shape[1:], generator=step.generator).to(m)
                for m in own
            ]
        made = step.modules["net"](codes, space="w", noise=noise).float()
        losses = {"features": self.difference(made, which)}
        if s.identity_weight and self.identity is not None:
            with torch.no_grad():
                before = self.source(codes, space="w", noise=noise)
            a, b = (self.identity.embed((x + 1) / 2, portrait_alignment()) for x in (made, before))
            losses["identity"] = s.identity_weight * (1 - (a * b).sum(1).mean())
        total = torch.stack([*losses.values()]).sum()
        step.descend(total)
        return {"total": total, **losses}

    def difference(self, made: Tensor, which: Tensor) -> Tensor:
        """Mean absolute difference of the features, averaged over the layers.

        Args:
            made: pictures (N, 3, size, size) in [-1, 1].
            which: numbers of the styles they are to be, (N,).
        """
        losses = []
        for found, wanted in zip(self.features(made), self.targets, strict=True):
            loss = F.l1_loss(found.float(), wanted[which])
            losses.append(loss / wanted.abs().mean() if self.settings.relative else loss)
        return torch.stack(losses).mean()


class JoJoGAN:
    """A generator that draws in one style, behind the course's common protocol.

    Args:
        generator: of faces; stays as it is. None: the face prior of 128 pixels.
        encode: reads the codes off portraits (see :data:`Encode`). None: the course's own encoder, which is
            for the face prior only.
        features: the discriminator that came with the generator, or anything that makes pictures in [-1, 1]
            a list of feature maps. None: VGG-16 is looked at instead.
        settings: for :meth:`fit`. None: released code's with a discriminator, else :data:`SMALL`.
        device: see :func:`nstlib.hardware.resolve_device`.

    Attributes:
        net: the generator that has learned; None before :meth:`fit`.
        about: what is known of its training: settings, steps, seconds, losses.

    Example:
        >>> method = JoJoGAN()                                      # doctest: +SKIP
        >>> method.fit(load_image("style.png"))                     # doctest: +SKIP
        >>> picture = method.stylize(load_image("me.png"))          # doctest: +SKIP
    """

    def __init__(
        self,
        generator: StyleGenerator | None = None,
        encode: Encode | None = None,
        features: Callable[[Tensor], Sequence[Tensor]] | None = None,
        *,
        settings: Settings | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.device = resolve_device(device)
        source = Faces(self.device).prior() if generator is None else generator
        # A copy: the caller's generator may learn, and must not move to another device.
        self.source = copy.deepcopy(source).to(self.device).requires_grad_(False).eval()
        if isinstance(features, DiscriminatorFeatures):
            if features.size != self.source.size:
                raise SettingError(
                    f"The discriminator sees {features.size} pixels a side, and the generator draws "
                    f"{self.source.size}: take the one that came with it."
                )
            features = copy.deepcopy(features).to(self.device).requires_grad_(False).eval().features
        self.features, self._encode = features, encode
        self.settings = settings or (SMALL if features is None else AS_RELEASED)
        self.net: StyleGenerator | None = None
        self.about: dict[str, Any] = {}

    @property
    def size(self) -> int:
        """Pixels a side of what is drawn."""
        return self.source.size

    def encode(self, portraits: Tensor) -> Tensor:
        """The codes of portraits: (N, layers, 512), w+.

        Args:
            portraits: (N, 3, S, S), RGB in [0, 1], aligned like FFHQ; resized to the generator's size.

        Raises:
            AssetError: the course's encoder cannot be had.
            ImageError: not such portraits.
            SettingError: the encoder is for another generator.
        """
        pictures = resize(_portraits(portraits), (self.size, self.size)).to(self.device)
        if self._encode is None:
            encoder = load_encoder(device=self.device)
            self._encode = lambda some: encode(some, encoder)
        with torch.no_grad():
            return self._codes(self._encode(pictures), len(pictures))

    def fit(
        self,
        styles: Tensor | Sequence[Tensor],
        schedule: Schedule | None = None,
        folder: str | os.PathLike[str] | None = None,
        *,
        codes: Tensor | None = None,
        identity: Identity | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        callback: Callback | None = None,
        progress: bool = True,
    ) -> TrainingResult:
        """Learn a style from one portrait, or from several; always from the generator that was given.

        Args:
            styles: (S, 3, H, H), RGB in [0, 1], aligned like FFHQ, or a list of such.
            schedule: steps, batch, average of the weights (which is kept, if there is one). None: the
                settings' steps and batch.
            folder: where to keep checkpoints; the same call goes on from there.
            codes: w+ of the styles (S, layers, 512), where they are known; None: what :meth:`encode` gives.
            identity: tells faces apart; None: made here, if the settings give it a weight.
            tensors: VGG-16's weights instead of the asset's (tests).
            callback: see :func:`nstlib.training.train`.
            progress: show a progress bar.

        Returns:
            The training's result. The method is ready to :meth:`stylize` afterwards.

        Raises:
            ImageError: a style is no such portrait.
            OptimizationError: see :func:`nstlib.training.train`.
            SettingError: the same, no style, codes of another shape, no discriminator to compare by.
        """
        s = self.settings
        given = [styles] if isinstance(styles, Tensor) else list(styles)
        if not given:
            raise SettingError("The list of styles is empty: give a style picture.")
        side = (self.size, self.size)
        pictures = torch.cat([resize(_portraits(one), side) for one in given]).to(self.device)
        codes = self.encode(pictures) if codes is None else self._codes(codes, len(pictures))
        compared, features = self._compared(tensors)
        if s.identity_weight and identity is None:
            identity = Identity(self.device)
        schedule = schedule or Schedule(s.steps, s.batch or len(pictures))
        net = copy.deepcopy(self.source)
        task = PairsTask(
            net, self.source, 2 * pictures - 1, codes, features, s, schedule.steps, identity, compared
        )
        # In float32: it takes minutes, and the generator's features span more than bfloat16 tells apart.
        result = train(
            task, schedule, folder, device=self.device, precision="float32", callback=callback,
            progress=progress,
        )  # fmt: skip
        if result.averages:
            net.load_state_dict(result.averages["net"])
        self.net = net.requires_grad_(False).eval()
        self.about = {
            "settings": asdict(s), "compared": compared, "steps": result.step, "batch": schedule.batch,
            "styles": len(pictures), "seconds": round(result.seconds),
            "losses": {k: float(f"{v:.4g}") for k, v in result.history[-1].items() if k not in _COUNTS},
        }  # fmt: skip
        return result

    def stylize(
        self, content: Tensor, style: Tensor | None = None, *, alpha: float = 1.0, keep_colors: bool = False
    ) -> Tensor:
        """A portrait in the style that was learned.

        Args:
            content: (N, 3, S, S), RGB in [0, 1], aligned like FFHQ.
            style: for the common protocol; what was learned is one style, so this is not looked at.
            alpha: how much of the style, see :meth:`draw`.
            keep_colors: give the result the content's colors and the style's brightness alone. The setting
                of the same name keeps them by what is learned.

        Returns:
            (N, 3, size, size), in [0, 1], on the CPU.

        Raises:
            ImageError: not such portraits.
            SettingError: no style has been learned yet; alpha is not from 0 to 1.
        """
        made = self.draw(self.encode(content), alpha=alpha)
        if not keep_colors:
            return made
        contents = resize(content.detach().float().cpu(), (self.size, self.size))
        pairs = zip(made.split(1), contents.split(1), strict=True)
        return torch.cat([finish("luminance", m, c) for m, c in pairs])

    @torch.no_grad()
    def draw(self, codes: Tensor, *, alpha: float = 1.0) -> Tensor:
        """Codes in the style that was learned.

        Args:
            codes: w+ (N, layers, 512).
            alpha: how much of the style: the generator's weights are so far from those before, 0, to those
                that have learned, 1. Ours; the paper mixes the features of both generators.

        Returns:
            (N, 3, size, size), in [0, 1], on the CPU.

        Raises:
            SettingError: no style has been learned yet; alpha or codes are something else.
        """
        if self.net is None:
            raise SettingError("No style has been learned yet: call fit with a style picture, or load one.")
        if not 0 <= alpha <= 1:
            raise SettingError(f"alpha is {alpha}, but must be from 0, no style, to 1.")
        w_plus = self._codes(codes, len(codes))
        before, after = self.source.state_dict(), self.net.state_dict()
        weights = {
            key: torch.lerp(t, after[key], alpha) if t.is_floating_point() else t for key, t in before.items()
        }
        made = torch.func.functional_call(self.net, weights, (w_plus,), {"space": "w"})
        return ((made.float() + 1) / 2).clamp(0, 1).cpu()

    def save(self, path: str | os.PathLike[str], **about: Any) -> Path:
        """Write what has learned as float16 safetensors, with what is known of its training in the header.

        The mapping network is left out: it has not changed.

        Raises:
            ImageError: the file cannot be written.
            SettingError: no style has been learned yet.
        """
        if self.net is None:
            raise SettingError("There is nothing to save: call fit with a style picture first.")
        state = {k: t for k, t in self.net.state_dict().items() if not k.startswith(_MAPPING)}
        return save_weights(path, state, {"method": "jojogan", **self.about, **about})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        generator: StyleGenerator | None = None,
        encode: Encode | None = None,
        **options: Any,
    ) -> JoJoGAN:
        """A style that :meth:`save` has written.

        Args:
            path: the file.
            generator: the one it was learned from; None: the face prior.
            encode: as for the class.
            options: likewise.

        Raises:
            SettingError: the file holds no such weights, or those of another generator.
        """
        tensors, about = read_weights(Path(path))
        method = cls(generator, encode, **options)
        net = copy.deepcopy(method.source)
        state = net.state_dict()
        own = {key: t.shape for key, t in state.items() if not key.startswith(_MAPPING)}
        if {key: t.shape for key, t in tensors.items()} != own:
            raise SettingError(
                f"'{path}' holds no style of this generator ({net.size} pixels a side, {net.layers} codes): "
                "load it with the generator it was learned from."
            )
        net.load_state_dict(state | tensors)
        method.net, method.about = net, about
        return method

    def _compared(
        self, tensors: Mapping[str, Tensor] | None
    ) -> tuple[str, Callable[[Tensor], Sequence[Tensor]]]:
        """What features are compared, and the way to them from pictures in [-1, 1]."""
        s = self.settings
        if s.compare != "vgg" and self.features is not None:
            return "discriminator", self.features
        if s.compare == "discriminator":
            raise SettingError(
                "There is no discriminator to compare pictures by: give one as features, or choose "
                "compare='vgg'."
            )
        seen = FeatureExtractor(
            "vgg16", s.vgg_layers, precision="float32", device=self.device, tensors=tensors
        )
        return "vgg", lambda pictures: list(seen((pictures + 1) / 2).values())

    def _codes(self, codes: Tensor, count: int) -> Tensor:
        wanted = (count, self.source.layers, STYLE)
        if not isinstance(codes, Tensor) or codes.shape != wanted:
            found = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
            raise SettingError(
                f"The generator draws {count} pictures from codes {wanted}, not {found}: take an encoder "
                "that was made for it."
            )
        return codes.detach().to(self.device, torch.float32)


_COUNTS = ("step", "seconds")
_MAPPING = "style."  # the mapping network's part of a generator's state


def _portraits(pictures: Tensor) -> Tensor:
    """Portraits, checked; whatever is not square has not been aligned."""
    if isinstance(pictures, Tensor) and pictures.ndim == 4 and pictures.shape[-2] != pictures.shape[-1]:
        raise ImageError(
            f"JoJoGAN wants square portraits aligned like FFHQ, not {pictures.shape[-1]}×"
            f"{pictures.shape[-2]} pixels: cut the face out with portraits.align_portrait."
        )
    return check_portraits(pictures)


SMALL = Settings(compare="vgg", relative=True, steps=60)
"""Ours."""
