"""Style sets: carried ones are what ``styles.toml`` says, sheets are cut at their tiles, folders aligned."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_portraits import face_at, placed
from torch import Tensor

from nstlib import assets
from nstlib.errors import ImageError, SettingError
from nstlib.faces import align, style_sets
from nstlib.faces.style_sets import Sheet, load_style_set
from nstlib.pictures.files import load_image, save_image

STYLES = Path(__file__).resolve().parent.parent / "data" / "styles"


def entries() -> list[dict]:
    return tomllib.loads((STYLES / "styles.toml").read_text(encoding="utf-8"))["set"]


# ----------------------------------------------------------------------------------------------- the carried


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e["name"])
class TestCarried:
    def test_the_sheet_is_the_one_described(self, entry):
        content = (STYLES / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        with Image.open(STYLES / entry["file"]) as sheet:
            assert sheet.format == "JPEG"
            assert sheet.size == (entry["columns"] * entry["tile"], entry["rows"] * entry["tile"])
        assert (entry["rows"] - 1) * entry["columns"] < entry["count"] <= entry["rows"] * entry["columns"]
        for key in ("title", "source", "licence", "attribution"):
            assert entry[key], key

    def test_it_loads_as_so_many_different_pictures(self, entry):
        found = load_style_set(entry["name"], 32)
        assert found.pictures.shape == (entry["count"], 3, 32, 32)
        assert found.pictures.dtype == torch.float32
        assert found.pictures.min() >= 0
        assert found.pictures.max() <= 1
        flat = found.pictures.flatten(1)
        assert flat.std(1).min() > 0.04, "a picture, not an empty tile"
        apart = torch.cdist(flat, flat) + 1e3 * torch.eye(len(flat))
        assert apart.min() > 0.5, "no picture twice"


def test_all_together_are_small_and_no_sheet_is_unlisted():
    assert {path.name for path in STYLES.glob("*.jpg")} == {entry["file"] for entry in entries()}
    assert sum(path.stat().st_size for path in STYLES.iterdir() if path.is_file()) < 5_000_000


def test_the_list_names_carried_and_fetched_sets():
    found = style_sets.style_sets()
    assert list(found)[: len(entries())] == [entry["name"] for entry in entries()]
    assert {"cartoon", "fantasy", "impasto"} < found.keys()


# ------------------------------------------------------------------------------------------------ the sheets


def ruled(sheet: Sheet, height: int, width: int) -> Tensor:
    """White paper with a tile of its own gray at each place, drawn without rounding to the same pixels."""
    image = torch.ones(1, 3, height, width)
    for index in range(sheet.count):
        row, column = divmod(index, sheet.columns)
        across = (sheet.right - sheet.tile - sheet.left) / max(1, sheet.columns - 1)
        down = (sheet.bottom - sheet.tile - sheet.top) / max(1, sheet.rows - 1)
        x, y = int(sheet.left + column * across), int(sheet.top + row * down)
        image[..., y : y + sheet.tile, x : x + sheet.tile] = index / 500
    return image


@pytest.mark.parametrize("name", ["cartoon", "fantasy", "anime"])
def test_each_tile_of_a_sheet_is_cut_out_whole_and_without_paper(name):
    sheet = style_sets._SHEETS[name]
    tiles = sheet.cut(ruled(sheet, sheet.bottom + 3, sheet.right + 3))
    side = sheet.tile - 2 * sheet.border
    assert tiles.shape == (sheet.count, 3, side, side)
    expected = torch.arange(sheet.count) / 500
    torch.testing.assert_close(tiles.amax(dim=(1, 2, 3)), expected)
    torch.testing.assert_close(tiles.amin(dim=(1, 2, 3)), expected)


@pytest.mark.parametrize("name", ["impasto", "dualstylegan_impasto_sheet"])
def test_a_fetched_set_has_the_upstream_numbers(monkeypatch, tmp_path, name):
    sheet = style_sets._SHEETS["impasto"]
    path = save_image(ruled(sheet, sheet.bottom, sheet.right), tmp_path / "sheet.png")
    monkeypatch.setattr(assets, "fetch", lambda name, **_: path)
    found = load_style_set(name, 16)
    assert found.name == "impasto"
    assert found.pictures.shape == (120, 3, 16, 16)
    torch.testing.assert_close(
        found.pictures.mean(dim=(1, 2, 3)), torch.arange(120) / 500, rtol=0, atol=0.003
    )
    assert "non-commercial" in found.licence


# ---------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path, monkeypatch, picture) -> Path:
    """Two pictures with faces, one without, a text that is called a picture, and a text."""
    place = tmp_path / "mine"
    place.mkdir()
    for name, size in (("b", 160), ("a", 170), ("c", 90)):
        save_image(picture(size, 150), place / f"{name}.png")
    (place / "text.jpg").write_text("not a picture", encoding="utf-8")
    (place / "notes.txt").write_text("notes", encoding="utf-8")
    there = face_at(*placed(160, 150, 0.6, 12))
    monkeypatch.setattr(align, "find_faces", lambda image: [there] if image.shape[-2] > 90 else [])
    return place


def test_a_folder_gives_aligned_portraits_and_names_what_it_leaves_out(folder):
    with pytest.warns(UserWarning, match=r"Of 4 pictures 2 are left out: .*c\.png.*text\.jpg"):
        found = load_style_set(folder, 48)
    assert found.name == "mine"
    for name, one in zip(("a.png", "b.png"), found.pictures.split(1), strict=True):
        assert torch.equal(one, align.align_portrait(load_image(folder / name), 48).picture)


def test_a_folder_without_a_face_or_a_picture_is_refused(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ImageError, match=r"There are no pictures in '.*empty'"):
        load_style_set(empty)
    (folder / "c.png").rename(empty / "c.png")
    with pytest.raises(ImageError, match=r"No face was found in '.*c\.png'"):
        load_style_set(empty)


def test_what_is_neither_a_set_nor_a_folder_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"set or folder 'cartoons' \(did you mean 'cartoon'\?\)"):
        load_style_set("cartoons")
    with pytest.raises(SettingError, match=r"no style set or folder .*: choose one of"):
        load_style_set(tmp_path / "nowhere")
    (tmp_path / "file.jpg").write_text("text", encoding="utf-8")
    with pytest.raises(SettingError, match="no style set or folder"):
        load_style_set(tmp_path / "file.jpg")
