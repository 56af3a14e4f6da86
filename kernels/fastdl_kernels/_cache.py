"""What Numba compiles of the kernels for a user's own functions, kept on disk beside the machine code of `_store`.

Numba's own cache notices an edit in the file of the function itself only, and looks for files by the path of the sources; a
changed helper, constant or tile size would go on returning results of the old code. Here files lie in a folder that is named
after `build_id`, a hash of all kernel sources, so that any edit recompiles what depends on it, and a copy of the folder is as
good. A damaged or unwritable cache costs time, never an error.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.runtime import rtsys

from fastdl_kernels import _store


@functools.cache
def build_id(folder: str) -> str:
    """A hash of the sources in `folder` and of this package: what compiled code depends on besides the processor."""
    here = Path(__file__).parent
    sources = {path for base in (here, Path(folder)) for path in base.rglob("*.py")}
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class _Files(FunctionCache):
    """Numba's cache of a function, in a folder of ours."""

    def __init__(self, py_func: Callable[..., Any], place: Path, stamp: str) -> None:
        self._name, self._py_func = repr(py_func), py_func
        self._impl = object.__new__(
            CompileResultCacheImpl
        )  # made the usual way, it looks for a folder by the path of the source
        name = f"{py_func.__module__}.{py_func.__qualname__}-{sys.version_info[0]}{sys.version_info[1]}"
        self._cache_path = str(place)
        self._cache_file = IndexDataCacheFile(self._cache_path, name.replace("<locals>.", ""), stamp)
        self.enable()

    def _save_overload(self, sig: Any, data: Any) -> None:
        if self._impl.check_cachable(data):
            _store.make_folder(Path(self._cache_path))
            self._cache_file.save(self._index_key(sig, data.codegen), self._impl.reduce(data))


class KernelCache:
    """The cache of one function, as Numba's dispatchers expect it.

    The files are looked for when they are first needed.
    """

    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._py_func = py_func

    @functools.cached_property
    def _files(self) -> _Files | None:
        """Numba's cache in our folder, or None where that is not to be trusted."""
        sources = build_id(str(Path(inspect.getfile(self._py_func)).parent))
        place = _store.folder() / _store.version(sources) / "numba"
        return _Files(self._py_func, place, sources) if _store.is_trusted(_store.folder()) else None

    @property
    def cache_path(self) -> str | None:
        """The folder of the files, None where none can be kept."""
        return self._files and self._files.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function for a signature, or None.

        Numba's method fills its registries first, with all that it knows of Python and NumPy and an import of
        scipy.linalg: 0.3 s. Compiling needs them (and fills them itself), running what was compiled does not.
        """
        if self._files is None:
            return None
        try:
            rtsys.initialize(target_context)  # what counts references to arrays
            return self._files._load_overload(sig, target_context)
        except Exception:  # a truncated or garbled pickle raises whatever its bytes happen to say
            self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function."""
        if self._files is None:
            return
        try:
            self._files.save_overload(sig, data)
        except OSError:  # a full disk or a folder that became read-only
            pass
        except Exception:
            self.flush()

    def flush(self) -> None:
        """Empty the index, so that the next compilation is saved again."""
        if self._files is not None:
            with contextlib.suppress(OSError):
                self._files.flush()
