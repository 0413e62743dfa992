"""How DualStyleGAN is trained: every value of the four stages with its origin.

"Released code" is Yang et al. 2022, "Pastiche Master", whose method paper A describes. Paper A prints its
numbers, some without context: the three pairs (1, 0.015), (4, 0.005), (1, 0.02) with 1400, 1000 and 2100
iterations stand there as if one followed the other. In the released code's instructions the first belongs to
the set of cartoons, so that each is a style set's own: :data:`STYLE_SETS`. Of stages one and four the paper
prints no numbers but their hours on a GPU.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import Count, Decay, Fraction, NotNegative, Positive, settings
from ...errors import Settings as Base
from ...nets.style_generator import STRUCTURE
from ...training import Schedule
from ..inversion import AS_RELEASED as INVERSION_AS_RELEASED
from ..inversion import SMALL as INVERSION_SMALL
from ..inversion import Pixels
from ..inversion import Settings as InversionSettings

LAYERS = ("relu1_1", "relu2_1", "relu3_1")
"""VGG-19's layers of stages two and three."""

Number = Annotated[int, Field(ge=0)]
Weights = tuple[NotNegative, NotNegative, NotNegative]


@settings
class DestylizationSettings(Base):
    """The first stage: from each portrait to its codes and those of the face behind it."""

    # The source is fine-tuned to draw the portraits' style ...
    tuning_steps: Count = 600  # released code
    tuning_batch: Count = 32  # released code: 4 on each of eight GPUs
    tuning_rate: Positive = 2e-3  # of Adam (0, 0.99), or (0.9, 0.99) without discriminator; StyleGAN2's
    frozen: tuple[str, ...] = ()  # weights that stay, by how their names begin; released code: none
    adversarial_weight: NotNegative = 1.0  # needs a discriminator; released code: the only loss
    r1_weight: NotNegative = 10.0  # StyleGAN2's
    r1_every: Count = 16  # steps of the discriminator; StyleGAN2's
    moments_weight: NotNegative = 0.0  # of the features' mean and second moment: ours, after Gatys et al.
    contextual_weight: NotNegative = 0.0  # of the contextual loss to one portrait: ours, as in stage three
    content_weight: NotNegative = 0.0  # of what the picture of the same code loses of its content: ours
    tuning_truncation: Fraction = 1.0  # of random faces' w toward the mean w: 1 is none
    # ... then each portrait's code is searched for under it ...
    steps: Number = 300  # released code
    inversion: InversionSettings = INVERSION_AS_RELEASED
    # ... and the source draws the face.
    restored: Number = 8  # from this code on (from 0) the encoder's come back: the colors; released code
    truncation: Fraction = 0.7  # of the face; released code
    center: Literal["zero", "mean"] = "zero"  # what it is truncated toward; "mean": the mean w, StyleGAN2's


@settings
class FineTuningSettings(Base):
    """What the second and the third stage have in common."""

    discriminator: Literal["stylegan2", "features"] = "stylegan2"  # released; see FeatureDiscriminator
    discriminator_channels: tuple[int, ...] | None = None  # of "stylegan2"; None: configuration F's
    adversarial_weight: NotNegative = 0.1  # paper A: 0.1 in the second stage, 1 in the third
    perceptual_weight: NotNegative = 0.5  # paper A: 0.5 in the second stage, 1 in the third
    perceptual_layers: Weights = (1.0, 1.0, 1.0)  # weights of LAYERS, mean absolute differences
    r1_weight: NotNegative = 10.0  # StyleGAN2's, of "stylegan2" only
    r1_every: Count = 16  # steps of the discriminator; StyleGAN2's
    path_weight: NotNegative = 2.0  # StyleGAN2's path length penalty, of the extrinsic codes
    path_every: Count = 4  # steps; StyleGAN2's
    learning_rate: Positive = 2e-3  # of Adam (0, 0.99); released code
    discriminator_rate: Positive = 2e-3  # the same
    decay: Positive = 1.0  # the last step's learning rate as a part of the first's, by a cosine: ours
    truncation: Fraction = 1.0  # of random faces' w toward the mean w: 1 is none
    flip: Fraction = 0.0  # of what the discriminator gets this part is mirrored ...
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # ... all is moved by up to this part of its side ...
    colors: Decay = 0.0  # ... and brightness, saturation, contrast change by up to this part
    loss_resolution: Count = 256  # pixels a side at most that VGG-19 and the identity get; released code
    # In the released average T_s keeps its first, random weights, because the average is taken over ``res``
    # alone. With True it is averaged like the rest; with False the final weights have the first T_s again.
    average_transform: bool = True


