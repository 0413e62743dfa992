"""Films in and out: the frames of a picture being painted, and clips whose frames are stylized.

A film is a sequence of pictures (1, 3, H, W) in [0, 1], all of one size. MP4 (H.264) is written and every
usual format read by PyAV, which brings FFmpeg's libraries along; GIF and WebP go through Pillow.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace
from PIL import Image, ImageSequence
from torch import Tensor

from ..assets.writing import atomic, reason
from ..errors import ImageError, SettingError
from .files import check_picture, check_writable, from_pil, open_picture, resize, to_pil

_ENDINGS = (".mp4", ".gif", ".webp")
_ANIMATION_FPS = 50  # viewers slow down what is shown for 10 ms or less; GIF counts in hundredths of a second
# Only these readers may run: FFmpeg takes some text files for lists of further files and addresses to open.
_CONTAINERS = (
    "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,ogg,asf,h264,hevc,m4v,ivf,dv,mjpeg,yuv4mpegpipe"
)
_BT709 = 1  # in the standard's own numbering, for the matrix, the primaries and the curve


# ------------------------------------------------------------------------------------------------ writing


class FilmWriter:
    """Write a film frame by frame; it appears whole under its name when the block ends, or not at all.

    MP4 frames are encoded as they come, so that memory stays flat; GIF and WebP frames are kept until the
    end, as one byte or three a pixel. H.264 halves the color's resolution and so needs even sides: an odd
    side gets one more pixel, a copy of its last row or column. GIF has 256 colors a frame.
    A film that the keyboard interrupts is finished and kept, if it has a frame; after any other error
    nothing is left behind, and a film of the same name stays as it was.

    Args:
        path: the file, ending in .mp4, .gif or .webp; a missing folder is made.
        fps: frames a second; for .gif and .webp at most 50.
        size: (h, w) to which all frames are resized. None: all must have the size of the first.
        hold: seconds for which the last frame stays, on top of its own time.

    Raises:
        ImageError: the folder cannot be written to.
        SettingError: the ending, or the value of a parameter, makes no sense.

    Example:
        >>> with FilmWriter("progress.mp4", hold=2) as film:  # doctest: +SKIP
        ...     film.add(picture)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float = 12,
        *,
        size: tuple[int, int] | None = None,
        hold: float = 0,
    ) -> None:
        self.path = check_film_writable(path)
        most = 1000 if self.path.suffix.lower() == ".mp4" else _ANIMATION_FPS
        if not (0.1 <= fps <= most and 0 <= hold <= 3600):
            raise SettingError(
                f"fps is {fps} and hold {hold}, but must be from 0.1 to {most} and from 0 to 3600 seconds: "
                "pass 12 and 2, for example."
            )
        self.count = 0
        self._fps, self._hold, self._size = float(fps), float(hold), size
        self._encoder: Any = None  # _Mp4 or _Animation, from the first frame on
        self._file = contextlib.ExitStack()

    def __enter__(self) -> FilmWriter:
        self._part = self._file.enter_context(atomic(self.path))
        return self

    def add(self, image: Tensor) -> None:
        """Append a frame.

        Args:
            image: (1, 3, H, W) in [0, 1], on any device.

        Raises:
            ImageError: it is no picture, or has another size than the first frame.
        """
        name = f"film's frame {self.count + 1}"
        image = check_picture(name, image, count=1).detach()
        if self._size is not None:
            image = resize(image, self._size)
        picture = to_pil(image, name=name)
        try:
            if self._encoder is None:
                kind = _Mp4 if self._part.suffix.lower() == ".mp4" else _Animation
                self._encoder = kind(self._part, self._fps, picture.size)
            width, height = self._encoder.size
            if picture.size != (width, height):
                raise ImageError(
                    f"The {name} has {picture.width} × {picture.height} pixels and those before it have "
                    f"others: resize it, or let the film do so with size=({height}, {width})."
                )
            self._encoder.add(picture)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise ImageError(f"'{self.path}' is not saved ({reason(error)}): free some space.") from error
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if self.count and (kind is None or issubclass(kind, KeyboardInterrupt)):
                self._encoder.finish(self._hold)
            elif isinstance(self._encoder, _Mp4):
                with contextlib.suppress(Exception):  # of a file that is thrown away
                    self._encoder.container.close()
                self._part.unlink(missing_ok=True)
        if kind is None and not self.count:
            raise ImageError(f"'{self.path}' is not saved because the film has no frame: add at least one.")


