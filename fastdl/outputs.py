"""Output units and the loss that belongs to each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputUnit:
    """What stands behind the last layer's raw outputs, and the loss that its gradient is taken of."""

    name: str
    loss: str
    code: int
    task: str


OUTPUTS: dict[str, OutputUnit] = {
    unit.name: unit
    for unit in (
        OutputUnit("linear", "squared_error", 0, "regression"),
        OutputUnit("sigmoid", "sigmoid_cross_entropy", 1, "binary labels"),
        OutputUnit("softmax", "softmax_cross_entropy", 2, "classes"),
    )
}
"""Registry: tests, benchmarks and the command line iterate over it."""
