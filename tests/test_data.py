"""The pictures the course carries are what ``data/pictures.toml`` and ``data/README.md`` say they are.

Run as a program, this file writes the README's table anew from the toml.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

DATA = Path(__file__).resolve().parent.parent / "data"
FOLDERS = ("portraits", "landscapes", "paintings")
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"
REQUIRED = {"file", "title", "artist", "year", "source", "licence", "sha256", "width", "height"}
OPTIONAL = {"movement", "note"}


def pictures() -> list[dict[str, Any]]:
    return tomllib.loads((DATA / "pictures.toml").read_text(encoding="utf-8"))["picture"]


def table() -> str:
    """The README's tables (one a folder) as Markdown."""
    text = ""
    for folder in FOLDERS:
        text += f"\n## {folder.capitalize()}\n\n"
        text += (
            "| file | title | by | year | movement | size | source | licence | note |\n" + "|---" * 9 + "|\n"
        )
        for p in pictures():
            if not p["file"].startswith(folder):
                continue
            cells = [f"[`{Path(p['file']).name}`]({p['file']})", p["title"], p["artist"], p["year"]]
            cells += [p.get("movement", ""), f"{p['width']} × {p['height']}", p["source"], p["licence"]]
            text += "| " + " | ".join([*cells, p.get("note", "")]) + " |\n"
    return text + "\n"


def split_readme() -> tuple[str, str, str]:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    written, tail = rest.split(END)
    return head, written, tail


@pytest.mark.parametrize("picture", pictures(), ids=lambda p: p["file"])
class TestPicture:
    def test_entry_is_complete(self, picture: dict[str, Any]) -> None:
        assert picture.keys() >= REQUIRED
        assert picture.keys() <= REQUIRED | OPTIONAL
        assert all(picture[key] for key in REQUIRED)
        if picture["file"].startswith("paintings/"):
            assert picture["movement"], "a student chooses paintings by movement"

    def test_file_is_the_one_described(self, picture: dict[str, Any]) -> None:
        content = (DATA / picture["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == picture["sha256"]
        assert len(content) <= 110_000

    def test_plain_srgb_jpeg_without_metadata(self, picture: dict[str, Any]) -> None:
        with Image.open(DATA / picture["file"]) as im:
            assert im.format == "JPEG"
            assert im.mode == "RGB"
            assert im.info.get("progressive")
            assert im.size == (picture["width"], picture["height"])
            assert not im.getexif()
            assert not {"icc_profile", "exif", "xmp", "comment", "photoshop"} & im.info.keys()


def test_nothing_unlisted() -> None:
    listed = [p["file"] for p in pictures()]
    assert len(listed) == len(set(listed))
    found = {p.relative_to(DATA).as_posix() for f in FOLDERS for p in (DATA / f).rglob("*") if p.is_file()}
    assert found == set(listed)


def test_readme_in_step() -> None:
    _, written, _ = split_readme()
    assert written == table(), "run `python tests/test_data.py` to write the table anew"


if __name__ == "__main__":
    head, _, tail = split_readme()
    (DATA / "README.md").write_text(head + BEGIN + table() + END + tail, encoding="utf-8")
