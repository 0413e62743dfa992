"""The one family of errors: each message is a sentence that says what to do."""

from __future__ import annotations

from typing import Any


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
