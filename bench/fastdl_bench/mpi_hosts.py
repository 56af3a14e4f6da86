"""Several hosts on this one: `python -m fastdl_bench.mpi_hosts` (Linux, as root, with iproute2 and MPICH's mpiexec).

Each rank runs in a network namespace with a host name and an address of its own, on links as slow as is asked for: what travels
between ranks takes as long as between machines, over TCP. Compared are one reduction at the end of each step with reductions of
the upper layers while the lower ones are computed, and gradients in float32 with bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fastdl_bench.cases import WORKLOADS
from fastdl_bench.mpi_scaling import measure_steps
from fastdl_bench.protocol import CHECKOUT, PACKAGE, environment_for

NETWORK = "10.77.0"
BRIDGE = "fastdl-br"
WAYS: tuple[dict[str, Any], ...] = (
    {"overlap": False},
    {"overlap": True},
    {"overlap": True, "wire": "bfloat16"},
    {"overlap": False, "sync_every": 8},
)

_LAUNCHER = """#!/bin/sh
# As ssh would: [options] HOST COMMAND...
while [ "${1#-}" != "$1" ]; do shift; done
name=fastdl-${1##*.}
shift
exec ip netns exec $name unshare --uts sh -c "hostname $name; exec $*"
"""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def hosts(count: int, rate: str, delay: str) -> Iterator[tuple[list[str], list[str]]]:
    """So many namespaces on a bridge: (their addresses, what could not be had of the limits); they go again afterwards."""
    with ExitStack() as stack:

        def undo(*words: str) -> None:
            with suppress(subprocess.CalledProcessError):
                _ip(*words)

        _ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(undo, "link", "del", BRIDGE)
        _ip("addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        addresses, lacking = [], []
        for i in range(1, count + 1):
            name, outer = f"fastdl-{i}", f"fastdl-v{i}"
            _ip("netns", "add", name)
            stack.callback(undo, "netns", "del", name)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "e0", "netns", name)
            _ip("link", "set", outer, "master", BRIDGE, "up")
            _ip("-n", name, "addr", "add", f"{NETWORK}.{i}/24", "dev", "e0")
            _ip("-n", name, "link", "set", "e0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            addresses.append(f"{NETWORK}.{i}")
            lacking += _limit(name, rate, delay)
        yield addresses, sorted(set(lacking))


def _limit(name: str, rate: str, delay: str) -> list[str]:
    """Delay and bandwidth of what a namespace sends; what the kernel has no means for."""

    def tc(*words: str) -> bool:
        return subprocess.run(["tc", "-n", name, "qdisc", *words], capture_output=True, check=False).returncode == 0

    if tc("add", "dev", "e0", "root", "netem", "delay", delay, "rate", rate, "limit", "100000"):
        return []
    shaped = tc("add", "dev", "e0", "root", "handle", "1:", "htb", "default", "1") and (
        subprocess.run(
            ["tc", "-n", name, "class", "add", "dev", "e0", "parent", "1:", "classid", "1:1", "htb", "rate", rate],
            capture_output=True, check=False,
        ).returncode == 0
    )  # fmt: skip
    return ["delay"] if shaped else ["delay", "bandwidth"]


def worker(name: str, seconds: float) -> None:
    """On all ranks: steps in each way; rank 0 prints JSON."""
    import fastdl

    workload, found = WORKLOADS[name], []
    for way in WAYS:
        ranks = fastdl.Ranks(**way)
        measured = measure_steps(workload, workload.batch, 1, seconds, ranks)
        found.append([way, measured.seconds, measured.computing, measured.waiting, measured.reducing, str(ranks)])
    if ranks.is_first:
        print(json.dumps(found))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastdl_bench.mpi_hosts", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default="medium,large", help="workloads, by their names")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rate", default="10gbit", help="bandwidth of each host")
    parser.add_argument("--delay", default="15us", help="of each message, one way")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each is measured")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        worker(options.worker, options.seconds)
        return
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    needs = {"mpiexec": mpiexec, "ip": shutil.which("ip"), "tc": shutil.which("tc"), "unshare": shutil.which("unshare")}
    lacks = [name for name, path in needs.items() if path is None] + ([] if os.geteuid() == 0 else ["root's rights"])
    if lacks or mpiexec is None:
        raise SystemExit(f"mpi_hosts: expected {', '.join(needs)} and root's rights, {' and '.join(lacks)} missing")
    with tempfile.TemporaryDirectory() as folder, hosts(options.hosts, options.rate, options.delay) as (names, lacking):
        launcher = Path(folder) / "launcher"
        launcher.write_text(_LAUNCHER)
        launcher.chmod(0o755)
        limits = [
            f"{what} {value}"
            for what, value in (("bandwidth", options.rate), ("delay", options.delay))
            if what not in lacking
        ]
        said = f"{options.hosts} hosts on this machine, {' and '.join(limits) or 'without limits'}"
        print(said + (f"; this kernel can limit no {' and no '.join(lacking)}" if lacking else ""))
        for name in options.only.split(","):
            command = [mpiexec, "-launcher", "ssh", "-launcher-exec", str(launcher), "-localhost", f"{NETWORK}.254"]
            command += [
                "-hosts",
                ",".join(names),
                "-n",
                str(options.hosts),
                sys.executable,
                "-m",
                "fastdl_bench.mpi_hosts",
            ]
            command += ["--worker", name, "--seconds", str(options.seconds)]
            done = subprocess.run(
                command, env=environment_for(1), cwd=CHECKOUT or PACKAGE.parent, capture_output=True, text=True, check=False
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"mpi_hosts: {name} failed: {done.stderr[-2000:]}")
            for way, *times, ranks in json.loads(done.stdout.splitlines()[-1]):
                step, computing, waiting, reducing = (1e3 * t for t in times)
                options_said = ", ".join(f"{key} {value}" for key, value in way.items())
                print(
                    f"{name}, {ranks}, {options_said}: {step:.3g} ms a step (computing {computing:.3g}, waiting {waiting:.3g}, "
                    f"reducing {reducing:.3g})"
                )


if __name__ == "__main__":
    main()
