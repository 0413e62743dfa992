"""Files and folders that appear under their final name whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from nstlib.errors import ImageError


def reason(error: BaseException) -> str:
    """The shortest telling text of an error."""
    text = str(getattr(error, "strerror", None) or error)
    return text.split("\n")[0].rstrip(".") or type(error).__name__


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, for a file or a folder; it takes its place when the block ends well.

    The parent folder is made where it is missing. An error in the block, or a block that leaves nothing at
    the temporary path, leaves ``path`` as it was.

    Raises:
        ImageError: the path cannot be written.

    Example:
        >>> with atomic("table.csv") as part:                  # doctest: +SKIP
        ...     frame.to_csv(part)
    """
    path = Path(path)
    # In the same folder, because only within one disk is renaming one step; with the same ending, because
    # some writers choose the format by it.
    part = path.parent / f".nst-{secrets.token_hex(6)}.part{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if os.path.lexists(part):
            os.replace(part, path)
    except (OSError, ValueError) as error:
        why, do = reason(error), "choose another name or folder"
        if getattr(error, "errno", None) in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            why, do = "the disk is full", "free some space and save again"
        elif isinstance(error, FileExistsError | NotADirectoryError):
            why = f"'{path.parent}' is no folder"
        elif os.path.isdir(path):  # the system says this in many ways
            why = "it is the name of a folder"
        raise ImageError(f"'{path}' is not saved because {why}: {do}.") from error
    finally:
        if os.path.isdir(part):
            shutil.rmtree(part, ignore_errors=True)
        else:
            with contextlib.suppress(OSError, ValueError):
                part.unlink()


def write_atomic(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a file whole or not at all.

    Raises:
        ImageError: the path cannot be written.
    """
    with atomic(path) as part:
        part.write_bytes(content)
