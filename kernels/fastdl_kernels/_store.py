"""Where compiled code is kept: in the installed package, and in a folder of the user's.

A file holds the machine code of one function for one kind of processor. Its place is made of a hash of the sources, the
versions of the compilers and the name of the processor's kind, not of paths or times: the folder may be copied to another
path, another user or another machine of the kind, may be read-only, and is shared by any number of processes (files are
written aside and then renamed). The first line says what is needed to load it, with a hash of the rest.

Code is loaded only from the package itself and from a folder that belongs to the user (or to root) and that nobody else may
write to. What does not fit its hash is not loaded: one line says so, and it is compiled again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import numba

FORMAT = 1
PACKAGED = Path(__file__).parent / "native"
"""Prebuilt code of the installed package, a folder for each target."""
VARIABLE = "FASTDL_CACHE_DIR"
SUFFIX = ".code"
# Versions of the sources or the compilers beyond so many, or unused for so long, make room when another one comes.
MOST_VERSIONS, MOST_SECONDS = 8, 60 * 24 * 3600
_DAY = 24 * 3600


@dataclass(frozen=True)
class Code:
    """Machine code: an object file, the function in it, and the symbols that must be there to load it."""

    object: bytes
    symbol: str
    needs: tuple[str, ...]


def folder() -> Path:
    """The user's folder: FASTDL_CACHE_DIR, or `fastdl` in NUMBA_CACHE_DIR, or in the user's folder for caches."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    if numbas := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(numbas).expanduser() / "fastdl"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fastdl"


def version(sources: str) -> str:
    """The folder of one state of the sources, by one version of the compilers."""
    return f"{sources[:20]}-numba-{numba.__version__}-llvmlite-{llvmlite.__version__}"


@functools.cache
def say(sentence: str) -> None:
    """One line on stderr, once in a process."""
    print(f"fastdl: {sentence}", file=sys.stderr)


def distrust(path: Path) -> str | None:
    """Why code is not loaded from a file or folder, or None: it must be ours or root's, and nobody else may write to it."""
    if os.name != "posix":
        return None
    try:
        status = path.stat()
    except OSError as error:
        return error.strerror or "cannot be read"
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to another user ({status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written to by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None


@functools.cache
def is_trusted(root: Path) -> bool:
    """Whether code may be loaded from a folder and kept in it; one line says why not."""
    if not root.exists():
        return True
    why = distrust(root)
    if why is not None:
        say(f"no compiled code is kept in {root}, which {why}; use chmod 700, or another {VARIABLE}")
    return why is None


def encode(code: Code, sources: str) -> bytes:
    """The content of a file; the same for the same code."""
    head = {
        "format": FORMAT,
        "needs": list(code.needs),
        "sha256": hashlib.sha256(code.object).hexdigest(),
        "sources": sources,
        "symbol": code.symbol,
    }
    return json.dumps(head, sort_keys=True).encode() + b"\n" + code.object


def reference(target: str) -> bytes:
    """The content of a file whose code is the same for another target of the same package."""
    return json.dumps({"format": FORMAT, "see": target}).encode() + b"\n"


def decode(data: bytes, sources: str) -> Code | None:
    """What a file holds; None for another state of the sources, ValueError for anything that is not as it was written."""
    line, _, rest = data.partition(b"\n")
    head = json.loads(line)
    if not isinstance(head, dict):
        raise ValueError("no header")
    if head.get("format") != FORMAT or head.get("sources") != sources:
        return None
    if hashlib.sha256(rest).hexdigest() != head["sha256"]:
        raise ValueError("its hash is another one")
    return Code(rest, str(head["symbol"]), tuple(map(str, head["needs"])))


def _read(path: Path, sources: str, ours: bool) -> Code | None:
    try:
        if ours and distrust(path) is not None:
            raise ValueError(f"it {distrust(path)}")
        data = path.read_bytes()
        line, _, rest = data.partition(b"\n")
        if not ours and not rest:
            data = (path.parent.parent / str(json.loads(line)["see"]) / path.name).read_bytes()
        return decode(data, sources)
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        say(f"{path} is not used, and compiled again: {error}")
        return None


class Store:
    """The code of functions whose sources have one hash, for the kinds of processors in `targets`, the best first."""

    def __init__(self, sources: str, targets: list[str]) -> None:
        self.sources, self.targets = sources, targets

    def _places(self) -> list[tuple[Path, bool]]:
        """(folder, whether it is the user's), in the order in which code is looked for."""
        own = folder()
        ours = [own / version(self.sources) / target for target in self.targets] if is_trusted(own) else []
        exact, others = ours[:1], ours[1:]
        packaged = [PACKAGED / target for target in self.targets[1:] or self.targets]
        return [*((path, True) for path in exact), *((path, False) for path in packaged), *((p, True) for p in others)]

    def find(self, name: str) -> Code | None:
        """The code of a function, or None."""
        for place, ours in self._places():
            path = place / (name + SUFFIX)
            code = _read(path, self.sources, ours) if path.exists() else None
            if code is not None:
                if ours:
                    _touch(place.parent)
                return code
        return None

    def holds(self, name: str) -> bool:
        """Whether there is a file for a function."""
        return any((place / (name + SUFFIX)).exists() for place, _ in self._places())

    def save(self, name: str, code: Code) -> None:
        """Keep the code of a function; where nothing can be written, nothing is."""
        own = folder()
        if not is_trusted(own):
            return
        place = own / version(self.sources) / self.targets[0]
        with contextlib.suppress(OSError):
            if not place.parent.exists():
                clean(keep=place.parent.name)
            write(place / (name + SUFFIX), encode(code, self.sources))


def make_folder(path: Path) -> None:
    """The folder and those above it, as far as they are not there: for the user alone."""
    for folder_ in (*reversed(path.parents), path):
        if not folder_.exists():
            with contextlib.suppress(FileExistsError):
                folder_.mkdir(mode=0o700)


def write(path: Path, data: bytes) -> None:
    """The file in one piece."""
    make_folder(path.parent)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


@functools.cache
def _touch(path: Path) -> None:
    """Note that a version is in use, once a day."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)


def versions() -> list[Path]:
    """The folders of all versions, the one that was used last first."""
    try:
        found = [path for path in folder().iterdir() if "-numba-" in path.name and path.is_dir()]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []


def clean(keep: str = "", everything: bool = False) -> int:
    """Remove versions that nobody has used for long; how many there were."""
    now, removed = time.time(), 0
    for place, path in enumerate(versions()):
        with contextlib.suppress(OSError):
            old = everything or place >= MOST_VERSIONS or now - path.stat().st_mtime > MOST_SECONDS
            if old and path.name != keep:
                shutil.rmtree(path)
                removed += 1
    return removed


def contents() -> dict[str, Any]:
    """What the user's folder holds: its path, bytes, files, versions, and what keeps it from being used."""
    root = folder()
    files = [path for path in root.rglob("*") if path.is_file()] if root.exists() else []
    nearest = next(path for path in (root, *root.parents) if path.exists())
    return {
        "folder": root,
        "bytes": sum(path.stat().st_size for path in files),
        "files": len(files),
        "versions": len(versions()),
        "writable": os.access(nearest, os.W_OK | os.X_OK),
        "distrust": distrust(root) if root.exists() else None,
    }
