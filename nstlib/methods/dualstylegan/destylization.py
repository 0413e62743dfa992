"""Stage one, destylization: which face might be behind this portrait?

A portrait by itself teaches nothing about style; a portrait beside the face it might have been drawn from
does. Nobody has such pairs, so they are made, in three steps that each can be looked at:

1. latent initialization: an encoder reads a code off the portrait (:func:`initial_codes`), which gives a face
   that is alike only roughly, because the encoder knows photographs;
2. latent optimization: the generator is fine-tuned until it draws such portraits (:func:`fine_tune_source`),
   and the code is searched for from which that one draws this portrait (:func:`optimized_codes`);
3. image embedding: from the same code the generator as it was draws a face (:func:`photographic`), and the
   encoder reads that face's code, which lies among those of real faces.

Source: paper A, section 3.2.1, after Yang et al. 2022, "Pastiche Master", section 3.1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...errors import OptimizationError, SettingError
from ...faces.identity import Identity
from ...metrics import Lpips
from ...nets.style_generator import STYLE, StyleGenerator
from ...pictures.files import resize
from ..inversion import check_portraits, invert
from .codes import Destylized
from .portrait_files import PortraitFiles, digest
from .source import center_of, fine_tune_source
from .stage_settings import SMALL, DestylizationSettings

Encoder = Callable[[Tensor], Tensor]
"""Portraits (N, 3, S, S) in [0, 1] -> codes (N, layers, 512), in the space of the inversion's settings."""


def initial_codes(portraits: Tensor, encoder: Encoder, source: StyleGenerator) -> Tensor:
    """The first step: the codes that an encoder reads off portraits, (K, layers, 512), where the source is.

    Raises:
        ImageError: no portraits, or not square.
        SettingError: the encoder's codes do not fit the source.
    """
    return torch.cat([_encoded(one, encoder, source) for one in check_portraits(portraits).split(1)])


def optimized_codes(
    portraits: Tensor,
    tuned: StyleGenerator,
    start: Tensor,
    settings: DestylizationSettings = SMALL.destylization,
    **options: Any,
) -> Tensor:
    """The second step: codes from which the fine-tuned source draws the portraits, in the encoder's colors.

    Args:
        portraits: (K, 3, H, W), RGB in [0, 1].
        tuned: see :func:`fine_tune_source`.
        start: (K, layers, 512), see :func:`initial_codes`.
        settings: steps, inversion, restored.
        options: ``lpips``, ``identity``, ``callback`` and ``progress`` of
            :func:`nstlib.methods.inversion.invert`.

    Returns:
        (K, layers, 512), in the space of the start.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        OptimizationError, SettingError: see :func:`nstlib.methods.inversion.invert`.
    """
    found = invert(
        portraits, tuned, start=start, steps=settings.steps, settings=settings.inversion, **options
    )
    if found.interrupted:
        raise KeyboardInterrupt
    codes = found.latent.to(start)
    # Under the tuned source the colors are its own, whatever the code; under the source they would be wrong.
    return torch.cat([codes[:, : settings.restored], start[:, settings.restored :]], 1)


@torch.no_grad()
def photographic(
    codes: Tensor,
    source: StyleGenerator,
    settings: DestylizationSettings = SMALL.destylization,
    center: Tensor | None = None,
) -> Tensor:
    """The third step: the faces that the source draws from the portraits' codes, (K, 3, S, S) in [0, 1].

    Args:
        codes: (K, layers, 512), in the space of the inversion's settings.
        source: as it was.
        settings: inversion's space, truncation, center.
        center: the source's mean w (1, 512), if it is known (:func:`.center_of`); else it is drawn.
    """
    if settings.center == "zero":
        center = None
    elif center is None:
        center = center_of(source)
    drawn = source(codes, space=settings.inversion.space, truncation=settings.truncation, center=center)
    return ((drawn + 1) / 2).clamp(0, 1)


