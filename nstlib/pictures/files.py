"""Pictures in and out: decode, resize, crop, save with settings, contact sheets.

The one currency is a float32 tensor (N, 3, H, W), RGB with the sRGB curve, in [0, 1]; masks are
(N, 1, H, W). A picture that cannot be read raises `ImageError`, a parameter that makes no sense raises
`SettingError`; both are one sentence that names the file and says what to do.
"""

from __future__ import annotations

import io
import json
import operator
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from PIL import ExifTags, Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor
from torch.nn import functional as F

from ..assets.writing import reason, write_atomic
from ..errors import ImageError, SettingError
from .decode import decode, open_picture

MAX_PIXELS = 100_000_000
"""Largest width × height that `load_image` decodes unless told otherwise: 1.2 GB as a float32 tensor."""

Color = tuple[float, float, float]
WHITE: Color = (1.0, 1.0, 1.0)

_WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_TOLERANCE = 1 / 255  # rounding and resampling leave [0, 1] by less than one 8-bit level: clamped, no mistake
# Pillow's own font has no é, ü, – or α, which names of painters, years and weights need.
_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
_SETTINGS_KEY = "nstlib"
_SETTINGS_MAX = 60_000  # bytes; a JPEG file holds at most 64 kB of EXIF


# ------------------------------------------------------------------------------------------------ reading


