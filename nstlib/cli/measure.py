"""The command ``nst measure``: how far pictures are from others, in numbers that say how they came about."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import NstError, SettingError

if TYPE_CHECKING:
    from ..metrics.table import Measurement

# Heavy imports (torch) stay inside the functions, so that `nst --help` answers at once; hence these copies.
METRICS = ("mse", "psnr", "ssim", "lpips", "identity", "content", "style", "fid", "kid")
DEFAULT_METRICS = ("mse", "psnr", "ssim", "lpips", "fid")
OF_SETS = ("fid", "kid")
SHOWN = 10  # problems on the terminal; the tables name all


class _Size(click.ParamType):
    """A number of pixels, or "original"."""

    name = "PIXELS|original"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        return None if value in ("original", None) else click.IntRange(16, 4096).convert(value, param, ctx)


@click.command(short_help="Measure pictures against others: SSIM, LPIPS, FID ...")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--metrics",
    metavar="NAME,...|all",
    help=f"Of {', '.join(METRICS)}.  [default: {','.join(DEFAULT_METRICS)}; of two files no fid]",
)
@click.option(
    "--size", type=_Size(), default="256", show_default=True, metavar="PIXELS|original",
    help="Side that all pictures are brought to, or original.",
)  # fmt: skip
@click.option(
    "--crop", type=click.Choice(["center", "none"]), default="center", show_default=True,
    help="Cut out the largest central square, or keep the proportions.",
)  # fmt: skip
@click.option(
    "--pairs", type=click.Choice(["name", "order", "none"]), default=None,
    help="Who is compared with whom: names without ending, first with first, or sets only.  "
    "[default: name; order of two files]",
)  # fmt: skip
@click.option(
    "--ssim-window", type=click.Choice(["gaussian", "uniform"]), default="gaussian", show_default=True,
    help="The window of SSIM: Gaussian (Wang et al. 2004), or uniform, scikit-image's default.",
)  # fmt: skip
@click.option(
    "--lpips", "lpips_backbone", type=click.Choice(["alexnet", "vgg16"]), default="alexnet",
    show_default=True, help="The network LPIPS looks through.",
)  # fmt: skip
@click.option(
    "--fid-resize", type=click.Choice(["antialiased", "tensorflow"]), default="antialiased",
    show_default=True, help="How pictures come to Inception's 299 px: clean-fid's way, or the first FID's.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, metavar="NUMBER",
    help="Of the resamples for the intervals.",
)  # fmt: skip
@click.option(
    "-o", "--out", "outs", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="Write all of it, every picture too, as .csv, .json or .md; may be repeated.",
)  # fmt: skip
@click.option(
    "--device", default="auto", show_default=True, metavar="NAME",
    help="What to compute on: auto, cpu, cuda, cuda:1, mps.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, metavar="NUMBER",
    help="Pictures at a time: more is faster on a GPU and takes more memory.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress bar.")
def measure(
    a: Path, b: Path, metrics: str | None, size: int | None, pairs: str | None, outs: tuple[Path, ...],
    device: str, batch: int, quiet: bool, **options: Any,
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
    names = _metrics(metrics, two_files)
    from ..metrics.protocol import Protocol
    from ..metrics.table import check_ending

    protocol = Protocol(
        metrics=names, resolution=size, pairs=pairs or ("order" if two_files else "name"), **options
    )
    for out in outs:
        check_ending(out)
        if out.is_dir():
            raise SettingError(f"'{out}' is a folder: name a file in it, for example '{out / 'table.md'}'.")
        _check_writable(out)
    from ..metrics.measure import measure as measured

    result = measured(a, b, protocol, device=device, batch=batch, progress=not quiet)
    click.echo(result.summary_markdown())
    for note in result.notes:
        _note(note)
    for _, reason in result.problems[:SHOWN]:
        _note(reason)
    if len(result.problems) > SHOWN:
        where = f"'{outs[0]}' names all" if outs else "a table (--out table.md) names all"
        _note(f"and {len(result.problems) - SHOWN} problems more; {where}.")
    failed = _write(result, outs)
    state = "stopped" if result.interrupted else "done"
    click.echo(
        f"{state}: {_count(result)}, {result.seconds:.0f} s; protocol {result.protocol.hash}, "
        f"pictures {result.pictures}{''.join(f', {out}' for out in outs) if failed is None else ''}"
    )
    if failed is not None:
        raise failed
    sys.exit(130 if result.interrupted else 1 if result.problems else 0)


def _metrics(asked: str | None, two_files: bool) -> tuple[str, ...]:
    if asked is None:
        return tuple(name for name in DEFAULT_METRICS if not (two_files and name in OF_SETS))
    if asked.strip() == "all":
        return METRICS
    return tuple(name.strip().lower() for name in asked.split(",") if name.strip())


def _check_writable(out: Path) -> None:
    """Find out before minutes of work, not after, whether a table can be written there."""
    from ..assets.writing import write_atomic

    probe = out.with_name(f".{out.name}.probe")
    write_atomic(probe, memoryview(b""))
    probe.unlink()


def _count(result: Measurement) -> str:
    if result.protocol.of_pairs:
        return f"{len(result.rows)} pair{'' if len(result.rows) == 1 else 's'}"
    return f"{result.counts[0]} and {result.counts[1]} pictures"


def _write(result: Measurement, outs: tuple[Path, ...]) -> NstError | None:
    """Write the tables, one that fails elsewhere; the error to raise in the end."""
    failed: NstError | None = None
    for out in outs:
        try:
            result.save(out)
        except NstError as error:  # a disk that filled up meanwhile must not cost minutes of work
            rescue = Path(tempfile.gettempdir()) / f"rescued-{out.name}"
            try:
                result.save(rescue)
            except NstError:
                failed = error
            else:
                failed = type(error)(f"{error} The table is kept in '{rescue}'.")
    return failed


def _note(text: str) -> None:
    click.echo(f"nst: {text}", err=True)
