"""Presets, parameters, and what a notebook saves."""

from __future__ import annotations

import json
import sys

import pandas as pd
import pytest

from nstlib.course import hello, manifest, session
from nstlib.course.presets import check_parameters, read_parameters, resolve
from nstlib.errors import CourseError, SettingError

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
    with pytest.raises(SettingError, match=r"'smok' \(from NST_PRESET\) here. Did you mean 'smoke'\?"):
        begin(preset="quick")


def test_wrong_settings():
    with pytest.raises(SettingError, match=r"no setting 'sice' here. Did you mean 'size'\?"):
        begin(sice=3)
    with pytest.raises(SettingError, match="'size' is '12': give it a value of type int"):
        begin(size="12")
    with pytest.raises(SettingError, match="no preset 'papre'"):
        begin(preset="papre")
    with pytest.raises(SettingError, match="'quick' lacks steps"):
        resolve({"smoke": {"steps": 1}, "quick": {}}, "smoke", {})


def test_parameters():
    source = """
size: int | None = None   # a = b
name: str = "x"
scales: "list[int]" = [1]
mode: Literal["a", "b"] = "a"
rate: Optional[float] = 0.5
plain = 3
open = None
"""
    known = read_parameters(source, "n")
    assert list(known) == ["size", "name", "scales", "mode", "rate", "plain", "open"]

    def read(**given):
        return next(iter(check_parameters(given, known, "n").values()))

    assert read(size="12") == 12
    assert read(size="null") is None
    assert read(size=12) == 12
    assert read(name="yes") == "yes"
    assert read(name="007") == "007"
    assert read(name="[") == "["
    assert read(scales="[1, 2]") == [1, 2]
    assert read(mode="b") == "b"
    assert read(rate="1e-3") == 0.001
    assert read(rate="2") == 2
    assert read(plain="4") == 4
    assert read(open="[yes]") == [True]
    for wrong in (
        {"size": "x"},
        {"size": True},
        {"scales": "[1, x]"},
        {"mode": "c"},
        {"plain": 1.5},
        {"name": 3},
    ):
        with pytest.raises(SettingError, match="give it a value of type"):
            read(**wrong)
    with pytest.raises(CourseError, match="only assign literals"):
        read_parameters("import os", "n")


def test_folders(course, monkeypatch):
    assert begin().out == course / "figures" / "quick" / "02_layers"
    monkeypatch.setenv("NST_OUT", str(course / "x"))
    assert begin().out == course / "x"
    (course / "file").write_text("")
    monkeypatch.setenv("NST_OUT", str(course / "file" / "y"))
    with pytest.raises(CourseError, match="set NST_OUT to another folder"):
        begin()


