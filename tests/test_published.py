"""The authors' files as a method: read without running anything, stylized as released, and learned over."""

from __future__ import annotations

import argparse
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_weights, one_sentence

from nstlib import assets
from nstlib.assets.weights import read_arrays, read_checkpoint
from nstlib.errors import SettingError
from nstlib.faces import align as portraits
from nstlib.faces import style_sets
from nstlib.methods.dualstylegan import published
from nstlib.methods.dualstylegan.presets import Preset, released
from nstlib.methods.dualstylegan.published import load_published, load_published_critic
from nstlib.nets.dualstylegan import DualStyleGAN, layer_weights
from nstlib.nets.psp import PspEncoder
from nstlib.nets.stylegan2 import Discriminator
from nstlib.pictures import files as images

CHANNELS = (8, 8, 8, 8)


@pytest.fixture(scope="module")
def nets() -> tuple[DualStyleGAN, PspEncoder, Discriminator]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = DualStyleGAN(32, CHANNELS)
        for parameter in net.res.parameters():  # a path that has learned something
            parameter.data += 0.1 * torch.randn_like(parameter)
        return net.eval(), PspEncoder(8, (16, 16, 16, 512)).eval(), Discriminator(32, CHANNELS)


@pytest.fixture
def files(tmp_path, nets) -> Path:
    """Files as they were published: names around the weights, options beside them, codes in a dictionary."""
    net, encoder, critic = nets
    args = argparse.Namespace(size=32)
    torch.save(
        {"g_ema": net.state_dict(), "d": critic.state_dict(), "args": args, "iter": 7},
        tmp_path / "generator.pt",
    )
    torch.save({"g_ema": net.generator.state_dict()}, tmp_path / "stylegan2.pt")
    inside = {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}
    torch.save({"state_dict": inside, "opts": {"output_size": 32}}, tmp_path / "encoder.pt")
    random = np.random.default_rng(0)
    codes = {f"Cartoon{i}.jpg": random.standard_normal((1, 8, 512), np.float32) for i in (2, 1, 3)}
    np.save(tmp_path / "codes.npy", codes)  # type: ignore[arg-type]
    return tmp_path


def load(files: Path, name: str = "generator.pt", **options):
    return load_published(files / name, files / "encoder.pt", files / "codes.npy", device="cpu", **options)


# ------------------------------------------------------------------------------------------- as released


def test_the_picture_is_the_released_programs(files, nets, picture):
    net, encoder, _ = nets
    face = picture(512, 512, 1)
    codes = np.load(files / "codes.npy", allow_pickle=True).item()
    with torch.no_grad():
        read = encoder(2 * F.adaptive_avg_pool2d(face, 256) - 1)
        wanted = net(
            read, torch.from_numpy(list(codes.values())[1]), truncation=0.75,
            interp_weights=layer_weights(8, 0.75, 1.0),
        )  # fmt: skip
    wanted = ((wanted + 1) / 2).clamp(0, 1)
    method = load(files)
    # The portrait is made as large as the generator's pictures first, which at 1024 pixels changes nothing.
    method.encoder.net.load_state_dict(encoder.state_dict())
    found = method.stylize(method.source.w_plus(read, "z"), 1, **published.AS_RELEASED)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(
        method.source.w_plus(method.encoder(face), "z"), method.source.w_plus(read, "z"), atol=1e-5
    )
    assert method.learned is not None
    assert len(method.learned.extrinsic) == 3


def test_truncation_goes_to_zero_here_and_to_the_mean_for_the_courses_own(files):
    method = load(files)
    codes = method.source.w_plus(torch.randn(1, 512), "z")
    none = method.stylize(codes, 0, structure=0, color=0, truncation=0.0)
    zero = method.source(torch.zeros(1, 8, 512), space="w")
    assert torch.allclose(none, ((zero + 1) / 2).clamp(0, 1), atol=1e-5)


