"""The command ``nst measure``: how far pictures are from others, in numbers that say how they came about."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..metrics import measure as module
from ..metrics.protocol import DEFAULT, METRICS, Protocol
from ..metrics.table import ENDINGS
from ..pictures.files import check_writable, list_pictures, readable
from .options import DEVICE, QUIET, NumberOr, described, option

SHOWN = 10  # problems on the terminal; the tables name all


FIELDS = described(Protocol)

# fmt: off
PARAMETERS = [
    click.Argument(["a"], type=click.Path(path_type=Path)),
    click.Argument(["b"], type=click.Path(path_type=Path)),
    click.Option(["--metrics"], metavar="NAME,...|all",
        help=f"Of {', '.join(METRICS)}.  [default: {','.join(DEFAULT.metrics)}; of two files no fid]"),
    click.Option(["--size", "resolution"], type=NumberOr("original", click.IntRange(16, 4096)),
        default=DEFAULT.resolution, show_default=True, metavar="PIXELS|original",
        help=FIELDS["resolution"].description),
    click.Option(["--pairs"], type=click.Choice(["name", "order", "none"]),
        help="Who is compared with whom: names without ending, first with first, or sets only.  "
        "[default: name; order of two files]"),
    option("lpips_backbone", FIELDS["lpips_backbone"], flag="lpips"),
    *(option(name, FIELDS[name]) for name in ("crop", "ssim_window", "fid_resize", "seed")),
    click.Option(["-o", "--out", "outs"], type=click.Path(path_type=Path), multiple=True, metavar="FILE",
        help="Write all of it, every picture too, as .csv, .json or .md; may be repeated."),
    DEVICE,
    click.Option(["--batch"], type=click.IntRange(1), default=8, show_default=True, metavar="NUMBER",
        help="Pictures at a time: more is faster on a GPU and takes more memory."),
    QUIET,
]
# fmt: on


@click.command(params=PARAMETERS)
def measure(
    a: Path, b: Path, metrics: str | None, resolution: Any, pairs: Any, outs: tuple[Path, ...], device: str,
    batch: int, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    """Measure the pictures of folder (or the picture) B against those of A.

    \b
    nst measure photos/ stylized/ --metrics ssim,lpips,fid -o table.md -o table.json
    nst measure face.jpg stylized.png --metrics all
    nst measure paintings/ stylized/ --metrics fid,kid --pairs none

    Tables carry the hash of the protocol (all these settings but device and batch) and of the pictures:
    numbers of different protocols cannot be compared. What cannot be measured is named, and the exit status
    is 1 then; Ctrl-C keeps what was measured.
    """
    two_files = a.is_file() and b.is_file()
    names = tuple(name.strip().lower() for name in (metrics or "").split(",") if name.strip())
    if metrics is None:
        names = tuple(name for name in DEFAULT.metrics if not (two_files and METRICS[name].of_sets))
    protocol = Protocol(
        metrics=tuple(METRICS) if names == ("all",) else names,
        pairs=pairs or ("order" if two_files else "name"),
        resolution=None if resolution == "original" else resolution,
        **{name: value for name, value in given.items() if value is not None},
    )
    for out in outs:  # before minutes of work, not after
        check_writable(out, ENDINGS)
    listed = [path for side in (a, b) if side.is_dir() for path in list_pictures(side)]
    left_out = {*listed} - {*readable(listed)} if listed else set()  # named now, not after minutes of work
    result = module.measure(a, b, protocol, device=device, batch=batch, progress=not quiet)
    try:
        for out in outs:
            result.save(out)
    finally:
        click.echo(result.summary_markdown())
    problems = [problem.reason for problem in result.problems if Path(problem.file) not in left_out]
    if len(problems) > SHOWN:
        where = f"'{outs[0]}' names all" if outs else "a table (--out table.md) names all"
        problems[SHOWN:] = [f"and {len(problems) - SHOWN} problems more; {where}."]
    for text in (*result.notes, *problems):
        click.echo(f"nst: {text}", err=True)
    count = f"{result.counts[0]} and {result.counts[1]} pictures"
    if protocol.of_pairs:
        count = f"{len(result.rows)} pair{'' if len(result.rows) == 1 else 's'}"
    state = "stopped" if result.interrupted else "done"
    hashes = f"protocol {result.protocol.hash}, pictures {result.pictures}"
    click.echo(f"{state}: {count}, {result.seconds:.0f} s; {', '.join([hashes, *map(str, outs)])}")
    sys.exit(130 if result.interrupted else 1 if result.problems else 0)
