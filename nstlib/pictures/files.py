"""Pictures in and out: decode, check, resize, crop, save with the settings that made them.

The one currency is a float32 tensor (N, 3, H, W), RGB with the sRGB curve, in [0, 1]; masks are
(N, 1, H, W). A picture that cannot be read raises `ImageError`, a parameter that makes no sense raises
`SettingError`; both are one sentence that names the file and says what to do.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import math
import operator
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from ..assets.writing import atomic, reason
from ..errors import ImageError, LeftOut, SettingError

MAX_PIXELS = 100_000_000
"""Largest width × height that is decoded: 1.2 GB as a float32 tensor."""

_HUGE = MAX_PIXELS // 4  # of these pixels on a JPEG is decoded smaller, if a small picture is wanted

# Only these decoders may run: Pillow would hand an EPS file, for one, to an outside program.
_READABLE = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM")

PICTURE_ENDINGS = tuple(end for end, kind in Image.registered_extensions().items() if kind in _READABLE)
"""How the names of the files end that :func:`load_image` can read, in lower case."""

# Pictures that it refuses: in a folder they are to be named, and not passed over.
_UNREADABLE_ENDINGS = (".heic", ".heif", ".jxl", ".svg", ".psd")

_WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_TOLERANCE = 1 / 255  # rounding and resampling leave [0, 1] by less than one 8-bit level: clamped, no mistake
_SETTINGS_KEY = "nstlib"
_COMMENT_MARK = b"ASCII\0\0\0" + _SETTINGS_KEY.encode() + b" "


# ------------------------------------------------------------------------------------------------ reading


def load_image(
    path: str | os.PathLike[str], *, size: int | None = None,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:  # fmt: skip
    """Read a picture file.

    JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, JPEG 2000 and AVIF, told by content and not by name. The EXIF
    orientation is applied, an embedded color profile is converted to sRGB (a broken one is ignored), gray,
    palette, CMYK and 16-bit pictures become RGB, and of an animation the first frame is taken.

    Args:
        path: the file.
        size: longest side in pixels; a larger picture is shrunk with antialiasing, a smaller one is kept.
        background: RGB in [0, 1] that shows through transparent pixels.

    Returns:
        Tensor (1, 3, H, W), float32, in [0, 1].

    Raises:
        ImageError: the file is missing, unreadable, damaged, too large or no picture.
        SettingError: ``size`` is not positive.
    """
    return _on(background, *load_cutout(path, size=size))


def load_cutout(path: str | os.PathLike[str], *, size: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Read a picture and its transparency; see :func:`load_image` for the arguments and errors.

    Returns:
        The colors (1, 3, H, W), where the picture is wholly transparent white; and how opaque it is,
        (1, 1, H, W) in [0, 1], or None if it is opaque everywhere.
    """
    with open_picture(path, size) as im:
        image, alpha = _decoded(im)
    return _shrunk(image, alpha, size)


