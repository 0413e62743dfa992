"""DualStyleGAN as a method: four stages, what can be asked, the authors' files, notebook 05's ground."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Malicious, one_sentence
from test_faces import tiny_tensors

from nstlib.assets.weights import read_weights
from nstlib.course import dualstyle
from nstlib.errors import ImageError, SettingError
from nstlib.faces import align as portraits
from nstlib.faces import parse, style_sets
from nstlib.faces.generated import Faces
from nstlib.methods import inversion
from nstlib.methods.dualstylegan import AS_RELEASED, SMOKE, Preset, load_published_discriminator, transfer
from nstlib.methods.dualstylegan.transfer import RELEASED_STRENGTHS, DualStyle, Learned, Training
from nstlib.nets.dualstylegan import DualStyleGAN, Sampler, layer_weights
from nstlib.nets.psp import PspEncoder
from nstlib.nets.stylegan2 import Discriminator, Generator
from nstlib.pictures import files as images

CHANNELS = (8, 8, 8, 8)


def quiet(preset: Preset) -> Preset:
    """Without the recognizer's face, whose weights are not at hand."""
    first = preset.destylization
    search = first.inversion.changed(identity_weight=0.0)
    return preset.changed(
        destylization=first.changed(inversion=search), style=preset.style.changed(phases=((2, 0.0, 0.015),))
    )


@pytest.fixture(scope="module")
def source() -> Generator:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Generator(32, (8, 8, 8, 8)).requires_grad_(False).eval()


def means(pictures: torch.Tensor) -> torch.Tensor:
    """An encoder that has learned nothing, but looks: codes from the colors' means."""
    rows = torch.arange(8.0)[:, None] + torch.arange(512.0)
    return torch.sin(rows[None] * pictures.mean((1, 2, 3))[:, None, None])


def options_of(source: Generator) -> dict:
    return {"source": source, "encoder": means, "bottleneck_channels": 4, "device": "cpu"}


def method(source: Generator, **settings) -> DualStyle:
    return DualStyle(Training(**settings), **options_of(source))


@pytest.fixture
def learned(source) -> DualStyle:
    made = method(source)
    made.learned = Learned(torch.randn(3, 8, 512, generator=torch.Generator().manual_seed(2)))
    return made


def fitted(source, styles, folder=None) -> DualStyle:
    made = method(source, stages=quiet(SMOKE))
    made.fit(None, styles, folder=folder)
    return made


# --------------------------------------------------------------------------------------------- learning


