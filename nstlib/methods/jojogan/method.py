"""JoJoGAN behind the course's common protocol."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor

from ...assets.weights import read_weights, save_weights
from ...errors import Fraction, ImageError, SettingError, settings
from ...errors import Settings as Base
from ...faces.align import align_portrait
from ...faces.generated import Faces
from ...faces.identity import Identity
from ...nets.features import FeatureExtractor
from ...nets.hardware import resolve_device
from ...nets.style_generator import STYLE, StyleGenerator
from ...nets.stylegan2 import DiscriminatorFeatures
from ...pictures.color import finish
from ...pictures.files import load_image, resize
from ...training import Callback, Schedule, TrainingResult, train
from ..base import Method
from ..face_networks import load_encoder
from ..inversion import check_portraits, encode
from .pairs import PairsTask
from .settings import AS_RELEASED, SMALL, Settings

Encode = Callable[[Tensor], Tensor]
"""Portraits (N, 3, size, size) in [0, 1] -> their codes w+ (N, layers, 512)."""


@settings
class Options(Base):
    """What ``nst stylize`` takes for JoJoGAN besides the common arguments."""

    iterations: int | None = Field(default=None, ge=1, description="Steps of fine-tuning.  [default: 60]")
    color_strength: Fraction | None = Field(
        default=None, description="0 keeps the content's colors; left out, the style's."
    )


class JoJoGAN(Method):
    """A generator that draws in one style, behind the course's common protocol.

    Args:
        generator: of faces; stays as it is. None: the face prior of 128 pixels.
        encode: reads the codes off portraits (see :data:`Encode`). None: the course's own encoder, which is
            for the face prior only.
        features: the discriminator that came with the generator, or anything that makes pictures in [-1, 1]
            a list of feature maps. None: VGG-16 is looked at instead.
        settings: for :meth:`fit`. None: released code's with a discriminator, else :data:`SMALL`.
        device: see :func:`nstlib.nets.hardware.resolve_device`.

    Attributes:
        net: the generator that has learned; None before :meth:`fit`.
        about: what is known of its training: settings, steps, seconds, losses.

    Example:
        >>> method = JoJoGAN()                                      # doctest: +SKIP
        >>> method.fit(styles=load_image("style.png"))              # doctest: +SKIP
        >>> picture = method.stylize(load_image("me.png"))          # doctest: +SKIP
    """

    summary = "the face alone, like one portrait, in minutes"
    options_class = Options
    portraits = True
    takes = frozenset({"strength"})

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
        self.features, self._encode, self.size = features, encode, self.source.size
        self.settings = settings or (SMALL if features is None else AS_RELEASED)
        self.net: StyleGenerator | None = None
        self.about: dict[str, Any] = {}

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
        faces: Any = None,
        styles: Tensor | Sequence[Tensor] = (),
        *,
        schedule: Schedule | None = None,
        folder: str | os.PathLike[str] | None = None,
        codes: Tensor | None = None,
        identity: Identity | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        callback: Callback | None = None,
        progress: bool = True,
    ) -> TrainingResult:
        """Learn a style from one portrait, or from several; always from the generator that was given.

        Args:
            faces: for the common protocol; the generator draws its own.
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
        schedule = schedule or Schedule(steps=s.steps, batch=s.batch or len(pictures))
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
        self, content: Tensor, style: Any = None, *, strength: float = 1.0, keep_colors: bool | str = False,
        masks: Sequence[Tensor] | None = None, **own: Any,
    ) -> Tensor:  # fmt: skip
        """A portrait in the style that was learned.

        Args:
            content: (N, 3, S, S), RGB in [0, 1], aligned like FFHQ.
            style: for the common protocol; what was learned is one style, so this is not looked at.
            strength: how much of the style: alpha of :meth:`draw`.
            keep_colors: give the result the content's colors and the style's brightness alone. The setting
                of the same name keeps them by what is learned.
            masks: not for portraits.
            own: see :class:`Options`; looked at when the style is opened.

        Returns:
            (N, 3, size, size), in [0, 1], on the CPU.

        Raises:
            ImageError: not such portraits.
            SettingError: no style has been learned yet; strength is not from 0 to 1.
        """
        made = self.draw(self.encode(content), alpha=strength)
        if not keep_colors and own.get("color_strength") != 0:
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
    def open(
        cls, words: Sequence[str], chosen: Mapping[str, Any], *, size: int, progress: bool, **options: Any
    ) -> tuple[Self, Any]:
        """A file that :meth:`save` has written, or portraits, which are learned from now."""
        o, seed = Options(**chosen), options.pop("seed", 0)
        if any(word.endswith(".safetensors") for word in words):
            if len(words) > 1:
                raise SettingError("A file of weights is one style: name it alone.")
            return cls.load(words[0], **options), None
        if o.color_strength not in (None, 0):
            raise SettingError(
                "--color-strength of --method jojogan is 0, the content's colors, or is left out: the "
                "style's."
            )
        method = cls(**options)
        pictures = [align_portrait(load_image(word), size=method.size).picture for word in words]
        steps = o.iterations or method.settings.steps
        schedule = Schedule(steps=steps, batch=len(pictures), seed=seed)
        method.settings = method.settings.changed(steps=steps)
        method.fit(styles=torch.cat(pictures), schedule=schedule, progress=progress)
        return method, None

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        generator: StyleGenerator | None = None,
        encode: Encode | None = None,
        **options: Any,
    ) -> Self:
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
