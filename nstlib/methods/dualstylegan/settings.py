"""How DualStyleGAN is fine-tuned: every value with its origin, the paper's and the released code's in a row.

"Released code" is Yang et al. 2022, "Pastiche Master". Paper A prints its numbers, some without context: the
three pairs (1, 0.015), (4, 0.005), (1, 0.02) with 1400, 1000 and 2100 iterations stand there as if one
followed the other. In the released code's instructions the first belongs to the set of cartoons, so that
each is a style set's own: :data:`STYLE_SETS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...errors import Changeable, SettingError
from ...nets.style_generator import STRUCTURE
from ...training import Schedule

LAYERS = ("relu1_1", "relu2_1", "relu3_1")
"""What the losses see, of VGG-19."""

CRITICS = ("features", "stylegan2")


@dataclass(frozen=True)
class Settings(Changeable):
    """What both stages have in common."""

    critic: str = "stylegan2"  # released code: its discriminator, logistic loss; "features": see critic.py
    critic_channels: tuple[int, ...] | None = None  # of "stylegan2"; None: configuration F's; for tests
    adversarial_weight: float = 0.1  # paper A: 0.1 in the second stage, 1 in the third
    perceptual_weight: float = 0.5  # paper A: 0.5 in the second stage, 1 in the third
    perceptual_layers: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of LAYERS, mean absolute differences
    r1_weight: float = 10.0  # StyleGAN2's, of "stylegan2" only
    r1_every: int = 16  # steps of the critic; StyleGAN2's
    path_weight: float = 2.0  # StyleGAN2's path length regularization, of the extrinsic codes; 0: none
    path_every: int = 4  # steps; StyleGAN2's
    learning_rate: float = 2e-3  # of Adam (0, 0.99); released code
    critic_rate: float = 2e-3  # the same
    decay: float = 1.0  # the last step's learning rate as a part of the first's, by a cosine: ours
    truncation: float = 1.0  # of random faces' w toward the mean w: 1 is none
    flip: float = 0.0  # of what the critic sees this part is mirrored ...
    shift: float = 0.0  # ... all is moved by up to this part of its side ...
    colors: float = 0.0  # ... and brightness, saturation, contrast change by up to this part
    seen: int = 256  # pixels a side at most that VGG-19 and the identity see; released code
    # In the released average T_s keeps its first, random weights, because the average is taken over ``res``
    # alone. With True it is averaged like the rest; with False the final weights have the first T_s again.
    average_transform: bool = True

    def __post_init__(self) -> None:
        if self.critic not in CRITICS:
            raise SettingError(f"critic is one of {', '.join(CRITICS)}, not '{self.critic}'.")
        weights = (key for key in asdict(self) if key.endswith("_weight") or key == "jitter")
        self._not_negative(*weights, "flip", "shift", "colors")
        self._positive("learning_rate", "critic_rate", "decay")
        self._counted("r1_every", "path_every", "seen")
        if len(self.perceptual_layers) != len(LAYERS) or min(self.perceptual_layers) < 0:
            raise SettingError(
                f"perceptual_layers has a weight of 0 or more for each of {', '.join(LAYERS)}, not "
                f"{self.perceptual_layers}."
            )
        if not 0 <= self.truncation <= 1 or self.flip > 1 or self.shift >= 0.5 or self.colors >= 1:
            raise SettingError(
                "truncation and flip are from 0 to 1, shift is below 0.5 and colors below 1, not "
                f"{self.truncation}, {self.flip}, {self.shift} and {self.colors}."
            )

    @property
    def perceives(self) -> bool:
        """Whether there is a perceptual loss."""
        return self.perceptual_weight > 0 and max(self.perceptual_layers) > 0


@dataclass(frozen=True)
class StructureSettings(Settings):
    """The second stage: on faces alone, the extrinsic path learns to move structure from code to code."""

    # Codes of the face that the goal keeps, and for how many steps: paper A has the steps, the released code
    # 7, 6, 5. At 7 all structure is the face's and there is only color to move, at 5 that of 32 pixels, too.
    mixing: tuple[tuple[int, int], ...] = ((7, 300), (6, 300), (5, 3000))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mixing or any(not 0 <= cut <= STRUCTURE or steps < 1 for cut, steps in self.mixing):
            raise SettingError(
                f"mixing has pairs of codes, from 0 to {STRUCTURE}, and steps, 1 or more, not {self.mixing}."
            )
        if not (self.perceives or self.adversarial_weight):
            raise SettingError(
                "Nothing is learned where perceptual and adversarial weight are 0: raise one of them."
            )

    @property
    def steps(self) -> int:
        """Of all phases together."""
        return sum(steps for _, steps in self.mixing)

    def codes_kept(self, number: int) -> int:
        """How many codes of the face the goal keeps at a step; behind the last phase that one goes on."""
        return self.mixing[_phase([steps for _, steps in self.mixing], number)][0]


@dataclass(frozen=True)
class StyleSettings(Settings):
    """The third stage: the extrinsic path learns a style from its portraits."""

    adversarial_weight: float = 1.0  # paper A
    perceptual_weight: float = 1.0  # paper A
    perceptual_layers: tuple[float, float, float] = (0.0, 0.5, 1.0)  # released code
    contextual_weight: float = 0.25  # paper A; of relu3_1: released code
    bandwidth: float = 0.2  # of the contextual loss; released code
    matching_weight: float = 0.25  # paper A; of relu2_1 and relu3_1: released code
    # Steps, weight of the identity, weight of the residual path's norms: paper A; see STYLE_SETS.
    phases: tuple[tuple[int, float, float], ...] = ((1400, 1.0, 0.015),)
    pairs_every: int = 2  # each such step shows portraits with the faces behind them; 0: none; released code
    jitter: float = (
        0.1  # of the style's code, in deviations; released code, there of z+, whose deviation is 1
    )
    resampled: int | None = 8  # from this code on (from 0) a random face gets another's; released code

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phases or any(one[0] < 1 or not min(one[1:]) >= 0 for one in self.phases):
            raise SettingError(
                "phases has steps, 1 or more, with two weights, 0 or more, for each phase, not "
                f"{self.phases}."
            )
        if not self.bandwidth > 0 or self.pairs_every < 0:
            raise SettingError(
                f"bandwidth is above 0 and pairs_every 0 or more, not {self.bandwidth} and "
                f"{self.pairs_every}."
            )
        if self.resampled is not None and self.resampled < 0:
            raise SettingError(
                f"resampled is the number of a code, 0 or more, or None, not {self.resampled}."
            )
        if self.pairs_every and not self.perceives:
            raise SettingError(
                "Pairs are shown for the perceptual loss, whose weight is 0: raise it, or set pairs_every "
                "to 0."
            )
        judged = self.adversarial_weight + self.contextual_weight + self.matching_weight
        if self.pairs_every != 1 and not judged:
            raise SettingError(
                "Random faces learn no style where adversarial_weight, contextual_weight and matching_weight "
                "are 0: raise one of them, or set pairs_every to 1."
            )

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

    def judged(self, number: int) -> int:
        """How many steps before this one the critic has had."""
        return number - (-(-number // self.pairs_every) if self.pairs_every else 0)


def _phase(steps: Sequence[int], number: int) -> int:
    for index, some in enumerate(steps):
        if number < some:
            return index
        number -= some
    return len(steps) - 1


@dataclass(frozen=True)
class Recipe:
    """Both stages, and how they run."""

    structure: StructureSettings = field(default_factory=StructureSettings)
    style: StyleSettings = field(default_factory=StyleSettings)
    batch: int = 32  # paper A: 4 on each of eight GPUs
    average: float = 0.998  # released code: StyleGAN2's half of 10,000 pictures, at a batch of 32

    def schedules(self, seed: int = 0) -> tuple[Schedule, Schedule]:
        """Of the structure's and the style's stage."""
        options: dict[str, Any] = {"batch": self.batch, "average": self.average, "seed": seed}
        return Schedule(self.structure.steps, **options), Schedule(self.style.steps, **options)


STYLE_SETS = {
    "cartoon": (1400, 1.0, 0.015),
    "caricature": (1000, 4.0, 0.005),
    "anime": (2100, 1.0, 0.02),
}
"""Steps, identity's weight and norms' weight for three style sets; for ``phases``. The released code names
the first as the cartoons'; that the other two are these sets' is our reading of their order."""

AS_PRINTED = Recipe(
    StructureSettings(),
    # Read as it is printed, the three pairs follow each other.
    StyleSettings(phases=tuple(STYLE_SETS.values()), jitter=0.0, resampled=None),
)
"""Paper A, sections 3.2.3 and 3.2.5; what it leaves open (critic, regularizers, rates) as released."""

AS_RELEASED = Recipe(
    StructureSettings(average_transform=False),
    # Its augmentation is adaptive (Karras et al. 2020, "Limited Data"); ours has a fixed strength.
    StyleSettings(average_transform=False, flip=0.5, shift=0.125, colors=0.2),
)
"""Yang et al. 2022, for their set of cartoons."""

SMALL = Recipe(
    # Without a critic: what the path is to give is known to the pixel here, and the critic doubles the time.
    StructureSettings(
        critic="features", adversarial_weight=0.0, path_weight=0.0, decay=0.2, truncation=0.7,
        mixing=((7, 20), (6, 60), (5, 160)),
    ),
    StyleSettings(
        critic="features", path_weight=0.0, decay=0.2, truncation=0.7, flip=0.5, shift=0.125, colors=0.2,
        phases=((220, 1.0, 0.002),),  # a slim path's weights begin larger than the published one's
    ),
    batch=2,
    average=0.98,
)  # fmt: skip
"""Ours, for the face prior of 128 pixels on a processor: 920 pictures in all."""
