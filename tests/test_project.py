"""What the project says about itself in several places is the same in all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import nstlib

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
BASE = [Requirement(line) for line in PROJECT["dependencies"]]
COURSE, DEV = (
    [Requirement(line) for line in PROJECT["optional-dependencies"][extra]] for extra in ("course", "dev")
)


def bounds(requirements: list[Requirement]) -> dict[str, str]:
    """Name and bounds of what is needed under the Python the exact versions are for."""
    environment = {"python_version": "3.11", "python_full_version": "3.11.9"}
    return {
        canonicalize_name(requirement.name): str(requirement.specifier)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


def constraints(name: str) -> dict[str, SpecifierSet]:
    lines = [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert [r.name.lower() for r in found] == sorted({r.name.lower() for r in found}), f"{name}: sort it"
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


def tracked() -> list[Path]:
    """Every file that is in git or would be added to it; without git, those of the folders that count."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("nstlib", "tests", "tools", "notebooks", "docs", "data", "benchmarks")
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


# --- packages and versions


def test_only_lower_bounds() -> None:
    for requirement in [*BASE, *COURSE, *DEV]:
        assert re.fullmatch(r">=[\d.]+", str(requirement.specifier)), requirement


def test_environment_yml_in_step() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    listed = bounds([Requirement(line) for line in pip if not line.startswith("-")])
    nbval = {"nbval": bounds(DEV)["nbval"]}
    assert listed == bounds([*BASE, *COURSE]) | nbval
    assert [line for line in pip if line.startswith("-")] == ["-c constraints.txt", "-e ."]
    python = next(line for line in environment["dependencies"] if str(line).startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python=") + ".0")


def test_constraints_are_exact_and_admitted() -> None:
    pinned = constraints("constraints.txt")
    for name, specifier in pinned.items():
        assert re.fullmatch(r"==[\w.]+", str(specifier)), f"{name}{specifier}: one version, without +cpu"
    for name, bound in bounds([*BASE, *COURSE, *DEV]).items():
        assert name in pinned, f"{name} has no exact version: make constraints"
        version = str(pinned[name]).removeprefix("==")
        assert SpecifierSet(bound).contains(version), f"{name} {version} is not {bound}"


def test_colab_is_left_alone() -> None:
    """On Colab an installation must find all it needs, and change neither torch nor numpy."""
    here, needed = constraints("constraints-colab.txt"), bounds(BASE)
    assert {"torch", "torchvision", "numpy", "ipywidgets", "matplotlib"} <= here.keys() & needed.keys()
    for name, specifier in here.items():
        version = str(specifier).removeprefix("==").removesuffix(".*")
        assert name not in needed or SpecifierSet(needed[name]).contains(version), f"{name} {version}"
    # Colab does not have these, and its own IPython and kernel are older than what they need.
    assert not {"papermill", "nbval", "jupyterlab", "ipykernel", "ipython", "nbclient"} & needed.keys()
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.13.0")


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert nstlib.__version__ == PROJECT["version"] == str(citation["version"])
    assert citation["license"] == PROJECT["license"]
    assert Version(nstlib.__version__).public == nstlib.__version__


# --- the package


def test_wheel_carries_pictures_and_registry(tmp_path: Path) -> None:
    """Colab installs a wheel, and a wheel that lacks data fails only there."""
    force = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert force == {"data": "nstlib/_data"}
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if built.returncode and "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("no package index: pip cannot get hatchling, which builds the wheel")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    carried = {f"nstlib/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "data").rglob("*.*")}
    carried = {name.replace("nstlib/data/", "nstlib/_data/") for name in carried}
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "nstlib").rglob("*.py")}
    assert carried | modules | {"nstlib/assets/registry.toml"} <= inside
    assert all(name.startswith(("nstlib/", "nstlib-")) for name in inside)


def test_every_module_has_its_floor() -> None:
    (contract,) = PYPROJECT["tool"]["importlinter"]["contracts"]
    floors = {name.strip() for layer in contract["layers"] for name in re.split("[:|]", layer)}
    package = ROOT / "nstlib"
    modules = {f"nstlib.{path.stem}" for path in package.glob("*.py") if path.name != "__init__.py"}
    modules |= {f"nstlib.{path.parent.name}" for path in package.glob("*/__init__.py")}
    assert modules == floors, "name each module of nstlib in a layer of [tool.importlinter] in pyproject.toml"


def test_help_and_an_unchanged_course_do_not_load_torch() -> None:
    program = (
        "import sys, nstlib.nets; from nstlib.cli.__main__ import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'papermill', 'matplotlib', 'numpy', 'pandas'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
        "import nstlib.course.runner, nstlib.course.session\n"
        "print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "stylize" in said
    assert said.splitlines()[-2:] == ["loaded: []", "False"]


# --- what readers and other machines get to see


def test_the_top_of_the_library_can_be_taken_in_at_a_glance() -> None:
    # And a file over 400 lines is asked why, but no file is cut in two to pass a number.
    entries = [path.name for path in (ROOT / "nstlib").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 12, sorted(entries)


def text_of(path: Path) -> str:
    """A file's text, of a notebook without its pictures; empty for a file that is not text."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
    if path.suffix != ".ipynb" or not text:
        return text
    content = json.loads(text)
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
                del output["data"][kind]
    return json.dumps(content, indent=1, ensure_ascii=False)


# In pieces, so that this file does not find itself.
HOME = "|".join(["ho" + "me", "ro" + "ot", "wo" + "rk", "tm" + "p", "Us" + "ers"])
FORBIDDEN = {
    "a path of one machine": re.compile(rf"(?<![\w.)\]}}>-])/({HOME})/"),
    "a package index by its address": re.compile("|".join(["pypi" + r"\.org", "python" + "hosted"])),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_of_one_machine(what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if FORBIDDEN[what].search(line)
    ]
    assert not found, f"{what}:\n" + "\n".join(found)


def test_scripts_are_bash_and_whole() -> None:
    for name in (".ci/run", "tests/run.sh"):
        path = ROOT / name
        assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
        assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0, name
