"""nst stylize by methods of one forward pass, and nst train johnson: options, mistakes, films, going on."""

from __future__ import annotations

import pytest
import torch
from conftest import one_sentence, read_film
from torch import nn

from nstlib.assets.weights import read_weights, save_weights
from nstlib.faces import generated as faces
from nstlib.methods import johnson
from nstlib.methods.adain import AdaIN
from nstlib.nets.johnson import TransformNet
from nstlib.pictures import files as images

COMMON = ("--device", "cpu", "--precision", "float32", "--quiet")


@pytest.fixture
def files(tmp_path, picture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images.save_image(picture(36, 43, 1), tmp_path / "face.png")
    images.save_image(picture(50, 35, 2), tmp_path / "painting.jpg")
    images.save_image(picture(33, 47, 3), tmp_path / "wave.png")
    frames = [images.to_pil(picture(34, 44, 4)[..., i : i + 40]) for i in range(4)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=100)
    torch.manual_seed(0)
    net = TransformNet(4)
    with torch.no_grad():  # pictures, not black
        net.deconv3.conv2d.weight.mul_(100)
        nn.init.constant_(net.deconv3.conv2d.bias, 127.0)
    torch.save(net.state_dict(), tmp_path / "own.pth")
    return tmp_path


# ------------------------------------------------------------------------------------------------ the options


@pytest.mark.parametrize(
    ("method", "option", "value", "others"),
    [
        ("adain", "--iterations", 3, "gatys"),
        ("johnson", "--film", "x.gif", "gatys"),
        ("johnson", "--strength", 0.5, "adain"),
        ("johnson", "--region", "hair", "gatys or adain"),
        ("gatys", "--strength", 0.5, "adain"),
    ],
)
def test_an_option_of_another_method_is_refused(nst, files, method, option, value, others):
    said = one_sentence(*nst("stylize", "face.png", "own.pth", "--method", method, option, value))
    assert f"{option} is not for --method {method}: leave it out, or take --method {others}" in said
    assert not (files / "stylized.png").exists()


# -------------------------------------------------------------------------------------------------- pictures


def test_adain_paints_a_picture(nst, files, random_networks):
    options = ("--strength", 0.5, "--share", 1, "--share", 3, "--color", "luminance", *COMMON)
    code, out, err = nst("stylize", "face.png", "painting.jpg", "wave.png", "--method", "adain", *options)
    assert code == 0, err
    assert out.startswith("done: stylized.png (43×36), ")
    told = {"method": "adain", "strength": 0.5, "shares": [1, 3], "color": "luminance"}
    told |= {"style_file": "painting.jpg, wave.png"}
    settings = images.read_settings(files / "stylized.png")
    assert {key: settings[key] for key in told} == told
    content, *styles = (images.load_image(files / name) for name in ("face.png", "painting.jpg", "wave.png"))
    styles = [images.resize(style, 128) for style in styles]
    how = {"strength": 0.5, "shares": (1, 3), "keep_colors": True}
    expected = AdaIN(device="cpu", precision="float32").stylize(content, styles, **how)
    assert (images.load_image(files / "stylized.png") - expected).abs().max() <= 0.51 / 255


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("johnson painting.jpg", "johnson takes one network, which has learned one style, not painting.jpg"),
        ("johnson own.pth own.pth", "not own.pth, own.pth"),
        ("adain painting.jpg wave.png --region person", "a region has one style, and 2 are named"),
    ],
)
def test_styles_that_a_method_does_not_take(nst, files, random_networks, arguments, words):
    method, *styles = arguments.split()
    assert words in one_sentence(*nst("stylize", "face.png", *styles, "--method", method, *COMMON))
    assert not (files / "stylized.png").exists()


# ----------------------------------------------------------------------------------------------------- films


@pytest.mark.parametrize("method", [("own.pth", "johnson"), ("painting.jpg", "adain")])
@pytest.mark.parametrize("output", ["out.mp4", "out.gif"])
def test_a_film_is_painted_frame_by_frame(nst, files, random_networks, method, output):
    code, out, err = nst("stylize", "clip.gif", method[0], "--method", method[1], "-o", output, *COMMON)
    assert code == 0, err
    assert out.startswith(f"done: {output} (4 frames), ")
    made, fps = read_film(files / output)
    assert len(made) == 4
    assert made[0].shape == (1, 3, 34, 40)
    assert fps == pytest.approx(10)


# -------------------------------------------------------------------------------------------------- training

TRAIN = ("--preset", "smoke", "--size", 32, "--steps", 3, "--device", "cpu", "--quiet")


@pytest.fixture
def people(files, picture):
    (files / "people").mkdir()
    for index in range(3):
        images.save_image(picture(48, 48, index), files / "people" / f"{index}.png")
    return files


def test_a_network_is_trained_saved_and_used(nst, people, random_networks):
    code, out, err = nst(
        "train", "johnson", "painting.jpg", "--pictures", "people", "-o", "net.safetensors", *TRAIN
    )
    assert code == 0, err
    assert out.startswith("done: net.safetensors, 3 steps in ")
    tensors, about = read_weights(people / "net.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    told = {key: about[key] for key in ("style", "steps", "learned_on", "pictures")}
    assert told == {"style": "painting", "steps": 3, "learned_on": "people", "pictures": 3}
    assert len((people / "net.run" / "losses.csv").read_text().splitlines()) == 4
    code, _, err = nst("stylize", "face.png", "net.safetensors", "--method", "johnson", *COMMON)
    assert code == 0, err
    assert images.read_settings(people / "stylized.png")["network"]["style"] == "painting"
    method = johnson.Johnson.load("net.safetensors", device="cpu", precision="float32")
    expected = method.stylize(images.load_image(people / "face.png"))
    assert (images.load_image(people / "stylized.png") - expected).abs().max() <= 0.51 / 255


def test_a_training_goes_on_and_may_begin_with_another_style(nst, people, random_networks):
    arguments, made = ("--pictures", "people", *TRAIN), "johnson_painting.safetensors"
    for _ in range(2):  # the second time nothing is left to be done
        assert nst("train", "johnson", "painting.jpg", *arguments)[0] == 0
    tensors, about = read_weights(people / made)
    save_weights(people / made, tensors, about | {"seconds": 1000})
    code, _, err = nst("train", "johnson", "wave.png", "--start", made, *arguments)
    assert code == 0, err
    about = read_weights(people / "johnson_wave.safetensors")[1]
    assert about["start"] == made
    assert about["seconds"] >= 1000  # both trainings'


def test_generated_faces_are_the_default(nst, people, random_networks, monkeypatch):
    asked = []

    def cached(count, size, **_):
        asked.append((count, size))
        return people / "people"

    monkeypatch.setattr(faces, "cached", cached)
    monkeypatch.setattr(faces, "listed", lambda folder, count: (sorted(folder.glob("*.png")), None))
    assert nst("train", "johnson", "painting.jpg", "--faces", 2, *TRAIN)[0] == 0
    assert asked == [(2, 64)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "net.pth"), "end its name in .safetensors"),
        (("--pictures", "nowhere"), "no folder 'nowhere'"),
        (("--pictures", "people", "--faces", 3), "leave one of them out"),
        (("--pictures", "people", "--start", "nothing.pth"), "There is no file 'nothing.pth'"),
        (("--pictures", "people", "--folder", "people"), "holds other files"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(nst, people, random_networks, options, words):
    assert words in one_sentence(*nst("train", "johnson", "painting.jpg", *options, *TRAIN))
    assert not list(people.glob("*.safetensors"))
