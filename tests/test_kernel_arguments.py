"""Wrong arguments of every public kernel: the right exception, a sentence that names them, and nothing written."""

from __future__ import annotations

import inspect
import os
import re

import numba
import numpy as np
import pytest
from kernel_calls import KERNELS, SIZES, arguments, contents, shape_of
from numba.core.errors import TypingError
from processes import layers, run_program

import fastdl_kernels as fk
from fastdl_kernels.activations import SPECS

# What a user can read in the README: written down here once more, so that a rule that got lost is noticed.
OUTPUTS = {
    "absolute_error": {"d_predictions"},
    "adam_step": {"params", "m", "v"},
    "adamw_step": {"params", "m", "v"},
    "huber_loss": {"d_predictions"},
    "linear_backward": {"d_x", "d_weight", "d_bias"},
    "linear_forward": {"out"},
    "linear_forward_keep": {"z", "out"},
    "log_softmax": {"out"},
    "momentum_step": {"params", "velocity"},
    "nesterov_step": {"params", "velocity"},
    "poisson_loss": {"d_log_rates"},
    "quantile_loss": {"d_predictions"},
    "rmsprop_step": {"params", "mean_square"},
    "sgd_step": {"params"},
    "sigmoid_cross_entropy": {"d_logits"},
    "softmax": {"out"},
    "softmax_cross_entropy": {"d_logits"},
    "squared_error": {"d_predictions"},
}
every_kernel = pytest.mark.parametrize("name", KERNELS)


@pytest.fixture(scope="module")
def compiled():
    """kernel name -> a user's compiled function that hands a tuple of arguments to it."""
    callers = {}

    def caller(name):
        if name not in callers:
            kernel = KERNELS[name]

            @numba.njit
            def call(args):
                return kernel(*args)

            callers[name] = call
        return callers[name]

    return caller


def refused(call, given, error, *words):
    """Assert that call(**given) raises `error` in one sentence with all words, and writes nothing."""
    before = contents(given)
    with pytest.raises(error) as caught:
        call(**given)
    message = str(caught.value)
    assert caught.type is error
    assert "\n" not in message
    for word in words:
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message), message
    assert contents(given) == before


def arrays_of(kernel):
    return list(kernel.rules.shapes)


def numbers_of(kernel):
    return [name for name in kernel.rules.names if name not in kernel.rules.shapes]


def each(select):
    """Parameters (kernel name, name of one of its arguments)."""
    return pytest.mark.parametrize(
        ("name", "key"), [(name, key) for name, kernel in KERNELS.items() for key in select(kernel)]
    )


def wrong_types(kernel, key, value):
    """What an array argument must not be, each with words that the sentence must hold."""
    half = np.empty((*value.shape[:-1], 2 * value.shape[-1]), value.dtype)[..., ::2]
    half[...] = value
    yield half, ["C-contiguous"]
    yield value.reshape(1, *value.shape), [f"{value.ndim} dimension"]
    yield value.reshape(-1) if value.ndim > 1 else value.reshape(-1, 1), [f"{value.ndim} dimension"]
    if value.ndim == 2:
        yield np.asfortranarray(value), ["C-contiguous"]
    if key in kernel.rules.labels:
        for dtype in ("int32", "uint64", "float64", "bool"):
            yield value.astype(dtype), ["int64", dtype]
    else:
        for dtype in ("int64", "float16", "complex128", "bool"):
            yield value.astype(dtype), ["float32 or float64", dtype]
        yield value.astype("float32"), ["one dtype", "float32", "float64"]
    if key in OUTPUTS[kernel.__name__]:
        frozen = value.copy()
        frozen.flags.writeable = False
        yield frozen, ["writable"]


@every_kernel
def test_outputs_are_what_a_call_writes(name):
    given = arguments(KERNELS[name])
    before = contents(given)
    KERNELS[name](**given)
    assert {key for key, data in contents(given).items() if data != before[key]} == OUTPUTS[name]
    assert set(KERNELS[name].rules.outputs) == OUTPUTS[name]


@every_kernel
def test_inputs_may_be_read_only(name):
    """And the results are the same."""
    kernel = KERNELS[name]
    plain, frozen = arguments(kernel), arguments(kernel)
    for key in set(kernel.rules.shapes) - OUTPUTS[name]:
        frozen[key].flags.writeable = False
    kernel(**plain)
    kernel(*frozen.values())
    assert contents(plain) == contents(frozen)


@each(arrays_of)
def test_a_wrong_array(name, key):
    kernel = KERNELS[name]
    floats = [k for k in arrays_of(kernel) if k not in kernel.rules.labels]
    for wrong, words in wrong_types(kernel, key, arguments(kernel)[key]):
        # Of two dtypes the second one is the odd one out.
        named = floats[1] if words[0] == "one dtype" and key == floats[0] else key
        refused(kernel, arguments(kernel) | {key: wrong}, TypeError, name, named, *words)


