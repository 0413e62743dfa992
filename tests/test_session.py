"""Presets, parameters, and what a notebook saves."""

from __future__ import annotations

import json
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from conftest import read_film
from matplotlib.figure import Figure
from pooch import file_hash

from nstlib.course import hello, manifest, session
from nstlib.course.presets import check_parameters, read_parameters, resolve
from nstlib.errors import CourseError, ImageError, SettingError
from nstlib.pictures.files import read_settings

PRESETS = {"smoke": {"size": 8, "steps": None}, "quick": {"size": 64, "steps": 10}}


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch):
    for name in ("NST_PRESET", "NST_OUT", "NST_RUN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def begin(**options):
    return session.start("02_layers", presets=PRESETS, **options)


def recorded(run):
    return json.loads((run.out / "manifest.json").read_text())


# --- what it is told


def test_preset_and_overrides():
    run = begin(preset="smoke", size=None, steps=5)
    assert (run.preset, run.settings.size, run.settings.steps) == ("smoke", 8, 5)
    with pytest.raises(AttributeError):
        run.settings.size = 3
    assert resolve(PRESETS, "quick", {"size": 12})[1] == {"size": 12, "steps": 10}


def test_nst_preset_wins(monkeypatch):
    monkeypatch.setenv("NST_PRESET", "smoke")
    assert begin(preset="quick").preset == "smoke"
    monkeypatch.setenv("NST_PRESET", "smok")
    with pytest.raises(SettingError, match=r"\(NST_PRESET\) 'smok' \(did you mean 'smoke'\?\)"):
        begin(preset="quick")


def test_wrong_settings():
    with pytest.raises(SettingError, match=r"no setting 'sice' \(did you mean 'size'\?\)"):
        begin(sice=3)
    with pytest.raises(SettingError, match="'size' is '12': give it a value of type int"):
        begin(size="12")
    with pytest.raises(SettingError, match="no preset 'papre'"):
        begin(preset="papre")
    with pytest.raises(SettingError, match="'warp' is no device"):
        _ = begin(device="warp").device


def test_parameters():
    source = """
size: int | None = None   # a = b
name: str = "x"
scales: "list[int]" = [1]
mode: Literal["a", "b"] = "a"
rate: Optional[float] = 0.5
verbose: bool = False
"""
    known = read_parameters(source, "n")
    assert list(known) == ["size", "name", "scales", "mode", "rate", "verbose"]

    def read(**given):
        return next(iter(check_parameters(given, known, "n").values()))

    assert (read(size="12"), read(size="null"), read(size=12)) == (12, None, 12)
    assert read(size="010") == 10  # whole numbers in tens
    for text in ("yes", "007", "[", "null", '"x"', "1e-3"):
        assert read(name=text) == text  # as typed
    assert read(scales="[1, 2]") == [1, 2]
    assert read(mode="b") == "b"
    assert (read(rate="1e-3"), read(rate="2")) == (0.001, 2)
    assert (read(verbose="yes"), read(verbose="false"), read(verbose=True)) == (True, False, True)
    wrong = {"size": ["x", "8.5", "yes", True, 1.5], "scales": ["3", "[1, x]"], "mode": ["c"], "name": [3]}
    for name, values in (wrong | {"rate": ["no"], "verbose": ["2"]}).items():
        for value in values:
            with pytest.raises(SettingError, match="give it a value of type"):
                read(**{name: value})
    for cell in ("import os", "rate: float = max(0, 1)", "plain = 3", "size: number = 3", "size: int"):
        with pytest.raises(CourseError, match="may only hold literals with their type"):
            read_parameters(cell, "n")


# --- what it saves


def test_folders(course, monkeypatch, tmp_path_factory):
    assert begin().out == course / "figures" / "quick" / "02_layers"
    monkeypatch.setenv("NST_OUT", str(course / "x"))
    assert begin().out == course / "x"
    (course / "file").write_text("")
    monkeypatch.setenv("NST_OUT", str(course / "file" / "y"))
    with pytest.raises(CourseError, match="set NST_OUT to another folder"):
        begin()
    monkeypatch.delenv("NST_OUT")
    alone = tmp_path_factory.mktemp("alone")
    monkeypatch.chdir(alone)
    assert begin().out == alone / "figures" / "quick" / "02_layers"


def test_a_caption_stands_under_its_figure(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    run = begin()
    figure = plt.figure()
    run.save_figure(figure, "a", caption="A line.")
    assert shown[0] is figure
    assert shown[1].data == "*A line.*"
    assert not plt.fignum_exists(figure.number)  # or plt.show() would show it again
    run.save_figure(figure, "b", caption="Shown before.")
    assert [part.data for part in shown[2:]] == ["*Shown before.*"]
    run.save_figure(figure, "c")
    assert len(shown) == 3
    monkeypatch.delitem(sys.modules, "ipykernel")  # a script, not a page
    run.save_figure(figure, "d", caption="A line.")
    assert len(shown) == 3


def test_figure_table_and_manifest(capsys):
    run = begin()
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    assert run.save_figure(figure, "alpha_0.5", caption="A line.").name == "alpha_0.5.png"
    table = pd.DataFrame({"layer|name": ["a", "b"], "loss": [1 / 3, 2e-9]}).set_index("layer|name")
    csv = run.save_table(table, "losses")
    assert pd.read_csv(csv).loss[0] == 1 / 3
    lines = [r"| layer\|name | loss |", "| --- | --- |", "| a | 0.3333 |", "| b | 2e-09 |"]
    assert csv.with_suffix(".md").read_text().splitlines() == lines
    assert recorded(run)["finished"] is None  # an unfinished run is not taken for a finished one
    assert run.finish()["seconds"] >= 0
    content = recorded(run)
    assert [output["file"] for output in content["outputs"]] == ["alpha_0.5.png", "losses.md", "losses.csv"]
    for output in content["outputs"]:
        path = run.out / output["file"]
        assert (output["sha256"], output["bytes"]) == (file_hash(path), path.stat().st_size)
    assert content["outputs"][0]["caption"] == "A line."
    assert content["peak_mib"] > 10
    assert {"python", "torch", "torchvision", "numpy", "nstlib"} <= set(content["versions"])
    assert content["machine"]["processor"]
    names = {"alpha_0.5.png", "losses.csv", "losses.md", "manifest.json"}
    assert {path.name for path in run.out.iterdir()} == names
    assert "02_layers: " in capsys.readouterr().out.splitlines()[-1]


def test_save_image():
    run = begin(device="cpu")
    assert run.device == torch.device("cpu")
    path = run.save_image(torch.full((1, 3, 4, 4), 0.5), "gray")
    assert (path.name, read_settings(path)["size"]) == ("gray.png", 64)
    assert run.finish()["machine"]["device"] == "cpu"


@pytest.mark.parametrize(("name", "file"), [("alpha_0.5", "alpha_0.5.mp4"), ("f.gif", "f.gif")])
def test_save_film(name, file):
    run = begin(device="cpu")
    shades = [torch.full((1, 3, 17, 24), shade) for shade in (0.0, 0.5, 1.0)]
    path = run.save_film(iter(shades), name, fps=10, hold=0.5, caption="From black to white.")
    assert path == run.out / file
    frames, fps = read_film(path)
    assert fps == pytest.approx(10, rel=0.01)
    assert [f.mean().item() for f in frames] == pytest.approx(
        [0.0, 0.5, *[1.0] * 6], abs=0.02
    )  # the last stays
    (entry,) = recorded(run)["outputs"]
    assert (entry["file"], entry["caption"]) == (file, "From black to white.")
    assert entry["sha256"] == file_hash(path)


def test_what_fails_leaves_the_old_file_and_no_entry():
    class Broken:
        def savefig(self, path, **options):
            path.write_bytes(b"half")
            raise OSError("disk full")

    run = begin(device="cpu")
    for name in ("film.mp4", "x.png"):
        (run.out / name).write_bytes(b"old")
    with pytest.raises(ImageError, match="no frame"):
        run.save_film([], "film")
    with pytest.raises(ImageError, match="disk full"):
        run.save_figure(Broken(), "x")
    assert {path.name for path in run.out.iterdir()} == {"film.mp4", "x.png", "manifest.json"}
    assert (run.out / "film.mp4").read_bytes() == (run.out / "x.png").read_bytes() == b"old"
    assert run.finish()["outputs"] == []


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "manifest.json"])
def test_file_names(name):
    with pytest.raises(SettingError, match="plain file name"):
        begin().save_figure(None, name)


