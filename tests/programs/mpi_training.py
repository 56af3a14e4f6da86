"""Trainings on several ranks beside the same on one: `mpiexec -n 2 python mpi_training.py RESULT`, which rank 0 writes."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

import fastdl
from fastdl.distributed.shared_reduction import SharedReduction
from fastdl.engine import spread

COMM = MPI.COMM_WORLD
ROWS, INPUTS, CLASSES = 203, 13, 5
ALL = {"clip_norm": 0.1, "dropout": 0.3, "l2": 1e-3}
OPTIMIZERS = {
    "sgd": fastdl.SGD(0.1),
    "momentum": fastdl.Momentum(0.05, nesterov=True),
    "rmsprop": fastdl.RMSProp(1e-3),
    "adam": fastdl.Adam(1e-3),
    "adamw": fastdl.AdamW(1e-3, weight_decay=0.1),
}
CASES = {
    **{f"{name} {kind}": {"optimizer": optimizer, **more}
       for name, optimizer in OPTIMIZERS.items() for kind, more in (("plain", {}), ("all", {**ALL, "weights": True}))},
    "in blocks": {"cut": True, "hidden": (200, 160), **ALL},
    "in blocks without a limit": {"cut": True, "hidden": (200, 160, 40, 30), "l2": 1e-3},
    "float64": {"dtype": "float64", **ALL, "weights": True},
    "a few rows are left": {"rows": 97, "batch_size": 32},
    "all rows in a batch": {"rows": 64, "batch_size": 64, "weights": True},
    "uneven slices": {"batch_size": 27, "dropout": 0.2},
    "regression": {"outputs": 3, "output": "linear", "dropout": 0.2},
    "one layer": {"hidden": (), "clip_norm": 0.1},
    "embeddings": {"embedding": True, "clip_norm": 0.5},
    "sparse": {"sparse": True, "l2": 1e-3},
    "schedule": {"schedule": fastdl.schedules.Cosine()},
    "early stopping": {"optimizer": fastdl.Adam(0.05), "early_stopping": 2, "epochs": 30, "l2": 1e-3},
}  # fmt: skip


def train(ranks, case):
    """(trainer, history) of a case."""
    case = {"rows": ROWS, "hidden": (20, 16), "outputs": CLASSES, "output": "softmax", "dtype": "float32", **case}
    rng = np.random.default_rng(1)
    X = rng.standard_normal((case["rows"], INPUTS)).astype(case["dtype"])
    y = rng.integers(0, CLASSES, len(X)) if case["output"] == "softmax" else rng.standard_normal((len(X), 3))
    weights = rng.random(len(X)) + 0.5
    embedding = fastdl.PBLD() if case.get("embedding") else None
    model = fastdl.MLP(
        [INPUTS, *case["hidden"], case["outputs"]], "tanh", case["output"], 3, case["dtype"], embedding=embedding
    )
    given = X
    if case.get("sparse"):
        from scipy.sparse import csr_matrix

        given = csr_matrix(np.where(rng.random(X.shape) < 0.3, X, 0).astype(np.float32))
    names = ("clip_norm", "dropout", "l2", "batch_size", "epochs", "early_stopping", "schedule", "optimizer")
    settings = {"batch_size": 32, "epochs": 3, **{name: case[name] for name in names if name in case}}
    trainer = fastdl.Trainer(model, communicator=ranks, **settings)
    held_out = rng.standard_normal((40, INPUTS)), y[:40]
    history = trainer.fit(given, y, held_out, weights if case.get("weights") else None)
    return trainer, history


def compared(name, case):
    """How far several ranks are from one, and whether they have the same bits again and among each other."""
    spread.FEWEST = 500 if case.get("cut") else 1 << 16
    ranks, messages = (fastdl.Ranks(COMM, overlap=cut) for cut in (case.get("cut"), True))
    (many, history), (again, _), (one, alone) = train(ranks, case), train(ranks, case), train(None, case)
    sent, _ = train(messages, case)
    a, b = many.model.parameters, one.model.parameters
    states = zip(many._session.states, one._session.states, strict=True)
    return {
        "blocks": len(many._session.spread._pieces),
        "reads the others": isinstance(many._session.spread._reduction, SharedReduction),
        "same by messages": a.tobytes() == sent.model.parameters.tobytes(),
        "difference": float(np.abs(a - b).max() / np.abs(b).max()),
        "states": max((float(np.abs(s - t).max() / np.abs(t).max()) for s, t in states if s.size), default=0.0),
        "losses": float(np.abs(np.subtract(history.loss, alone.loss)).max())
        if len(history.loss) == len(alone.loss)
        else 9e9,
        "epochs": [len(history.loss), len(alone.loss)],
        "best": [history.best_epoch, alone.best_epoch],
        "same again": a.tobytes() == again.model.parameters.tobytes(),
        "same on all": len(set(COMM.allgather(a.tobytes()))) == 1,
    }


def other_ways():
    """Rounded gradients, and steps alone: not the parameters of one rank, but the same on all, and they learn."""
    found = {}
    for name, options in (("bfloat16", {"wire": "bfloat16"}), ("local", {"sync_every": 3})):
        case = {"rows": 500, "epochs": 12, "optimizer": fastdl.Adam(5e-3)}
        trainer, history = train(fastdl.Ranks(COMM, **options), case)
        again, _ = train(fastdl.Ranks(COMM, **options), case)
        _, alone = train(None, case)
        found[name] = {
            "losses": [history.loss[0], history.loss[-1], alone.loss[-1]],
            "same again": trainer.model.parameters.tobytes() == again.model.parameters.tobytes(),
            "same on all": len(set(COMM.allgather(trainer.model.parameters.tobytes()))) == 1,
        }
    return found


def refusals():
    """What ranks say to data and models that differ, and to a training that diverges."""
    found = {}
    try:
        train(fastdl.Ranks(COMM), {"rows": ROWS + COMM.rank, "batch_size": 32})
    except fastdl.InputError as error:
        found["rows"] = str(error)
    try:
        train(fastdl.Ranks(COMM), {"optimizer": fastdl.SGD(1e6), "outputs": 3, "output": "linear", "hidden": ()})
    except fastdl.DivergedError as error:
        found["diverged"] = str(error)
    trainer, _ = train(fastdl.Ranks(COMM), {})
    X, y = np.ones((40, INPUTS), np.float32), np.zeros(40, int)
    calls = {
        "many": lambda: fastdl.fit_many([trainer], X, y),
        "partial": lambda: trainer.partial_fit(X, y),
        "chunks": lambda: trainer.fit([(X, y)]),
    }
    for name, call in calls.items():
        try:
            call()
        except fastdl.InputError as error:
            found[name] = str(error)
    found["copy"] = copy.copy(trainer).communicator is None
    found["explained"] = str(trainer.explain(0.01)).splitlines()[-1]
    return found


if __name__ == "__main__":
    results = {name: compared(name, case) for name, case in CASES.items()}
    results |= {"other ways": other_ways(), "refusals": COMM.allgather(refusals())}
    if COMM.rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))