def load_image(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    background: Color = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read a picture file.

    JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, JPEG 2000 and AVIF, told by content and not by name. The EXIF
    orientation is applied, an embedded color profile is converted to sRGB (a broken one is ignored), gray,
    palette, CMYK and 16-bit pictures become RGB, and of an animation the first frame is taken.

    Args:
        path: The file.
        size: Longest side in pixels; a larger picture is shrunk with antialiasing, a smaller one is kept.
        background: RGB in [0, 1] that shows through transparent pixels.
        max_pixels: Largest width × height to decode; checked before any pixel is decoded.

    Returns:
        Tensor (1, 3, H, W), float32, in [0, 1].

    Raises:
        ImageError: The file is missing, unreadable, damaged, too large or no picture.
        SettingError: A parameter has a value it cannot have.
    """
    limit, backdrop = _positive("max_pixels", max_pixels), _color("background", background)
    if size is not None:
        _positive("size", size)
    with open_picture(path, limit) as im:
        try:
            image = decode(im, backdrop)
        except ImageError as error:
            raise ImageError(f"'{path}' cannot be used: {error}") from error
        except MemoryError as error:
            count = f"{im.width} × {im.height} pixels"
            raise ImageError(f"'{path}' ({count}) is too large for the memory: make it smaller.") from error
        except Exception as error:  # decoders raise nearly everything on damaged data
            raise ImageError(
                f"'{path}' is damaged or was cut short ({reason(error)}): get it again from its source."
            ) from error
    return image if size is None else resize(image, size)


def from_pil(im: Image.Image, *, background: Color = WHITE) -> Tensor:
    """Turn a Pillow image of any mode into a tensor (1, 3, H, W), float32, in [0, 1].

    8-bit values are divided by 255, so that `to_pil` gives exactly the same bytes back. Gray of 16 bits is
    divided by 65535 (a color profile is not applied to it); Pillow itself reduces 16-bit RGB to 8 bits.

    Raises:
        ImageError: Not a Pillow image, or one without pixels or whose color mode cannot become RGB.
        SettingError: `background` is not three numbers in [0, 1].
    """
    if not isinstance(im, Image.Image):
        raise ImageError(f"A Pillow image is wanted, not a {type(im).__name__}: open a file with load_image.")
    backdrop = _color("background", background)
    try:
        return decode(im, backdrop)
    except ImageError as error:
        raise ImageError(f"This Pillow image cannot be used: {error}") from error


# -------------------------------------------------------------------------------------------- size and shape


def resize(image: Tensor, size: int | tuple[int, int], *, allow_upscale: bool = False) -> Tensor:
    """Resize with antialiased bicubic interpolation, clamped to [0, 1] because bicubic overshoots at edges.

    Args:
        image: Tensor (N, 3, H, W), or masks (N, 1, H, W).
        size: An integer is the longest side: the proportions stay, the short side gets at least 1 pixel, and
            a smaller picture is returned as it is. A pair (h, w) is the exact result, whatever the
            proportions, and larger than the picture too: who names a pair has asked for it.
        allow_upscale: With an integer size, also enlarge.

    Raises:
        ImageError: The tensor is not a picture.
        SettingError: The size is not positive.
    """
    height, width = _check(image).shape[-2:]
    if isinstance(size, tuple | list):
        target = _pair("size", size)
    else:
        longest = _positive("size", size)
        if longest >= max(height, width) and not allow_upscale:
            return image
        scale = longest / max(height, width)
        target = (max(1, round(height * scale)), max(1, round(width * scale)))
    if target == (height, width):
        return image
    return (
        F.interpolate(image, target, mode="bicubic", align_corners=False, antialias=True)
        .clamp(0, 1)
        .contiguous()
    )


def crop_center(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The central (h, w) pixels of (N, 3 or 1, H, W); of an odd margin the smaller half is above and left.

    Raises:
        ImageError: The tensor is not a picture, or is smaller than the crop.
        SettingError: The size is not a pair of positive integers.
    """
    height, width = _check(image).shape[-2:]
    h, w = _pair("size", size)
    if h > height or w > width:
        raise ImageError(
            f"A crop of {h} × {w} does not fit into a picture of {height} × {width}: resize it first."
        )
    top, left = (height - h) // 2, (width - w) // 2
    return image[..., top : top + h, left : left + w].contiguous()


def square(image: Tensor, size: int | None = None, *, allow_upscale: bool = False) -> Tensor:
    """The largest central square, shrunk to `size` × `size` (and enlarged to it only if `allow_upscale`).

    No face is looked for: style transfer with VGG features does not need the face in a known place, so any
    picture works, and methods that do need an aligned face align it themselves.

    Raises:
        ImageError: The tensor is not a picture.
        SettingError: The size is not positive.
    """
    side = min(_check(image).shape[-2:])
    cropped = crop_center(image, (side, side))
    return cropped if size is None else resize(cropped, size, allow_upscale=allow_upscale)


# ------------------------------------------------------------------------------------------------ writing


def to_pil(image: Tensor) -> Image.Image:
    """An 8-bit Pillow image, RGB or (for a mask) "L", from a tensor (1, 3 or 1, H, W) in [0, 1].

    Values are rounded to the nearest level. Those up to one level (1/255) outside [0, 1] are clamped;
    anything further off is a mistake and raises.

    Raises:
        ImageError: The tensor is not one picture in [0, 1].
    """
    values = _check_shape("picture", image, count=1).detach().float().cpu()
    if not bool(torch.isfinite(values).all()):
        raise ImageError(
            "The picture holds values that are not numbers (NaN or infinity): look where they come from."
        )
    low, high = values.min().item(), values.max().item()
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ImageError(
            f"The picture's values run from {low:.3g} to {high:.3g}, not from 0 to 1: call .clamp(0, 1) if "
            "that is meant, or divide by 255 first."
        )
    array = values.clamp(0, 1).mul(255).round().to(torch.uint8)[0].permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def save_image(
    image: Tensor, path: str | os.PathLike[str], *, settings: dict[str, Any] | None = None, quality: int = 95
) -> Path:
    """Write a picture as PNG, JPEG or WebP (by the name's ending); the file appears whole or not at all.

    Values are rounded to 8 bits as in `to_pil`: up to 1/255 outside [0, 1] is clamped, more raises. A missing
    folder is made, an existing file is replaced. PNG keeps the pixels exactly, JPEG and WebP nearly.

    Args:
        image: Tensor (1, 3, H, W), or a mask (1, 1, H, W).
        path: The file, ending in .png, .jpg, .jpeg or .webp.
        settings: What made the picture: anything JSON can hold (tuples come back as lists). `read_settings`
            gives it back from the PNG's text chunk, or the EXIF user comment of a JPEG or WebP.
        quality: 1 to 100, for JPEG and WebP.

    Returns:
        The path written.

    Raises:
        ImageError: The tensor is not a picture, or the file cannot be written.
        SettingError: The ending, the settings or the quality cannot be used.
    """
    path = Path(path)
    kind = _format(path)
    if _positive("quality", quality) > 100:
        raise SettingError(f"quality is {quality}, but must be from 1 to 100.")
    try:
        im = to_pil(image)
    except ImageError as error:
        raise ImageError(f"'{path}' is not saved: {error}") from error
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": operator.index(quality)}
    if kind == "JPEG" and quality >= 90:
        options["subsampling"] = 0  # style transfer paints saturated strokes, which halved color would smear
    if settings is not None:
        options |= _settings_options(settings, kind)
    content = io.BytesIO()
    try:
        im.save(content, kind, **options)
    except (OSError, ValueError) as error:
        raise ImageError(
            f"'{path}' cannot be written as {kind} at {im.width} × {im.height} ({reason(error)}): use PNG."
        ) from error
    write_atomic(path, content.getbuffer())
    return path


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Find out whether a picture could be saved there, before minutes of work rather than after.

    Raises:
        ImageError: The folder cannot be made or written to.
        SettingError: The name's ending says no format.
    """
    path = Path(path)
    _format(path)
    if path.is_dir():
        raise ImageError(f"'{path}' is a folder: name a file in it, for example '{path / 'out.png'}'.")
    probe = path.with_name(f".{path.name}.probe")
    write_atomic(probe, memoryview(b""))
    probe.unlink()
    return path


def _format(path: Path) -> str:
    kind = _WRITABLE.get(path.suffix.lower())
    if kind is None:
        raise SettingError(
            f"'{path}' does not say in which format to save: end the name in {', '.join(_WRITABLE)}."
        )
    return kind


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The settings that `save_image` wrote into a PNG, JPEG or WebP file; None if it holds none.

    Raises:
        ImageError: The file cannot be read as a picture, or its settings are damaged.
    """
    with open_picture(path, MAX_PIXELS) as im, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            text = im.info.get(_SETTINGS_KEY) if im.format == "PNG" else _user_comment(im)
        except Exception:  # another program's broken EXIF: then they are not our settings
            text = None
    if text is None:
        return None
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise ImageError(
            f"The settings kept in '{path}' are damaged: take another copy of the picture."
        ) from error


def _user_comment(im: Image.Image) -> str | None:
    comment = im.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    mark = b"ASCII\0\0\0" + _SETTINGS_KEY.encode() + b" "
    return (
        comment[len(mark) :].decode("ascii")
        if isinstance(comment, bytes) and comment.startswith(mark)
        else None
    )


def _settings_options(settings: dict[str, Any], kind: str) -> dict[str, Any]:
    """The keyword arguments by which Pillow writes the settings into a file of this kind."""
    try:
        if not isinstance(settings, dict):
            raise TypeError(f"a dictionary is wanted, not a {type(settings).__name__}")
        text = json.dumps(settings, allow_nan=False)  # ASCII, as the EXIF comment says it is
    except (TypeError, ValueError) as error:
        raise SettingError(
            f"These settings cannot be kept in a picture ({error}): use what JSON can hold."
        ) from error
    if len(text) > _SETTINGS_MAX:
        raise SettingError(
            f"The settings take {len(text):,} bytes and a picture keeps {_SETTINGS_MAX:,}: save them apart."
        )
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt(_SETTINGS_KEY, text)
        return {"pnginfo": info}
    exif = Image.Exif()
    comment = b"ASCII\0\0\0" + f"{_SETTINGS_KEY} {text}".encode("ascii")
    exif[ExifTags.IFD.Exif] = {int(ExifTags.Base.UserComment): comment}
    return {"exif": exif}


# -------------------------------------------------------------------------------------------- contact sheets


def contact_sheet(
    images: Sequence[Tensor] | Tensor,
    columns: int,
    labels: Sequence[str] | None = None,
    *,
    cell: int = 256,
    gap: int = 8,
    background: Color = WHITE,
) -> Tensor:
    """Lay pictures of any sizes out in a grid, row by row, for looking at.

    Args:
        images: Tensors (1, 3 or 1, H, W), or one batch (N, 3 or 1, H, W); each is fitted into its cell.
        columns: Pictures a row.
        labels: A text under each picture; a long one is broken into two lines and then cut with "…".
        cell: Width of a cell, and greatest height of a picture, in pixels.
        gap: Pixels between the cells and around the sheet.
        background: RGB in [0, 1]; the text is black or white, whichever is easier to read on it.

    Returns:
        Tensor (1, 3, H, W), float32, in [0, 1], on the CPU.

    Raises:
        ImageError: One of the tensors is not a picture in [0, 1].
        SettingError: No pictures, as many labels as pictures are not given, or a size is not positive.
    """
    pictures = list(images.split(1)) if isinstance(images, Tensor) else list(images)
    if not pictures:
        raise SettingError("A contact sheet of no pictures was asked for: pass at least one.")
    if labels is not None and len(labels) != len(pictures):
        raise SettingError(f"There are {len(labels)} labels for {len(pictures)} pictures: pass one for each.")
    cell, columns = _positive("cell", cell), min(_positive("columns", columns), len(pictures))
    gap = _positive("gap", gap, least=0)
    backdrop = _color("background", background)
    # Through Pillow because text is drawn there; resized as tensors, as everywhere else.
    tiles = [to_pil(resize(_check(p).detach().float().cpu(), cell, allow_upscale=True)) for p in pictures]

    font = ImageFont.truetype(str(_FONT), max(11, cell // 18))
    texts = (
        [_fit_text(str(label), font, cell) for label in labels] if labels is not None else [""] * len(tiles)
    )
    line = sum(font.getmetrics())
    rows = [range(i, min(i + columns, len(tiles))) for i in range(0, len(tiles), columns)]
    heights = [max(tiles[i].height for i in row) for row in rows]
    bands = [max(texts[i].count("\n") + 1 if texts[i] else 0 for i in row) * line for row in rows]
    size = (columns * (cell + gap) + gap, sum(heights) + sum(bands) + gap * (len(rows) + 1))
    paper = tuple(backdrop.mul(255).round().int().tolist())
    sheet = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(sheet)
    ink = "black" if float(backdrop @ torch.tensor([0.299, 0.587, 0.114])) > 0.5 else "white"
    top = gap
    for row, height, band in zip(rows, heights, bands, strict=True):
        for column, i in enumerate(row):
            left = gap + column * (cell + gap)
            sheet.paste(
                tiles[i], (left + (cell - tiles[i].width) // 2, top + (height - tiles[i].height) // 2)
            )
            for number, text in enumerate(texts[i].split("\n")):
                x = left + (cell - font.getlength(text)) / 2
                draw.text((x, top + height + number * line), text, fill=ink, font=font)
        top += height + band + gap
    return from_pil(sheet)


def _fit_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text in at most two lines of `width` pixels, broken at spaces where it has any."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > 2:
        lines = [lines[0], " ".join(lines[1:])]
    for i, shown in enumerate(lines):
        if font.getlength(shown) > width:
            while shown and font.getlength(shown + "…") > width:
                shown = shown[:-1]
            lines[i] = shown + "…"
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ checks


def check_picture(name: str, picture: Any, least: int = 1, count: int | None = None) -> Tensor:
    """The pictures as they were given, if they are some: float (N, 3, H, W), every value finite.

    Args:
        name: what errors call them: "content picture".
        picture: what was given.
        least: fewest pixels of a side.
        count: how many pictures they must be; None takes any number.

    Raises:
        ImageError: they are something else.
    """
    _check_shape(name, picture, (3,), least, count)
    if not bool(picture.detach().isfinite().all()):
        raise ImageError(
            f"The {name} has values that are not numbers (NaN or infinity): see where they arise."
        )
    return picture


def check_mask(name: str, mask: Any, picture: Tensor | None = None) -> Tensor:
    """The mask as it was given, if it is one: float (N, 1, H, W) in [0, 1].

    Args:
        name: what errors call it: "mask of the hair".
        mask: what was given.
        picture: what it is for: of the same height and width, and as many, if the mask is not one for all.

    Returns:
        The mask, on the device and with the dtype of ``picture``.

    Raises:
        ImageError: it is something else.
    """
    _check_shape(name, mask, (1,))
    if not bool(((mask.detach() >= 0) & (mask.detach() <= 1)).all()):  # NaN is neither
        raise ImageError(f"The {name} has values outside [0, 1]: call .clamp(0, 1), or divide by 255 first.")
    if picture is None:
        return mask
    if mask.shape[-2:] != picture.shape[-2:] or len(mask) not in (1, len(picture)):
        found, wanted = (f"{len(t)} × {t.shape[-2]} × {t.shape[-1]}" for t in (mask, picture))
        raise ImageError(f"The {name} is {found} and its picture {wanted}: make it from that picture.")
    return mask.to(picture)


def _check_shape(
    name: str, tensor: Any, channels: tuple[int, ...] = (1, 3), least: int = 1, count: int | None = None
) -> Tensor:
    wanted = f"({count or 'N'}, {channels[-1]}, H, W)"
    if not isinstance(tensor, Tensor):
        raise ImageError(
            f"The {name} is a tensor {wanted}, not a {type(tensor).__name__}: load it with load_image."
        )
    shape = tuple(tensor.shape)
    if len(shape) != 4 or shape[1] not in channels or 0 in shape or shape[0] != (count or shape[0]):
        remedy = "bring it into that shape"
        if len(shape) == 3:
            remedy = "add the batch dimension with image[None]"
        elif len(shape) == 4 and shape[3] in channels:
            remedy = "put the channels second with image.permute(0, 3, 1, 2)"
        elif count == 1 and shape[0] > 1:
            remedy = "pass one of them, image[i:i+1]"
        raise ImageError(f"The {name} has the shape {wanted}, at least 1 × 1 pixels, not {shape}: {remedy}.")
    if not tensor.is_floating_point():
        raise ImageError(
            f"The {name} has floats in [0, 1] as values, not {tensor.dtype}: use image.float() / 255."
        )
    if min(shape[2:]) < least:
        raise ImageError(
            f"The {name} of {shape[2]} × {shape[3]} pixels is too small: take one of at least {least} a side."
        )
    return tensor


def _check(image: Tensor) -> Tensor:
    return _check_shape("picture", image)


def _positive(name: str, value: Any, least: int = 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise SettingError(f"{name} is {value!r}, but must be a whole number of at least {least}: pass one.")
    return number


def _pair(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise SettingError(
            f"{name} is {value!r}, but must be a pair (height, width): pass two whole numbers."
        )
    return _positive(f"the height in {name}", value[0]), _positive(f"the width in {name}", value[1])


def _color(name: str, value: Any) -> Tensor:
    try:
        color = torch.tensor([float(v) for v in value])
    except (TypeError, ValueError):
        color = torch.tensor([])
    if color.numel() != 3 or not bool(((color >= 0) & (color <= 1)).all()):
        raise SettingError(
            f"{name} is {value!r}, but must be red, green and blue from 0 to 1: (1, 1, 1) is white."
        )
    return color
