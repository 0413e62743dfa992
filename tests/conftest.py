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
from torch import Tensor, nn

from nstlib.cli import __main__ as command
from nstlib.nets import hardware
from nstlib.nets.adain import Decoder
from nstlib.pictures import video
from nstlib.pictures.files import is_picture

# Written down a second time, on purpose: the tests hold the library's own table to this one.
VGG_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
VGG_CHANNELS = (64, 128, 256, 512, 512)
ALEXNET = ((64, 11), (192, 5), (384, 3), (256, 3), (256, 3))  # (channels, kernel)


def read_film(path: str | os.PathLike[str], *, size: int | None = None) -> tuple[Iterator[Tensor], float]:
    """Read a film as frames at equal distances in time; all else is as for `timed_frames`.

    Every frame comes once, and one that is shown longer than the others several times.

    Returns:
        An iterator over the frames (1, 3, H, W), float32, in [0, 1], on the CPU, and the frames a second.
    """
    frames, times = video.timed_frames(path, size=size)
    if is_picture(path):
        shown = [end - start for _, start, end in video._animation(path)]
        usual = [seconds for seconds in shown if seconds < 1.5 * min(shown)]  # rounded to 10 ms in a GIF
        fps = len(usual) / sum(usual)
    else:
        with video._open(path) as container:
            stream = container.streams.best("video")
            guessed = stream.guessed_rate or 25  # without the pauses; thousands if frames come at any time
            fps = float(guessed if guessed <= 60 else stream.average_rate or 25)

    def evenly() -> Iterator[Tensor]:
        count, before = 0, torch.empty(0)
        for frame in itertools.chain(frames, [None]):
            while 0 < count < round(times[-1] * fps):  # where this frame begins, or the film ends
                yield before.clone()
                count += 1
            if frame is not None:
                yield frame
                before, count = frame, count + 1

    return evenly(), fps


def convolution_shapes(network: str) -> dict[str, tuple[int, int, int]]:
    """Layer name -> (channels out, channels in, kernel), first to last."""
    if network == "alexnet":
        named = [(f"conv{i}", channels, kernel) for i, (channels, kernel) in enumerate(ALEXNET, 1)]
    else:
        named = [
            (f"conv{block}_{i}", channels, 3)
            for block, (count, channels) in enumerate(
                zip(VGG_BLOCKS[network], VGG_CHANNELS, strict=True), start=1
            )
            for i in range(1, count + 1)
        ]
    before = [3, *(channels for _, channels, _ in named)]
    return {name: (out, into, kernel) for (name, out, kernel), into in zip(named, before, strict=False)}


def make_weights(network: str, seed: int = 0) -> dict[str, Tensor]:
    """He-initialized weights keyed as the assets are; activations keep their size through all layers."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (out, into, kernel) in convolution_shapes(network).items():
        scale = math.sqrt(2 / (into * kernel**2))
        tensors[f"{name}.weight"] = torch.randn(out, into, kernel, kernel, generator=generator) * scale
        tensors[f"{name}.bias"] = torch.randn(out, generator=generator) * 0.1
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


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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
