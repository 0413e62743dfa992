"""The command nst measure: what each option does, what goes wrong, and what it leaves."""

from __future__ import annotations

import json
import re

import pytest
import torch
from conftest import one_sentence

from nstlib.cli import measure as own
from nstlib.metrics import measure as module
from nstlib.metrics.protocol import DEFAULT, METRICS, Protocol
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
    """Every metric of pairs is a mean of pixels, and the features are two of them."""

    def instruments(protocol, device):
        tools = {name: lambda a, b: (a - b).abs().mean((1, 2, 3)) for name in protocol.of_pairs}
        if protocol.of_sets:
            tools["features"] = lambda x: torch.nn.functional.adaptive_avg_pool2d(x, (1, 2)).flatten(1)
        return tools

    monkeypatch.setattr(module, "instruments", instruments)


def test_two_folders_give_a_table_and_files(nst, folders):
    outs = ("-o", "t.csv", "-o", "deep/t.json", "--out", "t.md")
    code, out, err = nst("a", "b", "--metrics", "all", "--size", 32, "--quiet", *outs)
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
    for name in ("t.csv", "t.md"):
        assert content["protocol_hash"] in (folders / name).read_text(encoding="utf-8")


def test_each_option_reaches_the_protocol(nst, folders, monkeypatch):
    asked = []
    real = module.measure

    def measure(a, b, protocol, **options):
        asked.append((protocol, options))
        return real(a, b, protocol, **options)

    monkeypatch.setattr(module, "measure", measure)
    nst("a", "b")
    nst(
        "a", "b", "--metrics", "SSIM, fid", "--size", "original", "--crop", "none", "--pairs", "order",
        "--ssim-window", "uniform", "--lpips", "vgg16", "--fid-resize", "tensorflow", "--seed", 7,
        "--batch", 3, "--quiet",
    )  # fmt: skip
    assert asked[0] == (DEFAULT, {"device": "cpu", "batch": 8, "progress": True})
    wanted = Protocol(
        metrics=("ssim", "fid"), resolution=None, crop="none", pairs="order", ssim_window="uniform",
        lpips_backbone="vgg16", fid_resize="tensorflow", seed=7,
    )  # fmt: skip
    assert asked[1] == (wanted, {"device": "cpu", "batch": 3, "progress": False})


def test_two_files_are_a_pair_whatever_their_names(nst, folders):
    code, out, err = nst("a/p0.jpg", "b/p3.png", "--size", 24)
    assert code == 0
    assert "1/1" in err  # the bar
    assert "FID" not in out
    assert "1 pair," in out


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
        (("a", "b", "--metrics", "sim"), "'sim'"),
        (("a", "b", "-o", "t.xlsx"), ".csv, .json, .md"),
        (("a", "b", "-o", "folder.md"), "name of a folder"),
        (("a", "empty"), "empty"),
    ],
)
def test_mistakes_are_told_in_one_sentence_before_any_work(nst, folders, monkeypatch, arguments, said):
    monkeypatch.setattr(module, "_measure", lambda *_: pytest.fail("the work was begun"))
    (folders / "folder.md").mkdir()
    (folders / "empty").mkdir()
    assert said in one_sentence(*nst(*arguments, "--quiet"))


@pytest.mark.parametrize("done", [0, 2])
def test_ctrl_c_keeps_what_was_measured_and_says_so(nst, folders, monkeypatch, done):
    measure, count = module._measure, []

    def stopping(*given):
        if len(count) == done:
            raise KeyboardInterrupt
        count.append(1)
        measure(*given)

    monkeypatch.setattr(module, "_measure", stopping)
    outs = ("-o", "t.json", "-o", "t.md")
    code, out, err = nst("a", "b", "--metrics", "mse,fid", "--batch", 1, "--quiet", *outs)
    assert code == 130
    if not done:
        assert (out, err.strip()) == ("", "nst: stopped.")
        assert not (folders / "t.json").exists()
        return
    assert re.search(r"^stopped: 2 pairs", out, re.M)
    content = json.loads((folders / "t.json").read_text())
    assert content["interrupted"] is True
    assert [row["picture"] for row in content["rows"]] == ["p0.jpg", "p1.jpg"]
    assert [line["n"] for line in content["summary"]] == [2, 2]
    assert "Stopped after 2" in (folders / "t.md").read_text(encoding="utf-8")


def test_a_table_that_cannot_be_written_does_not_cost_the_one_on_the_terminal(nst, folders, monkeypatch):
    measure = module.measure

    def then_a_folder_is_in_the_way(*given, **options):
        (folders / "t.md").mkdir()
        return measure(*given, **options)

    monkeypatch.setattr(module, "measure", then_a_folder_is_in_the_way)
    code, out, err = nst("a", "b", "--metrics", "mse", "--quiet", "-o", "t.md")
    assert code == 1
    assert "MSE" in out
    assert "'t.md' is not saved" in err
