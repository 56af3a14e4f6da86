"""Bytes of a file, unpacked where it is compressed: gzip, xz, bzip2, zstandard, and zip or tar archives of one file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from fastdl.errors import InputError, MissingExtraError
from fastdl.tables.text import listed

GZIP, ZIP, XZ, BZ2, ZSTD = b"\x1f\x8b", b"PK", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"
_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError)
_IGNORED = ("__MACOSX/", ".DS_Store")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file as a stream, unpacked by what its first bytes say.

    Raises
    ------
    InputError : the file cannot be read, is truncated or altered, or is an archive of several files
    MissingExtraError : it is compressed with zstandard, and the package for that is not installed
    """
    with contextlib.ExitStack() as stack:
        try:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
            head = file.read(8)
            file.seek(0)
            if head.startswith(GZIP):
                file = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=file)))
            elif head.startswith(XZ):
                file = stack.enter_context(lzma.LZMAFile(file))
            elif head.startswith(BZ2):
                file = stack.enter_context(bz2.BZ2File(file))
            elif head.startswith(ZSTD):
                file = stack.enter_context(_zstd(path, file))
            elif head.startswith(ZIP):
                file = stack.enter_context(_member_of_zip(path, stack.enter_context(zipfile.ZipFile(file))))
            buffered: Any = stack.enter_context(io.BufferedReader(cast(Any, file), 1 << 20))
            # The mark of tar stands in the 258th byte.
            if buffered.peek(512)[257:262] == b"ustar":
                buffered = stack.enter_context(_member_of_tar(path, buffered))
        except _ERRORS as error:
            raise _unreadable(path, error) from error
        yield _Guarded(path, buffered)  # type: ignore[misc]


class _Guarded:
    """A stream whose errors are sentences."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all of them unless the stream ends."""
        try:
            return self._file.read(size)
        except _ERRORS as error:
            raise _unreadable(self._path, error) from error


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where it is compressed."""
    with opened(path) as file:
        return file.read()


def head_of(path: Path, size: int) -> bytes:
    """The first bytes of what a file holds."""
    with opened(path) as file:
        return file.read(size)


def members_of_zip(path: Path) -> list[str]:
    """The names of the files in a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _files(archive.namelist())
    except _ERRORS as error:
        raise _unreadable(path, error) from error


def _files(names: list[str]) -> list[str]:
    return [n for n in names if not n.endswith("/") and not any(word in n for word in _IGNORED)]


def _member_of_zip(path: Path, archive: zipfile.ZipFile) -> IO[bytes]:
    return archive.open(_only(path, _files(archive.namelist())))


def _member_of_tar(path: Path, file: IO[bytes]) -> IO[bytes]:
    # The archive is small enough to be looked through: its members lie one behind the other.
    archive = tarfile.open(fileobj=io.BytesIO(file.read()))  # noqa: SIM115
    names = _files([member.name for member in archive.getmembers() if member.isfile()])
    member = archive.extractfile(_only(path, names))
    assert member is not None
    return member


def _only(path: Path, names: list[str]) -> str:
    if len(names) != 1:
        raise InputError(
            f"{path}: expected an archive of one table, got {len(names)} files: {listed(names, 10)}; "
            f"unpack it and name the files that belong together"
        )
    return names[0]


def _zstd(path: Path, file: IO[bytes]) -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]

        return zstd.ZstdFile(file)
    except ImportError:
        pass
    try:
        import zstandard  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtraError(
            f'{path}: reading zstandard files needs zstandard, which is not installed: pip install "fastdl[tables]"'
        ) from error
    return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return InputError(f"{path}: cannot be read ({error.strerror})")
    return InputError(f"{path}: expected a whole compressed file, got one that is truncated or altered ({error})")
