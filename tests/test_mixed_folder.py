"""A folder as people have it, 40 files of every kind, through stylize, measure and train."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import warnings

import pytest
from conftest import Killed
from PIL import Image

from nstlib.cli import stylize as command
from nstlib.cli import train
from nstlib.methods import johnson
from nstlib.pictures import files as images

STYLIZE = (
    "stylize", "in", "starry_night", "--method", "johnson", "-o", "out", "--size", 32, "--device", "cpu",
)  # fmt: skip
TRAIN = (
    "train", "johnson", "style.png", "--pictures", "in", "--preset", "smoke", "--size", 16,
    "--style-size", 32, "--batch", 4, "--device", "cpu", "--quiet", "-o", "net.safetensors",
)  # fmt: skip
BAD = ("cut.jpg", "cut.png", "empty.png", "heic.jpg", "huge.png", "phone.heic", "text.jpeg", "web.webp")


@pytest.fixture
def folder(tmp_path, monkeypatch, picture):
    """29 pictures that can be used and eight that cannot, and three files that are no pictures to anybody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(images, "MAX_PIXELS", 50_000)
    monkeypatch.setattr(images, "_HUGE", 12_500)
    made, number = tmp_path / "in", itertools.count(1)
    made.mkdir()

    def im(height=40, width=36):
        return images.to_pil(picture(height, width, next(number)))

    for ending in ("jpg", "png", "webp", "gif", "tif", "bmp", "jfif", "ppm", "PNG"):
        im().save(made / f"plain_{ending}.{ending}")
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[274] = turn
        im().save(made / f"turned{turn}.jpg", exif=exif)
    for mode in ("L", "1", "P", "CMYK", "I;16", "LA", "RGBA", "PA"):
        one = im().convert("RGBA" if mode == "PA" else mode)
        if mode in ("LA", "RGBA"):
            one.putalpha(Image.linear_gradient("L").resize(one.size))
        one.save(made / f"mode_{mode[:4].replace(';', '')}.{'jpg' if mode == 'CMYK' else 'png'}")
    im().save(made / "film.gif", save_all=True, append_images=[im()])
    im().save(made / "no_ending", "PNG")
    im().save(made / "Zoë's dog (2).png")
    im(300, 400).save(made / "huge.jpg")  # more pixels than are decoded; a JPEG is decoded smaller

    im(300, 400).save(made / "huge.png")
    for ending in ("jpg", "png"):
        whole = (made / f"plain_{ending}.{ending}").read_bytes()
        (made / f"cut.{ending}").write_bytes(whole[: len(whole) // 2])
    (made / "empty.png").touch()
    (made / "text.jpeg").write_text("no picture")
    (made / "web.webp").write_text("<!DOCTYPE html><p>Not found")
    for name in ("phone.heic", "heic.jpg"):
        (made / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))

    im().save(made / ".hidden.png")
    (made / "._plain_jpg.jpg").write_bytes(b"\0\5\x16\7")
    (made / "notes.txt").write_text("no picture")
    (made / "holiday.jpg").mkdir()
    assert sum(path.is_file() for path in made.iterdir()) == 40
    images.save_image(picture(40, 36, 99), tmp_path / "style.png")
    monkeypatch.setattr(warnings, "showwarning", lambda text, *_: print(f"nst: {text}", file=sys.stderr))
    return made


def kill_at(monkeypatch, owner, name, count):
    """The count-th call is never made."""
    real, calls = getattr(owner, name), itertools.count(1)

    def call(*arguments, **options):
        if next(calls) == count:
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def told_once(err):
    """Each file that cannot be used is named in one line, and no other is."""
    (line,) = [line for line in err.splitlines() if "are left out" in line]
    assert line.startswith("nst: Of 37 pictures 8 are left out: ")
    for name in BAD:
        assert err.count(name) == 1, name
    assert "plain" not in line
    assert err.index(line) == 0


def test_stylize_paints_all_that_can_be_painted_and_none_twice(nst, folder, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, images, "save_image", 5)
        with pytest.raises(Killed):
            nst(*STYLIZE)
    out = folder.parent / "out"
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert len(before) == 4
    code, said, err = nst(*STYLIZE)
    assert code == 1
    assert "done: out, 25 painted, 4 kept, 8 failed: " in said
    told_once(err)
    assert len(list(out.iterdir())) == 29
    assert all((out / name).stat().st_mtime_ns == then for name, then in before.items())
    assert images.load_image(out / "turned6.png").shape == (1, 3, 29, 32)  # upright: 36 × 40 lay on its side
    assert Image.open(out / "mode_RGBA.png").mode == "RGBA"
    code, said, _ = nst(*STYLIZE)
    assert (code, "0 painted, 29 kept, 8 failed" in said) == (1, True)
    for name in BAD:
        (folder / name).unlink()
    assert nst(*STYLIZE)[0] == 0


def test_measure_takes_all_pairs_and_names_the_rest(nst, folder):
    nst(*STYLIZE)
    shutil.copy(folder / "cut.png", folder.parent / "out" / "text.png")  # both of a pair cannot be read
    code, _, err = nst(
        "measure", "in", "out", "--metrics", "ssim", "--size", 32, "--device", "cpu", "-o", "table.json"
    )
    assert code == 1
    table = json.loads((folder.parent / "table.json").read_text())
    values = {row["picture"]: row["ssim"] for row in table["rows"]}
    assert sum(value is not None for value in values.values()) >= 25
    told = [problem["reason"] for problem in table["problems"]]
    for name in BAD:
        assert sum(f"{name}'" in reason for reason in told) == 1, name
        assert err.partition("left out:")[2].count(f"in/{name}'") == 1, name
    assert "Traceback" not in err


def test_train_learns_from_all_that_can_be_read_and_goes_on(nst, folder, random_networks, monkeypatch):
    schedule_of = train.schedule_of
    monkeypatch.setattr(train, "schedule_of", lambda *a, **k: schedule_of(*a, **k, save_every=0.0))
    with monkeypatch.context() as patch:
        kill_at(patch, johnson.TransferTask, "step", 4)
        with pytest.raises(Killed):
            nst(*TRAIN)
    for name in (*BAD[1:], "plain_jpg.jpg", "plain_png.png"):
        (folder / name).unlink()
    with monkeypatch.context() as patch:
        kill_at(patch, johnson.TransferTask, "step", 2)  # one of four steps is left
        code, said, err = nst(*TRAIN)
    assert (code, said[:33]) == (1, "done: net.safetensors, 4 steps in")
    assert "Of 28 pictures 1 are left out: 'in/cut.jpg' cannot be read" in err.replace("\\", "/")
    assert "Pictures of this training are gone (2): it goes on with the rest." in err
    images.save_image(images.load_image("style.png"), folder / "new1.png")
    for number in range(3):
        shutil.copy("style.png", folder / f"new{number}.png")
    (folder / BAD[0]).unlink()
    code, _, err = nst(*TRAIN)
    assert (code, "pictures 29 there, 30 here" in err) == (1, True)


@pytest.mark.parametrize("method", ["dualstylegan", "jojogan"])
def test_pictures_without_a_face_are_named_before_the_painting(nst, folder, monkeypatch, method):
    kept = ["plain_png.png", "turned8.jpg"]
    monkeypatch.setattr(command, "find_faces", lambda image: [1] * (image.shape[-1] == 36))
    for path in folder.iterdir():
        if path.is_file() and path.name not in (*kept, "turned5.jpg"):
            path.unlink()
    monkeypatch.setattr(command.Job, "paint", lambda self: None)
    code, said, err = nst("stylize", "in", "ink:2", "--method", method, "-o", "out")
    assert code == 1
    assert err.startswith("nst: Of 3 pictures 2 are left out: No face was found in 'in")
    assert "1 painted, 0 kept, 2 failed" in said


def test_a_folder_in_which_nothing_can_be_painted(nst, folder):
    for path in folder.iterdir():
        if path.is_file() and path.name not in BAD:
            path.unlink()
    code, _, err = nst(*STYLIZE)
    assert (code, "None of 8 pictures can be used" in err) == (1, True)
