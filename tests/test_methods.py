"""The common protocol: a toy method in one file gets its commands."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import one_sentence

from nstlib.pictures.files import save_image

TOY = """
import torch
from pydantic import Field
from torch import nn

from nstlib.errors import Fraction, Positive, Settings, settings
from nstlib.methods import METHODS, Method
from nstlib.methods.base import blend
from nstlib.training import Pictures, Task


@settings
class ToySettings(Settings):
    learning_rate: Positive = Field(default=0.1, description="Of SGD.")


@settings
class ToyOptions(Settings):
    gamma: Fraction = Field(default=1.0, description="How much of the tint.")


class ToyTask(Task):
    def __init__(self, net, faces, style, rate):
        self.faces, self.target = faces, style.mean(dim=(2, 3))
        self.modules = {"net": net}
        self.optimizers = {"main": torch.optim.SGD(net.parameters(), rate)}

    def batch(self, positions):
        return self.faces(positions)

    def step(self, step):
        mean = step.modules["net"](step.batch).mean(dim=(2, 3))
        loss = (mean - self.target.to(step.device)).square().mean()
        step.descend(loss)
        return {"total": loss}


class Toy(Method):
    summary = "a tint that it has learned"
    settings_class, options_class = ToySettings, ToyOptions
    takes = frozenset({"size", "strength"})
    presets = {"quick": {"steps": 30, "batch": 2, "faces": 4, "size": 16}}

    def __init__(self, settings=None, **options):
        super().__init__(settings, **options)
        torch.manual_seed(self.seed)
        self.net = nn.Conv2d(3, 3, 1)

    def modules(self):
        return {"net": self.net}

    def task(self, faces, styles, schedule):
        return ToyTask(self.net, Pictures(faces, 16), styles[0], self.settings.learning_rate)

    @torch.no_grad()
    def stylize(self, content, style=None, *, strength=1.0, keep_colors=False, masks=None, **own):
        made = self.net.cpu()(content).clamp(0, 1)
        return blend(made, content, strength * ToyOptions(**own).gamma, masks)


METHODS["toy"] = Toy
"""
RUN = "import sys; import toy; from nstlib.cli.__main__ import main; main()"


@pytest.fixture
def toy(tmp_path, picture):
    """``toy(*arguments)``: the command in a process of its own, with the toy method among METHODS."""
    assert len([line for line in TOY.splitlines() if line.strip()]) < 60
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "faces").mkdir()
    for number in range(3):
        save_image(picture(24, 24, number), tmp_path / "faces" / f"{number}.png")
    save_image(picture(20, 30, 7), tmp_path / "style.png")

    def run(*arguments):
        words = [sys.executable, "-c", RUN, *map(str, arguments)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_one_entry_of_methods_gives_a_toy_method_all_commands(toy):
    training = ("train", "toy", "style.png", "--pictures", "faces", "--device", "cpu", "--quiet")
    done = toy(*training, "-o", "whole.safetensors")
    assert done.stdout.startswith("done: whole.safetensors, 30 steps"), done.stderr
    painted = toy("stylize", "faces/0.png", "whole.safetensors", "--method", "toy", "--gamma", "0.5",
        "-o", "out.png", "--device", "cpu")  # fmt: skip
    assert painted.stdout.startswith("done: out.png (24×24)"), painted.stderr
    assert "--gamma" in toy("stylize", "-h").stdout
    wrong = toy("stylize", "faces/0.png", "whole.safetensors", "--method", "toy", "--gamma", "2")
    assert one_sentence(wrong.returncode, wrong.stdout, wrong.stderr) == (
        "nst: gamma should be less than or equal to 1, not '2'.\n"
    )
    wrong = toy(*training, "--learning-rate", "0", "-o", "other.safetensors")
    assert "learning_rate should be greater than 0" in wrong.stderr
