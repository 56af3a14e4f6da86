"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fastdl.errors import InputError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` only when the block ends without an error.

    It is written beside `path`, flushed to the disk, and renamed: whenever the process or the machine ends, `path` holds all of
    the old content or all of the new.

    Raises
    ------
    InputError : it cannot be written, as the folder is read-only or the disk full; what `path` held before is still there
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target}: expected the name of a file to write, found a folder there")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(
            f"{target}: cannot write there ({error.strerror}); name a folder that exists and is writable"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error}); make room there or name another folder"
        ) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def remove_unfinished(target: Path) -> None:
    """Remove what processes that were killed while they wrote to `target` have left beside it.

    Nobody may be writing to `target` meanwhile.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        with contextlib.suppress(OSError):
            left.unlink()


def _flush_folder(folder: Path) -> None:
    """Have the disk know of a file's new name, where the system can."""
    with contextlib.suppress(OSError):  # some file systems, and Windows, cannot flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
