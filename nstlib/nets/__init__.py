"""Networks: layers and forward passes, no files, no training.

:func:`from_official` builds those whose authors have published weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import known

if TYPE_CHECKING:
    from torch import Tensor, nn

# Name -> module and function, imported only when needed.
OFFICIAL = {
    "adain_decoder": ("adain", "from_official"),
    "bisenet_faceparse19": ("bisenet", "from_official"),
    "cyclegan_patchgan": ("cyclegan", "discriminator_from_official"),
    "cyclegan_resnet6": ("cyclegan", "generator_from_official"),
    "cyclegan_resnet9": ("cyclegan", "generator_from_official"),
    "dsg_sampler_color": ("dualstylegan", "sampler_from_official"),
    "dsg_sampler_structure": ("dualstylegan", "sampler_from_official"),
    "dualstylegan": ("dualstylegan", "from_official"),
    "fns_transformer": ("johnson", "from_official"),
    "ir_se50": ("psp", "ir_se50_from_official"),
    "jojogan_discfeat": ("stylegan2", "features_from_official"),
    "jojogan_generator": ("stylegan2", "generator_from_official"),
    "psp_encoder": ("psp", "psp_from_official"),
    "puff_base": ("puff_extractors", "style_extractor_from_official"),
    "puff_detail": ("puff_extractors", "content_extractor_from_official"),
    "puff_transformer": ("transformer_style", "fusion_from_official"),
    "rsu4": ("u2net", "rsu_from_official"),
    "rsu4f": ("u2net", "rsu4f_from_official"),
    "rsu5": ("u2net", "rsu_from_official"),
    "rsu6": ("u2net", "rsu_from_official"),
    "rsu7": ("u2net", "rsu_from_official"),
    "sanet_block": ("u2_local", "sanet_from_official"),
    "stylegan2_disc": ("stylegan2", "discriminator_from_official"),
    "stytr2_decoder": ("adain", "from_official"),
    "stytr2_embedding": ("transformer_style", "embedding_from_official"),
    "stytr2_transformer": ("transformer_style", "transformer_from_official"),
    "u2net": ("u2net", "from_official"),
    "u2netp": ("u2net", "from_official"),
    "updg_style2_resnet9": ("cyclegan", "drawing_from_official"),
}


def from_official(name: str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """A network with weights in the layout its authors have published, in evaluation mode and frozen.

    Args:
        name: one of :data:`OFFICIAL`.
        state_dict: the published names and tensors, from which sizes are read. They are copied.

    Returns:
        The module, without gradients (``requires_grad_(True)`` brings them back).

    Raises:
        SettingError: an unknown name; a tensor that is missing, unexpected or of another shape.

    Example:
        >>> net = from_official("dualstylegan", torch.load("generator.pt")["g_ema"])   # doctest: +SKIP
    """
    module, function = OFFICIAL[known("published network", name, OFFICIAL)]
    return getattr(import_module(f"{__name__}.{module}"), function)(state_dict)
