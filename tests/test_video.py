"""Films in and out: what was written comes back, and what cannot be is one sentence before any work."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from conftest import read_film, refused
from torch import Tensor

from nstlib.errors import ImageError, SettingError
from nstlib.pictures.files import to_pil
from nstlib.pictures.video import FilmWriter, is_film, save_film, timed_frames

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


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_film_comes_back_with_its_frames_in_order(tmp_path, ending):
    frames = numbered(9)
    path = save_film(frames, tmp_path / f"film.{ending}", fps=10)
    back, fps = read_film(path)
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
    back, _ = read_film(save_film([frame, frame.flip(1), frame], tmp_path / f"film.{ending}"))
    assert (back[0] - frame).abs().max() <= 3.5 / 255


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 40), (17, 2)])
def test_any_size_is_filmed_and_an_odd_side_repeats_its_last_pixel(tmp_path, height, width):
    frames = [flat(0.9, 0.6, 0.5, height, width) * shade for shade in (0.5, 0.7, 0.9)]
    back, _ = read_film(save_film(frames, tmp_path / "film.mp4"))
    assert len(back) == 3
    assert back[0].shape == (1, 3, height + height % 2, width + width % 2)
    assert (back[2][..., :height, :width] - frames[2]).abs().max() < 0.03
    assert (back[2][..., -1, :] - back[2][..., -2, :]).abs().max() < 0.02


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_last_frame_is_held(tmp_path, ending):
    frames = numbered(6)
    back, fps = read_film(save_film(frames, tmp_path / f"film.{ending}", fps=12, hold=1.5))
    assert len(back) == 6 + 18
    assert fps == pytest.approx(12, rel=0.01)
    assert all((frame - frames[-1]).abs().mean() < 0.02 for frame in back[5:])
    assert (back[4] - frames[-1]).abs().mean() > 0.03


@pytest.mark.parametrize(("ending", "fps"), [("mp4", 29.97), ("gif", 12), ("gif", 50), ("webp", 30)])
def test_the_rate_comes_back_though_gif_counts_in_hundredths_of_a_second(tmp_path, ending, fps):
    back, rate = read_film(save_film(numbered(10), tmp_path / f"film.{ending}", fps=fps))
    assert len(back) == 10
    assert rate == pytest.approx(fps, rel=0.02)


def test_frames_of_several_sizes_are_brought_to_one(tmp_path):
    with FilmWriter(tmp_path / "pair.mp4", size=(48, 60)) as film:
        for height, width in ((16, 20), (33, 40), (64, 80)):
            film.add(numbered(1, height, width)[0])
    back, _ = read_film(film.path)
    assert [tuple(f.shape) for f in back] == [(1, 3, 48, 60)] * 3
    assert (back[0] - back[2]).abs().mean() < 0.05


def test_frames_are_read_smaller(tmp_path):
    for ending in ENDINGS:
        path = save_film(numbered(3), tmp_path / f"film.{ending}")
        assert [tuple(f.shape) for f in read_film(path, size=40)[0]] == [(1, 3, 32, 40)] * 3
        assert tuple(read_film(path, size=500)[0][0].shape) == (1, 3, 64, 80)


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
    frame = read_film(tmp_path / "film.mp4")[0][0]
    assert frame.shape[-2:] == ((32, 64) if b == 0 else (64, 32))
    row, column = corner
    assert frame[0, :, 4 if row == 0 else -5, 4 if column == 0 else -5].min() > 0.8
    assert frame[0, :, -5 if row == 0 else 4, -5 if column == 0 else 4].max() < 0.2


def recorded(
    path: Path, codec: str = "libx264", starts: list[float] | None = None, *, sound: tuple[str, ...] = (),
    seconds: float = 0.5, late: float = 0, width: int = 96, height: int = 64, pixels: str = "yuv420p",
    frame: av.VideoFrame | None = None, kind: str | None = None, **context: object,
) -> Path:  # fmt: skip
    """A film as a camera may leave it: 12 frames a second or at ``starts``, with tracks of sound."""
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, Fraction(12))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        tick = Fraction(1, 12 if starts is None else 1000)
        stream.codec_context.time_base = tick
        tracks = [container.add_stream(name, 48000, layout="mono") for name in sound]
        for i, start in enumerate(starts or [i / 12 for i in range(6)]):
            shown = frame or av.VideoFrame.from_ndarray(
                np.asarray(to_pil(numbered(6, height, width)[i % 6])), format="rgb24"
            ).reformat(format=pixels)
            shown.pts, shown.time_base = round((start + late) / tick), tick
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
        for i, track in enumerate(tracks, start=1):
            tone = np.sin(np.arange(round(48000 * seconds)) * i / 20)
            heard = av.AudioFrame.from_ndarray(
                (8000 * tone)[None].astype(np.int16), format="s16", layout="mono"
            )
            heard.sample_rate, heard.time_base, heard.pts = 48000, Fraction(1, 48000), round(48000 * late)
            container.mux(track.encode(heard))
            container.mux(track.encode())
    return path


def copied(path: Path, source: Path, *, frames: int | None = None) -> Path:
    """The film written again, as `nst stylize` does; broken off after some frames if so many are given."""
    pictures, times = timed_frames(source)
    with FilmWriter(path, sound=source) as film:
        for picture in pictures:
            if film.count == frames:
                return path
            film.add(picture, times[film.count])
        film.end = times[-1]
    return path


def heard(path: Path) -> list[tuple[str, float]]:
    """Codec and second of the end of each sound track."""
    with av.open(str(path)) as container:
        ends = {track.index: 0.0 for track in container.streams.audio}
        for packet in container.demux(container.streams.audio) if ends else ():
            if packet.pts is not None:
                ends[packet.stream.index] = float((packet.pts + packet.duration) * packet.time_base)
        return [(track.codec.canonical_name, ends[track.index]) for track in container.streams.audio]


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.ts", "libx264", "mpegts"), ("a.mts", "libx264", "mpegts"), ("a.M2TS", "mpeg2video", "mpegts"),
        ("a.flv", "flv", None), ("a.wmv", "msmpeg4", "asf"), ("a.h264", "libx264", None),
        ("a", "libx264", "mov"), ("a.gif", "libx264", "mp4"), ("a.avi", "mpeg4", None),
        ("a.webm", "libvpx-vp9", None),
    ],
)  # fmt: skip
def test_films_are_told_by_what_they_hold(tmp_path, name, codec, kind):
    path = recorded(tmp_path / name, codec, kind=kind)
    assert is_film(path)
    frames, times = timed_frames(path)
    for frame, image in zip(frames, numbered(6, 64, 96), strict=True):
        assert (frame - image).abs().mean() < 0.03  # no label: the matrix of BT.601
    if name != "a.h264":  # which has no clock
        assert times == pytest.approx([i / 12 for i in range(7)], abs=0.02)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations_are_films_and_stills_are_none_whatever_their_names(tmp_path, kind):
    first, *rest = [to_pil(frame) for frame in numbered(4)]
    shown = {"save_all": True, "append_images": rest, "duration": [30, 30, 30, 6000]}
    first.save(tmp_path / "moving", kind, **shown)
    first.save(tmp_path / "still.mp4", kind)
    assert is_film(tmp_path / "moving")
    assert not is_film(tmp_path / "still.mp4")
    frames, times = timed_frames(tmp_path / "moving")
    for frame, image in zip(frames, numbered(4), strict=True):
        assert (frame - image).abs().mean() < 0.03
    assert times == pytest.approx([0, 0.03, 0.06, 0.09, 6.09])


def test_what_cannot_be_read_goes_by_its_name(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    assert [is_film(tmp_path / name) for name in ("a.mp4", "a.jpg", "b.mov", "b.png")] == [True, False] * 2


@pytest.mark.parametrize(
    ("name", "codec", "ratio", "shape"),
    [
        ("a.mp4", "libx264", (16, 11), (72, 131)), ("a.vob", "mpeg2video", (16, 15), (72, 96)),
        ("a.mkv", "libx264", (8, 9), (81, 90)), ("a.mov", "mpeg4", (1, 1), (72, 90)),
    ],
)  # fmt: skip
def test_pixels_become_square(tmp_path, name, codec, ratio, shape):
    path = recorded(tmp_path / name, codec, width=90, height=72, sample_aspect_ratio=Fraction(*ratio))
    frame = next(timed_frames(path)[0])
    assert tuple(frame.shape[-2:]) == shape
    bar = (frame[0, :, 10] > 0.8).all(0).nonzero()  # a sixth of the frame
    assert (bar.min().item(), bar.max().item()) == pytest.approx((0, shape[1] / 6), abs=3)


# ---------------------------------------------------------------------------------- colors, times and sound


def nits(values: Tensor) -> dict[int, Tensor]:
    """Gray of a luminance in candela per square meter, as PQ and as HLG (of a 1000-nit display) store it."""
    y = (values / 10000) ** 0.1593017578125
    pq = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    scene = (values / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    hlg = torch.where(scene <= 1 / 12, (3 * scene).sqrt(), a * (12 * scene - b).clamp(min=1e-6).log() + c)
    return {16: pq, 18: hlg}


@pytest.mark.parametrize("curve", [16, 18], ids=["PQ", "HLG"])
def test_hdr_becomes_srgb(tmp_path, curve):
    share = torch.tensor([0.0, 0.02, 0.18, 0.5, 1.0, 3.0])  # of reference white, 203 candela (BT.2408)
    stored = (nits(203 * share)[curve] * 65535).round().numpy().astype(np.uint16)
    bars = np.tile(np.repeat(stored, 16)[None, :, None], (64, 1, 3))
    frame = av.VideoFrame.from_ndarray(bars, format="rgb48le")
    frame = frame.reformat(format="yuv420p10le", dst_colorspace=Colorspace.BT2020)
    labels = {"color_trc": curve, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    for name, value in labels.items():
        setattr(frame, name, value)
    path = recorded(tmp_path / "a.mkv", pixels="yuv420p10le", frame=frame, **labels)
    found = next(timed_frames(path)[0])[0, :, 32, 8::16]
    seen = share.clamp(max=1)
    wanted = torch.where(seen < 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    assert (found - wanted).abs().max() < 0.02


def test_ten_bits_and_wide_primaries_without_hdr_are_read(tmp_path):
    color = np.tile(np.array([0.6, 0.4, 0.3]), (64, 96, 1))
    frame = av.VideoFrame.from_ndarray((color * 65535).astype(np.uint16), format="rgb48le")
    found = {}
    for primaries in (1, 9):
        ten = frame.reformat(format="yuv420p10le", dst_colorspace=Colorspace.BT2020)
        ten.colorspace, ten.color_primaries, ten.color_trc = 9, primaries, 14
        labels = {"color_trc": 14, "color_primaries": primaries, "colorspace": 9}
        path = recorded(tmp_path / f"{primaries}.mkv", pixels="yuv420p10le", frame=ten, **labels)
        found[primaries] = next(timed_frames(path)[0])[0, :, 30, 40]
    assert found[1].tolist() == pytest.approx([0.6, 0.4, 0.3], abs=0.02)
    assert found[9][0] > found[1][0] + 0.05  # the same numbers mean a stronger red
    assert found[9][2] < found[1][2] - 0.02


HOLD = [0.0, 0.04, 0.08, 2.08, 2.12, 2.16]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_times_are_kept(tmp_path, name, ending):
    path = copied(tmp_path / f"b.{ending}", recorded(tmp_path / name, starts=HOLD))
    frames, times = timed_frames(path)
    assert len(list(frames)) == 6
    assert times[:-1] == pytest.approx(HOLD, abs=0.003)
    assert times[-1] == pytest.approx(2.2, abs=0.05)


def test_a_film_of_one_frame(tmp_path):
    path = copied(tmp_path / "b.mp4", recorded(tmp_path / "a.mp4", starts=[0.0]))
    frames, times = timed_frames(path)
    assert len(list(frames)) == 1
    assert 0.03 < times[-1] < 0.1


@pytest.mark.parametrize(
    ("name", "sound", "wanted"),
    [
        ("a.mp4", ["aac"], ["aac"]),
        ("a.mov", ["pcm_s16le"], ["aac"]),
        ("a.ts", ["aac", "mp2"], ["aac", "aac"]),
        ("a.mkv", ["libopus", "flac", "ac3"], ["opus", "flac", "aac"]),
        ("a.avi", ["libmp3lame"], ["mp3"]),
        ("a.mkv", [], []),
    ],
)
def test_sound_is_kept(tmp_path, name, sound, wanted):
    source = recorded(tmp_path / name, "mpeg4", sound=sound, seconds=1.5, late=0.7)
    found = heard(copied(tmp_path / "b.mp4", source))
    assert [kind for kind, _ in found] == wanted
    before = heard(source)
    first = av.open(str(source)).start_time / av.time_base
    for (_, end), (_, there) in zip(found, before, strict=True):  # it plays out, after the last frame
        assert end == pytest.approx(there - first, abs=0.06)


def test_sound_ends_with_a_film_that_is_broken_off(tmp_path):
    source = recorded(tmp_path / "a.mkv", sound=("aac", "ac3"), seconds=0.5)
    for _, end in heard(copied(tmp_path / "b.mp4", source, frames=3)):
        assert end == pytest.approx(3 / 12, abs=0.04)


def test_what_is_wrong_with_the_sound_does_not_stop_the_film(tmp_path):
    """A codec that nobody knows, packets of zeros, and two films joined, whose clock jumps back."""
    content = recorded(tmp_path / "a.mp4", sound=("aac", "aac"), seconds=0.5).read_bytes()
    at = content.index(b"mp4a")
    unknown = content[:at] + content[at:].replace(b"mp4a", b"apac", 1).replace(b"esds", b"free", 1)
    (tmp_path / "a.mp4").write_bytes(unknown)
    assert [kind for kind, _ in heard(copied(tmp_path / "b.mp4", tmp_path / "a.mp4"))] == ["aac"]

    for codec in ("aac", "ac3"):
        source = recorded(tmp_path / f"{codec}.mkv", sound=(codec,), seconds=0.5)
        with av.open(str(source)) as container:
            places = [bytes(p) for p in container.demux(audio=0) if p.size]
        content = source.read_bytes()
        for packet in places[2:4]:
            content = content.replace(packet, bytes(len(packet)))
        source.write_bytes(content)
        path = copied(tmp_path / "b.mp4", source)
        assert len(list(timed_frames(path)[0])) == 6
        assert heard(path)[0][1] > 0.4

    part = recorded(tmp_path / "a.ts", sound=("aac",), seconds=0.5, late=0.7)
    part.write_bytes(2 * part.read_bytes())
    frames, times = timed_frames(copied(tmp_path / "b.mp4", part))
    assert len(list(frames)) == 12
    assert times[2:] == pytest.approx([times[2] + i / 12 for i in range(11)], abs=0.03)


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
    assert len(read_film(path)[0]) == 5


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("error", "told"), [(RuntimeError, RuntimeError), (OSError, ImageError)])
def test_an_error_keeps_the_older_film_and_leaves_nothing_else(tmp_path, ending, error, told):
    path = tmp_path / f"film.{ending}"
    path.write_bytes(b"the older film")
    with pytest.raises(told):
        save_film(then_raise(error, numbered(2)), path)
    assert left_behind(tmp_path) == [path.name]
    assert path.read_bytes() == b"the older film"


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
        ([], "has no frame: add at least one"),
        ([torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9)], r"frame 2 has 9 × 8 pixels.*size=\(8, 8\)"),
        ([torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), float("nan"))], "frame 2 .*not numbers"),
        ([torch.full((1, 3, 8, 8), 255.0)], "frame 1 has values .*divide by 255"),
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
    "half a gif header": ("a.gif", b"GIF89a\x10\0", "no film format"),
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
    film, _ = timed_frames(tmp_path / "film.mp4")
    good = []
    with pytest.raises(ImageError) as caught:
        good.extend(film)
    assert 0 < len(good) < 12
    assert f"damaged after {len(good)} frames" in str(caught.value)
