"""A network written down as numbers in arrays, as compiled code takes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import structs
from fastdl.network import CACHE_LINE, Architecture, Unit
from fastdl_kernels.activations import BY_CODE, IDENTITY
from fastdl_kernels.serial import FLOAT32

# Inputs and outputs that a layer has at least whose products are done in bf16 where that is asked for, and rows of a batch:
# with fewer, rounding and packing the operands takes what the arithmetic gains (see `fastdl_kernels.pairs`).
FEWEST_UNITS, FEWEST_ROWS = 64, 32


def row_stride(n: int, dtype: np.dtype) -> int:
    """How far rows of n numbers are apart in a workspace: a cache line further where rows would fall into few cache sets.

    A register tile on rows of 512 numbers runs at 60 % of the peak, and on rows of 528 at 89 %.
    """
    size = n * dtype.itemsize
    return n + CACHE_LINE // dtype.itemsize if size >= 1024 and size % 512 == 0 else n


class Layout:
    """What is the same in all workspaces of an architecture.

    strides : how far rows are apart, of the inputs and of each layer's outputs; raw outputs have no gaps
    alphas [layers] : the parameter of each layer's activation
    loss : (code, 1 if its mean is taken over outputs as well, its parameters)
    """

    def __init__(self, architecture: Architecture) -> None:
        layers, dtype = architecture.layers, architecture.dtype
        self.architecture = architecture
        self.strides = [*(row_stride(n, dtype) for n in layers[:-1]), layers[-1]]
        stage = [] if architecture.stage is None else [Unit(IDENTITY)]
        self._units = [*stage, *architecture.hidden, Unit(IDENTITY)]
        self.alphas = np.array([unit.alpha for unit in self._units], dtype)
        term = architecture.loss
        self.loss = term.code, int(term.per_output), np.array(term.parameters, dtype)

    @property
    def numbers_per_row(self) -> int:
        """Numbers of a row in the workspace of outputs: those of all layers, and z of layers whose derivative needs it."""
        return sum(self.strides[1:]) + sum(stride for stride, keeps in zip(self.strides[1:], self._keeps) if keeps)

    @property
    def _keeps(self) -> list[bool]:
        """Whether z of a layer is kept, for all layers but the last."""
        stage = self.architecture.stage
        scaled = [] if stage is None else [stage.scaled]  # the scales' gradient is taken from what was not scaled yet
        return scaled + [BY_CODE[unit.code].derivative_from == "z" for unit in self.architecture.hidden]

    def plan(self, rows: int, trains: bool = True, arithmetic: int = FLOAT32) -> NDArray[np.int64]:
        """One row per layer, for workspaces of `rows` rows, without dropout: see `structs.N_IN` and the columns after it.

        A prediction, which does not train, keeps no z. Behind them come the rows that `structs.LISTED` counts. The products of
        large layers are done in `arithmetic`.
        """
        layers, stage = self.architecture.layers, self.architecture.stage
        n = len(layers) - 1
        order = [] if stage is None else stage.order(layers[0])
        listed = -(-len(order) // structs.PLAN_COLUMNS)
        whole = np.zeros((n + listed, structs.PLAN_COLUMNS), np.int64)
        whole[n:].reshape(-1)[: len(order)] = order
        plan = whole[:n]
        plan[0, structs.LISTED] = listed
        plan[:, structs.N_IN], plan[:, structs.N_OUT] = layers[:-1], layers[1:]
        plan[:, structs.WEIGHT_ROWS], plan[:, structs.ROW] = layers[:-1], layers[1:]
        plan[:, [structs.WEIGHT, structs.BIAS]] = self.architecture.offsets
        plan[:, structs.ACTIVATION] = [unit.code for unit in self._units]
        if stage is not None:
            plan[0, [structs.WEIGHT_ROWS, structs.ROW]] = len(stage.embedded), stage.row
            plan[0, [structs.FREQUENCIES, structs.SIZE]] = stage.frequencies, stage.size
        large = np.minimum(layers[:-1], layers[1:]) >= FEWEST_UNITS
        plan[:, structs.ARITHMETIC] = np.where(large, arithmetic, FLOAT32)
        plan[:, structs.STRIDE] = self.strides[1:]
        plan[1:, structs.OUTPUT] = np.cumsum(self.strides[1:-1]) * rows
        plan[:, structs.Z] = -1
        at = sum(self.strides[1:]) * rows  # behind all outputs, in the same buffer
        for layer, keeps in enumerate(self._keeps):
            if trains and keeps:
                plan[layer, structs.Z], at = at, at + self.strides[layer + 1] * rows
        return whole
