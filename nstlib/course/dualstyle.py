"""What notebook 05 stands on: a generator of faces with its encoder, at each preset.

At ``smoke`` both are tiny and have learned nothing; at ``quick`` they are the course's own, for 128 pixels;
at ``paper`` they are the reader's: DualStyleGAN's published files, for 1024 pixels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..faces.generated import Faces
from ..methods.dualstylegan import (
    AS_RELEASED,
    SMALL,
    SMOKE,
    DualStyle,
    Preset,
    Training,
    load_published_discriminator,
)
from ..methods.dualstylegan.destylization import source_discriminator
from ..methods.dualstylegan.transfer import BOTTLENECK_CHANNELS
from ..methods.inversion import encode, load_encoder
from ..nets.dualstylegan import DualStyleGAN
from ..nets.face_encoder import FaceEncoder
from ..nets.style_generator import StyleGenerator
from ..nets.stylegan2 import Discriminator, Generator

Net = TypeVar("Net", bound=nn.Module)

TINY = (8, 8, 8, 8)  # channels at 4, 8, 16, 32 pixels
TINY_SIZE = 4 << (len(TINY) - 1)


@dataclass(frozen=True)
class PresetModels:
    """A generator of faces, and how styles are learned over it.

    Attributes:
        source: the generator, frozen.
        reader: portraits (N, 3, S, S) in [0, 1] -> codes (N, layers, 512) in the space of the settings.
        preset: the four stages' settings.
        bottleneck_channels: of a new extrinsic path.
        net: a network that has learned already, as it was published; None where there is none.
        published: the discriminator that has learned with the source; None where there is none.
    """

    source: StyleGenerator
    reader: nn.Module
    preset: Preset
    bottleneck_channels: int | None
    net: DualStyleGAN | None = None
    published: Discriminator | None = None

    @property
    def space(self) -> str:
        """Of the codes that the first stage works on: "z" or "w"."""
        return self.preset.destylization.inversion.space

    def codes(self, portraits: Tensor) -> Tensor:
        """Portraits to w+ (N, layers, 512), whatever the reader's space is."""
        with torch.no_grad():
            return self.source.w_plus(self.reader(portraits), self.space)

    def discriminator(self) -> Discriminator | None:
        """Against which the source is fine-tuned in the first stage; None where it does without."""
        if not self.preset.destylization.adversarial_weight:
            return None
        net = source_discriminator(self.published, self.source.size)
        return net.to(next(self.source.parameters()).device)


class _Reader(nn.Module):
    """The course's own encoder, for pictures in [0, 1]."""

    def __init__(self, encoder: FaceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, portraits: Tensor) -> Tensor:
        return encode(portraits, self.encoder)


def quick() -> Preset:
    """So few steps that all stages run in a minute or two on a processor, and one sees what they do."""
    first = SMALL.destylization
    return SMALL.changed(
        destylization=first.changed(
            tuning_steps=24, tuning_batch=1, tuning_rate=2e-4, steps=8,
            inversion=first.inversion.changed(learning_rate=0.03),  # at 0.06 so few steps stay rough
        ),
        structure=SMALL.structure.changed(mixing=((7, 3), (6, 3), (5, 10))),
        style=SMALL.style.changed(phases=((16, 1.0, 0.002),)),
        latent=SMALL.latent.changed(steps=6),
        sampler=SMALL.sampler.changed(steps=400),  # for few portraits; cut shorter, it draws none of them
        average=0.8,
    )  # fmt: skip


def ground(
    preset: str,
    checkpoint: str | os.PathLike[str] | None = None,
    encoder: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> PresetModels:
    """The generator of a preset, and what belongs to it.

    Args:
        preset: "smoke", "quick" or "paper".
        checkpoint: DualStyleGAN's published file; for "paper".
        encoder: the published encoder's file, whose codes are z+; for "paper".
        device: where to.
        seed: of what has learned nothing.

    Raises:
        SettingError: a file is missing, or holds something else.
    """
    if preset == "paper":
        return _published(checkpoint, encoder, torch.device(device))
    if preset == "quick":
        own = load_encoder(device=device)
        return PresetModels(Faces(device).prior(), _Reader(own), quick(), BOTTLENECK_CHANNELS)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        source = Generator(TINY_SIZE, TINY)
        reader = FaceEncoder(source.layers)
    return PresetModels(_frozen(source, device), _Reader(_frozen(reader, device)), SMOKE, 4)


def _published(
    checkpoint: str | os.PathLike[str] | None, encoder: str | os.PathLike[str] | None, device: torch.device
) -> PresetModels:
    if checkpoint is None or encoder is None:
        raise SettingError(
            "The preset 'paper' fine-tunes the published network: give its two files, as in "
            "nst course 05 --preset paper -p checkpoint=generator.pt -p encoder=encoder.pt."
        )
    made = DualStyle(Training(generator=Path(checkpoint), encoder=Path(encoder)), device=device)
    discriminator = load_published_discriminator(checkpoint, device)
    return PresetModels(
        made.source, cast(nn.Module, made.encoder), AS_RELEASED, None, made.net, discriminator
    )


def _frozen(net: Net, device: str | torch.device) -> Net:
    return net.to(device).requires_grad_(False).eval()
