"""Every public kernel where things are small, odd or not finite, and on any number of threads."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checking import DTYPES
from kernel_calls import KERNELS, arguments, contents

import fastdl_kernels as fk

ROOT = Path(__file__).resolve().parent.parent
ODD = {"B": 19, "I": 21, "O": 35, "N": 19, "P": 37}
# Large enough for every kernel to take a parallel region, with tails everywhere.
LARGE = {"B": 301, "I": 203, "O": 157, "N": 157, "P": 100_003}
every_kernel = pytest.mark.parametrize("name", KERNELS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def run(name, given):
    """(loss or None, name -> output)."""
    loss = KERNELS[name](*given.values())
    return loss, {key: given[key] for key in KERNELS[name].rules.outputs}


def arrays_read(kernel):
    """Float arrays whose values count: inputs, and what an optimizer updates in place."""
    outputs = () if kernel.__name__.endswith("_step") else kernel.rules.outputs
    refused = {*kernel.rules.labels, *kernel.rules.limits}  # no NaN is within limits
    return [key for key in kernel.rules.shapes if key not in outputs and key not in refused]


@every_dtype
@pytest.mark.parametrize(("name", "key"), [(name, key) for name, k in KERNELS.items() for key in arrays_read(k)])
@pytest.mark.parametrize("sizes", [ODD, LARGE], ids=["odd", "large"])
def test_nan_in_gives_nan_out(name, key, dtype, sizes):
    """From the first element, the last and one between; outputs that were NaN before do not stay so without a reason."""
    given = arguments(KERNELS[name], dtype, sizes)
    for output in KERNELS[name].rules.outputs:
        if not name.endswith("_step"):
            given[output][...] = np.nan
    loss, outputs = run(name, given)
    assert loss is None or math.isfinite(loss)
    assert all(np.isfinite(output).all() for output in outputs.values())
    for place in (0, given[key].size // 2, -1):
        given = arguments(KERNELS[name], dtype, sizes)
        given[key].reshape(-1)[place] = np.nan
        loss, outputs = run(name, given)
        assert loss is None or math.isnan(loss)
        assert any(np.isnan(output).any() for output in outputs.values())
        if name.endswith("_step"):  # element by element: the parameter becomes NaN, and no other number does
            for output in outputs.values():
                assert set(np.flatnonzero(np.isnan(output))) <= {place % sizes["P"]}
            assert np.isnan(outputs["params"][place])


@every_dtype
@pytest.mark.parametrize(
    ("name", "dim"),
    [
        (name, dim)
        for name, k in KERNELS.items()
        for dim in sorted({d for dims in k.rules.shapes.values() for d in dims})
    ],
)
def test_a_dimension_of_size_0(name, dim, dtype):
    """Nothing to do: sums over nothing are 0, means over nothing too, and what is left is written."""
    sizes = ODD | {dim: 0}
    given = arguments(KERNELS[name], dtype, ODD)
    for key, dims in KERNELS[name].rules.shapes.items():
        given[key] = np.resize(given[key], [sizes[d] for d in dims])
    if name == "softmax_cross_entropy" and dim == "N":
        with pytest.raises(ValueError, match="labels from 0 to N - 1"):  # there is no class to name
            run(name, given)
        return
    loss, outputs = run(name, given)
    assert loss is None or loss == 0.0
    if name.startswith("linear_forward") and dim == "I":
        for output in outputs.values():
            np.testing.assert_array_equal(output, np.broadcast_to(given["bias"], output.shape))
    else:
        for key, output in outputs.items():
            if (key, dim) != ("d_bias", "I"):  # whose terms are all there
                np.testing.assert_array_equal(output, 0)


@every_kernel
@every_dtype
def test_one_row(name, dtype):
    """B = 1 is the first row of any batch: for what has a result per row, up to the divisor of the mean."""
    if "B" not in {d for dims in KERNELS[name].rules.shapes.values() for d in dims}:
        return
    several = arguments(KERNELS[name], dtype, ODD)
    one = {}
    for key, value in several.items():
        rows = key in KERNELS[name].rules.shapes and KERNELS[name].rules.shapes[key][0] == "B"
        one[key] = value[:1].copy() if rows else value.copy() if isinstance(value, np.ndarray) else value
    loss, outputs = run(name, several)
    _, single = run(name, one)
    for key in outputs:
        if KERNELS[name].rules.shapes[key][0] == "B":
            factor = 1 if loss is None else ODD["B"]
            np.testing.assert_allclose(
                single[key][0], outputs[key][0] * factor, rtol=64 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps
            )


def moved(value, offset):
    """The same array, so many bytes behind a cache line."""
    raw = np.zeros(value.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    result = raw[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
    result[...] = value
    assert result.ctypes.data % 64 == offset
    return result


@every_kernel
@every_dtype
@pytest.mark.parametrize("sizes", [ODD, LARGE], ids=["odd", "large"])
def test_the_place_in_memory_changes_no_bit(name, dtype, sizes):
    """Arrays may start at any number, not only where a vector or a cache line does."""
    results = set()
    itemsize = np.dtype(dtype).itemsize
    for offset in (0, 8, 24, 56, *((4, 12) if itemsize == 4 else ())):
        given = {
            key: moved(value, 8 if value.dtype == np.int64 else offset) if isinstance(value, np.ndarray) else value
            for key, value in arguments(KERNELS[name], dtype, sizes).items()
        }
        loss, _ = run(name, given)
        results.add((loss, *contents(given).values()))
    assert len(results) == 1


def digests():
    """kernel and dtype -> a hash of all results at a size that is split among threads."""
    result = {}
    for name in KERNELS:
        for dtype in DTYPES:
            given = arguments(KERNELS[name], dtype, LARGE)
            loss, _ = run(name, given)
            everything = b"".join(contents(given).values()) + np.float64(loss or 0).tobytes()
            result[f"{name} {dtype}"] = hashlib.sha256(everything).hexdigest()
    return result


THREADS = """
import json, numba, test_kernel_edges
results = []
for n in (5, 1, 3, 4, 2):
    numba.set_num_threads(n)
    results.append(test_kernel_edges.digests())
print(json.dumps(results))
"""


def test_the_number_of_threads_changes_no_bit():
    """Five threads, and any number of them, whatever this machine has; the same as in this process."""
    paths = [str(ROOT / "kernels"), str(ROOT / "tests")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NUMBA_NUM_THREADS": "5"}
    done = subprocess.run([sys.executable, "-c", THREADS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [digests()] * 5


def test_large_is_large_enough():
    """The sizes above do go parallel, by the kernels' own limits."""
    from fastdl_kernels.kernel import SERIAL_WORK
    from fastdl_kernels.losses import CHUNK
    from fastdl_kernels.optimizers import RANGE

    assert LARGE["B"] * LARGE["I"] * LARGE["O"] > SERIAL_WORK
    assert LARGE["B"] * LARGE["N"] > 2 * CHUNK
    assert LARGE["P"] > 2 * RANGE
    assert set(KERNELS) == {name for name in fk.__all__ if callable(getattr(fk, name))}
