"""Gatys' neural style transfer: a picture is optimized until it has one picture's content, another's style.

Sources: Gatys, Ecker & Bethge 2016 (CVPR), the ground of papers A (1)-(7), B (1)-(5), D. The picture itself
is the variable: I* = argmin_I alpha L_c(I_c, I) + beta L_s(I_s, I), paper A (5). No network is trained.

A file per idea: ``settings`` (every value with its origin, and the papers' recipes), ``objective`` (what is
minimized), ``optimizers`` (by what), ``run`` (the loop: averaged, resumed), ``tiles`` (pictures larger than
memory), ``transfer`` (from pictures to picture, coarse to fine, films).
"""

from .objective import Anchor, Guide, Objective
from .optimizers import OPTIMIZERS
from .run import Checkpoint, Progress, Result, minimize
from .settings import FIVE_BLOCKS, PLAIN, RECIPES, Settings, recipe
from .tiles import TiledObjective
from .transfer import TEMPORAL_WEIGHT, Frame, Gatys, initial_image, pyramid_sizes, stylize, stylize_clip

__all__ = [
    "FIVE_BLOCKS", "OPTIMIZERS", "PLAIN", "RECIPES", "TEMPORAL_WEIGHT", "Anchor", "Checkpoint", "Frame",
    "Gatys", "Guide", "Objective", "Progress", "Result", "Settings", "TiledObjective", "initial_image",
    "minimize", "pyramid_sizes", "recipe", "stylize", "stylize_clip",
]  # fmt: skip