@settings
class StructureSettings(FineTuningSettings):
    """The second stage: on faces alone, the extrinsic path learns to move structure from code to code."""

    # Codes of the face that the goal keeps, and for how many steps: paper A has the steps, the released code
    # 7, 6, 5. At 7 all structure is the face's and there is only color to move, at 5 that of 32 pixels, too.
    mixing: tuple[tuple[Annotated[int, Field(ge=0, le=STRUCTURE)], Count], ...] = Field(
        default=((7, 300), (6, 300), (5, 3000)), min_length=1
    )

    @property
    def steps(self) -> int:
        """Of all phases together."""
        return sum(steps for _, steps in self.mixing)

    def codes_kept(self, number: int) -> int:
        """How many codes of the face the goal keeps at a step; behind the last phase that one goes on."""
        return self.mixing[_phase([steps for _, steps in self.mixing], number)][0]


@settings
class StyleSettings(FineTuningSettings):
    """The third stage: the extrinsic path learns a style from its portraits."""

    adversarial_weight: NotNegative = 1.0  # paper A
    perceptual_weight: NotNegative = 1.0  # paper A
    perceptual_layers: Weights = (0.0, 0.5, 1.0)  # released code
    contextual_weight: NotNegative = 0.25  # paper A; of relu3_1: released code
    bandwidth: Positive = 0.2  # of the contextual loss; released code
    matching_weight: NotNegative = 0.25  # paper A; of relu2_1 and relu3_1: released code
    # Steps, weight of the identity, weight of the residual path's norms: paper A; see STYLE_SETS.
    phases: tuple[tuple[Count, NotNegative, NotNegative], ...] = Field(
        default=((1400, 1.0, 0.015),), min_length=1
    )
    pairs_every: Number = 2  # each such step shows portraits with the faces behind them; 0: none; released
    jitter: NotNegative = 0.1  # of the style's code, in deviations; released code, there of z+
    resampled: Number | None = 8  # from this code on (from 0) a random face gets another's; released code

    @property
    def steps(self) -> int:
        """Of all phases together."""
        return sum(one[0] for one in self.phases)

    def phase(self, number: int) -> tuple[float, float]:
        """The identity's and the norms' weight at a step; behind the last phase that one goes on."""
        return self.phases[_phase([one[0] for one in self.phases], number)][1:]

    def pairs(self, number: int) -> bool:
        """Whether a step shows portraits with their own faces."""
        return self.pairs_every > 0 and number % self.pairs_every == 0

    def discriminator_steps(self, number: int) -> int:
        """How many steps before this one the discriminator has had: there is none in a step of pairs."""
        return number - (-(-number // self.pairs_every) if self.pairs_every else 0)


def _phase(steps: Sequence[int], number: int) -> int:
    return min(bisect_right(list(accumulate(steps)), number), len(steps) - 1)


@settings
class LatentSettings(Base):
    """The fourth stage, first half: each portrait's extrinsic code once more, under the finished network."""

    steps: Number = 100  # released code
    structure_rate: Positive = 0.005  # of Adam; released code
    color_rate: Positive = 0.01  # released code, 0.1 for some style sets
    noise_rate: Positive = 0.1  # of the noise maps, if the generator has some; released code
    network: Literal["vgg16", "alexnet"] = "vgg16"  # LPIPS'; released code
    loss_resolution: Pixels = 256  # pixels a side at most that the losses get; released code
    perceptual_weight: Positive = 1.0  # of LPIPS; paper A, section 3.2.4
    contextual_weight: NotNegative = 1.0  # paper A, the same
    bandwidth: Positive = 0.2  # of the contextual loss; released code
    noise_weight: NotNegative = 1e5  # StyleGAN2, appendix D; released code


@settings
class SamplerSettings(Base):
    """The fourth stage, second half: networks that draw codes like those of the portraits."""

    steps: Count = 3000  # ours
    batch: Count = 64  # wanted codes a step: ours
    pool: Count = 256  # codes that are drawn in a step: ours
    # Of these, for each portrait, from which a wanted code takes the nearest. With many, drawn codes that are
    # far from all wanted ones are never taken and never learn; with few, near ones are pulled apart: ours.
    choices: Positive = 2.0
    codes: Count = 1000  # wanted ones, at least: each portrait's as often as that takes; released code
    jitter: NotNegative = 0.05  # normal noise on each of them, in w; released code
    inputs: Count = 128  # random numbers, and width of the layers; released code
    learning_rate: Positive = 5e-3  # of Adam: ours
    anneal_fraction: Fraction = 0.5  # of the steps, in which it falls to 0, by a cosine: ours


@settings
class Preset(Base):
    """All four stages, and how the second and the third run."""

    destylization: DestylizationSettings = DestylizationSettings()
    structure: StructureSettings = StructureSettings()
    style: StyleSettings = StyleSettings()
    latent: LatentSettings = LatentSettings()
    sampler: SamplerSettings = SamplerSettings()
    batch: Count = 32  # paper A: 4 on each of eight GPUs
    average: Decay = 0.998  # released code: StyleGAN2's half of 10,000 pictures, at a batch of 32

    def schedules(self, seed: int = 0) -> tuple[Schedule, Schedule]:
        """Of the second and the third stage."""
        options: dict[str, Any] = {"batch": self.batch, "average": self.average, "seed": seed}
        return Schedule(steps=self.structure.steps, **options), Schedule(steps=self.style.steps, **options)


STYLE_SETS = {
    "cartoon": (1400, 1.0, 0.015),
    "caricature": (1000, 4.0, 0.005),
    "anime": (2100, 1.0, 0.02),
}
"""Steps, identity's weight and norms' weight for three style sets; for ``phases``. The released code names
the first as the cartoons'; that the other two are these sets' is our reading of their order."""

AS_PRINTED = Preset(
    # Read as it is printed, the three pairs follow each other.
    style=StyleSettings(phases=tuple(STYLE_SETS.values()), jitter=0.0, resampled=None),
)
"""Paper A, sections 3.2.3 and 3.2.5; what it leaves open (discriminator, regularizers, rates) as released."""

AS_RELEASED = Preset(
    structure=StructureSettings(average_transform=False),
    # Its augmentation is adaptive (Karras et al. 2020, "Limited Data"); ours has a fixed strength.
    style=StyleSettings(average_transform=False, flip=0.5, shift=0.125, colors=0.2),
)
"""Yang et al. 2022, for their set of cartoons: 1024 pixels, several GPUs; the encoder's codes are z+."""

SMALL = Preset(
    DestylizationSettings(
        tuning_steps=40, tuning_batch=2, tuning_rate=1e-4, frozen=("style.",), adversarial_weight=0.0,
        moments_weight=1.0, contextual_weight=0.1, content_weight=1.0, tuning_truncation=0.7,
        steps=30, inversion=INVERSION_SMALL, restored=7, truncation=0.7, center="mean",
    ),
    # No discriminator: what the path is to give is known to the pixel here, and it doubles the time.
    StructureSettings(
        discriminator="features", adversarial_weight=0.0, path_weight=0.0, decay=0.2, truncation=0.7,
        mixing=((7, 20), (6, 60), (5, 160)),
    ),
    StyleSettings(
        discriminator="features", path_weight=0.0, decay=0.2, truncation=0.7, flip=0.5, shift=0.125,
        colors=0.2, phases=((220, 1.0, 0.002),),  # a narrow path's weights begin larger than the published
    ),
    LatentSettings(steps=10, structure_rate=0.02, color_rate=0.05, network="alexnet"),
    SamplerSettings(steps=1200, pool=128, inputs=32),
    batch=2,
    average=0.98,
)  # fmt: skip
"""Ours, for the face prior of 256 pixels on a processor, which has no noise maps and codes in w+."""

SMOKE = Preset(
    SMALL.destylization.changed(tuning_steps=2, steps=2),
    SMALL.structure.changed(mixing=((7, 1), (6, 1), (5, 1))),
    SMALL.style.changed(phases=((2, 1.0, 0.015),)),
    SMALL.latent.changed(steps=2),
    SMALL.sampler.changed(steps=4),
    batch=2,
    average=0.5,
)
"""So few steps that all stages run in a minute; nothing is learned."""
