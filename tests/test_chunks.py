"""Data that come in chunks, and `partial_fit`: each row once in an epoch, what chunks cannot say, and the way back."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from problems import make_model

import fastdl
from fastdl import schedules
from fastdl.errors import DivergedError, InputError

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = [5, 7, 3]


@pytest.fixture
def chunks(rng):
    """Four chunks of different lengths; the last has two rows."""
    return [(rng.normal(size=(n, 5)).astype(np.float32), rng.integers(0, 3, n)) for n in (20, 33, 8, 2)]


def trainer_of(batch_size=8, **settings):
    return fastdl.Trainer(make_model(LAYERS, "tanh", "softmax", "float32"), fastdl.Adam(0.01), batch_size, **settings)


def test_chunks_that_are_a_batch_each_are_batches_in_their_order(chunks):
    """The same steps as by partial_fit, one after the other; the mean loss is that of the rows."""
    trainer, other = trainer_of(50, epochs=2), trainer_of(50)
    history = trainer.fit(chunks)
    rows = np.array([len(X) for X, _ in chunks])
    for epoch in range(2):
        losses = [other.partial_fit(X, y) for X, y in chunks]
        assert history.loss[epoch] == pytest.approx(np.dot(losses, rows) / rows.sum(), rel=1e-12)
    np.testing.assert_array_equal(trainer.model.parameters, other.model.parameters)
    assert trainer.steps_done == other.steps_done == 8


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(("n_rows", "batch_size"), [(24, 4), (24, 1), (24, 24), (23, 4)])
def test_each_row_is_learned_from_once(n_rows, batch_size, partial):
    """Row r moves weight r alone, by rate x target / rows of its batch."""
    model = make_model([n_rows, 1], "relu", "linear")
    model.parameters[:] = 0
    targets = np.arange(1.0, n_rows + 1)
    trainer = fastdl.Trainer(model, fastdl.SGD(1e-6), batch_size, 1)
    if partial:
        trainer.partial_fit(np.eye(n_rows), targets)
    else:
        trainer.fit([(np.eye(n_rows), targets)])
    moved = model.weights[0][:, 0] / targets
    shares, counts = np.unique(np.round(moved / moved.max(), 3), return_counts=True)
    rest = n_rows % batch_size  # of the last batch, in which each row counts for more
    assert shares.tolist() == ([rest / batch_size, 1] if rest else [1])
    assert counts.tolist() == ([n_rows - rest, rest] if rest else [n_rows])


def test_rows_of_a_chunk_are_shuffled_anew_in_each_epoch_and_by_the_seed(rng):
    X, y = rng.normal(size=(64, 5)), rng.integers(0, 3, 64)

    def result(seed, epochs=1):
        trainer = trainer_of(epochs=epochs, seed=seed)
        trainer.fit([(X, y)])
        return trainer.model.parameters.copy()

    np.testing.assert_array_equal(result(1), result(1))
    assert (result(1) != result(2)).any()
    again = trainer_of(epochs=1, seed=1)
    again.fit([(X, y)])
    again.fit([(X, y)])
    np.testing.assert_array_equal(again.model.parameters, result(1, 2))


def test_a_function_is_called_for_each_epoch_and_read_by_another_thread(chunks):
    calls, threads = [], set()

    def make():
        calls.append(1)
        for chunk in chunks:
            threads.add(threading.get_ident())
            yield chunk

    trainer, other = trainer_of(epochs=3), trainer_of(epochs=3)
    seen = []

    class Watch(fastdl.Callback):
        def on_progress(self, epoch, rows_done):
            seen.append((epoch, rows_done))

        def on_epoch_end(self, result):
            seen.append((result.epoch, result.rows))

    trainer.callbacks = [Watch()]
    trainer.fit(make, validation_data=chunks[0])
    other.fit(chunks)
    np.testing.assert_array_equal(trainer.model.parameters, other.model.parameters)
    assert len(calls) == 3
    assert threading.get_ident() not in threads
    assert (3, 63) in seen
    assert seen == sorted(seen)
    assert len(trainer.history.val_loss) == 3
    once = trainer_of(epochs=1)
    once.fit(iter(chunks))
    assert once.steps_done == 3 + 5 + 1 + 1


def test_weights_come_with_their_chunk(chunks):
    weighted = [(X, y, np.where(y == 1, 3.0, 1.0)) for X, y in chunks]
    trainer, other = trainer_of(epochs=2), trainer_of(epochs=2, class_weight={1: 3.0})
    trainer.fit(weighted)
    other.fit(chunks)
    np.testing.assert_array_equal(trainer.model.parameters, other.model.parameters)


def test_what_chunks_cannot_say_is_refused(chunks):
    def failing():
        yield chunks[0]
        raise OSError("the disk is gone")

    X, y = chunks[0]
    for source, settings, told in (
        ([], {}, "expected at least one chunk"),
        (X, {}, "y: expected targets beside X, got None"),
        ("file.csv", {}, "y: expected targets beside X, got None"),
        ([X, X], {}, r"expected chunks \(X, y\) or \(X, y, weights\), got ndarray as chunk 0"),
        ([(X, y), (X,)], {}, "got 1 things as chunk 1"),
        (iter(chunks), {}, "gone through 2 times, once for each epoch, got a list_iterator"),
        (chunks, {"class_weight": "balanced"}, "class_weight: expected a dictionary"),
        (chunks, {"schedule": schedules.Warmup(3, schedules.Cosine())}, r"schedule: .* such as Cosine\(steps=...\)"),
        (chunks, {"decay_schedule": schedules.FlatCosine()}, "decay_schedule: expected one that does not depend on"),
        (chunks, {"dropout_schedule": schedules.CosLog4()}, "dropout_schedule: expected one that does not depend on"),
        ([(X[:0], y[:0])], {}, "expected at least one row"),
    ):
        trainer = trainer_of(epochs=2, **settings)
        before = trainer.model.parameters.copy()
        with pytest.raises(InputError, match=told):
            trainer.fit(source)
        assert trainer.steps_done or (trainer.model.parameters == before).all()
    with pytest.raises(InputError, match="sample_weight: expected None beside chunks"):
        trainer_of().fit(chunks, sample_weight=y)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer_of(epochs=1).fit(failing)
    trainer_of(epochs=2, schedule=schedules.Warmup(3, schedules.Cosine(10))).fit(chunks)


def test_schedules_of_decay_and_dropout_count_the_steps_of_chunks(chunks):
    """A batch each: the steps of `fit` on all rows of a chunk, with a dropout factor for each epoch."""
    X, y = chunks[0]
    settings = {
        "epochs": 3,
        "dropout": 0.5,
        "schedule": schedules.Exponential(2),
        "decay_schedule": schedules.Step(1, 0.5),
        "dropout_schedule": schedules.Step(2, 0.1),
    }
    whole, split = trainer_of(len(X), **settings), trainer_of(len(X), **settings)
    for trainer in (whole, split):
        trainer.optimizer = fastdl.AdamW(0.01, weight_decay=0.3)
    whole.fit(X, y)
    split.fit([(X, y)])
    np.testing.assert_array_equal(split.model.parameters, whole.model.parameters)
    for schedule in ("decay_schedule", "dropout_schedule"):
        other = trainer_of(len(X), **{**settings, schedule: None})
        other.optimizer = whole.optimizer
        other.fit([(X, y)])
        assert (other.model.parameters != whole.model.parameters).any()
    rising = trainer_of(len(X), **{**settings, "dropout_schedule": schedules.Step(2, 3.0)})
    with pytest.raises(InputError, match=r"expected dropout rates below 1, got 1\.5"):
        rising.fit([(X, y)])
    assert rising.steps_done == 2
    with pytest.raises(InputError, match=r"expected dropout rates below 1, got 1\.5"):
        rising.partial_fit(X, y)


def test_checkpoints_of_chunks_are_between_fits_only(chunks, tmp_path):
    path = tmp_path / "c.fastdl"
    trainer = trainer_of(epochs=2, callbacks=[fastdl.Checkpoint(path)])
    with pytest.raises(InputError, match="save_checkpoint: expected a training on X and y, got one on chunks"):
        trainer.fit(chunks)
    assert not path.exists()
    trainer.callbacks = []
    trainer.fit(chunks)
    trainer.save_checkpoint(path)
    again = fastdl.Trainer.from_checkpoint(path)
    for each in (trainer, again):
        each.fit(chunks)
        each.partial_fit(*chunks[0])
    np.testing.assert_array_equal(again.model.parameters, trainer.model.parameters)


def test_a_training_from_a_checkpoint_is_finished_before_others_begin(chunks, tmp_path):
    path, (X, y) = tmp_path / "c.fastdl", chunks[0]

    class Save(fastdl.Callback):
        def on_epoch_end(self, result):
            if result.epoch == 1:
                self.trainer.save_checkpoint(path)

    trainer_of(4, epochs=3, callbacks=[Save()]).fit(X, y)
    trainer = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    with pytest.raises(InputError, match="partial_fit: expected no training under way, got one from a checkpoint"):
        trainer.partial_fit(X, y)
    with pytest.raises(InputError, match="data: expected X and y, with which this training began, got chunks"):
        trainer.fit(chunks)
    assert len(trainer.fit(X, y)) == 3
    trainer.partial_fit(X, y)


def test_an_epoch_that_diverges_is_undone(chunks):
    """The third epoch brings numbers that are too large: all is as after the second."""
    count = iter(range(10))

    def make():
        factor = 1e30 if next(count) == 2 else 1.0
        return [(X * np.float32(factor), y) for X, y in chunks]

    trainer, other = trainer_of(epochs=5, dropout=0.1), trainer_of(epochs=2, dropout=0.1)
    trainer.model = make_model([5, 7, 3], "identity", "softmax", "float32")
    other.model = make_model([5, 7, 3], "identity", "softmax", "float32")
    trainer.optimizer = other.optimizer = fastdl.SGD(0.1)
    with pytest.raises(DivergedError, match="epoch 3"):
        trainer.fit(make)
    other.fit(chunks)
    np.testing.assert_array_equal(trainer.model.parameters, other.model.parameters)
    assert trainer.steps_done == other.steps_done
    assert len(trainer.history) == 2


def test_a_partial_fit_that_diverges_is_undone(chunks):
    trainer = trainer_of()
    trainer.model = make_model([5, 7, 3], "identity", "softmax", "float32")
    trainer.optimizer = fastdl.SGD(0.1)
    X, y = chunks[0]
    trainer.partial_fit(X, y)
    before, steps = trainer.model.parameters.copy(), trainer.steps_done
    with pytest.raises(DivergedError):
        trainer.partial_fit(X * np.float32(1e30), y)
    np.testing.assert_array_equal(trainer.model.parameters, before)
    assert trainer.steps_done == steps


def test_chunks_may_be_sparse_or_frames(chunks):
    sparse = pytest.importorskip("scipy.sparse")
    pandas = pytest.importorskip("pandas")
    names = list("abcde")
    plain, of_frames, of_sparse = trainer_of(epochs=2), trainer_of(epochs=2), trainer_of(epochs=2)
    plain.fit(chunks)
    frames = [pandas.DataFrame(X, columns=names) for X, _ in chunks]
    turned = [frame[names[::-1]] if i else frame for i, frame in enumerate(frames)]  # columns go by their names
    of_frames.fit([(frame, y) for frame, (_, y) in zip(turned, chunks)])
    np.testing.assert_array_equal(of_frames.model.parameters, plain.model.parameters)
    assert of_frames.model.feature_names == names
    of_sparse.fit([(sparse.csr_array(X), y) for X, y in chunks])
    np.testing.assert_allclose(of_sparse.model.parameters, plain.model.parameters, rtol=1e-4, atol=1e-6)
    of_sparse.partial_fit(sparse.csr_array(chunks[0][0]), chunks[0][1])
    plain.partial_fit(*chunks[0])
    np.testing.assert_allclose(of_sparse.model.parameters, plain.model.parameters, rtol=1e-4, atol=1e-6)
