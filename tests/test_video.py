"""Films in and out: what was written comes back, and what cannot be is one sentence before any work."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from conftest import refused
from torch import Tensor

from nstlib.errors import ImageError, SettingError
from nstlib.pictures import video
from nstlib.pictures.files import to_pil
from nstlib.pictures.video import FilmWriter, read_film, save_film

ENDINGS = ("mp4", "gif", "webp")


def numbered(count: int, height: int = 64, width: int = 80) -> list[Tensor]:
    """Smooth frames, each with a bar of its own place and a color of its own."""
    frames = []
    for i in range(count):
        y = torch.linspace(0, 1, height).view(-1, 1).expand(height, width)
        x = torch.linspace(0, 1, width).expand(height, width)
        frame = torch.stack([0.2 + 0.6 * x, 0.3 + 0.4 * y, torch.full_like(x, 0.1 + 0.8 * i / count)])
        start = round(i * width / count)
        frame[:, :, start : start + max(2, width // count)] = 0.95
        frames.append(frame[None])
    return frames


def flat(red: float, green: float, blue: float, height: int = 32, width: int = 48) -> Tensor:
    return torch.tensor([float(red), green, blue]).view(1, 3, 1, 1).repeat(1, 1, height, width)


def read(path: Path, **options: int) -> tuple[list[Tensor], float]:
    frames, fps = read_film(path, **options)
    return list(frames), fps


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_film_comes_back_with_its_frames_in_order(tmp_path, ending):
    frames = numbered(9)
    path = save_film(frames, tmp_path / f"film.{ending}", fps=10)
    back, fps = read(path)
    assert path == tmp_path / f"film.{ending}"
    assert left_behind(tmp_path) == [path.name]
    assert len(back) == 9
    assert fps == pytest.approx(10)
    for i, frame in enumerate(back):
        assert frame.shape == (1, 3, 64, 80)
        assert frame.dtype == torch.float32
        assert frame.min() >= 0
        assert frame.max() <= 1
        distances = [(frame - other).abs().mean().item() for other in frames]
        assert distances.index(min(distances)) == i
        assert distances[i] < 0.02


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("color", [(1, 0, 0), (0, 0, 1), (1, 1, 1), (0.9, 0.6, 0.5), (0.5, 0.2, 0.8)])
def test_colors_come_back_to_three_levels_of_255(tmp_path, ending, color):
    frame = flat(*color)
    back, _ = read(save_film([frame, frame.flip(1), frame], tmp_path / f"film.{ending}"))
    assert (back[0] - frame).abs().max() <= 3.5 / 255


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 40), (17, 2)])
def test_any_size_is_filmed_and_an_odd_side_repeats_its_last_pixel(tmp_path, height, width):
    frames = [flat(0.9, 0.6, 0.5, height, width) * shade for shade in (0.5, 0.7, 0.9)]
    back, _ = read(save_film(frames, tmp_path / "film.mp4"))
    assert len(back) == 3
    assert back[0].shape == (1, 3, height + height % 2, width + width % 2)
    assert (back[2][..., :height, :width] - frames[2]).abs().max() < 0.03
    assert (back[2][..., -1, :] - back[2][..., -2, :]).abs().max() < 0.02


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_last_frame_is_held(tmp_path, ending):
    frames = numbered(6)
    back, fps = read(save_film(frames, tmp_path / f"film.{ending}", fps=12, hold=1.5))
    assert len(back) == 6 + 18
    assert fps == pytest.approx(12, rel=0.01)
    assert all((frame - frames[-1]).abs().mean() < 0.02 for frame in back[5:])
    assert (back[4] - frames[-1]).abs().mean() > 0.03


@pytest.mark.parametrize(("ending", "fps"), [("mp4", 29.97), ("gif", 12), ("gif", 50), ("webp", 30)])
def test_the_rate_comes_back_though_gif_counts_in_hundredths_of_a_second(tmp_path, ending, fps):
    back, rate = read(save_film(numbered(10), tmp_path / f"film.{ending}", fps=fps))
    assert len(back) == 10
    assert rate == pytest.approx(fps, rel=0.02)


def test_frames_of_several_sizes_are_brought_to_one(tmp_path):
    with FilmWriter(tmp_path / "pair.mp4", size=(48, 60)) as film:
        for height, width in ((16, 20), (33, 40), (64, 80)):
            film.add(numbered(1, height, width)[0])
    back, _ = read(film.path)
    assert [tuple(f.shape) for f in back] == [(1, 3, 48, 60)] * 3
    assert (back[0] - back[2]).abs().mean() < 0.05


def test_frames_are_read_smaller(tmp_path):
    for ending in ENDINGS:
        path = save_film(numbered(3), tmp_path / f"film.{ending}")
        assert [tuple(f.shape) for f in read(path, size=40)[0]] == [(1, 3, 32, 40)] * 3
        assert tuple(read(path, size=500)[0][0].shape) == (1, 3, 64, 80)


# ---------------------------------------------------------------------------------------- inside the file


def test_players_can_begin_before_the_whole_mp4_is_there(tmp_path):
    content = save_film(numbered(3), tmp_path / "film.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_mp4_holds_and_names_the_colors_of_bt709(tmp_path):
    path = save_film([flat(1, 0, 0)] * 2, tmp_path / "film.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(video=0))
        assert (stream.codec_context.name, frame.format.name) == ("h264", "yuv420p")
        assert (frame.colorspace, frame.color_range) == (1, 1)
        # Limited range: 16 + 219 · 0.2126 for the luma of pure red, 128 + 224 / 2 for its red difference.
        levels = [np.frombuffer(plane, np.uint8)[0] for plane in frame.planes]
    assert levels[0] == pytest.approx(16 + 219 * 0.2126, abs=1)
    assert levels[2] == pytest.approx(240, abs=1)


# ----------------------------------------------------------------------------------------- films of others


def written(path: Path, codec: str, frames: list[Tensor], matrix: Colorspace = Colorspace.ITU601) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, Fraction(24))
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[3], frames[0].shape[2], "yuv420p"
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.asarray(to_pil(image)), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=matrix)))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.mov", "libx264")]
)
def test_films_of_other_kinds_are_read(tmp_path, name, codec):
    back, fps = read(written(tmp_path / name, codec, [flat(0.8, 0.4, 0.2)] * 5))
    assert len(back) == 5
    assert fps == pytest.approx(24)
    assert (back[0] - flat(0.8, 0.4, 0.2)).abs().max() < 0.03  # no label: the matrix of BT.601


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0))],
    ids=["90 clockwise", "180", "90 counterclockwise"],
)
def test_films_of_phones_are_turned_upright(tmp_path, matrix, corner):
    image = flat(0.1, 0.1, 0.1, 32, 64)
    image[..., :16, :16] = 0.9  # above left, as the sensor saw it
    content = bytearray(save_film([image] * 2, tmp_path / "film.mp4").read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    at = content.index(b"tkhd") + 4 + 40  # the track's matrix: x' = a x + c y, y' = b x + d y
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "film.mp4").write_bytes(content)
    frame = read(tmp_path / "film.mp4")[0][0]
    assert frame.shape[-2:] == ((32, 64) if b == 0 else (64, 32))
    row, column = corner
    assert frame[0, :, 4 if row == 0 else -5, 4 if column == 0 else -5].min() > 0.8
    assert frame[0, :, -5 if row == 0 else 4, -5 if column == 0 else 4].max() < 0.2


# ------------------------------------------------------------------------------- interrupts and errors inside


def then_raise(error: type[BaseException], frames: list[Tensor]) -> Iterator[Tensor]:
    yield from frames
    raise error


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupted_film_is_finished_and_kept(tmp_path, ending):
    path = tmp_path / f"film.{ending}"
    with pytest.raises(KeyboardInterrupt):
        save_film(then_raise(KeyboardInterrupt, numbered(8)[:5]), path)
    assert left_behind(tmp_path) == [path.name]
    assert len(read(path)[0]) == 5


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_error_keeps_the_older_film_and_leaves_nothing_else(tmp_path, ending):
    path = tmp_path / f"film.{ending}"
    path.write_bytes(b"the older film")
    with pytest.raises(RuntimeError):
        save_film(then_raise(RuntimeError, numbered(2)), path)
    assert left_behind(tmp_path) == [path.name]
    assert path.read_bytes() == b"the older film"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, ending):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(video.os, "replace", full)
    with pytest.raises(ImageError, match=r"film.* is not saved because the disk is full: free some space"):
        save_film(numbered(2), tmp_path / f"film.{ending}")
    assert left_behind(tmp_path) == []


# --------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda d: FilmWriter(d / "film.avi"), SettingError, "which format.*name in .mp4, .gif, .webp"),
        (lambda d: FilmWriter(d / "folder.gif"), ImageError, "it is the name of a folder: choose another"),
        (lambda d: FilmWriter(d / "film.mp4", 0), SettingError, "fps is 0 .*from 0.1 to 1000"),
        (lambda d: FilmWriter(d / "film.gif", 60), SettingError, "fps is 60 .*from 0.1 to 50"),
        (lambda d: FilmWriter(d / "film.mp4", hold=-1), SettingError, "hold -1, but.*0 to 3600 seconds"),
    ],
)
def test_what_cannot_be_filmed_is_said_before_any_work(tmp_path, make, error, message):
    (tmp_path / "folder.gif").mkdir()
    with refused(error, match=message):
        make(tmp_path)
    assert left_behind(tmp_path) == ["folder.gif"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "film has no frame: add at least one"),
        ([torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9)], r"frame 2 has 9 × 8 pixels.*size=\(8, 8\)"),
        ([torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), float("nan"))], "frame 2 .*not numbers"),
        ([torch.full((1, 3, 8, 8), 255.0)], "frame 1's values .*divide by 255"),
    ],
)
@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_frames_that_are_none_are_refused_and_leave_nothing(tmp_path, ending, frames, message):
    with pytest.raises(ImageError, match=message):
        save_film(frames, tmp_path / f"film.{ending}")
    assert left_behind(tmp_path) == []


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfilm.ts\n"

NO_FILM = {
    "text": ("a.mp4", b"Notes in a file of the wrong name.\n" * 99, "no film format known here: save it as"),
    "a list of addresses": ("a.mp4", PLAYLIST.encode(), "no film format"),
    "half a gif header": ("a.gif", b"GIF89a\x10\0", "cannot be read"),
    "nothing": ("b.mp4", None, "There is no film"),
}


@pytest.mark.parametrize(("name", "content", "message"), NO_FILM.values(), ids=NO_FILM)
def test_files_that_are_no_film_are_told(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with refused(ImageError, match=message) as caught:
        read_film(tmp_path / name)
    assert name in str(caught.value)


def test_sound_without_pictures_is_told(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", 44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ImageError, match="no moving picture"):
        read_film(tmp_path / "song.mp4")


def test_a_film_that_was_cut_short_gives_its_good_frames_and_then_says_so(tmp_path):
    frames = [torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(12)]
    content = save_film(frames, tmp_path / "film.mp4").read_bytes()
    (tmp_path / "film.mp4").write_bytes(content[: len(content) * 2 // 3])
    film, _ = read_film(tmp_path / "film.mp4")
    good = []
    with pytest.raises(ImageError) as caught:
        good.extend(film)
    assert 0 < len(good) < 12
    assert f"damaged after {len(good)} frames" in str(caught.value)
