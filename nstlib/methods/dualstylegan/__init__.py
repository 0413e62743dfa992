"""DualStyleGAN: how its extrinsic path learns a style in four stages; the network is
:mod:`nstlib.nets.dualstylegan`.

Source: paper A, section 3.2, after Yang et al. 2022, "Pastiche Master". A file per idea: ``destylization``
(and ``source``, the generator it fine-tunes; the first stage), ``finetuning`` (the second and the third, with
``critic`` and ``path``), ``latent`` (the fourth), ``codes`` (portraits and their codes), ``settings`` and
``stage_settings`` (every value with its origin; together in ``presets``), ``transfer`` (all of it, behind
``fit`` and ``stylize``), ``published`` (the authors' files, ready to stylize or to learn over).
"""

from .codes import Destylized
from .critic import FeatureCritic, make_critic
from .destylization import destylize, initial_codes, optimized_codes, photographic
from .finetuning import FineTuning, extrinsic_weights, fine_tune
from .latent import Samplers, refine_codes, sample_styles, train_sampler
from .presets import Preset, released, smoke
from .published import load_published
from .settings import AS_PRINTED, AS_RELEASED, SMALL, STYLE_SETS, Recipe, StructureSettings, StyleSettings
from .source import fine_tune_source
from .transfer import SHIPPED, DualStyle

__all__ = [
    "AS_PRINTED", "AS_RELEASED", "SHIPPED", "SMALL", "STYLE_SETS", "Destylized", "DualStyle", "FeatureCritic",
    "FineTuning", "Preset", "Recipe", "Samplers", "StructureSettings", "StyleSettings", "destylize",
    "extrinsic_weights", "fine_tune", "fine_tune_source", "initial_codes", "load_published", "make_critic",
    "optimized_codes", "photographic", "refine_codes", "released", "sample_styles", "smoke", "train_sampler",
]  # fmt: skip
