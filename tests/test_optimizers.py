"""Optimizer kernels against naive references and hand-worked numbers, and the optimizer classes."""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
import reference
from checking import DTYPES, Arena, assert_close, eps

import fastdl
import fastdl_kernels as fk
from fastdl.optimizers import OPTIMIZERS
from fastdl_kernels.optimizers import JOBS_PER_THREAD, RANGE

SIZES = [0, 1, 7, 64, 1000, 20011]  # the last one is more than one range
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
every_kernel = pytest.mark.parametrize(
    ("name", "optimizer"),
    [(name, cls()) for name, cls in OPTIMIZERS.items()] + [("momentum", fastdl.Momentum(nesterov=True))],
    ids=[*OPTIMIZERS, "nesterov"],
)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
aligned_or_not = pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])


def step_kernel(name, params, grads, states, step, hyper):
    """One call of the kernel, with its hyper-parameters in the order of the class's fields."""
    count = (step,) if name.startswith("adam") else ()
    hyper = dict(hyper)
    if hyper.pop("nesterov", False):
        name = "nesterov"
    getattr(fk, f"{name}_step")(params, grads, *states, *count, *hyper.values())


@every_kernel
@every_dtype
@pytest.mark.parametrize("size", SIZES)
@aligned_or_not
def test_follows_the_reference_for_20_steps(rng, name, optimizer, dtype, size, offset):
    hyper = optimizer.hyperparameters()
    arena = Arena(dtype, offset)
    params, states = arena.output(size), [arena.output(size) for _ in range(optimizer.n_states)]
    params[:] = rng.normal(size=size)
    for state in states:
        state[:] = 0
    want, want_states = params.astype(np.float64), [np.zeros(size)] * optimizer.n_states
    slopes = rng.normal(size=size)
    for step in range(1, 21):
        grads = (slopes + rng.normal(size=size)).astype(dtype)
        step_kernel(name, params, arena.input(grads), states, step, hyper)
        want, want_states = reference.OPTIMIZERS[name](want, reference.f64(grads), want_states, step, **hyper)
    arena.check()
    rtol = 1e-6 if dtype == "float32" else 1e-12
    assert_close(params, want, rtol * np.maximum(1, np.abs(want)), "parameters")
    for state, want_state in zip(states, want_states, strict=True):
        assert_close(state, want_state, 3 * rtol * np.maximum(1, np.abs(want_state)), "state")


HAND_WORKED = [
    # name, theta, g, states, step, hyper-parameters -> new theta, new states
    ("sgd", 1.0, 0.5, (), 1, {"lr": 0.1}, 0.95, ()),
    # v = 0.9 * 2 + 0.1 * 0.5 = 1.85; theta = 1 - 0.1 * 1.85
    ("momentum", 1.0, 0.5, (2.0,), 1, {"lr": 0.1, "beta": 0.9, "nesterov": False}, 0.815, (1.85,)),
    # the same v; theta = 1 - 0.1 * (0.9 * 1.85 + 0.1 * 0.5)
    ("momentum", 1.0, 0.5, (2.0,), 1, {"lr": 0.1, "beta": 0.9, "nesterov": True}, 0.8285, (1.85,)),
    # s = 0.75 * 0 + 0.25 * 16 = 4; sqrt(4 + 5) = 3, epsilon inside the root; theta = 1 - 0.3 * 4 / 3
    ("rmsprop", 1.0, 4.0, (0.0,), 1, {"lr": 0.3, "beta": 0.75, "eps": 5.0}, 0.6, (4.0,)),
    # m = 0.5 * 2 = 1, m̂ = 1 / 0.5 = 2; v = 0.25 * 4 = 1, v̂ = 1 / 0.25 = 4; sqrt(4) + 2 = 4, epsilon outside the root;
    # theta = 1 - 0.2 * 2 / 4
    ("adam", 1.0, 2.0, (0.0, 0.0), 1, {"lr": 0.2, "beta1": 0.5, "beta2": 0.75, "eps": 2.0}, 0.9, (1.0, 1.0)),
    # step 2: m = 0.5 + 1 = 1.5, m̂ = 1.5 / 0.75 = 2; v = 0.75 + 1 = 1.75, v̂ = 1.75 / 0.4375 = 4
    ("adam", 0.9, 2.0, (1.0, 1.0), 2, {"lr": 0.2, "beta1": 0.5, "beta2": 0.75, "eps": 2.0}, 0.8, (1.5, 1.75)),
    # as the first, and 0.2 * 0.5 * theta less
    (
        "adamw",
        1.0,
        2.0,
        (0.0, 0.0),
        1,
        {"lr": 0.2, "beta1": 0.5, "beta2": 0.75, "eps": 2.0, "weight_decay": 0.5},
        0.8,
        (1.0, 1.0),
    ),
]


