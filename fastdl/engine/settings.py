"""What a training session is told about its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import structs
from fastdl.network import Architecture
from fastdl_kernels.serial import FLOAT32

HYPER = {
    "beta": structs.BETA1,
    "beta1": structs.BETA1,
    "beta2": structs.BETA2,
    "eps": structs.EPS,
    "weight_decay": structs.WEIGHT_DECAY,
    "nesterov": structs.NESTEROV,
}
"""Where a hyperparameter of an optimizer stands in what compiled code gets."""


class Optimizer(Protocol):
    """What a session must know of an optimizer."""

    @property
    def code(self) -> int:
        """Which update it is: see `structs.SGD` and those after it."""

    @property
    def n_states(self) -> int:
        """How many buffers as large as the parameters it keeps."""

    def hyperparameters(self) -> Mapping[str, Any]:
        """Its numbers by name; the learning rate comes with each epoch instead."""


class Factors(NamedTuple):
    """What learning rate and decoupled weight decay are multiplied by for a layer's weights, for its biases, and for
    the units' own numbers of a parametric activation."""

    weight_rate: float = 1.0
    weight_decay: float = 1.0
    bias_rate: float = 1.0
    bias_decay: float = 0.0
    alpha_rate: float = 1.0
    alpha_decay: float = 0.0


def usual_factors(architecture: Architecture) -> list[Factors]:
    """Those that hold where nothing else is said: of an input stage, nothing decays."""
    stage = [] if architecture.stage is None else [Factors(weight_decay=0.0)]
    return stage + [Factors()] * (len(architecture.pairs) - len(stage))


@dataclass(frozen=True)
class Settings:
    """What a step does, besides network and data.

    batch_size : the most rows of a step
    optimizer : None leaves the parameters alone and the last batch's gradient in `Session.gradient`
    l2 : adds (l2/2) Σ w² over weights to the loss, in the gradient only
    clip_norm : the limit of the gradient's norm; 0 is none
    dropout : one dropout rate per hidden layer, or none at all
    seed : of the dropout masks
    n_threads : "auto" or their number; results do not depend on it
    clocked : count the ticks of each kind of job in `Session.ticks`
    penalised : add up the L2 penalties of the batches in `Session.penalty`
    arithmetic : of the products of large layers: see `plan.FEWEST_UNITS`
    factors : one for each layer, an input stage included, whose weights and biases are its embedding and its scales, and whose
        alphas the tables of its categories; or none, for the usual ones
    """

    batch_size: int
    optimizer: Optimizer | None = None
    l2: float = 0.0
    clip_norm: float = 0.0
    dropout: tuple[float, ...] = ()
    seed: int = 0
    n_threads: int | str = "auto"
    clocked: bool = False
    penalised: bool = False
    factors: tuple[Factors, ...] = ()
    arithmetic: int = FLOAT32


class State(NamedTuple):
    """What a session carries from step to step, besides the parameters: see `Session`."""

    states: list[NDArray]
    steps_done: int
    updates_done: int


class Place(NamedTuple):
    """How far an epoch has come: its batches that are done, and the sum of their rows' losses."""

    batch: int = 0
    loss_sum: float = 0.0


START = Place()


def kind(optimizer: Optimizer | None) -> tuple[int, int] | None:
    """What states are good for."""
    return None if optimizer is None else (optimizer.code, optimizer.n_states)


def step_table(
    usual: NDArray[np.float64],
    rates: NDArray[np.float64],
    l2: NDArray[np.float64] | float | None = None,
    eps: NDArray[np.float64] | float | None = None,
    scale: NDArray[np.float64] | float | None = None,
    decay_factor: NDArray[np.float64] | float | None = None,
) -> NDArray[np.float64]:
    """What differs from step to step [batches, STEP_COLUMNS]: learning rates, and besides them, where it is not as `usual`:

    l2 and eps of each step, scale, which a batch's mean loss and its gradient are multiplied by, and decay_factor, which the
    optimizer's weight decay is multiplied by.
    """
    table = np.empty((len(rates), structs.STEP_COLUMNS))
    table[:] = usual
    table[:, structs.RATE] = rates
    if l2 is not None:
        table[:, structs.STEP_L2] = l2
    if eps is not None:
        table[:, structs.STEP_EPS] = eps
    if scale is not None:
        table[:, structs.SCALE] = scale
    if decay_factor is not None:
        table[:, structs.STEP_DECAY] *= decay_factor
    return table
