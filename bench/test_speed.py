"""The speed of every kernel, of training and of prediction, for the tools of pytest-benchmark.

    pytest bench --benchmark-only                       everything: some minutes
    pytest bench --benchmark-only --cases quick         fewer shapes
    pytest bench --benchmark-only -k adam_step          by name
    pytest bench --benchmark-only --benchmark-autosave  and --benchmark-compare, --benchmark-compare-fail=min:10%

Each case checks its result against NumPy before it is timed. The calls are made in this process, on as many threads as Numba
has; pytest-benchmark chooses their number. `extra_info` holds GFLOP/s, the share of the peak (measured once for the session)
and how many times as long NumPy takes, measured right afterwards in rounds of its own: a few calls here, a few in a process of
NumPy's, by turns. Without --benchmark-only every case runs once, on a small shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastdl
from fastdl_bench import latency
from fastdl_bench.beside import Session, numbers
from fastdl_bench.cases import KERNEL_CASES, QUICK_KERNELS, SMALL_KERNELS, WORKLOADS, KernelCase, Workload
from fastdl_bench.data import LEARNING_RATE, SEED, training_data
from fastdl_bench.latency import SAME, Prediction
from fastdl_bench.peers import fastdl as fastdl_peer
from fastdl_bench.peers import kernels_fastdl, predict
from fastdl_bench.peers import numpy as numpy_peer
from fastdl_bench.peers.operations import checked, timed
from fastdl_bench.training import LIBRARIES, disagreement

EPOCH_FLOP = 3e10  # of an epoch: half a second at 60 GFLOP/s
QUICK_EPOCH_FLOP = 2e9
QUICK_WORKLOADS = [name for name in WORKLOADS if name != "large"]
CHECKED_EPOCHS = 2


def _kernels(which: str) -> dict[str, str]:
    names = {"small": SMALL_KERNELS, "quick": QUICK_KERNELS, "all": tuple(KERNEL_CASES)}[which]
    return {name: KernelCase.of(name).op for name in names}


def _named(names: list[str], which: str, group: str) -> dict[str, str]:
    """Small ones have names of their own: they are never compared with what is measured."""
    return {f"small-{name}" if which == "small" else name: group for name in names}


CASES: dict[str, Callable[[str], dict[str, str]]] = {
    "kernel": _kernels,
    "workload": lambda which: _named(
        QUICK_WORKLOADS if which == "quick" else list(WORKLOADS), which, "training, an epoch"
    ),
    "prediction": lambda which: _named(list(latency.CASES), which, "prediction, a call"),
}
"""argument of a test -> its cases by name, with the group of each, for --cases small, quick or all."""


def report(benchmark: Any, beside: Session, flop: int, against: Callable[[], dict[str, float]], **more: Any) -> None:
    """Fill extra_info, where times were taken by pytest-benchmark (CodSpeed has no times to look at here)."""
    stats = getattr(benchmark, "stats", None)
    if stats is None:
        return
    seconds = stats.stats.median
    ratio = {f"numpy_ratio{k}": v for k, v in zip(("", "_low", "_high"), against().values(), strict=True)}
    benchmark.extra_info |= numbers(flop, seconds, beside, more.pop("bytes", 0)) | ratio | more


def test_kernel(benchmark: Any, beside: Session, kernel: str) -> None:
    case = KernelCase.of(kernel)
    call, error = checked(kernels_fastdl.OPERATIONS, case)
    benchmark(call)
    setup = {"op": case.op, "shape": case.shape}
    report(
        benchmark, beside, case.flop,
        lambda: beside.against_numpy(timed(call, error), setup, "fastdl_bench.peers.kernels_numpy"),
        bytes=case.bytes, difference=error,
    )  # fmt: skip


def test_training(benchmark: Any, beside: Session, workload: str, request: pytest.FixtureRequest) -> None:
    """An epoch of a trainer that has trained before, its shuffling included."""
    one = workload_of(workload, request.config.getoption("--cases"))
    setup = {"workload": one.as_dict()}
    ours = fastdl_peer.setup(setup)
    loss = ours({"epochs": CHECKED_EPOCHS})["loss"]
    difference = disagreement(LIBRARIES["numpy"], loss, numpy_peer.setup(setup)({"epochs": CHECKED_EPOCHS})["loss"])
    assert difference <= LIBRARIES["numpy"].tolerance
    x, y = training_data(one)
    model = fastdl.MLP(one.layers, activation=one.activation, output=one.output)
    trainer = fastdl.Trainer(model, fastdl.Adam(lr=LEARNING_RATE), batch_size=one.batch, epochs=1, seed=SEED)
    trainer.fit(x, y)
    history = benchmark(trainer.fit, x, y)
    assert np.isfinite(history.loss).all()
    report(
        benchmark, beside, one.flop * one.steps,
        lambda: beside.against_numpy(ours, setup, "fastdl_bench.peers.numpy", unit="epochs"),
        difference=difference, steps=one.steps, rows=one.rows,
    )  # fmt: skip


def test_prediction(benchmark: Any, beside: Session, prediction: str) -> None:
    """`MLP.predict` from Python: the classes of so many rows."""
    case = prediction_of(prediction)
    call = predict.prepared("fastdl", case.workload, case.rows)
    others = int((call() != predict.prepared("numpy", case.workload, case.rows)()).sum())
    assert others <= case.rows // SAME
    benchmark(call)
    setup = {"workload": case.workload.as_dict(), "rows": case.rows}
    report(
        benchmark, beside, case.flop,
        lambda: beside.against_numpy(timed(call, others), setup, "fastdl_bench.peers.predict", "numpy"),
        rows=case.rows,
    )  # fmt: skip


def workload_of(name: str, which: str | None) -> Workload:
    """With epochs that are short enough to be repeated."""
    if name.startswith("small-"):
        return WORKLOADS[name.removeprefix("small-")].small()
    return WORKLOADS[name].shortened(QUICK_EPOCH_FLOP if which == "quick" else EPOCH_FLOP)


def prediction_of(name: str) -> Prediction:
    if name.startswith("small-"):
        return latency.CASES[name.removeprefix("small-")].small()
    return latency.CASES[name]
