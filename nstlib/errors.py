"""The one family of errors: each message is a sentence that says what to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Self


class NstError(Exception):
    """Base of every error this library raises on purpose; ``str(error)`` is meant for the reader's eyes."""


class AssetError(NstError):
    """A network or picture from outside cannot be had, or is not what it should be."""


class ImageError(NstError):
    """A picture cannot be read, is too large, or has values that no picture has."""


class SettingError(NstError):
    """A parameter has a name or a value that is not known here."""


class OptimizationError(NstError):
    """An optimization cannot go on (a loss that is not a number, for example); ``result`` is what it had."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class CourseError(NstError):
    """A notebook cannot be run, or did not keep what it promised."""


@dataclass(frozen=True)
class Changeable:
    """A frozen dataclass of settings; a child checks its values in ``__post_init__``."""

    def changed(self, **values: Any) -> Self:
        """A copy with some values changed.

        Raises:
            SettingError: an unknown name, or a value that makes no sense.
        """
        known = [field.name for field in fields(self)]
        unknown = sorted(values.keys() - set(known))
        if unknown:
            raise SettingError(
                f"There is no setting {', '.join(map(repr, unknown))}: they are {', '.join(known)}."
            )
        return replace(self, **values)

    def _not_negative(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SettingError(f"{name} is {value}, but must be 0 or more.")

    def _positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SettingError(f"{name} is {value}, but must be above 0.")

    def _counted(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}, but must be 1 or more.")
