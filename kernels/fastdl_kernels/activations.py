"""Activations: one spec for each, and what compiled code does by it.

A spec is all that has to be written for a new activation: kernels, argument checks, tables and tests read the registry.
Functions of vectors take alpha as a vector. `IN_REGISTERS` and `DERIVATIVES_IN_REGISTERS` are applied by the register tiles
themselves (`tile_body`), all others to the tile while it is in L1, by a function that is compiled when an
activation is first used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from fastdl_kernels._jit import jit, noinline
from fastdl_kernels._units import linked
from fastdl_kernels.curves import (
    elu_derivative,
    elu_value,
    gelu_derivative,
    gelu_value,
    identity_derivative,
    identity_value,
    leaky_relu_derivative,
    leaky_relu_value,
    mish_derivative,
    mish_value,
    relu_derivative,
    relu_value,
    selu_derivative,
    selu_value,
    sigmoid_derivative,
    sigmoid_value,
    silu_derivative,
    silu_value,
    softplus_derivative,
    softplus_value,
    tanh_derivative,
    tanh_value,
)
from fastdl_kernels.simd import broadcast, lanes_of, load_up_to, number_like, pointer, store_up_to

IDENTITY, RELU, LEAKY_RELU, SIGMOID, TANH, ELU, SELU, SOFTPLUS, GELU, SILU, MISH = range(11)


@dataclass(frozen=True)
class Alpha:
    """The parameter of an activation: lowest <= alpha < limit, or lowest < alpha where that end is `open`."""

    meaning: str
    default: float
    lowest: float
    limit: float
    open: bool = False


@dataclass(frozen=True)
class ActivationSpec:
    """One activation.

    code, name : as compiled code and people call it
    formula, derivative_formula : of z, and of what `derivative_from` says: the output a or z itself
    derivative_from : "out", or "z", which must then be kept from the forward pass
    value, derivative : compiled functions (vector, vector alpha) -> vector; the derivative of what `derivative_from` says
    alpha : its parameter, None where there is none
    rectifier : whether it is made of two straight lines, so that the derivative depends on a sign alone
    sklearn, torch : its name in scikit-learn's MLPs and in torch.nn; None where there is none
    """

    code: int
    name: str
    formula: str
    derivative_formula: str
    value: Callable[..., Any]
    derivative: Callable[..., Any]
    derivative_from: str = "out"
    alpha: Alpha | None = None
    rectifier: bool = False
    sklearn: str | None = None
    torch: str | None = None


SPECS: dict[str, ActivationSpec] = {
    spec.name: spec
    for spec in (
        ActivationSpec(
            IDENTITY, "identity", "z", "1", identity_value, identity_derivative,
            rectifier=True, sklearn="identity", torch="Identity",
        ),
        ActivationSpec(
            RELU, "relu", "max(0, z)", "1 if a > 0, else 0", relu_value, relu_derivative,
            rectifier=True, sklearn="relu", torch="ReLU",
        ),
        ActivationSpec(
            LEAKY_RELU, "leaky_relu", "max(αz, z)", "1 if a > 0, else α", leaky_relu_value, leaky_relu_derivative,
            alpha=Alpha("slope below 0", 0.01, 0.0, 1.0), rectifier=True, torch="LeakyReLU",
        ),
        ActivationSpec(
            SIGMOID, "sigmoid", "1 / (1 + e^−z)", "a (1 − a)", sigmoid_value, sigmoid_derivative,
            sklearn="logistic", torch="Sigmoid",
        ),
        ActivationSpec(
            TANH, "tanh", "tanh z", "(1 − a)(1 + a)", tanh_value, tanh_derivative, sklearn="tanh", torch="Tanh",
        ),
        ActivationSpec(
            ELU, "elu", "z if z > 0, else α (e^z − 1)", "1 if a > 0, else a + α", elu_value, elu_derivative,
            alpha=Alpha("minus the limit for z → −∞", 1.0, 0.0, np.inf), torch="ELU",
        ),
        ActivationSpec(
            SELU, "selu", "λz if z > 0, else λμ (e^z − 1), λ = 1.0507, μ = 1.6733", "λ if a > 0, else a + λμ",
            selu_value, selu_derivative, torch="SELU",
        ),
        ActivationSpec(
            SOFTPLUS, "softplus", "log(1 + e^z)", "1 − e^−a", softplus_value, softplus_derivative, torch="Softplus",
        ),
        ActivationSpec(
            GELU, "gelu", "z Φ(z), Φ(z) = (1 + erf(z / √2)) / 2", "Φ(z) + z φ(z), φ(z) = e^(−z²/2) / √(2π)",
            gelu_value, gelu_derivative, derivative_from="z", torch="GELU",
        ),
        ActivationSpec(
            SILU, "silu", "z s, s = 1 / (1 + e^−z)", "s (1 + z (1 − s))", silu_value, silu_derivative,
            derivative_from="z", torch="SiLU",
        ),
        ActivationSpec(
            MISH, "mish", "z t, t = tanh(log(1 + e^z))", "t + z s (1 − t²), s = 1 / (1 + e^−z)", mish_value,
            mish_derivative, derivative_from="z", torch="Mish",
        ),
    )
}  # fmt: skip
"""Registry: everything about each activation by its name, in the order of the codes."""

ACTIVATIONS: dict[str, int] = {name: spec.code for name, spec in SPECS.items()}
"""The name of each activation and its code. Tests, benchmarks and the command line iterate over it."""

BY_CODE: tuple[ActivationSpec, ...] = tuple(SPECS.values())
N_ACTIVATIONS = len(BY_CODE)
assert [spec.code for spec in BY_CODE] == list(range(N_ACTIVATIONS))

# The register tiles apply these themselves; see `tile_body`. The codes come first, so that a comparison tells them apart.
IN_REGISTERS = (IDENTITY, RELU, LEAKY_RELU)
DERIVATIVES_IN_REGISTERS = (IDENTITY, RELU, LEAKY_RELU, SIGMOID, TANH)
LAST_IN_REGISTERS, LAST_DERIVATIVE_IN_REGISTERS = IN_REGISTERS[-1], DERIVATIVES_IN_REGISTERS[-1]

# By code, for compiled code.
_LOWEST_ALPHA = tuple(-np.inf if spec.alpha is None else spec.alpha.lowest for spec in BY_CODE)
_ALPHA_LIMIT = tuple(np.inf if spec.alpha is None else spec.alpha.limit for spec in BY_CODE)
_HAS_ALPHA = tuple(spec.alpha is not None for spec in BY_CODE)
_FROM_Z = tuple(spec.derivative_from == "z" for spec in BY_CODE)
_RECTIFIERS = tuple(spec.rectifier for spec in BY_CODE)


@jit
def is_activation(activation, alpha):
    """Whether there is an activation of this code, and alpha is one of its parameters where it has one."""
    if activation < 0 or activation >= N_ACTIVATIONS:
        return False
    return not _HAS_ALPHA[activation] or (alpha >= _LOWEST_ALPHA[activation] and alpha < _ALPHA_LIMIT[activation])


@jit
def needs_z(activation):
    """Whether the derivative is taken from z, which must be kept, and not from the output."""
    return 0 <= activation < N_ACTIVATIONS and _FROM_Z[activation]


@jit
def is_rectifier(activation):
    """Whether the derivative depends on the sign of the output alone."""
    return 0 <= activation < N_ACTIVATIONS and _RECTIFIERS[activation]


# --- one function for each activation: its value or its derivative for a block of numbers ---


def _of_vector(what: str) -> Any:
    """A function of compiled code, f(code, vector, alpha): the `what` of the spec with that code, a constant there."""

    def function(code, v, alpha):
        raise TypeError("works inside compiled code only")

    @overload(function, prefer_literal=True)
    def resolve(code, v, alpha):
        implementation = getattr(BY_CODE[code.literal_value], what)
        return lambda code, v, alpha: implementation(v, alpha)

    return function


value_of, derivative_of = _of_vector("value"), _of_vector("derivative")


def _block_signature(x: types.Type) -> tuple[types.Type, ...]:
    n, p = types.int64, types.CPointer(x)
    return n, p, n, p, n, p, n, n, n, x, x


def _block_function(code: int) -> Any:
    """`apply_activation` of one activation. The code is a number in a closure, by which the cache tells the functions apart."""

    def block(derivative, out, out_stride, d, d_stride, x, x_stride, rows, columns, alpha, factor):
        lanes = lanes_of(out)
        slope = broadcast(alpha)
        for r in range(rows):
            result, values = pointer(out, r * out_stride), pointer(x, r * x_stride)
            if derivative:
                times, scale = pointer(d, r * d_stride), broadcast(factor)
                for i in range(0, columns, lanes):
                    n = columns - i
                    slopes = derivative_of(code, scale * load_up_to(values, i, n), slope)
                    store_up_to(result, i, load_up_to(times, i, n) * slopes, n)
            else:
                for i in range(0, columns, lanes):
                    n = columns - i
                    store_up_to(result, i, value_of(code, load_up_to(values, i, n), slope), n)

    block.__name__ = block.__qualname__ = f"{BY_CODE[code].name}_block"
    return linked(_block_signature, at_first_call=True)(block)


BLOCKS = tuple(_block_function(code) for code in range(N_ACTIVATIONS))
"""By code; their attribute `linked` compiles one before it is needed: `BLOCKS[GELU].linked.ensure(types.float32)`."""


def switch_of(blocks: Sequence[Any], signature_of: Callable[[types.Type], tuple[types.Type, ...]]) -> Any:
    """A function of compiled code, f(code, arguments): a call of the block of that code, one of ACTIVATIONS; the arguments' last
    one is a number."""

    def call(typingctx: Any, code: Any, *arguments: Any) -> Any:
        element = arguments[-1]

        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            end = builder.append_basic_block("activation_end")
            switch = builder.switch(args[0], end)
            for number, block in enumerate(blocks):
                place = builder.append_basic_block(f"activation_{BY_CODE[number].name}")
                switch.add_case(ir.Constant(ir.IntType(64), number), place)
                builder.position_at_end(place)
                block.linked.emit_call(context, builder, element, list(args[1:]))
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.none(types.int64, *signature_of(element)), codegen

    names = ["typingctx", "code", *inspect.signature(blocks[0].linked.function).parameters]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return intrinsic(call)


_call_block = switch_of(BLOCKS, _block_signature)


@jit
def apply_activation(
    activation, derivative, out, out_stride, d, d_stride, x, x_stride, rows, columns, alpha, factor
):  # fmt: skip
    """out = act(x), or with `derivative` out = d * act'(factor * x), for blocks of numbers whose rows are so far apart.

    x holds z for a value; for a derivative what the spec says: outputs, or z. out may be x or d. A code that there is not
    gives NaN.
    """
    noinline()
    if 0 <= activation < N_ACTIVATIONS:
        _call_block(activation, derivative, out, out_stride, d, d_stride, x, x_stride, rows, columns, alpha, factor)
    else:
        for r in range(rows):
            for i in range(columns):
                out[r * out_stride + i] = number_like(alpha, np.nan)


@jit
def make_ready(activation, x):
    """Compile, or load, what the blocks of an activation need, by a call for no rows: before a parallel region, whose threads
    might otherwise wait for the GIL that a caller of theirs holds."""
    nothing = pointer(x, 0)
    zero = x.dtype.type(0)
    apply_activation(activation, 0, nothing, 0, nothing, 0, nothing, 0, 0, 0, zero, zero)
