"""The one door to the outside: a name goes in, a verified file or its tensors come out.

    >>> from nstlib import assets
    >>> weights = assets.load_tensors("vgg16")            # doctest: +SKIP
    >>> weights["conv1_1.weight"].shape                   # doctest: +SKIP
    torch.Size([64, 3, 3, 3])

Only this package touches the network or the cache. What has been fetched once works without the internet.

Environment, read at each call: ``NSTLIB_CACHE``, the cache folder; ``NSTLIB_MIRROR``, a folder that is looked
into first, with ``packages/FILE`` for files of packages and ``HOST/PATH`` for files with a web address;
``PIP_INDEX_URL`` and pip's own configuration, the package index.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pooch

from nstlib.assets import cache, registry
from nstlib.assets.cache import cache_dir as cache_dir
from nstlib.assets.registry import Asset as Asset
from nstlib.assets.registry import find as info
from nstlib.errors import AssetError

if TYPE_CHECKING:  # a list of the assets, or a file written whole, needs no torch
    import torch


USED: dict[str, str] = {}
"""What this process has read: an asset's name and its sha256 (of the tensors, where it is converted), and
the files that the course carries, by path."""


def names() -> list[str]:
    """The names of all assets."""
    return list(registry.assets())


def fetch(name: str, *, progress: bool = True) -> Path:
    """The verified file of an asset, from the cache or, the first time, from outside.

    Args:
        name: one of :func:`names`.
        progress: show a progress bar while downloading.

    Returns:
        Path in the cache: safetensors for a network with a converter, else the published file.

    Raises:
        AssetError: no source gives the asset, or the cache cannot take it; the message says what to do.
    """
    asset = info(name)
    USED[name] = asset.sha256 or asset.tensors_sha256
    return cache.ensure(asset, progress)[0]


def load_tensors(name: str, *, progress: bool = True) -> dict[str, torch.Tensor]:
    """The verified tensors of a converted network, on the CPU, keyed by the names the course uses.

    VGG-16 and VGG-19 have ``conv1_1.weight``, ``conv1_1.bias`` ... ``conv5_4.bias``, the normalized VGG-19
    also ``conv0`` (the 1×1 convolution that turns RGB in [0, 1] into BGR · 255 minus the mean); AlexNet has
    ``conv1`` ... ``conv5``; the other networks have the keys they were published with.

    Raises:
        AssetError: as :func:`fetch`, or the asset is a file that is not converted.
    """
    asset = info(name)
    if not asset.converted:
        raise AssetError(f"{name!r} is a file, not tensors: get its path with assets.fetch({name!r}).")
    USED[name] = asset.tensors_sha256
    tensors = cache.ensure(asset, progress)[1]
    assert tensors is not None  # of a converted asset `ensure` always has them
    return tensors


def cached() -> list[str]:
    """The names of the assets that are in the cache."""
    return [name for name in names() if cache.cached_path(info(name)).exists()]


def verify(names: Iterable[str] | None = None) -> list[tuple[str, bool, str]]:
    """Hold files in the cache to their digests, without fetching anything.

    Args:
        names: the assets to look at; by default all that are in the cache.

    Returns:
        For each its name, whether it is whole, and what to do if it is not.
    """
    results = []
    for asset in [info(name) for name in (cached() if names is None else names)]:
        try:
            cache.examine(asset)
            results.append((asset.name, True, "whole"))
        except AssetError as error:
            advice = f"{cache.cached_path(asset)}: {error}; run `nst assets fetch {asset.name}`"
            results.append((asset.name, False, advice))
    return results


def data_path(relative: str) -> Path:
    """A file the course carries with it: ``nstlib/_data`` in an installed wheel, ``data/`` in a checkout.

    Raises:
        AssetError: there is no such file.
    """
    package = Path(__file__).resolve().parents[1]
    folder = package / "_data"
    if not folder.is_dir():
        folder = package.parent / "data"
    path = folder / relative
    if not path.resolve().is_relative_to(folder) or not path.exists():
        raise AssetError(f"The course carries no file {relative!r}: check its spelling, or reinstall nstlib.")
    if path.is_file():
        USED[relative] = pooch.file_hash(path)
    return path
