"""fit_many: many trainings at once have the bits of each alone; what ends one ends that one only."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from processes import environment_of, program

import fastdl
from fastdl.training import pool

N = 150


@pytest.fixture
def data(rng):
    X = rng.normal(size=(N, 6))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)


def classifier(seed=0, hidden=(8,), **settings):
    model = fastdl.MLP([6, *hidden, 3], seed=seed, dtype=settings.pop("dtype", "float32"))
    return fastdl.Trainer(model, **{"batch_size": 16, "epochs": 4, "seed": seed, **settings})


def various():
    """Trainers that differ in all that may differ."""
    standardised = classifier(5)
    standardised.model.standardize(np.random.default_rng(0).normal(3, 2, (20, 6)))
    return [
        classifier(1),
        classifier(2, (20, 5), optimizer=fastdl.SGD(lr=0.1), batch_size=7),
        classifier(3, dtype="float64", dropout=0.3, class_weight="balanced"),
        classifier(4, batch_size=40, clip_norm=0.5, schedule=fastdl.schedules.Cosine(), epochs=6),
        standardised,
        classifier(6, early_stopping=fastdl.EarlyStopping(1, "loss"), epochs=9),
        classifier(7, n_threads=2),
        classifier(8, n_threads=1, l2=0.01),
    ]


def same(fitted, alone):
    np.testing.assert_array_equal(fitted.model.parameters, alone.model.parameters)
    mine, other = fitted.history, alone.history
    assert (mine.loss, mine.val_loss, mine.metrics) == (other.loss, other.val_loss, other.metrics)
    assert (mine.best_epoch, fitted.epochs_done, fitted.steps_done) == (
        other.best_epoch, alone.epochs_done, alone.steps_done,
    )  # fmt: skip


def several_cores(monkeypatch, count=3):
    monkeypatch.setattr(pool, "most_threads", lambda: count)


@pytest.mark.parametrize("cores", [1, 3])
def test_each_has_the_bits_of_itself_alone(data, monkeypatch, cores):
    several_cores(monkeypatch, cores)
    X, y = data
    many, alone = various(), various()
    for _ in range(2):  # the second call goes on
        results = fastdl.fit_many(many, X, y, validation_data=(X[:30], y[:30]))
        for trainer in alone:
            trainer.fit(X, y, validation_data=(X[:30], y[:30]))
        assert [r.error for r in results] == [None] * len(many)
        assert [r.trainer for r in results] == many
        assert all(r.history is r.trainer.history for r in results)
        for fitted, single in zip(many, alone):
            same(fitted, single)
    assert [t.n_threads for t in many] == [t.n_threads for t in alone]


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_their_own(data, rng, monkeypatch, weighted):
    """Folds, repeated rows, masks, and a batch of all rows: as with arrays of these rows alone."""
    several_cores(monkeypatch)
    X, y = data
    weight = rng.uniform(0.1, 2, N) if weighted else None
    mask = np.arange(N) % 3 > 0
    rows = [np.arange(20, N), rng.integers(0, N, N), mask, None, rng.permutation(N)[:50], rng.permutation(N)[:40],
            [3, 1, 2] * 6, np.arange(N - 1, 60, -1)]  # fmt: skip
    held_out = [np.arange(20), None, ~mask, [0, 5, 7], np.arange(9), None, [8], np.arange(60)]
    many, alone = various(), various()
    fastdl.fit_many(many, X, y, rows, held_out, sample_weight=weight)
    for trainer, own, seen in zip(alone, rows, held_out):
        own = np.arange(N) if own is None else own
        validation = None
        if seen is not None:
            validation = (X[seen], y[seen]) if weight is None else (X[seen], y[seen], weight[seen])
        trainer.fit(X[own], y[own], validation, None if weight is None else weight[own])
    for fitted, single in zip(many, alone):
        same(fitted, single)


def test_as_many_rows_as_there_are_in_one_batch(data, rng):
    """Drawn with repetition, or in another order: they are no batch of the data as they stand."""
    X, y = data
    rows = [rng.integers(0, N, N), rng.permutation(N), np.arange(N)]
    many, alone = ([classifier(batch_size=N) for _ in rows] for _ in range(2))
    fastdl.fit_many(many, X, y, rows)
    for fitted, single, own in zip(many, alone, rows):
        single.fit(X[own], y[own])
        same(fitted, single)


def test_regressions_of_sparse_rows(rng, monkeypatch):
    sparse = pytest.importorskip("scipy.sparse")
    several_cores(monkeypatch)
    X = sparse.random(N, 50, 0.1, random_state=0, format="csr")
    y = np.asarray(X.sum(axis=1)).reshape(-1)

    def trainers():
        return [
            fastdl.Trainer(fastdl.MLP([50, 9, 1], output="linear", seed=s), batch_size=b, epochs=3, seed=s)
            for s, b in ((0, 16), (1, 60), (2, 90))
        ]

    many, alone = trainers(), trainers()
    rows = [np.arange(100), rng.permutation(N)[:60], None]
    fastdl.fit_many(many, X, y, rows)
    for trainer, own, fitted in zip(alone, rows, many):
        trainer.fit(X if own is None else X[own], y if own is None else y[own])
        same(fitted, trainer)


def test_a_large_network_is_trained_with_all_cores(monkeypatch, rng):
    """On the caller's thread; small ones on others, and on one thread each."""
    several_cores(monkeypatch, 2)
    seen = {}

    class Where(fastdl.Callback):
        def __init__(self, name):
            self.name = name

        def on_epoch_end(self, result):
            seen[self.name] = (threading.get_ident() == main, self.trainer.n_threads)

    main = threading.get_ident()
    sizes = {"small": (6, 16), "large": (2000, 200), "other": (6, 16), "asked": (6, 16)}
    trainers = [
        fastdl.Trainer(
            fastdl.MLP([6, hidden, 3]), batch_size=batch, epochs=1, callbacks=[Where(name)],
            n_threads=2 if name == "asked" else "auto",
        )
        for name, (hidden, batch) in sizes.items()
    ]  # fmt: skip
    monkeypatch.setattr(pool, "keeps_all_cores_busy", lambda architecture, batch: architecture.layers[1] == 2000)
    fastdl.fit_many(trainers, rng.normal(size=(200, 6)), np.arange(200) % 3)
    assert seen == {"small": (False, 1), "other": (False, 1), "large": (True, "auto"), "asked": (True, 2)}