class _Mp4:
    """H.264 in the form every browser plays: 4:2:0, BT.709, the index before the pictures."""

    def __init__(self, part: Path, fps: float, size: tuple[int, int]) -> None:
        self.size, self.rate = size, Fraction(fps).limit_denominator(1001)
        options = {"movflags": "+faststart"}
        self.container = av.open(str(part.absolute()), "w", format="mp4", container_options=options)
        # 18 is where most see no loss; "veryfast" makes the same size in two thirds of the default's time.
        options = {"crf": "18", "preset": "veryfast"}
        self.stream = self.container.add_stream("libx264", self.rate, options=options)
        self.stream.width, self.stream.height = (side + side % 2 for side in size)
        self.stream.pix_fmt = "yuv420p"
        # Without these labels players guess, and guess differently for small films than for large ones.
        context = self.stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # limited range, 16 to 235

    def add(self, picture: Image.Image) -> None:
        self.last = picture
        missing = ((0, picture.height % 2), (0, picture.width % 2), (0, 0))
        array = np.pad(np.asarray(picture), missing, mode="edge")
        frame = av.VideoFrame.from_ndarray(array, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        self.container.mux(self.stream.encode(frame))

    def finish(self, hold: float) -> None:
        for _ in range(round(hold * self.rate)):  # players do not agree on a last frame of its own duration
            self.add(self.last)
        self.container.mux(self.stream.encode())
        self.container.close()


class _Animation:
    """GIF or WebP; equal neighbors become one frame that is shown longer."""

    def __init__(self, part: Path, fps: float, size: tuple[int, int]) -> None:
        self.part, self.fps, self.size = part, fps, size
        self.gif = part.suffix.lower() == ".gif"
        self.frames: list[Image.Image] = []

    def add(self, picture: Image.Image) -> None:
        if self.gif:
            # The octree keeps small areas' colors, which the median cut loses (and takes 200 times as long);
            # dithering hides the bands that either leaves on skin.
            palette = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
            picture = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        self.frames.append(picture)

    def finish(self, hold: float) -> None:
        unit = 10 if self.gif else 1  # milliseconds
        # Rounded ends, not rounded lengths: 12 frames a second then last a second in hundredths as well.
        ends = [round(1000 * i / self.fps / unit) * unit for i in range(len(self.frames) + 1)]
        durations = [end - start for start, end in itertools.pairwise(ends)]
        durations[-1] += round(1000 * hold / unit) * unit
        first, *rest = self.frames
        shown = durations if rest else durations[0]
        # The quality is WebP's.
        first.save(self.part, save_all=True, append_images=rest, duration=shown, loop=0, quality=90)


def save_film(
    frames: Iterable[Tensor], path: str | os.PathLike[str], fps: float = 12, *, hold: float = 0
) -> Path:
    """Write frames (1, 3, H, W) as a film; the parameters and the errors are those of `FilmWriter`.

    Returns:
        The path written.
    """
    with FilmWriter(path, fps, hold=hold) as film:
        for frame in frames:
            film.add(frame)
    return film.path


def check_film_writable(path: str | os.PathLike[str]) -> Path:
    """Find out whether a film could be saved there, before minutes of work rather than after.

    Raises:
        ImageError: the folder cannot be made or written to.
        SettingError: the name's ending says no format of films.
    """
    return check_writable(path, _ENDINGS)


# ------------------------------------------------------------------------------------------------ reading


def read_film(path: str | os.PathLike[str], *, size: int | None = None) -> tuple[Iterator[Tensor], float]:
    """Read a film: MP4, MOV, WebM, MKV, AVI and what else PyAV reads, or an animated GIF or WebP.

    Frames are decoded as they are asked for, so that a long film needs no more memory than a short one;
    ``list(frames)`` has them all. Films of phones are turned upright. A GIF or WebP frame that is shown
    longer than the others comes several times; of films with an irregular rate every frame comes once.

    Args:
        path: the file.
        size: longest side in pixels; larger frames are shrunk with antialiasing, smaller ones are kept.

    Returns:
        An iterator over the frames (1, 3, H, W), float32, in [0, 1], on the CPU, and the frames a second.

    Raises:
        ImageError: the file is missing, is no film, or has no frame; while iterating: it is damaged.
        SettingError: ``size`` is not a positive whole number.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"There is no film '{path}': check the name of the file.")
    with path.open("rb") as file:
        head = file.read(12)
    animation = head.startswith(b"GIF8") or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))
    frames, fps = (_read_animation if animation else _read_video)(path)
    shrunk = (frame if size is None else resize(frame, size) for frame in frames)
    first = next(shrunk, None)  # asked for now, so that a film without frames is told at once
    if first is None:
        raise ImageError(f"'{path}' holds no frame: the recording or copy failed, so get it again.")
    return itertools.chain([first], shrunk), fps


def _read_video(path: Path) -> tuple[Iterator[Tensor], float]:
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path.absolute()), metadata_errors="ignore", container_options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ImageError(
            f"'{path}' is in no film format known here: save it as MP4, or check that it is the right file."
        ) from error
    if not container.streams.video:
        raise ImageError(f"'{path}' holds no moving picture (only sound, perhaps): name another file.")
    stream = container.streams.video[0]
    return _decode(path, container), float(stream.average_rate or stream.guessed_rate or 25)


def _decode(path: Path, container: av.container.InputContainer) -> Iterator[Tensor]:
    count = 0
    with container:
        try:
            for frame in container.decode(video=0):
                # Before version 17 PyAV ignores the label in the frame unless both matrices are given.
                matrix = Colorspace.ITU709 if frame.colorspace == _BT709 else None
                rgb = frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace=Colorspace.ITU601)
                image = torch.from_numpy(rgb.to_ndarray()).permute(2, 0, 1)[None].float() / 255
                turns = round(frame.rotation / 90)  # counterclockwise, as in rot90
                yield torch.rot90(image, turns, (2, 3)).contiguous()
                count += 1
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise ImageError(
                f"'{path}' is damaged after {count} frames ({reason(error)}): get it again from its source."
            ) from error


def _read_animation(path: Path) -> tuple[Iterator[Tensor], float]:
    durations = []
    with open_picture(path) as im:
        for frame in ImageSequence.Iterator(im):
            frame.load()
            shown = float(frame.info.get("duration", 0))
            durations.append(shown if shown > 10 else 100.0)  # as browsers do
    # The length of one frame: that of the shorter ones, which rounding has made a little unequal.
    usual = [shown for shown in durations if shown < 1.5 * min(durations)]
    step = sum(usual) / len(usual)
    repeats = [max(1, round(shown / step)) for shown in durations]
    return _show(path, repeats), 1000 * sum(repeats) / sum(durations)


def _show(path: Path, repeats: list[int]) -> Iterator[Tensor]:
    with open_picture(path) as im:
        for frame, count in zip(ImageSequence.Iterator(im), repeats, strict=True):
            image = from_pil(frame)
            for _ in range(count):
                yield image.clone()
