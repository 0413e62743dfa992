"""Random weights, small pictures, and the command nst: what the tests look through, at and call."""

from __future__ import annotations

import itertools
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from gatys_helpers import shallow_net
from torch import Tensor, nn

from nstlib.cli import __main__ as command
from nstlib.nets import hardware
from nstlib.nets.adain import Decoder
from nstlib.nets.vgg import architecture
from nstlib.pictures import video


def read_film(path: str | os.PathLike[str], *, size: int | None = None) -> tuple[list[Tensor], float]:
    """Read a film as frames at equal distances in time; all else is as for `timed_frames`.

    Every frame comes once, and one that is shown longer than the others several times.

    Returns:
        The frames (1, 3, H, W), float32, in [0, 1], on the CPU, and how many there are a second.
    """
    frames, times = video.timed_frames(path, size=size)
    frames = list(frames)
    shown = [end - start for start, end in itertools.pairwise(times)]
    usual = [seconds for seconds in shown if seconds < 1.5 * min(shown)]  # rounded to 10 ms in a GIF
    fps = len(usual) / sum(usual)
    return [f for f, seconds in zip(frames, shown, strict=True) for _ in range(round(seconds * fps))], fps


def make_weights(network: str, seed: int = 0) -> dict[str, Tensor]:
    """He-initialized weights keyed as the assets are; activations keep their size through all layers."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    into = 3
    for layer in [one for one in architecture(network) if one.kind == "conv"]:
        scale = math.sqrt(2 / (into * layer.kernel**2))
        shape = (layer.channels, into, layer.kernel, layer.kernel)
        tensors[f"{layer.name}.weight"] = torch.randn(shape, generator=generator) * scale
        tensors[f"{layer.name}.bias"] = torch.randn(layer.channels, generator=generator) * 0.1
        into = layer.channels
    if network == "vgg19":  # RGB in [0, 1] to BGR minus a mean; a scale of 4 keeps random activations near 1
        tensors["conv0.weight"] = 4 * torch.eye(3).flip(0).reshape(3, 3, 1, 1)
        tensors["conv0.bias"] = torch.tensor([-1.6, -1.8, -1.9])
    return tensors


def make_decoder() -> dict[str, Tensor]:
    """Random weights of AdaIN's decoder: He's, so that a picture comes out, and a gray one in the middle."""
    torch.manual_seed(0)
    net = Decoder()
    for module in net:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    tensors = net.state_dict()
    last = next(reversed(tensors)).removesuffix(".bias")
    tensors[f"{last}.weight"] *= 0.02
    tensors[f"{last}.bias"].fill_(0.5)
    return tensors


@pytest.fixture(scope="session")
def weights() -> dict[str, dict[str, Tensor]]:
    """Network -> its random tensors; not to be changed by a test."""
    made = {network: make_weights(network) for network in ("vgg16", "vgg19", "alexnet")}
    return made | {"adain_decoder": make_decoder()}


@pytest.fixture
def random_networks(weights, monkeypatch) -> list[str]:
    """The assets give random weights instead of fetched ones; the list says which were asked for."""
    asked: list[str] = []

    def load_tensors(name: str, **_: object) -> dict[str, Tensor]:
        asked.append(name)
        return weights[name]

    monkeypatch.setattr("nstlib.assets.load_tensors", load_tensors)
    return asked


@pytest.fixture(scope="session")
def net(weights):
    """What the tests of Gatys' method look through, unless they have a network of their own."""
    return shallow_net(weights["vgg16"])


@pytest.fixture(scope="session")
def picture() -> Callable[..., Tensor]:
    """``picture(h, w, seed)``: a smooth random picture (1, 3, h, w) in [0, 1]."""

    def make(height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, channels, 4, 4, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
        noise = torch.rand(1, channels, height, width, generator=generator)
        return (0.8 * smooth + 0.2 * noise).clamp(0, 1)

    return make


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def waves(height: int, width: int) -> Tensor:
    """A smooth picture (1, 3, H, W) in [-1, 1] that every machine draws alike; of it numbers are recorded."""
    y, x = torch.arange(float(height))[:, None], torch.arange(float(width))[None]
    channels = torch.sin(0.11 * y + 0.05 * x), torch.cos(0.07 * x - 0.02 * y), torch.sin(0.003 * x * y)
    return torch.stack(channels)[None]


class Malicious:
    """Unpickled, it would make the folder "pwned"."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("pwned",)


@pytest.fixture
def one_thread():
    """Equal bits are promised to one thread only: two may add in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def refused(error: type[Exception], match: str) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """The block ends with this error, which says this, in one sentence."""
    with pytest.raises(error, match=match) as caught:
        yield caught
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


class Killed(BaseException):
    """What a kill is in these tests: nothing catches it."""


class Broken(Exception):
    """What breaks a run off that is not an error of ours."""


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A history without what differs from run to run."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def process_environment(**more: str) -> dict[str, str]:
    """For a process of its own that imports a test module, on one thread of the processor."""
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests.parent), str(tests)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def in_two_processes(module: str, path: Path) -> list[Any]:
    """What ``two_processes(path)`` of a test module gives in each of two processes that work together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        f"import os, pathlib, torch, {module} as t; path = pathlib.Path({str(path)!r}); "
        "torch.save(t.two_processes(path), path / os.environ['RANK']); "
        "torch.distributed.destroy_process_group()"
    )
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=process_environment(**common, RANK=rank, LOCAL_RANK=rank),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return [torch.load(path / rank) for rank in ("0", "1")]


@pytest.fixture
def nst(monkeypatch, capfd):
    """``nst("assets", "list")``: the exit status, standard output and standard error of the whole program."""
    monkeypatch.setattr(hardware, "keep_freed_memory", lambda: True)  # not for the test's own process

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nst", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            command.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capfd.readouterr()
        return code, out, err

    return run


def one_sentence(code, out, err, *, status=1, endings=(".\n",)):
    """The message of a program that has said one sentence and ended with this status."""
    assert code == status
    assert out == ""
    assert "Traceback" not in err
    if status == 1:  # an error of ours; 2 is click's own, with a line of usage before it
        assert err.startswith("nst: ")
        assert err.endswith(endings)
        assert err.count("\n") == 1
    return err
