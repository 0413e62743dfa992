"""JoJoGAN: one portrait teaches a generator its style.

Many codes give nearly the portrait's picture: those whose layers of structure are its own, and whose other
layers are anyone's. JoJoGAN fine-tunes the generator until it draws the portrait from all of these; so it
learns the style, and not one face.

"Released code" is the notebook of Chong and Forsyth 2022, "JoJoGAN: One Shot Face Stylization", for StyleGAN2
of 1024 pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..errors import Fraction, NotNegative, Positive, SettingError, settings
from ..errors import Settings as Base
from ..faces.align import align_portrait
from ..faces.generated import Faces
from ..faces.identity import Identity, portrait_alignment
from ..nets.features import FeatureExtractor
from ..nets.style_generator import STRUCTURE, STYLE, StyleGenerator
from ..nets.stylegan2 import DiscriminatorFeatures
from ..pictures.files import load_image, resize
from ..training import Schedule, Step, Task, TrainingResult
from .base import Method, postprocess
from .inversion import check_portraits, encode, invert, load_encoder, mean_w

KEEPING_COLORS = {18: (9, 11, 15, 16, 17), 12: (7, 8, 9, 10)}
"""Codes that are mixed where colors are to be kept, by how many codes the generator has: released code's for
1024 pixels; for the face prior ours, whose colors are nearly all in its last code. What is not mixed stays
in charge of the colors, because no pair teaches to overrule it."""

Encode = Callable[[Tensor], Tensor]
"""Portraits (N, 3, size, size) in [0, 1] -> their codes w+ (N, layers, 512)."""

_LEAST = 1e-3  # size that a tensor counts as having at least: one of zeros learns, too


@settings
class Settings(Base):
    """What the generator is fine-tuned for."""

    learning_rate: Positive = Field(default=2e-3, description="Of Adam.")  # (0, 0.99); released code
    decay: Positive = 1.0  # the last step's learning rate as a part of the first's, by a cosine: ours
    mixed: tuple[int, ...] | None = Field(default=None, min_length=1)  # codes; None: as keep_colors says
    keep_colors: bool = False  # mix not all codes from 7 on, but KEEPING_COLORS alone; released code
    mixing: Fraction = 1.0  # how far mixed codes go from the style's, 0, to random ones, 1; released code
    truncation: Fraction = 1.0  # of the random codes to the mean w: 1 is none, as released
    noise: Literal["fixed", "random"] = "random"  # of the generator's maps, if it has some; released code
    compare: Literal["auto", "vgg"] = "auto"  # features; "auto": a discriminator's, if given
    vgg_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")  # of VGG-16: ours
    relative_features: bool = False  # differences are divided by what the style's features measure: ours
    # The learning rate is meant for StyleGAN2, whose weights all have a deviation near 1. With True each
    # tensor's own rate is that times its root mean square, so that it means the same for any generator: ours.
    relative_rates: bool = False
    identity_weight: NotNegative = 0.0  # of 1 - cosine to the face before fine-tuning; the paper's, optional
    # Of descent from the encoder's codes, of the style picture and of the faces to be painted: ours.
    search: int = Field(default=0, ge=0)
    # How far the mixed codes of a painted face go from its own, 0 as released, to the style picture's: ours.
    style_codes: Fraction = 0.0

    def mask(self, layers: int) -> Tensor:
        """How far each of a generator's codes goes to a random one: (layers, 1), 0 for those that stay.

        Raises:
            SettingError: the generator has no such codes, or it is not known which keep its colors.
        """
        chosen = self.mixed or tuple(range(STRUCTURE, layers))
        if self.mixed is None and self.keep_colors:
            chosen = KEEPING_COLORS.get(layers, ())
        if not chosen or not 0 <= min(chosen) <= max(chosen) < layers:
            raise SettingError(
                f"A generator of {layers} codes cannot mix {chosen or 'those that keep its colors'}: name "
                f"some of 0 to {layers - 1} in mixed."
            )
        mask = torch.zeros(layers, 1)
        mask[list(chosen)] = self.mixing
        return mask


AS_RELEASED = Settings()
"""The released notebook, compared by the discriminator of StyleGAN2 for 1024 pixels; what the paper leaves
open, it says."""

SMALL = Settings(
    compare="vgg", relative_features=True,
    # 16 of the prior's 71 tensors have a size of 0.01 or less: at 2e-3 for all, it is soon destroyed.
    relative_rates=True, learning_rate=5e-3, decay=0.1,
    truncation=0.7,  # at 1 the pairs' colors differ so much that 60 steps end in pale pictures
    # The encoder's face is another person's. Of the style picture, the generator would learn the difference
    # as if it were style, and give all faces one look; of a photograph, the person would be lost.
    search=40,
    # 60 steps do not teach the prior to overrule the fine codes of every face: faces stay gray and blurred.
    style_codes=1.0,
)  # fmt: skip
"""Ours, for the face prior of 256 pixels on a processor: features of VGG-16, which is there without a
discriminator. Four times that learning rate destroys the prior, and at 2e-3 it learns more slowly. At 8e-3
faces take the style picture's features, at 5e-3 they stay themselves."""

