"""What a page shows of the health of a training: a line for each layer, and how it went from epoch to epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastdl.report.values import plain, thin
from fastdl.wording import number, plural

if TYPE_CHECKING:
    from fastdl.engine.health import Health

MOST_EPOCHS = 60
CURVES = {
    "gradient_norm": "Norm of the gradient by epoch",
    "update_ratio": "Size of a step relative to the weights",
}


def described(seen: Sequence[Health]) -> dict[str, Any]:
    """What was found after epochs, the last one of the model as it is, as plain values."""
    last = seen[-1]
    kept = [seen[i] for i in thin(len(seen), MOST_EPOCHS)]
    heads, lines = last.table()
    layers = []
    for k, layer in enumerate(last.layers):
        history = [(found.epoch, found.layers[k]) for found in kept]
        layers.append(
            {
                "name": lines[k][0],
                "cells": lines[k][1:],
                "strip": [[epoch, (then.dead or 0.0) + (then.saturated or 0.0)] for epoch, then in history],
                "has_strip": layer.dead is not None or layer.saturated is not None,
                "histogram": {"bars": layer.counts, "ends": [number(layer.edges[0]), number(layer.edges[-1])]},
                **{key: [getattr(then, key) for _, then in history] for key in CURVES},
            }
        )
    result: dict[str, Any] = plain(
        {
            "advice": last.advice,
            "rows": last.rows,
            "heads": heads[1:],
            "epochs": [found.epoch for found in kept],
            "layers": layers,
        }
    )
    return result


def note(found: Mapping[str, Any]) -> str:
    """How it was measured, for people."""
    return (
        f"Measured on {plural(found['rows'], 'training row')} after {plural(len(set(found['epochs'])), 'epoch')}: a unit is dead "
        f"where it is 0 on all of them, and saturated where it is near an end of its range on 95 % of them. Norms are those of "
        f"the weights, of the gradient of a batch, and of the step that it makes."
    )


def charts(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Norms of gradients and sizes of steps, a line for each layer."""
    return {
        f"health-{key}": {
            "kind": "lines",
            "title": title,
            "x": "epoch",
            "y": title,
            "log": True,
            "series": [
                {
                    "name": layer["name"],
                    "x": found["epochs"],
                    "y": layer[key],
                    "colour": k,
                    "dashed": False,
                    "points": False,
                }
                for k, layer in enumerate(found["layers"])
            ],
        }
        for key, title in CURVES.items()
    }
