"""Portraits and processes: one folder, each portrait done once, the same numbers as by one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_weights

from nstlib.errors import SettingError
from nstlib.methods.dualstylegan import destylize
from nstlib.methods.dualstylegan.portrait_files import PortraitFiles
from nstlib.methods.dualstylegan.stage_settings import SMALL
from nstlib.metrics import Lpips
from nstlib.nets.stylegan2 import Generator

TESTS = Path(__file__).parent
SETTINGS = SMALL.destylization.changed(
    tuning_steps=0, steps=2, inversion=SMALL.destylization.inversion.changed(identity_weight=0.0)
)


def codes_of(pictures: torch.Tensor) -> torch.Tensor:
    return torch.sin(torch.arange(8 * 512.0) * pictures.mean()).reshape(1, 8, 512)


def found_by(folder: Path | None) -> dict[str, torch.Tensor]:
    """Three portraits destylized by this process, or by it and others through the folder."""
    torch.manual_seed(0)
    source = Generator(32, (8, 8, 8, 8)).requires_grad_(False).eval()
    lpips = Lpips("alexnet", device="cpu", tensors=make_weights("alexnet"))
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = destylize(pictures, source, codes_of, SETTINGS, folder, lpips=lpips, progress=False)
    return {"extrinsic": found.extrinsic, "intrinsic": found.intrinsic}


def of_process(path: Path) -> None:
    """What each of several processes does."""
    torch.save(found_by(path / "run"), path / f"{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_portraits_and_find_what_one_finds(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        f"import test_portrait_files as t; from pathlib import Path; t.of_process(Path({str(tmp_path)!r}))"
    )
    common = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path], env={**common, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    with torch.random.fork_rng([]):
        wanted = found_by(None)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.allclose(found[key], wanted[key], atol=1e-4) for key in wanted)
    names = sorted(path.name for path in (tmp_path / "run").glob("*.safetensors"))
    assert names == ["0000.safetensors", "0001.safetensors", "0002.safetensors"]


def test_each_portrait_is_one_processs(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    turns = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        files = PortraitFiles(tmp_path, {"stage": "one"})
        turns.append([index for index in range(7) if files.turn(index)])
    assert turns == [[0, 3, 6], [1, 4], [2, 5]]
    with pytest.raises(SettingError, match="share their portraits through a folder"):
        PortraitFiles(None, {})


def test_what_another_process_has_not_left_is_said(tmp_path):
    files = PortraitFiles(tmp_path, {"stage": "one"})
    files.save(0, {"extrinsic": torch.ones(1)})
    with pytest.raises(SettingError, match="Portrait 2 is not in"):
        files.gather([None, None], torch.device("cpu"))
    (found,) = files.gather([None], torch.device("cpu"))
    assert torch.equal(found["extrinsic"], torch.ones(1))
