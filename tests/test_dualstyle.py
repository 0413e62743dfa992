"""DualStyleGAN as a method: four stages in a row, gone on with after a stop, and what can be asked of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import make_weights, one_sentence
from test_faces import tiny_tensors

from nstlib import assets
from nstlib.errors import ImageError, SettingError
from nstlib.faces import align as portraits
from nstlib.faces import style_sets
from nstlib.faces.generated import Faces
from nstlib.methods import inversion
from nstlib.methods.dualstylegan import presets, transfer
from nstlib.methods.dualstylegan.presets import Preset, smoke
from nstlib.methods.dualstylegan.transfer import DualStyle, Learned
from nstlib.nets.stylegan2 import Generator
from nstlib.pictures import files as images


def quiet(preset: Preset) -> Preset:
    """Without the recognizer's face, whose weights are not at hand."""
    destylization = preset.stages.destylization
    inversion = destylization.inversion.changed(identity_weight=0.0)
    stages = replace(preset.stages, destylization=destylization.changed(inversion=inversion))
    style = preset.recipe.style.changed(phases=((2, 0.0, 0.015),))
    return Preset(stages, replace(preset.recipe, style=style))


@pytest.fixture(scope="module")
def source() -> Generator:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Generator(32, (8, 8, 8, 8)).requires_grad_(False).eval()


@pytest.fixture
def weights(monkeypatch):
    """Random weights instead of fetched ones."""
    made = {name: make_weights(name) for name in ("vgg16", "vgg19", "alexnet")}
    monkeypatch.setattr(assets, "load_tensors", lambda name, **_: made[name])


def means(pictures: torch.Tensor) -> torch.Tensor:
    """An encoder that has learned nothing, but looks: codes from the colors' means."""
    rows = torch.arange(8.0)[:, None] + torch.arange(512.0)
    return torch.sin(rows[None] * pictures.mean((1, 2, 3))[:, None, None])


def method(source: Generator, **options) -> DualStyle:
    return DualStyle(source=source, encoder=means, bottleneck_channels=4, device="cpu", **options)


@pytest.fixture
def learned(source) -> DualStyle:
    made = method(source)
    made.learned = Learned(torch.randn(3, 8, 512, generator=torch.Generator().manual_seed(2)))
    return made


def fitted(source, styles, folder=None, told=None) -> DualStyle:
    return method(source).fit(
        None, styles, quiet(smoke()), folder, told=told, progress=False
    )  # fmt: skip


# --------------------------------------------------------------------------------------------- learning


def test_all_four_stages_run_and_go_on_where_they_were_stopped(source, weights, picture, tmp_path):
    styles = torch.cat([picture(32, 32, seed) for seed in range(2)])
    stages: list[str] = []
    whole = fitted(source, styles, tmp_path / "whole", stages.append)
    assert stages == ["destylization", "structure", "style", "latent optimization", "sampling network"]

    for last in stages[1:]:  # stopped as each stage begins, and gone on with

        def stop(stage: str, last: str = last) -> None:
            if stage == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fitted(source, styles, tmp_path / "stopped", stop)
    resumed = fitted(source, styles, tmp_path / "stopped")
    assert whole.learned is not None
    assert resumed.learned is not None
    assert torch.equal(whole.learned.extrinsic, resumed.learned.extrinsic)
    ours, theirs = whole.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(whole.sample(2, 1), resumed.sample(2, 1))

    face = picture(32, 32, 7)
    path = whole.save(tmp_path / "style.safetensors", style="stripes")
    again = method(source, style=path)
    assert again.learned is not None
    assert again.learned.about["style"] == "stripes"
    assert (again.stylize(face, 1) - whole.stylize(face, 1)).abs().max() < 0.02
    assert torch.allclose(again.sample(1, 3), whole.sample(1, 3), atol=0.02, rtol=0.02)


# -------------------------------------------------------------------------------------------- stylizing


def test_without_style_the_face_is_the_generators_own(learned, source, picture):
    face = picture(32, 32, 1)
    plain = ((source(means(face), space="w") + 1) / 2).clamp(0, 1)
    assert torch.allclose(learned.stylize(face, 0, structure=0, color=0), plain, atol=1e-5)
    assert not torch.allclose(learned.stylize(face, 0), plain, atol=1e-3)
    keeping = learned.stylize(face, 0, structure=0, keep_colors=True)
    assert (keeping - plain).abs().mean() < (learned.stylize(face, 0, structure=0) - plain).abs().mean()