def test_all_four_stages_run_and_go_on_where_they_were_stopped(
    source, random_networks, picture, tmp_path, monkeypatch, one_thread
):
    styles = torch.cat([picture(32, 32, seed) for seed in range(2)])
    stages: list[str] = []
    monkeypatch.setattr(transfer.tqdm, "write", stages.append)
    whole = fitted(source, styles, tmp_path / "whole")
    assert stages == ["destylization", "structure", "style", "latent optimization", "sampling network"]

    for last in stages[1:]:  # stopped as each stage begins, and gone on with

        def stop(stage: str, last: str = last) -> None:
            if stage == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(transfer.tqdm, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            fitted(source, styles, tmp_path / "stopped")
    monkeypatch.undo()
    resumed = fitted(source, styles, tmp_path / "stopped")
    # Not to the bit: LPIPS' gradient differs by 1e-9 between a process's first call and the later ones.
    near = {"rtol": 0, "atol": 1e-3}
    torch.testing.assert_close(resumed.learned.extrinsic, whole.learned.extrinsic, **near)
    ours, theirs = whole.net.state_dict(), resumed.net.state_dict()
    for key in ours:
        torch.testing.assert_close(theirs[key], ours[key], **near)
    torch.testing.assert_close(resumed.sample(2, 1), whole.sample(2, 1), rtol=0, atol=1e-2)

    face = means(picture(32, 32, 7))
    path = whole.save(tmp_path / "style.safetensors", style="stripes")
    again = DualStyle.load(path, **options_of(source))
    assert again.learned.about["style"] == "stripes"
    assert (again.stylize(face, 1) - whole.stylize(face, 1)).abs().max() < 0.02
    assert torch.allclose(again.sample(1, 3), whole.sample(1, 3), atol=0.02, rtol=0.02)


def test_a_training_that_a_callback_stops_is_not_finished(source, random_networks, picture):
    made = method(source, stages=quiet(SMOKE))
    result = made.fit(None, picture(32, 32, 1), callback=lambda progress: False, progress=False)
    assert result.step == 1
    assert made.learned is None


# -------------------------------------------------------------------------------------------- stylizing


def test_without_style_the_face_is_the_generators_own(learned, source, picture):
    face = means(picture(32, 32, 1))
    plain = ((source(face, space="w") + 1) / 2).clamp(0, 1)
    for nothing in ({"structure": 0, "color_strength": 0}, {"strength": 0.0}):
        assert torch.allclose(learned.stylize(face, 0, **nothing), plain, atol=1e-5)
    assert not torch.allclose(learned.stylize(face, 0), plain, atol=1e-3)
    assert torch.equal(learned.stylize(picture(32, 32, 1), iterations=0), learned.stylize(face, 0))
    keeping = learned.stylize(face, 0, structure=0, keep_colors=True)
    assert (keeping - plain).abs().mean() < (learned.stylize(face, 0, structure=0) - plain).abs().mean()


def test_several_styles_are_fused_by_their_weights(learned):
    a, b = learned.codes(0), learned.codes(1)
    assert torch.allclose(learned.codes({0: 1.0, 1: 3.0}), 0.25 * a + 0.75 * b, atol=1e-6)
    assert torch.allclose(learned.codes([0, 1]), (a + b) / 2, atol=1e-6)
    assert torch.equal(learned.codes(a), a)
    face = learned.source.mean_w()[:, None].expand(1, 8, 512)
    shared = learned.stylize(face, [0, 1], shares=(1, 3))
    assert torch.equal(shared, learned.stylize(face, {0: 1.0, 1: 3.0}))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda m, face: m.stylize(face, 3), r"portraits 0 to 2, not \[3\]"),
        (lambda m, face: m.stylize(face, {}), "not none"),
        (lambda m, face: m.stylize(face, {0: 0.0}), "not all 0"),
        (lambda m, face: m.stylize(face, torch.zeros(7, 512)), r"\(8, 512\), not \(7, 512\)"),
        (lambda m, face: m.stylize(face, 0, structure=[1.0]), "one for each of 7 layers"),
        (lambda m, face: m.stylize(face, 0, masks=[torch.ones(1, 1, 32, 32)]), "leave masks out"),
        (lambda m, face: m.sample(1), "no sampling network"),
    ],
)
def test_what_cannot_be_asked_is_said(learned, picture, ask, said):
    with pytest.raises(SettingError, match=said):
        ask(learned, means(picture(32, 32, 1)))


def test_what_was_not_learned_cannot_be_used(source, picture, tmp_path):
    new = method(source)
    with pytest.raises(SettingError, match="No style has been learned yet"):
        new.stylize(picture(32, 32, 1), iterations=0)
    with pytest.raises(SettingError, match="nothing to save"):
        new.save(tmp_path / "x.safetensors")
    with pytest.raises(SettingError, match="There is no file"):
        DualStyle.load(tmp_path / "none.safetensors", **options_of(source))
    with pytest.raises(ImageError, match="is square"):
        new.faces(torch.zeros(1, 3, 32, 30))


def test_a_file_for_another_generator_is_refused(learned, tmp_path):
    path = learned.save(tmp_path / "style.safetensors")
    with pytest.raises(SettingError, match="not those of a style for a generator of 256 pixels"):
        DualStyle.load(path, source=Faces("cpu", tiny_tensors()).prior(), device="cpu")


# ------------------------------------------------------------------------------------------- the command


def aligned(image, size=256, parser=None, *, face=None):
    """The face in the middle."""
    if face == 2:
        raise SettingError("There is one face: leave --face out.")
    theta = torch.tensor([[[0.8, 0.0, 0.0], [0.0, 0.8, 0.0]]])
    return portraits.Portrait(portraits.cut_portrait(image, theta, size), theta)


@pytest.fixture
def files(tmp_path, picture, weights, monkeypatch):
    """A portrait and a style; faces are found in the middle, and the weights are small random ones."""
    monkeypatch.chdir(tmp_path)
    images.save_image(picture(150, 160, 1), tmp_path / "me.png")
    given = tiny_tensors()
    made = weights | {f"mobilestylegan_{name}": given[name] for name in ("mapping", "synthesis")}
    monkeypatch.setattr("nstlib.assets.load_tensors", lambda name, **_: made[name])
    source = Faces("cpu", given).prior()
    monkeypatch.setattr(Faces, "prior", lambda self: source)
    monkeypatch.setattr(transfer, "course_encoder", lambda source: lambda x: torch.zeros(len(x), 12, 512))
    monkeypatch.setattr("nstlib.cli.stylize.align_portraits", lambda *a, **k: [aligned(*a, **k)])
    settings = inversion.SMALL.changed(identity_weight=0.0)  # the recognizer's weights are not at hand
    monkeypatch.setattr(inversion, "invert", partial(inversion.invert, settings=settings))
    style = DualStyle(source=source, encoder=means, bottleneck_channels=4, device="cpu")
    samplers = torch.nn.ModuleDict({"structure": Sampler(7, 8), "color": Sampler(5, 8)}).eval()
    style.learned = Learned(torch.randn(3, 12, 512, generator=torch.Generator().manual_seed(2)), samplers)
    style.save(tmp_path / "own.safetensors")
    return tmp_path


