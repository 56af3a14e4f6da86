"""The engine's compiled code, made ready: loaded from the cache, or compiled, once on a machine.

Numba compiles one function at a time, so that a second process does half of the work; it leaves it in the cache.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from numba.core.types import Type, float32
from numba.np.numpy_support import from_dtype

from fastdl.engine.backward import add_partial, backward
from fastdl.engine.forward import forward
from fastdl.engine.gather import gather
from fastdl.engine.input_stage import embed, update_stage
from fastdl.engine.loss import loss_rows
from fastdl.engine.permutation import draw
from fastdl.engine.sparse import (
    catch_up_block,
    catch_up_columns,
    sparse_forward,
    sparse_update_block,
    update_columns,
)
from fastdl.engine.sparse_batch import turn
from fastdl.engine.step import work
from fastdl.engine.update import clipped_update, penalised_block, update_block
from fastdl.network import Architecture
from fastdl_kernels.serial import (
    ACTIVATION_BLOCKS,
    IN_REGISTERS,
    LOSS_BODIES,
    PAIRED_PRODUCTS,
    PARAMETRIC_BLOCKS,
    Linked,
    linked_product,
    usable_cores,
)

# Two halves that take about as long; what is made of the same helpers, which both would compile, is in one of them.
MINE: list[Linked] = [f.linked for f in (work, clipped_update, penalised_block, gather)]
HELPERS: list[Linked] = [linked_product, *(f.linked for f in (update_block, add_partial, backward, forward, loss_rows))]
# What only trainings on sparse inputs call.
SPARSE: list[Linked] = [
    f.linked for f in (turn, sparse_forward, catch_up_columns, update_columns, sparse_update_block, catch_up_block)
]
# What only networks with an input stage call.
STAGE: list[Linked] = [f.linked for f in (embed, update_stage)]
# Longer than any compilation takes: a helper that hangs must not hold up a training for good.
_PATIENCE = 120.0
# python, python3.11, python3.13t, pythonw.exe, ...
_PYTHON = re.compile(r"python[0-9.]*[a-z]?(\.exe)?", re.IGNORECASE)
_ready: set[Type] = set()


def for_network(architecture: Architecture) -> None:
    """Make ready what the network's loss calls, its input stage, and its activations as far as they are not in the register
    tiles."""
    own = _own(architecture.loss.code, [hidden.code for hidden in architecture.hidden])
    own += [PARAMETRIC_BLOCKS[hidden.code].linked for hidden in architecture.hidden if hidden.parametric]
    for unit in own if architecture.stage is None else own + STAGE:
        unit.ensure(from_dtype(architecture.dtype))


def _own(loss: int, activations: list[int]) -> list[Linked]:
    """What a network with these codes needs besides what all do."""
    own = [LOSS_BODIES[loss].linked]
    return own + [ACTIVATION_BLOCKS[code].linked for code in activations if code not in IN_REGISTERS]


def half(dtype: np.dtype, loss: int, activations: list[int]) -> None:
    """What the second process compiles."""
    for unit in [*HELPERS, *_own(loss, activations)]:
        unit.ensure(from_dtype(dtype))
    draw.ensure(float32)


def for_prediction(dtype: np.dtype) -> None:
    """Make ready what a forward pass and a mean loss call."""
    for unit in (forward, loss_rows):
        unit.linked.ensure(from_dtype(dtype))


def for_arithmetic(arithmetic: int) -> None:
    """Make ready the products of an arithmetic besides float32."""
    if arithmetic in PAIRED_PRODUCTS:
        PAIRED_PRODUCTS[arithmetic].ensure(from_dtype(np.dtype(np.float32)))


def for_sparse(architecture: Architecture, trains: bool) -> None:
    """Make ready what sparse inputs need besides; the activation of the first layer is no register tile's then."""
    for unit in SPARSE if trains else (sparse_forward.linked,):
        unit.ensure(from_dtype(architecture.dtype))
    for hidden in architecture.hidden[:1]:
        ACTIVATION_BLOCKS[hidden.code].linked.ensure(from_dtype(architecture.dtype))


@contextlib.contextmanager
def for_training(architecture: Architecture) -> Iterator[None]:
    """Make ready what a training step calls; in the body, the caller compiles what calls it, and all else that it needs."""
    element = from_dtype(architecture.dtype)
    if element in _ready:
        yield
    else:
        with _helper(architecture, element):
            yield
            for unit in MINE:
                unit.ensure(element)
        for unit in HELPERS:
            unit.ensure(element)
        draw.ensure(float32)
        _ready.add(element)
    for_network(architecture)


def _can_start_python() -> bool:
    """Whether `sys.executable` is a Python: of a frozen application or of a program that embeds one, it is that program."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return False
    return bool(_PYTHON.fullmatch(re.split(r"[/\\]", sys.executable)[-1]))


@contextlib.contextmanager
def _helper(architecture: Architecture, element: Type) -> Iterator[None]:
    """A process that compiles for the cache while the body does the same; its end is waited for."""
    if linked_product.is_cached(element) or usable_cores() < 2 or not _can_start_python():
        yield
        return
    units = architecture.dtype.name, architecture.loss.code, [hidden.code for hidden in architecture.hidden]
    code = f"import sys; sys.path[:] = {sys.path!r}; from fastdl.engine import helper; helper.compile_half(*{units!r})"
    nowhere = subprocess.DEVNULL
    try:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=nowhere, stdout=nowhere, stderr=nowhere)
    except OSError:  # no memory or no right to start one: everything is compiled here
        yield
        return
    linked_product.awaited = True
    try:
        yield
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
    finally:
        linked_product.awaited = False
        process.kill()
        process.wait()