def destylize(
    portraits: Tensor,
    source: StyleGenerator,
    encoder: Encoder,
    settings: DestylizationSettings = SMALL.destylization,
    folder: str | os.PathLike[str] | None = None,
    *,
    tuned: StyleGenerator | None = None,
    critic: nn.Module | None = None,
    lpips: Lpips | None = None,
    identity: Identity | None = None,
    seed: int = 0,
    tensors: Mapping[str, Tensor] | None = None,
    progress: bool = True,
) -> Destylized:
    """All three steps, portrait by portrait.

    Args:
        portraits: (K, 3, H, W), RGB in [0, 1], square, aligned like FFHQ.
        source: the generator of faces; stays as it is.
        encoder: what reads codes off pictures, see :data:`Encoder`.
        settings: see :class:`.DestylizationSettings`.
        folder: where to keep what is done, the fine-tuned source too; the same call goes on from there.
        tuned: a source that is fine-tuned already; None: by :func:`fine_tune_source`.
        critic: for that.
        lpips: of the inversion's network; None: made here.
        identity: None: made here, if the inversion gives it a weight.
        seed: of the fine-tuning.
        tensors: VGG-16's weights instead of the asset's (tests).
        progress: show progress bars.

    Returns:
        The portraits, at the source's size, with their codes, on the CPU.

    Raises:
        ImageError: no portraits, or not square.
        KeyboardInterrupt: after Ctrl-C; the portraits that are done are kept in the folder.
        OptimizationError: a loss is no longer a number.
        SettingError: settings that do not fit, or a folder of other portraits.
    """
    portraits = resize(check_portraits(portraits), (source.size, source.size)).cpu()
    described = {
        "stage": "destylization", **asdict(settings), "portraits": digest(portraits), "seed": seed,
        "source": digest(source), "tuned": None if tuned is None else digest(tuned),
    }  # fmt: skip
    files = PortraitFiles(folder, described)
    kept: list[Mapping[str, Tensor] | None] = [files.load(index) for index in range(len(portraits))]
    if tuned is None and None in kept:
        inner = None if files.folder is None else files.folder / "source"
        tuned, result = fine_tune_source(
            source, portraits, settings, inner, critic=critic, seed=seed, tensors=tensors, progress=progress
        )
        if result.interrupted:
            raise KeyboardInterrupt
    space, device = settings.inversion.space, next(source.parameters()).device
    if None in kept:  # once for all portraits
        if lpips is None and settings.inversion.perceptual_weight:
            lpips = Lpips(settings.inversion.network, device=device)
        if identity is None and settings.inversion.identity_weight:
            identity = Identity(device)
    center = center_of(source) if None in kept else None
    mine = [index for index in range(len(portraits)) if files.turn(index)]
    for index in tqdm(mine, "destylization", disable=not progress):
        if kept[index] is None:
            assert tuned is not None
            portrait = portraits[index, None]
            start = initial_codes(portrait, encoder, source)
            try:
                codes = optimized_codes(
                    portrait, tuned, start, settings, lpips=lpips, identity=identity, progress=False
                )
            except OptimizationError as error:
                raise OptimizationError(f"Portrait {index + 1}: {error}", error.result) from error
            face = _encoded(photographic(codes, source, settings, center), encoder, source)
            with torch.no_grad():
                found = {
                    "extrinsic": source.w_plus(codes, space).cpu(),
                    "intrinsic": source.w_plus(face, space).cpu(),
                }
            files.save(index, found)
            kept[index] = found
    done = files.gather(kept, device)
    return Destylized(
        torch.cat([one["extrinsic"] for one in done]),
        torch.cat([one["intrinsic"] for one in done]),
        portraits,
    )


@torch.no_grad()
def _encoded(portrait: Tensor, encoder: Encoder, source: StyleGenerator) -> Tensor:
    codes = encoder(portrait)
    if codes.shape != (len(portrait), source.layers, STYLE):
        raise SettingError(
            f"The encoder gives codes {tuple(codes.shape)}, and the source takes ({len(portrait)}, "
            f"{source.layers}, {STYLE}): take the encoder that was trained for it."
        )
    return codes.to(next(source.parameters()))