@each(arrays_of)
@pytest.mark.parametrize("wrong", [None, 1.0, [1.0, 2.0], np.float64(3), np.array(["a"], object), np.array(b"x")])
def test_no_array_at_all(name, key, wrong):
    refused(KERNELS[name], arguments(KERNELS[name]) | {key: wrong}, TypeError, name, key)


@each(arrays_of)
def test_an_array_of_a_wrong_shape(name, key):
    """One row or one column more or less, in every dimension."""
    kernel = KERNELS[name]
    sizes = shape_of(kernel, key)
    for axis in range(len(sizes)):
        for change in (-1, 1):
            shape = [size + change * (i == axis) for i, size in enumerate(sizes)]
            wrong = np.zeros(shape, np.int64 if key in kernel.rules.labels else np.float64)
            refused(kernel, arguments(kernel) | {key: wrong}, ValueError, name, "expected")


def overlapping(kernel, output, other, distance):
    """Arguments in which `other` starts `distance` bytes before the end of `output`."""
    given = arguments(kernel)
    end = given[output].nbytes
    memory = np.zeros(end + given[other].nbytes, np.uint8)
    for key, start in ((output, 0), (other, end - distance)):
        view = memory[start : start + given[key].nbytes].view(given[key].dtype).reshape(given[key].shape)
        view[...] = given[key]
        given[key] = view
    return given


@each(lambda kernel: OUTPUTS[kernel.__name__])
def test_an_output_that_shares_memory(name, key):
    """One element in common is refused, both ways round; neighbours in memory are not."""
    kernel = KERNELS[name]
    for other in set(arrays_of(kernel)) - {key}:
        refused(kernel, overlapping(kernel, key, other, 8), ValueError, name, "memory of its own", key, other)
        refused(kernel, overlapping(kernel, other, key, 8), ValueError, name, "memory of its own", key, other)
        apart, plain = overlapping(kernel, key, other, 0), arguments(kernel)
        kernel(**apart)
        kernel(**plain)
        assert contents(apart) == contents(plain)


@each(numbers_of)
@pytest.mark.parametrize("wrong", [None, "1", True, np.bool_(False), 1j, np.ones(3), np.array(1.0), [1], 1 << 70])
def test_a_wrong_number(name, key, wrong):
    refused(KERNELS[name], arguments(KERNELS[name]) | {key: wrong}, TypeError, name, key, "number")


@each(lambda kernel: {"activation", "step"} & set(kernel.rules.names))
def test_a_number_that_must_be_whole(name, key):
    refused(KERNELS[name], arguments(KERNELS[name]) | {key: 1.0}, TypeError, name, key, "whole number")
    for kind in (np.int32, np.uint8, np.int64):
        KERNELS[name](**arguments(KERNELS[name]) | {key: kind(1)})


@each(lambda kernel: {"activation"} & set(kernel.rules.names))
def test_an_activation_that_there_is_not(name, key):
    for wrong in (-1, len(fk.ACTIVATIONS), 1 << 40, np.uint64(2**64 - 1)):
        refused(KERNELS[name], arguments(KERNELS[name]) | {key: wrong}, ValueError, name, key, "relu", str(wrong))


@each(lambda kernel: kernel.rules.limits)
def test_a_number_beyond_its_limits(name, key, compiled):
    """At the end where it may not be, beyond both, infinite and NaN; from Python and from compiled code."""
    kernel, limit = KERNELS[name], KERNELS[name].rules.limits[key]
    wrong = [limit.lowest - 0.5, limit.limit, np.inf, -np.inf, np.nan, *([limit.lowest] if limit.open else [])]
    for number in wrong:
        value = np.full(shape_of(kernel, key), number) if key in kernel.rules.shapes else float(number)
        refused(kernel, arguments(kernel) | {key: value}, ValueError, name, key, limit.meaning)
        with pytest.raises(ValueError, match=f"^{name}: expected {key}"):
            compiled(name)(tuple((arguments(kernel) | {key: value}).values()))


@each(lambda kernel: {"alpha"} & set(kernel.rules.names))
def test_an_alpha_beyond_its_limits(name, key):
    for activation, spec in SPECS.items():
        for wrong in (-0.5, 1.0, np.inf, np.nan):
            given = arguments(KERNELS[name]) | {"activation": spec.code, key: wrong}
            if spec.alpha is None or spec.alpha.lowest <= wrong < spec.alpha.limit:
                KERNELS[name](**given)
            else:
                refused(KERNELS[name], given, ValueError, name, f"{key} of {activation}")


