"""The one family of errors, and settings that raise them: each message is a sentence that says what to do."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass


class NstError(Exception):
    """Base of every error this library raises on purpose; ``str(error)`` is a sentence for the user."""


class LeftOut(UserWarning):
    """Something that was given cannot be used: the command goes on without it, and its exit status is 1."""


class AssetError(NstError):
    """A network or picture cannot be downloaded, or is not the one it should be."""


class ImageError(NstError):
    """A picture cannot be read, is too large, or has values that are not allowed."""


class SettingError(NstError):
    """A parameter has an unknown name or a value that is not allowed."""


class OptimizationError(NstError):
    """An optimization cannot continue (its loss is not a number, say); ``result`` is what it reached."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class CourseError(NstError):
    """A notebook cannot be run, or its outputs are not those it should have."""


def known(what: str, name: Any, names: Collection[Any]) -> Any:
    """The name, if it is one of these.

    Raises:
        SettingError: it is not; the sentence lists them, and says which one may be meant.
    """
    if name in names:
        return name
    close = difflib.get_close_matches(str(name), map(str, names), 1, 0.4)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise SettingError(f"There is no {what} '{name}'{hint}: choose one of {', '.join(map(str, names))}.")


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]  # of a whole
Decay = Annotated[float, Field(ge=0, lt=1)]  # of a moving average; 0 takes none
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Settings:
    """Base of all settings: frozen dataclasses, each made by :func:`settings`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    __pydantic_fields__: ClassVar[dict[str, Any]]

    def changed(self, **values: Any) -> Self:
        """A copy with some values changed.

        Raises:
            SettingError: an unknown name, or a value that makes no sense.
        """
        return replace(self, **values)


Kind = TypeVar("Kind", bound=type[Settings])


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(cls: Kind) -> Kind:
    """Makes a class of settings a frozen dataclass whose values pydantic checks, with errors of ours.

    A field with a description, ``steps: Count = Field(1000, description="...")``, becomes an option of the
    command.

    Example:
        >>> @settings
        ... class Toy(Settings):
        ...     gain: Fraction = 0.5
        >>> Toy(gain=2.0)
        Traceback (most recent call last):
        nstlib.errors.SettingError: gain should be less than or equal to 1, not 2.0.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
    made: Any = dataclass(frozen=True, config=config)(cls)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, *args: Any, **values: Any) -> None:
        try:
            checked(self, *args, **values)
        except ValidationError as error:
            raise SettingError(_sentence(error, made)) from None

    made.__init__ = init
    return cast(Kind, made)


def _sentence(error: ValidationError, kind: type[Settings]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "unexpected_keyword_argument":
        unknown = sorted(str(one["loc"][0]) for one in error.errors() if one["type"] == first["type"])
        known = ", ".join(kind.__dataclass_fields__)
        return f"There is no setting {', '.join(map(repr, unknown))}: they are {known}."
    said = first["msg"].replace("Input", name, 1)
    return f"{said if name in said else f'{name}: {said}'}, not {first['input']!r}."
