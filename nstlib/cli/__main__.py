"""The command ``nst``: stylize a picture, measure pictures, run the course, look after the assets."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from typing import Any

import click

from .. import __version__
from ..errors import LeftOut, NstError

# Name: the module that holds the command, and a word about it for the help. A module is imported only when
# its command is asked for: most of them load torch.
COMMANDS = {
    "hello": ("course", "Check Python, packages, device, memory, cache; say what to do."),
    "stylize": ("stylize", "Paint a portrait (or film) in a style, by any method of the course."),
    "measure": ("measure", "Measure how alike pictures or sets of pictures are."),
    "train": ("train", "Train a network to paint in a style."),
    "table1": ("table1", "Compare all methods by one protocol: paper E's Table 1."),
    "study": ("study", "Ask people which pictures they like better, and analyze their answers."),
    "course": ("course", "Run notebooks headless and write their figures."),
    "assets": ("assets", "Networks and pictures from outside: list, fetch, verify."),
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now; None where there is none."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__)
            self.add_command(getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


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
    nst table1 --preset quick                  all methods compared by one protocol
    nst study table1                           a page that asks people which pictures they prefer
    nst course 01 --preset quick               run a notebook and write its figures
    nst assets list                            networks and pictures from outside
    """


class Unbroken(io.FileIO):
    """A pipe that goes on where nobody reads (``| true``): what is printed is lost, the work is not."""

    def write(self, data: Any) -> int:
        """Write, or do as if."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def main() -> None:
    """Run the command; an error this library foresees is one sentence on standard error, exit status 1."""
    # Threads that wait for each other spin; once another program wants one of the cores, they spin for one
    # that is not running, and a layer takes up to ten times as long. With less patience nothing is lost on an
    # idle machine. GNU's OpenMP reads it when torch is loaded; the kernels of `nst course` inherit it.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by `2>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that lacks "↓" or "×" gets "?", no traceback
            if not stream.isatty():
                pipe = io.BufferedWriter(Unbroken(stream.fileno(), "wb", closefd=False))
                setattr(sys, name, io.TextIOWrapper(pipe, stream.encoding, "replace", line_buffering=True))
    # A warning is a sentence here, without the line of code that it comes from.
    warnings.formatwarning = lambda message, *_, **__: f"nst: {message}\n"
    show, left_out = warnings.showwarning, []

    def noted(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        left_out.append(issubclass(category, LeftOut))
        show(message, category, *where, **options)

    warnings.showwarning = noted
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
    sys.exit((status if isinstance(status, int) else 0) or int(any(left_out)))


if __name__ == "__main__":
    main()
