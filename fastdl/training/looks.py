"""What a trainer tells of itself beside its training: how that runs on this machine, and how the layers are doing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from fastdl import checks
from fastdl.engine import Session
from fastdl.engine import Settings as StepSettings
from fastdl.network import aligned_copy
from fastdl.precision import arithmetic_of
from fastdl.training import health
from fastdl.training.groups import factors_of
from fastdl.training.settings import Settings

if TYPE_CHECKING:
    from fastdl.engine.explain import Explanation
    from fastdl.engine.health import Health


class Looks(Settings):
    """The part of a `Trainer` that measures, on copies: the training goes on as if nothing had been asked."""

    _session: Session | None
    _looked_at: health.LookedAt | None  # some rows of the last `fit`

    def explain(self, seconds: float = 0.3) -> Explanation:
        """How this training runs on this machine: threads and tiles, speed and share of the peak, where the time goes.

        It is measured for about `seconds`, on random rows and on copies of the parameters and of everything else that a
        step changes: the training goes on as if nothing had been asked. `print` what it returns. With a `communicator` it is one
        rank's slice that is measured, and how the ranks have spent the time of their fits is said besides.
        """
        from fastdl.engine.explain import explain

        seconds = checks.positive(seconds, "seconds", "how long to measure")
        self.check_again()
        parameters = aligned_copy(self.model.parameters)
        settings, ranks = self._step_settings(clocked=True), self.ranks
        if ranks is None:
            return explain(Session(self.model.architecture, parameters, settings), self.n_threads, seconds)
        rows = max(1, settings.batch_size // ranks.size)
        session = Session(self.model.architecture, parameters, replace(settings, batch_size=rows))
        spread = None if self._session is None else self._session.spread
        told = "what they wait for is known after a fit" if spread is None else str(spread.seconds)
        return replace(explain(session, self.n_threads, seconds), ranks=f"{ranks}: {told}")

    def health(self, X: ArrayLike | None = None, y: ArrayLike | None = None) -> Health:
        """How the layers are doing: dead and saturated units, pre-activations, norms of weights, gradients and updates.

        Looked at are some rows of the last `fit`, or X and y; the step is taken on copies. `print` what it returns, or take its
        `advice`. `fastdl.HealthWatch()` among the callbacks looks after epochs. InputError where there are no dense rows.
        """
        given = None if X is None else (X, y)
        return health.of_trainer(self, given, self._looked_at, self._step_settings(), self._session)

    def _step_settings(self, clocked: bool = False) -> StepSettings:
        """What the settings, as they are now, say of a step."""
        return StepSettings(
            self.batch_size,
            self.optimizer,
            self.l2,
            self.clip_norm or 0.0,
            self.dropout_rates,
            self.seed,
            self.n_threads,
            clocked,
            factors=factors_of(self.model, self.optimizer, self.group_rates, self.group_decays, self.ntk),
            arithmetic=arithmetic_of(self.precision),
        )