COMMON = ("--method", "dualstylegan", "--device", "cpu", "--quiet", "--iterations", 1)


def test_the_command_draws_the_face_alone_or_puts_it_back(nst, files, monkeypatch):
    monkeypatch.setattr(parse, "FaceParser", lambda device: None)
    monkeypatch.setattr(parse, "head_mask", lambda portrait, parser: torch.ones_like(portrait[:, :1]))
    code, out, err = nst("stylize", "me.png", "own.safetensors:2", *COMMON, "--structure", 0.5)
    assert code == 0, err
    assert out.startswith("done: stylized.png (256×256), ")
    settings = images.read_settings(files / "stylized.png")
    assert (settings["method"], float(settings["structure"])) == ("dualstylegan", 0.5)
    code, out, err = nst("stylize", "me.png", "own.safetensors:2", *COMMON, "--paste", "-o", "back.png")
    assert code == 0, err
    back, before = images.load_image(files / "back.png"), images.load_image(files / "me.png")
    assert back.shape == before.shape
    assert (back - before)[..., :2, :].abs().max() < 0.02  # the border stays
    assert (back - before)[..., 60:90, 60:90].abs().mean() > 0.02


def test_the_command_fuses_portraits(nst, files):
    two = ("own.safetensors:0", "own.safetensors:1")
    made = []
    for share in (0, 1):
        code, _, err = nst("stylize", "me.png", *two, "--share", share, "--share", 1, *COMMON, "-o", "a.png")
        assert code == 0, err
        made.append(images.load_image(files / "a.png"))
    assert not torch.equal(*made)
    code, _, err = nst("stylize", "me.png", "own.safetensors:random", *COMMON)
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("own.safetensors:x",), "'own.safetensors:x' names no style"),
        (("wave.png:1",), "ink, sketch, fantasy_portraits, as in ink:12, one of the authors' cartoon"),
        (("own.safetensors", "other.safetensors"), "Portraits of one style are fused"),
        (("own.safetensors:1", "--share", 1, "--share", 2), "one --share for each"),
        (("own.safetensors:1", "--face", 2), "There is one face"),
        (("own.safetensors:1", "--codes", "codes.npy"), "each without --encoder and --codes"),
        ((), "There is no style"),
    ],
)
def test_mistakes_get_one_sentence(nst, files, arguments, said):
    assert said in one_sentence(*nst("stylize", "me.png", *arguments, *COMMON))
    assert not (files / "stylized.png").exists()


# ------------------------------------------------------------------------------------ the authors' files


@pytest.fixture(scope="module")
def nets() -> tuple[DualStyleGAN, PspEncoder, Discriminator]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = DualStyleGAN(32, CHANNELS)
        for parameter in net.res.parameters():  # a path that has learned something
            parameter.data += 0.1 * torch.randn_like(parameter)
        return net.eval(), PspEncoder(8, (16, 16, 16, 512)).eval(), Discriminator(32, CHANNELS)


@pytest.fixture
def theirs(tmp_path, nets) -> Path:
    """Files as they were published: names around the weights, options beside them, codes in a dictionary."""
    net, encoder, discriminator = nets
    args = argparse.Namespace(size=32)
    torch.save(
        {"g_ema": net.state_dict(), "d": discriminator.state_dict(), "args": args, "iter": 7},
        tmp_path / "generator.pt",
    )
    torch.save({"g_ema": net.generator.state_dict()}, tmp_path / "stylegan2.pt")
    inside = {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}
    torch.save({"state_dict": inside, "opts": {"output_size": 32}}, tmp_path / "encoder.pt")
    random = np.random.default_rng(0)
    codes = {f"Cartoon{i}.jpg": random.standard_normal((1, 8, 512), np.float32) for i in (2, 1, 3)}
    np.save(tmp_path / "codes.npy", codes)  # type: ignore[arg-type]
    return tmp_path