def test_which_networks_are_large():
    small, large = fastdl.MLP([64, 32, 10]).architecture, fastdl.MLP([784, 1000, 1000, 10]).architecture
    assert not fastdl.engine.keeps_all_cores_busy(small, 32)
    assert fastdl.engine.keeps_all_cores_busy(large, 4096)


@pytest.mark.parametrize("cores", [1, 3])
def test_what_ends_one_training_ends_that_one_only(data, monkeypatch, cores):
    several_cores(monkeypatch, cores)
    X, y = data

    class Broken(fastdl.Callback):
        def on_epoch_end(self, result):
            if result.epoch == 2:
                raise OSError("the disk is full")

    diverging = fastdl.SGD(lr=1e30)
    many = [classifier(1), classifier(2, optimizer=diverging), classifier(3, callbacks=[Broken()]), classifier(4)]
    results = fastdl.fit_many(many, X, y)
    assert [type(r.error) for r in results] == [type(None), fastdl.DivergedError, OSError, type(None)]
    assert [len(r.history) for r in results] == [4, 0, 2, 4]
    for i in (0, 3):
        alone = classifier(i + 1)
        alone.fit(X, y)
        same(many[i], alone)
    assert np.isfinite(many[1].model.parameters).all()


def test_a_training_that_cannot_begin_has_no_history(data):
    """Its class weights are for labels, which shares are not; the history of its first fit is not taken for that of this one."""
    X, y = data
    model = fastdl.MLP([6, 4, 1], output="sigmoid")
    trainer = fastdl.Trainer(model, batch_size=16, epochs=2)
    assert len(fastdl.fit_many([trainer], X, y > 0)[0].history) == 2
    trainer.class_weight = "balanced"
    result = fastdl.fit_many([trainer], X, y / 2)[0]
    assert isinstance(result.error, fastdl.InputError)
    assert len(result.history) == 0


