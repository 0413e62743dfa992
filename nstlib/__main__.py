"""The command ``nst``: stylize a picture, run the course, look after the assets."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from . import __version__
from .errors import ImageError, NstError, OptimizationError, SettingError

# Heavy imports (torch, papermill) stay inside the commands, so that `nst --help` answers at once.


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nst")
def cli() -> None:
    """Neural style transfer for portraits: the course's command.

    \b
    nst hello                                  is everything here that the course needs?
    nst stylize face.jpg painting.jpg          a portrait in a painting's style
    nst course 01 --preset quick               run a notebook and write its figures
    nst assets list                            networks and pictures from outside
    """


@cli.command()
def hello() -> None:
    """Check Python, torch, device, memory, cache; say what to do about what is missing."""
    from .course.hello import hello as check

    sys.exit(0 if check(click.echo) else 1)


@cli.command(epilog="Ctrl-C stops and saves the picture reached so far.")
@click.argument("content", type=click.Path(path_type=Path))
@click.argument("style", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("stylized.png"),
    show_default=True,
    help="Picture to write: .png, .jpg or .webp; the settings are embedded in it.",
)
@click.option(
    "--size",
    type=click.IntRange(16, 4096),
    default=512,
    show_default=True,
    help="Longest side of the result in pixels (never larger than the content picture).",
)
@click.option(
    "--style-size",
    type=click.IntRange(16, 4096),
    default=None,
    help="Longest side of the style picture; smaller gives finer brush strokes.  [default: --size]",
)
@click.option(
    "--style-weight",
    type=click.FloatRange(0),
    default=None,
    help="How much style: 3 keeps the likeness, 100 lets it dissolve.  [default: 10]",
)
@click.option(
    "--iterations", type=click.IntRange(1), default=None, help="Steps of the optimizer.  [default: 150]"
)
@click.option(
    "--network",
    type=click.Choice(["vgg19", "vgg16", "alexnet"]),
    default=None,
    help="Network to look through.  [default: vgg19]",
)
@click.option("--optimizer", type=click.Choice(["lbfgs", "adam"]), default=None, help="[default: lbfgs]")
@click.option(
    "--init",
    type=click.Choice(["content", "noise", "style"]),
    default=None,
    help="Picture to start from.  [default: content]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the noise, when starting from noise."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto: bfloat16 where the hardware is good at it.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def stylize(
    content: Path, style: Path, output: Path, size: int, style_size: int | None, seed: int, device: str,
    precision: str, quiet: bool, **changes: Any,
) -> None:  # fmt: skip
    """Paint the picture CONTENT in the manner of the picture STYLE (Gatys et al. 2016).

    \b
    Example:  nst stylize data/portraits/collins.jpg data/paintings/starry_night.jpg -o out.png
    """
    from . import hardware, images
    from .methods import gatys

    hardware.keep_freed_memory()
    images.check_writable(output)  # before minutes of work, not after
    if output.exists() and any(output.samefile(path) for path in (content, style) if path.exists()):
        raise SettingError(f"'{output}' would overwrite a picture you give: choose another --output.")
    content_image = images.load_image(content, size=size)
    style_image = images.load_image(style, size=style_size or size)
    chosen = {name: value for name, value in changes.items() if value is not None}
    settings = gatys.Settings(**chosen)
    failed = None
    try:
        result = gatys.stylize(
            content_image, style_image, settings, seed=seed, device=device, precision=precision,
            progress=not quiet,
        )  # fmt: skip
    except OptimizationError as error:
        if error.result is None:
            raise
        failed, result = error, error.result
    saved = {"content_file": content.name, "style_file": style.name, "seed": seed, **result.describe()}
    try:
        images.save_image(result.image, output, settings=saved)
    except NstError as error:  # a disk that filled up meanwhile must not cost minutes of work
        rescue = Path(tempfile.gettempdir()) / f"rescued-{output.stem}.png"
        images.save_image(result.image, rescue, settings=saved)
        raise ImageError(f"{error} The picture is kept in '{rescue}'.") from error
    if failed is not None:
        raise OptimizationError(f"{failed} It is saved in '{output}'.") from failed
    height, width = result.image.shape[-2:]
    state = f"stopped after {len(result.history)} iterations" if result.interrupted else "done"
    click.echo(f"{state}: {output} ({width}×{height}), {result.seconds:.0f} s")


@cli.command()
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
@click.option(
    "--store", is_flag=True, help="For maintainers: write outputs and times back into the notebooks."
)
def course(
    notebooks: tuple[str, ...], preset: str, parameters: tuple[str, ...], force: bool,
    timeout: float | None, out: Path | None, store: bool,
) -> None:  # fmt: skip
    """Run notebooks headless and write their figures; unchanged ones are skipped.

    NOTEBOOKS are numbers, ranges or names (01, 01-02, 02_vgg16_vs_vgg19_layers); none means all.
    """
    from .course import runner

    given: dict[str, Any] = {}
    for item in parameters:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise SettingError(f"-p takes NAME=VALUE, not '{item}'.")
        given[name] = value
    runner.run_course(
        notebooks, preset=preset, parameters=given, force=force, timeout=timeout, out=out, store=store,
        echo=click.echo,
    )  # fmt: skip


@cli.group()
def assets() -> None:
    """Networks and pictures from outside: list, fetch, verify."""


@assets.command("list")
@click.option("--markdown", is_flag=True, help="The table as the README shows it.")
def assets_list(markdown: bool) -> None:
    """Show every asset: in the cache or not, size, licence, source."""
    from . import assets as door

    if markdown:
        click.echo(door.markdown_table(), nl=False)
        return
    click.echo(f"cache: {door.cache_dir()}")
    for line in door.status():
        mark = "cached" if line.cached else "-"
        click.echo(
            f"{line.name:<32} {mark:<7} {line.bytes / 2**20:8.1f} MiB  {line.licence:<34} {line.origin}"
        )


@assets.command("fetch")
@click.argument("names", nargs=-1, required=True)
def assets_fetch(names: tuple[str, ...]) -> None:
    """Fetch the named assets into the cache, and verify them."""
    from . import assets as door

    for name in names:
        door.info(name)  # a mistyped name is told before anything is downloaded
    for name in names:
        click.echo(f"{name}: {door.fetch(name)}")


@assets.command("verify")
@click.argument("names", nargs=-1)
def assets_verify(names: tuple[str, ...]) -> None:
    """Hold cached files to their digests; with no NAMES, all that are in the cache."""
    from . import assets as door

    results = door.verify(names or None)
    for name, good, message in results:
        click.echo(f"{'ok  ' if good else 'BAD '} {name:<32} {message}")
    if not results:
        click.echo("The cache is empty; `nst assets fetch vgg19` fills it.")
    sys.exit(0 if all(good for _, good, _ in results) else 1)


def main() -> None:
    """Run the command; an error this library foresees is one sentence on standard error, exit status 1."""
    # Threads that wait for each other spin; once another program wants one of the cores, they spin for one
    # that is not running, and a layer takes up to ten times as long. With less patience nothing is lost on an
    # idle machine. GNU's OpenMP reads it when torch is loaded; the kernels of `nst course` inherit it.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        # Not click's own standalone mode: it would turn Ctrl-C into "Aborted!" and exit status 1.
        status = cli(prog_name="nst", standalone_mode=False)
    except NstError as error:
        click.echo(f"nst: {error}", err=True)
        status = 1
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("nst: stopped.", err=True)
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
