"""What a quick method has made, as a picture with its settings, or frame by frame as a film that is kept."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import NstError
from .options import ANIMATIONS

if TYPE_CHECKING:
    from torch import Tensor


def write_picture(
    made: Tensor, output: Path, seconds: float, *,
    method: str, content: Path, styles: Sequence[Path], about: Mapping[str, Any],
) -> None:  # fmt: skip
    """Save a picture with what made it, and say how long it took."""
    from ..pictures import files as images

    settings = {
        "method": method, "content_file": content.name,
        "style_file": ", ".join(path.name for path in styles), **about,
    }  # fmt: skip
    images.save_image(made, output, settings=settings)
    height, width = made.shape[-2:]
    click.echo(f"done: {output} ({width}×{height}), {seconds:.2f} s")


def thinned(frames: Iterable[Tensor], fps: float, output: Path) -> tuple[Iterator[Tensor], float]:
    """The frames to be painted, and how many of them make a second.

    Animations show 50 frames a second at most: of a faster film every second frame, not a slower film.
    """
    step = math.ceil(fps / 50) if output.suffix.lower() in ANIMATIONS else 1
    return itertools.islice(frames, 0, None, step), max(0.1, fps / step)


def write_film(
    output: Path, fps: float, painted: Iterable[tuple[Tensor, bool]], quiet: bool, every: float = 0.0
) -> None:
    """Write frames as they come, and say on standard output how many they are.

    Args:
        output: the film.
        fps: frames a second.
        painted: each frame, and whether somebody has stopped its painting.
        quiet: do not tell of the frames as they come.
        every: seconds between two frames that are told of, at least.

    Raises:
        NstError: what ended the frames, with where those before it are kept.
    """
    from ..pictures import video

    state, failed, began, told = "done", None, time.monotonic(), time.monotonic()
    with video.FilmWriter(output, fps=fps) as writer:
        try:
            for frame, stopped in painted:
                writer.add(frame)
                if stopped:
                    state = "stopped"
                if not quiet and time.monotonic() - told >= every:
                    told = time.monotonic()
                    click.echo(f"frame {writer.count}: {told - began:.0f} s", err=True)
        except KeyboardInterrupt:  # between two frames' optimizations
            if not writer.count:
                raise
            state = "stopped"
        except NstError as error:  # a damaged film, a loss that is no number
            if not writer.count:
                raise
            failed = error
    count = f"{writer.count} frame{'' if writer.count == 1 else 's'}"
    if failed is not None:
        raise type(failed)(f"{failed} What was painted until then is kept in '{output}' ({count}).")
    click.echo(f"{state}: {output} ({count}), {time.monotonic() - began:.0f} s")
