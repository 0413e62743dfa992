"""Portrait drawings from unpaired data, by an asymmetric cycle (Yi, Liu, Lai and Rosin 2020).

A drawing has less in it than a photograph. A plain cycle makes the generator hide the photograph's colors in
faint gray lines, for the way back needs them. Here the way from the photograph and back is compared by its
edges alone (the relaxed cycle), while the way from the drawing and back has to give every pixel (the strict
one). Discriminators of their own look at the nose, the eyes and the lips, and a style code says in which of
the sets' styles to draw.

Paper E compares itself with it. "Released code" is the authors' program, for 512 pixels and three styles.
Where ours differs: edges are Sobel's, not those of HED, a network whose weights the course cannot have;
masks come from the face parser, not from landmarks; what style a drawing has is known from its set, and not
from a classifier; the discriminator's classifier learns from real drawings only; and older drawings keep the
masks they were made with, where released code gives them those of another face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import NotNegative, SettingError, settings
from ..faces.parse import FaceParser, portrait_masks
from ..losses import least_squares_loss
from ..metrics import Lpips
from ..nets.cyclegan import DrawingGenerator, PatchDiscriminator, ResnetGenerator, drawing_from_official
from ..nets.hardware import seeded
from ..pictures.color import luminance
from ..pictures.files import check_picture, resize
from ..training import Pictures, Schedule, Step, means, shuffled
from . import cyclegan
from .base import numbered, style_list
from .cyclegan import LEAST, AdversarialTask, CycleGAN, discriminator_loss

REGIONS = ("nose", "eye", "lip")
"""Those that have a discriminator of their own."""

_MARGIN = 16  # masks are widened on each side by this part of the picture's: lines lie at a region's border
_EDGE_GAIN = 4.0  # of the edges, so that a face's outlines are near 1: ours


@settings
class Settings(cyclegan.Settings):
    """What is learned. Weights are those of released code, and of the paper's section 4."""

    cycle_weight: NotNegative = 5.0  # of either cycle; the relaxed one's falls to a tenth as it goes on
    truncation_weight: NotNegative = 5.0  # of the relaxed cycle through 64 grays: from 0 to 0.9 of it
    style_weight: NotNegative = 1.0  # of the classifier, where there are several styles
    local_weight: NotNegative = 0.5  # of each local discriminator
    identity_weight: NotNegative = 0.0  # a drawing has one channel, a photograph three: there is none


def edges(pictures: Tensor) -> Tensor:
    """How sharply the brightness changes at each pixel: ``tanh(4 |Sobel|)``, three times the same channel.

    Args:
        pictures: (N, 3, H, W), RGB in [0, 1].

    Returns:
        (N, 3, H, W), in [0, 1), differentiable.
    """
    kernel = pictures.new_tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 8
    gray = F.pad(_gray(pictures), (1, 1, 1, 1), mode="replicate")
    down, across = F.conv2d(gray, torch.stack([kernel, kernel.T])[:, None]).split(1, 1)
    size = (down.square() + across.square() + 1e-8).sqrt()  # flat places have a gradient as well
    return (_EDGE_GAIN * size).tanh().expand(-1, 3, -1, -1)


def _gray(pictures: Tensor) -> Tensor:
    return torch.cat([luminance(one) for one in pictures.split(1)])


def truncated(drawings: Tensor) -> Tensor:
    """Drawings (N, 1, H, W) in [-1, 1] with 64 grays left: too few to hide a photograph in."""
    return ((drawings.detach() + 1) * 31.875).floor() / 31.875 - 1


def outside_white(drawings: Tensor, masks: Tensor) -> Tensor:
    """What a local discriminator looks at: the region on white, and its mask; (N, 2, H, W)."""
    return torch.cat([(drawings + 1) * masks - 2 * masks + 1, masks], 1)


