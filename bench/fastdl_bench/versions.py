"""Another version of fastdl beside this one: the tree of a commit, and which benchmarks it has."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fastdl_bench.protocol import CHECKOUT


class UsageError(ValueError):
    """The command line asks for something that cannot be: one sentence, exit code 2."""


def _git(*arguments: str, folder: Path) -> bytes:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True).stdout


def commit_of(reference: str, folder: Path | None = CHECKOUT) -> str:
    """The commit that a branch, tag or commit names."""
    if folder is None:
        raise UsageError(
            "--base: expected to run in a checkout of fastdl, whose commits can be built; this is installed"
        )
    if not reference.startswith("-"):  # not an option for git
        with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
            return _git("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}", folder=folder).decode().strip()
    raise UsageError(f"--base: expected a commit, branch or tag of the repository in {folder}, got {reference!r}")


@contextlib.contextmanager
def tree_of(commit: str, folder: Path | None = CHECKOUT) -> Iterator[Path]:
    """The files of a commit in a temporary folder.

    By `git archive`, which leaves nothing behind in the repository, also when the run is killed. Its kernels are compiled
    there when they are first called.
    """
    assert folder is not None
    with tempfile.TemporaryDirectory(prefix="fastdl-base-") as path:
        packed = io.BytesIO(_git("archive", "--format=tar", commit, folder=folder))
        with tarfile.open(fileobj=packed) as archive:
            archive.extractall(path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
        tree = Path(path)
        if not (tree / "fastdl").is_dir() or not (tree / "kernels" / "fastdl_kernels").is_dir():
            raise UsageError(
                f"--base: expected a version with fastdl/ and kernels/fastdl_kernels/, {commit[:10]} has none"
            )
        yield tree


def benchmarks_of(tree: Path) -> list[str] | None:
    """The names of the benchmarks that a version has itself; None where it is too old to list them."""
    paths = [str(tree), str(tree / "kernels"), str(tree / "bench")]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-m", "fastdl_bench", "--list"], cwd=tree, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    # What is run must be that version's own; an editable install of this checkout would answer for it otherwise.
    own = (tree / "bench" / "fastdl_bench").is_dir()
    return done.stdout.split() if done.returncode == 0 and own else None
