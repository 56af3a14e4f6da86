"""Time to accuracy: seconds of training until the embedded digits are told apart well enough, libraries warm.

Every library trains the same network with the same batches from the same weights. How many epochs it needs is found first,
by bisection over whole trainings; then trainings of so many epochs are timed, rounds interleaved. Finding out when to stop
is not timed, so that the number says what training costs and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastdl_bench.cases import ACCURACY, Workload
from fastdl_bench.protocol import Peer, PeerError, by_turns, closing_all
from fastdl_bench.statistics import ratio, summary
from fastdl_bench.training import LIBRARIES, Say, version_of

TARGET = 0.97
MOST_EPOCHS = 64


def epochs_needed(peer: Peer, seconds: float, target: float, most: int = MOST_EPOCHS) -> tuple[int, float]:
    """An epoch after which the validation accuracy is at least `target`, and before which it is not; and the accuracy."""

    def after(epochs: int) -> float:
        return peer.request("run", seconds, epochs=epochs, accuracy=True)["accuracy"]

    low, high = 0, 1
    reached = after(high)
    while reached < target:
        if high >= most:
            raise PeerError(f"validation accuracy {reached:.1%} after {most} epochs, below {target:.0%}")
        low, high = high, min(most, 2 * high)
        reached = after(high)
    while high - low > 1:
        middle = (low + high) // 2
        found = after(middle)
        if found >= target:
            high, reached = middle, found
        else:
            low = middle
    return high, reached


def run(
    names: Sequence[str],
    threads: int,
    rounds: int,
    say: Say,
    target: float = TARGET,
    workload: Workload = ACCURACY,
    most_epochs: int = MOST_EPOCHS,
) -> list[dict[str, Any]]:
    """One item for the digits; libraries that do not get there are left out, with the accuracy that they reached."""
    say(f"time to {target:.0%} validation accuracy: {', '.join(names)}")
    left_out: dict[str, str] = {}
    needed: dict[str, tuple[int, float]] = {}
    with closing_all({}) as peers:
        for name in names:
            library = LIBRARIES[name]
            try:
                peers[name] = Peer(library.module, threads, library.arguments)
                peers[name].request("setup", library.seconds, workload=workload.as_dict())
                needed[name] = epochs_needed(peers[name], library.seconds, target, most_epochs)
            except PeerError as error:
                if name == names[0]:
                    raise
                left_out[name] = str(error)
        seconds: dict[str, list[float]] = {name: [] for name in needed}
        for order in by_turns(needed, rounds):
            for name in order:
                answer = peers[name].request("run", LIBRARIES[name].seconds, epochs=needed[name][0])
                seconds[name].append(answer["seconds"])
    return [
        {
            "name": workload.name,
            "title": f"{workload.title}: {target:.0%} on {workload.held_out} held-out rows",
            "target": target,
            "threads": threads,
            "left_out": left_out,
            "results": {
                name: {
                    "label": LIBRARIES[name].label,
                    "version": version_of(LIBRARIES[name].package),
                    "epochs": needed[name][0],
                    "accuracy": needed[name][1],
                    "seconds": summary(samples),
                    "against_fastdl": ratio(samples, seconds[names[0]]),
                }
                for name, samples in seconds.items()
            },
        }
    ]
