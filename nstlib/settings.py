"""What all settings have in common: they are frozen, changed by name into a copy, and checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from .errors import SettingError


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