def test_several_styles_are_fused_by_their_weights(learned):
    a, b = learned.codes(0), learned.codes(1)
    assert torch.allclose(learned.codes({0: 1.0, 1: 3.0}), 0.25 * a + 0.75 * b, atol=1e-6)
    assert torch.equal(learned.codes(a), a)


def test_the_grid_has_a_row_for_each_structure(learned, picture):
    face = picture(32, 32, 1)
    grid = learned.grid(face, 1, [0, 1], [0, 0.5, 1])
    assert grid.shape == (2, 3, 3, 32, 32)
    assert torch.allclose(grid[1, 1], learned.stylize(face, 1, structure=1, color=0.5)[0], atol=1e-6)


def test_searching_on_comes_closer_to_the_portrait(learned, source, weights, picture, monkeypatch):
    face = picture(32, 32, 1)
    settings = inversion.SMALL.changed(identity_weight=0.0)  # the recognizer's weights are not at hand
    monkeypatch.setattr(transfer, "invert", partial(inversion.invert, settings=settings))

    def apart(steps: int) -> float:
        drawn = (source(learned.faces(face, steps), space="w") + 1) / 2
        return float((drawn.clamp(0, 1) - face).abs().mean())

    assert apart(6) < apart(0)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda m, face: m.stylize(face, 3), "portraits 0 to 2, not 3"),
        (lambda m, face: m.stylize(face, {}), "not none"),
        (lambda m, face: m.stylize(face, {0: 0.0}), "not all 0"),
        (lambda m, face: m.stylize(face, torch.zeros(7, 512)), r"\(8, 512\), not \(7, 512\)"),
        (lambda m, face: m.stylize(face, 0, structure=[1.0]), "one for each of 7 layers"),
        (lambda m, face: m.sample(1), "No sampling network"),
    ],
)
def test_what_cannot_be_asked_is_said(learned, picture, ask, said):
    with pytest.raises(SettingError, match=said):
        ask(learned, picture(32, 32, 1))


def test_what_was_not_learned_cannot_be_used(source, picture, tmp_path):
    new = method(source)
    for ask in (
        lambda: new.stylize(picture(32, 32, 1)), lambda: new.save(tmp_path / "x.safetensors"),
    ):  # fmt: skip
        with pytest.raises(SettingError, match="No style has been learned yet"):
            ask()
    with pytest.raises(SettingError, match="There is no file"):
        method(source, style=tmp_path / "none.safetensors")
    with pytest.raises(ImageError, match="is square"):
        new.faces(torch.zeros(1, 3, 32, 30))


def test_a_file_for_another_generator_is_refused(learned, tmp_path):
    path = learned.save(tmp_path / "style.safetensors")
    with pytest.raises(SettingError, match="holds no style for a generator of 128 pixels and 10 codes"):
        DualStyle(path, source=Faces("cpu", tiny_tensors()).prior(), encoder=means, device="cpu")


# ------------------------------------------------------------------------------------------- the command


@pytest.fixture
def files(tmp_path, picture, monkeypatch):
    """A portrait and a style; faces are found in the middle, and the weights are small random ones."""
    monkeypatch.chdir(tmp_path)
    images.save_image(picture(150, 160, 1), tmp_path / "me.png")
    given = tiny_tensors()
    made = {name: make_weights(name) for name in ("vgg16", "vgg19", "alexnet")}
    made |= {f"mobilestylegan_{name}": given[name] for name in ("mapping", "synthesis")}
    monkeypatch.setattr(assets, "load_tensors", lambda name, **_: made[name])
    source = Faces("cpu", given).prior()
    monkeypatch.setattr(Faces, "prior", lambda self: source)
    monkeypatch.setattr(transfer, "load_encoder", lambda device: None)
    monkeypatch.setattr(transfer, "encode", lambda pictures, _: torch.zeros(len(pictures), 10, 512))
    theta = torch.tensor([[[0.8, 0.0, 0.0], [0.0, 0.8, 0.0]]])

    def aligned(image, size=128, parser=None, *, face=None):
        if face == 2:
            raise SettingError("There is one face: leave --face out.")
        return portraits.Portrait(portraits.cut_portrait(image, theta, size), theta)

    monkeypatch.setattr(portraits, "align_portrait", aligned)
    settings = inversion.SMALL.changed(identity_weight=0.0)  # the recognizer's weights are not at hand
    monkeypatch.setattr(transfer, "invert", partial(inversion.invert, settings=settings))
    style = DualStyle(source=source, encoder=means, bottleneck_channels=4, device="cpu")
    style.learned = Learned(torch.randn(3, 10, 512, generator=torch.Generator().manual_seed(2)))
    style.save(tmp_path / "own.safetensors")
    return tmp_path