def load_published(generator, encoder=None, codes=None, **options):
    training = Training(stages=AS_RELEASED, generator=generator, encoder=encoder, codes=codes)
    return DualStyle(training, **options)


def load(theirs: Path, name: str = "generator.pt", **options):
    return load_published(theirs / name, theirs / "encoder.pt", theirs / "codes.npy", device="cpu", **options)


# ------------------------------------------------------------------------------------------- as released


def test_the_picture_is_the_released_programs(theirs, nets, picture):
    net, encoder, _ = nets
    face = picture(512, 512, 1)
    codes = np.load(theirs / "codes.npy", allow_pickle=True).item()
    with torch.no_grad():
        read = encoder(2 * F.adaptive_avg_pool2d(face, 256) - 1)
        wanted = net(
            read, torch.from_numpy(list(codes.values())[1]), truncation=0.75,
            interp_weights=layer_weights(8, 0.75, 1.0),
        )  # fmt: skip
    wanted = ((wanted + 1) / 2).clamp(0, 1)
    method = load(theirs)
    # The portrait is made as large as the generator's pictures first, which at 1024 pixels changes nothing.
    method.encoder.net.load_state_dict(encoder.state_dict())
    found = method.stylize(method.source.w_plus(read, "z"), 1, **RELEASED_STRENGTHS)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(
        method.source.w_plus(method.encoder(face), "z"), method.source.w_plus(read, "z"), atol=1e-5
    )
    assert method.learned is not None
    assert len(method.learned.extrinsic) == 3


def test_over_a_stylegan2_the_path_is_new(theirs):
    paths = [load(theirs, "stylegan2.pt", seed=seed).net.state_dict() for seed in (3, 3, 4)]
    first, again, other = (path["res.0.conv.0.weight"] for path in paths)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_discriminator_is_the_checkpoints(theirs, nets):
    found, known = load_published_discriminator(theirs / "generator.pt", "cpu"), nets[2].state_dict()
    assert found is not None
    assert all(torch.equal(t, known[key]) for key, t in found.state_dict().items())
    assert load_published_discriminator(theirs / "stylegan2.pt", "cpu") is None


# ---------------------------------------------------------------------------------------- learning over it


def short() -> Preset:
    """The released settings, and a few steps of each."""
    first = AS_RELEASED.destylization
    search = first.inversion.changed(identity_weight=0.0)
    few = {"discriminator_channels": CHANNELS}
    return AS_RELEASED.changed(
        destylization=first.changed(tuning_steps=2, tuning_batch=2, steps=2, inversion=search),
        structure=AS_RELEASED.structure.changed(mixing=((7, 1), (5, 1)), **few),
        style=AS_RELEASED.style.changed(phases=((2, 0.0, 0.015),), **few),
        latent=AS_RELEASED.latent.changed(steps=1),
        sampler=AS_RELEASED.sampler.changed(steps=2, codes=4),
        batch=2,
    )


def test_files_that_do_not_belong_together_are_refused(theirs, picture):
    for code, said in (
        (np.zeros((1, 18, 512), np.float32), r"holds no codes \(1, 8, 512\)"),
        (Malicious(), "holds more than a plain state dict"),  # of which nothing is run
    ):
        np.save(theirs / "codes.npy", {"a": code})  # type: ignore[arg-type]
        with pytest.raises(SettingError, match=said):
            load(theirs)
    with pytest.raises(SettingError, match="has no weights under 'g_ema'"):
        load_published(theirs / "encoder.pt", device="cpu")
    torch.save({"g_ema": {"a": torch.zeros(1)}}, theirs / "odd.pt")
    with pytest.raises(SettingError, match="These weights are not those of"):
        load_published(theirs / "odd.pt", device="cpu")
    without = load_published(theirs / "generator.pt", device="cpu")
    with pytest.raises(SettingError, match="is for its own generator: give this one's"):
        without.faces(picture(32, 32, 1))


@pytest.fixture
def there(theirs, picture, monkeypatch):
    """A portrait beside the files."""
    monkeypatch.chdir(theirs)
    images.save_image(picture(150, 160, 1), theirs / "me.png")
    monkeypatch.setattr("nstlib.cli.stylize.align_portraits", lambda *a, **k: [aligned(*a, **k)])
    return theirs


THEIRS = ("--encoder", "encoder.pt", "--codes", "codes.npy")


def test_authors_files_that_are_not_all_there_are_told(nst, there):
    for arguments, said in (
        (("generator.pt:2", "--encoder", "encoder.pt"), "the authors' generator.pt:12 with both"),
        (("none.pt:1", *THEIRS), "There is no file 'none.pt'"),
    ):
        assert said in one_sentence(*nst("stylize", "me.png", *arguments, *COMMON[:-2]))


