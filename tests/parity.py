"""The published networks' layouts and answers in ../shared/parity, for the tests, where that folder is."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / "shared/parity"
needed = pytest.mark.skipif(not FOLDER.is_dir(), reason="the published layouts are not in ../shared")


def layout(name: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of the published state dict."""
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {key: ast.literal_eval(shape) for key, shape, _ in rows}


def digest(layout: dict[str, tuple[int, ...]]) -> str:
    """Of names and shapes, whatever their order: what a layout is held to where the folder is not."""
    lines = sorted(f"{key} {shape}" for key, shape in layout.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def shapes(state_dict: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state_dict.items()}


@cache
def rule() -> ModuleType:
    """The weight rule, detfill.py."""
    spec = importlib.util.spec_from_file_location("detfill", FOLDER / "detfill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(layout: dict[str, tuple[int, ...]], mode: str, gain: float = 1.0) -> dict[str, Tensor]:
    """The rule's weights; ``gain`` is that of the blur filters, which it leaves alone."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = gain * taps[:, None] * taps
    empties = ((key, torch.empty(()).expand(shape)) for key, shape in layout.items())
    return {
        key: kernel if key.endswith("kernel")
        else torch.tensor(0) if key.endswith("tracked")
        else rule().det_tensor(key, empty, mode)
        for key, empty in empties
    }  # fmt: skip


def recorded(name: str) -> dict[str, Tensor]:
    return torch.load(FOLDER / f"{name}_io.pt", weights_only=True)


def assert_equal(found: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    """To within a part of the largest number; the networks' numbers are of any size."""
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * expected.abs().max().item())
