"""Measuring folders: right numbers in the right rows, bad pictures that cost nobody else, tables to keep."""

from __future__ import annotations

import json
import math
import os

import pandas as pd
import pytest
import torch
from conftest import refused

from nstlib.errors import AssetError, ImageError, NstError, SettingError
from nstlib.metrics import measure as module
from nstlib.metrics import mse, psnr, ssim
from nstlib.metrics.measure import measure
from nstlib.metrics.protocol import Protocol
from nstlib.metrics.table import show
from nstlib.pictures import files as images

QUIET = {"device": "cpu", "progress": False}
PIXEL = Protocol(metrics=("mse", "psnr", "ssim"), resolution=None, crop="none")
SETS = Protocol(metrics=("mse", "fid", "kid"), resolution=32, set_bootstrap=5)
REAL = module.instruments


def small_features(x):
    """Eight numbers of a picture: FID and KID need no Inception network to be summed up."""
    return torch.nn.functional.adaptive_avg_pool2d(x, (2, 2)).flatten(1)[:, :8]


@pytest.fixture(autouse=True)
def own(monkeypatch):
    """``own["identity"] = ...``: what measures instead of the library's; no network is looked through."""
    own = {"features": small_features}

    def instruments(protocol, device):
        names = [*protocol.of_pairs, *(["features"] if protocol.of_sets else [])]
        lacking = [name for name in names if name not in own]
        real = REAL(protocol.changed(metrics=lacking), device) if lacking else {}
        return {name: own.get(name, real.get(name)) for name in names}

    monkeypatch.setattr(module, "instruments", instruments)
    return own


@pytest.fixture
def folders(tmp_path, picture):
    """``folders(5)``: two folders of so many pictures, photos/p0.jpg ... and painted/p0.png ..."""

    def make(count, side=24):
        for i in range(count):
            a = picture(side, side + 2, i)
            images.save_image(a, tmp_path / "photos" / f"p{i}.jpg")
            images.save_image((a * 0.8 + 0.1).clamp(0, 1), tmp_path / "painted" / f"p{i}.png")
        return tmp_path / "photos", tmp_path / "painted"

    return make


@pytest.fixture
def batch(picture):
    """``batch(4, first=9)``: so many pictures in a tensor."""
    return lambda count, first=0: torch.cat([picture(24, 24, first + i) for i in range(count)])


# -------------------------------------------------------------------------------------------- the numbers


def test_numbers_are_in_the_rows_of_their_pictures(folders):
    a, b = folders(5)
    result = measure(a, b, PIXEL, batch=2, **QUIET)
    assert list(result.rows.columns) == ["picture", "mse", "psnr", "ssim"]
    assert list(result.rows["picture"]) == [f"p{i}.jpg" for i in range(5)]
    assert result.problems == []
    for i, row in enumerate(result.rows.itertuples()):
        pair = [images.load_image(path) for path in (a / f"p{i}.jpg", b / f"p{i}.png")]
        for metric in (mse, psnr, ssim):
            assert getattr(row, metric.__name__) == pytest.approx(metric(*pair).item())
    line = result.summary.set_index("metric").loc["ssim"]
    assert line["value"] == pytest.approx(result.rows["ssim"].mean())
    assert line["low"] < line["value"] < line["high"]
    assert (line["n"], line["better"]) == (5, "higher")


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_batch_changes_no_number(batch, size):
    a, b = batch(7), batch(7, first=50)
    wanted, result = (measure(a, b, SETS, batch=n, **QUIET) for n in (7, size))
    pd.testing.assert_frame_equal(result.rows, wanted.rows)
    pd.testing.assert_frame_equal(result.summary, wanted.summary)
    assert (result.hash, result.pictures) == (wanted.hash, wanted.pictures)


def test_the_settings_of_the_protocol_are_used(picture, monkeypatch):
    built = []
    for name in ("Lpips", "InceptionFeatures"):
        monkeypatch.setattr(module, name, lambda setting, device: built.append(setting))
    REAL(Protocol(lpips_backbone="vgg16", fid_resize="tensorflow"), torch.device("cpu"))
    assert built == ["vgg16", "tensorflow"]
    a, b = picture(40, 40), picture(40, 40, 9)
    protocol = Protocol(metrics=("ssim",), resolution=None)
    changes = ({}, {"ssim_window": "uniform"}, {"resolution": 24}, {"resolution": 64})
    assert len({measure(a, b, protocol.changed(**c), **QUIET).rows["ssim"][0] for c in changes}) == 4


