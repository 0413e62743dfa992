"""Options made from settings: each field with a description is one, with its choices and its default."""

from __future__ import annotations

import itertools
import typing
from pathlib import Path
from typing import Any, Literal

import click

from ..errors import Settings
from ..methods import METHODS, Method

# What several commands have in common.
SEED = click.Option(
    ["--seed"], type=click.IntRange(0, 2**32 - 1), metavar="NUMBER", default=0, show_default=True,
    help="Of everything random.",
)  # fmt: skip
DEVICE = click.Option(
    ["--device"], metavar="NAME", default="auto", show_default=True,
    help="What to compute on: auto, cpu, cuda, cuda:1, mps.",
)  # fmt: skip
QUIET = click.Option(["--quiet"], is_flag=True, help="No progress bar.")


class NumberOr(click.ParamType):
    """A number, or a word."""

    name = "number"

    def __init__(self, word: str, number: click.IntRange) -> None:
        self.word, self.number = word, number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or the word."""
        return value if value == self.word else self.number.convert(value, param, ctx)


class Grouped(click.Command):
    """A command whose help shows its options under headings."""

    def __init__(
        self, name: str | None = None, *, groups: dict[str, list[click.Option]], **rest: Any
    ) -> None:
        super().__init__(name, **rest)
        self.groups = groups
        self.params += itertools.chain(*groups.values())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Heading by heading; the help option under the last one."""
        last = self.get_help_option(ctx)
        for heading, options in self.groups.items():
            listed = [*options, last] if heading == list(self.groups)[-1] and last else options
            with formatter.section(heading):
                records = [option.get_help_record(ctx) for option in listed]
                formatter.write_dl([record for record in records if record], col_max=22)


def described(kind: type[Settings]) -> dict[str, Any]:
    """The fields with a description: those that the command shows."""
    return {
        name: field for name, field in getattr(kind, "__pydantic_fields__", {}).items() if field.description
    }


def stylize_fields(method: type[Method]) -> dict[str, Any]:
    """What ``nst stylize`` can set of a method: its options, and the settings of one that does not learn."""
    return ({} if method.presets else described(method.settings_class)) | described(method.options_class)


def _kinds(annotation: Any) -> list[Any]:
    """An annotation's types, without None, ranges and tuples."""
    if typing.get_origin(annotation) is Literal:
        return [annotation]
    parts = [kind for part in typing.get_args(annotation) for kind in _kinds(part)]
    return parts or [annotation]


def option(
    name: str, field: Any, default: Any = None, text: str | None = None, flag: str | None = None
) -> click.Option:
    """An option for a field of settings; its value goes to the settings as it was typed, which check it."""
    kinds = set(_kinds(field.annotation))
    literals = [typing.get_args(k) for k in kinds if typing.get_origin(k) is Literal]
    metavar = "FILE" if Path in kinds else "NUMBER" if {int, float} & kinds else "NAME"
    kind: dict[str, Any] = {"metavar": metavar}
    if literals:
        kind = {"type": click.Choice([str(choice) for choice in literals[0]])}
    default = field.get_default() if default is None else default
    value = f"{default:g}" if isinstance(default, float) else str(default)
    shown = "" if default in (None, (), "") else f"  [default: {value}]"
    flag = f"--{flag or name.replace('_', '-')}"
    return click.Option([flag, name], help=f"{text or field.description}{shown}", **kind)


def method_options(taken: set[str]) -> dict[str, list[click.Option]]:
    """Every method's own options by heading; one that several methods share stands under the first."""
    groups: dict[str, list[click.Option]] = {}
    for name, method in METHODS.items():
        for key, field in stylize_fields(method).items():
            if key not in taken:
                taken.add(key)
                others = {n: stylize_fields(m)[key] for n, m in METHODS.items() if key in stylize_fields(m)}
                texts = [
                    f.description if n == name else f"Of {n}: {f.description}" for n, f in others.items()
                ]
                groups.setdefault(f"Of {name}", []).append(option(key, field, text=" ".join(texts)))
    return groups
