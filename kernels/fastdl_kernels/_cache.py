"""Compiled code kept on disk: valid for one state of the sources, loaded without starting Numba's compiler.

Numba's own cache notices an edit in the file of the function itself only; a changed helper, constant or tile size would
go on returning results of the old code. Here every cache index is stamped with `build_id`, a hash of all kernel sources,
so that any edit recompiles what depends on it. A damaged or unwritable cache costs time, never an error.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.runtime import rtsys


@functools.cache
def build_id(folder: str) -> str:
    """A hash of the sources in `folder` and of this package: what compiled code depends on besides the processor."""
    here = Path(__file__).parent
    sources = {path for base in (here, Path(folder)) for path in base.rglob("*.py")}
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class KernelCache:
    """The cache of one function, as Numba's dispatchers and callbacks expect it.

    The files are looked for when they are first needed: Numba tries the folder by writing to it, which would be done at
    import for a hundred functions most of which only ever live inside others.
    """

    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._py_func = py_func

    @functools.cached_property
    def _files(self) -> FunctionCache | None:
        """Numba's cache with our stamp, or None where no folder can be written."""
        try:
            files = FunctionCache(self._py_func)
        except RuntimeError:
            return None
        folder = str(Path(inspect.getfile(self._py_func)).parent)
        stamp = (files._impl.locator.get_source_stamp(), build_id(folder))
        files._cache_file = IndexDataCacheFile(files.cache_path, files._impl.filename_base, stamp)
        return files

    @property
    def cache_path(self) -> str | None:
        """The folder of the files, None where none can be written."""
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

    def holds(self, sig: Any, target_context: Any) -> bool:
        """Whether there is a compiled function for a signature."""
        if self._files is None:
            return False
        try:
            key = self._files._index_key(sig, target_context.codegen())
            return self._files._cache_file.load(key) is not None
        except Exception:
            return False

    def flush(self) -> None:
        """Empty the index, so that the next compilation is saved again."""
        if self._files is not None:
            with contextlib.suppress(OSError):
                self._files.flush()
