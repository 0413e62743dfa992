"""The command ``nst``: stylize a picture, measure pictures, run the course, look after the assets."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..errors import NstError, SettingError

# Heavy imports (torch, papermill) stay inside the commands, so that `nst --help` answers at once.


LAZY = {  # loaded when they are asked for, as they load torch
    "stylize": "Paint a picture or a film in a painting's style.",
    "measure": "Measure pictures against others: SSIM, LPIPS, FID ...",
    "train": "Train a network that paints in a style at once.",
}


class LazyGroup(click.Group):
    """A group that imports a command of :data:`LAZY` only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, loaded or not."""
        return sorted({*super().list_commands(ctx), *LAZY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now if it is a lazy one."""
        if cmd_name in LAZY and cmd_name not in self.commands:
            self.add_command(getattr(import_module(f".{cmd_name}", __package__), cmd_name))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help, which loads nothing."""
        with formatter.section("Commands"):
            shorts = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
            formatter.write_dl(sorted((shorts | LAZY).items()))


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="nst")
def cli() -> None:
    """Neural style transfer for portraits: the course's command.

    \b
    nst hello                                  is everything here that the course needs?
    nst stylize face.jpg painting.jpg          a portrait (or film) in a painting's style
    nst measure photos/ stylized/              how alike they are: SSIM, LPIPS, FID and more
    nst train johnson painting.jpg             a network that paints in this style at once
    nst course 01 --preset quick               run a notebook and write its figures
    nst assets list                            networks and pictures from outside
    """


@cli.command()
def hello() -> None:
    """Check Python, torch, device, memory, cache; say what to do about what is missing."""
    from ..course.hello import hello as check

    sys.exit(0 if check(click.echo) else 1)


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
    from ..course import runner

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
    from .. import assets as door

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
@click.option("--count", type=click.IntRange(1), default=60, show_default=True, help="faces: how many.")
@click.option("--size", type=click.IntRange(1), default=256, show_default=True, help="faces: pixels a side.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="faces: another, others.")
def assets_fetch(names: tuple[str, ...], count: int, size: int, seed: int) -> None:
    """Fetch the named assets into the cache, and verify them.

    The name "faces" draws a folder of portraits that are nobody's; it goes on where it was interrupted.
    """
    from .. import assets as door

    for name in names:
        if name != "faces":
            door.info(name)  # a mistyped name is told before anything is downloaded
    for name in names:
        if name == "faces":
            from ..faces import generated as faces
            from ..nets import hardware

            hardware.keep_freed_memory()
            click.echo(f"{name}: {faces.cached(count, size, seed)}")
        else:
            click.echo(f"{name}: {door.fetch(name)}")


@assets.command("verify")
@click.argument("names", nargs=-1)
def assets_verify(names: tuple[str, ...]) -> None:
    """Hold cached files to their digests; with no NAMES, all that are in the cache."""
    from .. import assets as door

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