@pytest.mark.parametrize("case", HAND_WORKED, ids=lambda case: f"{case[0]}-{case[4]}")
@every_dtype
def test_hand_worked_step(case, dtype):
    name, theta, g, states, step, hyper, want, want_states = case
    assert list(hyper) == [field.name for field in dataclasses.fields(OPTIMIZERS[name])]
    params, buffers = np.array([theta], dtype), [np.array([s], dtype) for s in states]
    step_kernel(name, params, np.array([g], dtype), buffers, step, hyper)
    assert params[0] == pytest.approx(want, rel=2 * eps(dtype))
    assert [b[0] for b in buffers] == [pytest.approx(s, rel=2 * eps(dtype)) for s in want_states]
    naive, naive_states = reference.OPTIMIZERS[name](theta, g, states, step, **hyper)
    assert naive == pytest.approx(want, rel=1e-15)
    assert naive_states == pytest.approx(list(want_states), rel=1e-15)


@every_optimizer
@every_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_shows(name, dtype, value):
    """NaN in gives NaN out, in its own cell only, and an infinite gradient leaves no parameter that looks finite."""
    hyper = OPTIMIZERS[name]().hyperparameters()
    params, grads = np.ones(37, dtype), np.ones(37, dtype)
    grads[35] = value
    step_kernel(name, params, grads, [np.zeros(37, dtype) for _ in range(OPTIMIZERS[name]().n_states)], 1, hyper)
    np.testing.assert_array_equal(~np.isfinite(params), np.arange(37) == 35)
    if np.isnan(value):
        assert np.isnan(params[35])


@every_optimizer
@every_dtype
def test_a_zero_gradient_from_rest_moves_nothing(name, dtype):
    """0 / (sqrt(0) + eps) is 0, also where float32 could round eps away."""
    params = np.linspace(-1, 1, 33).astype(dtype)
    states = [np.zeros(33, dtype) for _ in range(OPTIMIZERS[name]().n_states)]
    before = params.copy()
    hyper = OPTIMIZERS[name]().hyperparameters()
    if "weight_decay" in hyper:
        hyper["weight_decay"] = 0.0
    step_kernel(name, params, np.zeros(33, dtype), states, 1, hyper)
    np.testing.assert_array_equal(params, before)
    assert not any(s.any() for s in states)


@every_kernel
@pytest.mark.parametrize("size", [100, 20_011], ids=["one-range", "several-ranges"])
def test_subnormal_numbers_count_as_0(name, optimizer, size):
    """On the calling thread and on others, and the caller's own arithmetic keeps them."""
    small = np.float32(1e-40)
    params, grads = np.full(size, small), np.full(size, small)
    states = [np.full(size, small) for _ in range(optimizer.n_states)]
    step_kernel(name, params, grads, states, 1, optimizer.hyperparameters())
    assert not params.any()
    assert not any(s.any() for s in states)
    assert grads.all()
    assert np.full(size, small).sum() > 0