STEPS = 60  # of SMALL; 300 as released


@settings
class Options(Base):
    """What ``nst stylize`` takes for JoJoGAN besides the common arguments."""

    iterations: int | None = Field(
        default=None, ge=1, description=f"Steps of fine-tuning.  [default: {STEPS}]"
    )
    color_strength: float | None = Field(
        default=None, ge=0, le=0, description="0 keeps the content's colors; left out, the style's."
    )


class PairsTask(Task):
    """One step: codes of the style, mixed with random ones, and the generator is to give the style picture.

    Args:
        net: what learns, all but its mapping network.
        source: the generator before; what random codes are mapped by, and the identity is compared to.
        targets: the style pictures, (S, 3, size, size) in [-1, 1].
        codes: w+ of these, (S, layers, 512).
        features: pictures in [-1, 1] -> list of feature maps.
        settings: see :class:`Settings`.
        identity: tells faces apart, if that has a weight.
    """

    def __init__(
        self, net: StyleGenerator, source: StyleGenerator, targets: Tensor, codes: Tensor,
        features: Callable[[Tensor], Sequence[Tensor]], settings: Settings, identity: Identity | None = None,
    ) -> None:  # fmt: skip
        self.source, self.codes, self.features, self.settings = source, codes, features, settings
        self.decay, self.identity = settings.decay, identity
        self.mask, self.center = settings.mask(source.layers).to(codes), mean_w(source)
        with torch.no_grad():
            self.targets = [layer.float() for layer in features(targets)]
            self.first = source(codes[:1], space="w")
        net.requires_grad_(True).style.requires_grad_(False)
        learning: list[dict[str, Any]] = []
        for p in filter(lambda p: p.requires_grad, net.parameters()):
            size = max(float(p.detach().square().mean().sqrt()), _LEAST) if settings.relative_rates else 1.0
            learning.append({"params": [p], "lr": settings.learning_rate * size})
        self.modules: dict[str, nn.Module] = {"net": net}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "main": torch.optim.Adam(learning, betas=(0.0, 0.99))
        }

    def describe(self) -> dict[str, Any]:
        """All of the settings, and the generator and the style, as a few of their numbers."""
        few = [self.first, *self.codes, *self.targets]
        numbers = [[round(float(v), 4) for v in some.flatten()[:3]] for some in few]
        return {"method": "jojogan", "numbers": numbers, **asdict(self.settings)}

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
        """The pictures of mixed codes, their losses, one step of the generator."""
        s, which = self.settings, step.batch.to(self.codes.device)
        codes = self.mixed(which, step.generator)
        noise = self.source.noise_maps()
        if s.noise == "random":
            # Drawn on the CPU, so that it is the same on every device.
            noise = [
                None if m is None else torch.randn(len(codes), *m.shape[1:], generator=step.generator).to(m)
                for m in noise
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
            losses.append(loss / wanted.abs().mean() if self.settings.relative_features else loss)
        return torch.stack(losses).mean()


class JoJoGAN(Method):
    """A generator that draws in one style.

    Args:
        settings: None: the released code's with a discriminator, else :data:`SMALL`.
        generator: of faces; stays as it is. None: the face prior of 256 pixels.
        encode: reads the codes off portraits (see :data:`Encode`). None: the course's own encoder, which is
            for the face prior only.
        features: the discriminator that came with the generator, or anything that makes pictures in [-1, 1]
            a list of feature maps. None: VGG-16 takes its place.
        options: ``device`` and ``seed`` of :class:`.Method`.

    Attributes:
        net: the generator that has learned; None before :meth:`fit`.
        style: codes w+ (1, layers, 512) of the style picture, the mean of several; None before :meth:`fit`.

    Example:
        >>> method = JoJoGAN()                                      # doctest: +SKIP
        >>> method.fit(styles=load_image("style.png"))              # doctest: +SKIP
        >>> picture = method.stylize(load_image("me.png"))          # doctest: +SKIP
    """

    summary = "the face alone, like one portrait, in minutes"
    settings_class = Settings
    options_class = Options
    portraits = True
    takes = frozenset({"strength"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"steps": STEPS, "batch": 1, **asdict(SMALL)},
        "smoke": {"steps": 2, "batch": 1, **asdict(SMALL), "search": 1},
        "paper": {"steps": 300, "batch": 1},
    }

    def __init__(
        self, settings: Settings | None = None, *, generator: StyleGenerator | None = None,
        encode: Encode | None = None, features: Any = None, **options: Any,
    ) -> None:  # fmt: skip
        # In float32: it takes minutes, and the generator's features span more than bfloat16 tells apart.
        super().__init__(
            settings or (SMALL if features is None else AS_RELEASED), **{**options, "precision": "float32"}
        )
        source = generator or Faces(self.device).prior()
        # A copy: the caller's generator may learn, and must not move to another device.
        self.source = copy.deepcopy(source).to(self.device).requires_grad_(False).eval()
        self.size = self.source.size
        if isinstance(features, DiscriminatorFeatures):
            if features.size != self.size:
                raise SettingError(
                    f"The discriminator takes {features.size} pixels a side, and the generator draws "
                    f"{self.size}: take the one that came with it."
                )
            features = copy.deepcopy(features).to(self.device).requires_grad_(False).eval().features
        self._features, self._encode = features, encode
        self.net: StyleGenerator | None = None
        self.style: Tensor | None = None

    def encode(self, portraits: Tensor) -> Tensor:
        """The codes of portraits: (N, layers, 512), w+, the encoder's or found by descent from there.

        Args:
            portraits: (N, 3, S, S), RGB in [0, 1], aligned like FFHQ; resized to the generator's size.

        Raises:
            AssetError: the course's encoder cannot be had.
            ImageError: not such portraits.
            SettingError: the encoder is for another generator.
        """
        pictures = resize(check_portraits(portraits), (self.size, self.size)).to(self.device)
        if self._encode is None:
            encoder = load_encoder(device=self.device)
            self._encode = lambda some: encode(some, encoder)
        with torch.no_grad():
            codes = self._checked(self._encode(pictures), len(pictures))
        if not self.settings.search:
            return codes
        found = invert(pictures, self.source, start=codes, steps=self.settings.search, progress=False)
        return found.codes.to(self.device)

    def task(self, faces: Any, styles: Any, schedule: Schedule) -> PairsTask:
        """The training on the style's portraits (S, 3, H, H), or a list of such, from the generator given."""
        s = self.settings
        side = (self.size, self.size)
        given = [styles] if isinstance(styles, Tensor) else list(styles or ())
        if not given:
            raise SettingError("The list of styles is empty: give a style picture.")
        pictures = torch.cat([resize(check_portraits(one), side) for one in given]).to(self.device)
        features = None if s.compare == "vgg" else self._features
        if features is None:
            extractor = FeatureExtractor("vgg16", s.vgg_layers, precision="float32", device=self.device)
            features = lambda pictures: list(extractor((pictures + 1) / 2).values())  # noqa: E731
        identity = Identity(self.device) if s.identity_weight else None
        codes, self.net = self.encode(pictures), copy.deepcopy(self.source)
        self.style = codes.mean(0, keepdim=True)
        return PairsTask(self.net, self.source, 2 * pictures - 1, codes, features, s, identity)

    def fit(
        self, faces: Any = None, styles: Any = None, *, schedule: Schedule | None = None, **options: Any
    ) -> TrainingResult:
        """See :meth:`.Method.fit`; without a schedule 60 steps, each with all of the styles' portraits."""
        if schedule is None:
            count = sum(map(len, [styles] if isinstance(styles, Tensor) else styles or ()))
            schedule = Schedule(steps=STEPS, batch=max(1, count), seed=self.seed)
        return super().fit(faces, styles, schedule=schedule, **options)

    def stylize(
        self, content: Tensor, style: Any = None, *, strength: float = 1.0, keep_colors: bool | str = False,
        masks: Sequence[Tensor] | None = None, **own: Any,
    ) -> Tensor:  # fmt: skip
        """A portrait in the style that was learned.

        Args:
            content: (N, 3, S, S), RGB in [0, 1], aligned like FFHQ.
            style: what was learned is one style, so this is not looked at.
            strength: how much of the style, see :meth:`draw`.
            keep_colors: give the result the content's colors and the style's brightness alone. The setting
                of the same name keeps them by what is learned.
            masks: there are none for a drawn face.
            own: see :class:`Options`.

        Returns:
            (N, 3, size, size), in [0, 1], on the CPU.

        Raises:
            ImageError: not such portraits.
            SettingError: no style has been learned yet; strength is not from 0 to 1.
        """
        if masks is not None:
            raise SettingError("A face is drawn anew as a whole, so there are no regions: leave masks out.")
        keep = keep_colors or Options(**own).color_strength == 0
        codes = self.encode(content)
        if self.settings.style_codes and self.style is not None:
            mixed = self.settings.mask(self.source.layers).to(codes) > 0
            codes = torch.lerp(codes, self.style.to(codes), strength * self.settings.style_codes * mixed)
        made = self.draw(codes, strength)
        return postprocess(made, resize(content.detach().float().cpu(), (self.size, self.size)), bool(keep))

    @torch.no_grad()
    def draw(self, codes: Tensor, strength: float = 1.0) -> Tensor:
        """Codes in the style that was learned.

        Args:
            codes: w+ (N, layers, 512).
            strength: how much of the style: the generator's weights are so far from those before, 0, to those
                that have learned, 1. Ours; the paper mixes the features of both generators.

        Returns:
            (N, 3, size, size), in [0, 1], on the CPU.

        Raises:
            SettingError: no style has been learned yet; strength or codes are something else.
        """
        if self.net is None:
            raise SettingError("No style has been learned yet: call fit with a style picture, or load one.")
        if not 0 <= strength <= 1:
            raise SettingError(f"strength is {strength}, but must be from 0, no style, to 1.")
        w_plus = self._checked(codes, len(codes))
        after = self.net.state_dict()
        weights = {
            key: torch.lerp(t, after[key], strength) if t.is_floating_point() else t
            for key, t in self.source.state_dict().items()
        }
        made = torch.func.functional_call(self.net, weights, (w_plus,), {"space": "w"})
        return ((made.float() + 1) / 2).clamp(0, 1).cpu()

    def state(self) -> dict[str, Tensor]:
        """What has learned, all but the mapping network; and the style's codes."""
        if self.net is None:
            return {}
        learned = {k: t for k, t in self.net.state_dict().items() if not k.startswith("style.")}
        return learned if self.style is None else {**learned, "style_codes": self.style}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            SettingError: these are no such weights, or those of another generator.
        """
        net, tensors = copy.deepcopy(self.source), dict(tensors)
        style, state = tensors.pop("style_codes", None), net.state_dict()
        own = {key: t.shape for key, t in state.items() if not key.startswith("style.")}
        if {key: t.shape for key, t in tensors.items()} != own:
            raise SettingError(
                f"The file holds no style of this generator ({net.size} pixels a side, {net.layers} codes): "
                "load it with the generator it was learned from."
            )
        net.load_state_dict(state | tensors)
        self.net, self.style = net, style

    @classmethod
    def read_styles(cls, words: Sequence[str], size: int | None = None) -> list[Tensor]:
        """Portraits, cut out of pictures and aligned."""
        return [align_portrait(load_image(word), size=size or cls.size).picture for word in words]

    @classmethod
    def open(
        cls, words: Sequence[str], chosen: Mapping[str, Any], *, size: int, progress: bool, **options: Any
    ) -> tuple[Self, Any]:
        """A file that :meth:`save` has written, or portraits, which are learned from now."""
        o = Options(**chosen)
        if any(word.endswith(".safetensors") for word in words):
            if len(words) > 1:
                raise SettingError("A file of weights is one style: name it alone.")
            return cls.load(words[0], **options), None
        method = cls(**options)
        styles = cls.read_styles(words)
        schedule = Schedule(steps=o.iterations or STEPS, batch=len(styles), seed=method.seed)
        method.fit(styles=styles, schedule=schedule, progress=progress)
        return method, None

    def _checked(self, codes: Tensor, count: int) -> Tensor:
        wanted = (count, self.source.layers, STYLE)
        if codes.shape != wanted:
            raise SettingError(
                f"The generator draws {count} pictures from codes {wanted}, not {tuple(codes.shape)}: take "
                "an encoder that was made for it."
            )
        return codes.detach().to(self.device, torch.float32)