@pytest.mark.parametrize(
    "name", [name for name in KERNELS if KERNELS[name].rules.fewest < len(KERNELS[name].rules.names)]
)
def test_an_argument_that_is_left_out(name):
    """Its default, from Python and from compiled code."""
    kernel, given = KERNELS[name], arguments(KERNELS[name])
    few = list(given.values())[: kernel.rules.fewest]
    defaults = list(inspect.signature(kernel).parameters.values())[len(few) :]
    want = kernel(*few, *(p.default for p in defaults))
    written = contents(given)
    for call in (kernel, numba.njit(lambda *args: kernel(*args))):
        for output in kernel.rules.outputs:
            given[output][...] = np.nan
        assert call(*few) == want
        assert contents(given) == written


def test_counts_below_0():
    given = arguments(fk.poisson_loss)
    given["targets"][-1, -1] = -1e-3
    refused(fk.poisson_loss, given, ValueError, "poisson_loss", "targets")


@each(lambda kernel: {"step"} & set(kernel.rules.names))
def test_steps_count_from_one(name, key):
    for wrong in (0, -1):
        refused(KERNELS[name], arguments(KERNELS[name]) | {key: wrong}, ValueError, name, key, "at least 1")


@pytest.mark.parametrize("wrong", [-1, SIZES["N"], 1 << 40, -(1 << 63)])
def test_labels_out_of_range(wrong):
    given = arguments(fk.softmax_cross_entropy)
    given["labels"][-1] = wrong
    refused(fk.softmax_cross_entropy, given, ValueError, "softmax_cross_entropy", "labels")


@every_kernel
def test_a_wrong_list_of_arguments(name):
    kernel, given = KERNELS[name], arguments(KERNELS[name])
    fewest = kernel.rules.fewest
    values, last = list(given.values()), list(given)[fewest - 1]
    for call, words in [
        (lambda **_: kernel(*values[: fewest - 1]), [str(len(values)), last]),
        (lambda **_: kernel(*values, 1), [str(len(values)), last]),
        (lambda **_: kernel(), [str(len(values)), last]),
        (lambda **_: kernel(**given, colour=1), ["colour"]),
        (lambda **_: kernel(*values, **{last: given[last]}), [last]),
        (lambda **_: kernel(**{key: value for key, value in given.items() if key != last}), [last]),
    ]:
        refused(call, given, TypeError, name, *words)


@each(arrays_of)
def test_a_wrong_array_in_compiled_code(name, key, compiled):
    """A type that a kernel does not take stops the compilation of its caller, with the same sentence."""
    kernel = KERNELS[name]
    for wrong, words in wrong_types(kernel, key, arguments(kernel)[key]):
        given = arguments(kernel) | {key: wrong}
        before = contents(given)
        with pytest.raises(TypingError) as caught:
            compiled(name)(tuple(given.values()))
        for word in (f"{name}: expected", words[0]):
            assert word in str(caught.value)
        assert contents(given) == before


@each(numbers_of)
def test_a_wrong_number_in_compiled_code(name, key, compiled):
    for wrong in (True, 1j, *((1.5,) if key in ("activation", "step") else ())):
        with pytest.raises(TypingError, match=rf"{name}: expected a (whole )?number for {key}, got"):
            compiled(name)(tuple((arguments(KERNELS[name]) | {key: wrong}).values()))


@every_kernel
def test_wrong_values_in_compiled_code(name, compiled):
    """Shapes, overlaps, codes and labels raise ValueError, with a short sentence, before anything is written."""
    kernel, call = KERNELS[name], compiled(name)
    assert call(tuple(arguments(kernel).values())) == kernel(*arguments(kernel).values())
    output = sorted(OUTPUTS[name])[0]
    other = next(key for key in arrays_of(kernel) if key != output)
    cases = [arguments(kernel) | {other: np.ones([n + 1 for n in shape_of(kernel, other)])}]
    cases += [overlapping(kernel, output, other, 8)]
    cases += [arguments(kernel) | {"activation": wrong} for wrong in (-1, 99) if "activation" in kernel.rules.names]
    cases += [arguments(kernel) | {"labels": np.full(SIZES["B"], 99)} for _ in range("labels" in kernel.rules.names)]
    cases += [arguments(kernel) | {"step": 0} for _ in range("step" in kernel.rules.names)]
    for given in cases:
        before = contents(given)
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            call(tuple(given.values()))
        assert contents(given) == before


# --- threads of Python, and children of fork, under each threading layer ---


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("layer", layers())
def test_python_threads_and_forked_children(layer):
    """Two threads with kernels and one with a training, then a child of fork: the same bits, the same sentences."""
    run_program("python_threads.py", layer, NUMBA_THREADING_LAYER=layer)
