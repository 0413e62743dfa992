"""A package index, a web host and a registry of their own for the tests of `nstlib.assets`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import time
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

SDIST = "tiny_nets-1.0.tar.gz"
WHEEL = "tiny_nets-1.0-py3-none-any.whl"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def network_file() -> bytes:
    """A published state dict of two convolutions."""
    generator = torch.Generator().manual_seed(0)
    state = {
        f"{i}.{part}": torch.randn(shape, generator=generator)
        for i in (0, 2)
        for part, shape in (("weight", (4, 3, 3, 3)), ("bias", (4,)))
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def sdist(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(f"tiny_nets-1.0/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"tiny_nets/{name}", data)
    return buffer.getvalue()


def toml(header: str, **values: object) -> str:
    """A table of a TOML file."""
    return "\n".join([header, *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""])


def asset_toml(name: str, file: str, **more: object) -> str:
    values = {"title": name, "purpose": "tests", "licence": "MIT", "non_commercial": False, "file": file}
    return toml(f"[assets.{name}]", **(values | more))


def source_toml(name: str, data: bytes, **source: object) -> str:
    return toml(f"[[assets.{name}.sources]]", bytes=len(data), sha256=sha256(data), **source)


class Host:
    """An HTTP server on this machine: what it serves, how often it was asked, and how badly it behaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.redirects: dict[str, str] = {}
        self.ranges: list[int] | None = []  # where it was asked to go on; None: it knows no ranges
        self.break_off: Counter[str] = Counter()  # how many answers end in the middle
        self.stall = threading.Event()  # until it is set, an answer that ends in the middle does not end
        self.stall.set()
        self.delay = 0.0
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.requests[self.path] += 1
                if self.path in host.redirects:
                    self.send_response(302)
                    self.send_header("Location", host.redirects[self.path])
                    self.end_headers()
                    return
                data = host.files.get(self.path)
                if data is None:
                    self.send_error(404)
                    return
                if not self.path.endswith("/"):
                    time.sleep(host.delay)
                start = 0
                if host.ranges is not None and "Range" in self.headers:
                    start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                    host.ranges.append(start)
                    if start >= len(data):
                        self.send_error(416)
                        return
                self.send_response(206 if start else 200)
                self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/x")
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                cut = host.break_off[self.path] > 0
                host.break_off[self.path] -= 1
                self.wfile.write(data[start : (start + len(data)) // 2 if cut else None])
                if cut:
                    host.stall.wait(60)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class World:
    """A tiny outside: an index with one package (sdist and wheel), a web host and a registry of them."""

    def __init__(self, folder: Path, host: Host) -> None:
        self.host = host
        self.registry = folder / "registry.toml"
        self.cache = folder / "cache"
        self.mirror = folder / "mirror"
        self.members = {
            "README": b"not asked for",
            "net.pth": network_file(),
            "picture.bin": bytes(range(256)) * 40,
        }
        self.artifacts = {SDIST: sdist(self.members), WHEEL: wheel(self.members)}
        self.picture_url = f"{host.address}/pictures/face.png"
        host.files["/pictures/face.png"] = b"a face " * 2000
        self.publish()
        self.write_registry()

    def publish(self) -> None:
        """Put the artifacts as they are now into the index."""
        links = "".join(f'<a href="/files/{name}">{name}</a>' for name in self.artifacts)
        self.host.files["/simple/tiny-nets/"] = f"<html><body>{links}</body></html>".encode()
        self.host.files |= {f"/files/{name}": data for name, data in self.artifacts.items()}

    def downloads(self, name: str = SDIST) -> int:
        return self.host.requests[f"/files/{name}"]

    def put_in_mirror(self, place: str, data: bytes) -> None:
        path = self.mirror / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def cached(self) -> list[str]:
        """What lies in the cache, but for the lock and what a download goes on with."""
        if not self.cache.is_dir():
            return []
        names = sorted(path.name for path in self.cache.iterdir())
        return [name for name in names if name != ".lock" and not name.startswith(".partial-")]

    def write_registry(self, *, tensors_sha256: str = "", member: str = "net.pth", extra: str = "") -> None:
        """`net` and `raw` from the sdist, `raw_wheel` from the wheel, `face` from the web."""
        net, picture = self.members["net.pth"], self.members["picture.bin"]
        in_sdist = {"artifact": SDIST, "member": f"tiny_nets-1.0/{member}"}
        blocks = [
            toml(f'[artifacts."{name}"]', project="tiny-nets", bytes=len(data), sha256=sha256(data))
            for name, data in self.artifacts.items()
        ]
        for file, data, source in (
            ("net.safetensors", net, in_sdist | {"convert": "state_dict"}),
            ("raw.bin", picture, {"artifact": SDIST, "member": "tiny_nets-1.0/picture.bin"}),
            ("raw_wheel.bin", picture, {"artifact": WHEEL, "member": "tiny_nets/picture.bin"}),
            ("face.png", self.host.files["/pictures/face.png"], {"url": self.picture_url}),
        ):
            name = file.partition(".")[0]
            own = {"bytes": 2000, "tensors_sha256": tensors_sha256} if "convert" in source else {}
            blocks.append(asset_toml(name, file, non_commercial=name == "face", **own))
            blocks.append(source_toml(name, data, **source))
        self.registry.write_text("\n".join([*blocks, extra]), encoding="utf-8")