COMMON = ("--method", "dualstylegan", "--device", "cpu", "--quiet", "--iterations", 1)


def test_the_command_draws_the_face_alone_or_puts_it_back(nst, files):
    code, out, err = nst("stylize", "me.png", "own.safetensors:2", *COMMON, "--structure", 0.5)
    assert code == 0, err
    assert out.startswith("done: stylized.png (128×128), ")
    settings = images.read_settings(files / "stylized.png")
    assert (settings["method"], settings["structure"]) == ("dualstylegan", 0.5)
    code, out, err = nst("stylize", "me.png", "own.safetensors:2", *COMMON, "--paste", "-o", "back.png")
    assert code == 0, err
    back, before = images.load_image(files / "back.png"), images.load_image(files / "me.png")
    assert back.shape == before.shape
    assert (back - before)[..., :2, :].abs().max() < 0.02  # the border stays
    assert (back - before)[..., 60:90, 60:90].abs().mean() > 0.02


def test_the_command_fuses_portraits(nst, files):
    two = ("own.safetensors:0", "own.safetensors:1")
    for shares, name in (((1, 0), "a.png"), ((0, 1), "b.png"), ((1, 1), "c.png")):
        given = [part for share in shares for part in ("--share", share)]
        code, _, err = nst("stylize", "me.png", *two, *given, *COMMON, "-o", name)
        assert code == 0, err
    a, b, c = (images.load_image(files / name) for name in ("a.png", "b.png", "c.png"))
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("own.safetensors:9",), "portraits 0 to 2, not 9"),
        (("own.safetensors:x",), "names no portrait of a style"),
        (("wave.png:1",), "No style 'wave.png' has been learned"),
        (("own.safetensors:random",), "No sampling network"),
        (("own.safetensors", "other.safetensors"), "name one of them only"),
        (("own.safetensors:1", "--share", 1, "--share", 2), "1 portraits and 2 shares"),
        (("own.safetensors:1", "--face", 2), "There is one face"),
        (("own.safetensors:1", "--strength", 0.5), "--strength is not for --method dualstylegan"),
        ((), "There is no style"),
    ],
)
def test_mistakes_get_one_sentence(nst, files, arguments, said):
    assert said in one_sentence(*nst("stylize", "me.png", *arguments, *COMMON))
    assert not (files / "stylized.png").exists()


def test_the_command_trains_a_style_and_goes_on(nst, files, monkeypatch, picture):
    pictures = torch.cat([picture(128, 128, seed) for seed in range(3)])
    found = style_sets.StyleSet("stripes", "Stripes", "none", pictures, ("0", "1", "2"))
    monkeypatch.setattr(style_sets, "load_style_set", lambda name: found)
    small = quiet(smoke())
    monkeypatch.setattr(presets, "smoke", lambda: small)
    arguments = ("train", "dualstylegan", "stripes", "--preset", "smoke", "--portraits", 2, "--quiet")
    code, out, err = nst(*arguments, "--device", "cpu")
    assert code == 0, err
    assert "done: dualstyle_stripes.safetensors, 2 portraits in " in out
    before = (files / "dualstyle_stripes.safetensors").read_bytes()
    code, _, err = nst(*arguments, "--device", "cpu")  # all is done: the same file, at once
    assert code == 0, err
    assert (files / "dualstyle_stripes.safetensors").read_bytes() == before
    code, _, err = nst("stylize", "me.png", "dualstyle_stripes.safetensors:random", *COMMON)
    assert code == 0, err
    assert "end its name in .safetensors" in one_sentence(*nst(*arguments, "-o", "x.pth"))
