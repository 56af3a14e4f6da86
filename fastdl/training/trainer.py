"""The trainer: shuffled mini-batches, epochs, validation and history."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from fastdl.engine import Session
from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.optimizers import Optimizer
from fastdl.schedules import Schedule
from fastdl.sparse import SparseRows
from fastdl.training import health
from fastdl.training.callbacks import Hooks
from fastdl.training.chunks import Chunks
from fastdl.training.early_stopping import EarlyStopping
from fastdl.training.epochs import learn_once, run
from fastdl.training.history import History
from fastdl.training.looks import Looks
from fastdl.training.rows import TrainingRows
from fastdl.training.settings import SETTINGS
from fastdl.training.shuffling import Orders
from fastdl.training.step_numbers import StepNumbers, check_schedules
from fastdl.training.together import alone, together
from fastdl.training.under_way import Data, Fit, Kept, Pending
from fastdl.training.validation import Validation, warn_of_large_targets

# What a copy of a trainer makes anew.
_OWN = ("_session", "_orders", "_fit", "_looked_at", "communicator")


class Trainer(Looks):
    """Trains an `MLP` with mini-batches.

    Parameters
    ----------
    model : the model; its parameters are updated in place
    optimizer : SGD, Momentum, RMSProp, Adam or AdamW
    batch_size : rows per step; the last, shorter batch of an epoch is used too
    epochs : passes over the data per call of `fit`
    l2 : adds (l2/2) Σ w² over weights, not biases, to the loss
    seed : of the shuffling and of dropout; the rows are put in a new order for each epoch
    n_threads : how many threads work on a step, or "auto": the fastest number, found by trying while the training runs. The
        results do not depend on it
    callbacks : objects with methods of `fastdl.Callback`
    schedule : one of `fastdl.schedules`, such as `schedules.Warmup(100, schedules.Cosine())`, for the rate of each step
    clip_norm : the largest norm of the gradient of all parameters together, as the optimizer gets it, L2 penalty
        included: a longer one is scaled to it (Pascanu et al., 2013). It takes one more pass over the parameters
    dropout : share of hidden outputs set to 0 in training while the others are divided by 1 - share (Srivastava et al.,
        2014): one for all hidden layers or one each
    early_stopping : an `EarlyStopping`, or its patience in epochs; it needs `validation_data`
    class_weight : weights of the rows by their class, {0: 1.0, 1: 5.0} or "balanced" (each class counts the same in
        sum); it multiplies `sample_weight`. For softmax and for one sigmoid output
    metrics : {name: function(y, predictions) -> number} of the validation data, besides fastdl's own: they come into the
        history, and early stopping can watch them. y is what `fit` was given, predictions what `model.predict` says
    group_rates : what the learning rate is multiplied by for groups of parameters, such as {"biases": 0.1}; 1 where nothing is
        said. The groups are "weights" and "biases" (a factor for all layers, or a list of one each), "activations"
        (the units' own numbers of parametric ones), "embedding", "categories" and
        "input_scale" (for models that have them)
    group_decays : the same for AdamW's weight decay; usually weights decay (1) and other groups do not (0)
    ntk : train weights as multiples of 1 / sqrt(I), where I are the inputs of their layer (NTK parametrisation; Jacot et al.,
        2018): `MLP(init="lecun")` makes them start at deviation 1. What SGD, Momentum, RMSProp and Adam do to weight * sqrt(I) at
        a rate r, they do to the weights themselves at r / I, r / I, r / sqrt(I) and r / sqrt(I), but for eps: so only rates are
        changed. Weight decay keeps its strength
    decay_schedule : one of `fastdl.schedules`, such as `schedules.FlatCosine()`, which AdamW's weight decay is multiplied by in
        each step
    dropout_schedule : one that the dropout rates are multiplied by in each epoch: by what it says of the epoch's first step
    precision : "float32", or "bf16": products of layers of 64 inputs and outputs or more, in batches of 32 rows or more, are done
        on operands rounded to bfloat16, on processors that have an instruction for it (see `fastdl.precision.check`, also
        for its other values). Parameters, activations, losses and the optimizer stay in float32
    communicator : train on all processes that an MPI launcher has started: a communicator of mpi4py, such as MPI.COMM_WORLD, or
        `fastdl.Ranks` with more to say. All of them run the same program with the same model, settings and data; each takes its
        slice of every batch, and all come to the same parameters. Rank 0 writes the checkpoints. A copy of a trainer is alone

    All of these are attributes as well, and may be set at any time: a new value holds from the next `fit`. What still fits is
    kept: steps, epochs, and the optimizer's state as long as its kind is the same.

    Attributes
    ----------
    history : the `History` of the last `fit`
    epochs_done, steps_done : over all calls of `fit`; schedules and the order of the rows go on counting
    rate_factor : the schedule's learning rates are multiplied by it (`fastdl.ReduceOnPlateau` lowers it)

    A second call of `fit` goes on where the first ended. A trainer can be pickled and copied: the copy has a model of its
    own and goes on with the same bits. `save_checkpoint` and `from_checkpoint` do it with a file, for another process.
    """

    def __init__(
        self,
        model: MLP,
        optimizer: Optimizer | None = None,
        batch_size: int = 64,
        epochs: int = 20,
        l2: float = 0.0,
        seed: int = 0,
        n_threads: int | str = "auto",
        callbacks: Sequence[Any] = (),
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        dropout: float | Sequence[float] = 0.0,
        early_stopping: EarlyStopping | int | None = None,
        *,
        class_weight: Mapping[int, float] | str | None = None,
        metrics: Mapping[str, Callable[..., float]] | None = None,
        group_rates: Mapping[str, float | Sequence[float]] | None = None,
        group_decays: Mapping[str, float | Sequence[float]] | None = None,
        ntk: bool = False,
        decay_schedule: Schedule | None = None,
        dropout_schedule: Schedule | None = None,
        precision: str = "float32",
        communicator: Any = None,
    ) -> None:
        given = locals()
        for name, setting in SETTINGS.items():
            setattr(self, name, given.get(name, setting.default))
        self._epochs_done = 0
        self.history = History()
        self._stopped = False
        self._session: Session | None = None
        self._kept: Kept | None = None
        self._fit: Fit | None = None  # under way, or interrupted
        self._pending: Pending | None = None  # of a checkpoint: the next `fit` finishes it
        self._orders = Orders(self.seed)
        self._looked_at: health.LookedAt | None = None

    def fit(
        self,
        X: Any,
        y: Any = None,
        validation_data: tuple[Any, ...] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> History:
        """Train for `epochs` passes over the rows of X [N, I] and y, and return the history of these epochs.

        X is an array of any number type, read where it lies (a `numpy.memmap` too), a list of such arrays, whose rows follow
        each other, nested lists, a data frame, or a sparse matrix of SciPy, which is never made dense; parameters and the
        optimizer's state are. While an epoch on sparse rows is under way, weights of columns that its last batches did not
        have may be some steps behind: they are up to date when it ends.

        Without y, X is an iterable of chunks (X, y) or (X, y, weights), gone through once for each epoch, or a function that
        gives one: see `Chunks`. Weights are relative to the mean of their chunk.

        y holds class labels 0 .. O-1 as [N], or one-hot rows [N, O], for softmax; labels [N] or [N, O] for sigmoid;
        targets [N] or [N, O] for linear output. `sample_weight` [N] weights the rows' losses relative to their mean
        weight. `validation_data` is (X, y), or (X, y, weights).

        Raises
        ------
        InputError : data that does not fit the model, or a batch size over the rows
        DivergedError : loss, validation loss or parameters became NaN or infinite: parameters, optimizer state and
            counters are those of the last good epoch, so that a lower rate goes on from there

        Ctrl-C (KeyboardInterrupt) ends the training between two batches: the model is usable and `trainer.history`
        holds the finished epochs.
        """
        self.check_again()
        model = self.model
        model.check_writable()
        data: TrainingRows | Chunks
        if y is None:
            data = Chunks(X, self, sample_weight)
        else:
            data = TrainingRows.given(model, X, y, sample_weight, self.class_weight)
            self.check_batch_size(len(data))
        validation = None if validation_data is None else Validation.of(model, validation_data, self.metrics)
        if isinstance(data, TrainingRows):
            warn_of_large_targets(model, data.own_targets)
            model.note_names(X)
        return self.fit_prepared(data, validation)

    def check_batch_size(self, n_rows: int) -> None:
        """Raise InputError if a batch is to have more than all `n_rows` rows, or fewer than there are ranks."""
        if self.ranks is not None and self.batch_size < self.ranks.size:
            raise InputError(
                f"batch_size: expected at least a row for each of {self.ranks.size} ranks, got {self.batch_size}; use fewer ranks"
            )
        if self.batch_size > n_rows:
            raise InputError(
                f"batch_size: expected at most the {n_rows} rows of X, got {self.batch_size}; "
                f"pass batch_size={n_rows} for full-batch training"
            )

    def check_watched(self, validates: bool) -> None:
        """Raise InputError if early stopping is to watch what is not measured."""
        stopping = self.early_stopping
        if stopping is not None and stopping.monitor != "loss" and not validates:
            raise InputError(
                f"early_stopping: expected validation_data to watch {stopping.monitor} on, got none; "
                f"pass validation_data=(X, y) to fit, or monitor='loss'"
            )

    def fit_prepared(
        self, data: TrainingRows | Chunks, validation: Validation | None, watchers: Sequence[object] = ()
    ) -> History:
        """`fit` on data that are ready; `watchers` are told of this training as callbacks are, after them."""
        stopping = self.early_stopping
        self.check_watched(validation is not None)
        whole = Data(data, validation)
        pending = None if self._state_is_of_another else self._pending
        if pending is not None:
            pending.check(self, len(self.history), whole)
        # Before the training is said to have begun: choosing threads may import psutil, and Python ends with the status of
        # an interrupted process if Ctrl-C ever met it there, whatever the program did about it.
        session = self._current_session()
        session.prepare(isinstance(data, TrainingRows) and isinstance(data.inputs, SparseRows))
        if validation is not None:
            self.model.engine.prepare()
        hooks = Hooks(self, [*self.callbacks, *watchers, *([] if stopping is None else [stopping])])
        self.history = History() if pending is None else self.history
        self._stopped = pending is not None and pending.fit["stopped"]
        self._fit = Fit(self, session, whole, hooks.callbacks, pending)
        self._pending = None
        self._looked_at = health.LookedAt.of(data, self._fit.span)
        try:
            hooks.call("on_train_begin", self.epochs, whole.n_rows)
            self._fit.take_up(self)
            if pending is None or not self._stopped:
                with together(self, session, data):
                    run(self, session, self._fit, hooks)
            hooks.call("on_train_end")
            self._fit = None
        finally:
            if isinstance(data, Chunks):  # no checkpoint holds its place
                self._fit = None
            hooks.close()
        return self.history

    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Learn from these rows once, in batches in random order, and return their mean loss; go on with the next ones.

        X, y and weights are as in `fit`, but no chunks; there may be fewer rows than a batch has. Schedules go on from call to
        call; callbacks, early stopping and `history` take no part.

        Raises
        ------
        InputError : as `fit`; or a training from a checkpoint has not come to its end, which `fit` finishes
        DivergedError : parameters, optimizer state and counters are those of before the call
        """
        alone(self, "partial_fit")
        self.check_again()
        self.model.check_writable()
        check_schedules(self)
        if self._pending is not None and not self._state_is_of_another:
            raise InputError(
                "partial_fit: expected no training under way, got one from a checkpoint; finish it with fit"
            )
        rows = TrainingRows.given(self.model, X, y, sample_weight, self.class_weight)
        warn_of_large_targets(self.model, rows.targets)
        self.model.note_names(X)
        session = self._current_session()
        self._fit = self._pending = None
        return learn_once(session, rows, StepNumbers(self, session), self.rate_factor, (self.seed, 0, self.steps_done))

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write all that the training needs to go on to one file, for `from_checkpoint`; an old one is replaced in one go.

        It may be called at any time, in methods of callbacks too: the file knows the place within an epoch. With a `communicator`
        all ranks have to call it, and rank 0 writes the file.

        Raises
        ------
        InputError : it cannot be written, or Ctrl-C ended the training in the middle of a step
        """
        from fastdl.training import checkpoint_file

        checkpoint_file.write(self, path)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        callbacks: Sequence[Any] | None = None,
        metrics: Mapping[str, Callable[..., float]] | None = None,
        schedule: Schedule | None = None,
        early_stopping: EarlyStopping | int | None = None,
    ) -> Trainer:
        """A trainer that goes on to the same bits as the one that wrote the file, with a model of its own (`trainer.model`).

        If a call of `fit` was under way then, `fit` with the same data finishes it: history, early stopping and schedules go
        on. Otherwise `fit` is a further one, as it would have been there. Settings may be changed before. No file can hold
        code: callbacks, metrics, schedules and early stopping of classes of your own have to be given.

        Raises
        ------
        ModelFileError : the file is missing, of another kind, truncated or altered
        InputError : there was something of your own that is not given
        """
        from fastdl.training import checkpoint_file

        given = {"callbacks": callbacks, "metrics": metrics, "schedule": schedule, "early_stopping": early_stopping}
        trainer: Trainer = checkpoint_file.trainer_of(cls, checkpoint_file.read(path), given, path)
        return trainer

    @property
    def epochs_done(self) -> int:
        """How many epochs there were in all calls of `fit` on this model."""
        return 0 if self._state_is_of_another else self._epochs_done

    @property
    def steps_done(self) -> int:
        """How many steps there were in all calls of `fit` on this model."""
        known = self._session or (self._kept and self._kept.state)
        return 0 if known is None or self._state_is_of_another else known.steps_done

    @property
    def _state_is_of_another(self) -> bool:
        """Whether another model has been set since the last `fit`: the next one begins anew."""
        if self._session is not None:
            return self._session.parameters is not self.model.parameters
        return self._kept is not None and self._kept.model is not self.model

    def stop(self) -> None:
        """End the `fit` under way after the epoch that is running or has just ended; for callbacks."""
        self._stopped = True

    def _current_session(self) -> Session:
        """The session of the model, for the settings as they are now.

        The one place that notices changed settings: the session makes anew what does not fit any more, all for another model.
        """
        settings, model = self._step_settings(), self.model
        if self._state_is_of_another:  # the workspaces of before go before new ones come
            self._session, self._kept, self._epochs_done = None, None, 0
        if self._session is not None and self._session.ranks is not self.ranks:
            self._kept, self._session = self._keep(), None
        if self._session is None:
            kept, self._kept = self._kept, None
            first = settings if kept is None else replace(settings, optimizer=kept.optimizer)
            self._session = Session(model.architecture, model.parameters, first, self.ranks)
            if kept is not None:
                self._session.resume(kept.state)
        self._session.apply(settings)
        if self._orders.seed != self.seed:
            self._orders = Orders(self.seed)
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        """Settings, counters and the optimizer's state: workspaces and compiled code are made anew by a copy."""
        state = {name: value for name, value in vars(self).items() if name not in _OWN}
        return {**state, "_kept": self._keep()}

    def _keep(self) -> Kept | None:
        """The optimizer's state; its model is None once another one has been set."""
        if self._session is None:
            return self._kept
        model = None if self._state_is_of_another else self.model
        return Kept(model, self._session.settings.optimizer, self._session.state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._session = self._fit = self._looked_at = self.communicator = None
        self._orders = Orders(self.seed)
