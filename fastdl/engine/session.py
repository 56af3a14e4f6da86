"""A training session: an optimizer's states and the workspaces of steps, made once, on which native calls run.

Each call takes about 50 ms, without the GIL, on as many threads as the thread tuner chooses; between two of them Python gets its
turn, for progress, callbacks and Ctrl-C.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.distributed.ranks import Ranks
from fastdl.engine import step, structs
from fastdl.engine.boundary import check, check_epoch, fault
from fastdl.engine.compile import for_arithmetic, for_sparse, for_training
from fastdl.engine.interrupt import run_interruptibly
from fastdl.engine.loss import NO_LABELS, check_labels, empty_targets, split_targets
from fastdl.engine.plan import Layout
from fastdl.engine.settings import HYPER, START, Place, Settings, State, kind, step_table, usual_factors
from fastdl.engine.source import NO_SOURCE, taken
from fastdl.engine.sparse_workspace import SparseWorkspace, no_sparse
from fastdl.engine.spread import Spread
from fastdl.engine.thread_tuner import SECONDS_PER_CALL
from fastdl.engine.workspace import Workspace
from fastdl.network import Architecture, aligned_zeros
from fastdl.sparse import SparseRows
from fastdl.stored import Inputs
from fastdl_kernels.serial import STOP, usable_cores

# Multiply-adds of a step that may take more than 20 ms.
SLOW_STEP = 1_000_000_000

# By dtype: `step.train_batches`, and on how many threads it has run.
_entries: dict[np.dtype, Callable[..., None]] = {}
_started: dict[np.dtype, int] = {}


class Session:
    """The training of one network's parameters.

    steps_done : counts all steps, for dropout and schedules
    settings : those in force; `apply` changes them
    penalty : with `penalised`, the mean L2 penalty of the last epoch's batches, weighted by their rows as their losses are
    states : the optimizer's, as large as the parameters; empty where it has less than two
    spread : how steps are spread over ranks, if they are
    """

    def __init__(
        self, architecture: Architecture, parameters: NDArray, settings: Settings, ranks: Ranks | None = None
    ) -> None:
        self.architecture = architecture
        self.spread = None if ranks is None else Spread(ranks, architecture)
        self._all = 1, 0  # rows of a batch and of an epoch
        self.parameters = parameters
        self.steps_done = 0
        self.states: list[NDArray] = []
        self._shape = (architecture.n_parameters,)
        self._hyper = np.zeros(structs.HYPER_SIZE + structs.FACTORS * len(architecture.pairs))
        self._usual_step = np.ones(structs.STEP_COLUMNS)  # a row of `step_table`, but for the rate
        self.penalty = 0.0
        self._updates_done = 0  # by the optimizer whose states there are
        self._snapshot: tuple[list[NDArray], int, int] | None = None
        self._counted = True  # whether parameters and states are those after `steps_done` whole steps
        self._behind: Callable[[], None] | None = None  # what brings weights up to date that are some steps behind
        self._sparse: SparseWorkspace | None = None
        self._stored = 0  # numbers of a row of sparse inputs, about; 0: dense
        self._no_sparse = no_sparse(architecture.dtype)
        with for_training(architecture):
            self._layout = Layout(architecture)
            self._build(settings)
            self._adopt_states(settings)
            self._write_numbers(settings)
            self._train_batches = self._compiled()
        self.settings = settings

    def apply(self, settings: Settings) -> None:
        """Let these settings hold from the next epoch on, keeping all that still fits.

        Numbers are written where they stand. Workspaces are made anew if their size depends on what has changed. States
        are kept, and the count of updates that Adam corrects its bias with, unless the optimizer is of another kind.
        """
        old = self.settings
        if settings == old:
            return
        if self._rooms(settings) != self._rooms(old):
            self._build(settings)
        if kind(settings.optimizer) != kind(old.optimizer):
            self._adopt_states(settings)
        self._write_numbers(settings)
        self.settings = settings

    def _rooms(self, settings: Settings) -> tuple[Any, ...]:
        """What the workspaces depend on."""
        # Where steps are spread, too, all of the gradient is wanted before the update.
        clips, whole = settings.clip_norm > 0 or self.spread is not None, settings.optimizer is None
        rows = settings.batch_size if self.spread is None else self.spread.slice_size(settings.batch_size)
        clocks = settings.clocked, settings.penalised
        return rows, settings.n_threads, clips, whole, *clocks, settings.arithmetic, self._stored

    def _build(self, settings: Settings) -> None:
        for_arithmetic(settings.arithmetic)
        self._workspace = Workspace(self._layout, self.parameters, *self._rooms(settings))
        if self.spread is not None:
            self.spread.prepare(self._workspace, settings.batch_size)
        # Whether a single step may take longer than Ctrl-C should wait: what is expected here, later what the last call took.
        self._slow = self._workspace.work > SLOW_STEP

    def _adopt_states(self, settings: Settings) -> None:
        n_states, size = settings.optimizer.n_states if settings.optimizer else 0, self.architecture.n_parameters
        self.states = [aligned_zeros(size if i < n_states else 0, self.architecture.dtype) for i in range(2)]
        self._updates_done = 0
        self._snapshot = None

    def _write_numbers(self, settings: Settings) -> None:
        self._hyper[:] = 0
        self._hyper[[structs.L2, structs.CLIP]] = settings.l2, settings.clip_norm
        for name, value in (settings.optimizer.hyperparameters() if settings.optimizer else {}).items():
            if name != "lr":
                self._hyper[HYPER[name]] = value
        self._hyper[structs.HYPER_SIZE :] = np.ravel(settings.factors or usual_factors(self.architecture))
        usual = [structs.L2, structs.EPS, structs.WEIGHT_DECAY]
        self._usual_step[[structs.STEP_L2, structs.STEP_EPS, structs.STEP_DECAY]] = self._hyper[usual]
        self._code = settings.optimizer.code if settings.optimizer else structs.NO_UPDATE
        self._seed = int(np.random.SeedSequence(settings.seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
        self._drop(settings, 1.0)

    def _drop(self, settings: Settings, factor: float) -> None:
        """Let the dropout rates be those of the settings times `factor`."""
        self._dropout_factor = factor
        self._workspace.drop([rate * factor for rate in settings.dropout])

    @property
    def ranks(self) -> Ranks | None:
        """The processes that share its batches, if there are several."""
        return None if self.spread is None else self.spread.ranks

    @property
    def tuner(self) -> Any:
        """What chooses the threads of the coming call."""
        return self._workspace.tuner

    @property
    def workspace(self) -> Workspace:
        """The memory that steps work in."""
        return self._workspace

    @property
    def gradient(self) -> NDArray:
        """The last batch's gradient, where there is no optimizer."""
        return self._workspace.gradient

    @property
    def n_threads(self) -> int:
        """How many threads the coming call runs on."""
        return self._workspace.crews[self.tuner.choice].n_threads

    @property
    def leaves_a_core(self) -> bool:
        """Whether the coming call leaves a core to others."""
        return self.n_threads < usable_cores()

    @property
    def state(self) -> State:
        """What another session for such a network and optimizer needs to go on from here; the arrays are this session's own."""
        return State(self.states, self.steps_done, self._updates_done)

    def settle(self) -> float | None:
        """Between two native calls of an epoch, or after an exception that ended it: make all parameters those of the last
        step, and give the sum of the epoch's losses so far; None if a step was ended in its middle."""
        if self._behind is not None:
            self._behind()
        if self.spread is not None:
            self.spread.whole(self.states)
        return float(self._workspace.result[structs.LOSS_SUM]) if self._counted else None

    def resume(self, state: State) -> None:
        """Go on from a state that is of the same kind; its numbers are copied."""
        for mine, given in zip(self.states, state.states, strict=True):
            if given.shape != mine.shape or given.dtype != mine.dtype:
                raise fault(
                    f"an optimizer's state should be {mine.dtype} of shape {mine.shape}, "
                    f"and is {given.dtype} of shape {given.shape}"
                )
            mine[:] = given
        self.steps_done, self._updates_done = state.steps_done, state.updates_done

    def snapshot(self) -> None:
        """Remember parameters, states and steps, to `restore` them: one copy into buffers that are made once.

        States without an update yet are zeros, which need no copy.
        """
        arrays = [self.parameters, *(self.states if self._updates_done else ())]
        copies = [] if self._snapshot is None else self._snapshot[0]
        copies.extend(aligned_zeros(array.size, array.dtype) for array in arrays[len(copies) :])
        for copy, array in zip(copies, arrays):
            np.copyto(copy, array)
        self._snapshot = copies, self.steps_done, self._updates_done

    def restore(self) -> None:
        """Go back to the last snapshot; it stays, to go back again. EngineError if there is none of these states."""
        if self._snapshot is None:
            raise fault("there is no snapshot of these states to go back to")
        copies, self.steps_done, self._updates_done = self._snapshot
        self._counted = True
        np.copyto(self.parameters, copies[0])
        for i, state in enumerate(self.states, 1):
            if self._updates_done:
                np.copyto(state, copies[i])
            else:
                state[:] = 0

    def epoch(
        self,
        x: Inputs,
        y: NDArray,
        weight: NDArray | None,
        order: NDArray[np.int64],
        rates: NDArray[np.float64],
        on_progress: Callable[[int], None] | None = None,
        begin: Place = START,
        dropout_factor: float = 1.0,
        chosen: bool = False,
    ) -> tuple[float, int]:
        """One pass over the rows in `order`: (mean loss, -1), or (the loss, batch) of the first that is not finite.

        `weight` [N] has mean 1; `rates` holds the learning rate of each batch, or is a `step_table`. A batch of all rows is
        read as it stands, unless the rows are `chosen`: some may be missing then and others there twice. `on_progress` is called
        with the rows done, between native calls. An epoch that has been begun before goes on from `begin`, with the parameters
        and states of then. The dropout rates are multiplied by `dropout_factor`.
        """
        dtype, batch_size = self.architecture.dtype, self.settings.batch_size
        n_batches = -(-len(order) // batch_size)
        table = self.step_table(rates) if rates.ndim == 1 else rates
        check_epoch(self.architecture, (x, y, weight), order, table, n_batches)
        check("parameters", self.parameters, dtype, self._shape)
        labels, targets, weights = split_targets(self.architecture.loss, y, weight, dtype)
        self._all = batch_size, len(order)
        whole = len(order) == len(x) <= batch_size and not chosen and self.spread is None
        if self.spread is not None:
            order, batch_size = self.spread.own(order, batch_size), self.spread.slice_size(batch_size)
        if dropout_factor != self._dropout_factor:
            self._drop(self.settings, dropout_factor)
        x, source = taken(x, whole)
        sparse = self._take_sparse(x, table, len(order), whole, begin.batch)
        data = x if isinstance(x, np.ndarray) else np.zeros((len(x), 0), dtype), labels, targets, weights
        order = np.arange(len(x)) if whole and sparse is not None else order
        places = tuple(a[None] for a in data) if whole else self._workspace.places(*data[1:])
        data_and_order = batch_size, order, *data, source
        self.prepare()
        train_batches, result, state, tuner, batch = (
            self._train_batches if self.spread is None else functools.partial(self.spread.steps, self._train_batches),
            self._workspace.result,
            self._workspace.state,
            self.tuner,
            begin.batch,
        )
        # The loss is summed batch by batch through all calls: how many batches a call takes depends on the time they need.
        result[:] = 0
        result[structs.LOSS_SUM] = begin.loss_sum
        reached: int | None = None  # steps of the epoch that were taken, once that is known
        arguments = None if sparse is None else self._arguments(data_and_order, places, table, 0, 0, sparse)
        try:
            while batch < n_batches:
                count = min(tuner.steps, n_batches - batch)
                count = count if self.ranks is None else self.ranks.agreed(count)  # all tell of the same progress
                state[:] = 0
                result[structs.STEPS_DONE] = 0
                arguments = self._arguments(data_and_order, places, table, batch, count, sparse)
                reached = None
                self._counted = False
                start = time.perf_counter()
                try:
                    if self._slow and self.spread is None:
                        run_interruptibly(functools.partial(train_batches, *arguments), self._stop)
                    else:
                        train_batches(*arguments)
                finally:  # after Ctrl-C too: the steps that were taken are counted, unless it ended one in its middle
                    seconds = time.perf_counter() - start
                    done = int(result[structs.STEPS_DONE])
                    self.steps_done += done
                    self._updates_done += done
                    reached = None if state[STOP] else batch + done
                    self._counted = reached is not None
                loss = float(result[structs.LAST_LOSS])
                if not math.isfinite(loss):
                    check_labels(labels, self.architecture.layers[-1])
                    return loss, batch + done
                batch += done  # fewer than `count` if Ctrl-C came before the threads had begun
                tuner.took(done, seconds)
                self._slow = seconds > 2 * SECONDS_PER_CALL * count
                if on_progress is not None:
                    if sparse is not None:
                        self._behind = functools.partial(sparse.catch_up, arguments, batch)
                    on_progress(min(batch * self._all[0], self._all[1]))
        finally:
            self._behind = None
            if sparse is not None and arguments is not None:
                sparse.catch_up(arguments, reached)
        if sparse is not None and sparse.mode != structs.EAGER:
            result[structs.PENALTY_SUM] += self._workspace.row_squares[: x.shape[1]].sum()
        self.penalty = float(result[structs.PENALTY_SUM]) / self._all[1]
        return float(result[structs.LOSS_SUM]) / self._all[1], -1

    def _take_sparse(
        self, x: Inputs, table: NDArray, n_rows: int, whole: bool, done: int
    ) -> SparseWorkspace | None:  # fmt: skip
        """What an epoch on x needs besides, if it is sparse; workspaces are made anew where they were for other inputs.
        `done` are the batches that were learned from before."""
        stored = x.numbers_per_row if isinstance(x, SparseRows) else 0
        if stored != self._stored:
            self._stored = stored
            self._build(self.settings)
            self._drop(self.settings, self._dropout_factor)
        if not isinstance(x, SparseRows):
            self._sparse = None
            return None
        for_sparse(self.architecture, trains=True)
        size = 0 if whole else self.settings.batch_size
        if self._sparse is None or self._sparse.x is not x or self._sparse.batch_size != size:
            self._sparse = None  # its memory goes before new one comes
            self._sparse = SparseWorkspace(self.architecture, x, size)
        sizes = n_rows, self.settings.batch_size
        code = self._code if self.spread is None else structs.NO_UPDATE  # each step uses all of the gradient
        self._sparse.begin(table, sizes, code, self._hyper, self._updates_done + 1 - done, done)
        lazy = self._sparse.mode != structs.EAGER
        self._workspace.cut_first(lazy)
        if lazy:
            self._workspace.row_squares[: x.shape[1]] = 0
        return self._sparse

    def step_table(self, rates: NDArray[np.float64], *args: Any, **numbers: Any) -> NDArray[np.float64]:
        """What differs from step to step: see `settings.step_table`; what is not given is as in the settings."""
        return step_table(self._usual_step, rates, *args, **numbers)

    def prepare(self, sparse: bool = False) -> None:
        """Have all ready that the first step would wait for, on `sparse` inputs as well.

        That is Numba's threads, where the tuner may choose more than one: they are sent through a call of no steps, since
        starting them and loading their parallel region takes 0.1 s.
        """
        if sparse:
            for_sparse(self.architecture, trains=True)
        dtype, most = self.architecture.dtype, self.tuner.counts[-1]
        if most > _started.get(dtype, 1):
            self._workspace.state[:] = 0
            self._train_batches((self._workspace.state, most, 0), *self._no_steps()[1:])
            _started[dtype] = most

    def _compiled(self) -> Callable[..., None]:
        """`step.train_batches` for the dtype, which all types of its arguments follow from.

        It is called as it is, without Numba's look at the types of all arguments, which took longer than a small step.
        """
        dtype = self.architecture.dtype
        if dtype not in _entries:
            _entries[dtype] = step.train_batches.of(dtype)
        return _entries[dtype]

    def _no_steps(self) -> tuple[Any, ...]:
        """The arguments of a call that does nothing."""
        dtype = self.architecture.dtype
        data = np.zeros((0, self.architecture.layers[0]), dtype), *empty_targets(dtype)
        table = np.zeros((0, structs.STEP_COLUMNS))
        return self._arguments((1, NO_LABELS, *data, NO_SOURCE), tuple(a[None] for a in data), table, 0, 0)

    def _arguments(
        self,
        data: tuple[Any, ...],
        places: tuple[NDArray, ...],
        table: NDArray,
        batch: int,
        count: int,
        sparse: SparseWorkspace | None = None,
    ) -> tuple[Any, ...]:
        """Those of a native call for `count` batches from `batch` on."""
        w, layout = self._workspace, self._layout
        crew = w.crews[w.tuner.choice]
        return (
            (w.state, crew.n_threads, crew.row_blocks),
            (crew.plan, layout.alphas, self.parameters),
            layout.loss,
            (self._code, self._hyper, *self.states, w.gradient, w.squares, w.partial, w.row_squares),
            data,
            places,
            self._no_sparse if sparse is None else sparse.arguments,
            (w.outputs, w.d_outputs, w.losses),
            (batch, count, table, self.steps_done + 1, self._updates_done + 1, self._seed),
            (*self._all, structs.WHOLE_STEP, len(self.architecture.pairs) - 1, 0, 0, self.parameters.size),
            (w.result, w.ticks),
        )

    def _stop(self) -> None:
        """End the native call under way as soon as the jobs that have begun are done, in the middle of a step."""
        self._workspace.state[STOP] = 1