def test_over_a_stylegan2_the_path_is_new(files, nets):
    method = load(files, "stylegan2.pt", seed=3)
    codes = method.source.w_plus(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), "z")
    plain = ((method.source(codes, space="w") + 1) / 2).clamp(0, 1)
    assert (method.stylize(codes, 0, color=0) - plain).abs().mean() < 0.02
    again, other = load(files, "stylegan2.pt", seed=3), load(files, "stylegan2.pt", seed=4)
    key = "res.0.conv.0.weight"
    assert torch.equal(method.net.state_dict()[key], again.net.state_dict()[key])
    assert not torch.equal(method.net.state_dict()[key], other.net.state_dict()[key])


def test_the_critic_is_the_checkpoints(files, nets):
    critic = load_published_critic(files / "generator.pt", "cpu")
    assert critic is not None
    assert all(torch.equal(t, nets[2].state_dict()[key]) for key, t in critic.state_dict().items())
    assert load_published_critic(files / "stylegan2.pt", "cpu") is None


# ---------------------------------------------------------------------------------------- learning over it


def short() -> Preset:
    """The released settings, and a few steps of each."""
    whole = released()
    first, recipe = whole.stages.destylization, whole.recipe
    first = first.changed(
        tuning_steps=2, tuning_batch=2, steps=2, inversion=first.inversion.changed(identity_weight=0.0)
    )
    latent, sampler = whole.stages.latent.changed(steps=1), whole.stages.sampler.changed(steps=2, codes=4)
    few = {"critic_channels": CHANNELS}
    return Preset(
        replace(whole.stages, destylization=first, latent=latent, sampler=sampler),
        replace(
            recipe, batch=2,
            structure=recipe.structure.changed(mixing=((7, 1), (5, 1)), **few),
            style=recipe.style.changed(phases=((2, 0.0, 0.015),), **few),
        ),
    )  # fmt: skip


@pytest.fixture
def weights(monkeypatch):
    """Random weights instead of fetched ones."""
    made = {name: make_weights(name) for name in ("vgg16", "vgg19", "alexnet")}
    monkeypatch.setattr(assets, "load_tensors", lambda name, **_: made[name])


def test_the_released_settings_learn_over_the_published_network(files, weights, picture):
    styles = torch.cat([picture(32, 32, seed) for seed in range(2)])
    critic = load_published_critic(files / "generator.pt", "cpu")
    assert critic is not None
    before = {key: t.clone() for key, t in critic.state_dict().items()}

    stages: list[str] = []
    method = load_published(files / "stylegan2.pt", files / "encoder.pt", device="cpu")
    first = {key: t.clone() for key, t in method.net.extrinsic_state().items()}
    method.fit(None, styles, short(), critic=critic, told=stages.append, progress=False)
    assert len(stages) == 5
    assert all(torch.equal(t, before[key]) for key, t in critic.state_dict().items())  # copies have learned
    assert not torch.equal(method.net.extrinsic_state()["res.0.conv.0.weight"], first["res.0.conv.0.weight"])
    assert torch.equal(method.net.extrinsic_state()["style.1.weight"], first["style.1.weight"])  # as released
    assert method.stylize(picture(32, 32, 5), 1).shape == (1, 3, 32, 32)


def test_settings_of_another_space_are_refused(files, picture):
    method = load_published(files / "stylegan2.pt", files / "encoder.pt", device="cpu")
    with pytest.raises(SettingError, match=r"search in w\+, and the encoder reads z\+"):
        method.fit(None, picture(32, 32, 1), Preset(), progress=False)


# ------------------------------------------------------------------------------------ what is no such file


