"""Films in and out: the frames of a picture being painted, and clips whose frames are stylized.

A film is a sequence of pictures (1, 3, H, W) in [0, 1], all of one size. MP4 (H.264) is written and every
usual format read by PyAV, which brings FFmpeg's libraries along; GIF, WebP and PNG go through Pillow.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mimetypes
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, VideoReformatter
from PIL import Image, ImageSequence
from torch import Tensor

from ..assets.writing import atomic, reason
from ..errors import ImageError, SettingError
from .files import check_picture, check_writable, from_pil, is_picture, open_picture, resize, to_pil

_ENDINGS = (".mp4", ".gif", ".webp")
_ANIMATION_FPS = 50  # viewers slow down what is shown for 10 ms or less; GIF counts in hundredths of a second
# Only these readers may run: FFmpeg takes some text files for lists of further files and addresses to open.
_CONTAINERS = (
    "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,ogg,asf,h264,hevc,m4v,ivf,dv,mjpeg,yuv4mpegpipe"
)
_BT709 = 1  # in the standard's own numbering, for the matrix, the primaries and the curve
_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG
_WIDE = (ColorPrimaries.BT2020, ColorPrimaries.SMPTE431, ColorPrimaries.SMPTE432)
_TICK = Fraction(1, 90000)  # second: the clock of MPEG
_SOUND = ("aac", "mp3", "opus", "flac")  # what browsers play in an MP4
_STILLS = ("heic", "heix", "mif1", "avif")  # photographs, which FFmpeg opens as films of one frame


# ------------------------------------------------------------------------------------------------ writing


class FilmWriter:
    """Write a film frame by frame; it appears whole under its name when the block ends, or not at all.

    MP4 frames are encoded as they come, so that memory stays flat; GIF and WebP frames are kept until the
    end, as one byte or three a pixel. H.264 halves the color's resolution and so needs even sides: an odd
    side gets one more pixel, a copy of its last row or column. GIF has 256 colors a frame.
    A film that the keyboard interrupts is finished and kept, if it has a frame; after any other error
    nothing is left behind, and a film of the same name stays as it was.

    Attributes:
        count: frames added so far.
        end: the second at which the last frame ends; set before the block ends, it says that the film is
            complete and its sound goes on to its own end. None: a frame's time after the last one, where
            the sound ends, too.

    Args:
        path: the file, ending in .mp4, .gif or .webp; a missing folder is made.
        fps: frames a second; for .gif and .webp at most 50.
        size: (h, w) to which all frames are resized. None: all must have the size of the first.
        hold: seconds for which the last frame stays, on top of its own time.
        sound: a film whose sound tracks an MP4 gets: copied, or as AAC where MP4 players lack the format.

    Raises:
        ImageError: the folder cannot be written to.
        SettingError: the ending, or the value of a parameter, makes no sense.

    Example:
        >>> with FilmWriter("progress.mp4", hold=2) as film:  # doctest: +SKIP
        ...     film.add(picture)
    """

    def __init__(
        self, path: str | os.PathLike[str], fps: float = 12, *, size: tuple[int, int] | None = None,
        hold: float = 0, sound: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        self.path = check_film_writable(path)
        most = 1000 if self.path.suffix.lower() == ".mp4" else _ANIMATION_FPS
        if not (0.1 <= fps <= most and 0 <= hold <= 3600):
            raise SettingError(
                f"fps is {fps} and hold {hold}, but must be from 0.1 to {most} and from 0 to 3600 seconds: "
                "pass 12 and 2, for example."
            )
        self.count = 0
        self.end: float | None = None
        self._fps, self._hold, self._size, self._sound = float(fps), float(hold), size, sound
        self._encoder: Any = None  # _Mp4 or _Animation, from the first frame on
        self._file = atomic(self.path)

    def __enter__(self) -> FilmWriter:
        self._part = self._file.__enter__()
        return self

    def add(self, image: Tensor, start: float | None = None) -> None:
        """Append a frame.

        Args:
            image: (1, 3, H, W) in [0, 1], on any device.
            start: the second at which it is shown. None: frames follow each other at ``fps``.

        Raises:
            ImageError: it is no picture, or has another size than the first frame.
        """
        name = f"film's frame {self.count + 1}"
        image = resize(check_picture(name, image, count=1).detach(), self._size)
        picture = to_pil(image, name=name)
        if self._encoder is None:
            kind = _Mp4 if self._part.suffix.lower() == ".mp4" else _Animation
            self._encoder = kind(self._part, self._fps, picture.size, self._sound)
        width, height = self._encoder.size
        if picture.size != (width, height):
            raise ImageError(
                f"The {name} has {picture.width} × {picture.height} pixels and those before it have "
                f"others: resize it, or let the film do so with size=({height}, {width})."
            )
        self._start = self.count / self._fps if start is None else start
        self._encoder.add(picture, self._start)
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as stack:
            stack.push(self._file)
            if kind is None and not self.count:
                raise ImageError(f"'{self.path}' is not saved because it has no frame: add at least one.")
            if self.count and (kind is None or issubclass(kind, KeyboardInterrupt)):
                end = self._start + 1 / self._fps if self.end is None else self.end
                self._encoder.finish(end + self._hold, whole=self.end is not None)
            elif error is not None:
                with contextlib.suppress(Exception):  # of a file that is thrown away
                    self._encoder.container.close()
                raise error


class _Mp4:
    """H.264 in the form every browser plays: 4:2:0, BT.709, the index before the pictures."""

    def __init__(self, part: Path, fps: float, size: tuple[int, int], sound: Any) -> None:
        self.size, self.step = size, 1 / fps
        options = {"movflags": "+faststart", "strict": "-1"}  # players take more sound than the standard
        self.container = av.open(str(part.absolute()), "w", format="mp4", container_options=options)
        # 18 is where most see no loss; "veryfast" makes the same size in two thirds of the default's time.
        # Without B-frames the durations in the file are those of the frames, and long ones are kept.
        options = {"crf": "18", "preset": "veryfast", "bf": "0"}
        self.stream = self.container.add_stream("libx264", Fraction(fps).limit_denominator(1001), options)
        self.stream.width, self.stream.height = (side + side % 2 for side in size)
        self.stream.pix_fmt = "yuv420p"
        # Without these labels players guess, and guess differently for small films than for large ones.
        context = self.stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # limited range, 16 to 235
        context.time_base = _TICK
        self.sound = self._sound(sound) if sound else iter(())
        self.packet = next(self.sound, None)  # now, because all tracks must be there before the first frame

    def _sound(self, path: Any) -> Iterator[Any]:
        """The packets of another film's sound, ready for this file."""
        # An animation has no sound, and trouble with the sound is no reason to lose the pictures.
        with contextlib.suppress(ImageError, av.error.FFmpegError), _open(path) as source:
            known = [track for track in source.streams.audio if track.codec_context]  # FFmpeg lacks others
            begin, targets, file = (source.start_time or 0) / av.time_base, {}, self.container
            for track in known:
                copied = track.codec.canonical_name in _SOUND
                target = file.add_stream_from_template(track) if copied else file.add_stream("aac", 48000)
                targets[track.index] = target, copied
            for packet in source.demux(known) if known else ():
                target, copied = targets[packet.stream.index]
                if packet.pts is not None:
                    packet.pts = packet.dts = packet.pts - round(begin / packet.time_base)
                if copied and packet.pts is not None:
                    packet.stream = target
                    yield packet
                elif not copied:
                    with contextlib.suppress(av.error.InvalidDataError):
                        for frame in packet.decode():
                            if frame.pts is not None:  # the last few of WMA
                                yield from target.encode(frame)
                    if not packet.size:  # the end
                        yield from target.encode()

    def add(self, picture: Image.Image, start: float) -> None:
        self.last, self.start = picture, start
        missing = ((0, picture.height % 2), (0, picture.width % 2), (0, 0))
        array = np.pad(np.asarray(picture), missing, mode="edge")
        frame = av.VideoFrame.from_ndarray(array, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = round(start / _TICK), _TICK
        self.container.mux(self.stream.encode(frame))
        self.add_sound(start)

    def add_sound(self, until: float) -> None:
        while self.packet is not None and self.packet.pts * self.packet.time_base < until:
            with contextlib.suppress(ValueError):  # where the clock jumps back
                self.container.mux(self.packet)
            self.packet = next(self.sound, None)

    def finish(self, end: float, whole: bool) -> None:
        if end - self.start > 1.5 * self.step:  # players do not agree on a last frame of its own duration
            self.add(self.last, end - self.step)
        *packets, last = self.stream.encode()
        last.duration = round((end - self.start) / _TICK)
        self.container.mux([*packets, last])
        self.add_sound(math.inf if whole else end)
        self.container.close()


class _Animation:
    """GIF or WebP; equal neighbors become one frame that is shown longer."""

    def __init__(self, part: Path, fps: float, size: tuple[int, int], sound: Any) -> None:
        self.part, self.size = part, size
        self.gif = part.suffix.lower() == ".gif"
        self.frames: list[tuple[Image.Image, float]] = []

    def add(self, picture: Image.Image, start: float) -> None:
        if self.gif:
            # The octree keeps small areas' colors, which the median cut loses (and takes 200 times as long);
            # dithering hides the bands that either leaves on skin.
            palette = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
            picture = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        self.frames.append((picture, start))

    def finish(self, end: float, whole: bool) -> None:
        unit = 10 if self.gif else 1  # milliseconds
        # Rounded ends, not rounded lengths: 12 frames a second then last a second in hundredths as well.
        (first, *rest), starts = zip(*self.frames, strict=True)
        ends = [round(1000 * second / unit) * unit for second in (*starts, end)]
        durations = [end - start for start, end in itertools.pairwise(ends)]
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


def is_film(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds a film: by its content, or by its ending if it cannot be read.

    An animated GIF, WebP, PNG or AVIF is one if it has several frames.
    """
    with contextlib.suppress(ImageError), open_picture(path) as im:
        return im.format in ("GIF", "WEBP", "PNG", "AVIF") and getattr(im, "n_frames", 1) > 1
    with contextlib.suppress(ImageError), _open(path) as container:
        return container.metadata.get("major_brand") not in _STILLS
    return (mimetypes.guess_type(path)[0] or "").startswith("video")


def timed_frames(
    path: str | os.PathLike[str], *, size: int | None = None, shortest: float = 0
) -> tuple[Iterator[Tensor], list[float]]:
    """Read a film with its times: MP4, MOV, WebM, MPEG and what else PyAV reads, or an animated picture.

    Frames are decoded as they are asked for, so that a long film needs no more memory than a short one;
    ``list(frames)`` has them all. Films of phones are turned upright, HDR is brought to sRGB (its white to 1;
    what is brighter is clipped), and pixels that are not square become so.

    Args:
        path: the file.
        size: longest side in pixels; larger frames are shrunk with antialiasing, smaller ones are kept.
        shortest: seconds; frames that come sooner after the one before are left out.

    Returns:
        An iterator over the frames (1, 3, H, W), float32, in [0, 1], on the CPU; and a list of the seconds at
        which they begin, which grows as they are asked for and after the last one ends with the film's end.

    Raises:
        ImageError: the file is missing, is no film, or has no frame; while iterating: it is damaged.
        SettingError: ``size`` is not a positive whole number.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"There is no film '{path}': check the name of the file.")
    times: list[float] = []

    def timed() -> Iterator[Tensor]:
        late = last = 0.0
        for image, start, end in (_animation if is_picture(path) else _video)(path):
            if times and start + late <= times[-1]:  # two films joined: the clock jumps back
                late = last - start
            last = end + late
            if not times or start + late - times[-1] >= shortest:
                times.append(start + late if times else 0.0)
                yield resize(image, size)
        times.append(last)

    frames = timed()
    first = next(frames, None)  # asked for now, so that a film without frames is told at once
    if first is None:
        raise ImageError(f"'{path}' holds no frame: the recording or copy failed, so get it again.")
    return itertools.chain([first], frames), times


def _open(path: str | os.PathLike[str]) -> Any:
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        container = av.open(os.path.abspath(path), metadata_errors="ignore", container_options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ImageError(
            f"'{path}' is in no film format known here: save it as MP4, or check that it is the right file."
        ) from error
    if not container.streams.video:
        raise ImageError(f"'{path}' holds no moving picture (only sound, perhaps): name another file.")
    return container


def _video(path: Path) -> Iterator[tuple[Tensor, float, float]]:
    """The frames with the seconds at which they begin and end."""
    count, before = 0, 0.0
    reformatter = VideoReformatter()  # one for all frames, because HDR's tables take seconds
    with _open(path) as container:
        stream = container.streams.best("video")
        begin = (container.start_time or 0) / av.time_base
        step = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        shape = float(stream.sample_aspect_ratio or 1)
        try:
            for frame in container.decode(stream):
                hdr = frame.color_trc in _HDR
                rgb = reformatter.reformat(
                    frame, round(frame.width * max(shape, 1)), round(frame.height / min(shape, 1)), "rgb24",
                    dst_color_trc=ColorTrc.IEC61966_2_1 if hdr else None,
                    dst_color_primaries=_BT709 if hdr or frame.color_primaries in _WIDE else None,
                )  # fmt: skip
                image = torch.from_numpy(rgb.to_ndarray()).permute(2, 0, 1)[None].float() / 255
                turns = round(frame.rotation / 90)  # counterclockwise, as in rot90
                start = count * step if frame.time is None else frame.time - begin
                gap = start - before if count else step
                shown = float(frame.duration * frame.time_base) or gap
                if stream.codec_context.has_b_frames:  # then it may be the duration of another frame
                    shown = min(shown, gap)
                yield torch.rot90(image, turns, (2, 3)).contiguous(), start, start + shown
                count, before = count + 1, start
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise ImageError(
                f"'{path}' is damaged after {count} frames ({reason(error)}): get it again from its source."
            ) from error


def _animation(path: str | os.PathLike[str]) -> Iterator[tuple[Tensor, float, float]]:
    """The same of an animated picture."""
    start = 0.0
    with open_picture(path) as im:
        for frame in ImageSequence.Iterator(im):
            image = from_pil(frame)  # decoded: only now its duration is known
            shown = float(frame.info.get("duration", 0))
            end = start + (shown if shown > 10 else 100.0) / 1000  # as browsers do
            yield image, start, end
            start = end
