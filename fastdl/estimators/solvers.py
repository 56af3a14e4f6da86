"""scikit-learn's stochastic solvers on fastdl's optimizers: the learning rate of each step, and what ends an epoch.

A solver says which optimizer the engine runs, with which rate and which eps in each step. It lives as long as the optimizer's
states: through one `fit`, and through all calls of `partial_fit`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import Session
from fastdl.optimizers import SGD, Adam, Momentum, Optimizer
from fastdl.schedules import Schedule


class Solver:
    """A fastdl optimizer as it is, with a schedule if there is one."""

    def __init__(self, optimizer: Optimizer, schedule: Schedule | None = None) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.learning_rate = optimizer.lr

    def rates(self, first: int, count: int, span: tuple[int, int]) -> NDArray[np.float64]:
        """The engine's learning rates of the steps first .. first + count - 1; `span` is that of the whole fit."""
        if self.schedule is not None:
            return self.schedule.rates(self.optimizer.lr, first, count, span)
        return np.full(count, self.optimizer.lr)

    def eps(self, first: int, count: int) -> NDArray[np.float64] | None:
        """The engine's eps of these steps; None is the optimizer's own."""
        return None

    def epoch_ends(self, samples: int, session: Session) -> None:
        """An epoch is over, and `samples` rows have been seen in all."""

    def stops(self, message: str, verbose: Any, session: Session) -> bool:
        """Whether training ends now that it does not get better; `message` says so."""
        if verbose:
            print(message + " Stopping.")
        return True


class AdamSolver(Solver):
    """theta <- theta - lr_t m / (sqrt(v) + epsilon), lr_t = lr sqrt(1 - beta_2^t) / (1 - beta_1^t).

    That is fastdl's Adam, whose eps is added to the corrected root sqrt(v / (1 - beta_2^t)), with
    eps_t = epsilon / sqrt(1 - beta_2^t).
    """

    def __init__(self, lr: float, beta_1: float, beta_2: float, epsilon: float, schedule: Schedule | None) -> None:
        super().__init__(Adam(lr, beta_1, beta_2, epsilon), schedule)

    def eps(self, first: int, count: int) -> NDArray[np.float64]:
        """epsilon / sqrt(1 - beta_2^t), t = first + 1 ...; it is the plain epsilon once beta_2^t has vanished."""
        optimizer = self.optimizer
        assert isinstance(optimizer, Adam)
        powers = optimizer.beta2 ** np.arange(first + 1, first + 1 + count, dtype=np.float64)
        return optimizer.eps / np.sqrt(1.0 - powers)


class SGDSolver(Solver):
    """v <- momentum v - lr g; theta <- theta + v, or with Nesterov's momentum theta + momentum v - lr g.

    fastdl's Momentum averages gradients instead: u <- momentum u + (1 - momentum) g, theta <- theta - r u. With
    r = lr / (1 - momentum) that is the same, v = -r u, as long as lr stays; when it changes, between two epochs, u is scaled so
    that v stays what it was.

    learning_rate, of epoch to epoch: "constant"; "invscaling", lr / (samples seen + 1)^power_t; "adaptive", a fifth each time
    training does not get better.
    """

    def __init__(
        self, lr: float, kind: str, momentum: float, nesterov: bool, power_t: float, schedule: Schedule | None
    ) -> None:
        # With momentum 1 the engine's rate would be infinite: the number next to 1 differs from it by less than its rounding.
        self._rest = 1.0 - min(momentum, math.nextafter(1.0, 0.0))
        rule = Momentum(lr, 1.0 - self._rest, bool(nesterov)) if momentum > 0 else SGD(lr)
        super().__init__(rule, schedule)
        self._kind, self._power_t = kind, power_t

    def rates(self, first: int, count: int, span: tuple[int, int]) -> NDArray[np.float64]:
        """lr / (1 - momentum)."""
        rates = super().rates(first, count, span) if self.schedule is not None else np.full(count, self.learning_rate)
        return rates / self._rest

    def epoch_ends(self, samples: int, session: Session) -> None:
        """The next epoch's rate."""
        if self._kind == "invscaling":
            self._change(self.optimizer.lr / (samples + 1) ** self._power_t, session)

    def stops(self, message: str, verbose: Any, session: Session) -> bool:
        """With "adaptive", only once the rate is 1e-6 or less; until then it is divided by 5."""
        if self._kind != "adaptive":
            return super().stops(message, verbose, session)
        if self.learning_rate <= 1e-6:
            return super().stops(message + " Learning rate too small.", verbose, session)
        self._change(self.learning_rate / 5.0, session)
        if verbose:
            print(message + f" Setting learning rate to {self.learning_rate:f}")
        return False

    def _change(self, rate: float, session: Session) -> None:
        if self.schedule is None:
            session.states[0] *= self.learning_rate / rate
        self.learning_rate = rate


def solver_of(estimator: Any) -> Solver:
    """What the estimator's parameters ask for."""
    if estimator.optimizer is not None:
        return Solver(estimator.optimizer, estimator.schedule)
    lr = float(estimator.learning_rate_init)
    if estimator.solver == "sgd":
        return SGDSolver(
            lr,
            estimator.learning_rate,
            float(estimator.momentum),
            bool(estimator.nesterovs_momentum),
            float(estimator.power_t),
            estimator.schedule,
        )
    return AdamSolver(
        lr, float(estimator.beta_1), float(estimator.beta_2), float(estimator.epsilon), estimator.schedule
    )  # fmt: skip