PARTS = {"cartoon": "generator.pt", "cartoon_codes": "codes.npy", "encoder": "encoder.pt"}


def test_a_published_style_is_fetched_by_its_name_and_paints_as_its_files(nst, there, monkeypatch):
    parts = {f"dualstylegan_{part}": there / file for part, file in PARTS.items()}
    monkeypatch.setattr("nstlib.assets.fetch", lambda name, **_: parts[name])
    made = []
    for words in (("cartoon:1",), ("generator.pt:1", *THEIRS)):
        code, _, err = nst("stylize", "me.png", *words, *COMMON[:-2])
        assert code == 0, err
        made.append(images.load_image(there / "stylized.png"))
    assert made[0].shape == (1, 3, 32, 32)
    assert torch.equal(*made)
    assert DualStyle.load("cartoon", device="cpu").usual == RELEASED_STRENGTHS
    assert "no sampling network" in one_sentence(*nst("stylize", "me.png", "cartoon:random", *COMMON[:-2]))


@pytest.mark.parametrize("file", ["generator.pt", "stylegan2.pt"])  # with a discriminator, and without one
def test_the_command_learns_over_the_authors_files(nst, there, random_networks, monkeypatch, picture, file):
    pictures = torch.cat([picture(32, 32, seed) for seed in range(3)])
    found = style_sets.StyleSet("stripes", "Stripes", "none", pictures)
    monkeypatch.setattr(transfer, "load_style_set", lambda name, size=None: found)
    monkeypatch.setitem(DualStyle.presets, "paper", {"stages": short()})
    arguments = ("train", "dualstylegan", "stripes", "--preset", "paper", "--device", "cpu", "--quiet",
        "--portraits", 2, "--generator", file, "--encoder", "encoder.pt")  # fmt: skip
    written = []
    for _ in range(2):  # the second time all is done: the same file, at once
        code, out, err = nst(*arguments)
        assert code == 0, err
        assert out.startswith("done: dualstylegan_stripes.safetensors")
        written.append((there / "dualstylegan_stripes.safetensors").read_bytes())
    assert written[0] == written[1]
    assert read_weights(there / "dualstylegan_stripes.safetensors")[1]["portraits"] == 2


# ------------------------------------------------------------------------ what notebook 05 stands on


def test_smoke_reads_codes_of_its_own_generator_and_is_the_same_each_time():
    before = torch.get_rng_state()
    tiny, again, other = (dualstyle.ground("smoke", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    ours, theirs, others = (one.net.state_dict() for one in (tiny, again, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not torch.equal(ours["generator.conv1.conv.weight"], others["generator.conv1.conv.weight"])
    pictures = torch.rand(2, 3, 32, 32)
    codes = tiny.faces(pictures)
    assert torch.equal(codes, again.faces(pictures))
    assert codes.shape == (2, tiny.source.layers, 512)
    assert tiny.source(codes, space="w").shape == (2, 3, 32, 32)
    assert not any(p.requires_grad for p in tiny.source.parameters())


def test_quick_has_few_steps_but_all_stages():
    preset = dualstyle.quick()
    structure, style = preset.schedules()
    first = preset.destylization
    steps = [first.tuning_steps, first.steps, structure.steps, style.steps, preset.latent.steps]
    assert min([*steps, preset.sampler.steps]) >= 1
    shown = first.tuning_steps * first.tuning_batch + (structure.steps + style.steps) * preset.batch
    assert shown <= 90  # pictures with gradients: a laptop draws three a second
    assert [kept for kept, _ in preset.structure.mixing] == [7, 6, 5]


def test_paper_reads_the_published_files(theirs, nets):
    method = dualstyle.ground("paper", theirs / "generator.pt", theirs / "encoder.pt")
    assert (method.space, method.settings.stages) == ("z", AS_RELEASED)
    path, known = method.net.extrinsic_state(), nets[0].extrinsic_state()
    assert path.keys() == known.keys()
    assert not torch.equal(path["res.0.conv.0.weight"], known["res.0.conv.0.weight"])  # a new one
    pictures = torch.rand(1, 3, 32, 32)
    codes = method.faces(pictures)
    assert codes.shape == (1, 8, 512)
    assert torch.equal(codes, method.source.style(method.encoder(pictures)))  # z+ has passed the mapping


def test_paper_says_what_is_missing():
    with pytest.raises(SettingError, match="give its two files"):
        dualstyle.ground("paper")
