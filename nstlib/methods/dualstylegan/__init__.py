"""DualStyleGAN: how its extrinsic path learns a style; the network is :mod:`nstlib.nets.dualstylegan`.

Source: paper A, section 3.2, after Yang et al. 2022, "Pastiche Master". A file per idea: ``settings`` (every
value with its origin), ``codes`` (portraits and their codes), ``critic`` (what judges), ``finetuning`` (the
second and third stage).
"""

from .codes import Destylized
from .critic import FeatureCritic, make_critic
from .finetuning import FineTuning, extrinsic_weights, fine_tune
from .settings import AS_PRINTED, AS_RELEASED, SMALL, STYLE_SETS, Recipe, StructureSettings, StyleSettings

__all__ = [
    "AS_PRINTED",
    "AS_RELEASED",
    "SMALL",
    "STYLE_SETS",
    "Destylized",
    "FeatureCritic",
    "FineTuning",
    "Recipe",
    "StructureSettings",
    "StyleSettings",
    "extrinsic_weights",
    "fine_tune",
    "make_critic",
]