# --- what it says


def test_shows():
    shown = [manifest.show_seconds(seconds) for seconds in (8.44, 59.97, 125, 4320)]
    assert shown == ["8.4 s", "1 min 00 s", "2 min 05 s", "1 h 12 min"]
    assert (manifest.show_mib(811.7), manifest.show_mib(3500)) == ("812 MiB", "3.4 GiB")


def test_hello(monkeypatch):
    lines = []
    assert hello.hello(lines.append) is True
    assert len(lines) == 6

    def memory():
        raise RuntimeError("no such thing\nmore")

    monkeypatch.setattr(hello, "memory", memory)
    monkeypatch.setattr(hello.os, "access", lambda *_: False)
    lines.clear()
    assert hello.hello(lines.append) is False
    assert "MISS  memory     no such thing" in lines
    assert any(line.startswith("MISS  cache") and "set NSTLIB_CACHE" in line for line in lines)


def test_hello_names_a_package_that_is_missing(monkeypatch):
    wanted = ["numpy>=1.26", "no-such-package>=3", "papermill>=99; extra == 'course'", "x; extra == 'dev'"]
    monkeypatch.setattr(hello.metadata, "requires", lambda name: wanted)
    with pytest.raises(
        RuntimeError, match=r"no-such-package>=3, papermill>=99: pip install 'nstlib\[course\]'"
    ):
        hello.packages()
