"""Device and number format, whatever the machine that runs the tests has."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cuda:1", r"'cuda:1' is no device to compute on here: use 'auto', or one of 'cpu'\.$"),
        (torch.device("mps"), "'mps' is no device"),
        ("gpu", "'gpu' is no device"),
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


@pytest.mark.parametrize("precision", ["float16", "", None])
def test_an_unknown_precision_is_one_sentence(precision):
    with pytest.raises(SettingError, match=rf"'auto', 'float32', 'bfloat16' or 'float64'.*not '{precision}'"):
        hardware.resolve_precision(precision)
