"""Every optimizer of the kernels' registry against its naive form."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import reference
from checking import DTYPES, assert_close

import fastdl_kernels as fk
from fastdl_kernels.optimizers import OPTIMIZERS

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def step(spec, params, grads, states, number, lr, numbers):
    spec.step(params, grads, *states, *([number] if spec.counts_steps else []), lr, *numbers)


def test_every_step_kernel_is_registered():
    kernels = {name.removesuffix("_step") for name in fk.__all__ if name.endswith("_step")}
    assert kernels == set(OPTIMIZERS) == set(reference.OPTIMIZERS)


@every_optimizer
def test_the_spec_names_the_arguments_of_the_kernel(name):
    spec = OPTIMIZERS[name]
    wanted = ["params", "grads", *spec.states, *["step"] * spec.counts_steps, "lr", *spec.hyperparameters]
    assert list(inspect.signature(spec.step).parameters) == wanted
    assert set(spec.step.rules.outputs) == {"params", *spec.states}


@every_optimizer
@pytest.mark.parametrize("dtype", DTYPES)
def test_ten_steps(rng, name, dtype):
    spec = OPTIMIZERS[name]
    params = rng.normal(size=37).astype(dtype)
    states = [np.zeros(37, dtype) for _ in spec.states]
    want, want_states = params.astype(np.float64), [np.zeros(37)] * len(states)
    for number in range(1, 11):
        grads = rng.normal(size=37).astype(dtype)
        step(spec, params, grads, states, number, 0.01, spec.hyperparameters.values())
        want, want_states = reference.OPTIMIZERS[name](
            want, reference.f64(grads), want_states, number, 0.01, **spec.hyperparameters
        )  # fmt: skip
    rtol = 1e-5 if dtype == "float32" else 1e-12
    assert_close(params, want, rtol)
    for state, wanted in zip(states, want_states, strict=True):
        assert_close(state, wanted, rtol)
