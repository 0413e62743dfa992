"""Every command of the README: it parses, and no console that is closed or knows few signs stops it."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
import torch

from nstlib.cli import __main__ as command
from nstlib.faces import parse
from nstlib.metrics import measure
from nstlib.pictures import files, video

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [
    shlex.split(words, comments=True)[1:]
    for line in "".join(BLOCKS).splitlines() for words in line.split(" && ") if words.startswith("nst ")
]  # fmt: skip
# How to make a command quick, by a word of it; the first that fits. None: parsed only.
QUICK = {
    "table1": None,
    "study": None,
    "assets": None,
    "u2_local": None,
    "dualstylegan": None,
    "stytr2": ["--size", 32],
    "portrait_drawing": ["--size", 32],
    "adain": ["--size", 32],
    "train": ["--preset", "smoke", "--pictures", "photographs", "--size", 16, "--style-size", 32, "--quiet"],
    "measure": ["--size", 32],
    "johnson": ["--size", 32],
    "--fast": ["--size", 20],
    "stylize": ["--size", 20, "--iterations", 1],
}
RUN = [words for words in COMMANDS if next(v for k, v in QUICK.items() if k in words) is not None]


@pytest.fixture
def folder(tmp_path, monkeypatch, picture, random_networks):
    """What the commands name, small; fetched networks are random, regions are halves of the picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    files.save_image(picture(36, 40, 1), "me.jpg")
    files.save_image(picture(36, 40, 2)[:, :1], "mask.png")
    for name in ("photographs", "results", "real", "made"):
        for number in range(3):
            files.save_image(picture(36, 40, number), tmp_path / name / f"{number}.png")
    video.save_film([picture(32, 32, number) for number in range(3)], "clip.mp4", fps=10)
    (tmp_path / "table1").mkdir()
    monkeypatch.setattr("nstlib.methods.gatys.transfer.find_faces", lambda image: [])
    monkeypatch.setattr("nstlib.faces.detect.find_faces", lambda image: [])
    monkeypatch.setattr(parse, "FaceParser", lambda device: None)
    half = {"hair": slice(None, 10), "background": slice(10, None)}

    def region_masks(image, names, **_):
        masks = {name: torch.zeros_like(image[:, :1]) for name in names}
        for name, mask in masks.items():
            mask[..., half[name]] = 1
        return masks

    monkeypatch.setattr(parse, "region_masks", region_masks)

    def instruments(protocol, device):
        tools = {name: lambda a, b: (a - b).abs().mean((1, 2, 3)) for name in protocol.of_pairs}
        return tools | {"features": lambda x: x.mean((2, 3))}

    monkeypatch.setattr(measure, "instruments", instruments)
    return tmp_path


def test_the_readme_shows_commands_of_every_kind():
    shown = {words[0] for words in COMMANDS}
    assert shown >= set(command.COMMANDS) - {"hello", "course"}
    assert len(RUN) >= 14


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_it_parses(folder, words):
    found, context = command.cli, None
    while isinstance(found, click.Group):
        context = found.make_context("nst", words[:], parent=context)
        _, found, words = found.resolve_command(context, [*context._protected_args, *context.args])
    assert found.make_context("nst", words[:], parent=context).params


@pytest.fixture
def consoles(folder, monkeypatch):
    """Standard output and error with a Windows console's encoding; at pipes that nobody reads (`| true`)."""
    streams = []
    for name in ("stdout", "stderr"):
        end, other = os.pipe()
        os.close(end)
        streams.append(io.TextIOWrapper(os.fdopen(other, "wb"), "cp1252"))
        monkeypatch.setattr(sys, name, streams[-1])
    yield
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("words", RUN, ids=" ".join)
def test_its_result_is_written_though_nobody_reads_what_it_says(folder, monkeypatch, consoles, words):
    before = {path for path in folder.rglob("*") if path.is_file()}
    arguments = map(str, next(v for k, v in QUICK.items() if k in words))
    monkeypatch.setattr(sys, "argv", ["nst", *words, *arguments, "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert not stop.value.code
    made = {path for path in folder.rglob("*") if path.is_file()} - before
    assert made
    named = [words[words.index(flag) + 1] for flag in ("-o", "--out") if flag in words]
    for path in map(Path, named):
        assert path.is_file() or len(list(path.iterdir())) == 3
