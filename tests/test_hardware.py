"""Device and number format, whatever the machine that runs the tests has."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from nstlib.errors import SettingError
from nstlib.nets import hardware


@pytest.fixture
def machine(monkeypatch):
    """``machine(cuda=..., mps=..., capability=..., amx=..., avx=...)``: pretend to be that machine."""

    def pretend(*, cuda=False, mps=False, capability=(8, 0), amx=False, avx=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx, raising=False)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_device_prefers_cuda_then_mps(machine, cuda, mps, expected):
    machine(cuda=cuda, mps=mps)
    assert hardware.resolve_device() == torch.device(expected)


def test_a_device_that_is_there_is_taken_as_named(machine):
    machine(cuda=True)
    assert hardware.resolve_device("cuda:0") == torch.device("cuda:0")
    assert hardware.resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cuda:1", r"No CUDA GPU is usable here; use device='cpu'"),
        (torch.device("cuda"), r"No CUDA GPU is usable here"),
        ("mps", r"Apple's MPS is not usable here; use device='cpu'"),
        ("gpu", r"'gpu' is no device to compute on here: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"),
        ("", r"'' is no device"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(machine, device, sentence):
    machine()
    with pytest.raises(SettingError, match=sentence):
        hardware.resolve_device(device)


@pytest.mark.parametrize(("amx", "avx"), [(True, False), (False, True), (False, False)])
def test_a_processor_takes_bfloat16_only_with_hardware_for_it(machine, amx, avx):
    machine(amx=amx, avx=avx)
    assert hardware.resolve_precision("auto", "cpu") == (torch.bfloat16 if amx or avx else torch.float32)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16)],  # Turing, such as Colab's T4, only emulates it
)
def test_cuda_takes_bfloat16_from_ampere_on(machine, capability, expected):
    machine(cuda=True, capability=capability)
    assert hardware.resolve_precision("auto", "cuda:0") == expected


def test_a_named_precision_wins_over_the_hardware(machine):
    machine(amx=True)
    assert hardware.resolve_precision("float32", "cpu") == torch.float32
    assert hardware.resolve_precision(torch.float64, "cpu") == torch.float64


@pytest.mark.parametrize("precision", ["float16", "", None])
def test_an_unknown_precision_is_one_sentence(precision):
    with pytest.raises(SettingError, match=rf"'auto', 'float32', 'bfloat16' or 'float64'.*not '{precision}'"):
        hardware.resolve_precision(precision)


@pytest.mark.parametrize(("platform", "library"), [("darwin", None), ("linux", object())])
def test_memory_is_left_alone_without_the_gnu_c_library(monkeypatch, platform, library):
    monkeypatch.setattr(hardware.sys, "platform", platform)
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: library or pytest.fail("it was touched"))
    assert hardware.keep_freed_memory() is False
    assert hardware.give_back_memory() is False


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="needs the GNU C library",
)
def test_freed_memory_really_stays_with_the_process_until_it_is_given_back():
    # In a process of its own, because the choice cannot be taken back.
    code = (
        "import psutil, torch\n"
        "from nstlib.nets.hardware import give_back_memory, keep_freed_memory\n"
        "here = psutil.Process().memory_info\n"
        "before = here().rss\n"
        "x = torch.ones(16 * 2**20)\n"
        "del x\n"
        "without = here().rss - before\n"
        "assert keep_freed_memory() is True\n"
        "x = torch.ones(16 * 2**20)\n"
        "del x\n"
        "kept = here().rss - before\n"
        "assert give_back_memory() is True\n"
        "print(without // 2**20, kept // 2**20, (here().rss - before) // 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    without, kept, given_back = map(int, done.stdout.split())
    assert without < 32  # of the tensor's 64 MiB
    assert kept > 48
    assert given_back < 32