class Harmful:
    """What must never be run."""

    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_nothing_of_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "bad.npy", {"a": Harmful()})  # type: ignore[arg-type]
    torch.save({"g_ema": Harmful()}, tmp_path / "bad.pt")
    for read, name in ((read_arrays, "bad.npy"), (read_checkpoint, "bad.pt")):
        with pytest.raises(SettingError, match="nothing else is unpickled"):
            read(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: np.save(p, np.zeros(3)), "holds no"),
        (lambda p: np.save(p, {"a": 1}), "holds no dictionary of arrays"),
        (lambda p: p.write_bytes(b"no array"), "holds no weights"),
        (lambda p: p.write_bytes(pickle.dumps({})), "holds no weights"),
        (lambda p: p.write_bytes(b""), "holds no weights"),
        (lambda p: None, "There is no file"),
    ],
)
def test_other_arrays_are_refused(tmp_path, make, said):
    path = tmp_path / "codes.npy"
    make(path)
    with pytest.raises(SettingError, match=said) as caught:
        read_arrays(path)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_belong_together_are_refused(files, picture):
    np.save(files / "codes.npy", {"a": np.zeros((1, 18, 512), np.float32)})  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"holds no codes \(1, 8, 512\) for a generator of 32 pixels"):
        load(files)
    with pytest.raises(SettingError, match="has no weights under 'g_ema'"):
        load_published(files / "encoder.pt", device="cpu")
    torch.save({"g_ema": {"a": torch.zeros(1)}}, files / "odd.pt")
    with pytest.raises(SettingError, match="These weights are not those of"):
        load_published(files / "odd.pt", device="cpu")
    torch.save({"g_ema": {"a": 1}}, files / "odd.pt")
    with pytest.raises(SettingError, match="has no weights under 'g_ema'"):
        load_published(files / "odd.pt", device="cpu")
    without = load_published(files / "generator.pt", device="cpu")
    with pytest.raises(SettingError, match="give the encoder that was trained for it"):
        without.faces(picture(32, 32, 1))


# ------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def there(files, picture, monkeypatch):
    """A portrait beside the files; faces are found in the middle."""
    monkeypatch.chdir(files)
    images.save_image(picture(150, 160, 1), files / "me.png")
    theta = torch.tensor([[[0.8, 0.0, 0.0], [0.0, 0.8, 0.0]]])

    def aligned(image, size=128, parser=None, *, face=None):
        return portraits.Portrait(portraits.cut_portrait(image, theta, size), theta)

    monkeypatch.setattr(portraits, "align_portrait", aligned)
    return files


THEIRS = ("--encoder", "encoder.pt", "--codes", "codes.npy")
COMMON = ("--method", "dualstylegan", "--device", "cpu", "--quiet")


def test_the_command_takes_the_authors_files(nst, there):
    code, _, err = nst("stylize", "me.png", "generator.pt:2", *THEIRS, *COMMON)
    assert code == 0, err
    settings = images.read_settings(there / "stylized.png")
    assert {key: settings[key] for key in ("structure", "truncation", "iterations")} == {
        "structure": 0.75, "truncation": 0.75, "iterations": 0,
    }  # fmt: skip
    assert images.load_image(there / "stylized.png").shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generator.pt:2", "--encoder", "encoder.pt"), "needs the files it was published with"),
        (("ink:1", "--codes", "codes.npy"), "'ink' is none"),
        (("generator.pt:9", *THEIRS), "portraits 0 to 2, not 9"),
        (("none.pt:1", *THEIRS), "There is no file 'none.pt'"),
    ],
)
def test_what_is_missing_is_said(nst, there, arguments, said):
    assert said in one_sentence(*nst("stylize", "me.png", *arguments, *COMMON))


def test_the_command_learns_over_the_authors_files(nst, there, weights, monkeypatch, picture):
    pictures = torch.cat([picture(32, 32, seed) for seed in range(2)])
    found = style_sets.StyleSet("stripes", "Stripes", "none", pictures, ("0", "1"))
    monkeypatch.setattr(style_sets, "load_style_set", lambda name, size=None: found)
    monkeypatch.setattr("nstlib.methods.dualstylegan.presets.released", short)
    arguments = ("train", "dualstylegan", "stripes", "--preset", "paper", "--device", "cpu", "--quiet")
    assert "learns over the authors' networks" in one_sentence(*nst(*arguments))
    theirs = ("--generator", "stylegan2.pt", "--encoder", "encoder.pt")  # without a critic: a new one learns
    assert "learns over the authors' networks" in one_sentence(*nst(*arguments[:3], *theirs))
    code, out, err = nst(*arguments, *theirs)
    assert code == 0, err
    assert "done: dualstyle_stripes.safetensors, 2 portraits in " in out
