"""Films: frame after frame, each begun where the last one's paint has moved to, and held to it.

Source: Ruder, Dosovitskiy & Brox 2016, "Artistic style transfer for videos" (no paper of this course has
films of moving pictures; B's video shows an optimization's progress, see
:class:`nstlib.pictures.video.FilmWriter`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...errors import ImageError, SettingError
from ...nets.features import FeatureExtractor
from ...pictures.color import coral
from ...pictures.flow import consistency, optical_flow, warp
from .loop import Result
from .objective import Anchor, Guide
from .settings import Settings
from .transfer import stylize

# What makes flicker invisible without painting the first frame's errors into all others (notebook 03).
TEMPORAL_WEIGHT = 300.0
# Below this share of trusted flow a new scene has begun: across a cut 2 to 7 % are trusted by chance, within
# a scene 94 % and more (six portraits, 96 and 192 px).
CUT = 0.3


@dataclass(frozen=True)
class Frame:
    """One painted frame."""

    image: Tensor  # (1, 3, H, W)
    flow: Tensor | None  # backward, to the frame before: (1, 2, H, W); None for the first of a scene
    mask: Tensor | None  # (1, 1, H, W), where that flow is trusted
    result: Result


def stylize_clip(
    frames: Iterable[Tensor],
    style: Tensor | Sequence[Tensor] | Sequence[Guide] | None,
    settings: Settings | None = None,
    *,
    next_iterations: int | None = None,
    flow: Callable[[Tensor, Tensor], Tensor] | None = optical_flow,
    known: Iterable[tuple[Tensor, Tensor]] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str | torch.dtype = "auto",
    progress: bool = True,
    **changes: Any,
) -> Iterator[Frame]:
    """Paint a film frame by frame; frames are given out as they are ready.

    The first frame is painted as a picture. Each further one starts from the painted frame before, moved
    along the optical flow (where the flow is not trusted: from the frame itself, in the paint's colors), and
    the temporal term ``mean(mask (I - warped)²)`` holds it there; its weight is ``settings.temporal_weight``.
    After a cut a frame is painted like the first.

    Args:
        frames: (1, 3, H, W) each, all of one size; read as they are needed.
        style: as for :func:`stylize`.
        settings: as for :func:`stylize`; a temporal_weight of 0 is taken as given: no temporal term.
        next_iterations: for every frame but a scene's first; None: a third, as they start near their end.
        flow: ``flow(first, second)`` in pixels; None paints every frame by itself (what flickers).
        known: for every frame but the first (backward flow, mask), if the motion is known; wins over flow.
        seed: of the noise, the same for every frame.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: see :func:`nstlib.nets.hardware.resolve_precision`.
        progress: show a progress bar for each frame.
        **changes: single settings by name.

    Yields:
        :class:`Frame`, in order; after Ctrl-C that frame as far as it is painted, and no more.

    Raises:
        SettingError: frames of different sizes, or fewer known motions than frames; else as :func:`stylize`.
        ImageError: a frame or a motion is none.
    """
    if settings is None:
        settings = Settings(temporal_weight=TEMPORAL_WEIGHT)
    settings = settings.changed(**changes)
    if next_iterations is None:
        next_iterations = max(1, settings.iterations // 3)
    # A painted frame to start from is fine already: going back to a coarse one would lose its strokes.
    after = replace(settings, iterations=next_iterations, smallest=None, coarse_iterations=None)
    motions = None if known is None else iter(known)
    options: dict[str, Any] = {"seed": seed, "device": device, "precision": precision, "progress": progress}
    options["extractor"] = FeatureExtractor(
        settings.network, (*settings.content_layers, *settings.style_layers), pooling=settings.pooling,
        precision=precision, device=device,
    )  # fmt: skip
    before: Tensor | None = None
    painted: Tensor | None = None
    for number, frame in enumerate(frames, start=1):
        if not isinstance(frame, Tensor) or frame.ndim != 4 or tuple(frame.shape[:2]) != (1, 3):
            what = tuple(frame.shape) if isinstance(frame, Tensor) else type(frame).__name__
            raise ImageError(f"Frame {number} is no picture (1, 3, H, W), but {what}: give them one by one.")
        moved = mask = None
        if before is not None:
            if frame.shape != before.shape:
                raise SettingError(_differs(number, frame, before))
            if motions is not None:
                moved, mask = _known(motions, number, frame)
            elif flow is not None:
                moved = flow(frame, before)
                mask = consistency(flow(before, frame), moved)
            if mask is not None and mask.mean() < CUT:
                moved = mask = None
        if painted is None or moved is None or mask is None:
            result = stylize(frame, style, settings, **options)
        else:
            warped = warp(painted, moved)
            # Where nothing can be moved there, the frame itself: in the colors of the paint, because bare
            # photograph keeps its own through a third of the iterations.
            start = mask * warped + (1 - mask) * coral(frame, painted)
            anchor = Anchor(warped, mask) if after.temporal_weight else None
            result = stylize(frame, style, after, start=start, anchor=anchor, **options)
        before, painted = frame, result.image
        yield Frame(painted, moved, mask, result)
        if result.interrupted:
            return


def _known(motions: Iterator[tuple[Tensor, Tensor]], number: int, frame: Tensor) -> tuple[Tensor, Tensor]:
    motion = next(motions, None)
    if motion is None:
        raise SettingError(
            f"Of frame {number} no motion is known: give one (flow, mask) for every frame but the first."
        )
    for name, part, channels in zip(("flow", "mask"), motion, (2, 1), strict=True):
        if tuple(part.shape) != (1, channels, *frame.shape[-2:]):
            wanted = f"(1, {channels}, {frame.shape[-2]}, {frame.shape[-1]})"
            raise ImageError(f"The {name} of frame {number} must be {wanted}, not {tuple(part.shape)}.")
    return motion


def _differs(number: int, frame: Tensor, first: Tensor) -> str:
    sizes = [f"{picture.shape[-1]}×{picture.shape[-2]}" for picture in (frame, first)]
    return f"Frame {number} is {sizes[0]} and the one before {sizes[1]}: bring all frames to one size first."
