"""The commands ``nst hello`` and ``nst course``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..course import runner
from ..course.hello import hello as check
from ..errors import SettingError


@click.command()
def hello() -> None:
    """Check Python, packages, device, memory, cache; say what to do about what is missing."""
    sys.exit(0 if check(click.echo) else 1)


@click.command()
@click.argument("notebooks", nargs=-1)
@click.option(
    "--preset",
    type=click.Choice(["smoke", "quick", "paper"]),
    default="quick",
    show_default=True,
    help="smoke: tests, under a minute; quick: a laptop, minutes; paper: 512 px and full steps, for a GPU.",
)
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of the notebook; may be repeated.",
)
@click.option("--force", is_flag=True, help="Run even what has not changed.")
@click.option("--timeout", type=click.FloatRange(1), default=None, help="Most seconds one cell may take.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for the results.  [default: figures/PRESET]",
)
def course(
    notebooks: tuple[str, ...], preset: str, parameters: tuple[str, ...], force: bool,
    timeout: float | None, out: Path | None,
) -> None:  # fmt: skip
    """Run notebooks headless and write their figures; unchanged ones are skipped.

    NOTEBOOKS are numbers, ranges or names (01, 01-02, 02_vgg16_vs_vgg19_layers); none means all.
    """
    given = {}
    for item in parameters:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise SettingError(f"-p takes NAME=VALUE, not '{item}'.")
        given[name] = value
    runner.run_course(
        notebooks, preset=preset, parameters=given, force=force, timeout=timeout, out=out, echo=click.echo
    )
