"""Losses: one spec for each, and serial bodies for rows of a batch, which take pointers and give the sum of the rows' losses.

A spec is all that has to be written for a new loss of outputs and targets: bodies, kernels and tests read the registry. A loss
is compiled when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from fastdl_kernels._jit import jit
from fastdl_kernels._units import linked
from fastdl_kernels.rows import (
    FEW,
    columns_scratch,
    exp_columns,
    exp_row,
    load_columns,
    log_number,
    scale_row,
    square_scratch,
    store_columns,
    whole_numbers,
)
from fastdl_kernels.simd import (
    broadcast,
    first_lanes,
    hsum,
    is_null,
    lanes_of,
    like,
    load,
    load_up_to,
    log,
    number_like,
    pointer,
    select,
    store,
    store_up_to,
)
from fastdl_kernels.terms import (
    absolute_error_term,
    huber_term,
    poisson_term,
    quantile_term,
    sigmoid_cross_entropy_term,
    squared_error_term,
)

(
    SQUARED_ERROR, SIGMOID_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, HUBER, ABSOLUTE_ERROR, QUANTILE, POISSON,
) = range(7)  # fmt: skip


@dataclass(frozen=True)
class LossParameter:
    """The parameter of a loss: lowest <= value < limit, or lowest < value where that end is `open`.

    per_output : whether each output has a value of its own; else there is one
    """

    name: str
    meaning: str
    default: float
    lowest: float
    limit: float
    open: bool = False
    per_output: bool = False


@dataclass(frozen=True)
class LossSpec:
    """One loss.

    code, name : as compiled code and people call it
    formula, gradient : of the output z and target t, for one row or one element
    targets : what they are: "classes", "labels" from 0 to 1, "numbers", or "counts" of 0 or more
    output : the output unit that it goes with: "linear", "sigmoid", "softmax", or "exp", whose prediction is e^z
    mean_over : "rows", or "elements": rows and outputs
    term : compiled function (z, t, parameter) -> (loss, derivative) of vectors; None for classes, which have a body of their own
    parameter : None where there is none
    """

    code: int
    name: str
    formula: str
    gradient: str
    targets: str
    output: str
    mean_over: str
    term: Callable[..., Any] | None
    parameter: LossParameter | None = None


_SMOOTHING = LossParameter("smoothing", "how much of a label is spread evenly over all", 0.0, 0.0, 1.0)

SPECS: dict[str, LossSpec] = {
    spec.name: spec
    for spec in (
        LossSpec(
            SQUARED_ERROR, "squared_error", "(z − t)²", "2 (z − t)", "numbers", "linear", "elements", squared_error_term
        ),
        LossSpec(
            SIGMOID_CROSS_ENTROPY, "sigmoid_cross_entropy", "Σ softplus(z) − s z, s = (1 − ε) t + ε / 2", "sigmoid(z) − s",
            "labels", "sigmoid", "rows", sigmoid_cross_entropy_term, _SMOOTHING,
        ),
        LossSpec(
            SOFTMAX_CROSS_ENTROPY, "softmax_cross_entropy", "−Σ s log softmax(z), s = (1 − ε) onehot + ε / N",
            "softmax(z) − s", "classes", "softmax", "rows", None, _SMOOTHING,
        ),
        LossSpec(
            HUBER, "huber", "(z − t)² / 2 if |z − t| ≤ δ, else δ (|z − t| − δ / 2)", "z − t, limited to −δ … δ",
            "numbers", "linear", "elements", huber_term,
            LossParameter("delta", "error from which on the loss is linear", 1.0, 0.0, np.inf, open=True),
        ),
        LossSpec(
            ABSOLUTE_ERROR, "absolute_error", "|z − t|", "sign(z − t)", "numbers", "linear", "elements",
            absolute_error_term,
        ),
        LossSpec(
            QUANTILE, "quantile", "q (t − z) if z < t, else (1 − q)(z − t)", "−q if z < t, 1 − q if z > t, else 0",
            "numbers", "linear", "elements", quantile_term,
            LossParameter("q", "the quantile of each output", 0.5, 0.0, 1.0, open=True, per_output=True),
        ),
        LossSpec(
            POISSON, "poisson", "e^z − t z + t log t − t", "e^z − t", "counts", "exp", "elements", poisson_term
        ),
    )
}  # fmt: skip
"""Registry: everything about each loss by its name, in the order of the codes."""

LOSSES: dict[str, int] = {name: spec.code for name, spec in SPECS.items()}
"""The name of each loss and its code."""


def parameter_of(name: str) -> LossParameter:
    """The parameter of a loss that has one."""
    parameter = SPECS[name].parameter
    assert parameter is not None
    return parameter


BY_CODE: tuple[LossSpec, ...] = tuple(SPECS.values())
N_LOSSES = len(BY_CODE)
assert [spec.code for spec in BY_CODE] == list(range(N_LOSSES))
_OVER_ELEMENTS = tuple(spec.mean_over == "elements" for spec in BY_CODE)


@jit
def mean_over_elements(loss):
    """Whether the loss of this code is the mean over rows and outputs, not over rows alone."""
    return 0 <= loss < N_LOSSES and _OVER_ELEMENTS[loss]


# --- the sum over elements, for one loss ---


def _pairs(code, outputs, targets, start, stop, p, parameters, by_output, scale, d_outputs):
    """Sum of the loss's terms over elements; d_outputs = scale * their derivatives.

    The parameter is the number p, or, `by_output`, parameters[0] for the element at `start` and so on.
    """
    raise TypeError("works inside compiled code only")


@overload(_pairs, prefer_literal=True)
def _resolve_pairs(code, outputs, targets, start, stop, p, parameters, by_output, scale, d_outputs):
    spec = BY_CODE[code.literal_value]
    term_of, per_output = spec.term, spec.parameter is not None and spec.parameter.per_output

    def pairs(code, outputs, targets, start, stop, p, parameters, by_output, scale, d_outputs):
        lanes = lanes_of(outputs)
        loss = 0.0
        parameter = broadcast(p)
        for block in range(start, stop, 64 * lanes):
            zero = like(broadcast(scale), 0.0)
            total = zero
            for i in range(block, min(stop, block + 64 * lanes), lanes):
                n = stop - i
                z, t = load_up_to(outputs, i, n), load_up_to(targets, i, n)
                if per_output and by_output:
                    parameter = load_up_to(parameters, i - start, n)
                term, d = term_of(z, t, parameter)
                store_up_to(d_outputs, i, d * broadcast(scale), n)
                if n < lanes:
                    term = select(first_lanes(term, n), term, zero)
                total = total + term
            loss += np.float64(hsum(total))
        return loss

    return pairs


def _signature(x: types.Type) -> tuple[types.Type, ...]:
    n, p = types.int64, types.CPointer(x)
    return p, types.CPointer(types.int64), p, p, p, n, n, n, x, p, types.CPointer(types.float64)


def _body_of_pairs(code: int) -> Any:
    """`loss_rows` of one loss of outputs and targets. The code is a number in a closure, by which the cache tells them apart."""
    parameter = BY_CODE[code].parameter
    default = 0.0 if parameter is None else parameter.default
    per_output = parameter is not None and parameter.per_output

    def rows(outputs, labels, targets, weights, parameters, first, last, n, scale, d_outputs, result):
        p = number_like(scale, default) if is_null(parameters) else parameters[0]
        by_output = False
        if per_output and not is_null(parameters):
            for j in range(1, n):
                by_output |= parameters[j] != p
        if is_null(weights) and not by_output:
            result[0] = _pairs(
                code, outputs, targets, first * n, last * n, p, parameters, by_output, scale, d_outputs
            )  # fmt: skip
            return
        loss = 0.0
        for r in range(first, last):
            w = number_like(scale, 1) if is_null(weights) else weights[r]
            row = r * n
            loss += w * _pairs(
                code, outputs, targets, row, row + n, p, parameters, by_output, scale * w, d_outputs
            )  # fmt: skip
        result[0] = loss

    rows.__name__ = rows.__qualname__ = f"{BY_CODE[code].name}_rows"
    return linked(_signature, at_first_call=True)(rows)


# --- softmax cross-entropy ---


@jit
def _row_mean(row, n):
    """The mean of row[:n]."""
    total = like(broadcast(row[0]), 0.0)
    for i in range(0, n, lanes_of(row)):
        total = total + load_up_to(row, i, n - i)
    return hsum(total) / number_like(row[0], n)


@linked(_signature, at_first_call=True)
def softmax_cross_entropy_rows(
    outputs, labels, targets, weights, parameters, first, last, n, scale, d_outputs, result
):  # fmt: skip
    """result[0] = sum of w_r * loss of the rows; d_outputs = scale * w_r * (softmax - smoothed onehot). In place is allowed.

    With smoothing e the loss is that of the label plus e (logit of the label - mean of the logits).
    """
    smoothing = number_like(scale, 0) if is_null(parameters) else parameters[0]
    smooths = smoothing != 0.0
    loss = 0.0
    if n <= FEW:
        columns, transposed, lanes = columns_scratch(scale), square_scratch(scale), lanes_of(outputs)
        for r in range(first, last, lanes):
            rows = min(lanes, last - r)
            wanted = whole_numbers(scale, labels, r, rows)
            top = load_columns(outputs, r, rows, n, columns)
            chosen = top
            for j in range(n):
                chosen = select(wanted == broadcast(number_like(scale, j)), load(columns, j * lanes), chosen)
            mean = like(top, 0.0)
            if smooths:
                for j in range(n):
                    mean = mean + load(columns, j * lanes)
                mean = mean / broadcast(number_like(scale, n))
            total = exp_columns(columns, n, top)
            weight = like(total, 1.0) if is_null(weights) else load_up_to(weights, r, rows)
            factor = broadcast(scale) * weight
            quotient = factor / total
            for j in range(n):
                d = load(columns, j * lanes) * quotient
                store(columns, j * lanes, select(wanted == broadcast(number_like(scale, j)), d - factor, d))
            row_losses = weight * (log(total) - (chosen - top))
            if smooths:
                moved = broadcast(smoothing) * factor
                everywhere = moved / broadcast(number_like(scale, n))
                for j in range(n):
                    d = load(columns, j * lanes) - everywhere
                    store(columns, j * lanes, select(wanted == broadcast(number_like(scale, j)), d + moved, d))
                row_losses = row_losses + weight * broadcast(smoothing) * (chosen - mean)
            store_columns(d_outputs, r, rows, n, columns, transposed)
            loss += np.float64(hsum(select(first_lanes(top, rows), row_losses, like(top, 0.0))))
        result[0] = loss
        return
    for r in range(first, last):
        row, d_row = pointer(outputs, r * n), pointer(d_outputs, r * n)
        label = labels[r]
        logit = row[label]
        factor = scale if is_null(weights) else scale * weights[r]
        mean = _row_mean(row, n) if smooths else logit
        top, total = exp_row(row, n, d_row)
        scale_row(d_row, n, factor / total)
        d_row[label] -= factor
        row_loss = np.float64(log_number(total) - (logit - top))
        if smooths:
            moved = smoothing * factor
            everywhere = broadcast(moved / number_like(scale, n))
            for i in range(0, n, lanes_of(d_row)):
                store_up_to(d_row, i, load_up_to(d_row, i, n - i) - everywhere, n - i)
            d_row[label] += moved
            row_loss += np.float64(smoothing * (logit - mean))
        loss += row_loss if is_null(weights) else row_loss * weights[r]
    result[0] = loss


BODIES = tuple(
    softmax_cross_entropy_rows if code == SOFTMAX_CROSS_ENTROPY else _body_of_pairs(code) for code in range(N_LOSSES)
)
"""By code; their attribute `linked` compiles one before it is needed: `BODIES[HUBER].linked.ensure(types.float32)`."""


@intrinsic
def loss_rows(
    typingctx, loss, outputs, labels, targets, weights, parameters, first, last, n, scale, d_outputs
):  # fmt: skip
    """Sum over the rows first .. last of w_r * their loss; d_outputs = scale * w_r * its gradient. A code that there is not
    gives NaN.

    Pointers: outputs and d_outputs to [rows, n]; labels (int64) to [rows], read for classes, targets to [rows, n], read for
    the others; weights to [rows], or null; parameters to what the spec names (one number, or n where it is per output), or
    null for the default. The loss of a row is the sum over its n elements: a mean over elements is taken by the caller, who
    gives `scale` and divides.
    """
    signature = _signature(scale)

    def codegen(context, builder, sig, args):
        result = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), float("nan")))
        end = builder.append_basic_block("loss_end")
        switch = builder.switch(args[0], end)
        for number, body in enumerate(BODIES):
            place = builder.append_basic_block(f"loss_{BY_CODE[number].name}")
            switch.add_case(ir.Constant(ir.IntType(64), number), place)
            builder.position_at_end(place)
            body.linked.emit_call(context, builder, scale, [*args[1:], result])
            builder.branch(end)
        builder.position_at_end(end)
        return builder.load(result)

    return types.float64(types.int64, *signature[:-1]), codegen


@jit
def sum_of(parts, n):
    """parts[0] + parts[1] + ... + parts[n - 1], one after the other."""
    result = 0.0
    for i in range(n):
        result += parts[i]
    return result
