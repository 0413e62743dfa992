"""What a notebook may be told from outside: presets, and the values of its ``parameters`` cell."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from nstlib.errors import CourseError, SettingError

PRESETS = ("smoke", "quick", "paper")

# YAML 1.1 reads 1e-3 as text, because it has no decimal point.
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "complex": (int, float, complex),
    "str": (str,),
    "bool": (bool,),
    "list": (list, tuple),
    "tuple": (list, tuple),
    "dict": (dict,),
}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: its name, its default, and its annotation as written."""

    name: str
    default: Any
    annotation: str | None


def suggest(name: str, known: Collection[str]) -> str:
    """A sentence that helps after a misspelt name: the closest known one, or all of them."""
    close = get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(sorted(known))}." if known else "None is known here."


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
        SettingError: an unknown preset or setting, presets that differ in their keys, or a wrong type.
    """
    name = active_preset(preset)
    keys = {key: set(values) for key, values in presets.items()}
    every = set().union(*keys.values())
    for key, present in keys.items():
        if present != every:
            missing = ", ".join(sorted(every - present))
            raise SettingError(f"The preset {key!r} lacks {missing}: give every preset the same settings.")
    if name not in presets:
        origin = " (from NST_PRESET)" if name != preset else ""
        raise SettingError(f"There is no preset {name!r}{origin} here. {suggest(name, presets)}")
    settings = dict(presets[name])
    for key, value in overrides.items():
        if key not in settings:
            raise SettingError(f"There is no setting {key!r} here. {suggest(key, settings)}")
        if value is None:
            continue
        examples = [values[key] for values in presets.values()]
        if not any(_fits(_hint_of(example), value) for example in examples):
            kind = type(next(example for example in examples if example is not None)).__name__
            raise SettingError(f"The setting {key!r} is {value!r}: give it a value of type {kind}.")
        settings[key] = value
    return name, settings


def read_parameters(source: str, where: str) -> dict[str, Parameter]:
    """Read the parameters cell of a notebook without running it.

    Args:
        source: the cell's code: assignments of literals.
        where: the notebook's name, for the error.

    Returns:
        The parameters by name, in the cell's order.

    Raises:
        CourseError: the cell holds anything but assignments of literals.
    """
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise CourseError(f"The parameters cell of {where} is not Python ({error}): correct it.") from error
    found: dict[str, Parameter] = {}
    for line in lines:
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            continue  # a docstring or a lone literal sets nothing
        target: ast.expr | None = line.target if isinstance(line, ast.AnnAssign) else None
        if isinstance(line, ast.Assign) and len(line.targets) == 1:
            target = line.targets[0]
        value = line.value if isinstance(line, ast.Assign | ast.AnnAssign) else None
        try:
            if not isinstance(target, ast.Name) or value is None:
                raise ValueError
            default = ast.literal_eval(value)
        except (ValueError, TypeError) as error:
            raise CourseError(
                f"The parameters cell of {where} has {ast.unparse(line)!r}: it may only assign literals, "
                "so move everything else to a later cell."
            ) from error
        hint = ast.unparse(line.annotation) if isinstance(line, ast.AnnAssign) else None
        found[target.id] = Parameter(target.id, default, hint)
    return found


def check_parameters(given: Mapping[str, Any], known: Mapping[str, Parameter], where: str) -> dict[str, Any]:
    """Hold given parameters to a notebook's parameters cell; text is read as YAML.

    Args:
        given: values by name; a string is parsed as YAML (``[1, 2]``, ``yes``, ``null``, ``1e-3``).
        known: the notebook's parameters.
        where: the notebook's name, for the error.

    Returns:
        The values to inject.

    Raises:
        SettingError: a name the notebook does not have, or a value of another type.
    """
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise SettingError(f"{where} has no parameter {name!r}. {suggest(name, known)}")
        parameter = known[name]
        hint = _hint_of(parameter.default)
        if parameter.annotation is not None:
            hint = ast.parse(parameter.annotation, mode="eval").body
        for candidate in _readings(value):
            if _fits(hint, candidate):
                checked[name] = candidate
                break
        else:
            kind = parameter.annotation or type(parameter.default).__name__
            raise SettingError(
                f"The parameter {name!r} of {where} is {value!r}: give it a value of type {kind} "
                f"(the notebook's own is {parameter.default!r})."
            )
    return checked


def _readings(value: Any) -> list[Any]:
    """What a given value may mean, the likeliest first: YAML's, numbers like 1e-3, the text itself."""
    if not isinstance(value, str):
        return [value]
    import yaml

    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        return [value]
    return [parsed, _with_exponents(parsed), value]


def _with_exponents(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_exponents(item) for item in value]
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


def _hint_of(default: Any) -> ast.expr | None:
    """The annotation a default stands for when none is written; None leaves it open."""
    return None if default is None else ast.Name(type(default).__name__)


def _fits(hint: ast.expr | None, value: Any) -> bool:
    """Whether a value agrees with an annotation; an annotation that is not known here lets all pass."""
    if isinstance(hint, ast.Constant):
        if isinstance(hint.value, str):  # a quoted annotation
            return _fits(ast.parse(hint.value, mode="eval").body, value)
        return hint.value is None and value is None
    if isinstance(hint, ast.BinOp):
        return _fits(hint.left, value) or _fits(hint.right, value)
    if isinstance(hint, ast.Subscript):
        outer = hint.value.attr if isinstance(hint.value, ast.Attribute) else getattr(hint.value, "id", "")
        inner = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
        if outer == "Optional":
            return value is None or _fits(inner[0], value)
        if outer == "Union":
            return any(_fits(item, value) for item in inner)
        if outer == "Literal":
            return any(isinstance(item, ast.Constant) and item.value == value for item in inner)
        if outer.lower() in ("list", "sequence"):
            return isinstance(value, list | tuple) and all(_fits(inner[0], item) for item in value)
        return _fits(ast.Name(outer.lower()), value)
    kinds = _PLAIN.get(getattr(hint, "id", ""))
    if kinds is None:
        return True
    # bool is an int to Python, never to a reader
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
