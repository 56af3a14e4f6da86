"""Early stopping: when it ends a training, and which parameters the model is left with."""

from __future__ import annotations

import numpy as np
import pytest
from problems import make_data, make_model

import fastdl

pytestmark = pytest.mark.usefixtures("one_thread")


class Keeper(fastdl.Callback):
    """Keeps the parameters after each epoch."""

    def __init__(self, model):
        self.model, self.parameters = model, []

    def on_epoch_end(self, result):
        self.parameters.append(self.model.parameters.copy())


@pytest.fixture
def fit(rng):
    """Train on noise, where validation gets worse soon; gives the history, and the parameters after each epoch."""
    X, y = make_data(rng, 40, [6, 3], "softmax")
    Xv, yv = make_data(rng, 40, [6, 3], "softmax")

    def run(early_stopping, epochs=40, validate=True):
        model = make_model([6, 32, 3], "relu", "softmax")
        keeper = Keeper(model)
        trainer = fastdl.Trainer(
            model, fastdl.Adam(lr=0.02), 10, epochs, callbacks=[keeper], early_stopping=early_stopping
        )
        history = trainer.fit(X, y, validation_data=(Xv, yv) if validate else None)
        return history, keeper.parameters, model

    return run


@pytest.mark.parametrize("patience", [1, 3])
def test_ends_after_patience_and_restores_the_best(fit, patience):
    history, parameters, model = fit(patience)
    whole = fit(None)[0]
    losses = whole.val_loss
    # By hand: the first epoch after which `patience` epochs were not below the lowest so far.
    best, end = 1, None
    for epoch, loss in enumerate(losses, 1):
        if loss < losses[best - 1]:
            best = epoch
        if epoch - best >= patience:
            end = epoch
            break
    assert end is not None
    assert end < 40
    assert (len(history), history.best_epoch) == (end, best)
    assert history.val_loss == losses[:end]
    np.testing.assert_array_equal(model.parameters, parameters[best - 1])
    assert not np.array_equal(model.parameters, parameters[-1])
    assert whole.best_epoch is None


def test_without_restoring(fit):
    history, parameters, model = fit(fastdl.EarlyStopping(patience=2, restore_best=False))
    assert history.best_epoch == len(history) - 2
    np.testing.assert_array_equal(model.parameters, parameters[-1])


def test_restores_after_the_last_epoch_too(fit):
    history, parameters, model = fit(100)
    assert len(history) == 40
    assert history.best_epoch == int(np.argmin(history.val_loss)) + 1 < 40
    np.testing.assert_array_equal(model.parameters, parameters[history.best_epoch - 1])


def test_higher_is_better_for_accuracy(fit):
    history, _, _ = fit(fastdl.EarlyStopping(patience=5, monitor="accuracy"))
    assert history.best_epoch == int(np.argmax(history.metrics["accuracy"])) + 1
    assert len(history) == history.best_epoch + 5


def test_the_training_loss_needs_no_validation(fit):
    history, _, _ = fit(fastdl.EarlyStopping(patience=3, monitor="loss"), epochs=6, validate=False)
    assert history.best_epoch == int(np.argmin(history.loss)) + 1


def test_min_delta(fit):
    """Nothing improves by more than 1000: the first epoch stays the best."""
    history, _, _ = fit(fastdl.EarlyStopping(patience=4, min_delta=1000))
    assert (history.best_epoch, len(history)) == (1, 5)


def test_a_second_fit_watches_anew(rng):
    model = make_model([6, 32, 3], "relu", "softmax")
    X, y = make_data(rng, 40, model.layers, "softmax")
    trainer = fastdl.Trainer(model, fastdl.Adam(lr=0.02), 10, 5, early_stopping=2)
    for _ in range(2):
        history = trainer.fit(X, y, validation_data=(X, y))
        assert 1 <= history.best_epoch <= len(history)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fastdl.EarlyStopping(0), "EarlyStopping: patience"),
        (lambda: fastdl.EarlyStopping(3, min_delta=-1), "EarlyStopping: min_delta"),
        (lambda: fastdl.EarlyStopping(3, monitor=3), "EarlyStopping: expected monitor to be a name"),
        (lambda: fastdl.EarlyStopping(3, restore_best=1), "EarlyStopping: expected restore_best"),
        (lambda: trainer(early_stopping=0), "early_stopping: expected an EarlyStopping or the epochs to wait"),
        (lambda: trainer(early_stopping="yes"), "early_stopping: expected an EarlyStopping"),
        (
            lambda: trainer(early_stopping=fastdl.EarlyStopping(monitor="acuracy")),
            "one of val_loss, loss, accuracy for this model, got 'acuracy'; did you mean 'accuracy'",
        ),
        (lambda: trainer(early_stopping=fastdl.EarlyStopping(monitor="rmse")), "got 'rmse'"),
        (
            lambda: trainer(early_stopping=3, batch_size=1).fit([[1.0, 2.0]], [1]),
            r"early_stopping: expected validation_data to watch val_loss on, got none; pass validation_data=\(X, y\)",
        ),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(fastdl.InputError, match=words):
        make()


def trainer(**options):
    return fastdl.Trainer(fastdl.MLP([2, 2]), **options)
