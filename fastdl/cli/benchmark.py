"""`fastdl bench`: how fast a network trains here, and against what is installed."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from fastdl.errors import InputError, OptionError
from fastdl.files.atomic import atomic_write


@dataclass(frozen=True)
class BenchOptions:
    """The options of `fastdl bench`, by their names on the command line; None is "not given"."""

    model: str
    batch: int
    activation: str
    peers: str | None
    threads: int | None
    quick: bool
    json: str | None


def bench(options: BenchOptions, messages: Console) -> None:
    """Measure the training of a network here, against the libraries that are installed, and print the answer."""
    from fastdl_bench import model, show
    from fastdl_bench.protocol import PeerError
    from fastdl_bench.versions import UsageError

    def say(text: str) -> None:
        messages.print(escape(text))

    try:
        workload = model.workload_of(options.model, options.batch, options.activation)
        threads = model.check_threads(options.threads)
        names = model.libraries(options.peers, say)
        result = model.run(workload, names, threads, model.QUICK if options.quick else model.NORMAL, say)
    except UsageError as error:
        raise OptionError(str(error)) from error
    except PeerError as error:
        raise InputError(f"the measurement failed: {error}") from error
    if options.json is not None:
        with atomic_write(options.json) as file:
            file.write((json.dumps(result, indent=1) + "\n").encode())
    show.show(result)
    print(model.summary(result))
