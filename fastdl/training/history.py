"""What a training leaves to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastdl import html, svg
from fastdl.wording import LABELS, metric, plural


@dataclass
class History:
    """One value per finished epoch.

    loss : mean training loss, measured batch by batch while the parameters moved, without the L2 penalty (with dropout,
        where there is any)
    val_loss : mean loss on the validation data after the epoch; empty without validation data
    metrics : name -> values on the validation data ("accuracy", or "rmse" and "r2"); empty without validation data
    epoch_seconds : time of the epoch's training, without validation
    best_epoch : with early stopping, which epoch (from 1) was the best; its parameters are restored
    """

    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    epoch_seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None

    def __len__(self) -> int:
        return len(self.loss)

    def add(self, loss: float, val_loss: float | None, metrics: Mapping[str, float], seconds: float) -> None:
        """One more finished epoch."""
        self.loss.append(float(loss))
        self.epoch_seconds.append(seconds)
        if val_loss is not None:
            self.val_loss.append(val_loss)
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)

    def pictures(self) -> list[str]:
        """Losses and validation metrics by epoch, each as SVG."""
        losses = {"validation": self.val_loss, "training": self.loss} if self.val_loss else {"training": self.loss}
        drawn = [svg.curves("loss", losses), *(svg.curves(k, {"validation": v}) for k, v in self.metrics.items())]
        return [picture for picture in drawn if picture]

    def _repr_html_(self) -> str:
        """What a notebook shows: the last epoch's values beside the best ones, and the curves."""
        columns = {"loss": self.loss, **({"val_loss": self.val_loss} if self.val_loss else {}), **self.metrics}
        rows = [[LABELS.get(k, k), metric(k, v[-1])] for k, v in columns.items() if v]
        best = "" if self.best_epoch is None else f"; the best is epoch {self.best_epoch}"
        shown = html.table(("", "last"), rows, f"{plural(len(self), 'epoch')}{best}")
        return html.row(shown, *self.pictures())

    def forget(self, count: int) -> None:
        """The last `count` epochs have been undone."""
        if count:
            for values in (self.loss, self.val_loss, self.epoch_seconds, *self.metrics.values()):
                del values[-count:]
