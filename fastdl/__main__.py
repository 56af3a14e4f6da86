"""`python -m fastdl`, and the console script `fastdl`."""

from __future__ import annotations

import atexit
import gc
import os
import sys


def main() -> int:
    """Run the command line and return the exit code; one sentence if the packages that it needs are missing."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f'fastdl: the command line needs {error.name}, which is not installed: pip install "fastdl[cli]"',
            file=sys.stderr,
        )
        return 1
    from fastdl import cli

    return cli.main()


class _Leaving:
    """The end of the process once everything that others have registered is done: registered first, it is called last.

    Python would then take all modules apart, object by object: 0.6 s with Numba, LLVM and polars loaded. All threads that
    have something to finish are joined by then, files are closed where they are written, and the streams are flushed here.
    An exception that ends the process leaves no exit code here, and Python goes its usual way.
    """

    code: int | None = None

    def __call__(self) -> None:
        if (
            self.code is None or "mpi4py.MPI" in sys.modules
        ):  # MPI has more to do: its launcher would kill the other ranks
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):
            return  # Python says what it says of streams that cannot be written
        os._exit(self.code)


def process() -> None:
    """The whole of a process: run the command line, and leave with its exit code.

    What is imported lives as long as the process; looking through it for garbage every 700 objects takes 0.3 s of a short
    training. Here that is done every 100,000.
    """
    leaving = _Leaving()
    atexit.register(leaving)
    gc.set_threshold(100_000, 20, 20)
    leaving.code = main()
    sys.exit(leaving.code)


if __name__ == "__main__":
    process()
