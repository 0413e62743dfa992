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
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..errors import Fraction, Positive, SettingError, settings
from ..errors import Settings as Base
from ..faces.align import align_portrait
from ..faces.generated import Faces
from ..nets.features import FeatureExtractor
from ..nets.official import check_layout
from ..nets.style_generator import STRUCTURE, STYLE, StyleGenerator, check_codes
from ..pictures.files import load_image, resize
from ..training import Schedule, Step, Task, TrainingResult
from .base import Method, check_strength, postprocess, style_list
from .inversion import Encoder, check_portraits, course_encoder, find_codes, mean_w

_LEAST = 1e-3  # size that a tensor counts as having at least: one of zeros learns, too


@settings
class Settings(Base):
    """What the generator is fine-tuned for: the values of the released notebook, where it has them.

    There the discriminator of StyleGAN2 for 1024 pixels compares the pictures, see :class:`JoJoGAN`.
    """

    learning_rate: Positive = Field(default=2e-3, description="Of Adam.")  # (0, 0.99); released code
    decay: Positive = 1.0  # the last step's learning rate as a part of the first's, by a cosine: ours
    truncation: Fraction = 1.0  # of the random codes to the mean w: 1 is none, as released
    vgg_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")  # without ``features``: ours
    relative_features: bool = False  # differences are divided by what the style's features measure: ours
    # The learning rate is meant for StyleGAN2, whose weights all have a deviation near 1. With True each
    # tensor's own rate is that times its root mean square, so that it means the same for any generator: ours.
    relative_rates: bool = False
    # Of descent from the encoder's codes, of the style picture and of the faces to be painted: ours.
    search: int = Field(default=0, ge=0)
    # How far the codes behind the structure go from the face to the style picture: ours; 0 as released.
    style_codes: Fraction = 0.0


