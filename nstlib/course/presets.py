"""What a notebook may be told from outside: presets, and the values of its ``parameters`` cell."""

from __future__ import annotations

import ast
import contextlib
import functools
import operator
import os
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nstlib.errors import CourseError, SettingError, known

PRESETS = ("smoke", "quick", "paper")


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
    known("preset" if name == preset else "preset (NST_PRESET)", name, presets)
    settings = dict(presets[name])
    for key, value in overrides.items():
        known("setting", key, settings)
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


def check_parameters(given: Mapping[str, Any], parameters: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Hold given parameters to a notebook's own.

    Args:
        given: values by name; text is read as the parameter's type says: ``12``, ``yes``, ``1e-3``, or JSON
            (``[1, 2]``, ``null``).
        parameters: the type of each.
        where: the notebook's name, for the error.

    Returns:
        The values to inject.

    Raises:
        SettingError: a name the notebook does not have, or a value of another type.
    """
    kinds = {name: parameters[known(f"parameter of {where}", name, parameters)] for name in given}
    return {
        name: _checked(value, kinds[name], f"The parameter {name!r} of {where}", read_text=True)
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
