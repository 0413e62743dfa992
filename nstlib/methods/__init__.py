"""One paper, one file, four verbs: ``fit``, ``stylize``, ``save``, ``load``; see :mod:`.base`."""

from .adain import AdaIN
from .base import Method
from .cyclegan import CycleGAN
from .dualstylegan import DualStyle
from .gatys import Gatys
from .johnson import Johnson
from .jojogan import JoJoGAN
from .portrait_drawing import PortraitDrawing
from .puffnet import PuffNet
from .stytr2 import StyTr2
from .u2_local import U2Local

METHODS: dict[str, type[Method]] = {
    "gatys": Gatys,
    "adain": AdaIN,
    "johnson": Johnson,
    "dualstylegan": DualStyle,
    "jojogan": JoJoGAN,
    "cyclegan": CycleGAN,
    "portrait_drawing": PortraitDrawing,
    "u2_local": U2Local,
    "stytr2": StyTr2,
    "puffnet": PuffNet,
}
"""Every method by name. What the command, the notebooks and the comparison know, they know from here."""

__all__ = ["METHODS", "Method"]
