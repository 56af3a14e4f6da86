"""How a network, an optimizer and a training are written down as numbers in arrays, for the compiled engine."""

from __future__ import annotations

from fastdl_kernels.serial import TILE_ROWS

# Columns of `plan` (int64), one row per layer.
# OUTPUT is where the layer's outputs start in their buffer and STRIDE how far their rows are apart; DROP is the share of
# its outputs that dropout sets to 0, in units of 2^-32. The update of its weights is cut into UPDATES jobs of
# UPDATE_ROWS rows.
N_IN, N_OUT, WEIGHT, BIAS, ACTIVATION, OUTPUT, STRIDE, DROP, UPDATES, UPDATE_ROWS = range(10)
PLAN_COLUMNS = 10

# Codes of the optimizers; NO_UPDATE leaves the gradient in its buffer.
NO_UPDATE, SGD, MOMENTUM, RMSPROP, ADAM = range(-1, 4)

# Fields of `hyper` (float64): beta or beta1, beta2, eps, decoupled weight decay, nesterov (0 or 1), L2 penalty, the
# limit of the gradient's norm (0: none). What a step takes of eps and the penalty stands in its settings.
BETA1, BETA2, EPS, WEIGHT_DECAY, NESTEROV, L2, CLIP = range(7)
HYPER_SIZE = 7

# Columns of the settings (float64) of each step of an epoch: learning rate, L2 penalty, eps, and what the mean loss and its
# gradient are multiplied by.
RATE, STEP_L2, STEP_EPS, SCALE = range(4)
STEP_COLUMNS = 4

# Fields of `result` (float64): sum of the rows' losses, steps done, the last batch's loss, sum of the L2 penalties of
# batches times their rows.
LOSS_SUM, STEPS_DONE, LAST_LOSS, PENALTY_SUM = range(4)
RESULT_SIZE = 4

# Columns of `clock` (int64), one row per thread: ticks spent in each kind of job, and in the whole call. A row is as
# long as two cache lines.
FORWARD, BACKWARD, UPDATE, GATHER, TOTAL = range(5)
CLOCK_COLUMNS = 16

# Rows per job of the gather and of a loss that is a phase of its own; the loss is added up in blocks of TILE_ROWS.
ROWS = 4 * TILE_ROWS
# How many rows ahead the gather asks for: copying so many short rows takes longer than a line takes to come from memory.
ROWS_AHEAD = 16
# Multiply-adds below which a product is not shared out: 0.2 us of work, what a barrier costs.
WORK_PER_JOB = 8_000
# Into how many jobs an update is cut when the norm of the gradient is wanted: sums of squares that do not depend on the
# number of threads.
CLIP_PARTS = 8
# Numbers by which a thread's slot of the gradient is rounded up: slots of two threads share no cache line, nor its neighbour.
SLOT_ROUND = 32