SMALL = Settings(
    relative_features=True,
    # 16 of the prior's 71 tensors have a size of 0.01 or less: at 2e-3 for all, it is soon destroyed.
    relative_rates=True, learning_rate=5e-3, decay=0.1,
    truncation=0.7,  # at 1 the pairs' colors differ so much that 60 steps end in pale pictures
    # The encoder's face is another person's. Of the style picture, the generator would learn the difference
    # as if it were style, and give all faces one look; of a photograph, the person would be lost.
    search=40,
    # 60 steps do not teach the prior to overrule the fine codes of every face: faces stay gray and blurred.
    style_codes=1.0,
)  # fmt: skip
"""Ours, for the face prior of 256 pixels on a processor. Four times that learning rate destroys the prior,
and at 2e-3 it learns more slowly. At 8e-3 faces take the style picture's features, at 5e-3 they stay
themselves."""

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
    """

    def __init__(
        self, net: StyleGenerator, source: StyleGenerator, targets: Tensor, codes: Tensor,
        features: Callable[[Tensor], Sequence[Tensor]], settings: Settings,
    ) -> None:  # fmt: skip
        self.source, self.codes, self.features, self.settings = source, codes, features, settings
        self.decay, self.center = settings.decay, mean_w(source)
        with torch.no_grad():
            self.targets = [layer.float() for layer in features(targets)]
        net.requires_grad_(True).style.requires_grad_(False)
        learning: list[dict[str, Any]] = []
        for p in filter(lambda p: p.requires_grad, net.parameters()):
            size = max(float(p.detach().square().mean().sqrt()), _LEAST) if settings.relative_rates else 1.0
            learning.append({"params": [p], "lr": settings.learning_rate * size})
        self.modules = {"net": net}
        self.optimizers = {"main": torch.optim.Adam(learning, betas=(0.0, 0.99))}
        # No digests: codes that were searched for differ in their last bits from run to run.
        few = [source(codes[:1], space="w"), *codes, *self.targets]
        self.sources = {"numbers": [[round(float(v), 4) for v in some.flatten()[:3]] for some in few]}

    def batch(self, positions: Sequence[int]) -> Tensor:
        """Which styles: in turn, so that each is shown as often as the others."""
        return torch.tensor([position % len(self.codes) for position in positions])

    def mixed(self, which: Tensor, generator: torch.Generator) -> Tensor:
        """Codes of these styles, those behind the structure replaced by random ones: (N, layers, 512).

        Args:
            which: numbers of styles, (N,).
            generator: of the random codes, on the CPU.
        """
        z = torch.randn(len(which), STYLE, generator=generator).to(self.codes)
        with torch.no_grad():
            w = self.source.w_plus(z, "z", self.settings.truncation, self.center)
        return torch.cat([self.codes[which, :STRUCTURE], w[:, STRUCTURE:]], 1)

    def step(self, step: Step) -> dict[str, Tensor]:
        """The pictures of mixed codes, their loss, one step of the generator."""
        which = step.batch.to(self.codes.device)
        codes = self.mixed(which, step.generator)
        # Drawn on the CPU, so that it is the same on every device.
        noise = [
            m if m is None else torch.randn(len(codes), *m.shape[1:], generator=step.generator).to(m)
            for m in self.source.noise_maps()
        ]
        made = step.modules["net"](codes, space="w", noise=noise).float()
        loss = self.difference(made, which)
        step.descend(loss)
        return {"total": loss}

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
        settings: None: :data:`SMALL`, with ``features`` those of the released code.
        generator: of faces; stays as it is. None: the face prior of 256 pixels.
        encode: reads the codes w+ off portraits (see :data:`.Encoder`). None: the course's own encoder, which
            is for the face prior only.
        features: pictures (N, 3, size, size) in [-1, 1] -> feature maps that are compared, as released those
            of the discriminator, :class:`nstlib.nets.stylegan2.DiscriminatorFeatures`. None: VGG-16's.
        options: ``device`` and ``seed`` of :class:`.Method`.

    Attributes:
        net: the generator that has learned; None before :meth:`fit`.

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
        encode: Encoder | None = None, features: Callable[[Tensor], Sequence[Tensor]] | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        # In float32: it takes minutes, and the generator's features span more than bfloat16 tells apart.
        settings = settings or (Settings() if features else SMALL)
        super().__init__(settings, **{**options, "precision": "float32"})
        source = generator or Faces(self.device).prior()
        # A copy: the caller's generator may learn, and must not move to another device.
        self.source = copy.deepcopy(source).to(self.device).requires_grad_(False).eval()
        self.size, self._encoder, self._features = self.source.size, encode, features
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
        self._encoder = self._encoder or course_encoder(self.source)
        return find_codes(portraits, self.source, self._encoder, self.settings.search)

    def task(self, faces: Any, styles: Any, schedule: Schedule) -> PairsTask:
        """The training on the style's portraits (S, 3, H, H), or a list of such, from the generator given."""
        s = self.settings
        side = (self.size, self.size)
        given = style_list(styles)
        pictures = torch.cat([resize(check_portraits(one), side) for one in given]).to(self.device)
        extractor = FeatureExtractor("vgg16", s.vgg_layers, precision="float32", device=self.device)

        def by_vgg(pictures: Tensor) -> list[Tensor]:
            return list(extractor((pictures + 1) / 2).values())

        codes, self.net = self.encode(pictures), copy.deepcopy(self.source)
        self.style = codes.mean(0, keepdim=True)
        return PairsTask(self.net, self.source, 2 * pictures - 1, codes, self._features or by_vgg, s)

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
            keep_colors: give the result the content's colors and the style's brightness alone.
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
        codes = self.encode(content).clone()
        if self.style is not None:
            fine, share = codes[:, STRUCTURE:], strength * self.settings.style_codes
            codes[:, STRUCTURE:] = fine.lerp(self.style[:, STRUCTURE:].to(codes), share)
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
        check_strength(strength)
        check_codes(codes, self.source.layers)
        w_plus, after = codes.detach().to(self.device, torch.float32), self.net.state_dict()
        weights = {
            key: torch.lerp(t, after[key], strength) if t.is_floating_point() else t
            for key, t in self.source.state_dict().items()
        }
        made = torch.func.functional_call(self.net, weights, (w_plus,), {"space": "w"})
        return ((made.float() + 1) / 2).clamp(0, 1).cpu()

    def state(self) -> dict[str, Tensor]:
        """What has learned, all but the mapping network; and the style's codes."""
        if self.net is None or self.style is None:
            return {}
        learned = {k: t for k, t in self.net.state_dict().items() if not k.startswith("style.")}
        return learned | {"style_codes": self.style}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            SettingError: these are no such weights, or those of another generator.
        """
        net = copy.deepcopy(self.source)
        state = net.state_dict()
        codes = torch.empty(1, net.layers, STYLE)
        own = {k: t for k, t in state.items() if not k.startswith("style.")} | {"style_codes": codes}
        check_layout(f"a style of this generator of {net.size} pixels", own, tensors)
        learned = dict(tensors)
        self.style = learned.pop("style_codes")
        net.load_state_dict(state | learned)
        self.net = net

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
