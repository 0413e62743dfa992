"""Sets of portraits in one style: what DualStyleGAN and JoJoGAN learn a style from.

One notion for three kinds: the sets the course carries (``data/styles``), the contact sheets of
DualStyleGAN's own sets (fetched by their web address when first asked for, non-commercial), and a folder of
your pictures.

    >>> style_sets()["ink"]                                              # doctest: +SKIP
    'Portraits in colored ink'
    >>> ink = load_style_set("ink")                                      # doctest: +SKIP
    >>> ink.pictures.shape                                               # doctest: +SKIP
    torch.Size([64, 3, 256, 256])
    >>> mine = load_style_set("my/drawings")                             # doctest: +SKIP
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import assets
from ..errors import ImageError, known
from ..pictures.files import check_whole, list_pictures, load_image, readable, resize
from .align import SIZE, align_portrait

_GRAY = (0.45, 0.42, 0.40)  # behind transparent pixels: neither paper nor night


@dataclass(frozen=True)
class StyleSet:
    """Portraits in one style, framed like FFHQ.

    Attributes:
        name: what it is asked for by; of a folder, the folder's name.
        title: what it is, in words.
        licence: under which licence, and whose; of a folder, that only you know.
        pictures: (N, 3, S, S), float32, RGB in [0, 1], on the CPU.
    """

    name: str
    title: str
    licence: str
    pictures: Tensor


@dataclass(frozen=True)
class Sheet:
    """A contact sheet: where its tiles are, in pixels of the whole, and how many there are, row by row."""

    columns: int
    rows: int
    count: int
    tile: int
    left: int = 0  # of the first tile
    right: int = 0  # of the last column's end
    top: int = 0
    bottom: int = 0
    border: int = 0  # pixels of each tile's edge that are left out, mixed with the paper or a neighbor

    def cut(self, image: Tensor) -> Tensor:
        """The tiles of a sheet (1, 3, H, W): (count, 3, s, s)."""
        # Sheets drawn by plotting programs: the steps are no integers.
        across = torch.linspace(self.left, self.right - self.tile, self.columns, dtype=torch.float64)
        down = torch.linspace(self.top, self.bottom - self.tile, self.rows, dtype=torch.float64)
        corners = [(y, x) for y in down.round().int().tolist() for x in across.round().int().tolist()]
        cut = slice(self.border, self.tile - self.border)
        tiles = [image[..., y : y + self.tile, x : x + self.tile] for y, x in corners[: self.count]]
        return torch.cat(tiles)[..., cut, cut]


# The grids were read off the sheets; a tile's number is the style id of DualStyleGAN's files.
_SHEETS = {
    "cartoon": Sheet(20, 16, 317, 62, 60, 1377, 52, 1105, border=2),
    "fantasy": Sheet(20, 7, 137, 202, 234, 4365, 145, 1589, border=2),
    "illustration": Sheet(20, 8, 156, 203, 214, 4366, 145, 1804, border=2),
    "impasto": Sheet(20, 6, 120, 203, 215, 4365, 145, 1388, border=2),
    "caricature": Sheet(20, 10, 199, 62, 60, 1377, 52, 709, border=2),
    "anime": Sheet(20, 9, 174, 62, 60, 1377, 52, 643, border=2),
}


def style_sets() -> dict[str, str]:
    """Name -> title of the sets that have a name: first those the course carries, then those fetched."""
    carried = {name: entry["title"] for name, entry in _entries().items()}
    return carried | {name: assets.info(f"dualstylegan_{name}_sheet").title for name in _SHEETS}


def load_style_set(source: str | os.PathLike[str], size: int = SIZE) -> StyleSet:
    """The portraits of a set.

    The faces in a folder of yours are found and framed like FFHQ
    (:func:`nstlib.faces.align.align_portrait`). The tiles of the sheets fetched have about 60 (cartoon,
    caricature, anime) or 200 pixels a side, so that a larger size only blurs; those of the carried sets 256.

    Args:
        source: a name of :func:`style_sets`, with or without the asset's ``dualstylegan_`` before it, or a
            folder of pictures. A ``Path`` is always a folder.
        size: pixels a side.

    Raises:
        SettingError: no set and no folder of that name, or a size that is not positive.
        ImageError: the folder holds no picture in which a face is found.
        AssetError: the set cannot be fetched.
    """
    check_whole("size", size)
    if isinstance(source, str):
        name = source.removeprefix("dualstylegan_").removesuffix("_sheet")
        if name in _entries():
            return _carried(name, size)
        if name in _SHEETS:
            return _fetched(name, size)
    folder = Path(source)
    if not folder.is_dir():
        known("style set or folder", str(source), style_sets())
    return _folder(folder, size)


def _carried(name: str, size: int) -> StyleSet:
    entry = _entries()[name]
    columns, rows, tile = entry["columns"], entry["rows"], entry["tile"]
    sheet = Sheet(columns, rows, entry["count"], tile, right=columns * tile, bottom=rows * tile)
    tiles = sheet.cut(load_image(assets.data_path(f"styles/{entry['file']}")))
    return StyleSet(name, entry["title"], entry["licence"], resize(tiles, (size, size)))


def _fetched(name: str, size: int) -> StyleSet:
    asset = assets.info(f"dualstylegan_{name}_sheet")
    tiles = _SHEETS[name].cut(load_image(assets.fetch(asset.name)))
    return StyleSet(name, asset.title, f"{asset.licence}; non-commercial", resize(tiles, (size, size)))


def _folder(folder: Path, size: int) -> StyleSet:
    found: list[Tensor] = []

    def look(file: Path) -> None:
        image = load_image(file, background=_GRAY)
        try:
            found.append(align_portrait(image, size).picture)
        except ImageError as error:
            raise ImageError(f"No face was found in '{file}': take another picture.") from error

    readable(list_pictures(folder), look=look)
    title = f"the pictures in '{folder}'"
    return StyleSet(folder.resolve().name, title, "yours to know", torch.cat(found))


@lru_cache(maxsize=1)
def _entries() -> dict[str, dict[str, Any]]:
    """The carried sets as ``styles.toml`` states them."""
    text = assets.data_path("styles/styles.toml").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in tomllib.loads(text)["set"]}
