"""CycleGAN: two sets of pictures, no pairs (Zhu et al. 2017).

A generator G makes a portrait of a face, and a discriminator tells its portraits from real ones. That alone
would let G paint any portrait. So a second generator F has to find the face again, ``F(G(x)) = x``, and what
belongs to the person stays in the picture.

Paper E compares itself with it. "Released code" is the authors' PyTorch program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..errors import Count, NotNegative, Positive, SettingError, settings
from ..errors import Settings as Base
from ..faces.align import SIZE
from ..faces.style_sets import load_style_set
from ..losses import least_squares_loss
from ..nets.cyclegan import STRIDE, PatchDiscriminator, ResnetGenerator, generator_from_official
from ..nets.hardware import seeded
from ..pictures.files import check_picture
from ..training import Pictures, ReplayPool, Schedule, Step, Task, means
from .base import Method, pad_to_multiple, style_list

LEAST = 16  # pixels a side: reflection needs more than one at a quarter of the size

ZOOM = (256 / 286, 256 / 286)
"""Side of the crops, as a part of the picture: released code enlarges to 286 pixels and cuts out 256."""

Pixels = Annotated[int, Field(ge=32)]

# Sizes of networks and pictures by preset, for this method and for portrait drawing. `shipped` is for two
# processor cores: its generator has 4 MB in float16.
SIZES: dict[str, dict[str, Any]] = {
    "quick": {"steps": 400, "batch": 1, "size": 64, "faces": 100, "width": 16, "blocks": 6},
    "smoke": {"steps": 3, "batch": 1, "size": 32, "faces": 4, "width": 8, "blocks": 2},
    "shipped": {"steps": 1500, "batch": 1, "size": 128, "faces": 400, "width": 32, "blocks": 6},
    # 200 epochs, as in the paper's section 7.1.
    "paper": {"steps": 200_000, "batch": 1, "size": 256, "faces": 1000, "width": 64, "blocks": 9},
}


@settings
class Settings(Base):
    """What is learned, and by which networks. Values are those of the paper's section 4 and appendix 7."""

    cycle_weight: NotNegative = 10.0  # lambda of equation (3)
    identity_weight: NotNegative = 5.0  # of G(y) = y and F(x) = x: half of lambda, section 5.2
    size: Pixels = Field(default=256, description="Side of the crops in pixels.")
    learning_rate: Positive = Field(default=2e-4, description="Of Adam; falls to 0 in the second half.")
    width: Count = Field(default=64, description="Channels of the networks' first layers.")
    blocks: Count = 9  # residual blocks of a generator: 9 for 256 pixels, 6 for 128
    pool: Count = 50  # generated pictures that are kept for the discriminators

    @property
    def style_size(self) -> int:
        """Side of the portraits to learn from, which are cropped afterwards."""
        return max(SIZE, self.size)


