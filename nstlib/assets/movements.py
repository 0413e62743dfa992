"""The paintings the course carries, by art movement: in paper B the user chooses a movement, not a file."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from .. import assets
from ..errors import known


@dataclass(frozen=True)
class Painting:
    """A painting the course carries; ``path`` is a file that ``load_image`` reads."""

    title: str
    artist: str
    year: str  # as the sources say it: "1889", "c. 1831", "undated"
    movement: str
    path: Path
    licence: str


def movements() -> dict[str, tuple[Painting, ...]]:
    """Every art movement of which the course carries a painting, with its paintings, in the list's order.

    Raises:
        AssetError: the list of pictures, or a picture in it, is missing.

    Example:
        >>> list(movements())[:3]
        ['Post-Impressionism', 'Art Nouveau', 'Abstract art']
    """
    entries = tomllib.loads(assets.data_path("pictures.toml").read_text(encoding="utf-8"))["picture"]
    found: dict[str, tuple[Painting, ...]] = {}
    for entry in entries:
        if movement := entry.get("movement"):
            path = assets.data_path(entry["file"])
            told = (entry["title"], entry["artist"], entry["year"])
            painting = Painting(*told, movement, path, entry["licence"])
            found[movement] = (*found.get(movement, ()), painting)
    return found


def paintings(movement: str) -> tuple[Painting, ...]:
    """The paintings of one movement.

    Args:
        movement: its name, however it is written: case, accents, spaces and hyphens do not matter, an artist
            stands for the art ("Impressionist"), and a beginning will do where only one name has it
            ("ukiyo", "abstract").

    Raises:
        SettingError: there is none of that name; the message lists the names, and the one that was meant.
        AssetError: the list of pictures, or a picture in it, is missing.

    Example:
        >>> [painting.title for painting in paintings("post impressionism")]
        ['The Starry Night', 'Village Street in Auvers']
    """
    catalog, wanted = movements(), _key(movement)
    begun = [name for name in catalog if wanted and _key(name).startswith(wanted)]
    return catalog[known("movement", begun[0] if len(begun) == 1 else movement, catalog)]


def _key(name: str) -> str:
    """Only the letters and digits of a name, without case and accents, and an -ist turned into an -ism."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", name).casefold() if c.isalnum())
    return re.sub("ists?$", "ism", letters)
