"""Gatys' neural style transfer: a picture is optimized until it has one picture's content, another's style.

Sources: Gatys, Ecker & Bethge 2016 (CVPR), the ground of papers A (1)-(7), B (1)-(5), D. The picture itself
is the variable: I* = argmin_I alpha L_c(I_c, I) + beta L_s(I_s, I), paper A (5). No network is trained.

A file per idea: ``settings`` (every value with its origin), ``objective`` (what is minimized), ``optimizers``
(by what: ``descent``, ``newton``, ``montecarlo``), ``loop`` (watched, averaged, resumed), ``tiles`` (pictures
larger than memory), ``sizes`` (coarse to fine), ``transfer`` (from pictures to picture), ``clip`` (films),
``recipes`` (the papers' own settings).
"""

from .clip import TEMPORAL_WEIGHT, Frame, stylize_clip
from .loop import Checkpoint, Progress, Result, Run, minimize
from .objective import Anchor, Counts, Guide, Objective
from .optimizers import OPTIMIZERS, Optimizer, make_optimizer
from .recipes import RECIPES, Recipe, recipe
from .settings import DEFAULT_LAYERS, FIVE_BLOCKS, OPTIMIZER_NAMES, Settings
from .sizes import ladder, plan
from .tiles import TiledObjective
from .transfer import NOISE_AMPLITUDE, Gatys, initial_image, stylize

__all__ = [
    "DEFAULT_LAYERS",
    "FIVE_BLOCKS",
    "NOISE_AMPLITUDE",
    "OPTIMIZERS",
    "OPTIMIZER_NAMES",
    "RECIPES",
    "TEMPORAL_WEIGHT",
    "Anchor",
    "Checkpoint",
    "Counts",
    "Frame",
    "Gatys",
    "Guide",
    "Objective",
    "Optimizer",
    "Progress",
    "Recipe",
    "Result",
    "Run",
    "Settings",
    "TiledObjective",
    "initial_image",
    "ladder",
    "make_optimizer",
    "minimize",
    "plan",
    "recipe",
    "stylize",
    "stylize_clip",
]
