"""The command ``nst study``: a page that asks people which of two pictures they like better."""

from __future__ import annotations

from pathlib import Path

import click

from ..course import study as module


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--questions", type=click.IntRange(1), default=module.QUESTIONS, show_default=True,
    metavar="NUMBER", help="Pairs that a session shows.")  # fmt: skip
@click.option("--answers", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE", help="A CSV file that the page has saved; may be repeated.")  # fmt: skip
def study(folder: Path, questions: int, answers: tuple[Path, ...]) -> None:
    """Make a page of the pictures that nst table1 has painted into DIR, or analyze its answers.

    \b
    nst study table1
    nst study table1 --answers answers-1k2x.csv --answers answers-9ab3.csv

    The page is one file, works without a server or network, shows pairs in random order, and does not tell
    which method has painted what. Bradley and Terry's model turns the answers into a scale.
    """
    if not answers:
        click.echo(f"done: {module.make_page(folder, questions)}; keep {module.KEY} to yourself")
        return
    found = module.analyze(folder, answers)
    click.echo(found.to_string(index=False, float_format="{:.2f}".format))
