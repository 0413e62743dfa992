"""All four stages' settings together: the small ones, a proof that all of them run, and the released ones."""

from __future__ import annotations

from dataclasses import dataclass

from . import settings, stage_settings
from .settings import SMALL as SMALL_RECIPE
from .settings import Recipe
from .stage_settings import SMALL as SMALL_STAGES
from .stage_settings import Stages


@dataclass(frozen=True)
class Preset:
    """All four stages' settings; without a word the small ones, for the face prior on a processor."""

    stages: Stages = SMALL_STAGES
    recipe: Recipe = SMALL_RECIPE


def smoke() -> Preset:
    """So few steps that all stages run in a minute; nothing is learned."""
    destylization = SMALL_STAGES.destylization.changed(tuning_steps=2, steps=2)
    return Preset(
        Stages(
            destylization, SMALL_STAGES.latent.changed(steps=2), SMALL_STAGES.sampler.changed(steps=4)
        ),
        Recipe(
            SMALL_RECIPE.structure.changed(mixing=((7, 1), (6, 1), (5, 1))),
            SMALL_RECIPE.style.changed(phases=((2, 1.0, 0.015),)),
            batch=2, average=0.5,
        ),
    )  # fmt: skip


def released() -> Preset:
    """The published schedule, for 1024 pixels and several GPUs; the encoder's codes are z+."""
    return Preset(stage_settings.AS_RELEASED, settings.AS_RELEASED)
