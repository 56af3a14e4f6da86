"""What is measured, as data: the training workloads and the shapes of the kernels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Workload:
    """One training: a network, its data and its batch.

    name, layers, batch : as the tables show them
    rows : rows of the data set, a multiple of the batch, because a JAX scan has no shorter last batch. Enough of them
        that an epoch is more than a call's overhead, few enough that a round of the slowest peer stays near a second
    activation : "relu" or "tanh", of the hidden layers
    output : "softmax" (classes) or "linear" (squared error)
    source : "digits" (the embedded ones) or "generated"
    """

    name: str
    layers: tuple[int, ...]
    batch: int
    rows: int
    activation: str = "relu"
    output: str = "softmax"
    source: str = "generated"

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
    def title(self) -> str:
        """As the tables show it: "digits 64-128-10, 64"."""
        suffix = f" {self.activation}" if self.activation != "relu" else ""
        batch = f"all {self.batch:,}" if self.full_batch else f"{self.batch}"
        return f"{self.name} {'-'.join(map(str, self.layers))}{suffix}, {batch}"

    def small(self) -> Workload:
        """The same with little data: for smoke tests."""
        return replace(self, rows=self.batch * min(self.steps, 2))

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
LOSS_SHAPES: tuple[tuple[int, ...], ...] = ((256, 10), (512, 1000))
ADAM_SHAPES: tuple[tuple[int, ...], ...] = ((10_000,), (10_000_000,))


@dataclass(frozen=True)
class KernelCase:
    """One operation at one shape."""

    op: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """For example "linear_forward/256x512x512"."""
        return f"{self.op}/{'x'.join(map(str, self.shape))}"

    @property
    def flop(self) -> int:
        """Floating-point operations of the products; 0 where memory or exponentials are what counts."""
        if self.op not in ("linear_forward", "linear_backward"):
            return 0
        b, i, o = self.shape
        return (2 if self.op == "linear_forward" else 4) * b * i * o

    @property
    def bytes(self) -> int:
        """Bytes of float32 arrays that have to be read and written at least once."""
        if self.op == "linear_forward":
            b, i, o = self.shape
            return 4 * (b * i + i * o + o + b * o)
        if self.op == "linear_backward":
            b, i, o = self.shape
            return 4 * (2 * b * i + 2 * i * o + o + 2 * b * o)
        if self.op == "softmax_cross_entropy":
            return 8 * self.shape[0] * self.shape[1]
        return 28 * self.shape[0]  # adam_step: 4 arrays read, 3 written


KERNEL_CASES: dict[str, KernelCase] = {
    case.name: case
    for op, shapes in (
        ("linear_forward", LINEAR_SHAPES),
        ("linear_backward", LINEAR_SHAPES),
        ("softmax_cross_entropy", LOSS_SHAPES),
        ("adam_step", ADAM_SHAPES),
    )
    for case in (KernelCase(op, shape) for shape in shapes)
}
