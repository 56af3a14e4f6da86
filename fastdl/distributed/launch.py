"""What the launcher of an MPI program says in the environment, before MPI itself is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fastdl.errors import InputError, MissingExtraError

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_SIZE")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK")
CHOICES = ("auto", "on", "off")
"""What `--mpi` takes."""


def launched_ranks(environment: Mapping[str, str] | None = None) -> int:
    """How many ranks a launcher (Open MPI, MPICH, Intel MPI, MVAPICH, srun) has started; 1 where none has."""
    known = os.environ if environment is None else environment
    if not any(name in known for name in _RANKS):
        return 1
    sizes = [known[name] for name in _SIZES if known.get(name, "").isdecimal()]
    if "SLURM_STEP_NUM_TASKS" in known and known["SLURM_STEP_NUM_TASKS"].isdecimal():
        sizes.append(known["SLURM_STEP_NUM_TASKS"])
    return max([1, *map(int, sizes)])


def is_first(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this process is rank 0, or none of a launcher's."""
    known = os.environ if environment is None else environment
    return all(known.get(name, "0") == "0" for name in _RANKS)


def mpi() -> Any:
    """The module mpi4py.MPI; it initialises MPI when it is first imported.

    Raises
    ------
    MissingExtraError : it is not installed, or finds no MPI library
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise MissingExtraError(
            f'training over several processes needs mpi4py ({error}): pip install "fastdl[mpi]"'
        ) from error
    except RuntimeError as error:  # mpi4py is there, and the library that it loads is not
        raise MissingExtraError(
            "training over several processes needs an MPI library, and mpi4py found none: use the one of your cluster, or "
            "pip install mpich"
        ) from error
    return MPI


def wanted(choice: str, environment: Mapping[str, str] | None = None) -> bool:
    """Whether `--mpi` and the environment ask for MPI.

    Raises
    ------
    InputError : `choice` is none of `CHOICES`
    """
    if choice not in CHOICES:
        raise InputError(f"expected one of {', '.join(CHOICES)}, got {choice!r}")
    return choice == "on" or (choice == "auto" and launched_ranks(environment) > 1)
