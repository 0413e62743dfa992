"""The common protocol: a toy method in one file gets its commands, and the course's own have theirs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import one_sentence

from nstlib.faces import parse
from nstlib.methods import portrait_drawing
from nstlib.pictures.files import load_image, save_image

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
def folder(tmp_path, picture):
    """Three faces and a style."""
    for number in range(3):
        save_image(picture(70, 61, number), tmp_path / "faces" / f"{number}.png")
    save_image(picture(40, 50, 7), tmp_path / "style.png")
    return tmp_path


@pytest.fixture
def toy(folder):
    """``toy(*arguments)``: the command in a process of its own, with the toy method among METHODS."""
    assert len([line for line in TOY.splitlines() if line.strip()]) < 60
    (folder / "toy.py").write_text(TOY)

    def run(*arguments):
        words = [sys.executable, "-c", RUN, *map(str, arguments)]
        return subprocess.run(words, cwd=folder, capture_output=True, text=True)

    return run


def test_one_entry_of_methods_gives_a_toy_method_all_commands(toy):
    training = ("train", "toy", "style.png", "--pictures", "faces", "--device", "cpu", "--quiet")
    done = toy(*training, "-o", "whole.safetensors")
    assert done.stdout.startswith("done: whole.safetensors, 30 steps"), done.stderr
    painted = toy("stylize", "faces/0.png", "whole.safetensors", "--method", "toy", "--gamma", "0.5",
        "-o", "out.png", "--device", "cpu")  # fmt: skip
    assert painted.stdout.startswith("done: out.png (61×70)"), painted.stderr
    assert "--gamma" in toy("stylize", "-h").stdout
    wrong = toy("stylize", "faces/0.png", "whole.safetensors", "--method", "toy", "--gamma", "2")
    assert one_sentence(wrong.returncode, wrong.stdout, wrong.stderr) == (
        "nst: gamma should be less than or equal to 1, not '2'.\n"
    )
    wrong = toy(*training, "--learning-rate", "0", "-o", "other.safetensors")
    assert "learning_rate should be greater than 0" in wrong.stderr


# Method: what it learns from, what it paints with, and what it does not take, with the sentence.
NETWORK = "takes one network and one picture of a style, not"
TRAINED = {
    "cyclegan": ("sketch", "own.safetensors", "vangogh", "take one of ink, apple2orange, a file of weights"),
    "portrait_drawing": ("sketch ink", "own.safetensors:1", "own.safetensors:2", "are 2 styles"),
    "puffnet": ("ink faces style.png", "style.png own.safetensors", "style.png faces/1.png", NETWORK),
    "stytr2": ("ink faces style.png", "style.png own.safetensors", "style.png faces/1.png", NETWORK),
    "u2_local": (
        "ink", "style.png own.safetensors --region eye --region hair",
        "style.png own.safetensors --region hair --region eye=style.png", "all regions have one style",
    ),
}  # fmt: skip


def rows(images, names=parse.REGIONS, *_, **__):
    """In place of the parser: the rows of a picture belong to the regions by turns."""
    masks = {name: torch.zeros_like(images[:, :1]) for name in names}
    for number, mask in enumerate(masks.values()):
        mask[:, :, number :: len(names)] = 1
    return masks


@pytest.mark.parametrize("name", TRAINED)
def test_the_commands_train_and_paint(nst, folder, random_networks, monkeypatch, name):
    monkeypatch.chdir(folder)
    for module in (parse, portrait_drawing):
        monkeypatch.setattr(module, "FaceParser", lambda device: None)
        monkeypatch.setattr(module, "portrait_masks", rows)
    monkeypatch.setattr(parse, "region_masks", rows)
    styles, words, wrong, said = TRAINED[name]
    training = ("--preset", "smoke", "--pictures", "faces", "--steps", 2, "--device", "cpu", "--quiet")
    code, out, err = nst("train", name, *styles.split(), *training, "-o", "own.safetensors")
    assert code == 0, err
    assert out.startswith("done: own.safetensors, 2 steps")
    paint = ("stylize", "faces/0.png", "--method", name, "--device", "cpu", "-o", "out.png")
    code, out, err = nst(*paint, *words.split())
    assert code == 0, err
    assert load_image("out.png").shape == (1, 3, 70, 61)
    assert said in one_sentence(*nst(*paint, *wrong.split()))