def load_style(path: str | os.PathLike[str], *, size: int | None = None) -> Tensor:
    """Read a picture whose transparent parts count for nothing; see :func:`load_image`.

    It is cut to what is opaque, and the holes left are filled with what lies around them, mirrored: white
    would be a color of the style, and its border a line.

    Returns:
        (1, 3, H, W).

    Raises:
        ImageError: as :func:`load_image`; or nothing of it is opaque.
    """
    image, alpha = load_cutout(path)
    if alpha is None:
        return resize(image, size)
    if not bool((alpha > 0.5).any()):
        raise ImageError(f"'{path}' is transparent everywhere: take another picture as style.")
    rows, columns = ((alpha[0, 0] > 0.5).any(axis).nonzero().flatten() for axis in (1, 0))
    inside = (..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    image, opaque = _shrunk(image[inside], alpha[inside], size)
    pixels = image[0].numpy()
    known = np.ones(pixels.shape[1:], bool) if opaque is None else opaque[0, 0].numpy() > 0.5
    places, last = np.indices(known.shape), np.reshape(known.shape, (2, 1, 1)) - 1
    while not known.all():  # what was filled is mirrored further
        near = distance_transform_edt(~known, return_distances=False, return_indices=True)
        across = (2 * near - places).clip(0, last)
        found = known[*across]
        pixels = pixels[:, *np.where(found, across, near)]
        known |= found if found[~known].any() else True
    return torch.from_numpy(pixels)[None].contiguous()


def load_mask(path: str | os.PathLike[str], picture: Tensor) -> Tensor:
    """Read a mask drawn by hand, of any size, for a picture (1, 3, H, W).

    Returns:
        (1, 1, H, W): how opaque the file is, or if it is opaque everywhere, how bright.

    Raises:
        ImageError: the file cannot be read, or has other proportions than the picture.
    """
    image, alpha = load_cutout(path)
    mask, (height, width) = image.mean(1, keepdim=True) if alpha is None else alpha, picture.shape[-2:]
    if abs(mask.shape[-1] / width * height / mask.shape[-2] - 1) > 1 / min(height, width) + 0.01:
        raise ImageError(
            f"The mask '{path}' of {mask.shape[-1]} × {mask.shape[-2]} pixels has other proportions than its "
            f"picture of {width} × {height}: draw it over that picture."
        )
    return resize(mask, (height, width))


def _shrunk(image: Tensor, alpha: Tensor | None, size: int | None) -> tuple[Tensor, Tensor | None]:
    """At most ``size`` pixels long; what cannot be seen lends no color to its neighbors."""
    if alpha is None:
        return resize(image, size), None
    if size is not None:
        image, alpha = resize(image * alpha, size), resize(alpha, size)
        image = (image / alpha.clamp_min(1e-6)).clamp(0, 1)
    return torch.where(alpha > 0, image, 1.0), alpha


def from_pil(im: Image.Image) -> Tensor:
    """Turn a Pillow image of any mode into a tensor (1, 3, H, W), float32, in [0, 1], upright and sRGB.

    8-bit values are divided by 255, so that `to_pil` gives exactly the same bytes back. Gray of 16 bits is
    divided by 65535 (a color profile is not applied to it); Pillow itself reduces 16-bit RGB to 8 bits. White
    shows through transparent pixels.

    Raises:
        ImageError: its gray values have no known white.
    """
    return _on((1.0, 1.0, 1.0), *_decoded(im))


def _decoded(im: Image.Image) -> tuple[Tensor, Tensor | None]:
    """Colors (1, 3, H, W), upright and sRGB, and opacity (1, 1, H, W); None where all is opaque."""
    im.load()
    # Unreadable metadata is no reason to refuse good pixels: then the picture stays as it is stored.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        im = ImageOps.exif_transpose(im)
    if im.mode.startswith("I") or im.mode == "F":  # gray that Pillow's own conversion would clip at 255
        gray = np.array(im).astype(np.float64) / (1 if im.mode == "F" else 65535)
        if not (gray.min() >= 0 and gray.max() <= 1):  # also when one is not a number
            raise ImageError(f"Gray values of mode {im.mode} have no known white: make it an 8-bit picture.")
        return torch.from_numpy(gray).float().expand(1, 3, -1, -1).contiguous(), None
    profile, alpha = im.info.get("icc_profile"), None
    if im.mode in ("P", "PA", "RGBa", "La") or "transparency" in im.info:
        im = im.convert("LA" if im.mode == "La" else "RGBA")
    if im.mode in ("RGBA", "LA"):
        alpha = _from_bytes(im.getchannel("A"))
        im = im.convert(im.mode[:-1])
    # A profile that is broken or for another kind of picture (gray on RGB) is ignored, as viewers do.
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            im = ImageCms.profileToProfile(im, source, srgb, outputMode="RGB") or im
    image = _from_bytes(im.convert("RGB"))
    return image, None if alpha is None or bool((alpha == 1).all()) else alpha


def _on(background: tuple[float, float, float], image: Tensor, alpha: Tensor | None) -> Tensor:
    """A picture before a background that shows through it."""
    if alpha is None:
        return image
    color = torch.tensor(background, dtype=torch.float32).view(1, 3, 1, 1)
    return (image * alpha + color * (1 - alpha)).clamp_(0, 1)  # the sum can leave [0, 1] by one rounding


@contextlib.contextmanager
def open_picture(path: str | os.PathLike[str], size: int | None = None) -> Iterator[Image.Image]:
    """Open a picture file with Pillow; what goes wrong in the block while decoding is told in one sentence.

    Args:
        path: the file. Of a TIFF with several pages the largest one is taken: the first may be a preview.
        size: longest side that is wanted in the end. A huge JPEG is decoded at a fraction of its size: near
            this one, and below `MAX_PIXELS` in any case.

    Raises:
        ImageError: the file is missing, damaged, too large or no picture.
    """
    path = Path(path)
    if re.match(r"(https?|ftp):/", str(path), re.IGNORECASE):
        raise ImageError(f"'{path}' is a web address: download the picture and name its file.")
    if not os.path.isfile(path):
        raise ImageError(_missing(path))
    try:
        with warnings.catch_warnings():
            TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader takes planes of 16 bits for bytes
            warnings.simplefilter("ignore")  # of its size, where MAX_PIXELS is the limit; of odd metadata
            im = Image.open(path, formats=[kind for kind in _READABLE if kind in Image.OPEN])
        with im:
            if im.format == "TIFF":
                im.seek(max(range(getattr(im, "n_frames", 1)), key=lambda page: _pixels(im, page)))
            if (pixels := im.width * im.height) > (_HUGE if size else MAX_PIXELS):
                part = 2 ** max(0, math.ceil(math.log2(pixels / MAX_PIXELS) / 2))
                im.draft("RGB", tuple(min(2 * size if size else n, n // part) for n in im.size))
            if im.width * im.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield im
    except Image.DecompressionBombError as error:
        limit = f"{MAX_PIXELS / 1e6:.0f} million pixels"
        raise ImageError(
            f"'{path}' has more than {limit}: make it smaller in an image editor, or save it as JPEG."
        ) from error
    except Exception as error:  # decoders raise nearly everything on damaged data
        why = reason(error)
        if isinstance(error, UnidentifiedImageError):
            why = "it is no picture, damaged, or of a kind that is not read here, as HEIC"
        raise ImageError(
            f"'{path}' cannot be read ({why}): get it again from its source, or save it as PNG or JPEG."
        ) from error


def _pixels(im: Image.Image, page: int) -> int:
    im.seek(page)
    return im.width * im.height


def list_pictures(folder: str | os.PathLike[str], *, deep: bool = False) -> list[Path]:
    """The picture files of a folder, sorted; hidden files and folders are passed over.

    A file with another ending is looked into, so that a picture without one counts, too. Pictures of a kind
    that cannot be read are listed as well: whoever reads them says so.

    Args:
        folder: where to look.
        deep: in its folders as well.

    Raises:
        ImageError: there is no such folder, or it holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"There is no folder '{folder}': name one with pictures.")
    known = (*PICTURE_ENDINGS, *_UNREADABLE_ENDINGS)
    found = [
        path for path in sorted(folder.rglob("*") if deep else folder.iterdir())
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir() and (path.suffix.lower() in known or is_picture(path))
    ]  # fmt: skip
    if not found:
        raise ImageError(f"There are no pictures in '{folder}': add some ({', '.join(PICTURE_ENDINGS)}).")
    return found


def is_picture(path: Path) -> bool:
    """Whether Pillow can open a file, whatever its name."""
    with contextlib.suppress(ImageError), open_picture(path):
        return True
    return False


def readable(
    paths: Sequence[Path], size: int = 64, look: Callable[[Path], object] | None = None
) -> list[Path]:
    """Those of some picture files that can be used; the others are named in a warning.

    Args:
        paths: the files.
        size: pixels that are decoded at least.
        look: raises `ImageError` for a file that is of no use though it can be decoded.

    Raises:
        ImageError: none can.
    """
    found, bad = [], []
    for path in paths:
        try:
            with open_picture(path, size) as im:
                im.draft("RGB", (size, size))  # any JPEG is decoded small: quick
                im.load()
            if look is not None:
                look(path)
            found.append(path)
        except ImageError as error:
            bad.append(str(error))
    if not found:
        raise ImageError(bad[0] if len(bad) == 1 else f"None of {len(bad)} pictures can be used: {bad[0]}")
    if bad:
        warnings.warn(
            f"Of {len(paths)} pictures {len(bad)} are left out: {' '.join(bad)}", LeftOut, stacklevel=3
        )
    return found


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"'{path}' is a folder, not a picture: name a file in it."
    names = {p.name.casefold(): p.name for p in path.parent.glob("*")}
    for close in difflib.get_close_matches(path.name.casefold(), names, n=1):
        return f"There is no picture '{path}': did you mean '{names[close]}'?"
    return f"There is no picture '{path}': check the path."


def _from_bytes(im: Image.Image) -> Tensor:
    array = np.array(im, dtype=np.uint8).reshape(im.height, im.width, -1)
    return torch.from_numpy(array).permute(2, 0, 1)[None].contiguous().float() / 255


# -------------------------------------------------------------------------------------------- size and shape


def resize(image: Tensor, size: int | Sequence[int] | None, *, allow_upscale: bool = False) -> Tensor:
    """Resize with antialiased bicubic interpolation, clamped to [0, 1] because bicubic overshoots at edges.

    Args:
        image: tensor (N, 3, H, W), or masks (N, 1, H, W).
        size: an integer is the longest side: the proportions stay, the short side gets at least 1 pixel, and
            a smaller picture is returned as it is. A pair (h, w) is the exact result, whatever the
            proportions, and larger than the picture too: who names a pair has asked for it. None: as it is.
        allow_upscale: with an integer size, also enlarge.

    Raises:
        ImageError: the tensor is not a picture.
        SettingError: the size is not positive.
    """
    height, width = _check_shape("picture", image).shape[-2:]
    if size is None:
        return image
    if isinstance(size, tuple | list):
        target = (check_whole("the height in size", size[0]), check_whole("the width in size", size[1]))
    else:
        longest = check_whole("size", size)
        if longest >= max(height, width) and not allow_upscale:
            return image
        scale = longest / max(height, width)
        target = (max(1, round(height * scale)), max(1, round(width * scale)))
    if target == (height, width):
        return image
    resized = F.interpolate(image, target, mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 1).contiguous()


def square(image: Tensor, size: int | None = None, *, allow_upscale: bool = False) -> Tensor:
    """The largest central square, shrunk to ``size`` × ``size`` (enlarged to it only if ``allow_upscale``).

    No face is looked for: VGG features do not need the face in a known place, and methods that do need an
    aligned face align it themselves.

    Raises:
        ImageError: the tensor is not a picture.
        SettingError: the size is not positive.
    """
    height, width = _check_shape("picture", image).shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2  # of an odd margin the smaller half
    cropped = image[..., top : top + side, left : left + side].contiguous()
    return resize(cropped, size, allow_upscale=allow_upscale)


# ------------------------------------------------------------------------------------------------ writing


def to_pil(image: Tensor, *, name: str = "picture") -> Image.Image:
    """An 8-bit Pillow image, RGB or (for a mask) "L", from a tensor (1, 3 or 1, H, W) in [0, 1].

    Values are rounded to the nearest level. Those up to one level (1/255) outside [0, 1] are clamped;
    anything further off is a mistake and raises an error, which calls the picture by ``name``.

    Raises:
        ImageError: the tensor is not one picture in [0, 1].
    """
    values = check_finite(name, _check_shape(name, image, count=1)).detach().float().cpu()
    check_range(name, values)
    array = values.clamp(0, 1).mul(255).round().to(torch.uint8)[0].permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def save_image(
    image: Tensor, path: str | os.PathLike[str], *, alpha: Tensor | None = None,
    settings: dict[str, Any] | None = None, quality: int = 95,
) -> Path:  # fmt: skip
    """Write a picture as PNG, JPEG or WebP (by the name's ending); the file appears whole or not at all.

    Values are rounded to 8 bits as in `to_pil`: up to 1/255 outside [0, 1] is clamped, more raises. A missing
    folder is made, an existing file is replaced. PNG keeps the pixels exactly, JPEG and WebP nearly.

    Args:
        image: tensor (1, 3, H, W), or a mask (1, 1, H, W).
        path: the file, ending in .png, .jpg, .jpeg or .webp.
        alpha: (1, 1, H, W), how opaque it is; a JPEG, which knows no transparency, is white there.
        settings: what made the picture: anything JSON can hold (tuples come back as lists). `read_settings`
            gives it back from the PNG's text chunk, or the EXIF user comment of a JPEG or WebP.
        quality: 1 to 100, for JPEG and WebP.

    Returns:
        The path written.

    Raises:
        ImageError: the tensor is not a picture, or the file cannot be written.
        SettingError: the name's ending says no format.
    """
    path = Path(path)
    kind = _WRITABLE[_ending(path, _WRITABLE)]
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": quality}
    if kind == "JPEG" and quality >= 90:
        options["subsampling"] = 0  # style transfer paints saturated strokes, which halved color would smear
    if settings is not None:
        options |= _settings_options(settings, kind)
    if alpha is not None and kind == "JPEG":
        image, alpha = _on((1.0, 1.0, 1.0), image, alpha), None
    im = to_pil(image)
    if alpha is not None:
        im.putalpha(to_pil(alpha))
    with atomic(path) as part:
        im.save(part, kind, **options)
    return path


def check_writable(path: str | os.PathLike[str], endings: Any = _WRITABLE) -> Path:
    """Find out whether a file could be saved there, before minutes of work rather than after.

    Args:
        path: the file; a missing folder is made.
        endings: what its name may end in.

    Raises:
        ImageError: the folder cannot be made or written to.
        SettingError: the name's ending says no format.
    """
    path = Path(path)
    _ending(path, endings)
    with atomic(path) as part:
        if os.path.isdir(path):
            raise IsADirectoryError
        part.touch()
        part.unlink()
    return path


def _ending(path: Path, endings: Any) -> str:
    if path.suffix.lower() not in endings:
        raise SettingError(
            f"'{path}' does not say in which format to save: end the name in {', '.join(endings)}."
        )
    return path.suffix.lower()


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The settings that `save_image` wrote into a PNG, JPEG or WebP file; None if it holds none.

    Raises:
        ImageError: the file cannot be read as a picture, or its settings are damaged.
    """
    with open_picture(path) as im:
        text = im.info.get(_SETTINGS_KEY)
        # Another program's broken EXIF holds no settings of ours.
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            comment = im.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
            if isinstance(comment, bytes) and comment.startswith(_COMMENT_MARK):
                text = comment.removeprefix(_COMMENT_MARK)
        return None if text is None else dict(json.loads(text))


def _settings_options(settings: dict[str, Any], kind: str) -> dict[str, Any]:
    """The keyword arguments by which Pillow writes the settings into a file of this kind."""
    text = json.dumps(settings, allow_nan=False)  # ASCII, as the EXIF comment says it is
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt(_SETTINGS_KEY, text)
        return {"pnginfo": info}
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {int(ExifTags.Base.UserComment): _COMMENT_MARK + text.encode("ascii")}
    return {"exif": exif}


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
    return check_finite(name, _check_shape(name, picture, (3,), least, count))


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
        found, wanted = (f"{len(t)} of {t.shape[-1]} × {t.shape[-2]} pixels" for t in (mask, picture))
        raise ImageError(f"The {name} is {found} and its picture {wanted}: make it from that picture.")
    return mask.to(picture)


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least ``least``.

    Raises:
        SettingError: it is something else.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise SettingError(f"{name} is {value!r}, but must be a whole number of at least {least}: pass one.")
    return operator.index(value)


def _check_shape(
    name: str, tensor: Any, channels: tuple[int, ...] = (1, 3), least: int = 1, count: int | None = None
) -> Tensor:
    shape: Any = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
    fits = len(shape) == 4 and shape[1] in channels and 0 not in shape and shape[0] == (count or shape[0])
    if not isinstance(tensor, Tensor) or not fits:
        raise ImageError(
            f"The {name} is a tensor ({count or 'N'}, {channels[-1]}, H, W), not {shape}: load it with "
            "load_image, or bring it into that shape (image[None], image[i : i + 1], image.permute)."
        )
    if not tensor.is_floating_point():
        raise ImageError(
            f"The {name} has floats in [0, 1] as values, not {tensor.dtype}: use image.float() / 255."
        )
    if min(shape[2:]) < least:
        raise ImageError(
            f"The {name} of {shape[3]} × {shape[2]} pixels is too small: take one of at least {least} a side."
        )
    return tensor


def check_range(name: str, tensor: Tensor) -> Tensor:
    """The tensor as it was given, if its values are at most one 8-bit level outside [0, 1].

    Raises:
        ImageError: they are further off.
    """
    low, high = (value.item() for value in tensor.detach().aminmax())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ImageError(
            f"The {name} has values from {low:.3g} to {high:.3g}, not from 0 to 1: call .clamp(0, 1) if that "
            "is meant, or divide by 255 first."
        )
    return tensor


def check_finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor as it was given, if every value in it is finite.

    Raises:
        ImageError: one is not.
    """
    if not bool(tensor.detach().isfinite().all()):
        raise ImageError(
            f"The {name} has values that are not numbers (NaN or infinity): see where they arise."
        )
    return tensor
