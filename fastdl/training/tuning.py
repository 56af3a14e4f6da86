"""A search for good settings: random ones, all trained at once for a few epochs, the better third for longer, and again.

Successive halving (Jamieson and Talwalkar, 2016) over random candidates: all trials of a round are known beforehand, so that they
are trained side by side. Samplers that learn from trial to trial, such as Optuna's, would have to wait for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.tables import data, split
from fastdl.tables.data import TrainingData
from fastdl.training import elsewhere
from fastdl.training.fitting import Blueprint
from fastdl.training.many import jobs_on
from fastdl.training.pool import ManyProgress
from fastdl.training.trainer import Trainer

RATES = 10.0
WIDTHS = (32, 64, 128, 256, 512)
DEEPEST = 4
DROPOUT = (0.0, 0.0, 0.1, 0.2, 0.3)
"""What candidates are drawn from: rates from a tenth to ten times that of the first, evenly by their logarithm; one width for all
layers, half of them narrower towards the end."""
KEPT = 3
"""One trial in so many goes on to the next round, for so many times as many epochs."""
ROUNDS = 3
SHARE = 0.2
"""Of the training rows, which trials are compared on."""


@dataclass(frozen=True)
class Candidate:
    """Settings to try: sizes of the hidden layers, learning rate and dropout rate."""

    hidden: tuple[int, ...]
    lr: float
    dropout: float


@dataclass
class Trial:
    """How a candidate did.

    epochs : that it was trained for
    loss : the validation loss after the last of them; infinite if the training failed
    metrics : of the validation rows, at the same time
    seconds : of training, beside the others
    error : what ended the training, or nothing
    """

    number: int
    candidate: Candidate
    epochs: int = 0
    loss: float = math.inf
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


def draw(first: Candidate, count: int, seed: int) -> list[Candidate]:
    """`count` candidates: `first`, and others drawn by `seed`."""
    rng = np.random.default_rng(seed)
    found = [first]
    while len(found) < count:
        width, depth = int(rng.choice(WIDTHS)), int(rng.integers(1, DEEPEST + 1))
        narrows = bool(rng.integers(2))
        hidden = tuple(max(WIDTHS[0], width >> i) if narrows else width for i in range(depth))
        lr = first.lr * RATES ** float(rng.uniform(-1, 1))
        found.append(Candidate(hidden, float(f"{lr:.3g}"), float(rng.choice(DROPOUT))))
    return found


def rounds_of(epochs: int) -> list[int]:
    """After how many epochs, in all, each round ends: 5, 14 and 40 of 40."""
    ends = [max(1, math.ceil(epochs / KEPT**k)) for k in reversed(range(ROUNDS))]
    return sorted(set(ends))


def with_rows_to_choose_by(loaded: TrainingData, options: data.Options) -> TrainingData:
    """The training rows in two: to learn from, and to compare trials on. Validation rows are in neither.

    Rows of a group stay together.
    """
    train = loaded.train
    labels = loaded.targets.labels
    if options.group is not None and loaded.table is not None:
        groups = split.groups_of(loaded.table.frame[options.group], loaded.rows)[train]
        _, groups = np.unique(groups, return_inverse=True)
        learn, choose = split.split_by_group(groups.reshape(-1), SHARE, options.seed)
    else:
        learn, choose = split.split(len(train), SHARE, options.seed, None if labels is None else labels[train])
    return replace(data.refitted(loaded, options, train[learn], train[choose]), held_out=None)


class Search:
    """Trials of candidates on the same rows.

    Parameters
    ----------
    loaded : the data; trials are compared on its validation rows
    blueprint : of each model, but for its hidden layers
    trainer_of : makes the trainer for a model, its number of training rows, and a candidate
    candidates : at least one
    epochs : of a trial that goes through all rounds
    """

    def __init__(
        self,
        loaded: TrainingData,
        blueprint: Blueprint,
        trainer_of: Callable[[MLP, int, Candidate], Trainer],
        candidates: Sequence[Candidate],
        epochs: int,
    ) -> None:
        self._loaded, self._ends = loaded, rounds_of(epochs)
        self.trials = [Trial(i, candidate) for i, candidate in enumerate(candidates, 1)]
        self._trainers: list[Trainer] = []
        first: MLP | None = None
        for candidate in candidates:
            hidden = list(candidate.hidden)
            model = replace(blueprint, hidden=hidden).model(loaded, first)
            first = model if first is None else first
            self._trainers.append(trainer_of(model, len(loaded.train), candidate))

    def run(
        self,
        progress: Callable[[int, int, ManyProgress], None] | None = None,
        executor: Any = None,
        own_share: int = 0,
    ) -> list[Trial]:
        """All rounds; the trials, the best first: those of later rounds before the others, then by their loss.

        progress : called with (round from 1, how many rounds, its `ManyProgress`)
        executor, own_share : where trials run: see `elsewhere.run`

        Raises
        ------
        InputError : all trials failed
        """
        X, y = self._loaded.training_pair()
        held_out = self._loaded.validation_pair()
        alive = list(range(len(self.trials)))
        begun = 0
        for number, end in enumerate(self._ends, 1):
            for i in alive:
                self._trainers[i].epochs = end - begun
            jobs = jobs_on([self._trainers[i] for i in alive], X, y, validation_data=held_out)
            tell = None if progress is None else _in_round(progress, number, len(self._ends))
            for i, result in zip(alive, elsewhere.run(jobs, tell, executor, own_share)):
                trial = self.trials[i]
                trial.seconds += result.seconds
                trial.epochs += len(result.history)
                if result.error is None:
                    trial.loss = result.history.val_loss[-1]
                    trial.metrics = {name: values[-1] for name, values in result.history.metrics.items()}
                else:
                    trial.loss, trial.error = math.inf, str(result.error)
            good = sorted((i for i in alive if not self.trials[i].error), key=lambda i: self.trials[i].loss)
            if not good:
                raise InputError(
                    f"tune: expected a trial that trains, got {len(alive)} that failed: {self.trials[alive[0]].error}"
                )
            alive, begun = good[: math.ceil(len(alive) / KEPT)], end
        return sorted(self.trials, key=lambda trial: (bool(trial.error), -trial.epochs, trial.loss))


def _in_round(
    progress: Callable[[int, int, ManyProgress], None], number: int, count: int
) -> Callable[[ManyProgress], None]:  # fmt: skip
    return lambda state: progress(number, count, state)