@pytest.mark.parametrize(
    ("crop", "resolution", "shape"),
    [("center", 16, (16, 16)), ("center", None, (20, 20)), ("none", 15, (10, 15)), ("none", None, (20, 30)),
     ("center", 48, (48, 48)), ("none", 60, (40, 60))],
)  # fmt: skip
def test_pictures_are_cropped_and_resized_as_the_protocol_says(picture, own, crop, resolution, shape):
    seen = []
    own["mse"] = lambda a, b: seen.append(a.shape[-2:]) or (a - b).mean((1, 2, 3))
    a = picture(20, 30)
    measure(a, a, Protocol(metrics=("mse",), crop=crop, resolution=resolution), **QUIET)
    assert seen == [shape]


def test_equal_sets_have_fid_zero_and_infinite_psnr(batch):
    protocol = Protocol(metrics=("psnr", "ssim", "fid"), resolution=24, set_bootstrap=3)
    result = measure(batch(4), batch(4), protocol, **QUIET)
    values = result.summary.set_index("metric")["value"]
    assert values["psnr"] == math.inf
    assert values["ssim"] == pytest.approx(1)
    assert values["fid"] == pytest.approx(0, abs=1e-6)
    assert result.record()["rows"][0]["psnr"] == "inf"
    assert "∞" in result.summary_markdown()
    json.dumps(result.record(), allow_nan=False)


# --------------------------------------------------------------------------------------------- which pairs


def test_pairs_are_made_by_name_whatever_the_ending(folders):
    a, b = folders(4)
    os.rename(b / "p0.png", b / "q0.png")
    images.save_image(images.load_image(a / "p1.jpg"), a / "p1.png")  # two of one name: neither is paired
    result = measure(a, b, SETS, **QUIET)
    assert list(result.rows["picture"]) == ["p2.jpg", "p3.jpg"]
    said = {problem.file: problem.reason for problem in result.problems}
    lone = [a / "p0.jpg", a / "p1.jpg", a / "p1.png", b / "q0.png", b / "p1.png"]
    assert set(said) == set(map(str, lone))
    assert all("no partner" in reason and reason.endswith(".") for reason in said.values())
    assert result.counts == [5, 4]  # FID takes them all


def test_pairs_by_order_name_what_is_left_over(folders):
    a, b = folders(4)
    os.remove(b / "p3.png")
    os.rename(b / "p0.png", b / "a_other_name.png")
    result = measure(a, b, PIXEL.changed(pairs="order"), **QUIET)
    assert list(result.rows["picture"]) == ["p0.jpg", "p1.jpg", "p2.jpg"]
    (problem,) = result.problems
    assert problem.file == str(a / "p3.jpg")
    assert "4 pictures" in problem.reason


def test_sets_without_pairs_may_have_any_numbers_and_names(batch):
    protocol = Protocol(metrics=("fid", "kid"), pairs="none", resolution=24, set_bootstrap=2)
    result = measure(batch(6), batch(3, first=9), protocol, **QUIET)
    assert result.counts == [6, 3]
    assert (len(result.rows), result.problems) == (0, [])
    assert result.summary["value"].notna().all()
    assert "6 and 3" in result.to_markdown()


def test_lists_of_files_single_files_and_tensors_are_measured_too(folders):
    a, b = folders(3)
    for name in ("notes.txt", "manifest.json", ".hidden.png", "Thumbs.db"):  # left alone
        (a / name).write_text("x")
    wanted = measure(a, b, PIXEL, **QUIET)
    paths = [sorted(folder.glob("p*")) for folder in (a, b)]
    pd.testing.assert_frame_equal(measure(*paths, PIXEL, **QUIET).rows, wanted.rows)
    one = measure(str(paths[0][1]), paths[1][1], PIXEL, **QUIET)
    assert one.rows["ssim"][0] == wanted.rows["ssim"][1]
    loaded = [[images.load_image(path) for path in side] for side in paths]
    for given in (loaded, [torch.cat(side) for side in loaded]):
        seen = measure(*given, PIXEL, **QUIET)
        assert list(seen.rows["ssim"]) == list(wanted.rows["ssim"])


def test_what_cannot_be_begun_is_one_sentence(folders, tmp_path, picture):
    a, b = folders(2)
    (tmp_path / "empty").mkdir()
    images.save_image(picture(24, 24), tmp_path / "other" / "x.png")
    for bad, said in (
        (tmp_path / "missing", "missing"), (tmp_path / "empty", "empty"), ([], "no pictures"),
        (torch.rand(0, 3, 8, 8), "no pictures"), (tmp_path / "other", r"p0\.jpg.*x\.png.*order"),
    ):  # fmt: skip
        with refused(NstError, match=said):
            measure(a, bad, PIXEL, **QUIET)
    for wrong in ({"batch": 0}, {"device": "tpu"}):
        with pytest.raises(SettingError):
            measure(a, b, PIXEL, **{**QUIET, **wrong})


