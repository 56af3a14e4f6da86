"""Gather: the rows of a batch, in the shuffled order, copied to where a step reads them."""

from __future__ import annotations

from fastdl.engine.source import read_rows
from fastdl.engine.structs import I64, ROWS, ROWS_AHEAD, Matrix, batches_type, rows_type
from fastdl_kernels.serial import linked
from fastdl_kernels.simd import lanes_of, load_up_to, pointer, prefetch, store_up_to


@linked(lambda x: (I64, I64, batches_type(x), rows_type(x)))
def gather(job, batch, batches, to):
    """Copy ROWS rows of a batch to `to`; inputs that come from a `source` are converted on the way."""
    data, order, n_rows = batches.data, batches.order, batches.n_rows
    start, n = batch * batches.size, data.n_inputs
    first, stop = job * ROWS, min((job + 1) * ROWS, min(batches.size, n_rows - start))
    if batches.source.n_parts:
        inputs = Matrix(pointer(to.inputs, first * to.n_inputs), to.n_inputs)
        read_rows(inputs, batches.source, order, start + first, start + stop, n_rows)
    for r in range(first, stop):
        row = order[start + r]
        source, target = pointer(data.inputs, row * n), pointer(to.inputs, r * to.n_inputs)
        # The next rows are anywhere: no prefetcher of the hardware knows them, but the order does.
        ahead = order[min(start + r + ROWS_AHEAD, n_rows - 1)]
        prefetch(data.labels, ahead * data.n_labels)
        for i in range(0, n, lanes_of(source)):
            prefetch(data.inputs, ahead * n + i)
            store_up_to(target, i, load_up_to(source, i, n - i), n - i)
        for i in range(data.n_labels):
            to.labels[r + i] = data.labels[row + i]
        for i in range(data.n_targets):
            to.targets[r * data.n_targets + i] = data.targets[row * data.n_targets + i]
        for i in range(data.n_weights):
            to.weights[r + i] = data.weights[row + i]
