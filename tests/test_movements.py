"""Paintings by movement: every painting is found, names may be written in many ways, and errors say which."""

from __future__ import annotations

import tomllib

import pytest
from conftest import refused

from nstlib import assets
from nstlib.assets.movements import movements, paintings
from nstlib.errors import SettingError

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


@pytest.mark.parametrize(
    ("written", "movement"),
    [
        ("Impressionism", "Impressionism"),  # not Post-Impressionism, which contains it
        (" Impréssionism ", "Impressionism"),
        ("post impressionism", "Post-Impressionism"),
        ("POST–IMPRESSIONISM", "Post-Impressionism"),
        ("ukiyo", "Ukiyo-e"),
        ("abstract", "Abstract art"),
        ("Impressionists", "Impressionism"),
    ],
)
def test_a_name_may_be_written_in_many_ways(written, movement):
    assert paintings(written) == movements()[movement]
    assert {painting.movement for painting in paintings(written)} == {movement}


@pytest.mark.parametrize(
    ("written", "hint"),
    [("", ""), ("xyz", ""), ("浮世絵", ""), ("renaisance", r" \(did you mean 'Renaissance'\?\)")],
)
def test_a_name_of_nothing_here_is_one_sentence_with_all_names(written, hint):
    names = ".*".join(movements())
    with refused(SettingError, match=f"no movement '{written}'{hint}: choose one of .*{names}"):
        paintings(written)
