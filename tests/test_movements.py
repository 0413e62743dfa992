"""Paintings by movement: every painting is found, names may be written in many ways, and errors say which."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from nstlib import assets
from nstlib.assets.movements import _key, movements, paintings
from nstlib.errors import AssetError, SettingError
from nstlib.pictures.files import load_image

ENTRY = """
[[picture]]
file = "a.jpg"
title = "A"
artist = "B"
year = "1900"
movement = "Fauvism"
licence = "public domain"
"""


@pytest.fixture
def carried(tmp_path, monkeypatch):
    """``carried(text)``: the course carries a list of this text and one picture, a.jpg."""

    def data_path(relative: str) -> Path:
        path = tmp_path / relative
        if not path.exists():
            raise AssetError(f"The course carries no file {relative!r}.")
        return path

    def write(text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "pictures.toml").write_bytes(content)

    (tmp_path / "a.jpg").write_bytes(b"")
    monkeypatch.setattr(assets, "data_path", data_path)
    return write


# ------------------------------------------------------------------------------------ what the course carries


def test_every_painting_of_the_list_is_in_its_movement():
    listed = tomllib.loads(assets.data_path("pictures.toml").read_text(encoding="utf-8"))["picture"]
    listed = [entry for entry in listed if entry["file"].startswith("paintings/")]
    found = movements()
    assert sum(map(len, found.values())) == len(listed) >= 18
    for entry in listed:
        (painting,) = [p for p in found[entry["movement"]] if p.path == assets.data_path(entry["file"])]
        for name in ("title", "artist", "year", "movement", "licence"):
            assert getattr(painting, name) == entry[name]


def test_a_painting_can_be_loaded_and_not_be_changed():
    painting = paintings("Ukiyo-e")[0]
    assert load_image(painting.path, size=16).shape[1] == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        painting.title = "Mine"


def test_no_two_movements_are_taken_for_one():
    assert len({_key(name) for name in movements()}) == len(movements())


@pytest.mark.parametrize(
    ("written", "movement"),
    [
        ("Impressionism", "Impressionism"),  # not Post-Impressionism, which contains it
        ("impressionism", "Impressionism"),
        ("Impressionist", "Impressionism"),
        ("impressionists", "Impressionism"),
        (" Impréssionism ", "Impressionism"),
        ("post impressionism", "Post-Impressionism"),
        ("post_impressionist", "Post-Impressionism"),
        ("POST–IMPRESSIONISM", "Post-Impressionism"),
        ("postimpressionism", "Post-Impressionism"),
        ("post", "Post-Impressionism"),
        ("ukiyo-e", "Ukiyo-e"),
        ("ukiyoe", "Ukiyo-e"),
        ("Ukiyo e", "Ukiyo-e"),
        ("ukiyo", "Ukiyo-e"),
        ("abstract", "Abstract art"),
        ("art nouveau", "Art Nouveau"),
        ("art-nouveau", "Art Nouveau"),
        ("renaissance", "Renaissance"),
        ("mannerist", "Mannerism"),
    ],
)
def test_a_name_may_be_written_in_many_ways(written, movement):
    assert paintings(written) == movements()[movement]
    assert {painting.movement for painting in paintings(written)} == {movement}


@pytest.mark.parametrize("name", movements())
def test_every_movement_is_found_by_its_name(name):
    assert paintings(name) == movements()[name] == paintings(name.upper().replace("-", " "))


@pytest.mark.parametrize(
    ("written", "meant"),
    [("impresionism", "Impressionism"), ("renaisance", "Renaissance"), ("art noveau", "Art Nouveau")],
)
def test_a_misspelt_name_is_asked_about(written, meant):
    with pytest.raises(
        SettingError, match=rf"movement '{written}' \(did you mean {meant}\?\): choose one of Post"
    ):
        paintings(written)


@pytest.mark.parametrize("written", ["", "  ", "-", "a", "ar", "xyz", "浮世絵"])
def test_a_name_of_nothing_here_is_one_sentence_with_all_names(written):
    with pytest.raises(SettingError) as caught:
        paintings(written)
    assert f"no paintings of the movement '{written}': choose one of " in str(caught.value)
    for name in movements():
        assert name in str(caught.value)


# ------------------------------------------------------------------------------------------ a list gone wrong


def test_pictures_without_a_movement_are_no_paintings(carried):
    carried(ENTRY + ENTRY.replace('movement = "Fauvism"\n', ""))
    assert [p.title for p in movements()["Fauvism"]] == ["A"]


def test_a_beginning_that_two_names_share_is_not_guessed(carried):
    carried(ENTRY + ENTRY.replace("Fauvism", "Fauvette"))
    with pytest.raises(SettingError, match="choose one of Fauvism, Fauvette"):
        paintings("fauv")
    assert paintings("fauvi")[0].movement == "Fauvism"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[picture", r"list of pictures '.*pictures\.toml' cannot be read \(.*\): take another copy"),
        (b"\xff\xfe", r"list of pictures '.*pictures\.toml' cannot be read"),
        ("", r"cannot be read \(it has no 'picture'\)"),
        ("picture = 3", r"pictures\.toml' is no list of pictures"),
        ("picture = [3]", r"pictures\.toml' is no list of pictures"),
        (ENTRY.replace('title = "A"\n', ""), r"In pictures\.toml 'a\.jpg' has no title \(a text\): write it"),
        (ENTRY.replace('"1900"', "1900"), r"'a\.jpg' has no year \(a text\)"),
        (ENTRY.replace('file = "a.jpg"\n', ""), r"'A' has no file \(a text\)"),
        (ENTRY.replace("a.jpg", "b.jpg"), r"carries no file 'b\.jpg'"),
    ],
)
def test_a_damaged_list_is_one_sentence(carried, text, message):
    carried(text)
    for call in (movements, lambda: paintings("Fauvism")):
        with pytest.raises(AssetError, match=message):
            call()


def test_a_missing_list_is_one_sentence(carried):
    with pytest.raises(AssetError, match=r"carries no file 'pictures\.toml'"):
        movements()
