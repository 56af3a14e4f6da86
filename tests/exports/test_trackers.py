"""Callbacks for TensorBoard and MLflow: what their own readers find is what the history says."""

from __future__ import annotations

import pickle
import sys

import pytest
from problems import make_data, make_model

import fastdl

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # of what the clients import
]


@pytest.fixture
def problem(rng):
    return (make_model([4, 6, 3], "tanh", "softmax"), *make_data(rng, 40, [4, 6, 3], "softmax"))


def train_twice(problem, callback):
    """The histories of two calls of `fit`, of 3 epochs each."""
    model, X, y = problem
    trainer = fastdl.Trainer(model, batch_size=8, epochs=3, callbacks=[callback])
    return trainer, [trainer.fit(X, y, validation_data=(X, y)) for _ in range(2)]


def test_tensorboard_reads_the_history(problem, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, histories = train_twice(problem, fastdl.TensorBoard(tmp_path / "board"))
    events = accumulator.EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            found.setdefault(tag, {})[event.step] = event.tensor_proto.float_val[0]
    assert set(found) == {"loss/training", "loss/validation", "metrics/accuracy", "speed/rows per second"}
    for tag, name in {"loss/training": "loss", "loss/validation": "val_loss"}.items():
        wanted = [value for history in histories for value in getattr(history, name)]
        assert found[tag] == {step: pytest.approx(value, rel=1e-6) for step, value in enumerate(wanted, start=1)}


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    yield mlflow
    while mlflow.active_run() is not None:
        mlflow.end_run()


def runs_of(mlflow, name):
    experiment = mlflow.get_experiment_by_name(name)
    return mlflow.MlflowClient().search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def test_mlflow_has_a_run_for_each_training(problem, mlflow):
    _, histories = train_twice(problem, fastdl.MLflow("trees", "first"))
    runs = runs_of(mlflow, "trees")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    client = mlflow.MlflowClient()
    for run, history, start in zip(runs, histories, (1, 4), strict=True):
        assert run.info.run_name == "first"
        assert (run.data.params["rows"], run.data.params["batch_size"], run.data.params["optimizer.lr"]) == (
            "40",
            "8",
            "0.001",
        )
        for name, values in {"loss": history.loss, "val_loss": history.val_loss, **history.metrics}.items():
            found = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
            assert found == list(enumerate(values, start=start))


def test_a_run_of_ones_own_is_used_and_left_open(problem, mlflow):
    with mlflow.start_run() as run:
        train_twice(problem, fastdl.MLflow("trees"))
        assert mlflow.active_run().info.run_id == run.info.run_id
    assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")) == 6


def test_a_training_that_fails_leaves_a_failed_run(problem, mlflow):
    model, X, y = problem
    tracker = fastdl.MLflow("trees")

    class Fails(fastdl.Callback):
        def on_epoch_end(self, result):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fastdl.Trainer(model, batch_size=8, epochs=3, callbacks=[tracker, Fails()]).fit(X, y)
    fastdl.Trainer(model, batch_size=8, epochs=3, callbacks=[tracker]).fit(X, y)
    assert [run.info.status for run in runs_of(mlflow, "trees")] == ["FAILED", "FINISHED"]


@pytest.mark.parametrize(
    ("make", "package"), [(lambda: fastdl.TensorBoard("x"), "tensorboard"), (fastdl.MLflow, "mlflow")]
)
def test_without_the_client_there_is_one_sentence(problem, monkeypatch, make, package):
    model, X, y = problem
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    callback = make()
    with pytest.raises(
        fastdl.MissingExtraError, match=rf'needs {package}, which is not installed: pip install "fastdl\[{package}\]"'
    ):
        fastdl.Trainer(model, batch_size=8, epochs=1, callbacks=[callback]).fit(X, y)
    assert pickle.loads(pickle.dumps(callback)).__dict__.keys() <= callback.__dict__.keys()