def test_one_copy_of_the_data_for_all(data, monkeypatch):
    """None where X is what the models take; one where it has another dtype."""
    several_cores(monkeypatch)
    X, y = data
    X = X.astype(np.float32)
    used = []
    original = fastdl.Trainer.fit_prepared

    def watched(self, rows, *others):
        used.append(rows.inputs)
        return original(self, rows, *others)

    monkeypatch.setattr(fastdl.Trainer, "fit_prepared", watched)
    rows = [np.arange(k, N) for k in range(6)]
    fastdl.fit_many([classifier(s) for s in range(6)], X, y, rows)
    assert len(used) == 6
    assert all(array is X for array in used)
    used.clear()
    fastdl.fit_many([classifier(s, dtype="float64") for s in range(6)], X, y, rows)
    assert len({id(array) for array in used}) == 1
    assert used[0] is not X


def test_progress(data, monkeypatch, capsys):
    several_cores(monkeypatch)
    X, y = data
    told = []
    fastdl.fit_many([classifier(1), classifier(2, optimizer=fastdl.SGD(lr=1e30))], X, y, progress=told.append)
    assert (told[-1].models, told[-1].finished, told[-1].failed, told[-1].done) == (2, 2, 1, 1.0)
    assert [p.finished for p in told] == sorted(p.finished for p in told)
    assert capsys.readouterr() == ("", "")
    fastdl.fit_many([classifier(s) for s in range(3)], X, y, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("3 of 3 models trained\n")


@pytest.mark.parametrize("cores", [1, 3])
def test_an_exception_of_the_display_ends_all(data, monkeypatch, cores):
    several_cores(monkeypatch, cores)

    def broken(progress):
        raise OSError("no terminal")

    with pytest.raises(OSError, match="no terminal"):
        fastdl.fit_many([classifier(s, epochs=10**6) for s in range(4)], *data, progress=broken)


@pytest.mark.parametrize("cores", [1, 3])
def test_an_interrupt_ends_all_and_keeps_what_was_learned(data, monkeypatch, cores):
    """A callback's KeyboardInterrupt stands for Ctrl-C; the next test sends one."""
    several_cores(monkeypatch, cores)

    class Interrupt(fastdl.Callback):
        def on_epoch_end(self, result):
            if result.epoch == 3:
                raise KeyboardInterrupt

    many = [classifier(1, callbacks=[Interrupt()], epochs=10**6), *(classifier(s, epochs=10**6) for s in range(2, 5))]
    with pytest.raises(KeyboardInterrupt):
        fastdl.fit_many(many, *data)
    assert len(many[0].history) == 3
    assert all(len(t.history) == t.epochs_done < 10**6 for t in many)
    assert all(np.isfinite(t.model.parameters).all() for t in many)
    assert all(t.n_threads == "auto" for t in many)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_control_c():
    child = subprocess.Popen(
        [sys.executable, program("interrupted_many")], env=environment_of(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=600)
    finally:
        child.kill()
    assert (child.returncode, out) == (0, "interrupted\nusable\n"), err


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames(data, monkeypatch, kind):
    """Models learn the names of the columns, and take the next frame in any order."""
    library = pytest.importorskip(kind)
    several_cores(monkeypatch)
    X, y = data
    frame = library.DataFrame({f"c{i}": X[:, i] for i in range(6)})
    rows = [None, np.arange(60)]
    many, alone = [classifier(1), classifier(2)], [classifier(1), classifier(2)]
    for given in (frame, frame[[f"c{i}" for i in (3, 0, 5, 1, 2, 4)]]):
        assert [r.error for r in fastdl.fit_many(many, given, y, rows, [np.arange(60, N), None])] == [None, None]
        alone[0].fit(X, y, (X[60:], y[60:]))
        alone[1].fit(X[:60], y[:60])
        for fitted, single in zip(many, alone):
            same(fitted, single)
            assert fitted.model.feature_names == [f"c{i}" for i in range(6)]


def test_no_trainers(data):
    assert fastdl.fit_many([], *data) == []


BAD = {
    "not-a-trainer": (lambda: [fastdl.MLP([6, 3])], {}, r"trainers\[0\]: expected a fastdl.Trainer, got MLP"),
    "one-twice": (lambda: [classifier()] * 2, {}, r"trainers\[1\]: expected a trainer of its own"),
    "one-model": (
        lambda: [fastdl.Trainer(m, batch_size=9) for m in [fastdl.MLP([6, 3])] * 2], {},
        r"trainers\[1\]: expected a model of its own",
    ),
    "one-stopping": (
        lambda: [classifier(s, early_stopping=e) for e in [fastdl.EarlyStopping(2, "loss")] for s in (1, 2)], {},
        "expected a EarlyStopping of its own",
    ),
    "few-rows": (lambda: [classifier(), classifier()], {"rows": [[1]]}, "rows: expected one list .* of 2 trainers, got 1"),
    "row-beyond": (lambda: [classifier()], {"rows": [[*range(20), N]]}, r"rows\[0\]: expected rows from 0 to 149, got 150"),
    "row-below": (lambda: [classifier()], {"rows": [[-1]]}, r"rows\[0\]: expected rows from 0 to 149, got -1"),
    "no-rows": (lambda: [classifier()], {"rows": [np.zeros(N, bool)]}, r"rows\[0\]: expected at least one row"),
    "short-mask": (lambda: [classifier()], {"rows": [np.ones(3, bool)]}, r"rows\[0\]: expected whole numbers .* mask"),
    "fractions": (lambda: [classifier()], {"rows": [[0.5]]}, r"rows\[0\]: expected whole numbers"),
    "both": (
        lambda: [classifier()], {"validation_rows": [[1]], "validation_data": (np.ones((1, 6)), [0])},
        "validation_rows: expected them or validation_data",
    ),
    "batch": (lambda: [classifier(), classifier(batch_size=99)], {"rows": [None, range(20)]}, r"trainers\[1\]: batch_size"),
    "unwatched": (lambda: [classifier(early_stopping=3)], {}, r"trainers\[0\]: early_stopping: expected validation_data"),
    "weights": (lambda: [classifier()], {"sample_weight": [1.0]}, "sample_weight: expected one entry"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_before_anything_is_trained(data, case):
    trainers, given, sentence = BAD[case]
    trainers = trainers()
    before = copy.deepcopy([t.model.parameters for t in trainers if isinstance(t, fastdl.Trainer)])
    with pytest.raises(fastdl.InputError, match=sentence):
        fastdl.fit_many(trainers, *data, **given)
    after = [t.model.parameters for t in trainers if isinstance(t, fastdl.Trainer)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after))


def test_bad_data_is_told_once(data):
    X, y = data
    X[3, 2] = np.nan
    with pytest.raises(fastdl.InputError, match="X: expected finite numbers, got nan in row 3, column 2"):
        fastdl.fit_many([classifier(1), classifier(2)], X, y)
    with pytest.raises(fastdl.InputError, match="y: expected class labels 0 to 2"):
        fastdl.fit_many([classifier(1), classifier(2)], np.ones((N, 6)), y + 1)
