"""Losses computed from raw outputs, numerically stable, with their gradients; softmax and log-softmax.

Dims: B rows, N classes, labels or targets. Losses are summed in float64, in chunks that the shape fixes: the same bits for any
number of threads.
"""

from __future__ import annotations

import numpy as np

from fastdl_kernels._jit import jit, noinline
from fastdl_kernels.kernel import kernel, overlap, require
from fastdl_kernels.loss_rows import (
    ABSOLUTE_ERROR,
    HUBER,
    POISSON,
    QUANTILE,
    SIGMOID_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    SQUARED_ERROR,
    loss_rows,
    parameter_of,
    sum_of,
)
from fastdl_kernels.regions import run_jobs
from fastdl_kernels.rows import softmax_rows
from fastdl_kernels.simd import flush_subnormals, null, number_like, pointer, restore_mode

# Numbers per chunk of rows: 20 us of exponentials. A call of one chunk stays on its thread.
CHUNK = 8 * 1024


@jit
def chunk_rows(n_rows, n):
    """Rows of a chunk: a function of the shape alone."""
    return max(1, min(n_rows, CHUNK // max(1, n)))


@jit
def _softmax_job(c, logarithm, size, logits, out):
    n_rows, n = logits.shape
    mode = flush_subnormals()
    softmax_rows(logarithm, c * size, min(n_rows, (c + 1) * size), n, pointer(logits, 0), pointer(out, 0))
    restore_mode(mode)


@jit
def _softmax(logarithm, logits, out):
    """`softmax` or `log_softmax`, after their checks."""
    n_rows, n = logits.shape
    if out.size == 0:  # a row of no classes has no maximum to read
        return
    size = chunk_rows(n_rows, n)
    chunks = (n_rows + size - 1) // size
    run_jobs(_softmax_job, chunks, chunks > 1, (logarithm, size, logits, out))


@kernel({"logits": "B N", "out": "B N"}, outputs=["out"])
def softmax(logits, out):
    """out[b, n] = exp(logits[b, n]) / sum over k of exp(logits[b, k]), with the row's maximum subtracted first.

    Parameters
    ----------
    logits : float32 or float64 [B, N], C-contiguous, read
    out : same dtype [B, N], overwritten; must not overlap logits

    Cost: about 25 B N flop; 2 B N itemsize bytes. Edges: B = 0 or N = 0 is a no-op; NaN fills its row.
    """
    require("softmax", out.shape == logits.shape, not overlap(out, logits))
    _softmax(False, logits, out)


@kernel({"logits": "B N", "out": "B N"}, outputs=["out"])
def log_softmax(logits, out):
    """out[b, n] = logits[b, n] - log(sum over k of exp(logits[b, k])), with the row's maximum subtracted first.

    Parameters, cost and edges as for `softmax`.
    """
    require("log_softmax", out.shape == logits.shape, not overlap(out, logits))
    _softmax(True, logits, out)


@jit
def _loss_job(c, loss, size, n_rows, n, scale, outputs, labels, targets, parameters, d_outputs, sums):
    mode = flush_subnormals()
    sums[c] = loss_rows(
        loss,
        outputs,
        labels,
        targets,
        null(scale),
        parameters,
        c * size,
        min(n_rows, (c + 1) * size),
        n,
        scale,
        d_outputs,
    )
    restore_mode(mode)


@jit
def _mean_loss(loss, n_rows, n, divisor, outputs, labels, targets, parameters, d_outputs):
    """A loss over n_rows of n numbers, divided by `divisor`, with its gradient; what the kernels hand over are pointers."""
    noinline()
    scale = number_like(outputs[0], 1.0 / divisor)
    size = chunk_rows(n_rows, n)
    chunks = (n_rows + size - 1) // size
    sums = np.empty(chunks)
    if chunks > 1:  # the loss is compiled here, and not by threads that might wait for the GIL of a caller of theirs
        loss_rows(loss, outputs, labels, targets, null(scale), parameters, 0, 0, n, scale, d_outputs)
    arguments = (loss, size, n_rows, n, scale, outputs, labels, targets, parameters, d_outputs, pointer(sums, 0))
    run_jobs(_loss_job, chunks, chunks > 1, arguments)
    return sum_of(sums, chunks) / divisor


@jit
def _compared(loss, over_elements, outputs, targets, parameters, d_outputs):
    """A loss of outputs and targets [B, N], after its checks; parameters points to its parameters, or is null."""
    n_rows, n = outputs.shape
    divisor = n_rows * n if over_elements else n_rows
    if divisor == 0:
        return 0.0
    labels = null(np.int64(0))
    return _mean_loss(
        loss, n_rows, n, divisor, pointer(outputs, 0), labels, pointer(targets, 0), parameters, pointer(d_outputs, 0)
    )


@kernel(
    {"logits": "B N", "labels": "B", "d_logits": "B N"}, outputs=["d_logits"], integers=["labels"],
    limits={"smoothing": parameter_of("softmax_cross_entropy")},
)  # fmt: skip
def softmax_cross_entropy(logits, labels, d_logits, smoothing=0.0):
    """Mean over rows of -sum over n of s log_softmax(logits); d_logits = (softmax(logits) - s) / B, with
    s = (1 - smoothing) onehot(labels) + smoothing / N.

    Parameters
    ----------
    logits : float32 or float64 [B, N], C-contiguous, read
    labels : int64 [B], 0 .. N - 1, read; one out of range raises ValueError before anything is written
    d_logits : same dtype as logits [B, N], overwritten; must not overlap the inputs
    smoothing : how much of a label is spread evenly over all N, in [0, 1)

    Returns the loss as a float64 number; 0.0 for B = 0.

    Cost: about 27 B N flop; 2 B N itemsize bytes. Numerics: log-sum-exp with the maximum subtracted; finite for any
    finite logits. NaN in a row gives NaN in its gradient and in the loss. Source of smoothing: Szegedy et al. (2016).
    """
    n_rows, n = logits.shape
    require(
        "softmax_cross_entropy",
        d_logits.shape == logits.shape and labels.shape[0] == n_rows,
        not (overlap(d_logits, logits) or overlap(d_logits, labels)),
    )
    if not 0.0 <= smoothing < 1.0:
        raise ValueError("softmax_cross_entropy: expected smoothing of 0 or more, below 1")
    if n_rows == 0:
        return 0.0
    for r in range(n_rows):
        if labels[r] < 0 or labels[r] >= n:
            raise ValueError("softmax_cross_entropy: expected labels from 0 to N - 1")
    z, d, y = pointer(logits, 0), pointer(d_logits, 0), pointer(labels, 0)
    nothing = null(logits.dtype.type(0))
    if smoothing == 0.0:
        return _mean_loss(SOFTMAX_CROSS_ENTROPY, n_rows, n, n_rows, z, y, nothing, nothing, d)
    given = np.full(1, smoothing, logits.dtype)
    loss = _mean_loss(SOFTMAX_CROSS_ENTROPY, n_rows, n, n_rows, z, y, nothing, pointer(given, 0), d)
    return loss if given.size else 0.0  # keeps the array alive


@kernel(
    {"logits": "B N", "targets": "B N", "d_logits": "B N"}, outputs=["d_logits"],
    limits={"smoothing": parameter_of("sigmoid_cross_entropy")},
)  # fmt: skip
def sigmoid_cross_entropy(logits, targets, d_logits, smoothing=0.0):
    """Mean over rows of the sum over labels of softplus(z) - s z; d_logits = (sigmoid(z) - s) / B, with
    s = (1 - smoothing) t + smoothing / 2.

    Parameters
    ----------
    logits : float32 or float64 [B, N], C-contiguous, read: one column for each independent label
    targets : same dtype [B, N], in 0 .. 1, read
    d_logits : same dtype [B, N], overwritten; must not overlap the inputs
    smoothing : how far targets are moved towards 1/2, in [0, 1)

    Returns the loss as a float64 number; 0.0 for B = 0.

    Cost: about 45 B N flop; 3 B N itemsize bytes. Numerics: max(z, 0) - s z + log(1 + e^-|z|): finite for finite z.
    """
    require(
        "sigmoid_cross_entropy",
        targets.shape == logits.shape and d_logits.shape == logits.shape,
        not (overlap(d_logits, logits) or overlap(d_logits, targets)),
    )
    if not 0.0 <= smoothing < 1.0:
        raise ValueError("sigmoid_cross_entropy: expected smoothing of 0 or more, below 1")
    if smoothing == 0.0:
        return _compared(SIGMOID_CROSS_ENTROPY, False, logits, targets, null(logits.dtype.type(0)), d_logits)
    given = np.full(1, smoothing, logits.dtype)
    loss = _compared(SIGMOID_CROSS_ENTROPY, False, logits, targets, pointer(given, 0), d_logits)
    return loss if given.size else 0.0  # keeps the array alive


@kernel({"predictions": "B N", "targets": "B N", "d_predictions": "B N"}, outputs=["d_predictions"])
def squared_error(predictions, targets, d_predictions):
    """Mean over rows and targets of (p - t)²; d_predictions = 2 (p - t) / (B N).

    Parameters
    ----------
    predictions, targets : float32 or float64 [B, N], C-contiguous, read
    d_predictions : same dtype [B, N], overwritten; must not overlap the inputs

    Returns the loss as a float64 number; 0.0 for B = 0.

    Cost: 4 B N flop; 3 B N itemsize bytes.
    """
    require(
        "squared_error",
        targets.shape == predictions.shape and d_predictions.shape == predictions.shape,
        not (overlap(d_predictions, predictions) or overlap(d_predictions, targets)),
    )
    return _compared(SQUARED_ERROR, True, predictions, targets, null(predictions.dtype.type(0)), d_predictions)


@kernel({"predictions": "B N", "targets": "B N", "d_predictions": "B N"}, outputs=["d_predictions"])
def absolute_error(predictions, targets, d_predictions):
    """Mean over rows and targets of |p - t|; d_predictions = sign(p - t) / (B N), 0 where they are equal.

    Parameters, result and edges as for `squared_error`. Cost: 4 B N flop; 3 B N itemsize bytes.
    """
    require(
        "absolute_error",
        targets.shape == predictions.shape and d_predictions.shape == predictions.shape,
        not (overlap(d_predictions, predictions) or overlap(d_predictions, targets)),
    )
    return _compared(ABSOLUTE_ERROR, True, predictions, targets, null(predictions.dtype.type(0)), d_predictions)


@kernel(
    {"predictions": "B N", "targets": "B N", "d_predictions": "B N"}, outputs=["d_predictions"],
    limits={"delta": parameter_of("huber")},
)  # fmt: skip
def huber_loss(predictions, targets, delta, d_predictions):
    """Mean over rows and targets of (p - t)² / 2 where |p - t| <= delta, and of delta (|p - t| - delta / 2) elsewhere;
    d_predictions = (p - t, limited to -delta .. delta) / (B N).

    Parameters
    ----------
    predictions, targets, d_predictions : as for `squared_error`
    delta : error from which on the loss is linear, above 0; 1.0 is usual

    Returns the loss as a float64 number; 0.0 for B = 0. Cost: 6 B N flop; 3 B N itemsize bytes. Source: Huber (1964).
    """
    require(
        "huber_loss",
        targets.shape == predictions.shape and d_predictions.shape == predictions.shape,
        not (overlap(d_predictions, predictions) or overlap(d_predictions, targets)),
    )
    if not 0.0 < delta < np.inf:
        raise ValueError("huber_loss: expected delta above 0, and finite")
    given = np.full(1, delta, predictions.dtype)
    loss = _compared(HUBER, True, predictions, targets, pointer(given, 0), d_predictions)
    return loss if given.size else 0.0  # keeps the array alive


@kernel(
    {"predictions": "B N", "targets": "B N", "q": "N", "d_predictions": "B N"}, outputs=["d_predictions"],
    limits={"q": parameter_of("quantile")},
)  # fmt: skip
def quantile_loss(predictions, targets, q, d_predictions):
    """Mean over rows and targets of q (t - p) where p < t, and of (1 - q)(p - t) elsewhere; d_predictions = (-q where p < t,
    1 - q where p > t, else 0) / (B N).

    Parameters
    ----------
    predictions, targets, d_predictions : as for `squared_error`
    q : same dtype [N], read: the quantile that each column predicts, above 0 and below 1

    Returns the loss as a float64 number; 0.0 for B = 0. Cost: 5 B N flop; 3 B N itemsize bytes. Source: Koenker and
    Bassett (1978). Columns of one q go faster than columns of several.
    """
    require(
        "quantile_loss",
        targets.shape == predictions.shape
        and d_predictions.shape == predictions.shape
        and q.size == predictions.shape[1],
        not (overlap(d_predictions, predictions) or overlap(d_predictions, targets) or overlap(d_predictions, q)),
    )
    for j in range(q.size):
        if not 0.0 < q[j] < 1.0:
            raise ValueError("quantile_loss: expected q above 0 and below 1")
    return _compared(QUANTILE, True, predictions, targets, pointer(q, 0), d_predictions)


@kernel({"log_rates": "B N", "targets": "B N", "d_log_rates": "B N"}, outputs=["d_log_rates"])
def poisson_loss(log_rates, targets, d_log_rates):
    """Mean over rows and targets of e^z - t z + t log t - t for log rates z; d_log_rates = (e^z - t) / (B N).

    Parameters
    ----------
    log_rates : float32 or float64 [B, N], C-contiguous, read
    targets : same dtype [B, N], counts of 0 or more (not only whole ones), read; one below 0 raises ValueError
    d_log_rates : same dtype [B, N], overwritten; must not overlap the inputs

    Returns the loss as a float64 number, 0.0 for B = 0: half of the Poisson deviance, as scikit-learn's loss="poisson".

    Cost: about 60 B N flop; 3 B N itemsize bytes. Numerics: a log rate above 80 (float32) or 700 counts as that, so that
    loss and gradient stay finite and the gradient still points downhill.
    """
    require(
        "poisson_loss",
        targets.shape == log_rates.shape and d_log_rates.shape == log_rates.shape,
        not (overlap(d_log_rates, log_rates) or overlap(d_log_rates, targets)),
    )
    for r in range(targets.shape[0]):
        for j in range(targets.shape[1]):
            if targets[r, j] < 0.0:
                raise ValueError("poisson_loss: expected targets of 0 or more")
    return _compared(POISSON, True, log_rates, targets, null(log_rates.dtype.type(0)), d_log_rates)