class DrawingTask(AdversarialTask):
    """One step: a photograph, a drawing, both their cycles.

    Args:
        generators: "generator", photographs to drawings, and "backward".
        discriminators: "drawing_discriminator", "face_discriminator", and one of each of `REGIONS`.
        faces: whole photographs of faces, framed like FFHQ.
        drawings: (K, 1, S, S), in [0, 1], framed likewise.
        styles: the number of the style of each drawing.
        settings: see :class:`Settings`.
        schedule: of the training.
        masks: portraits (1, 3, S, S) in [0, 1] -> masks (1, 3, S, S) of `REGIONS`.
        device: of the training.
    """

    settings: Settings

    def __init__(
        self, generators: dict[str, nn.Module], discriminators: dict[str, nn.Module], faces: Pictures,
        drawings: Tensor, styles: Tensor, settings: Settings, schedule: Schedule,
        masks: Callable[[Tensor], Tensor], device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__(generators, discriminators, settings, ("drawings", "faces"))
        self.schedule = schedule
        self.faces, self.drawings, self.styles, self.masks = faces, drawings, styles, masks
        self.count = int(styles.max()) + 1
        self.perceptual = Lpips("alexnet", device=device)  # released code's backbone
        self._masks: dict[tuple[bool, int], Tensor] = {}
        self.sources = {"pictures": len(faces), "style": [means(drawings), styles.tolist()]}

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, ...]:
        """Photographs and drawings in [-1, 1], the masks of either, the drawings' styles."""
        seed, rows = self.schedule.seed, []
        which = shuffled(len(self.faces), seed, positions), shuffled(len(self.drawings), seed + 1, positions)
        for position, face, drawing in zip(positions, *which, strict=True):
            picture, drawn = self.faces([position]), self.drawings[drawing, None]
            keyed = {(True, face): picture, (False, drawing): drawn}
            pair = [torch.cat([2 * one - 1, self._mask(key, one)], 1) for key, one in keyed.items()]
            random = np.random.default_rng([seed, position, 4])
            rows.append([one.flip(3) if random.random() < 0.5 else one for one in pair])
        photographs, drawings = (torch.cat(column) for column in zip(*rows, strict=True))
        styles = self.styles[which[1]]
        return photographs[:, :3], drawings[:, :1], photographs[:, 3:], drawings[:, 1:], styles

    def _mask(self, key: tuple[bool, int], picture: Tensor) -> Tensor:
        """The widened masks (1, 3, S, S) of a picture, which are kept: parsing takes half a second."""
        if key not in self._masks:
            margin = picture.shape[-1] // _MARGIN
            found = self.masks(picture.expand(-1, 3, -1, -1))
            self._masks[key] = F.max_pool2d(found, 2 * margin + 1, 1, margin).bool()
        return self._masks[key].float()

    def step(self, step: Step) -> dict[str, Tensor]:
        """One step of both generators, and one of all discriminators."""
        (photographs, drawings, masks, drawing_masks, styles), m = step.batch, step.modules
        codes = F.one_hot(styles, self.count).to(photographs)
        self.train_discriminators(step, False)
        drawn = m["generator"](photographs, codes)
        given = torch.cat([drawings, drawn, truncated(drawn)])
        faces, restored, from_truncated = m["backward"](given).chunk(3)
        losses = self.adversarial(m, drawn, faces, masks, styles)
        losses |= self.cycles(
            photographs, (restored, from_truncated), drawings, m["generator"](faces, codes),
            step.number / self.schedule.steps,
        )  # fmt: skip
        total = torch.stack(list(losses.values())).sum()
        step.descend(total)
        self.train_discriminators(step, True)
        older = self.pools["drawings"].exchange(torch.cat([drawn, masks], 1), step.generator)
        old_faces = self.pools["faces"].exchange(faces, step.generator)
        loss = self.drawing_loss(m, (older[:, :1], drawings), (older[:, 1:], drawing_masks), styles)
        loss = loss + discriminator_loss(m["face_discriminator"], old_faces, photographs)
        step.descend(loss, "discriminator")
        return {"total": total, **losses, "discriminator": loss}

    def adversarial(
        self, m: Mapping[str, nn.Module], drawn: Tensor, faces: Tensor, masks: Tensor, styles: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses of generated drawings and faces: "adversarial", "local", "style".

        Args:
            m: the discriminators.
            drawn: generated drawings, (N, 1, S, S).
            faces: generated photographs, (N, 3, S, S).
            masks: of the drawings, (N, 3, S, S), in the order of `REGIONS`.
            styles: which styles were asked for, (N,).
        """
        s = self.settings
        scores, logits = _scored(m["drawing_discriminator"], drawn)
        views = zip(REGIONS, masks.split(1, 1), strict=True)
        local = [m[f"{name}_discriminator"](outside_white(drawn, mask)) for name, mask in views]
        face_scores = m["face_discriminator"](faces)
        losses = {
            "adversarial": least_squares_loss(scores, 1) + least_squares_loss(face_scores, 1),
            "local": s.local_weight * torch.stack([least_squares_loss(one, 1) for one in local]).sum(),
        }
        if logits is not None:
            losses["style"] = s.style_weight * F.cross_entropy(logits, styles)
        return losses

    def cycles(
        self, photographs: Tensor, restored: tuple[Tensor, Tensor], drawings: Tensor, redrawn: Tensor,
        progress: float,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The weighted losses of both cycles: "relaxed", "truncation", "strict".

        Args:
            photographs: (N, 3, S, S), in [-1, 1].
            restored: F(G(p)), and F of the truncated G(p), likewise.
            drawings: (N, 1, S, S), in [-1, 1].
            redrawn: G(F(d)), likewise.
            progress: of the training, from 0 to 1.
        """
        s = self.settings
        ways = edges((torch.cat(restored).float() + 1) / 2)
        distances = self.perceptual(ways, edges((photographs + 1) / 2).repeat(2, 1, 1, 1)).chunk(2)
        return {
            "relaxed": s.cycle_weight * (1 - 0.9 * progress) * distances[0].mean(),
            "truncation": s.truncation_weight * 0.9 * progress * distances[1].mean(),
            "strict": s.cycle_weight * F.l1_loss(redrawn.float(), drawings),
        }

    def drawing_loss(
        self, m: Mapping[str, nn.Module], pair: tuple[Tensor, Tensor], masks: tuple[Tensor, Tensor],
        styles: Tensor,
    ) -> Tensor:  # fmt: skip
        """What the discriminators of drawings minimize together.

        Args:
            m: the discriminators.
            pair: generated and real drawings, (N, 1, S, S) each.
            masks: of both, (N, 3, S, S) each.
            styles: of the real ones, (N,).
        """
        fake, _ = _scored(m["drawing_discriminator"], pair[0])
        true, logits = _scored(m["drawing_discriminator"], pair[1])
        parts = [(least_squares_loss(fake, 0) + least_squares_loss(true, 1)) / 2]
        if logits is not None:
            parts.append(F.cross_entropy(logits, styles))
        for number, name in enumerate(REGIONS):
            views = [outside_white(pair[i], masks[i][:, number, None]) for i in range(2)]
            parts.append(discriminator_loss(m[f"{name}_discriminator"], *views))
        return torch.stack(parts).sum()


def _scored(discriminator: nn.Module, drawings: Tensor) -> tuple[Tensor, Tensor | None]:
    found = discriminator(drawings)
    return found if isinstance(found, tuple) else (found, None)


class PortraitDrawing(CycleGAN):
    """A generator that draws faces in the styles of some sets; the arguments of :class:`.Method`.

    The authors' networks (their latest_net_G_A.pth) can be loaded as well.

    Example:
        >>> method = PortraitDrawing()                                          # doctest: +SKIP
        >>> method.fit("my/photographs", load_style_set("sketch").pictures)     # doctest: +SKIP
        >>> picture = method.stylize(load_image("me.jpg", size=256))            # doctest: +SKIP
    """

    summary = "drawings, in one or several styles that it has learned without pairs"
    settings_class = Settings
    shipped: ClassVar[Sequence[str]] = ("sketch_ink",)
    published: ClassVar[Sequence[str]] = ()

    def task(self, faces: Any, styles: Any, schedule: Schedule) -> DrawingTask:
        """The training on drawings (K, 3, H, W) framed like FFHQ, or on a list of such, one for each style.

        Faces are a folder or pictures, framed likewise: crops of them would have the eyes elsewhere.
        """
        s, sets = self.settings, style_list(styles)
        if isinstance(faces, Pictures):
            raise SettingError("Portrait drawing learns on whole faces: give a folder or a tensor.")
        side = (s.size, s.size)
        gray = [_gray(resize(check_picture("style", one, LEAST), side)) for one in sets]
        numbers = [torch.full((len(one),), number) for number, one in enumerate(gray)]
        with seeded(self.seed):
            generators, discriminators = self._networks(len(sets))
        if self.generator is not None:
            if self.generator.styles != len(sets):
                raise SettingError(f"Give {self.generator.styles} sets, one for each style, not {len(sets)}.")
            generators["generator"] = self.generator
        self.generator, self.backward = generators["generator"], generators["backward"]
        parser = FaceParser(self.device)

        def masks(portrait: Tensor) -> Tensor:
            return torch.cat(list(portrait_masks(portrait, REGIONS, parser).values()), 1)

        return DrawingTask(
            generators, discriminators, Pictures(faces, s.size, zoom=(1, 1), flip=False, seed=schedule.seed),
            torch.cat(gray), torch.cat(numbers), s, schedule, masks, self.device,
        )  # fmt: skip

    def _networks(self, styles: int) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        s = self.settings
        classes = styles if styles > 1 else 0
        discriminators: dict[str, nn.Module] = {
            "drawing_discriminator": PatchDiscriminator(s.width, inputs=1, classes=classes),
            "face_discriminator": PatchDiscriminator(s.width),
        }
        discriminators |= {f"{name}_discriminator": PatchDiscriminator(s.width, inputs=2) for name in REGIONS}
        return {
            "generator": DrawingGenerator(s.width, s.blocks, styles),
            "backward": ResnetGenerator(s.width, s.blocks, inputs=1),
        }, discriminators

    def paint(self, content: Tensor, style: Any, how: str) -> Tensor:
        """See :meth:`.Method.paint`; gray, unless the content's colors are kept.

        Args:
            content: (N, 3, H, W), RGB in [0, 1]; best a face, framed like FFHQ.
            style: the number of a style, from 0 (None: 0), or how much of each, as a list of numbers.
            how: the way with colors.

        Raises:
            SettingError: nothing was learned, or there is no such style.
        """
        count = 1 if self.generator is None else self.generator.styles
        code = [style or 0] if not isinstance(style, Sequence) else list(style)
        if len(code) == 1 and int(code[0]) in range(count):
            code = [float(number == code[0]) for number in range(count)]
        if len(code) != count:
            raise SettingError(f"There are {count} styles: name one of 0 to {count - 1}, or shares of each.")
        codes = torch.tensor([code] * len(content), dtype=torch.float32)
        return self.generated(content, codes).expand(-1, 3, -1, -1)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights in the published layout, ours or the authors'."""
        self.generator = drawing_from_official(tensors)

    @classmethod
    def words(cls, style: str, artwork: str, number: int) -> list[str]:
        """See :meth:`.Method.words`; one network draws in several styles."""
        for name in cls.shipped:
            if style in name.split("_"):
                return [f"{name}:{name.split('_').index(style)}"]
        return super().words(style, artwork, number)

    @classmethod
    def open(
        cls, words: Sequence[str], chosen: Mapping[str, Any], *, size: int, progress: bool, **options: Any
    ) -> tuple[Self, Any]:
        """FILE[:NUMBER]: the weights, and which of their styles."""
        named = [numbered(word) for word in words]
        names = [name for name, _ in named]
        return super().open(names, chosen, size=size, progress=progress, **options)[0], int(named[0][1])