def test_outside_a_course(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("alone")
    monkeypatch.chdir(folder)
    assert begin().out == folder / "figures" / "quick" / "02_layers"


def test_figure_table_and_manifest(capsys):
    from matplotlib.figure import Figure

    run = begin()
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    assert run.save_figure(figure, "alpha_0.5", caption="A line.").name == "alpha_0.5.png"
    table = pd.DataFrame({"layer|name": ["a", "b"], "loss": [1 / 3, 2e-9]}).set_index("layer|name")
    csv = run.save_table(table, "losses")
    assert pd.read_csv(csv).loss[0] == 1 / 3
    assert csv.with_suffix(".md").read_text().splitlines() == [
        r"| layer\|name | loss |",
        "| --- | --- |",
        "| a | 0.3333 |",
        "| b | 2e-09 |",
    ]
    before = json.loads((run.out / "manifest.json").read_text())
    assert before["finished"] is None  # an unfinished run is not taken for a finished one
    assert run.finish()["seconds"] >= 0
    content = json.loads((run.out / "manifest.json").read_text())
    assert [output["file"] for output in content["outputs"]] == ["alpha_0.5.png", "losses.md", "losses.csv"]
    for output in content["outputs"]:
        path = run.out / output["file"]
        assert (output["sha256"], output["bytes"]) == (manifest.sha256(path), path.stat().st_size)
    assert content["outputs"][0]["caption"] == "A line."
    assert content["peak_mib"] > 10
    assert {"python", "torch", "torchvision", "numpy", "nstlib"} <= set(content["versions"])
    assert content["machine"]["processor"]
    assert {path.name for path in run.out.iterdir()} == {
        "alpha_0.5.png",
        "losses.csv",
        "losses.md",
        "manifest.json",
    }
    assert "02_layers: " in capsys.readouterr().out.splitlines()[-1]


def test_save_image():
    torch = pytest.importorskip("torch")
    run = begin(device="cpu")
    assert run.device == torch.device("cpu")
    path = run.save_image(torch.full((1, 3, 4, 4), 0.5), "gray")
    assert path.name == "gray.png"
    from nstlib.pictures.files import read_settings

    assert read_settings(path)["size"] == 64
    machine = run.finish()["machine"]
    assert machine["device"] == "cpu"
    assert "float32" in machine["precision"]


@pytest.mark.parametrize(
    ("name", "file"),
    [("film", "film.mp4"), ("alpha_0.5", "alpha_0.5.mp4"), ("f.gif", "f.gif"), ("f.webp", "f.webp")],
)
def test_save_film(name, file):
    torch = pytest.importorskip("torch")
    from nstlib.pictures.video import read_film

    run = begin(device="cpu")
    shades = [torch.full((1, 3, 17, 24), shade) for shade in (0.0, 0.5, 1.0)]
    path = run.save_film(iter(shades), name, fps=10, hold=0.5, caption="From black to white.")
    assert path == run.out / file
    frames, fps = read_film(path)
    shown = [frame.mean().item() for frame in frames]
    assert fps == pytest.approx(10, rel=0.01)
    assert shown == pytest.approx([0.0, 0.5, *[1.0] * 6], abs=0.02)  # the last one stays
    (entry,) = json.loads((run.out / "manifest.json").read_text())["outputs"]
    assert (entry["file"], entry["caption"]) == (file, "From black to white.")
    assert (entry["sha256"], entry["bytes"]) == (manifest.sha256(path), path.stat().st_size)


def test_a_film_that_fails_leaves_the_old_one_and_no_entry():
    torch = pytest.importorskip("torch")
    from nstlib.errors import ImageError

    run = begin(device="cpu")
    run.out.joinpath("film.mp4").write_bytes(b"old")
    black = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ImageError, match="no frame"):
        run.save_film([], "film")
    with pytest.raises(ImageError, match="frame 2 has 16 × 20 pixels"):
        run.save_film([black, torch.zeros(1, 3, 16, 20)], "film")
    with pytest.raises(SettingError, match="fps"):
        run.save_film([black], "film", fps=0)
    with pytest.raises(SettingError, match=r"end the name in \.mp4"):
        run.save_film([black], "film.png")
    with pytest.raises(SettingError, match="plain file name"):
        run.save_film([black], "films/film")
    assert run.out.joinpath("film.mp4").read_bytes() == b"old"
    assert {path.name for path in run.out.iterdir()} == {"film.mp4", "manifest.json"}
    assert run.finish()["outputs"] == []


def test_unknown_device():
    with pytest.raises(SettingError, match="'warp' is no device"):
        _ = begin(device="warp").device


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "manifest.json"])
def test_file_names(name):
    with pytest.raises(SettingError, match="plain file name"):
        begin().save_figure(None, name)


def test_failed_figure_leaves_the_old_one():
    class Broken:
        def savefig(self, path, **options):
            path.write_bytes(b"half")
            raise OSError("disk full")

    run = begin()
    run.out.joinpath("x.png").write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        run.save_figure(Broken(), "x")
    assert run.out.joinpath("x.png").read_bytes() == b"old"
    assert {path.name for path in run.out.iterdir()} == {"x.png", "manifest.json"}


def test_unknown_machine(monkeypatch):
    """Whatever a machine does not tell, a run still ends."""
    monkeypatch.setattr(sys, "platform", "plan9")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "")
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(manifest, "processor", manifest.processor.__wrapped__)
    run = session.Run("02_layers", "quick", {"size": 1})
    content = run.finish()
    assert content["peak_mib"] is None
    assert content["machine"]["processor"].startswith("unknown")


def test_shows():
    assert manifest.show_seconds(8.44) == "8.4 s"
    assert manifest.show_seconds(59.97) == "1 min 00 s"
    assert manifest.show_seconds(125) == "2 min 05 s"
    assert manifest.show_seconds(4320) == "1 h 12 min"
    assert (manifest.show_mib(811.7), manifest.show_mib(3500), manifest.show_mib(None)) == (
        "812 MiB",
        "3.4 GiB",
        "unknown",
    )


def test_hello(monkeypatch):
    lines = []
    assert hello.hello(lines.append) is True
    assert len(lines) == 10

    def broken():
        raise RuntimeError("no such thing\nmore")

    monkeypatch.setattr(hello, "_memory", broken)
    monkeypatch.setattr(hello, "_cache", lambda: (False, "full: make room"))
    lines.clear()
    assert hello.hello(lines.append) is False
    assert "note  memory     cannot be checked here (no such thing)" in lines
    assert "MISS  cache      full: make room" in lines
