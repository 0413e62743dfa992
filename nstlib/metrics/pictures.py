"""Which pictures are measured, and who with whom: folders, lists and tensors as pairs, nothing read yet."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..errors import ImageError, SettingError
from ..pictures import files as images
from .pixel import check_pictures
from .protocol import Protocol

Pictures = str | os.PathLike[str] | Tensor | Sequence[str | os.PathLike[str] | Tensor]

# Also those that `load_image` refuses: who has a HEIC in the folder wants to know that it did not count.
ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".jp2", ".avif",
    ".heic", ".heif", ".jxl", ".svg", ".psd",
)  # fmt: skip


class Problem(NamedTuple):
    """What could not be measured.

    Attributes:
        file: the file, or "A[3]" for the fourth tensor of the first set.
        reason: a sentence: what is wrong, and what to do.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class Picture:
    """A file or a tensor, not read yet."""

    name: str  # in the table
    label: str  # in problems
    content: Path | Tensor

    @property
    def stem(self) -> str:
        """What pairs are made by: the name without ending."""
        return Path(self.name).stem if isinstance(self.content, Path) else self.name

    def digest(self) -> str:
        """SHA-256 of the file's bytes, or of the tensor's shape and values."""
        if isinstance(self.content, Path):
            try:
                with self.content.open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                return "unreadable"
        values = self.content.detach().float().cpu().contiguous()
        return hashlib.sha256(f"{tuple(values.shape)}".encode() + values.numpy().tobytes()).hexdigest()

    def load(self, protocol: Protocol) -> Tensor:
        """(1, 3, H, W) on the processor, in the protocol's crop and resolution.

        Raises:
            ImageError: it cannot be read, or is no picture in [0, 1].
        """
        image = images.load_image(self.content) if isinstance(self.content, Path) else self.content
        if len(check_pictures(image, f"'{self.label}'")) != 1:
            raise ImageError(
                f"'{self.label}' holds {len(image)} pictures: pass them one by one, (1, 3, H, W)."
            )
        image = image.detach().float().cpu().clamp(0, 1)
        if protocol.crop == "center":
            return images.square(image, protocol.resolution, allow_upscale=True)
        if protocol.resolution is None:
            return image
        return images.resize(image, protocol.resolution, allow_upscale=True)


def source_name(source: Pictures, otherwise: str) -> str:
    """What tables call it: the folder's name as it was given."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else otherwise


def list_pictures(source: Pictures, side: str) -> list[Picture]:
    """The pictures of a folder (by name), a list or a tensor.

    Raises:
        SettingError: the folder is missing or holds none, or it is something else.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise SettingError(f"There is no folder or picture '{path}': check the path.")
        if not path.is_dir():
            return [Picture(path.name, str(path), path)]
        try:
            held = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS and p.name[0] != ".")
        except OSError as error:
            raise SettingError(f"The folder '{path}' cannot be read ({error.strerror}): check it.") from error
        if not held:
            raise SettingError(
                f"There are no pictures in the folder '{path}' (subfolders are not looked into): name a "
                f"folder with files ending in {', '.join(ENDINGS[:4])} or the like."
            )
        return [Picture(p.name, str(p), p) for p in held]
    if not isinstance(source, Tensor | Sequence):
        raise SettingError(
            f"{side} is a folder, a list of files or pictures (N, 3, H, W), not a {type(source).__name__}."
        )
    if isinstance(source, Tensor) and source.ndim != 4:
        raise SettingError(f"{side} has the shape {tuple(source.shape)}: pictures are (N, 3, H, W).")
    found = []
    for i, item in enumerate(source.split(1) if isinstance(source, Tensor) and len(source) else source):
        if isinstance(item, Tensor):
            found.append(Picture(f"{i:04d}", f"{side}[{i}]", item))
        elif isinstance(item, str | os.PathLike):
            found.append(Picture(Path(item).name, os.fspath(item), Path(item)))
        else:
            raise SettingError(f"{side}[{i}] is a {type(item).__name__}: pass a file's name or a tensor.")
    if not found:
        raise SettingError(f"{side} holds no pictures: pass at least one.")
    return found


Pair = tuple[Picture | None, Picture | None]


def pair_up(
    first: list[Picture], second: list[Picture], protocol: Protocol, sources: tuple[str, str],
    problems: list[Problem],
) -> list[Pair]:  # fmt: skip
    """Who is measured with whom; those without a partner are named and follow, for FID and for the digests.

    Raises:
        SettingError: nobody has a partner.
    """
    if not protocol.of_pairs:  # side by side all the same: a run that is stopped has seen as many of both
        return list(itertools.zip_longest(first, second))
    pairs: list[Pair] = []
    alone: list[Pair] = []
    if protocol.pairs == "order":
        count = min(len(first), len(second))
        pairs = list(zip(first[:count], second[:count], strict=True))
        for picture in (*first[count:], *second[count:]):
            problems.append(Problem(picture.label, (
                f"'{picture.label}' has no partner, for '{sources[0]}' holds {len(first)} pictures and "
                f"'{sources[1]}' {len(second)}: look whether one is missing before it, which would shift all "
                "pairs after it."
            )))  # fmt: skip
        alone = [(p, None) for p in first[count:]] + [(None, p) for p in second[count:]]
    else:
        tables = [_by_stem(side, problems) for side in (first, second)]
        for side, others in ((0, tables[1]), (1, tables[0])):
            for stem, picture in tables[side].items():
                if stem in others:
                    if side == 0:
                        pairs.append((picture, others[stem]))
                    continue
                several = any(p.stem == stem for p in (second, first)[side])
                how = ("several pictures", "are", "leave one") if several else ("no picture", "is", "add it")
                problems.append(Problem(picture.label, (
                    f"'{picture.label}' has no partner, for {how[0]} in '{sources[1 - side]}' {how[1]} named "
                    f"'{stem}' with any ending: {how[2]}, or pair by order."
                )))  # fmt: skip
        paired = {id(p) for pair in pairs for p in pair}
        alone = [(p, None) for p in first if id(p) not in paired]
        alone += [(None, p) for p in second if id(p) not in paired]
    if not pairs:
        raise SettingError(
            f"No picture of '{sources[0]}' has a partner of the same name in '{sources[1]}' (such as "
            f"'{first[0].name}' and '{second[0].name}'): name them alike, or pair by order."
        )
    return pairs + alone


def _by_stem(side: list[Picture], problems: list[Problem]) -> dict[str, Picture]:
    """Name without ending -> picture; two of one name are ambiguous, so neither is paired."""
    found: dict[str, list[Picture]] = {}
    for picture in side:
        found.setdefault(picture.stem, []).append(picture)
    for same in found.values():
        for picture, other in zip(same, same[1:] + same[:1], strict=True):
            if picture is not other:
                problems.append(Problem(picture.label, (
                    f"'{picture.label}' is not paired, for '{other.label}' has the same name: rename one."
                )))  # fmt: skip
    return {stem: same[0] for stem, same in found.items() if len(same) == 1}
