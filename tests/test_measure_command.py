"""The command nst measure: what each option does, what goes wrong, and what it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile

import pandas as pd
import pytest
import torch
from conftest import one_sentence

from nstlib.cli import measure as own
from nstlib.metrics import measure as module
from nstlib.metrics.measure import FACTORIES
from nstlib.metrics.protocol import CHOICES, DEFAULT, METRICS, Protocol
from nstlib.metrics.table import Measurement, comparable
from nstlib.pictures import files as images


@pytest.fixture
def nst(nst, monkeypatch, tmp_path):
    """``nst(a, b, ...)``: exit status, standard output and error of `nst measure` in tmp_path."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: nst("measure", *arguments, "--device", "cpu")


@pytest.fixture
def folders(tmp_path, picture):
    """Four photos of 30×24 and what was painted of them; in tmp_path, so that "a" and "b" are enough."""
    for i in range(4):
        a = picture(24, 30, i)
        images.save_image(a, tmp_path / "a" / f"p{i}.jpg")
        images.save_image((a * 0.8 + 0.1).clamp(0, 1), tmp_path / "b" / f"p{i}.png")
    return tmp_path


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Every network is a mean of pixels."""

    def distance(protocol, device, shared):
        return lambda a, b: (a - b).abs().mean((1, 2, 3))

    for name in ("lpips", "identity", "content", "style"):
        monkeypatch.setitem(FACTORIES, name, distance)
    monkeypatch.setitem(
        FACTORIES, "features",
        lambda *_: lambda x: torch.nn.functional.adaptive_avg_pool2d(x, (1, 2)).flatten(1),
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """Instead of the work: what it was asked for."""
    calls = []

    def measure(a, b, protocol, **options):
        calls.append((a, b, protocol, options))
        rows = pd.DataFrame(columns=["picture", *protocol.of_pairs])
        names = protocol.metrics
        summary = pd.DataFrame(
            {"metric": names, "value": 0.5, "low": 0.4, "high": 0.6, "n": 1, "better": "higher"}
        )
        return Measurement(rows, summary, [], protocol, "0" * 12, "0" * 12)

    monkeypatch.setattr(module, "measure", measure)
    return calls


def test_the_names_written_down_twice_agree():
    assert tuple(METRICS) == own.METRICS
    assert DEFAULT.metrics == own.DEFAULT_METRICS
    assert tuple(name for name in METRICS if METRICS[name].of_sets) == own.OF_SETS
    options = {option.name: option for option in own.measure.params}
    for name, choices in CHOICES.items():
        assert tuple(options[name].type.choices) == choices


def test_help_names_every_metric_and_loads_no_torch():
    code = (
        "import sys; from nstlib.cli.__main__ import cli\n"
        "try: cli(['measure', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False False")
    assert all(name in done.stdout for name in METRICS)


def test_two_folders_give_a_table_and_files(nst, folders):
    code, out, err = nst(
        "a",
        "b",
        "--metrics",
        "all",
        "--size",
        32,
        "--quiet",
        "-o",
        "t.csv",
        "-o",
        "deep/t.json",
        "--out",
        "t.md",
    )
    assert (code, err.count("\n")) == (0, 1)  # FID's note
    assert "too high" in err
    for metric in METRICS.values():
        assert metric.title in out
    assert " ± " in out
    content = json.loads((folders / "deep/t.json").read_text())
    assert content["protocol_hash"] in out
    assert content["pictures"] in out
    assert content["sources"] == ["a", "b"]
    assert len(content["rows"]) == 4
    assert content["protocol_hash"] in (folders / "t.csv").read_text()
    assert content["protocol_hash"] in (folders / "t.md").read_text(encoding="utf-8")


def test_the_same_command_twice_gives_comparable_tables(nst, folders):
    for name in ("1.json", "2.json"):
        assert nst("a", "b", "--metrics", "ssim,mse", "--quiet", "-o", name)[0] == 0
    first, second = (json.loads((folders / name).read_text()) for name in ("1.json", "2.json"))
    assert first["rows"] == second["rows"]
    assert comparable(folders / "1.json", folders / "2.json")
    nst("a", "b", "--metrics", "ssim,mse", "--quiet", "-o", "3.json", "--crop", "none")
    assert "crop" in comparable(folders / "1.json", folders / "3.json").reason


def test_each_option_reaches_the_protocol(nst, folders, asked):
    nst("a", "b")
    nst(
        "a", "b", "--metrics", "SSIM, fid", "--size", "original", "--crop", "none", "--pairs", "order",
        "--ssim-window", "uniform", "--lpips", "vgg16", "--fid-resize", "tensorflow", "--seed", 7,
        "--batch", 3, "--quiet",
    )  # fmt: skip
    assert asked[0][2] == DEFAULT
    assert asked[0][3] == {"device": "cpu", "batch": 8, "progress": True}
    assert asked[1][2] == Protocol(
        metrics=("ssim", "fid"), resolution=None, crop="none", pairs="order", ssim_window="uniform",
        lpips_backbone="vgg16", fid_resize="tensorflow", seed=7,
    )  # fmt: skip
    assert asked[1][3] == {"device": "cpu", "batch": 3, "progress": False}


def test_two_files_are_a_pair_whatever_their_names(nst, folders):
    code, out, err = nst("a/p0.jpg", "b/p3.png", "--size", 24, "--quiet")
    assert (code, err) == (0, "")
    assert "FID" not in out
    assert "1 pair," in out


def test_sets_alone_need_no_pairs(nst, folders):
    (folders / "b" / "p0.png").rename(folders / "b" / "other.png")
    code, out, _ = nst("a", "b", "--metrics", "kid", "--pairs", "none", "--quiet")
    assert code == 0
    assert "4 and 4 pictures" in out


def test_a_bad_picture_is_named_and_the_table_written_all_the_same(nst, folders):
    (folders / "b" / "p1.png").write_bytes(b"not a picture")
    code, out, err = nst("a", "b", "--metrics", "mse,kid", "--quiet", "-o", "t.json")
    assert code == 1
    assert err.startswith("nst: 'b/p1.png'")
    assert err.count("\n") == 1
    assert "done: 4 pairs" in out
    rows = json.loads((folders / "t.json").read_text())["rows"]
    assert [row["mse"] is None for row in rows] == [False, True, False, False]


def test_many_problems_are_counted_on_the_terminal_and_named_in_the_table(nst, folders, picture):
    for i in range(15):
        images.save_image(picture(16, 16), folders / "b" / f"extra{i:02d}.png")
    code, _, err = nst("a", "b", "--metrics", "mse", "--quiet", "-o", "t.md")
    assert code == 1
    assert err.count("\n") == own.SHOWN + 1
    assert "5 problems more; 't.md' names all" in err
    text = (folders / "t.md").read_text(encoding="utf-8")
    assert all(f"extra{i:02d}.png" in text for i in range(15))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing", "b"), "missing"),
        (("a", "b", "--metrics", "sim"), "'sim'"),
        (("a", "b", "--metrics", ""), "No metric"),
        (("a", "b", "--metrics", "ssim", "--pairs", "none"), "no ssim"),
        (("a", "b", "-o", "t.xlsx"), ".csv, .json, .md"),
        (("a", "b", "-o", "folder.md"), "is a folder"),
        (("a", "b", "-o", "a/p0.jpg/t.md"), "no folder"),
        (("a", "empty"), "empty"),
    ],
)
def test_mistakes_are_told_in_one_sentence_before_any_work(nst, folders, monkeypatch, arguments, said):
    monkeypatch.setattr(module._Run, "add", lambda *_: pytest.fail("the work was begun"))
    (folders / "folder.md").mkdir()
    (folders / "empty").mkdir()
    assert said in one_sentence(*nst(*arguments, "--quiet"))


@pytest.mark.parametrize("option", [("--size", "3"), ("--size", "big"), ("--batch", "0"), ("--crop", "left")])
def test_values_out_of_range_are_refused_by_the_command_line(nst, folders, option):
    code, _, err = nst("a", "b", *option)
    assert code == 2
    assert option[0] in err


def test_ctrl_c_keeps_what_was_measured_and_says_so(nst, folders, monkeypatch):
    add, count = module._Run.add, []

    def stopping(self, chunk):
        if len(count) == 2:
            raise KeyboardInterrupt
        count.append(1)
        add(self, chunk)

    monkeypatch.setattr(module._Run, "add", stopping)
    code, out, _ = nst("a", "b", "--metrics", "mse,ssim", "--batch", 1, "--quiet", "-o", "t.json")
    assert code == 130
    assert re.search(r"^stopped: 2 pairs", out, re.M)
    content = json.loads((folders / "t.json").read_text())
    assert content["interrupted"] is True
    assert [row["picture"] for row in content["rows"]] == ["p0.jpg", "p1.jpg"]


def test_ctrl_c_before_anything_is_measured_leaves_nothing(nst, folders, monkeypatch):
    def stop(self, chunk):
        raise KeyboardInterrupt

    monkeypatch.setattr(module._Run, "add", stop)
    code, out, err = nst("a", "b", "--metrics", "mse", "--quiet", "-o", "t.json")
    assert (code, out, err.strip()) == (130, "", "nst: stopped.")
    assert not (folders / "t.json").exists()


def test_a_table_that_cannot_be_written_is_kept_elsewhere(nst, folders, monkeypatch):
    (folders / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folders / "elsewhere"))
    measure = module.measure

    def then_a_folder_is_in_the_way(*given, **options):
        (folders / "t.md").mkdir()
        return measure(*given, **options)

    monkeypatch.setattr(module, "measure", then_a_folder_is_in_the_way)
    code, out, err = nst("a", "b", "--metrics", "mse", "--quiet", "-o", "t.md", "-o", "t.json")
    assert code == 1
    assert "MSE" in out
    assert "'t.md' is not saved" in err
    assert "rescued-t.md" in err
    assert "MSE" in (folders / "elsewhere" / "rescued-t.md").read_text(encoding="utf-8")
    assert (folders / "t.json").exists()


def test_progress_goes_to_standard_error(nst, folders):
    code, out, err = nst("a", "b", "--metrics", "mse")
    assert code == 0
    assert "4/4" in err
    assert "4/4" not in out