class AdversarialTask(Task):
    """Generators against discriminators: what CycleGAN and portrait drawing have in common.

    Args:
        generators: by name; one optimizer has all their weights.
        discriminators: likewise.
        settings: learning rate and size of the pools.
        pools: names of the pools.
    """

    def __init__(
        self, generators: dict[str, nn.Module], discriminators: dict[str, nn.Module], settings: Settings,
        pools: Sequence[str],
    ) -> None:  # fmt: skip
        self.settings, self.discriminators = settings, tuple(discriminators)
        self.modules: dict[str, nn.Module] = {**generators, **discriminators}
        self.pools = {name: ReplayPool(settings.pool) for name in pools}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, networks in (("main", generators), ("discriminator", discriminators)):
            weights = list(chain(*(net.requires_grad_(True).parameters() for net in networks.values())))
            self.optimizers[name] = torch.optim.Adam(weights, settings.learning_rate, betas=(0.5, 0.999))

    def rate(self, progress: float) -> float:
        """1 in the first half, then falling to 0 along a line: appendix 7.1."""
        return min(1.0, 2 * (1 - progress))

    def train_discriminators(self, step: Step, on: bool) -> None:
        """Whether the discriminators get gradients: not while the generators learn, which saves time."""
        for name in self.discriminators:
            step.modules[name].requires_grad_(on)

    def state_dict(self) -> dict[str, Any]:
        """The pools."""
        return {name: pool.state_dict() for name, pool in self.pools.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        for name, pool in self.pools.items():
            pool.load_state_dict(state[name])


def discriminator_loss(discriminator: Callable[[Tensor], Tensor], generated: Tensor, real: Tensor) -> Tensor:
    """What a discriminator minimizes: half the sum of both squares, as released code has it."""
    fake, true = discriminator(generated), discriminator(real)
    return (least_squares_loss(fake, 0) + least_squares_loss(true, 1)) / 2


class CycleTask(AdversarialTask):
    """One step: a face, a portrait, both their cycles.

    Args:
        generator: G, faces to portraits.
        backward: F, portraits to faces.
        discriminators: "portrait_discriminator" and "face_discriminator".
        faces: pictures to learn on.
        portraits: pictures of the style.
        settings: see :class:`Settings`.
    """

    def __init__(
        self, generator: nn.Module, backward: nn.Module, discriminators: dict[str, nn.Module],
        faces: Pictures, portraits: Pictures, settings: Settings,
    ) -> None:  # fmt: skip
        generators = {"generator": generator, "backward": backward}
        super().__init__(generators, discriminators, settings, ("portraits", "faces"))
        self.faces, self.portraits = faces, portraits
        self.sources = {"pictures": len(faces), "style": [len(portraits), means(portraits([0]))]}

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Faces and portraits, (N, 3, S, S) each, in [-1, 1]."""
        return 2 * self.faces(positions) - 1, 2 * self.portraits(positions) - 1

    def step(self, step: Step) -> dict[str, Tensor]:
        """One step of both generators, and one of both discriminators."""
        (x, y), m = step.batch, step.modules
        self.train_discriminators(step, False)
        made, same_y = m["generator"](torch.cat([x, y])).chunk(2)
        found, same_x = m["backward"](torch.cat([y, x])).chunk(2)
        scores = {"portrait": m["portrait_discriminator"](made), "face": m["face_discriminator"](found)}
        losses = self.losses(
            scores, (m["backward"](made), x), (m["generator"](found), y), (same_y, y), (same_x, x)
        )
        total = torch.stack(list(losses.values())).sum()
        step.descend(total)
        self.train_discriminators(step, True)
        older = self.pools["portraits"].exchange(made, step.generator)
        old_faces = self.pools["faces"].exchange(found, step.generator)
        discriminators = discriminator_loss(m["portrait_discriminator"], older, y)
        discriminators = discriminators + discriminator_loss(m["face_discriminator"], old_faces, x)
        step.descend(discriminators, "discriminator")
        return {"total": total, **losses, "discriminator": discriminators}

    def losses(self, scores: Mapping[str, Tensor], *pairs: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """What the generators minimize: equation (3) and section 5.2, with least squares for logarithms.

        Args:
            scores: the discriminators' of G(x) and F(y).
            pairs: F(G(x)) and x, G(F(y)) and y, G(y) and y, F(x) and x.
        """
        s = self.settings
        distances = [F.l1_loss(found, wanted) for found, wanted in pairs]
        return {
            "adversarial": torch.stack([least_squares_loss(one, 1) for one in scores.values()]).sum(),
            "cycle": s.cycle_weight * (distances[0] + distances[1]),
            "identity": s.identity_weight * (distances[2] + distances[3]),
        }


class CycleGAN(Method):
    """A generator that makes portraits of one style; the arguments of :class:`.Method`.

    The authors' networks can be loaded as well: a .pth of theirs, as
    efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models has them (style_vangogh.pth and others), or one of
    ``published`` by its name.

    Attributes:
        generator: G, faces to portraits; None before :meth:`fit` or :meth:`load`.
        backward: F, portraits to faces; None but after :meth:`fit`.

    Example:
        >>> method = CycleGAN()                                                 # doctest: +SKIP
        >>> method.fit("my/photographs", load_style_set("ink").pictures)        # doctest: +SKIP
        >>> picture = method.stylize(load_image("me.jpg", size=256))            # doctest: +SKIP
    """

    summary = "a style learned from a set of portraits and a set of faces, without pairs"
    settings_class: ClassVar[type[Base]] = Settings
    takes = frozenset({"size", "color", "precision", "strength"})
    shipped: ClassVar[Sequence[str]] = ("ink",)
    published: ClassVar[Sequence[str]] = ("apple2orange",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = SIZES

    def __init__(self, settings: Any = None, **options: Any) -> None:
        super().__init__(settings, **options)
        self.generator: Any = None
        self.backward: Any = None

    def task(self, faces: Any, styles: Any, schedule: Schedule) -> AdversarialTask:
        """The training of the generator it has, or of a new one, on portraits (K, 3, H, W), or a list."""
        s = self.settings
        given = torch.cat([check_picture("style", one, LEAST) for one in style_list(styles)])
        if not isinstance(faces, Pictures):
            faces = Pictures(faces, s.size, zoom=ZOOM, seed=schedule.seed)

        with seeded(self.seed):
            generator, self.backward = (ResnetGenerator(s.width, s.blocks) for _ in range(2))
            discriminators = [PatchDiscriminator(s.width) for _ in range(2)]
        self.generator = self.generator or generator
        named = zip(("portrait_discriminator", "face_discriminator"), discriminators, strict=True)
        # Another order than the faces', or the same two would always meet.
        portraits = Pictures(given, s.size, zoom=ZOOM, seed=schedule.seed + 1)
        return CycleTask(self.generator, self.backward, dict(named), faces, portraits, s)

    def paint(self, content: Tensor, style: Any, how: str) -> Tensor:
        """See :meth:`.Method.paint`; it has learned faces that fill the picture, and paints others less."""
        return self.generated(content)

    def generated(self, content: Tensor, *codes: Tensor) -> Tensor:
        """The generator's pictures, in [0, 1], of sides rounded up to multiples of 4."""
        check_picture("content", content, LEAST)
        if self.generator is None:
            raise SettingError("No style has been learned yet: call fit, or load a style.")
        net = self.generator.to(self.device)
        images = 2 * pad_to_multiple(content, STRIDE).to(self.device) - 1
        with self.autocast():
            made = net(images, *(code.to(self.device) for code in codes))
        return (made.float() + 1) / 2

    def state(self) -> dict[str, Tensor]:
        """The generator's weights, in the published layout."""
        return {} if self.generator is None else self.generator.state_dict()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights in the published layout, ours or the authors'."""
        self.generator = generator_from_official(tensors)

    @classmethod
    def read_styles(cls, words: Sequence[str], size: int | None = None) -> list[Tensor]:
        """Style sets, or folders of portraits: (K, 3, size, size) each."""
        return [load_style_set(word, size or SIZE).pictures for word in words]
