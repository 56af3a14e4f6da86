"""Trainings on several ranks that are interrupted: `mpiexec -n 4 python mpi_checkpoints.py WHAT FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

import fastdl

COMM = MPI.COMM_WORLD
EPOCHS = 6


def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((403, 10)).astype(np.float32), rng.integers(0, 4, 403)


def trainer_of(ranks, epochs=EPOCHS, **settings):
    model = fastdl.MLP([10, 24, 4], "tanh", seed=1)
    return fastdl.Trainer(model, fastdl.Adam(3e-3), 32, epochs, 1e-4, dropout=0.2, communicator=ranks, **settings)


class Interrupts(fastdl.Callback):
    """As Ctrl-C that reaches one rank first."""

    def on_epoch_end(self, result):
        if result.epoch == 3 and COMM.rank == COMM.size - 1:
            os.kill(os.getpid(), signal.SIGINT)


class Fails(fastdl.Callback):
    """One rank cannot go on."""

    def on_epoch_end(self, result):
        if result.epoch == 2 and COMM.rank == 1:
            raise RuntimeError("the disk of this rank is full")


class Tells(fastdl.Callback):
    """Writes the ranks' numbers of processes, once the training runs."""

    def __init__(self, folder):
        self._folder = folder

    def on_epoch_end(self, result):
        if result.epoch == 3:
            (self._folder / f"pid{COMM.rank}").write_text(str(os.getpid()))


def main(what, folder):
    path, X, y = folder / "checkpoint.fastdl", *data()
    if what == "interrupted":
        trainer = trainer_of(COMM, callbacks=[Interrupts()])
        try:
            trainer.fit(X, y)
        except KeyboardInterrupt:
            trainer.callbacks = []
            trainer.save_checkpoint(path)
            if COMM.rank == 0:
                (folder / "steps").write_text(str(trainer.steps_done))
    elif what == "resumed":
        trainer = fastdl.Trainer.from_checkpoint(path, callbacks=[])
        trainer.communicator = COMM
        trainer.fit(X, y)
        np.save(folder / f"resumed{COMM.rank}.npy", trainer.model.parameters)
    elif what == "endless":
        keeper = fastdl.Checkpoint(path, 0.0)
        trainer_of(COMM, 10**6, callbacks=[keeper, Tells(folder)]).fit(X, y)
    elif what == "failing":
        trainer_of(COMM, callbacks=[Fails()]).fit(X, y)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
