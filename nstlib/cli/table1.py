"""The command ``nst table1``: paper E's Table 1, recomputed with every method of the course."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..course import table1 as module
from ..errors import SettingError
from .options import DEVICE, QUIET, SEED

# fmt: off
PARAMETERS = [
    click.Option(["-o", "--out"], type=click.Path(path_type=Path, file_okay=False), default="table1",
        show_default=True, help="Folder of pictures, numbers and tables; the same command goes on there."),
    click.Option(["--preset"], type=click.Choice(list(module.PRESETS)), default="quick", show_default=True,
        help="quick: 6 faces, 4 style sets; paper: 1000 faces at 512 pixels, for GPUs."),
    click.Option(["--sets"], metavar="NAME,...", help="Style sets, of the course or of DualStyleGAN."),
    click.Option(["--faces"], type=click.IntRange(2), metavar="NUMBER", help="How many faces."),
    click.Option(["--pictures", "folder"], type=click.Path(exists=True, file_okay=False), metavar="FOLDER",
        help="Your own photographs instead of the course's faces."),
    click.Option(["--size"], type=click.IntRange(64, 1024), metavar="PIXELS", help="Side of all pictures."),
    click.Option(["--only"], metavar="ROW,...",
        help=f"Of {', '.join(module.rows(module.Settings()))}.  [default: all]"),
    click.Option(["--workers"], type=click.IntRange(1), metavar="NUMBER",
        help="Share the rows out to so many processes, through Dask."),
    click.Option(["--scheduler"], metavar="ADDRESS",
        help="Of a Dask cluster whose workers see the same folder, as tcp://host:8786."),
    SEED, DEVICE, QUIET,
]
# fmt: on


@click.command(params=PARAMETERS)
def table1(
    out: Path, preset: str, only: str | None, workers: int | None, scheduler: str | None, quiet: bool,
    sets: str | None, **given: Any,
) -> None:  # fmt: skip
    """Paint the same faces by every method, in every style set, and measure all of it by one protocol.

    \b
    nst table1 --preset quick
    nst table1 --only adain,stytr2 --sets ink
    nst table1 --workers 2

    Nothing is done twice: a run that was stopped goes on, and a new method is painted alone. A method that
    fails is named in the table, and the exit status is 1 then.
    """
    chosen = {key: value for key, value in given.items() if value is not None}
    if sets:
        chosen["sets"] = tuple(_words(sets))
    settings = module.PRESETS[preset].changed(**chosen)
    if not settings.sets:
        raise SettingError("No style set is named: write --sets ink, for example.")
    table = module.run(
        out, settings, only=_words(only or ""), workers=workers or 0, scheduler=scheduler, progress=not quiet
    )
    click.echo((out / "table1.md").read_text(encoding="utf-8"))
    failed = table[table["metric"] == "failed"]
    for row in failed.itertuples():
        click.echo(f"nst: {row.title} failed on {row.style}: {row.note}", err=True)
    click.echo(f"done: {out / 'table1.md'}, table1.csv and table1.json, which says what each number is from")
    if len(failed):
        raise SystemExit(1)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
