"""How JoJoGAN is fine-tuned: every value with its origin.

"Released code" is the notebook of Chong and Forsyth 2022, for StyleGAN2 of 1024 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import Changeable, SettingError
from ...nets.style_generator import STRUCTURE

KEEPING_COLORS = {18: (9, 11, 15, 16, 17), 10: (7, 8)}
"""Codes that are mixed where colors are to be kept, by how many codes the generator has: released code's for
1024 pixels; for the face prior ours, whose colors are nearly all in its last code. What is not mixed stays
in charge of the colors, because no pair teaches to overrule it."""

COMPARED = ("auto", "discriminator", "vgg")


@dataclass(frozen=True)
class Settings(Changeable):
    """What the generator is fine-tuned for."""

    steps: int = 300  # released code's notebook
    batch: int | None = None  # pairs of a step; None: one of each style picture; released code
    learning_rate: float = 2e-3  # of Adam (0, 0.99); released code
    decay: float = 1.0  # the last step's learning rate as a part of the first's, by a cosine: ours
    mixed: tuple[int, ...] | None = None  # codes that are mixed; None: as keep_colors says
    keep_colors: bool = False  # mix not all codes from 7 on, but KEEPING_COLORS alone; released code
    mixing: float = 1.0  # how far mixed codes go from the style's, 0, to random ones, 1; released code
    truncation: float = 1.0  # of the random codes to the mean w: 1 is none, as released
    noise: str = "random"  # of the generator's maps, if it has some: "fixed", "random"; released code
    compare: str = "auto"  # features of the "discriminator" or "vgg"; "auto": the former if it was given
    vgg_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")  # of VGG-16: ours
    relative_features: bool = False  # differences are divided by what the style's features measure: ours
    # The learning rate is meant for StyleGAN2, whose weights all have a deviation near 1. With True each
    # tensor's own rate is that times its root mean square, so that it means the same for any generator: ours.
    relative_rates: bool = False
    identity_weight: float = 0.0  # of 1 - cosine to the face before fine-tuning; the paper's, optional

    def __post_init__(self) -> None:
        self._positive("learning_rate", "decay")
        if self.steps < 1 or (self.batch is not None and self.batch < 1):
            raise SettingError(f"steps and batch are 1 or more, not {self.steps} and {self.batch}.")
        if not (0 <= self.mixing <= 1 and 0 <= self.truncation <= 1):
            raise SettingError(
                f"mixing and truncation are from 0 to 1, not {self.mixing} and {self.truncation}."
            )
        self._not_negative("identity_weight")
        if self.noise not in ("fixed", "random"):
            raise SettingError(f"noise is 'fixed' or 'random', not '{self.noise}'.")
        if self.compare not in COMPARED:
            raise SettingError(f"compare is one of {', '.join(COMPARED)}, not '{self.compare}'.")
        if self.compare != "discriminator" and not self.vgg_layers:
            raise SettingError("vgg_layers is empty: name the layers of VGG-16 that are compared.")
        if self.mixed is not None and (not self.mixed or min(self.mixed) < 0):
            raise SettingError(f"mixed has the numbers of codes, from 0, one at least, not {self.mixed}.")

    def mask(self, layers: int) -> Tensor:
        """How far each of a generator's codes goes to a random one: (layers, 1), 0 for those that stay.

        Raises:
            SettingError: a code is to be mixed that the generator does not have, or it is not known which.
        """
        if self.mixed is not None:
            chosen = list(self.mixed)
            if max(chosen) >= layers:
                raise SettingError(
                    f"mixed names code {max(chosen)}, and the generator has 0 to {layers - 1}: leave it out."
                )
        elif self.keep_colors:
            if layers not in KEEPING_COLORS:
                raise SettingError(
                    f"Which of {layers} codes are mixed to keep colors is known for "
                    f"{' and '.join(map(str, KEEPING_COLORS))} codes only: name them in mixed."
                )
            chosen = list(KEEPING_COLORS[layers])
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
"""The same: what the paper leaves open, the released code says."""

SMALL = Settings(
    compare="vgg", relative_features=True, steps=60,
    # 16 of the prior's 71 tensors have a size of 0.01 or less: at 2e-3 for all, it is soon destroyed.
    relative_rates=True, learning_rate=5e-3, decay=0.1,
    truncation=0.7,  # at 1 the pairs' colors differ so much that 60 steps end in pale pictures
)  # fmt: skip
"""Ours, for the face prior of 128 pixels on a processor: features of VGG-16, which is there without a
discriminator. Four times that learning rate destroys the prior, and at 2e-3 it learns more slowly. At 8e-3
faces take the style picture's features, at 5e-3 they stay themselves."""