# ------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("kind", ["cut short", "dead link"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_bad_file_costs_its_own_row_only_and_is_named(folders, kind, side):
    a, b = folders(6)
    wanted = measure(a, b, SETS, **QUIET).rows
    bad = (a / "p2.jpg", b / "p2.png")[side]
    if kind == "dead link":
        bad.unlink()
        bad.symlink_to("nowhere.png")
    else:
        bad.write_bytes(bad.read_bytes()[:200])
    result = measure(a, b, SETS, batch=4, **QUIET)
    assert [problem.file for problem in result.problems] == [str(bad)]
    assert str(bad) in result.problems[0].reason
    assert math.isnan(result.rows["mse"][2])
    others = [0, 1, 3, 4, 5]
    assert list(result.rows["mse"][others]) == list(wanted["mse"][others])
    assert list(result.summary["n"]) == [5, 5, 5]
    assert result.summary["value"].notna().all()
    assert result.counts == ([5, 6], [6, 5])[side]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x: x * math.nan, "NaN"), (lambda x: x * 255, "divide by 255"), (lambda x: x[:, :1], "shape"),
    ],
)  # fmt: skip
def test_a_bad_tensor_costs_its_own_row_only_and_is_named(picture, spoil, said):
    a = [picture(24, 24, i) for i in range(4)]
    b = [picture(24, 24, i + 9) for i in range(4)]
    b[1] = spoil(b[1])
    result = measure(a, b, SETS, **QUIET)
    (problem,) = result.problems
    assert problem.file == "B[1]"
    assert said in problem.reason
    assert list(result.rows["mse"].notna()) == [True, False, True, True]


def test_a_pair_of_two_sizes_is_measured_by_what_can(picture, own):
    own["style"] = lambda a, b: (a.mean((1, 2, 3)) - b.mean((1, 2, 3))).square()
    a, b = [picture(24, 24, i) for i in range(3)], [picture(24, 20 if i == 1 else 24, i) for i in range(3)]
    result = measure(a, b, PIXEL.changed(metrics=("mse", "ssim", "style")), **QUIET)
    (problem,) = result.problems
    assert problem.file == "B[1]"
    assert problem.reason.startswith("MSE, SSIM failed on 'B[1]': ")
    assert "20 × 24" in problem.reason
    assert list(result.rows["ssim"].notna()) == [True, False, True]
    assert result.rows["style"].notna().all()


@pytest.mark.parametrize(
    "error", [ImageError("There is no face to be seen."), RuntimeError("CUDA out of memory"), None]
)
def test_a_metric_that_fails_on_one_picture_keeps_the_others(batch, own, error):
    a, b = batch(5), batch(5, first=9)

    def identity(x, y):
        bad = torch.tensor([torch.equal(one, b[3]) for one in y])
        if error and bad.any():
            raise error
        return torch.where(bad, math.nan, 1.0)

    own["identity"] = identity
    result = measure(a, b, SETS.changed(metrics=("mse", "identity"), resolution=24), **QUIET)
    (problem,) = result.problems
    assert problem.file == "B[3]"
    assert problem.reason.startswith("Identity failed on 'B[3]': ")
    assert (str(error).rstrip(".") if error else "no number") in problem.reason
    assert list(result.rows["identity"].notna()) == [True, True, True, False, True]
    assert result.rows["mse"].notna().all()


def test_a_network_that_cannot_be_had_is_told_before_any_work(batch, monkeypatch):
    def lpips(*_, **__):
        raise AssetError("No internet.")

    monkeypatch.setattr(module, "Lpips", lpips)
    monkeypatch.setattr(module.Picture, "load", lambda *_: pytest.fail("the work was begun"))
    with pytest.raises(AssetError, match="No internet"):
        measure(batch(2), batch(2), Protocol(metrics=("mse", "lpips")), **QUIET)


@pytest.mark.parametrize("side", [0, 1])
def test_fid_of_one_picture_is_a_problem_of_that_folder_and_the_others_have_theirs(folders, side):
    given = list(folders(3))
    for path in sorted(given[side].iterdir())[1:]:
        path.unlink()
    result = measure(*given, SETS, **QUIET)
    told = [problem for problem in result.problems if "FID" in problem.reason]
    assert [problem.file for problem in told] == [str(given[side])]
    summary = result.summary.set_index("metric")
    assert summary["value"][["fid", "kid"]].isna().all()
    assert math.isfinite(summary["value"]["mse"])
    assert list(summary["n"]) == [1, 1, 1]


