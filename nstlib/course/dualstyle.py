"""What notebook 05 stands on: a generator of faces with its encoder, at each preset.

At ``smoke`` both are tiny and have learned nothing; at ``quick`` they are the course's own, for 256 pixels;
at ``paper`` they are the reader's: DualStyleGAN's published files, for 1024 pixels.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..errors import SettingError
from ..methods.dualstylegan import AS_RELEASED, SMALL, SMOKE, DualStyle, Preset, Training
from ..methods.inversion import encode
from ..nets.face_encoder import FaceEncoder
from ..nets.stylegan2 import Generator

TINY = (8, 8, 8, 8)  # channels at 4, 8, 16, 32 pixels


def quick() -> Preset:
    """So few steps that all stages run in a minute or two on a processor, and one sees what they do.

    At 128 pixels the contextual loss compares a sixteenth as many pairs of positions as at 256.
    """
    first = SMALL.destylization
    return SMALL.changed(
        destylization=first.changed(
            tuning_steps=12, tuning_batch=1, steps=8, contextual_weight=0.0,
            inversion=first.inversion.changed(learning_rate=0.03),  # at 0.06 so few steps stay rough
        ),
        structure=SMALL.structure.changed(mixing=((7, 4), (6, 4), (5, 16)), loss_resolution=128),
        style=SMALL.style.changed(phases=((28, 1.0, 0.002),), loss_resolution=128),
        latent=SMALL.latent.changed(steps=6, loss_resolution=128),
        sampler=SMALL.sampler.changed(steps=400),  # for few portraits; cut shorter, it draws none of them
        batch=1,
        average=0.8,
    )  # fmt: skip


def ground(
    preset: str,
    checkpoint: str | os.PathLike[str] | None = None,
    encoder: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> DualStyle:
    """The method over the generator of a preset, with a new extrinsic path and the preset's settings.

    Args:
        preset: "smoke", "quick" or "paper".
        checkpoint: DualStyleGAN's published file; for "paper".
        encoder: the published encoder's file, whose codes are z+; for "paper".
        device: where to.
        seed: of what has learned nothing.

    Raises:
        SettingError: a file is missing, or holds something else.
    """
    if preset == "quick":
        return DualStyle(Training(stages=quick()), device=device, seed=seed)
    if preset == "paper":
        if checkpoint is None or encoder is None:
            raise SettingError(
                "The preset 'paper' fine-tunes the published network: give its two files, as in "
                "nst course 05 --preset paper -p checkpoint=generator.pt -p encoder=encoder.pt."
            )
        theirs = DualStyle(Training(generator=Path(checkpoint), encoder=Path(encoder)), device=device)
        fresh = DualStyle(
            Training(stages=AS_RELEASED), source=theirs.source, encoder=theirs.encoder,
            bottleneck_channels=None, device=device, seed=seed,
        )  # fmt: skip
        fresh.space = theirs.space
        return fresh
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        source = Generator(4 << (len(TINY) - 1), TINY).requires_grad_(False).eval()
        reader = FaceEncoder(source.layers).to(device).requires_grad_(False).eval()
    return DualStyle(
        Training(stages=SMOKE), source=source, encoder=lambda portraits: encode(portraits, reader),
        bottleneck_channels=4, device=device, seed=seed,
    )  # fmt: skip
