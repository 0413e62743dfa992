"""The command nst: exit codes, one sentence for each mistake, and a tiny picture from end to end."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import click
import conftest
import pytest
import torch
from click.testing import CliRunner

from nstlib import __version__, assets
from nstlib.cli import __main__ as command
from nstlib.errors import AssetError, OptimizationError
from nstlib.methods import gatys
from nstlib.nets import hardware
from nstlib.pictures import files as images

COMMANDS = [
    [], ["hello"], ["stylize"], ["course"], ["assets"], ["assets", "list"], ["assets", "fetch"],
    ["assets", "verify"], ["measure"], ["train"], ["train", "johnson"],
    ["train", "dualstylegan"], ["train", "jojogan"],
]  # fmt: skip


@pytest.fixture
def pair(tmp_path, picture):
    """Two small picture files, a portrait of 40×36 and a painting of 35×50."""
    images.save_image(picture(36, 40, 1), tmp_path / "face.png")
    images.save_image(picture(50, 35, 2), tmp_path / "painting.jpg")
    return tmp_path / "face.png", tmp_path / "painting.jpg"


@pytest.fixture
def no_work(monkeypatch):
    """Whoever gets as far as the optimization fails the test."""
    monkeypatch.setattr(gatys, "stylize", lambda *a, **k: pytest.fail("the work was begun"))


# Here a message may end with a question: "did you mean ...?"
one_sentence = partial(conftest.one_sentence, endings=(".\n", "?\n"))


# ---------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help(path):
    result = CliRunner().invoke(command.cli, [*path, "-h"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    found = command.cli
    for name in path:
        found = found.get_command(click.Context(found), name)
    # The first line of its own help, and every option with a word about it.
    assert found.help.strip().splitlines()[0][:40] in result.output
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[-1] in result.output
            assert parameter.help, parameter.name
    for name in getattr(found, "commands", ()):
        assert name in result.output


def test_every_command_is_tested_for_its_help():
    top = click.Context(command.cli)
    for name in command.cli.list_commands(top):
        command.cli.get_command(top, name)
    listed = {(name,) for name in command.cli.commands} | {
        (group, name)
        for group, found in command.cli.commands.items()
        for name in getattr(found, "commands", ())
    }
    assert listed == {tuple(path) for path in COMMANDS if path}


def test_version(nst):
    assert nst("--version") == (0, f"nst, version {__version__}\n", "")


# ------------------------------------------------------------------------------------------------- stylize


def test_stylize_from_file_to_file(nst, pair, tmp_path, random_networks):
    face, painting = pair
    out = tmp_path / "new folder" / "out.jpg"
    code, said, err = nst(
        "stylize", face, painting, "-o", out, "--size", 38, "--iterations", 2, "--quiet", "--device", "cpu",
        "--precision", "float32", "--style-weight", 7, "--seed", 3,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert said.startswith(f"done: {out} (38×34), ")
    assert random_networks == ["vgg19"]
    assert images.load_image(out).shape == (1, 3, 34, 38)
    kept = images.read_settings(out)
    assert (kept["content_file"], kept["style_file"]) == ("face.png", "painting.jpg")
    assert kept["seed"] == 3
    assert (kept["method"], kept["network"], kept["style_weight"]) == ("gatys", "vgg19", 7)
    assert (kept["iterations"], kept["final"]["iteration"], kept["interrupted"]) == (2, 2, False)
    assert kept["style_layers"] == list(gatys.FIVE_BLOCKS)
    assert kept["final"]["total"] > 0
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # no probe, no half-written file


def test_the_command_gives_the_librarys_picture(nst, pair, tmp_path, random_networks):
    face, painting = pair
    options = ("--iterations", 2, "--optimizer", "adam", "--init", "noise", "--seed", 5, "--network", "vgg16")
    options += ("--device", "cpu", "--precision", "float32", "--style-size", 32, "--quiet")
    assert nst("stylize", face, painting, "-o", tmp_path / "out.png", *options)[0] == 0
    settings = gatys.Settings(network="vgg16", optimizer="adam", init="noise", iterations=2)
    expected = gatys.stylize(
        images.load_image(face, size=512), images.load_image(painting, size=32), settings,
        seed=5, device="cpu", precision="float32", progress=False,
    )  # fmt: skip
    difference = (images.load_image(tmp_path / "out.png") - expected.image).abs().max()
    assert difference <= 0.5 / 255 + 1e-6  # rounding to 8 bits, nothing else


def test_the_command_keeps_freed_memory_and_the_library_does_not(
    monkeypatch, nst, pair, tmp_path, random_networks
):
    called = []
    monkeypatch.setattr(hardware, "keep_freed_memory", lambda: called.append(1))
    options = ("-o", tmp_path / "a.png", "--iterations", 1, "--quiet", "--device", "cpu")
    assert nst("stylize", *pair, *options)[0] == 0
    assert called == [1]
    gatys.stylize(torch.rand(1, 3, 32, 32), None, iterations=1, device="cpu", progress=False)
    assert called == [1]


def test_a_missing_picture(nst, pair, tmp_path, no_work):
    nobody = tmp_path / "nobody.png"
    for arguments in ((nobody, pair[1]), (pair[0], nobody), (*pair, nobody)):
        err = one_sentence(*nst("stylize", *arguments, "-o", tmp_path / "out.png"))
        assert str(nobody) in err


@pytest.mark.parametrize("name", ["out.gif", "out", "out.txt", "out.png.bak"])
def test_an_unknown_ending(nst, pair, tmp_path, no_work, name):
    err = one_sentence(*nst("stylize", *pair, "-o", tmp_path / name))
    assert "does not say in which format to save: end the name in .png" in err
    assert not (tmp_path / name).exists()


def test_an_output_that_cannot_be_written(nst, pair, tmp_path, no_work):
    # A file where a folder should be: even root cannot write below it.
    below = pair[0] / "out.png"
    assert "face.png" in one_sentence(*nst("stylize", *pair, "-o", below))
    (tmp_path / "gallery.png").mkdir()
    assert "it is the name of a folder: choose another name" in one_sentence(
        *nst("stylize", *pair, "-o", tmp_path / "gallery.png")
    )


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--size", "15"), "--size"),
        (("--size", "big"), "--size"),
        (("--network", "vgg13"), "'vgg13' is not one of 'vgg19', 'vgg16', 'alexnet'"),
        (("--optimizer", "sgd"), "--optimizer"),
        (("--init", "random"), "--init"),
        (("--precision", "int8"), "--precision"),
        (("--iteration", "5"), "--iteration"),
    ],
)
def test_a_bad_option_is_clicks_usage_error(nst, pair, tmp_path, no_work, options, word):
    err = one_sentence(*nst("stylize", *pair, "-o", tmp_path / "out.png", *options), status=2)
    assert word in err
    assert err.startswith("Usage: nst stylize")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--device", "abacus"), "'abacus' is no device"),
        (("--style-weight", "nan"), "style_weight should be "),
        (("--style-weight", "-1"), "style_weight should be "),
        (("--iterations", "0"), "iterations should be "),
        (("--style-weight", "inf"), "style_weight should be "),
    ],
)
def test_a_bad_value_is_one_sentence_of_ours(nst, pair, tmp_path, random_networks, options, sentence):
    assert sentence in one_sentence(*nst("stylize", *pair, "-o", tmp_path / "out.png", *options))
    assert not (tmp_path / "out.png").exists()


def test_a_picture_too_small_for_the_network(nst, pair, tmp_path, random_networks):
    err = one_sentence(
        *nst("stylize", *pair, "-o", tmp_path / "o.png", "--size", 16, "--quiet", "--device", "cpu")
    )
    assert "too small for relu5_1 of vgg19: it needs 16 pixels a side" in err


def test_weights_that_cannot_be_had(monkeypatch, nst, pair, tmp_path):
    def load_tensors(name, **_):
        raise AssetError(f"'{name}' cannot be fetched: check the connection.")

    monkeypatch.setattr(assets, "load_tensors", load_tensors)
    err = one_sentence(*nst("stylize", *pair, "-o", tmp_path / "out.png", "--device", "cpu"))
    assert err == "nst: 'vgg19' cannot be fetched: check the connection.\n"


def test_a_loss_that_becomes_no_number_keeps_the_last_good_picture(monkeypatch, nst, pair, tmp_path):
    good = gatys.Result(torch.full((1, 3, 36, 40), 0.5), gatys.Settings())

    def fail(*_, **__):
        raise OptimizationError("The loss is not a number at iteration 3: lower the learning rate.", good)

    monkeypatch.setattr(gatys, "stylize", fail)
    out = tmp_path / "out.png"
    assert str(out) in one_sentence(*nst("stylize", *pair, "-o", out))
    assert images.load_image(out).shape == (1, 3, 36, 40)


# ------------------------------------------------------------------------------------------ assets and course


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NSTLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_assets_list(nst, empty_cache):
    code, out, err = nst("assets", "list")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == f"cache: {empty_cache}"
    assert [line.split()[0] for line in lines[1:]] == assets.names()
    assert all(line.split()[1] == "-" for line in lines[1:])
    vgg19 = next(line for line in lines if line.startswith("vgg19 "))
    assert "MiB" in vgg19
    assert assets.info("vgg19").licence in vgg19


def test_assets_verify(nst, empty_cache, monkeypatch):
    assert nst("assets", "verify") == (0, "The cache is empty; `nst assets fetch vgg19` fills it.\n", "")
    results = [("vgg16", True, "as published"), ("vgg19", False, "cut short; run `nst assets fetch vgg19`")]
    monkeypatch.setattr(assets, "verify", lambda names=None: results)
    code, out, err = nst("assets", "verify")
    assert (code, err) == (1, "")
    assert out.splitlines()[0].startswith("ok   vgg16")
    assert out.splitlines()[1].startswith("BAD  vgg19")
    monkeypatch.setattr(assets, "verify", lambda names=None: results[:1] if names == ("vgg16",) else results)
    assert nst("assets", "verify", "vgg16")[0] == 0


@pytest.mark.parametrize("verb", ["fetch", "verify"])
def test_an_unknown_asset(nst, empty_cache, monkeypatch, verb):
    monkeypatch.setattr(assets, "fetch", lambda name: pytest.fail("something was downloaded"))
    # The good name comes first: nothing may be fetched before the mistake is told.
    err = one_sentence(*nst("assets", verb, "vgg16", "vgg61"))
    assert "vgg61" in err
    assert "vgg16" in err  # what it looks like


def test_assets_fetch(nst, monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "fetch", lambda name: tmp_path / name)
    code, out, err = nst("assets", "fetch", "vgg19", "alexnet")
    assert (code, err) == (0, "")
    assert out == f"vgg19: {tmp_path / 'vgg19'}\nalexnet: {tmp_path / 'alexnet'}\n"
    assert nst("assets", "fetch")[0] == 2


@pytest.mark.parametrize("wrong", ["size", "=3", ""])
def test_a_course_parameter_without_a_value(nst, wrong):
    assert f"-p takes NAME=VALUE, not '{wrong}'." in one_sentence(*nst("course", "01", "-p", wrong))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("01", "-p", "sise=3"), ("sise", "size")),
        (("01", "-p", "size=many"), ("size", "many")),
        (("01", "-p", "preset=paper"), ("--preset",)),
        (("99",), ("99",)),
        (("no_such_notebook",), ("no_such_notebook",)),
    ],
)
def test_a_course_that_cannot_be_run_as_asked(nst, monkeypatch, arguments, words):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.delenv("NST_PRESET", raising=False)
    err = one_sentence(*nst("course", *arguments))
    assert all(word in err for word in words)


def test_the_course_hands_everything_on(nst, monkeypatch, tmp_path):
    from nstlib.course import runner

    told = {}
    monkeypatch.setattr(runner, "run_course", lambda *names, **options: told.update(options, names=names))
    arguments = ("01", "02", "--preset", "smoke", "-p", "a=1", "-p", "b=x=y", "--force", "--timeout", "9")
    assert nst("course", *arguments, "--out", tmp_path)[0] == 0
    echo = told.pop("echo")
    assert callable(echo)
    assert told == {
        "names": (("01", "02"),),
        "preset": "smoke",
        "parameters": {"a": "1", "b": "x=y"},
        "force": True,
        "timeout": 9.0,
        "out": tmp_path,
    }


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_hello(nst, monkeypatch, good, code):
    from nstlib.cli import course

    monkeypatch.setattr(course, "check", lambda echo: echo("looked") or good)
    assert nst("hello") == (code, "looked\n", "")


# ------------------------------------------------------------------------------------------------ exit codes


def test_no_command_shows_the_help(nst):
    code, out, err = nst()
    assert code in (0, 2)  # click 8.2 made it 2
    assert "nst stylize" in out + err


def test_an_unknown_command(nst):
    code, _, err = nst("stilize")
    assert code == 2
    assert "No such command 'stilize'" in err


def test_control_c_is_130(nst, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(assets, "status", interrupt)
    code, _, err = nst("assets", "list")
    assert err.strip() == "nst: stopped."
    assert code == 130


def test_an_error_we_do_not_foresee_keeps_its_traceback(nst, monkeypatch):
    def crash():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(assets, "status", crash)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        nst("assets", "list")


def test_the_module_is_the_command(pair):
    done = subprocess.run(
        [sys.executable, "-m", "nstlib.cli", "stylize", str(pair[0].with_name("nobody.png")), str(pair[1])],
        capture_output=True, text=True, check=False, cwd=pair[0].parent,
    )  # fmt: skip
    assert "nobody.png" in one_sentence(done.returncode, done.stdout, done.stderr)
