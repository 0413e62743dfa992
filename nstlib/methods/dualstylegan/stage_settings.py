"""How portraits are destylized, codes refined and sampled: stages one and four, each value with its origin.

"Released code" is Yang et al. 2022, "Pastiche Master", whose method paper A describes; of stages one and four
the paper prints no numbers but their hours on a GPU. The other stages' values are in ``settings``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import Changeable, SettingError
from .. import inversion

CENTERS = ("zero", "mean")


@dataclass(frozen=True)
class DestylizationSettings(Changeable):
    """The first stage: from each portrait to its codes and those of the face behind it."""

    # The source is fine-tuned to draw the portraits' style ...
    tuning_steps: int = 600  # released code
    tuning_batch: int = 32  # released code: 4 on each of eight GPUs
    tuning_rate: float = 2e-3  # of Adam (0, 0.99), or (0.9, 0.99) without a critic; StyleGAN2's
    frozen: tuple[str, ...] = ()  # weights that stay, by how their names begin; released code: none
    adversarial_weight: float = 1.0  # needs a critic; released code: the only loss
    r1_weight: float = 10.0  # StyleGAN2's
    r1_every: int = 16  # steps of the critic; StyleGAN2's
    augmented: bool = True  # what the critic sees is mirrored, moved, recolored; released code: adaptively
    moments_weight: float = 0.0  # of the features' mean and second moment: ours, after Gatys et al. 2016
    contextual_weight: float = 0.0  # of the contextual loss to one portrait: ours, as in stage three
    keeping_weight: float = 0.0  # of what the picture of the same code loses of its content: ours
    tuning_truncation: float = 1.0  # of random faces' w toward the mean w: 1 is none
    # ... then each portrait's code is searched for under it ...
    steps: int = 300  # released code
    inversion: inversion.Settings = inversion.AS_RELEASED
    # ... and the source draws the face.
    restored: int = 8  # from this code on (from 0) the encoder's come back: the colors; released code
    truncation: float = 0.7  # of the face; released code
    center: str = "zero"  # what it is truncated toward; "mean": the mean w, as StyleGAN2 does

    def __post_init__(self) -> None:
        weights = (key for key in vars(self) if key.endswith("_weight"))
        self._not_negative(*weights, "tuning_steps", "steps", "restored")
        self._positive("tuning_rate")
        self._counted("tuning_batch", "r1_every")
        if not (0 <= self.truncation <= 1 and 0 <= self.tuning_truncation <= 1):
            raise SettingError(
                f"truncation and tuning_truncation are from 0 to 1, not {self.truncation} and "
                f"{self.tuning_truncation}."
            )
        if self.center not in CENTERS:
            raise SettingError(f"center is one of {', '.join(CENTERS)}, not '{self.center}'.")


@dataclass(frozen=True)
class LatentSettings(Changeable):
    """The fourth stage, first half: each portrait's extrinsic code once more, under the finished network."""

    steps: int = 100  # released code
    structure_rate: float = 0.005  # of Adam; released code
    color_rate: float = 0.01  # released code, 0.1 for some style sets
    noise_rate: float = 0.1  # of the noise maps, if the generator has some; released code
    network: str = "vgg16"  # LPIPS'; released code
    seen: int = 256  # pixels a side at most that the losses see; released code
    perceptual_weight: float = 1.0  # of LPIPS; paper A, section 3.2.4
    contextual_weight: float = 1.0  # paper A, the same
    bandwidth: float = 0.2  # of the contextual loss; released code
    noise_weight: float = 1e5  # StyleGAN2, appendix D; released code

    def __post_init__(self) -> None:
        self._not_negative("perceptual_weight", "contextual_weight", "noise_weight", "steps")
        self._positive("structure_rate", "color_rate", "noise_rate", "bandwidth")
        self.likeness()

    def likeness(self) -> inversion.Settings:
        """The part of the losses that inversion has as well."""
        return inversion.Settings(
            space="w", network=self.network, seen=self.seen, perceptual_weight=self.perceptual_weight,
            identity_weight=0.0, spread_weight=0.0, noise_weight=self.noise_weight,
        )  # fmt: skip


@dataclass(frozen=True)
class SamplerSettings(Changeable):
    """The fourth stage, second half: networks that draw codes like those of the portraits."""

    steps: int = 3000  # ours
    batch: int = 64  # wanted codes a step: ours
    pool: int = 256  # codes that are drawn in a step: ours
    # Of these, for each portrait, from which a wanted code takes the nearest. With many, drawn codes that are
    # far from all wanted ones are never taken and never learn; with few, near ones are pulled apart: ours.
    choices: float = 2.0
    codes: int = 1000  # wanted ones, at least: each portrait's as often as that takes; released code
    jitter: float = 0.05  # normal noise on each of them, in w; released code
    inputs: int = 128  # random numbers, and width of the layers; released code
    learning_rate: float = 5e-3  # of Adam: ours
    fall: float = 0.5  # part of the steps in which it falls to 0, by a cosine: ours

    def __post_init__(self) -> None:
        self._not_negative("jitter")
        self._positive("learning_rate", "choices")
        self._counted("steps", "batch", "pool", "codes", "inputs")
        if not 0 <= self.fall <= 1:
            raise SettingError(f"fall is a part of 1, not {self.fall}.")


@dataclass(frozen=True)
class Stages:
    """The first and the fourth stage."""

    destylization: DestylizationSettings = field(default_factory=DestylizationSettings)
    latent: LatentSettings = field(default_factory=LatentSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)


AS_RELEASED = Stages()
"""Yang et al. 2022; what their code leaves to StyleGAN2, and what is ours, as said at each value."""

SMALL = Stages(
    DestylizationSettings(
        tuning_steps=40, tuning_batch=2, tuning_rate=1e-4, frozen=("style.",), adversarial_weight=0.0,
        moments_weight=1.0, contextual_weight=0.1, keeping_weight=1.0, tuning_truncation=0.7,
        steps=30, inversion=inversion.SMALL, restored=7, truncation=0.7, center="mean",
    ),
    LatentSettings(steps=10, structure_rate=0.02, color_rate=0.05, network="alexnet"),
    SamplerSettings(steps=1200, pool=128, inputs=32),
)  # fmt: skip
"""Ours, for the face prior of 128 pixels on a processor, which has no noise maps and speaks w+."""
