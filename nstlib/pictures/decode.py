"""The file side of `nstlib.pictures.files`, which is the door to it.

From a file of any kind to RGB pixels, or to a sentence that says why not; and whole files to the disk.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from ..assets.writing import reason
from ..errors import ImageError

# Only these decoders may run: Pillow would hand an EPS file, for one, to an outside program.
_READABLE = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
_KNOWN_START = re.compile(rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|GIF8|BM|II\*\0|MM\0\*", re.DOTALL)
_SHOWN_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


# ------------------------------------------------------------------------------------------------ opening


@contextlib.contextmanager
def open_picture(path: str | os.PathLike[str], max_pixels: int) -> Iterator[Image.Image]:
    """Open a file and read its header, no pixels yet; `ImageError` says why it cannot be used."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ImageError(f"A file's name is wanted, not a {type(path).__name__}: pass a string or a Path.")
    if re.match(r"[a-z]+://", text, re.IGNORECASE):
        raise ImageError(f"'{text}' is a web address: download the picture and pass the name of the file.")
    with _open_file(Path(text)) as file, _open_header(Path(text), file, max_pixels) as im:
        yield im


def _open_file(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            held = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _SHOWN_SUFFIXES)
            example = f", such as '{held[0]}'" if held else ""
            raise ImageError(f"'{path}' is a folder, not a picture: name a file in it{example}.")
        if not stat.S_ISREG(mode):
            raise ImageError(f"'{path}' is a device or a pipe, not a file: copy the picture to a file first.")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(_missing(path)) from error
    except PermissionError as error:
        remedy = "change its access rights or copy it elsewhere"
        raise ImageError(f"You have no permission to read '{path}': {remedy}.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"'{path}' cannot be opened ({reason(error)}): check its name and disk.") from error


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no picture '{path}', because there is no folder '{path.parent}': check the path."
    names = {p.name.casefold(): p.name for p in path.parent.iterdir()}
    close = difflib.get_close_matches(path.name.casefold(), names, n=3, cutoff=0.6)
    close += [n for n in names if n not in close and Path(n).stem == path.stem.casefold()]
    if close:
        return f"There is no picture '{path}': did you mean {' or '.join(repr(names[n]) for n in close[:3])}?"
    return f"There is no picture '{path}', nor a file of a similar name beside it: check the path."


def _open_header(path: Path, file: BinaryIO, max_pixels: int) -> Image.Image:
    try:
        head = file.read(2048)
    except OSError as error:
        raise ImageError(f"'{path}' cannot be read ({reason(error)}): copy it to another disk.") from error
    for test, what, remedy in _STRANGERS:
        if test(head):
            raise ImageError(f"'{path}' {what}: {remedy}.")
    Image.init()
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size, where max_pixels is the limit; of odd metadata
            im = Image.open(file, formats=[name for name in _READABLE if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        match = re.search(r"\((\d+) pixels\)", str(error))
        raise ImageError(_too_large(path, int(match[1]) if match else 0, max_pixels)) from error
    except Exception as error:  # decoders raise nearly everything on damaged data
        if _KNOWN_START.match(head):
            message = (
                f"'{path}' begins like a picture but its header is damaged: get it again from its source."
            )
        else:
            message = f"'{path}' is in no picture format known here: save it as PNG or JPEG and load that."
        raise ImageError(message) from error
    if im.width * im.height > max_pixels:
        raise ImageError(_too_large(path, im.width * im.height, max_pixels))
    return im


def _too_large(path: Path, pixels: int, max_pixels: int) -> str:
    remedy = "pass a larger max_pixels"
    if pixels <= max_pixels:  # Pillow has a limit of its own against files made to fill the memory
        remedy = "raise PIL.Image.MAX_IMAGE_PIXELS"
        max_pixels = 2 * (Image.MAX_IMAGE_PIXELS or max_pixels)
    return (
        f"'{path}' has {pixels:,} pixels, more than the {max_pixels:,} allowed: make it smaller in an image "
        f"editor, or {remedy} if you trust the file."
    )


# ------------------------------------------------------------------------------------------------ strangers


def _brand(*names: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[4:8] == b"ftyp" and head[8:12] in names


def _starts(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(marks)


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 without control characters (a cut last character is allowed)."""
    if re.match(rb"P[1-6]\s", head):  # a plain PPM picture is text too, and is one
        return False
    text = head.decode("utf-8", errors="ignore")
    return len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c.isspace() for c in text)


_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_VIDEO = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"M4V ", b"qt  ")
_PNG = "export it as PNG"
_AGAIN = "the copy or download failed, so get it again"
# What people take for a picture, most telling first: (test of the first bytes, what it is, what to do).
_STRANGERS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (lambda head: not head, "is empty", _AGAIN),
    (lambda head: not any(head), "holds only zero bytes", _AGAIN),
    (
        _starts(b"version https://git-lfs"),
        "is a Git LFS pointer, not the picture",
        "run `git lfs pull` for it",
    ),
    (_starts(b"<!doctype html", b"<html"), "is a web page", "open its address and save the picture itself"),
    (lambda head: b"<svg" in head.lower(), "is an SVG drawing, made of lines", _PNG),
    (_starts(b"%pdf"), "is a PDF document", "export the page as PNG"),
    (_starts(b"%!ps"), "is a PostScript document", _PNG),
    (_starts(b"8bps"), "is a Photoshop document", _PNG),
    (_brand(*_HEIC), "is a HEIC photograph, as many phones take", "export it as JPEG"),
    (_brand(*_VIDEO), "is a video", "save one frame as PNG"),
    (_starts(b"\xff\x0a", b"\0\0\0\x0cjxl "), "is in JPEG XL", "export it as PNG or JPEG"),
    (
        _starts(b"pk\3\4", b"\x1f\x8b", b"7z\xbc\xaf", b"rar!"),
        "is an archive",
        "unpack it and name the picture",
    ),
    (_is_text, "holds text, not a picture", "check that you named the right file"),
)


# ------------------------------------------------------------------------------------------------ pixels


def decode(im: Image.Image, background: Tensor) -> Tensor:
    """Any Pillow image as (1, 3, H, W) in [0, 1], upright, sRGB, over the background (three numbers)."""
    im.load()
    # Unreadable metadata is no reason to refuse good pixels: then the picture stays as it is stored.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        im = ImageOps.exif_transpose(im)
    if im.width < 1 or im.height < 1:
        raise ImageError("it has no pixels; use a picture of at least 1 × 1.")
    if im.mode.startswith("I") or im.mode == "F":
        return _deep_gray(im).expand(1, 3, -1, -1).contiguous()
    rgb, alpha = _to_rgb(im)
    image = _from_bytes(rgb)
    if alpha is not None:
        opacity = _from_bytes(alpha)
        # The sum of the two can leave [0, 1] by one rounding.
        image = (image * opacity + background.view(1, 3, 1, 1) * (1 - opacity)).clamp_(0, 1)
    return image


def _from_bytes(im: Image.Image) -> Tensor:
    array = np.array(im, dtype=np.uint8).reshape(im.height, im.width, -1)
    return torch.from_numpy(array).permute(2, 0, 1)[None].contiguous().float() / 255


def _deep_gray(im: Image.Image) -> Tensor:
    """(1, 1, H, W) from gray of more than 8 bits, which Pillow's own conversion would clip at 255."""
    values = np.array(im).astype(np.float64)
    if im.mode != "F":
        values /= 65535
    if not (values.min() >= 0 and values.max() <= 1):  # also when one is not a number
        raise ImageError(f"its gray values (mode {im.mode}) have no known white; save it with 8 or 16 bits.")
    return torch.from_numpy(values.astype(np.float32))[None, None]


def _to_rgb(im: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The sRGB colors and, where the picture can have transparency, its alpha channel."""
    profile = im.info.get("icc_profile")
    alpha = None
    try:
        if im.mode in ("P", "PA", "RGBa", "La") or "transparency" in im.info:
            im = im.convert("LA" if im.mode == "La" else "RGBA")
        if im.mode in ("RGBA", "LA"):
            alpha = im.getchannel("A")
            im = im.convert(im.mode[:-1])
        if profile:
            im = _to_srgb(im, profile)
        return im.convert("RGB"), alpha
    except ValueError as error:
        raise ImageError(f"its color mode {im.mode} cannot become RGB; save it as an RGB picture.") from error


def _to_srgb(im: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(im, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return im  # broken, or for another kind of picture (a gray profile on RGB): viewers ignore it too
    return im if converted is None else converted
