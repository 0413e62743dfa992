"""Films in and out: the frames of a picture being painted, and clips whose frames are stylized.

A film is a sequence of pictures (1, 3, H, W) in [0, 1], all of one size. MP4 (H.264) is written and every
usual format read by PyAV, which brings FFmpeg's libraries along; GIF and WebP go through Pillow.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace
from PIL import Image
from torch import Tensor

from ..assets.writing import reason
from ..errors import ImageError, SettingError
from .files import MAX_PIXELS, from_pil, resize, to_pil

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
        path: The file, ending in .mp4, .gif or .webp, in a folder that is there.
        fps: Frames a second; for .gif and .webp at most 50.
        size: A pair (h, w) to which all frames are resized, or the longest side of the first frame, whose
            size the others then get; smaller frames are enlarged. None: all must have the size of the first.
        hold: Seconds for which the last frame stays, on top of its own time.

    Raises:
        ImageError: The folder is missing or cannot be written to.
        SettingError: The ending, or the value of a parameter, makes no sense.

    Example:
        >>> with FilmWriter("progress.mp4", hold=2) as film:  # doctest: +SKIP
        ...     film.add(picture)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float = 12,
        *,
        size: int | tuple[int, int] | None = None,
        hold: float = 0,
    ) -> None:
        self.path = check_film_writable(path)
        most = 1000 if self.path.suffix.lower() == ".mp4" else _ANIMATION_FPS
        if not _number(fps) or not 0.1 <= fps <= most:
            raise SettingError(f"fps is {fps!r}, but must be from 0.1 to {most}: pass 12, for example.")
        if not _number(hold) or not 0 <= hold <= 3600:
            raise SettingError(f"hold is {hold!r}, but must be from 0 to 3600 seconds: pass 2, for example.")
        self.fps, self.hold, self.count = float(fps), float(hold), 0
        for side in size if isinstance(size, tuple | list) and len(size) == 2 else (size,):
            _whole_or_none("size", side)
        self._size = size
        self._shape: tuple[int, int] | None = None
        self._part = self.path.with_name(f".nst-{secrets.token_hex(6)}.part")
        self._encoder: _Mp4 | _Animation | None = None

    def __enter__(self) -> FilmWriter:
        kind = self.path.suffix.lower()
        with _telling(self.path):
            if kind == ".mp4":
                self._encoder = _Mp4(self._part, Fraction(self.fps).limit_denominator(1001))
            else:
                self._encoder = _Animation(self._part, kind[1:].upper(), self.fps)
        return self

    def add(self, image: Tensor) -> None:
        """Append a frame.

        Args:
            image: (1, 3, H, W) in [0, 1], on any device.

        Raises:
            ImageError: It is no picture, has another size than the first frame, or the disk is full.
            SettingError: The film is not open.
        """
        if self._encoder is None:
            raise SettingError(
                f"'{self.path}' is not open for frames: write `with FilmWriter(...) as film:`."
            )
        if not isinstance(image, Tensor) or image.ndim != 4 or tuple(image.shape[:2]) != (1, 3):
            what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ImageError(f"A frame is a picture (1, 3, H, W), not {what}: add the frames one by one.")
        image = image.detach()
        if self._size is not None:
            image = resize(image, self._shape or self._size, allow_upscale=True)
        shape = (image.shape[-2], image.shape[-1])
        if self._shape not in (None, shape):
            h, w = self._shape
            raise ImageError(
                f"Frame {self.count + 1} has {shape[0]} × {shape[1]} pixels and those before it {h} × {w}: "
                f"resize it, or let the film do so with size=({h}, {w})."
            )
        try:
            picture = to_pil(image)
        except ImageError as error:
            raise ImageError(f"Frame {self.count + 1} cannot be used: {error}") from error
        with _telling(self.path):
            self._encoder.add(picture)
        self._shape, self.count = shape, self.count + 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        try:
            if self.count and (kind is None or issubclass(kind, KeyboardInterrupt)):
                with _telling(self.path):
                    encoder.finish(self.hold)
                    with self._part.open("rb+") as file:  # on the disk before it has its name
                        os.fsync(file.fileno())
                    os.replace(self._part, self.path)
        finally:
            with contextlib.suppress(Exception):  # of a file that is thrown away
                encoder.close()
            self._part.unlink(missing_ok=True)
        if kind is None and not self.count:
            raise ImageError(f"'{self.path}' is not saved because the film has no frame: add at least one.")


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turn what encoders and the disk raise into one sentence."""
    try:
        yield
    except (OSError, ValueError, av.error.FFmpegError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC
        remedy = "free some space and try again" if full else "choose another name or folder"
        raise ImageError(f"'{path}' is not saved ({_why(error)}): {remedy}.") from error


class _Mp4:
    """H.264 in the form every browser plays: 4:2:0, BT.709, the index before the pictures."""

    def __init__(self, part: Path, rate: Fraction) -> None:
        options = {"movflags": "+faststart"}
        self.container = av.open(str(part.absolute()), "w", format="mp4", container_options=options)
        # 18 is where most see no loss; "veryfast" makes the same size in two thirds of the default's time.
        self.stream = self.container.add_stream("libx264", rate, options={"crf": "18", "preset": "veryfast"})
        self.rate = rate
        self.last = np.empty((0, 0, 3), np.uint8)

    def add(self, picture: Image.Image) -> None:
        array = np.asarray(picture)
        h, w = array.shape[:2]
        array = np.pad(array, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        if self.last.size == 0:
            context = self.stream.codec_context
            self.stream.width, self.stream.height, self.stream.pix_fmt = w + w % 2, h + h % 2, "yuv420p"
            # Without these labels players guess, and guess differently for small films than for large ones.
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = 1  # limited range, 16 to 235
        self.last = array
        frame = av.VideoFrame.from_ndarray(array, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        self.container.mux(self.stream.encode(frame))

    def finish(self, hold: float) -> None:
        for _ in range(round(hold * self.rate)):  # players do not agree on a last frame of its own duration
            self.add(Image.fromarray(self.last))
        self.container.mux(self.stream.encode())
        self.container.close()

    def close(self) -> None:
        self.container.close()


class _Animation:
    """GIF or WebP; equal neighbors become one frame that is shown longer."""

    def __init__(self, part: Path, kind: str, fps: float) -> None:
        self.part, self.kind, self.fps = part, kind, fps
        self.frames: list[Image.Image] = []

    def add(self, picture: Image.Image) -> None:
        if self.kind == "GIF":
            # The octree keeps small areas' colors, which the median cut loses (and takes 200 times as long);
            # dithering hides the bands that either leaves on skin.
            palette = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
            picture = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        self.frames.append(picture)

    def finish(self, hold: float) -> None:
        unit = 10 if self.kind == "GIF" else 1
        # Rounded ends, not rounded lengths: 12 frames a second then last a second in hundredths as well.
        ends = [round(1000 * i / self.fps / unit) * unit for i in range(len(self.frames) + 1)]
        durations = [end - start for start, end in itertools.pairwise(ends)]
        durations[-1] += round(1000 * hold / unit) * unit
        first, *rest = self.frames
        shown = durations if rest else durations[0]
        with self.part.open("wb") as file:  # the quality is WebP's
            first.save(file, self.kind, save_all=True, append_images=rest, duration=shown, loop=0, quality=90)

    def close(self) -> None:
        self.frames.clear()


def save_film(
    frames: Iterable[Tensor],
    path: str | os.PathLike[str],
    fps: float = 12,
    *,
    size: int | tuple[int, int] | None = None,
    hold: float = 0,
) -> Path:
    """Write frames (1, 3, H, W) as a film; the parameters and the errors are those of `FilmWriter`.

    Returns:
        The path written.
    """
    with FilmWriter(path, fps, size=size, hold=hold) as film:
        for frame in frames:
            film.add(frame)
    return film.path


def check_film_writable(path: str | os.PathLike[str]) -> Path:
    """Find out whether a film could be saved there, before minutes of work rather than after.

    Raises:
        ImageError: The folder is missing or cannot be written to.
        SettingError: The name's ending says no format of films.
    """
    path = Path(path)
    if path.suffix.lower() not in _ENDINGS:
        raise SettingError(
            f"'{path}' does not say in which format to film: end the name in {', '.join(_ENDINGS)}."
        )
    if not os.path.isdir(path.parent):
        raise ImageError(f"'{path}' cannot be written, because there is no folder '{path.parent}': make it.")
    if os.path.isdir(path):
        raise ImageError(f"'{path}' is a folder: name a file in it, for example '{path / 'film.mp4'}'.")
    probe = path.with_name(f".nst-{secrets.token_hex(6)}.part")
    try:
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # a name too long would be told by the renaming only, after all the work
        probe.touch(exist_ok=False)
        probe.unlink()
    except (OSError, ValueError) as error:
        raise ImageError(f"'{path}' cannot be written ({reason(error)}): choose another folder.") from error
    return path


# ------------------------------------------------------------------------------------------------ reading


def read_film(
    path: str | os.PathLike[str], *, size: int | None = None, limit: int | None = None
) -> tuple[Iterator[Tensor], float]:
    """Read a film: MP4, MOV, WebM, MKV, AVI and what else PyAV reads, or an animated GIF or WebP.

    Frames are decoded as they are asked for, so that a long film needs no more memory than a short one;
    ``list(frames)`` has them all. Films of phones are turned upright. A GIF or WebP frame that is shown
    longer than the others comes several times; of films with an irregular rate every frame comes once.

    Args:
        path: The file.
        size: Longest side in pixels; larger frames are shrunk with antialiasing, smaller ones are kept.
        limit: How many frames to read at most.

    Returns:
        An iterator over the frames (1, 3, H, W), float32, in [0, 1], on the CPU, and the frames a second.

    Raises:
        ImageError: The file is missing, is no film, or has no frame; while iterating: it is damaged.
        SettingError: `size` or `limit` is not a positive whole number.
    """
    _whole_or_none("size", size)
    _whole_or_none("limit", limit)
    path = Path(path)
    if not os.path.isfile(path):
        what = "is a folder, not a film" if os.path.isdir(path) else "is not there"
        raise ImageError(f"'{path}' {what}: check the name of the file.")
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise ImageError(f"'{path}' cannot be read ({reason(error)}): check its access rights.") from error
    if not head:
        raise ImageError(f"'{path}' is empty: the copy or download failed, so get it again.")
    animation = head.startswith(b"GIF8") or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))
    frames, fps = (_read_animation if animation else _read_video)(path)
    shrunk = (frame if size is None else resize(frame, size) for frame in frames)
    first = next(shrunk, None)  # asked for now, so that a film without frames is told at once
    if first is None:
        raise ImageError(f"'{path}' holds no frame: the recording or copy failed, so get it again.")
    return itertools.islice(itertools.chain([first], shrunk), limit), fps


def _read_video(path: Path) -> tuple[Iterator[Tensor], float]:
    try:
        container = av.open(
            str(path.absolute()),
            metadata_errors="ignore",
            container_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ImageError(
            f"'{path}' is in no film format known here: save it as MP4, or check that it is the right file."
        ) from error
    if not container.streams.video:
        container.close()
        raise ImageError(f"'{path}' holds no moving picture (only sound, perhaps): name another file.")
    stream = container.streams.video[0]
    if stream.width * stream.height > MAX_PIXELS:
        container.close()
        raise ImageError(
            f"'{path}' has frames of {stream.width} × {stream.height} pixels, too many to decode: shrink it."
        )
    rate = stream.average_rate or stream.guessed_rate
    return _decode(path, container), float(rate) if rate else 25.0


def _decode(path: Path, container: Any) -> Iterator[Tensor]:
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
            rest = f", or read the good ones with limit={count}" if count else " from its source"
            raise ImageError(
                f"'{path}' is damaged after {count} frames ({_why(error)}): get it again{rest}."
            ) from error


def _read_animation(path: Path) -> tuple[Iterator[Tensor], float]:
    try:
        with Image.open(path, formats=("GIF", "WEBP")) as im:
            durations = []
            for i in range(getattr(im, "n_frames", 1)):
                im.seek(i)
                im.load()
                shown = float(im.info.get("duration", 0))
                durations.append(shown if shown > 10 else 100.0)  # as browsers do
    except Exception as error:  # decoders raise nearly everything on damaged data
        raise ImageError(f"'{path}' is damaged ({reason(error)}): get it again from its source.") from error
    # The length of one frame: that of the shorter ones, which rounding has made a little unequal.
    usual = [shown for shown in durations if shown < 1.5 * min(durations)]
    step = sum(usual) / len(usual)
    repeats = [max(1, round(shown / step)) for shown in durations]
    return _show(path, repeats), 1000 * sum(repeats) / sum(durations)


def _show(path: Path, repeats: list[int]) -> Iterator[Tensor]:
    with Image.open(path, formats=("GIF", "WEBP")) as im:
        for i, count in enumerate(repeats):
            im.seek(i)
            image = from_pil(im)
            for _ in range(count):
                yield image.clone()


def _why(error: BaseException) -> str:
    """As `reason`, also for FFmpeg's errors, whose own text begins with a number of ten digits."""
    text = getattr(error, "strerror", None) if isinstance(error, av.error.FFmpegError) else None
    return text or reason(error)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole_or_none(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise SettingError(f"{name} holds {value!r}, but must be whole numbers of at least 1: pass those.")
