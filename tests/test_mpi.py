"""Training on several ranks of a real MPI launcher: the parameters of one rank, whatever is asked for."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np
import pytest
from launching import PROGRAMS, run, start

import fastdl
from fastdl.distributed import launch
from fastdl.distributed.reduction import rounded, widened
from fastdl.distributed.shared_reduction import shared_memory

sys.path.insert(0, str(PROGRAMS))
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=[2, 4])
def found(request, tmp_path_factory):
    """What `mpi_training` has found on so many ranks."""
    path = tmp_path_factory.mktemp("ranks") / "found.json"
    run(request.param, PROGRAMS / "mpi_training.py", path)
    return json.loads(path.read_text())


def test_parameters_are_those_of_one_rank(found):
    cases = {name: case for name, case in found.items() if "difference" in case}
    assert len(cases) == 22
    for name, case in cases.items():
        most = 1e-12 if name == "float64" else TOLERANCE
        assert case["difference"] <= most, name
        assert case["states"] <= 10 * most, name
        assert case["losses"] <= most, name
        assert case["epochs"][0] == case["epochs"][1], name
        assert case["best"][0] == case["best"][1], name
        assert case["same again"], name
        assert case["same on all"], name
        assert case["same by messages"], name
        assert case["reads the others"] == (hasattr(os, "memfd_create") and not name.startswith("in blocks")), name
    assert cases["in blocks"]["blocks"] > 1
    assert cases["in blocks without a limit"]["blocks"] > 2
    assert cases["early stopping"]["epochs"][0] < 30


@pytest.mark.parametrize("way", ["bfloat16", "local"])
def test_other_ways_learn_and_agree(found, way):
    """Rounded on the wire, or averaged every third step: other parameters, the same on all ranks and each time."""
    result = found["other ways"][way]
    first, last, alone = result["losses"]
    assert last < first - 0.05
    assert last == pytest.approx(alone, rel=0.05)
    assert result["same again"]
    assert result["same on all"]


def test_all_ranks_refuse_what_is_not_the_same(found):
    said = found["refusals"]
    assert len({refusal["rows"] for refusal in said}) == 1
    assert "rows: expected the same on all ranks, got 204 on rank 1 and 203 on rank 0" in said[0]["rows"]
    assert all("lower the learning rate" in refusal["diverged"] for refusal in said)
    for refusal in said:
        assert refusal["many"].startswith("trainers[0]: expected no communicator, since whole models are spread")
        assert refusal["partial"].startswith("partial_fit: expected a trainer without a communicator, got one of ")
        assert refusal["chunks"].startswith(
            "communicator: expected X and y, of which each rank reads its own rows, got chunks"
        )
        assert refusal["copy"]
        assert "computing" in refusal["explained"]
        assert "waiting for others" in refusal["explained"]


def test_four_ranks_are_interrupted_and_two_go_on(tmp_path):
    """Ctrl-C that reaches one of them ends all after the same step, in the middle of an epoch."""
    from mpi_checkpoints import data, trainer_of

    run(4, PROGRAMS / "mpi_checkpoints.py", "interrupted", tmp_path)
    assert 3 * 13 < int((tmp_path / "steps").read_text()) < 6 * 13
    run(2, PROGRAMS / "mpi_checkpoints.py", "resumed", tmp_path)
    alone = trainer_of(None)
    alone.fit(*data())
    first, second = (np.load(tmp_path / f"resumed{rank}.npy") for rank in range(2))
    assert first.tobytes() == second.tobytes()
    np.testing.assert_allclose(first, alone.model.parameters, rtol=0, atol=TOLERANCE * np.abs(first).max())


def test_a_rank_that_is_killed_ends_all_with_its_name(tmp_path):
    process = start(3, PROGRAMS / "mpi_checkpoints.py", "endless", tmp_path)
    try:
        pids = [tmp_path / f"pid{rank}" for rank in range(3)]
        end = time.monotonic() + 120
        while not all(path.exists() and path.read_text() for path in pids):
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        killed = int(pids[1].read_text())
        os.kill(killed, signal.SIGKILL)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode != 0
    told = [line for line in err.splitlines() if line.startswith("fastdl:")]
    assert len(told) == 1
    assert "rank 1 of 3" in told[0]
    assert f"(process {killed}) has died" in told[0]
    for path in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
    trainer = fastdl.Trainer.from_checkpoint(tmp_path / "checkpoint.fastdl", callbacks=[])
    assert trainer.epochs_done >= 2
    assert np.isfinite(trainer.model.parameters).all()


def test_a_rank_that_fails_ends_all_with_its_sentence(tmp_path):
    _, err = run(
        3, PROGRAMS / "mpi_checkpoints.py", "failing", tmp_path, code=None
    )  # launchers have codes of their own
    told = [line for line in err.splitlines() if line.startswith("fastdl:")]
    assert len(told) == 1
    assert "rank 1 of 3" in told[0]
    assert told[0].endswith("failed, which ends all: RuntimeError: the disk of this rank is full")


def test_bfloat16_rounds_to_the_nearest():
    x = np.array([0.0, -0.0, 1.0, 1.00390625, 1.01171875, -3.14159, 1e-40, 3.4e38, np.inf, -np.inf, np.nan], np.float32)
    back = widened(rounded(x))
    np.testing.assert_array_equal(back[:5], [0.0, 0.0, 1.0, 1.0, 1.015625])  # ties go to the even one
    assert np.signbit(back[1])
    finite = np.isfinite(x) & (np.abs(x) < 3.38e38)
    np.testing.assert_allclose(back[finite], x[finite], rtol=2**-8, atol=1e-40)
    assert list(back[8:10]) == [np.inf, -np.inf]
    assert np.isnan(back[10])


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        ({}, 1),
        ({"PMI_RANK": "1", "PMI_SIZE": "4"}, 4),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, 2),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"SLURM_STEP_NUM_TASKS": "8"}, 1),
    ],
)
def test_the_launcher_is_noticed(environment, ranks):
    assert launch.launched_ranks(environment) == ranks
    assert launch.wanted("auto", environment) == (ranks > 1)
    assert launch.wanted("on", environment)
    assert not launch.wanted("off", environment)


def test_a_communicator_that_is_none(monkeypatch):
    model = fastdl.MLP([2, 2])
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(fastdl.MissingExtraError, match=r'pip install "fastdl\[mpi\]"'):
        fastdl.Trainer(model, communicator=object())
    with pytest.raises(fastdl.InputError, match="wire: expected one of float32, bfloat16, got 'float16'"):
        fastdl.Ranks(wire="float16")
    with pytest.raises(fastdl.InputError, match="sync_every: expected a number of steps of at least 1, got 0"):
        fastdl.Ranks(sync_every=0)


class _Alone:
    """A communicator whose other rank says what this one says."""

    def allgather(self, value):
        return [value, value]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="messages are sent where the system is not Linux")
def test_memory_is_shared_only_where_every_rank_can_read_it():
    here = os.getpid()
    mine, again = shared_memory(_Alone(), [here, here], 5, np.dtype(np.float64))
    mine[:] = np.arange(5)
    assert again.tolist() == [0, 1, 2, 3, 4]
    assert mine.flags.writeable
    before = len(os.listdir("/proc/self/fd"))
    assert shared_memory(_Alone(), [here, 2**30], 5, np.dtype(np.float64)) is None  # there is no such process
    assert len(os.listdir("/proc/self/fd")) == before
