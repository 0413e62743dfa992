"""The README's generated parts are in step with what generates them."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _readme_module():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_map_and_asset_table_are_in_step():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert _readme_module().filled(text) == text, "run `python docs/readme.py`"


def test_every_notebook_is_on_the_map():
    names = {path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    assert names == set(_readme_module().NOTEBOOKS)


def test_pictures_and_links_of_the_readme_exist():
    import re

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(links) >= 6
    assert [link for link in links if not (ROOT / link).exists()] == []