# ---------------------------------------------------------------------------------- interrupt and memory


def test_an_interrupt_of_the_intervals_keeps_the_values(batch, monkeypatch):
    def bootstrap(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "bootstrap", bootstrap)
    result = measure(batch(4), batch(4, first=9), SETS, **QUIET)
    fid = result.summary.set_index("metric").loc["fid"]
    assert result.interrupted
    assert math.isfinite(fid["value"])
    assert math.isnan(fid["low"])


# ------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def measured(folders):
    a, b = folders(4)
    (b / "p2.png").write_bytes(b"")
    return measure(a, b, SETS, **QUIET)


def test_csv_has_every_picture_the_summary_and_the_hashes(measured, tmp_path):
    path = measured.save(tmp_path / "sub" / "table.csv")
    table = pd.read_csv(path)
    assert list(table) == ["kind", "picture", "mse", "fid", "kid", "protocol", "pictures", "table"]
    assert list(table["kind"]) == ["picture"] * 4 + ["value", "low", "high", "n"]
    assert list(table["picture"][:4]) == list(measured.rows["picture"])
    assert list(table["mse"][:4].dropna()) == pytest.approx(list(measured.rows["mse"].dropna()), rel=1e-12)
    assert table["fid"][4] == pytest.approx(measured.summary["value"][1])
    assert (set(table["protocol"]), set(table["table"])) == ({measured.protocol.hash}, {measured.hash})
    assert "\nn,,3,3,3," in path.read_text()


def test_json_has_all_of_it_and_no_nan(measured, tmp_path):
    text = measured.save(tmp_path / "table.json").read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert (content["hash"], content["protocol_hash"]) == (measured.hash, measured.protocol.hash)
    assert content["protocol"] == measured.protocol.to_dict()
    assert content["rows"][2] == {"picture": "p2.jpg", "mse": None}
    assert content["problems"][0]["file"].endswith("p2.png")
    assert [line["metric"] for line in content["summary"]] == ["mse", "fid", "kid"]


def test_markdown_shows_arrows_intervals_numbers_and_problems(measured, tmp_path):
    text = measured.save(tmp_path / "table.md").read_text(encoding="utf-8")
    words = ("MSE ↓", " ± ", "95 % interval", "p2.png", "4 and 3")
    assert all(said in text for said in (*words, measured.protocol.hash, measured.pictures))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.81234, 0.79, 0.834), ("0.812 ± 0.022", "0.790 to 0.834")),
        ((1e-9, 0.0, 2e-9), ("1e-09 ± 1e-09", "0 to 2e-09")),
        ((math.inf, math.inf, math.inf), ("∞", "∞ to ∞")),
        ((0.5, -math.inf, math.inf), ("0.5", "-∞ to ∞")),
        ((math.nan,) * 3, ("–", "–")),
        ((1.0, 1.0, 1.0), ("1 ± 0", "1 to 1")),
        ((1.0, 1 - 8e-8, 1 + 8e-8), ("1 ± 0", "1 to 1")),
    ],
)
def test_numbers_are_shown_in_the_digits_that_make_sense(interval, said):
    assert show(*interval) == said


# ------------------------------------------------------------------------------------ which are comparable


def test_the_hash_is_of_protocol_and_references_and_not_of_the_method(batch):
    a, b = batch(4), batch(4, first=9)
    one, other = (measure(a, x, SETS, **QUIET) for x in (b, batch(4, first=20)))
    assert one.pictures != other.pictures
    assert one.hash == other.hash
    different = [
        measure(a, b, SETS.changed(seed=3), **QUIET), measure(a.flip(-1), b, SETS, **QUIET),
        measure(a, b[:3], SETS, **QUIET), measure(a, torch.cat([b, b]), SETS, **QUIET),
    ]  # fmt: skip
    assert len({one.hash, *(each.hash for each in different)}) == 5


def test_names_in_two_spellings_of_unicode_are_pairs(tmp_path, picture):
    for folder, name in (("a", "Zoe\u0308.png"), ("b", "Zo\u00eb.png")):
        images.save_image(picture(24, 24), tmp_path / folder / name)
    assert len(measure(tmp_path / "a", tmp_path / "b", PIXEL, **QUIET).rows) == 1
