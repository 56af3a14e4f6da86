"""What is measured, as data: the training workloads and the shapes of the kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

SMALL = 16
"""The widest layer, and the most rows of a batch, of a network that is only there to be tested."""


@dataclass(frozen=True)
class Workload:
    """One training: a network, its data and its batch.

    name, layers, batch : as the tables show them
    rows : rows of the data set, a multiple of the batch, because a JAX scan has no shorter last batch. Enough of them
        that an epoch is more than a call's overhead, few enough that a round of the slowest peer stays near a second
    activation : "relu" or "tanh", of the hidden layers
    output : "softmax" (classes) or "linear" (squared error)
    source : "digits" (the embedded ones, pixels as fractions) or "generated"
    held_out : rows of the digits that are kept for validation; the others are drawn by a seeded permutation
    """

    name: str
    layers: tuple[int, ...]
    batch: int
    rows: int
    activation: str = "relu"
    output: str = "softmax"
    source: str = "generated"
    held_out: int = 0

    def __post_init__(self) -> None:
        if self.rows % self.batch:
            raise ValueError(f"{self.name}: expected rows to be a multiple of {self.batch}, got {self.rows}")

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.rows // self.batch

    @property
    def full_batch(self) -> bool:
        """One batch is the whole data set: shuffling has no effect, and peers that can leave it out do."""
        return self.rows == self.batch

    @property
    def flop(self) -> int:
        """Floating-point operations of the products of one step: 2 forward, 2 for d_weight, 2 for d_x but the first."""
        products = [i * o for i, o in zip(self.layers[:-1], self.layers[1:])]
        return 2 * self.batch * (3 * sum(products) - products[0])

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum((i + 1) * o for i, o in zip(self.layers[:-1], self.layers[1:]))

    @property
    def title(self) -> str:
        """As the tables show it: "digits 64-128-10, 64"."""
        suffix = f" {self.activation}" if self.activation != "relu" else ""
        batch = f"all {self.batch:,}" if self.full_batch else f"{self.batch}"
        return f"{self.name} {'-'.join(map(str, self.layers))}{suffix}, {batch}"

    def shortened(self, flop: float, least: int = 2) -> Workload:
        """The same with epochs of at most so many operations, or `least` steps: for quick runs and smoke tests."""
        return replace(self, rows=self.batch * min(self.steps, max(least, int(flop / self.flop))))

    def small(self) -> Workload:
        """The same kind of network and data, with narrow layers and two steps to an epoch: for tests, not to be measured."""
        inputs = self.layers[0] if self.source == "digits" else min(self.layers[0], SMALL)
        layers = (inputs, *(min(n, SMALL) for n in self.layers[1:]))
        batch = min(self.batch, SMALL)
        rows = batch if self.full_batch else 2 * batch
        return replace(self, layers=layers, batch=batch, rows=rows, held_out=0)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, which `Workload.of` reads."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Workload:
        """The workload of `as_dict`."""
        return cls(**{**values, "layers": tuple(values["layers"])})


WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        Workload("tiny", (8, 32, 32, 2), 32, 512 * 32),
        Workload("digits", (64, 128, 10), 64, 28 * 64, source="digits"),
        Workload("tabular", (32, 256, 256, 2), 256, 64 * 256),
        Workload("mnist", (784, 256, 128, 10), 128, 96 * 128),
        Workload("medium", (784, 512, 512, 10), 256, 32 * 256),
        Workload("large", (1024, 2048, 2048, 1000), 512, 4 * 512),
        Workload("matrix", (4, 32, 16, 4), 10_000, 10_000, activation="tanh", output="linear"),
    )
}

ACCURACY = Workload("digits", (64, 128, 10), 64, 22 * 64, source="digits", held_out=389)
"""What time to accuracy is measured with: 1,408 rows to learn from and the other 389 for validation."""

# (B rows, I inputs, O outputs) of the linear layer: single rows, tails, squares, layers of the workloads, large ones.
LINEAR_SHAPES: tuple[tuple[int, ...], ...] = (
    (1, 64, 64),
    (7, 30, 17),
    (32, 8, 32),
    (32, 64, 64),
    (64, 128, 10),
    (100, 100, 100),
    (128, 784, 256),
    (128, 256, 128),
    (256, 32, 256),
    (256, 512, 512),
    (512, 1024, 1024),
    (512, 2048, 1000),
    (1024, 4096, 512),
)
QUICK_LINEAR: tuple[tuple[int, ...], ...] = ((1, 64, 64), (64, 128, 10), (128, 784, 256), (256, 512, 512))
ROW_SHAPES: tuple[tuple[int, ...], ...] = ((256, 10), (512, 1000))  # (B rows, N classes, labels or targets)
BUFFER_SHAPES: tuple[tuple[int, ...], ...] = ((10_000,), (10_000_000,))  # (P parameters,): in the cache, and not


@dataclass(frozen=True)
class Operation:
    """A public kernel: where it is measured, and the least that it has to do there.

    shapes, quick : all the shapes, and those of `--quick`
    flop : of a shape; a transcendental function counts as the operations of its polynomial, as the kernel's docstring does
    bytes : of a shape: float32 arrays that have to be read or written at least once
    """

    shapes: tuple[tuple[int, ...], ...]
    quick: tuple[tuple[int, ...], ...]
    flop: Callable[..., int]
    bytes: Callable[..., int]


def _rows(flop: int, arrays: int) -> Operation:
    return Operation(ROW_SHAPES, ROW_SHAPES[1:], lambda b, n: flop * b * n, lambda b, n: 4 * arrays * b * n)


def _buffers(flop: int, arrays: int, quick: int = 2) -> Operation:
    return Operation(BUFFER_SHAPES, BUFFER_SHAPES[:quick], lambda p: flop * p, lambda p: 4 * arrays * p)


OPERATIONS: dict[str, Operation] = {
    "linear_forward": Operation(
        LINEAR_SHAPES, QUICK_LINEAR, lambda b, i, o: 2 * b * i * o, lambda b, i, o: 4 * (b * i + i * o + o + b * o)
    ),
    "linear_backward": Operation(
        LINEAR_SHAPES,
        QUICK_LINEAR,
        lambda b, i, o: 4 * b * i * o,
        lambda b, i, o: 4 * (2 * b * i + 2 * i * o + o + 2 * b * o),
    ),
    "linear_forward_keep": Operation(
        QUICK_LINEAR,
        QUICK_LINEAR[2:3],
        lambda b, i, o: 2 * b * i * o,
        lambda b, i, o: 4 * (b * i + i * o + o + 2 * b * o),
    ),
    "softmax": _rows(25, 2),
    "log_softmax": _rows(25, 2),
    "softmax_cross_entropy": _rows(27, 2),
    "sigmoid_cross_entropy": _rows(45, 3),
    "squared_error": _rows(4, 3),
    "absolute_error": _rows(4, 3),
    "huber_loss": _rows(6, 3),
    "quantile_loss": _rows(5, 3),
    "poisson_loss": _rows(60, 3),
    "sgd_step": _buffers(2, 3),
    "momentum_step": _buffers(5, 5),
    "nesterov_step": _buffers(7, 5, quick=1),
    "rmsprop_step": _buffers(8, 5),
    "adam_step": _buffers(12, 7),
    "adamw_step": _buffers(13, 7, quick=1),
}
"""Registry: every kernel of `fastdl_kernels.__all__` (a test compares)."""


@dataclass(frozen=True)
class KernelCase:
    """One operation at one shape."""

    op: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """For example "linear_forward/256x512x512"."""
        return f"{self.op}/{'x'.join(map(str, self.shape))}"

    @classmethod
    def of(cls, name: str) -> KernelCase:
        """The case of that name."""
        op, _, shape = name.partition("/")
        return cls(op, tuple(map(int, shape.split("x"))))

    @property
    def flop(self) -> int:
        """Floating-point operations."""
        return OPERATIONS[self.op].flop(*self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of float32 arrays that have to be read or written at least once."""
        return OPERATIONS[self.op].bytes(*self.shape)

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix product: arithmetic is what counts, and sums are long."""
        return self.op.startswith("linear_")


KERNEL_CASES: dict[str, KernelCase] = {
    case.name: case for op, o in OPERATIONS.items() for case in (KernelCase(op, shape) for shape in o.shapes)
}
QUICK_KERNELS: tuple[str, ...] = tuple(KernelCase(op, shape).name for op, o in OPERATIONS.items() for shape in o.quick)
_SMALL_SHAPES = {3: (7, 30, 17), 2: (32, 10), 1: (1000,)}
SMALL_KERNELS: tuple[str, ...] = tuple(
    KernelCase(op, _SMALL_SHAPES[len(o.shapes[0])]).name for op, o in OPERATIONS.items()
)
"""Every kernel once, on a shape that takes microseconds: for tests."""
