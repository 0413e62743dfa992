"""Measuring folders: right numbers in the right rows, bad pictures that cost nobody else, tables to keep."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import weakref

import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from nstlib.assets import data_path
from nstlib.errors import AssetError, ImageError, SettingError
from nstlib.metrics import measure as module
from nstlib.metrics import pictures as reading
from nstlib.metrics.measure import FACTORIES, measure
from nstlib.metrics.protocol import METRICS, Protocol
from nstlib.metrics.table import Measurement, comparable, show
from nstlib.pictures import files as images

QUIET = {"device": "cpu", "progress": False}
PIXEL = Protocol(metrics=("mse", "psnr", "ssim"), resolution=None, crop="none")
SETS = Protocol(metrics=("mse", "fid", "kid"), resolution=32, set_bootstrap=5)


def small_features(protocol, device, shared):
    """Eight numbers of a picture: FID and KID need no Inception network to be summed up."""
    return lambda x: torch.nn.functional.adaptive_avg_pool2d(x, (2, 2)).flatten(1)[:, :8]


REAL = dict(FACTORIES)


@pytest.fixture(autouse=True)
def no_networks(monkeypatch):
    """Only what a test puts there is looked through."""

    def none(protocol, device, shared):
        raise AssertionError("a network was asked for")

    for name in ("lpips", "identity", "content", "style"):
        monkeypatch.setitem(FACTORIES, name, none)
    monkeypatch.setitem(FACTORIES, "features", small_features)


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


def batch_of(picture, count, side=24, first=0):
    return torch.cat([picture(side, side, first + i) for i in range(count)])


# -------------------------------------------------------------------------------------------- the numbers


def test_numbers_are_scikit_images_in_the_rows_of_their_pictures(folders):
    a, b = folders(5)
    result = measure(a, b, PIXEL, batch=2, **QUIET)
    assert list(result.rows.columns) == ["picture", "mse", "psnr", "ssim"]
    assert list(result.rows["picture"]) == [f"p{i}.jpg" for i in range(5)]
    assert result.problems == []
    for i, row in enumerate(result.rows.itertuples()):
        x, y = (
            images.load_image(p)[0].permute(1, 2, 0).double().numpy()
            for p in (a / f"p{i}.jpg", b / f"p{i}.png")
        )
        assert row.mse == pytest.approx(((x - y) ** 2).mean(), abs=1e-9)
        assert row.psnr == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1), abs=1e-6)
        wanted = structural_similarity(
            x, y, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert row.ssim == pytest.approx(wanted, abs=1e-6)
    line = result.summary.set_index("metric").loc["ssim"]
    assert line["value"] == pytest.approx(result.rows["ssim"].mean())
    assert line["low"] < line["value"] < line["high"]
    assert (line["n"], line["better"]) == (5, "higher")


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_the_batch_changes_no_number(picture, batch):
    a, b = batch_of(picture, 7), batch_of(picture, 7, first=50)
    wanted, result = (measure(a, b, SETS, batch=n, **QUIET) for n in (7, batch))
    pd.testing.assert_frame_equal(result.rows, wanted.rows)
    pd.testing.assert_frame_equal(result.summary, wanted.summary)
    assert (result.hash, result.pictures) == (wanted.hash, wanted.pictures)


def test_a_batch_of_large_pictures_is_ended_early(picture, monkeypatch):
    sizes = []
    monkeypatch.setattr(module, "BATCH_PIXELS", 24 * 24 // 2)
    monkeypatch.setitem(
        FACTORIES, "mse", lambda *_: lambda a, b: sizes.append(len(a)) or (a - b).square().mean((1, 2, 3))
    )
    measure(batch_of(picture, 9), batch_of(picture, 9), PIXEL.changed(metrics=("mse",)), batch=8, **QUIET)
    assert sizes == [4, 4, 1]


def test_each_metric_has_its_factory_and_the_settings_reach_it(picture, monkeypatch):
    built = []
    for name in FACTORIES:
        monkeypatch.setitem(
            FACTORIES, name,
            lambda protocol, device, shared, name=name: built.append((name, protocol)) or (
                (lambda x: x.flatten(1)[:, :4]) if name == "features" else lambda a, b: a.mean((1, 2, 3))
            ),
        )  # fmt: skip
    protocol = Protocol(metrics=tuple(METRICS), resolution=16, set_bootstrap=2, ssim_window="uniform")
    a = batch_of(picture, 3)
    result = measure(a, a, protocol, **QUIET)
    assert sorted(name for name, _ in built) == sorted(FACTORIES)  # FID and KID share one network
    assert all(given is protocol for _, given in built)
    assert list(result.summary["metric"]) == list(METRICS)
    assert list(result.summary["n"]) == [3] * len(METRICS)


def test_the_ssim_window_and_the_resolution_of_the_protocol_are_used(picture):
    a, b = batch_of(picture, 2, 40), batch_of(picture, 2, 40, first=9)
    protocol = Protocol(metrics=("ssim",), resolution=None)
    values = {
        measure(a, b, protocol.changed(**change), **QUIET).rows["ssim"][0]
        for change in ({}, {"ssim_window": "uniform"}, {"resolution": 24}, {"resolution": 64})
    }
    assert len(values) == 4


@pytest.mark.parametrize(
    ("crop", "resolution", "shape"),
    [("center", 16, (16, 16)), ("center", None, (20, 20)), ("none", 15, (10, 15)), ("none", None, (20, 30)),
     ("center", 48, (48, 48)), ("none", 60, (40, 60))],
)  # fmt: skip
def test_pictures_are_cropped_and_resized_as_the_protocol_says(picture, monkeypatch, crop, resolution, shape):
    seen = []
    monkeypatch.setitem(
        FACTORIES,
        "mse",
        lambda *_: lambda a, b: seen.append(a.shape[-2:]) or (a - b).square().mean((1, 2, 3)),
    )
    a = picture(20, 30)
    measure(a, a, Protocol(metrics=("mse",), crop=crop, resolution=resolution), **QUIET)
    assert seen == [shape]


def test_equal_sets_have_fid_zero_and_infinite_psnr(picture):
    a = batch_of(picture, 4)
    protocol = Protocol(metrics=("psnr", "ssim", "fid"), resolution=24, set_bootstrap=3)
    values = measure(a, a.clone(), protocol, **QUIET).summary.set_index("metric")["value"]
    assert values["psnr"] == math.inf
    assert values["ssim"] == pytest.approx(1)
    assert values["fid"] == pytest.approx(0, abs=1e-6)


def test_few_pictures_bring_a_note_on_the_bias_of_fid_and_no_warning(picture, recwarn):
    a, b = batch_of(picture, 4), batch_of(picture, 4, first=9)
    result = measure(a, b, SETS, **QUIET)
    assert len(result.notes) == 1
    assert "too high" in result.notes[0]
    assert not recwarn.list


# --------------------------------------------------------------------------------------------- which pairs


def test_pairs_are_made_by_name_whatever_the_ending(folders):
    a, b = folders(3)
    os.rename(b / "p0.png", b / "q0.png")
    result = measure(a, b, PIXEL, **QUIET)
    assert list(result.rows["picture"]) == ["p1.jpg", "p2.jpg"]
    files = {problem.file: problem.reason for problem in result.problems}
    assert set(files) == {str(a / "p0.jpg"), str(b / "q0.png")}
    assert all("no partner" in reason and reason.endswith(".") for reason in files.values())


def test_pictures_without_a_partner_still_count_for_fid(folders):
    a, b = folders(5)
    os.remove(b / "p4.png")
    result = measure(a, b, SETS, **QUIET)
    assert result.counts == (5, 4)
    assert len(result.rows) == 4
    assert list(result.summary["n"]) == [4, 4, 4]


def test_two_pictures_of_one_name_are_ambiguous_and_neither_is_paired(folders):
    a, b = folders(3)
    images.save_image(images.load_image(a / "p1.jpg"), a / "p1.png")
    result = measure(a, b, PIXEL, **QUIET)
    assert list(result.rows["picture"]) == ["p0.jpg", "p2.jpg"]
    named = dict(result.problems)
    assert set(named) == {str(a / "p1.jpg"), str(a / "p1.png"), str(b / "p1.png")}
    assert "several pictures" in named[str(b / "p1.png")]


def test_pairs_by_order_name_what_is_left_over(folders):
    a, b = folders(4)
    os.remove(b / "p3.png")
    os.rename(b / "p0.png", b / "a_other_name.png")
    result = measure(a, b, PIXEL.changed(pairs="order"), **QUIET)
    assert list(result.rows["picture"]) == ["p0.jpg", "p1.jpg", "p2.jpg"]
    (problem,) = result.problems
    assert problem.file == str(a / "p3.jpg")
    assert "4 pictures" in problem.reason
    assert "shift" in problem.reason


def test_sets_without_pairs_may_have_any_numbers_and_names(picture):
    protocol = Protocol(metrics=("fid", "kid"), pairs="none", resolution=24, set_bootstrap=2)
    result = measure(batch_of(picture, 6), batch_of(picture, 3, first=9), protocol, **QUIET)
    assert result.counts == (6, 3)
    assert (len(result.rows), result.problems) == (0, [])
    assert result.summary["value"].notna().all()
    assert "6 and 3" in result.to_markdown()


def test_lists_of_files_single_files_and_tensors_are_measured_too(folders):
    a, b = folders(3)
    wanted = measure(a, b, PIXEL, **QUIET)
    paths = [sorted(folder.iterdir()) for folder in (a, b)]
    pd.testing.assert_frame_equal(measure(*paths, PIXEL, **QUIET).rows, wanted.rows)
    one = measure(str(paths[0][1]), paths[1][1], PIXEL, **QUIET)
    assert one.rows["ssim"][0] == wanted.rows["ssim"][1]
    loaded = [[images.load_image(path) for path in side] for side in paths]
    for given in (loaded, [torch.cat(side) for side in loaded]):
        seen = measure(*given, PIXEL, **QUIET)
        assert list(seen.rows["ssim"]) == list(wanted.rows["ssim"])


def test_a_folder_s_other_files_are_left_alone(folders):
    a, b = folders(2)
    for name in ("notes.txt", "manifest.json", ".hidden.png", "Thumbs.db"):
        (a / name).write_text("x")
    (a / "sub.png.d").mkdir()
    assert measure(a, b, PIXEL, **QUIET).problems == []


@pytest.mark.parametrize("side", [0, 1])
def test_what_cannot_be_begun_is_one_sentence(folders, tmp_path, picture, side):
    good = list(folders(2))
    (tmp_path / "empty").mkdir()
    for bad, said in (
        (tmp_path / "missing", "missing"), (tmp_path / "empty", "empty"), ([], "no pictures"), (3, "int"),
        (torch.rand(3, 8, 8), "shape"), (torch.rand(0, 3, 8, 8), "no pictures"), ([3], "int"),
        (tmp_path / "photos" / "p0.jpg" if side else tmp_path / "painted" / "p1.png", ""),
    ):  # fmt: skip
        given = list(good)
        given[side] = bad
        if said:
            with pytest.raises(SettingError, match=said) as caught:
                measure(*given, PIXEL, **QUIET)
            assert str(caught.value).endswith(".")
        else:
            assert len(measure(*given, PIXEL, **QUIET).rows) == 1


def test_names_that_never_meet_are_told_at_once(picture, folders, tmp_path):
    a, _ = folders(2)
    images.save_image(picture(24, 24), tmp_path / "other" / "x.png")
    with pytest.raises(SettingError, match=r"p0\.jpg.*x\.png.*order"):
        measure(a, tmp_path / "other", PIXEL, **QUIET)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"batch": 2.0}, {"batch": True}, {"device": "tpu"}])
def test_arguments_that_make_no_sense_are_refused(picture, wrong):
    a = batch_of(picture, 1)
    with pytest.raises(SettingError):
        measure(a, a, PIXEL, **{**QUIET, **wrong})
    with pytest.raises(SettingError, match="Protocol"):
        measure(a, a, ("ssim",), **QUIET)


# ------------------------------------------------------------------------------------------ what goes wrong


def damaged(kind, path):
    """Make a good picture file bad."""
    content = path.read_bytes()
    if kind == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a picture")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.unlink()
        path.symlink_to("nowhere.png")


@pytest.mark.parametrize("kind", ["cut short", "empty", "text", "folder", "dead link"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_bad_file_costs_its_own_row_only_and_is_named(folders, kind, side):
    a, b = folders(6)
    wanted = measure(a, b, SETS, **QUIET).rows
    bad = (a / "p2.jpg", b / "p2.png")[side]
    damaged(kind, bad)
    result = measure(a, b, SETS, batch=4, **QUIET)
    assert [problem.file for problem in result.problems] == [str(bad)]
    assert str(bad) in result.problems[0].reason
    assert math.isnan(result.rows["mse"][2])
    others = [0, 1, 3, 4, 5]
    assert list(result.rows["mse"][others]) == list(wanted["mse"][others])
    assert list(result.summary["n"]) == [5, 5, 5]
    assert result.summary["value"].notna().all()
    assert result.counts == ((5, 6), (6, 5))[side]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x: x * math.nan, "NaN"), (lambda x: x / 0, "NaN"), (lambda x: x * 255, "divide by 255"),
        (lambda x: x - 1, "0 to 1"), (lambda x: (x * 255).byte(), "floats"), (lambda x: x[:, :1], "shape"),
        (lambda x: x[0], "shape"),
    ],
)  # fmt: skip
def test_a_bad_tensor_costs_its_own_row_only_and_is_named(picture, spoil, said):
    a = [picture(24, 24, i) for i in range(4)]
    b = [picture(24, 24, i + 9) for i in range(4)]
    wanted = measure(a, b, SETS, **QUIET).rows["mse"]
    b[1] = spoil(b[1])
    result = measure(a, b, SETS, **QUIET)
    (problem,) = result.problems
    assert problem.file == "B[1]"
    assert said in problem.reason
    assert list(result.rows["mse"].notna()) == [True, False, True, True]
    assert [result.rows["mse"][i] for i in (0, 2, 3)] == [wanted[i] for i in (0, 2, 3)]


def test_a_pair_of_two_sizes_is_measured_by_what_can(picture, monkeypatch):
    monkeypatch.setitem(
        FACTORIES, "style", lambda *_: lambda a, b: (a.mean((1, 2, 3)) - b.mean((1, 2, 3))).square()
    )
    a, b = [picture(24, 24, i) for i in range(3)], [picture(24, 20 if i == 1 else 24, i) for i in range(3)]
    result = measure(a, b, PIXEL.changed(metrics=("mse", "ssim", "style")), **QUIET)
    (problem,) = result.problems
    assert problem.file == "B[1]"
    assert "20 × 24" in problem.reason
    assert "MSE, SSIM" in problem.reason
    assert list(result.rows["ssim"].notna()) == [True, False, True]
    assert result.rows["style"].notna().all()


@pytest.mark.parametrize(
    "error", [ImageError("There is no face to be seen."), RuntimeError("CUDA out of memory"), ValueError()]
)
def test_a_metric_that_fails_on_one_picture_keeps_the_others(picture, monkeypatch, error):
    a, b = batch_of(picture, 5), batch_of(picture, 5, first=9)

    def identity(x, y):
        if any(torch.equal(one, b[3]) for one in y):
            raise error
        return torch.ones(len(x))

    monkeypatch.setitem(FACTORIES, "identity", lambda *_: identity)
    result = measure(a, b, PIXEL.changed(metrics=("mse", "identity")), **QUIET)
    (problem,) = result.problems
    assert problem.file == "B[3]"
    assert problem.reason.startswith("Identity failed on 'B[3]': ")
    assert str(error) in problem.reason
    assert list(result.rows["identity"].notna()) == [True, True, True, False, True]
    assert result.rows["mse"].notna().all()


def test_a_metric_that_gives_no_number_is_named(picture, monkeypatch):
    monkeypatch.setitem(
        FACTORIES, "identity", lambda *_: lambda a, b: torch.tensor([0.5, math.nan, 0.7][: len(a)])
    )
    a = batch_of(picture, 3)
    result = measure(a, a, PIXEL.changed(metrics=("identity",)), **QUIET)
    assert [problem.file for problem in result.problems] == ["B[1]"]
    assert result.summary["value"][0] == pytest.approx(0.6)


def test_a_network_that_cannot_be_had_is_told_before_any_work(picture, monkeypatch):
    def factory(*_):
        raise AssetError("No internet.")

    monkeypatch.setitem(FACTORIES, "lpips", factory)
    monkeypatch.setattr(reading.Picture, "load", lambda *_: pytest.fail("the work was begun"))
    a = batch_of(picture, 2)
    with pytest.raises(AssetError, match="No internet"):
        measure(a, a, Protocol(metrics=("mse", "lpips")), **QUIET)


def test_a_network_that_fails_at_its_first_use_costs_its_metric_and_is_told_once(picture, monkeypatch):
    def identity(a, b):
        raise AssetError("No internet.")

    monkeypatch.setitem(FACTORIES, "identity", lambda *_: identity)
    a = batch_of(picture, 5)
    result = measure(a, a, PIXEL.changed(metrics=("mse", "identity")), batch=2, **QUIET)
    assert [problem.file for problem in result.problems] == ["identity"]
    assert result.rows["mse"].notna().all()
    assert result.rows["identity"].isna().all()


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


def test_every_picture_bad_is_a_table_of_problems(folders):
    a, b = folders(3)
    for path in b.iterdir():
        path.write_bytes(b"")
    result = measure(a, b, SETS, **QUIET)
    assert result.rows["mse"].isna().all()
    assert list(result.summary["n"]) == [0, 0, 0]
    assert len(result.problems) == 3 + 2  # FID and KID have nothing
    assert "–" in result.to_markdown()


# ---------------------------------------------------------------------------------- interrupt and memory


def interrupting(monkeypatch, after):
    count = itertools.count(1)
    real = FACTORIES["mse"]

    def factory(*given):
        instrument = real(*given)

        def counting(a, b):
            if next(count) == after:
                raise KeyboardInterrupt
            return instrument(a, b)

        return counting

    monkeypatch.setitem(FACTORIES, "mse", factory)


def test_an_interrupt_keeps_what_was_measured_and_says_so(picture, monkeypatch):
    a, b = batch_of(picture, 8), batch_of(picture, 8, first=9)
    whole = measure(a, b, SETS, **QUIET)
    interrupting(monkeypatch, after=3)
    result = measure(a, b, SETS, batch=2, **QUIET)
    assert result.interrupted
    assert list(result.rows["mse"]) == list(whole.rows["mse"][:4])
    assert list(result.summary["n"]) == [4, 4, 4]
    assert result.summary["value"].notna().all()
    assert "Stopped after 4" in result.to_markdown()
    assert result.record()["interrupted"] is True
    assert result.pictures != whole.pictures
    verdict = comparable(whole, result)
    assert not verdict
    assert "second table is of a run that was stopped" in verdict.reason


def test_an_interrupt_before_the_first_batch_is_an_interrupt(picture, monkeypatch):
    interrupting(monkeypatch, after=1)
    a = batch_of(picture, 2)
    with pytest.raises(KeyboardInterrupt):
        measure(a, a, PIXEL, **QUIET)


def test_an_interrupt_of_the_intervals_keeps_the_values(picture, monkeypatch):
    def bootstrap(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "bootstrap", bootstrap)
    result = measure(batch_of(picture, 4), batch_of(picture, 4, first=9), SETS, **QUIET)
    fid = result.summary.set_index("metric").loc["fid"]
    assert result.interrupted
    assert math.isfinite(fid["value"])
    assert math.isnan(fid["low"])


def test_pictures_are_let_go_as_soon_as_they_are_measured(folders, monkeypatch):
    a, b = folders(12)
    alive: list[weakref.ref] = []
    most = []
    load = reading.Picture.load

    def watched(self, protocol):
        image = load(self, protocol)
        alive.append(weakref.ref(image))
        most.append(sum(ref() is not None for ref in alive))
        return image

    monkeypatch.setattr(reading.Picture, "load", watched)
    measure(a, b, SETS, batch=2, **QUIET)
    assert len(alive) == 24
    assert max(most) <= 2 * 2 * 2  # the batch that was measured last, and the one that is read


# ------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def measured(folders):
    a, b = folders(4)
    (b / "p2.png").write_bytes(b"")
    return measure(a, b, SETS, **QUIET)


def test_csv_has_every_picture_the_summary_and_the_hashes(measured, tmp_path):
    path = measured.save(tmp_path / "sub" / "table.csv")
    table = pd.read_csv(path)
    assert list(table["kind"]) == ["picture"] * 4 + ["value", "low", "high", "n"]
    rows = table[table["kind"] == "picture"].reset_index(drop=True)
    assert list(rows["picture"]) == list(measured.rows["picture"])
    assert list(rows["mse"].dropna()) == pytest.approx(list(measured.rows["mse"].dropna()), rel=1e-12)
    assert rows["fid"].isna().all()
    values = table.set_index("kind").loc["value"]
    assert values["fid"] == pytest.approx(measured.summary["value"][1])
    assert set(table["protocol"]) == {measured.protocol.hash}
    assert set(table["pictures"]) == {measured.pictures}
    assert "\nn,,3,3,3," in path.read_text()


def test_json_has_all_of_it_and_no_nan(measured, tmp_path):
    def refuse(text):
        raise AssertionError(text)

    content = json.loads(measured.save(tmp_path / "table.json").read_text(), parse_constant=refuse)
    assert content["protocol_hash"] == measured.protocol.hash
    assert Protocol.from_dict(content["protocol"]) == measured.protocol
    assert content["rows"][2] == {"picture": "p2.jpg", "mse": None}
    assert content["problems"][0]["file"].endswith("p2.png")
    assert [line["metric"] for line in content["summary"]] == ["mse", "fid", "kid"]


def test_markdown_shows_arrows_intervals_numbers_and_problems(measured, tmp_path):
    text = measured.save(tmp_path / "table.md").read_text(encoding="utf-8")
    assert "MSE ↓" in text
    assert " ± " in text
    assert "95 % interval" in text
    assert measured.protocol.hash in text
    assert measured.pictures in text
    assert "p2.png" in text
    assert "4 and 3" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_names_that_markdown_would_stumble_over_are_written_out(picture, tmp_path):
    name = 'a|b  c,"d".png'
    for folder in "ab":
        images.save_image(picture(24, 24), tmp_path / folder / name)
    result = measure(tmp_path / "a", tmp_path / "b", PIXEL, **QUIET)
    assert "a\\|b c" in result.to_markdown()
    assert pd.read_csv(io.StringIO(result.to_csv()))["picture"][0] == name


def test_infinite_numbers_are_text_in_json_and_a_sign_in_markdown(picture):
    a = batch_of(picture, 2)
    result = measure(a, a, PIXEL, **QUIET)
    assert result.record()["rows"][0]["psnr"] == "inf"
    assert "∞" in result.summary_markdown()
    json.dumps(result.record(), allow_nan=False)


def test_a_table_appears_whole_or_not_at_all(measured, tmp_path, monkeypatch):
    path = measured.save(tmp_path / "table.md")
    before = path.read_text(encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    measured.notes.append("something new")
    with pytest.raises(ImageError, match="disk is full"):
        measured.save(path)
    assert path.read_text(encoding="utf-8") == before
    assert not list(tmp_path.glob(".nst-*"))


def test_an_unknown_ending_is_refused(measured, tmp_path):
    with pytest.raises(SettingError, match=r"\.csv, \.json, \.md"):
        measured.save(tmp_path / "table.xlsx")


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.81234, 0.79, 0.834), ("0.812 ± 0.022", "0.790 to 0.834")),
        ((174.257, 150.0, 200.0), ("174 ± 25", "150 to 200")),
        ((1e-9, 0.0, 2e-9), ("1e-09 ± 1e-09", "0 to 2e-09")),
        ((math.inf, math.inf, math.inf), ("∞", "∞ to ∞")),
        ((0.5, math.nan, math.nan), ("0.5", "–")),
        ((0.5, -math.inf, math.inf), ("0.5", "-∞ to ∞")),
        ((math.nan,) * 3, ("–", "–")),
        ((1.0, 1.0, 1.0), ("1 ± 0", "1 to 1")),
    ],
)
def test_numbers_are_shown_in_the_digits_that_make_sense(interval, said):
    assert show(*interval) == said


# --------------------------------------------------------------------------------------------- comparable


def saved(result: Measurement, path):
    return result, result.record(), result.save(path)


def test_two_methods_on_the_same_photos_are_comparable_in_any_form(picture, tmp_path):
    a = batch_of(picture, 4)
    one, other = (measure(a, batch_of(picture, 4, first=i), SETS, **QUIET) for i in (9, 20))
    assert one.pictures != other.pictures
    assert one.hash == other.hash
    forms = itertools.product(saved(one, tmp_path / "1.json"), saved(other, tmp_path / "2.json"))
    assert all(comparable(x, y) == (True, "") for x, y in forms)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, b: (a, b, SETS.changed(seed=3)), r"seed \(0, 3\)"),
        (lambda a, b: (a, b, SETS.changed(fid_resize="tensorflow", resolution=20)), "fid_resize.*resolution"),
        (lambda a, b: (a.flip(-1), b, SETS), "pictures of A"),
        (lambda a, b: (a[:3], b[:3], SETS), "pictures of A"),
        (lambda a, b: (a, b[:3], SETS), "MSE of '0003'.*first table only"),
        (lambda a, b: (a, torch.cat([b, b]), SETS), "4 and 4 pictures.*4 and 8"),
        (lambda a, b: (a, b[:3], PIXEL), "MSE of '0003'.*first table only"),
    ],
)
def test_a_difference_that_matters_is_named(picture, change, said):
    a, b = batch_of(picture, 4), batch_of(picture, 4, first=9)
    given = change(a, b)
    one = measure(a, b, PIXEL if given[2] == PIXEL else SETS, **QUIET)
    other = measure(*given, **QUIET)
    verdict = comparable(one, other)
    assert not verdict
    assert one.hash != other.hash
    assert pd.Series([verdict.reason]).str.contains(said, regex=True)[0], verdict.reason
    assert comparable(other, one).comparable is False


def test_the_digest_is_of_names_and_contents(folders):
    a, b = folders(3)
    first = measure(a, b, PIXEL, **QUIET)
    assert measure(a, b, PIXEL.changed(seed=1), **QUIET).pictures == first.pictures
    os.rename(a / "p0.jpg", a / "p9.jpg")
    os.rename(b / "p0.png", b / "p9.png")
    renamed = measure(a, b, PIXEL, **QUIET)
    with Image.open(b / "p1.png") as im:
        im.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(b / "p1.png")
    changed = measure(a, b, PIXEL, **QUIET)
    assert len({first.pictures, renamed.pictures, changed.pictures}) == 3
    assert len({first.reference, renamed.reference, changed.reference}) == 2


def test_what_is_no_measurement_cannot_be_compared(measured, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("[]")
    for bad in (tmp_path / "missing.json", tmp_path / "broken.json", tmp_path / "other.json", {"hash": "1"}):
        with pytest.raises(SettingError):
            comparable(measured, bad)


# ---------------------------------------------------------------------------------------------- networks


def test_content_and_style_ask_the_network_once_for_a_batch():
    asked = []

    class Network(torch.nn.Module):
        def forward(self, x):
            asked.append(x)
            return {"relu": x}

    remembering = module._Remembering(Network())
    a, b, c = torch.rand(3, 1, 3, 4, 4)
    for x in (a, b, a, b):
        assert remembering(x)["relu"] is x
    assert len(asked) == 2
    remembering(c)
    assert remembering(b)["relu"] is b
    assert len(asked) == 3


@pytest.mark.weights
def test_the_real_networks_measure_real_faces(monkeypatch):
    for name, factory in REAL.items():
        monkeypatch.setitem(FACTORIES, name, factory)
    paths = [data_path(f"portraits/{name}.jpg") for name in ("biden", "collins_face")]
    faces = [images.load_image(path, size=256) for path in paths]
    blurred = [images.resize(images.resize(face, 64), tuple(face.shape[-2:])) for face in faces]
    protocol = Protocol(metrics=tuple(METRICS), set_bootstrap=5)
    result = measure(faces, blurred, protocol, batch=2, **QUIET)
    same = measure(faces, faces, protocol, batch=2, **QUIET)
    assert (result.problems, same.problems) == ([], [])
    assert not result.rows.isna().any().any()
    value, best = (table.summary.set_index("metric")["value"] for table in (result, same))
    for name, metric in METRICS.items():
        assert (best[name] > value[name]) == (metric.better == "higher"), name
    assert best["identity"] == pytest.approx(1, abs=1e-4)
    assert result.hash == same.hash
