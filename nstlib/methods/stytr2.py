"""StyTr2: any style, by a transformer (Deng et al. 2022).

A picture becomes a sentence: its patches of 8 pixels are the words. Two encoders read the content and the
style, each on its own; a decoder asks, for each patch of the content, which patches of the style go with it,
and takes from these. A patch is told where it lies by its surroundings (CAPE), so that the size of a picture
does not matter. Paper E compares itself with it.

Where the paper and the authors' released program differ, or leave something open:

=============  ==========================================  ===================================================
what           as printed                                  as released; ours where it is another
=============  ==========================================  ===================================================
weights        content 10, style 7, identity 50 and 1      7, 10, 70 and 1: ``form``
content loss   features as they are                        each channel normalized over the picture: ``form``
layers         a mean over them                            a sum: ``form``
distances      2-norms                                     mean squares; ours in both forms, or the loss would
                                                           grow with the picture, and no weight would fit
learning rate  5e-4 with a warm-up                         from 5e-5 to 2e-4 in 10,000 steps, to 8e-5 at the
                                                           end: 5e-4 itself is never reached. Ours: the same
                                                           curve over the steps there are
pictures       cropped to 256 pixels                       stretched to 512 × 512 before; ours never
sizes          any                                         a square, and one size for both, or the positions
                                                           do not fit; ours any
decoder        two attentions to the style in each layer   the same; the files call the first "self_attn"
=============  ==========================================  ===================================================

The course's own network is small (``width``, ``layers``), without dropout, and learns in two parts: first in
pixels, where each picture has to be found again, and the content in the style's mean colors; then with the
paper's losses. Without the first part no training of this size gave a picture: at a learning rate above 5e-4
not even the pictures were found again, and without the colors nothing was looked up in the style. They stay
in the second part, too, where 700 steps would otherwise end in one style for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from .. import assets
from ..assets.weights import read_weights
from ..errors import Count, Decay, Fraction, NotNegative, Positive, SettingError, settings
from ..errors import Settings as Base
from ..faces.style_sets import load_style_set
from ..losses import content_loss
from ..nets.features import FeatureExtractor
from ..nets.hardware import seeded
from ..nets.transformer_style import PATCH, StyleTransformer, Transformer
from ..nets.u2_local import normalized
from ..pictures import color
from ..pictures.files import PICTURE_ENDINGS, check_picture
from ..training import Pictures, Schedule, Step, Task, cosine_decay, means
from .adain import adain, channel_statistics
from .base import Method, pad_to_multiple, style_list

LEAST = 2 * PATCH  # pixels a side: the decoder mirrors its border
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # of VGG-19, mirrored at the border
CONTENT_LAYERS = LAYERS[3:]

# By form: of the losses of content and style, of identity in pixels and in features.
WEIGHTS = {
    "released": {"content": 7.0, "style": 10.0, "identity": 70.0, "identity_features": 1.0},
    "printed": {"content": 10.0, "style": 7.0, "identity": 50.0, "identity_features": 1.0},
}

# Of a step's losses: pixels alone (identity, and the content in the style's colors); content, style and
# identity in pixels; identity in features, too.
Stage = Literal["pixels", "style", "all"]

Pixels = Annotated[int, Field(ge=4 * PATCH, multiple_of=PATCH)]

# Of every preset but "paper".
OURS: dict[str, Any] = {
    "batch": 1, "average": 0.99, "learning_rate": 4e-4, "decay": 0.2, "dropout": 0.0, "deep_every": 4,
    "width": 256, "layers": 1, "size": 128, "style_weight": 3.0, "colors": 20.0,
}  # fmt: skip
SMOKE: dict[str, Any] = {"steps": 3, "size": 32, "faces": 4, "width": 16, "pixels_first": 0.5}
PIXELS: dict[str, Any] = {
    "batch": 4, "size": 64, "faces": 200, "pixels_first": 1.0, "learning_rate": 1.25e-3, "colors": 1.0,
}  # fmt: skip


@settings
class Settings(Base):
    """What is learned, and by which network. Values are those of the released program, or "ours"."""

    form: Literal["released", "printed"] = Field(
        default="released", description="Of the losses and their weights."
    )
    style_weight: NotNegative | None = Field(default=None, description="How much style; else the form's.")
    size: Pixels = Field(default=256, description="Side of the crops in pixels.")
    width: Annotated[int, Field(ge=8, multiple_of=8)] = Field(
        default=512, description="Numbers that stand for a patch."
    )
    layers: Count = Field(default=3, description="Of each encoder and of the decoder.")
    dropout: Decay = 0.1
    deep_every: Count = 1  # identity in VGG's features every so many steps, weighted by as much: ours
    pixels_first: Fraction = Field(
        default=0.0, description="Part of the steps that learn identity and colors in pixels, which is quick."
    )  # ours
    colors: NotNegative = 0.0  # the content in the style's mean colors, in pixels; a part of "identity": ours
    learning_rate: Positive = Field(default=5e-4, description="Of Adam; 0.4 of it are reached.")
    decay: Positive = 1.0  # the last step's learning rate as a part of the released curve's: ours

    @property
    def weights(self) -> dict[str, float]:
        """Of the losses, by their names."""
        own = {} if self.style_weight is None else {"style": self.style_weight}
        return WEIGHTS[self.form] | own


class Styles:
    """Crops of several sources' pictures, source after source: few paintings count as much as many.

    Args:
        sources: what :class:`nstlib.training.Pictures` takes.
        size: pixels a side.
        seed: of order and crops.
    """

    def __init__(self, sources: Sequence[Any], size: int, seed: int) -> None:
        self.sources = [Pictures(one, size, seed=seed) for one in sources]

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """(len(positions), 3, size, size)."""
        count = len(self.sources)
        return torch.cat([self.sources[p % count]([p // count]) for p in positions])


class StyleTask(Task):
    """One step: a face in a style, the face in its own style, and the style's picture in its own.

    Args:
        modules: "net", what paints.
        faces: pictures to learn on.
        styles: likewise.
        settings: see :class:`Settings`.
        steps: of the whole training.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: of VGG's features.
    """

    def __init__(
        self, modules: dict[str, nn.Module], faces: Pictures, styles: Styles, settings: Any, steps: int,
        *, device: torch.device, precision: torch.dtype,
    ) -> None:  # fmt: skip
        self.modules, self.faces, self.styles, self.settings = modules, faces, styles, settings
        self.steps = steps
        options: dict[str, Any] = {"padding": "reflect", "device": device, "precision": precision}
        self.features = FeatureExtractor("vgg19", LAYERS, **options)
        parameters = [p for net in modules.values() for p in net.train().requires_grad_(True).parameters()]
        self.optimizers = {"main": torch.optim.Adam(parameters, settings.learning_rate)}
        counts = {"faces": len(faces), "styles": [len(one) for one in styles.sources]}
        self.sources = {**counts, "style": means(styles([0]))}

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Faces and styles, (N, 3, S, S) each."""
        return self.faces(positions), self.styles(positions)

    def rate(self, progress: float) -> float:
        """The released curve, a part of its 160,000 steps for the same part of ours; then :attr:`decay`."""
        at = 160_000 * progress
        curve = 0.1 * (1 + 3e-4 * at) if at < 10_000 else 0.4 / (1 + 1e-5 * (at - 10_000))
        return curve * cosine_decay(progress, self.settings.decay)

    def step(self, step: Step) -> dict[str, Tensor]:
        """The losses, each by its weight, and one step of Adam."""
        s, (contents, styles) = self.settings, step.batch
        stage: Stage = "all" if step.number % s.deep_every == 0 else "style"
        if step.number < s.pixels_first * self.steps:
            stage = "pixels"
        pictures, more = self.paint(step, contents, styles, stage)
        parts = self.losses(pictures.float(), contents, styles, stage) | more
        total = torch.stack(list(parts.values())).sum()
        step.descend(total)
        return {"total": total, **parts}

    def paint(
        self, step: Step, contents: Tensor, styles: Tensor, stage: Stage
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Contents in styles, then contents in contents, styles in styles; and more losses.

        Returns:
            (3 N, 3, S, S), and the losses that a method has besides :meth:`losses`.
        """
        return step.modules["net"](
            torch.cat([contents, contents, styles]), torch.cat([styles, contents, styles])
        ), {}

    def losses(
        self, pictures: Tensor, contents: Tensor, styles: Tensor, stage: Stage = "all"
    ) -> dict[str, Tensor]:
        """The weighted losses, equations (7) to (10) of the paper, or what the program makes of them.

        Args:
            pictures: see :meth:`paint`.
            contents: (N, 3, S, S).
            styles: likewise.
            stage: what is computed; the rest is 0.
        """
        count, printed, weights = len(contents), self.settings.form == "printed", self.settings.weights
        originals = torch.cat([contents, styles])
        parts = dict.fromkeys(weights, pictures.new_zeros(()))
        # A mean over contents and styles is half the sum of both.
        parts["identity"] = 2 * content_loss(pictures[count:], originals)
        if self.settings.colors:
            recolored = adain(contents, channel_statistics(styles))
            parts["identity"] += self.settings.colors * content_loss(pictures[:count], recolored)
        if stage != "pixels":
            with torch.no_grad():
                wanted = self.features(originals)
            found = self.features(pictures if stage == "all" else pictures[:count])
            over = torch.mean if printed else torch.sum
            content = [content_distance(found[n][:count], wanted[n][:count], printed) for n in CONTENT_LAYERS]
            style = [style_distance(found[n][:count], wanted[n][count:]) for n in LAYERS]
            parts |= {"content": over(torch.stack(content)), "style": over(torch.stack(style))}
            if stage == "all":
                own = [2 * content_loss(found[n][count:], wanted[n]) for n in LAYERS]
                parts["identity_features"] = self.settings.deep_every * over(torch.stack(own))
        return {name: weights[name] * loss for name, loss in parts.items()}


def content_distance(features: Tensor, targets: Tensor, plain: bool = False) -> Tensor:
    """Mean squared difference of features (N, C, H, W), each channel normalized unless ``plain``."""
    if plain:
        return content_loss(features, targets)
    return content_loss(normalized(features.float()), normalized(targets.float()))


def style_distance(features: Tensor, targets: Tensor) -> Tensor:
    """Mean squared difference of the channels' means, and of their deviations: AdaIN's style loss."""
    pairs = zip(channel_statistics(features), channel_statistics(targets), strict=True)
    return torch.stack([(a - b).square().mean() for a, b in pairs]).sum()


class StyTr2(Method):
    """A transformer that paints any style; the arguments of :class:`.Method`.

    ``published`` are the authors' weights, by their name; no licence is stated for them. Their VGG-19 is the
    course's own, the same file by its sha256.

    Attributes:
        net: the network.

    Example:
        >>> method = StyTr2.load("course")                                       # doctest: +SKIP
        >>> picture = method.stylize(load_image("me.jpg", size=512), painting)   # doctest: +SKIP
    """

    summary = "any style, by a transformer trained on faces and sets of styles"
    shipped: ClassVar[Sequence[str]] = ("course",)
    settings_class: ClassVar[type[Base]] = Settings
    takes = frozenset({"size", "style_size", "color", "precision", "strength"})
    any_style = True
    published: ClassVar[Sequence[str]] = ("wikiart",)
    task_class: ClassVar[type[StyleTask]] = StyleTask
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": OURS | {"steps": 300, "faces": 100},  # from the course's weights: --start course
        "smoke": OURS | SMOKE,
        "pixels": OURS | PIXELS | {"steps": 2300},  # the first part of "shipped": --start its weights
        "shipped": OURS | {"steps": 450, "faces": 400},
        # On MS COCO and WikiArt: --pictures.
        "paper": {"steps": 160_000, "batch": 8, "size": 256, "faces": 10_000},
    }

    def __init__(self, settings: Any = None, **options: Any) -> None:
        super().__init__(settings, **options)
        with seeded(self.seed):
            self.build()

    def build(self) -> None:
        """Make the untrained networks."""
        s = self.settings
        self.net = StyleTransformer(Transformer(s.width, s.layers, dropout=s.dropout), s.width).eval()

    def modules(self) -> dict[str, nn.Module]:
        """What paints."""
        return {"net": self.net}

    def task(self, faces: Any, styles: Any, schedule: Schedule) -> Task:
        """The training of the network it has.

        Args:
            faces: what :class:`nstlib.training.Pictures` takes.
            styles: one such thing, or a list of them, which take turns.
            schedule: how long.
        """
        s, seed = self.settings, schedule.seed
        if not isinstance(faces, Pictures):
            faces = Pictures(faces, s.size, seed=seed)
        return self.task_class(
            self.modules(), faces, Styles(style_list(styles), s.size, seed + 1), s, schedule.steps,
            device=self.device, precision=self.precision,
        )  # fmt: skip

    def paint(self, content: Tensor, style: Any, how: str) -> Tensor:
        """See :meth:`.Method.paint`; one style, of any size, and any content of at least 16 pixels."""
        if not self.about:
            raise SettingError("Nothing has been learned yet: call fit, or load weights.")
        if style is None:
            raise SettingError("There is no style: give a picture.")
        check_picture("content", content, LEAST)
        check_picture("style", style, LEAST, count=1)
        style = color.prepare_style(how, style, content[:1]).expand(len(content), -1, -1, -1)
        pair = (pad_to_multiple(images, PATCH).to(self.device) for images in (content, style))
        with self.autocast():
            return self.painted(*pair)

    def painted(self, contents: Tensor, styles: Tensor) -> Tensor:
        """The network's pictures."""
        return self.net.to(self.device)(contents, styles)

    # ---------------------------------------------------------------- weights, and what the command asks

    @classmethod
    def load(cls, path: Any, **options: Any) -> Self:
        """See :meth:`.Method.load`; the published weights are three files."""
        if str(path) not in cls.published:
            return super().load(path, **options)
        method = cls(**options)
        parts = {part: assets.fetch(f"stytr2_{path}_{part}") for part, _ in method.net.named_children()}
        method.load_state(
            {f"net.{part}.{k}": t for part, file in parts.items() for k, t in read_weights(file)[0].items()}
        )
        method.about = {"settings": asdict(method.settings), "style": str(path)}
        return method

    @classmethod
    def read_styles(cls, words: Sequence[str], size: int | None = None) -> list[Any]:
        """Style sets by their names, folders, and pictures, which may be mixed."""
        return [
            Path(word) if Path(word).is_dir()
            else [Path(word)] if Path(word).suffix.lower() in PICTURE_ENDINGS
            else load_style_set(word).pictures
            for word in words
        ]  # fmt: skip
