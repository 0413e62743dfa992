"""Files and folders that appear under their final name whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from nstlib.errors import ImageError


def reason(error: BaseException) -> str:
    """The shortest telling text of an error."""
    text = str(getattr(error, "strerror", None) or error)
    return text.split("\n")[0].rstrip(".") or type(error).__name__


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, for a file or a folder; it takes its place when the block ends well.

    The parent folder is made where it is missing. An error in the block, or a block that leaves nothing at
    the temporary path, leaves ``path`` as it was. What a killed process has left goes with the next writing.

    Raises:
        ImageError: the path cannot be written.

    Example:
        >>> with atomic("table.csv") as part:                  # doctest: +SKIP
        ...     frame.to_csv(part)
    """
    path = Path(path)
    # In the same folder, because only within one disk is renaming one step; with the same ending, because
    # some writers choose the format by it; a name for each process, so that two of them may write the file.
    part = path.parent / f".nst-{os.getpid()}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".nst-*-{glob.escape(path.name)}"):
            if left == part or not psutil.pid_exists(int(left.name.split("-")[1])):  # of a killed process
                remove(left)
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
        with contextlib.suppress(OSError, ValueError):
            remove(part)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a file whole or not at all.

    Raises:
        ImageError: the path cannot be written.
    """
    with atomic(path) as part:
        part.write_bytes(content)
