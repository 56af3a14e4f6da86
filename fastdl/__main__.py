"""`python -m fastdl`, and the console script `fastdl`."""

from __future__ import annotations

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


if __name__ == "__main__":
    sys.exit(main())
