"""DualStyleGAN: how its extrinsic path learns a style in four stages; the network is
:mod:`nstlib.nets.dualstylegan`.

Source: paper A, section 3.2, after Yang et al. 2022, "Pastiche Master". A file per stage: ``destylization``
(the first), ``finetuning`` (the second and the third), ``latent`` (the fourth); ``settings`` (every value
with its origin), ``transfer`` (all of it behind ``fit`` and ``stylize``, and the authors' files).
"""

from .destylization import Destylized, destylize, fine_tune_source, initial_codes
from .finetuning import FineTuning, extrinsic_weights, fine_tune
from .latent import refine_codes, train_sampler
from .settings import AS_PRINTED, AS_RELEASED, SMALL, SMOKE, Preset, StructureSettings, StyleSettings
from .transfer import SHIPPED, DualStyle, Learned, Training, load_published_discriminator

__all__ = [
    "AS_PRINTED", "AS_RELEASED", "SHIPPED", "SMALL", "SMOKE", "Destylized", "DualStyle",
    "FineTuning", "Learned", "Preset", "StructureSettings", "StyleSettings", "Training", "destylize",
    "extrinsic_weights", "fine_tune", "fine_tune_source", "initial_codes", "load_published_discriminator",
    "refine_codes", "train_sampler",
]  # fmt: skip
