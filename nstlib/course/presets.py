"""What a notebook may be told from outside: presets, and the values of its ``parameters`` cell."""

from __future__ import annotations

import ast
import contextlib
import functools
import operator
import os
import typing
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nstlib.errors import CourseError, SettingError

PRESETS = ("smoke", "quick", "paper")


def suggest(name: str, known: Collection[str]) -> str:
    """A sentence that helps after a misspelt name: the closest known one, or all of them."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}."


def active_preset(preset: str) -> str:
    """The preset that counts: ``NST_PRESET`` of the environment wins over the one that is asked for."""
    return os.environ.get("NST_PRESET", "").strip() or preset


def resolve(
    presets: Mapping[str, Mapping[str, Any]], preset: str, overrides: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Choose a preset and lay the given values over it; a value of None leaves the preset's.

    Args:
        presets: settings of each preset; all must have the same keys.
        preset: the one to take, unless ``NST_PRESET`` names another.
        overrides: values given by the reader.

    Returns:
        The preset's name and its settings.

    Raises:
        SettingError: an unknown preset or setting, or a wrong type.
    """
    name = active_preset(preset)
    if name not in presets:
        origin = " (from NST_PRESET)" if name != preset else ""
        raise SettingError(f"There is no preset {name!r}{origin} here. {suggest(name, presets)}")
    settings = dict(presets[name])
    for key, value in overrides.items():
        if key not in settings:
            raise SettingError(f"There is no setting {key!r} here. {suggest(key, settings)}")
        if value is not None:
            kinds = [type(values[key]) for values in presets.values() if values[key] is not None]
            settings[key] = _checked(value, functools.reduce(operator.or_, kinds), f"The setting {key!r}")
    return name, settings


def read_parameters(source: str, where: str) -> dict[str, Any]:
    """The type of each parameter of a notebook, read without running it.

    Args:
        source: code of its parameters cell: lines such as ``size: int | None = 512``.
        where: the notebook's name, for the error.

    Raises:
        CourseError: the cell holds anything but annotated literals.
    """
    found = {}
    try:
        for line in ast.parse(source).body:
            if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value):
                raise ValueError(f"'{ast.unparse(line)}' is something else")
            ast.literal_eval(line.value)
            found[line.target.id] = eval(ast.unparse(line.annotation), dict(vars(typing)))
    except (SyntaxError, ValueError, TypeError, NameError) as error:
        raise CourseError(
            f"The parameters cell of {where} may only hold literals with their type, such as 'size: int = "
            f"512', and {error}: move everything else to a later cell."
        ) from error
    return found


def check_parameters(given: Mapping[str, Any], known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Hold given parameters to a notebook's own.

    Args:
        given: values by name; text is read as the parameter's type says: ``12``, ``yes``, ``1e-3``, or JSON
            (``[1, 2]``, ``null``).
        known: the type of each parameter.
        where: the notebook's name, for the error.

    Returns:
        The values to inject.

    Raises:
        SettingError: a name the notebook does not have, or a value of another type.
    """
    for name in given:
        if name not in known:
            raise SettingError(f"{where} has no parameter {name!r}. {suggest(name, known)}")
    return {
        name: _checked(value, known[name], f"The parameter {name!r} of {where}", read_text=True)
        for name, value in given.items()
    }


def _checked(value: Any, kind: Any, what: str, read_text: bool = False) -> Any:
    adapter = TypeAdapter(kind)
    tries: list[Callable[[], Any]] = [lambda: adapter.validate_python(value, strict=True)]
    if read_text and isinstance(value, str):
        tries += [lambda: adapter.validate_python(value), lambda: adapter.validate_json(value)]
    for attempt in tries:
        with contextlib.suppress(ValidationError):
            return attempt()
    shown = kind.__name__ if isinstance(kind, type) else kind
    raise SettingError(f"{what} is {value!r}: give it a value of type {shown}.")
