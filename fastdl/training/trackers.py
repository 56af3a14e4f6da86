"""Callbacks that tell experiment trackers of a training, by the trackers' own clients.

>>> import fastdl
>>> callbacks = [fastdl.TensorBoard("runs/board"), fastdl.MLflow("digits")]
>>> trainer = fastdl.Trainer(model, callbacks=callbacks)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from fastdl.errors import MissingExtraError
from fastdl.training.callbacks import Callback, EpochResult


class _Tracker(Callback):
    """What both do: the numbers of an epoch, and which epoch of the trainer it is."""

    def _step(self, result: EpochResult) -> int:
        """Epochs so far in all calls of `fit`, so that a second one goes on where the first ended."""
        return int(getattr(self.trainer, "epochs_done", result.epoch))

    def _record(self) -> dict[str, Any]:
        """The settings of the training, where the trainer says them."""
        record = getattr(self.trainer, "record", None)
        return {} if record is None else dict(_flat(record()))


class TensorBoard(_Tracker):
    """Writes losses, metrics and speed for TensorBoard, one point an epoch: `tensorboard --logdir FOLDER` shows them.

    Tags are `loss/training` and `loss/validation`, `metrics/NAME`, and `speed/rows per second`.

    Parameters
    ----------
    folder : where the event files go; a folder for each training keeps them apart

    Raises
    ------
    MissingExtraError : at the start of a training, if tensorboard is not installed
    """

    _only_watches = True

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder
        self._writer: Any = None

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """Open an event file."""
        self._close()  # that of a training which ended by an exception
        self._writer = _client("tensorboard.summary", "tensorboard").Writer(os.fspath(self.folder))

    def on_epoch_end(self, result: EpochResult) -> None:
        """One point for each number, on disk at once."""
        values = {"loss/training": result.loss, "speed/rows per second": result.rows / max(result.seconds, 1e-9)}
        if result.val_loss is not None:
            values["loss/validation"] = result.val_loss
        values |= {f"metrics/{name}": value for name, value in result.metrics.items()}
        for tag, value in values.items():
            self._writer.add_scalar(tag, float(value), self._step(result))
        self._writer.flush()

    def on_train_end(self) -> None:
        """Close the event file."""
        self._close()

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def __getstate__(self) -> dict[str, Any]:
        """A copy opens a file of its own."""
        return {**super().__getstate__(), "_writer": None}


class MLflow(_Tracker):
    """Logs a training to MLflow: the settings as parameters, losses and metrics of each epoch.

    Within `with mlflow.start_run():` of your own it logs to that run; else it starts a run at the beginning of `fit` and ends it
    at the end: as FINISHED, or as FAILED where the next training finds that this one ended by an exception. Where the server
    is, is MLflow's business (`MLFLOW_TRACKING_URI`, `mlflow.set_tracking_uri`).

    Parameters
    ----------
    experiment : name of the experiment for runs that it starts; None for the current one
    run_name : name of such a run; None for one that MLflow makes up

    Raises
    ------
    MissingExtraError : at the start of a training, if mlflow is not installed
    """

    _only_watches = True

    def __init__(self, experiment: str | None = None, run_name: str | None = None) -> None:
        self.experiment = experiment
        self.run_name = run_name
        self._run: str | None = None  # the run that it started itself

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """Start a run unless there is one, and log the settings."""
        mlflow = _client("mlflow", "mlflow")
        self._end(mlflow, "FAILED")
        if mlflow.active_run() is None:
            run = mlflow.start_run(experiment_id=self._experiment_id(mlflow), run_name=self.run_name)
            self._run = run.info.run_id
        mlflow.log_params({"rows": rows, **self._record()})

    def on_epoch_end(self, result: EpochResult) -> None:
        """Log the numbers of an epoch."""
        values = {"loss": result.loss, **result.metrics, "seconds": result.seconds}
        if result.val_loss is not None:
            values["val_loss"] = result.val_loss
        _client("mlflow", "mlflow").log_metrics({k: float(v) for k, v in values.items()}, step=self._step(result))

    def on_train_end(self) -> None:
        """End the run, if it was started here."""
        self._end(_client("mlflow", "mlflow"), "FINISHED")

    def _experiment_id(self, mlflow: Any) -> str | None:
        """The experiment for new runs, which is made if there is none; the current one stays what it is."""
        if self.experiment is None:
            return None
        found = mlflow.get_experiment_by_name(self.experiment)
        return str(mlflow.create_experiment(self.experiment) if found is None else found.experiment_id)

    def _end(self, mlflow: Any, status: str) -> None:
        run, self._run = self._run, None
        active = mlflow.active_run()
        if run is not None and active is not None and active.info.run_id == run:
            mlflow.end_run(status)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no run of its own yet."""
        return {**super().__getstate__(), "_run": None}


def _client(module: str, package: str) -> Any:
    """A tracker's client, or one sentence on how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'the callback needs {package}, which is not installed: pip install "fastdl[{package}]"'
        ) from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings with their names joined by points: optimizer.lr."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
