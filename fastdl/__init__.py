"""fastdl trains multi-layer perceptrons on CPU cores, fast.

>>> import fastdl
>>> model = fastdl.MLP([64, 128, 10], activation="relu", output="softmax", seed=0)
>>> history = fastdl.Trainer(model, optimizer=fastdl.Adam(lr=1e-3), epochs=20).fit(X, y)  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastdl._version import __version__ as __version__

if TYPE_CHECKING:
    from fastdl import schedules
    from fastdl.activations import ELU, Activation, LeakyReLU, PReLU
    from fastdl.categories import CategoryEmbedding
    from fastdl.datasets import load_digits
    from fastdl.distributed.ranks import Ranks
    from fastdl.embeddings import PBLD, Periodic, PiecewiseLinear
    from fastdl.errors import DivergedError, InputError, MissingExtraError, ModelFileError
    from fastdl.estimators import MLPClassifier, MLPRegressor
    from fastdl.estimators.tabular import TabularClassifier, TabularRegressor
    from fastdl.importing import from_sklearn, from_torch
    from fastdl.losses import CrossEntropy, Huber, Quantile
    from fastdl.model import MLP
    from fastdl.optimizers import SGD, Adam, AdamW, Momentum, RMSProp
    from fastdl.scaling import Scaling
    from fastdl.tables.chunks import FileChunks
    from fastdl.tables.ensemble import Ensemble
    from fastdl.tables.loading import load
    from fastdl.tables.model import TableModel
    from fastdl.training.averaging import AverageParameters
    from fastdl.training.callbacks import Callback, EpochResult
    from fastdl.training.checkpoint import Checkpoint
    from fastdl.training.early_stopping import EarlyStopping, ReduceOnPlateau
    from fastdl.training.health import HealthWatch
    from fastdl.training.history import History
    from fastdl.training.live import LiveCurves
    from fastdl.training.many import fit_many
    from fastdl.training.pool import FitResult, ManyProgress
    from fastdl.training.trackers import MLflow, TensorBoard
    from fastdl.training.trainer import Trainer

__all__ = [
    "ELU",
    "MLP",
    "PBLD",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "AverageParameters",
    "Callback",
    "CategoryEmbedding",
    "Checkpoint",
    "CrossEntropy",
    "DivergedError",
    "EarlyStopping",
    "Ensemble",
    "EpochResult",
    "FileChunks",
    "FitResult",
    "HealthWatch",
    "History",
    "Huber",
    "InputError",
    "LeakyReLU",
    "LiveCurves",
    "MLPClassifier",
    "MLPRegressor",
    "MLflow",
    "ManyProgress",
    "MissingExtraError",
    "ModelFileError",
    "Momentum",
    "PReLU",
    "Periodic",
    "PiecewiseLinear",
    "Quantile",
    "RMSProp",
    "Ranks",
    "ReduceOnPlateau",
    "Scaling",
    "TableModel",
    "TabularClassifier",
    "TabularRegressor",
    "TensorBoard",
    "Trainer",
    "fit_many",
    "from_sklearn",
    "from_torch",
    "load",
    "load_digits",
    "schedules",
]

# Names are imported on first use, so that `fastdl --help` does not wait for numba (0.2 s instead of 0.8 s).
_MODULES = {
    "fastdl.activations": ["ELU", "Activation", "LeakyReLU", "PReLU"],
    "fastdl.training.averaging": ["AverageParameters"],
    "fastdl.training.callbacks": ["Callback", "EpochResult"],
    "fastdl.categories": ["CategoryEmbedding"],
    "fastdl.datasets": ["load_digits"],
    "fastdl.distributed.ranks": ["Ranks"],
    "fastdl.embeddings": ["PBLD", "Periodic", "PiecewiseLinear"],
    "fastdl.errors": ["DivergedError", "InputError", "MissingExtraError", "ModelFileError"],
    "fastdl.estimators": ["MLPClassifier", "MLPRegressor"],
    "fastdl.estimators.tabular": ["TabularClassifier", "TabularRegressor"],
    "fastdl.importing": ["from_sklearn", "from_torch"],
    "fastdl.losses": ["CrossEntropy", "Huber", "Quantile"],
    "fastdl.model": ["MLP"],
    "fastdl.optimizers": ["SGD", "Adam", "AdamW", "Momentum", "RMSProp"],
    "fastdl.scaling": ["Scaling"],
    "fastdl.tables.chunks": ["FileChunks"],
    "fastdl.tables.ensemble": ["Ensemble"],
    "fastdl.tables.loading": ["load"],
    "fastdl.tables.model": ["TableModel"],
    "fastdl.training.checkpoint": ["Checkpoint"],
    "fastdl.training.early_stopping": ["EarlyStopping", "ReduceOnPlateau"],
    "fastdl.training.health": ["HealthWatch"],
    "fastdl.training.history": ["History"],
    "fastdl.training.live": ["LiveCurves"],
    "fastdl.training.many": ["fit_many"],
    "fastdl.training.pool": ["FitResult", "ManyProgress"],
    "fastdl.training.trackers": ["MLflow", "TensorBoard"],
    "fastdl.training.trainer": ["Trainer"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "schedules":
        return import_module("fastdl.schedules")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
