"""The command nst: its help, its exit codes, and the assets and the course behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import click
import conftest
import pytest
from click.testing import CliRunner

from nstlib import __version__, assets
from nstlib.cli import __main__ as command

# Here a message may end with a question: "did you mean ...?"
one_sentence = partial(conftest.one_sentence, endings=(".\n", "?\n"))


def commands(found: click.Command, *path: str):
    """Every command with its path: ``(), ("hello",), ..., ("train", "johnson")``."""
    yield path, found
    if isinstance(found, click.Group):
        context = click.Context(found)
        for name in found.list_commands(context):
            yield from commands(found.get_command(context, name), *path, name)


# ---------------------------------------------------------------------------------------------------- help


COMMANDS = dict(commands(command.cli))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help(path):
    found = COMMANDS[path]
    result = CliRunner().invoke(command.cli, [*path, "-h"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    # The first line of its own help, and every option with a word about it.
    assert found.help.strip().splitlines()[0][:40] in result.output
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[-1] in result.output
            assert parameter.help, parameter.name
    for name in getattr(found, "commands", ()):
        assert name in result.output


def test_version(nst):
    assert nst("--version") == (0, f"nst, version {__version__}\n", "")


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


def test_the_course_hands_everything_on(nst, monkeypatch, tmp_path):
    from nstlib.course import runner

    told = {}
    monkeypatch.setattr(runner, "run_course", lambda *names, **options: told.update(options, names=names))
    arguments = ("01", "02", "--preset", "smoke", "-p", "a=1", "-p", "b=x=y", "--force", "--timeout", "9")
    assert nst("course", *arguments, "--out", tmp_path)[0] == 0
    echo = told.pop("echo")
    assert callable(echo)
    assert told == {
        "names": (("01", "02"),), "preset": "smoke", "parameters": {"a": "1", "b": "x=y"}, "force": True,
        "timeout": 9.0, "out": tmp_path,
    }  # fmt: skip


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_hello(nst, monkeypatch, good, code):
    from nstlib.cli import course

    monkeypatch.setattr(course, "check", lambda echo: echo("looked") or good)
    assert nst("hello") == (code, "looked\n", "")


# ------------------------------------------------------------------------------------------------ exit codes


def test_control_c_is_130(nst, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(assets, "cached", interrupt)
    code, _, err = nst("assets", "list")
    assert err.strip() == "nst: stopped."
    assert code == 130


def test_an_error_we_do_not_foresee_keeps_its_traceback(nst, monkeypatch):
    def crash():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(assets, "cached", crash)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        nst("assets", "list")


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "nstlib.cli", "stylize", "nobody.png", "painting.jpg"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "nobody.png" in one_sentence(done.returncode, done.stdout, done.stderr)


def test_no_console_breaks_the_output():
    """The help of some commands, and every table, has signs that Windows' cp1252 lacks."""
    env = os.environ | {"PYTHONIOENCODING": "cp1252"}
    code = (
        "import click; from nstlib.cli import __main__ as m; m.cli = lambda **_: click.echo('ø ↓'); m.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "ø ?".encode("cp1252"))


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "| true", "2>&1 | true"])
def test_closed_output_stops_no_work(tmp_path, closed):
    """Two lines are printed and a bar is drawn before the result is written."""
    (tmp_path / "work.py").write_text(
        "import pathlib, time, click, tqdm; from nstlib.cli import __main__ as m\n"
        "def cli(**_):\n"
        "    time.sleep(0.3)\n"
        "    for n in tqdm.tqdm(range(3)): click.echo(f'± {n}'); click.echo('nst: ×', err=True)\n"
        "    pathlib.Path('result').write_text('made')\n"
        "m.cli = cli; m.main()\n"
    )
    command = f"{sys.executable} work.py {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "result").read_text() == "made"
