"""Steps whose batches are spread over ranks: each takes the gradient of its slice, and all make one update of the sum.

A batch of B rows is cut into P slices, always at the same places: rank r takes the rows from r B // P to (r + 1) B // P. Each
divides by all rows of the batch, and drops the units that one process would drop in these rows. Gradients are added up in the
order of the ranks: each rank adds a part of them, updates this part of the parameters, and all ranks get all parts. So the work
of the update is spread as well, and so are the optimizer's states: a rank's own are up to date in its part alone, until `whole`
is asked for (as in ZeRO, stage 1; Rajbhandari et al., 2020).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl.distributed.ranks import Ranks
from fastdl.engine import structs
from fastdl.engine.thread_tuner import share_cores
from fastdl.engine.workspace import Workspace
from fastdl.network import Architecture

# Parameters of a block from which on it travels alone.
FEWEST = 1 << 16
# What ranks tell each other in each step: sum of losses, sum of squares of the gradient, whether a signal has come.
LOSS, SQUARES, SIGNAL = range(3)


Native = Callable[..., None]


class Piece(NamedTuple):
    """A call that takes the gradient through the layers top .. bottom; then block `block` of it is ready."""

    top: int
    bottom: int
    block: int


class Seconds(NamedTuple):
    """Where the time of spread steps goes: in compiled code, waiting for slower ranks, and in sending, receiving and adding."""

    computing: float
    waiting: float
    reducing: float

    def __str__(self) -> str:
        total = sum(self) or 1.0
        names = "computing", "waiting for others", "reducing"
        return ", ".join(f"{name} {100 * part / total:.0f} %" for name, part in zip(names, self))


class Spread:
    """How the steps of one network are spread over ranks.

    Parameters
    ----------
    ranks : who they are
    architecture : of the network
    """

    def __init__(self, ranks: Ranks, architecture: Architecture) -> None:
        self.ranks = ranks
        share_cores(ranks.sharing)
        self._top = len(architecture.pairs) - 1
        self._pieces, blocks = pieces_of(architecture, ranks.overlap)
        self._reduction = ranks.reduction(blocks, architecture.dtype)
        self._sent, self._told = np.zeros(3), np.zeros((ranks.size, 3))
        self._computing = self._waiting = 0.0
        self._stale = False  # whether states are up to date in the own part alone

    @property
    def seconds(self) -> Seconds:
        """Since the beginning."""
        return Seconds(self._computing, self._waiting, self._reduction.seconds)

    def first_row(self, batch_size: int) -> int:
        """The first row of a batch that is in this rank's slice."""
        return self.ranks.rank * batch_size // self.ranks.size

    def slice_size(self, batch_size: int) -> int:
        """How many rows of a whole batch are in this rank's slice."""
        return (self.ranks.rank + 1) * batch_size // self.ranks.size - self.first_row(batch_size)

    def prepare(self, workspace: Workspace, batch_size: int) -> None:
        """What this rank's steps need in its workspace."""
        workspace.begin_at(self.first_row(batch_size))
        if self._reduction.array is not None:
            workspace.gradient = self._reduction.array

    def own(self, order: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
        """The rows of an epoch that are in this rank's slices; those of one batch after those of the other."""
        first, size = self.first_row(batch_size), self.slice_size(batch_size)
        full = len(order) // batch_size * batch_size
        slices = order[:full].reshape(-1, batch_size)[:, first : first + size].reshape(-1)
        return np.concatenate([slices, order[full:][first : first + size]])

    def whole(self, states: list[NDArray]) -> None:
        """Let all of an optimizer's states be up to date; all ranks have to ask."""
        if self._stale:
            for state in states:
                if state.size:
                    self._reduction.whole(state)
            self._stale = False

    def steps(self, native: Native, *arguments: Any) -> None:
        """What `step.train_batches` does with the same arguments, `native`, done by all ranks."""
        run, report = arguments[8], arguments[10]
        batch, count, table = run[:3]
        if self.ranks.sync_every > 1:  # to where all meet again
            every = self.ranks.sync_every
            stop = min(len(table), -(-(batch + count) // every) * every)
            done = stop - batch if self._local_steps(native, arguments, stop) else 0
        else:
            done = 0
            while done < count and self._step(native, arguments, done):
                done += 1
                if self.ranks.stopping:
                    break
        report[0][structs.STEPS_DONE] = done
        if self.ranks.stopping:
            raise KeyboardInterrupt

    def _call(
        self, native: Native, arguments: tuple[Any, ...], i: int, count: int, part: tuple[int, ...], plain: bool
    ) -> None:
        """A part of `count` steps from number i of a call on: see `structs.Run`; `plain` leaves the gradient as it is."""
        team, network, loss, update, data, places, sparse, memory, run, share, report = arguments
        if plain:
            hyper = update[1].copy()
            hyper[structs.CLIP] = 0.0
            update = structs.NO_UPDATE, hyper, *update[2:]
        start = time.perf_counter()
        team[0][:] = 0
        batch, _, table, step, number, seed = run
        run = batch + i, count, table, step + i, number + i, seed
        native(team, network, loss, update, data, places, sparse, memory, run, (*share[:2], *part), report)
        self._computing += time.perf_counter() - start

    def _own_rows(self, arguments: tuple[Any, ...], i: int) -> int:
        """How many rows of step number i are this rank's."""
        size, order = arguments[4][:2]
        return min(size, len(order) - (arguments[8][0] + i) * size)

    def _meet(self, loss: float, squares: float = 0.0) -> tuple[float, float]:
        """Tell the others, and get the sums of the losses and of the squares."""
        start = time.perf_counter()
        self._sent[:] = loss, squares, self.ranks.signal
        self.ranks.numbers_of_all(self._sent, self._told)
        self._waiting += time.perf_counter() - start
        self.ranks.stopping = self.ranks.stopping or bool(self._told[:, SIGNAL].any())
        return math.fsum(self._told[:, LOSS]) if np.isfinite(self._told).all() else math.nan, float(
            self._told[:, SQUARES].sum()
        )

    def _step(self, native: Native, arguments: tuple[Any, ...], i: int) -> bool:
        """Step number i of a call; False if the batch's loss is not finite."""
        update, report, reduction = arguments[3], arguments[10], self._reduction
        gradient, result = update[4], report[0]
        before = float(result[structs.LOSS_SUM])
        result[structs.LOSS_SUM] = 0.0
        rows = self._own_rows(arguments, i)
        for piece in self._pieces:
            if rows > 0 and math.isfinite(result[structs.LOSS_SUM]):
                part = structs.GRADIENT, piece.top, piece.bottom, 0, gradient.size
                with reduction.pushing():
                    self._call(native, arguments, i, 1, part, True)
            elif piece.top == self._top:
                gradient[:] = 0
            if len(self._pieces) > 1:
                reduction.start(piece.block, gradient)
        loss, _ = self._meet(float(result[structs.LOSS_SUM]))
        size, all_rows = arguments[9][:2]
        result[structs.LOSS_SUM] = before + loss
        result[structs.LAST_LOSS] = loss / min(size, all_rows - (arguments[8][0] + i) * size)
        if len(self._pieces) == 1:
            reduction.start(0, gradient)
        for k in range(len(self._pieces)):
            reduction.add(k, gradient)
        if not math.isfinite(loss):
            return False
        self._update(native, arguments, i)
        return True

    def _update(self, native: Native, arguments: tuple[Any, ...], i: int) -> None:
        """Use the sum of the gradients, of which this rank has its parts."""
        update, parameters, reduction = arguments[3], arguments[1][2], self._reduction
        hyper, gradient, squares = update[1], update[4], update[5]
        blocks = range(len(self._pieces))

        def call(what: int, first: int, stop: int) -> None:
            self._call(native, arguments, i, 1, (what, self._top, 0, first, stop), False)

        if (
            reduction.rounds
        ):  # less to send than all parameters: all have all of the gradient, and make all of the update
            for k in blocks:
                reduction.spread_rounded(k, gradient)
            call(structs.PENALTY_AND_UPDATE, 0, gradient.size)
            return
        if hyper[structs.CLIP] > 0:
            total = 0.0
            for k in blocks:
                call(structs.PENALTY, *reduction.own(k))
                total += float(squares.sum())
            total = self._meet(0.0, total)[1]
            squares[:] = 0
            squares[0] = total
        penalised = hyper[structs.CLIP] == 0 and arguments[8][2][arguments[8][0] + i, structs.STEP_L2] > 0
        for k in blocks:
            call(structs.PENALTY_AND_UPDATE if penalised else structs.UPDATE_OF_SUM, *reduction.own(k))
            reduction.spread(k, parameters)
        for k in blocks:
            reduction.finish(k)
        self._stale = True

    def _local_steps(self, native: Native, arguments: tuple[Any, ...], stop: int) -> bool:
        """Steps up to batch number `stop` of the epoch, between which ranks meet every so many; False if a loss is not finite."""
        batch, result = arguments[8][0], arguments[10][0]
        size, order = arguments[4][:2]
        alone = (*arguments[:9], (size, len(order), *arguments[9][2:]), arguments[10])
        before, done = float(result[structs.LOSS_SUM]), 0
        while batch + done < stop:
            result[structs.LOSS_SUM] = 0.0
            count = min(stop - batch - done, self.ranks.sync_every - (batch + done) % self.ranks.sync_every)
            last = batch + done + count == len(arguments[8][2]) and self._own_rows(arguments, done + count - 1) <= 0
            if count > last:
                self._call(native, alone, done, count - last, arguments[9][2:], False)
            loss, _ = self._meet(float(result[structs.LOSS_SUM]))
            before += loss
            result[structs.LOSS_SUM], result[structs.LAST_LOSS] = before, loss
            if not math.isfinite(loss):
                return False
            for flat in (arguments[1][2], *arguments[3][2:4]):
                if flat.size:
                    self._reduction.mean(flat)
            done += count
            if self.ranks.stopping:
                break
        return True


def pieces_of(architecture: Architecture, cut: bool) -> tuple[list[Piece], list[tuple[int, int]]]:
    """The calls that take a gradient, from the highest layer down, and the blocks (first, stop) of it that are ready after each;
    one of all, unless it is `cut`."""
    n, stop = len(architecture.pairs), architecture.n_parameters
    pieces: list[Piece] = []
    blocks: list[tuple[int, int]] = []
    top = n - 1
    # Units' own numbers stand behind all weights, whose layers are ready one after the other.
    cut = cut and architecture.stage is None and not any(unit.parametric for unit in architecture.hidden)
    # When the gradient has gone down through layer `passed`, those of the weights above it are taken.
    for passed in range(n - 2, 0, -1) if cut else ():
        first = architecture.offsets[passed + 1][0]
        if stop - first >= FEWEST:
            pieces.append(Piece(top, passed, len(blocks)))
            blocks.append((first, stop))
            top, stop = passed - 1, first
    return [*pieces, Piece(top, 0, len(blocks))], [*blocks, (0, stop)]
