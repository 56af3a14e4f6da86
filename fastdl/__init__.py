"""fastdl trains multi-layer perceptrons on CPU cores, fast.

>>> import fastdl
>>> model = fastdl.MLP([64, 128, 10], activation="relu", output="softmax", seed=0)
>>> history = fastdl.Trainer(model, optimizer=fastdl.Adam(lr=1e-3), epochs=20).fit(X, y)  # doctest: +SKIP
"""

from fastdl.activations import LeakyReLU
from fastdl.callbacks import Callback, EpochResult
from fastdl.datasets import load_digits
from fastdl.errors import DivergedError, InputError, MissingExtraError, ModelFileError
from fastdl.model import MLP
from fastdl.optimizers import SGD, Adam, Momentum, RMSProp
from fastdl.scaling import Scaling
from fastdl.storage import load
from fastdl.trainer import History, Trainer

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "Callback",
    "DivergedError",
    "EpochResult",
    "History",
    "InputError",
    "LeakyReLU",
    "MissingExtraError",
    "ModelFileError",
    "Momentum",
    "RMSProp",
    "Scaling",
    "Trainer",
    "load",
    "load_digits",
]