@every_dtype
def test_adam_bias_correction_early_and_late(dtype):
    """A constant gradient: m̂ = g and v̂ = g²: every step is lr g / (g + eps), the first and the millionth."""
    g, want = np.full(5, 3.0, dtype), np.full(5, -0.5 * 3.0 / (3.0 + 1e-8))
    hyper = fastdl.Adam(lr=0.5).hyperparameters()
    params, m, v = (np.zeros(5, dtype) for _ in range(3))
    step_kernel("adam", params, g, [m, v], 1, hyper)
    assert_close(params, want, 4 * eps(dtype))
    params, m, v = np.zeros(5, dtype), g.copy(), g * g
    step_kernel("adam", params, g, [m, v], 1_000_000, hyper)
    assert_close(params, want, 4 * eps(dtype))


def test_kernels_work_on_slices():
    """A part of a flat buffer can be stepped alone."""
    params, grads = np.ones(100), np.ones(100)
    fk.sgd_step(params[10:31], grads[10:31], 0.25)
    np.testing.assert_array_equal(params, np.where((np.arange(100) >= 10) & (np.arange(100) < 31), 0.75, 1.0))


@every_kernel
def test_large_buffers_are_stepped_as_their_parts_are(rng, name, optimizer, thread_counts):
    """Also where a job is longer than RANGE; each parameter moves once, by the same bits."""
    size = 2 * JOBS_PER_THREAD * RANGE + 4321
    grads = rng.normal(size=size).astype(np.float32)
    hyper = optimizer.hyperparameters()
    arrays = [rng.uniform(size=size).astype(np.float32) for _ in range(1 + optimizer.n_states)]
    parts = [array.copy() for array in arrays]
    for start in range(0, size, RANGE):
        part = slice(start, start + RANGE)
        step_kernel(name, parts[0][part], grads[part], [state[part] for state in parts[1:]], 3, hyper)
    for n_threads in thread_counts:
        numba.set_num_threads(n_threads)
        whole = [array.copy() for array in arrays]
        step_kernel(name, whole[0], grads, whole[1:], 3, hyper)
        for got, want in zip(whole, parts, strict=True):
            np.testing.assert_array_equal(got, want)


def test_default_hyperparameters():
    """The defaults that the README and the issue of each optimizer promise."""
    assert fastdl.Momentum().beta == 0.9
    assert fastdl.RMSProp().beta == 0.9
    adam = fastdl.Adam()
    assert (adam.lr, adam.beta1, adam.beta2, adam.eps) == (1e-3, 0.9, 0.999, 1e-8)


@every_optimizer
def test_optimizers_are_immutable_values(name):
    optimizer = OPTIMIZERS[name](lr=0.25)
    assert optimizer == OPTIMIZERS[name](lr=0.25)
    assert optimizer.hyperparameters()["lr"] == 0.25
    with pytest.raises(dataclasses.FrozenInstanceError):
        optimizer.lr = 1.0


BAD = [(cls, field.name, value) for cls in OPTIMIZERS.values() for field in dataclasses.fields(cls)
       for value in (-0.1, float("nan"), float("inf"), "0.1", None, True) if field.name != "nesterov"]  # fmt: skip
BAD += [(cls, "lr", 0) for cls in OPTIMIZERS.values()]
BAD += [
    (fastdl.Momentum, "beta", 1.0),
    (fastdl.Adam, "beta1", 1.0),
    (fastdl.Adam, "beta2", 1.5),
    (fastdl.RMSProp, "eps", 0.0),
    (fastdl.Momentum, "nesterov", 1),
    (fastdl.Momentum, "nesterov", "yes"),
]


@pytest.mark.parametrize(("cls", "field", "value"), BAD, ids=lambda v: getattr(v, "__name__", repr(v)))
def test_a_bad_hyperparameter_is_refused(cls, field, value):
    with pytest.raises(fastdl.InputError, match=rf"{cls.__name__}: expected {field} .*, got {value!r}"):
        cls(**{field: value})
