"""`python -m fastdl_bench.first_call`: whole processes, from their start to the end of a first training, in clean environments.

From a wheel with prebuilt code in an environment of its own, from a clone without any, both with empty caches, and warm; against
`import numba`, and against PyTorch where it is installed. Seconds on the wall and of the processor (with child processes), the
least of several rounds. `--wheel FILE` takes a wheel that is there (scripts/wheel), else one is built.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from importlib import util
from pathlib import Path

import numba

from fastdl_bench.protocol import CHECKOUT
from fastdl_bench.startup import CASES

NUMBA = "import numba"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fastdl_bench.first_call", description=__doc__)
    parser.add_argument("--wheel", type=Path, help="a wheel with prebuilt code for this machine")
    parser.add_argument("--rounds", type=int, default=5, help="how many processes of each kind")
    parser.add_argument("--clone-rounds", type=int, default=1, help="how many processes that compile everything")
    options = parser.parse_args()
    if CHECKOUT is None:
        parser.error("expected to run in a checkout")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = environment(options.wheel or build(folder / "dist"), folder / "environment")
        print(f"{'':44}{'wall':>9}{'processor':>12}")
        show("import numba", measure([sys.executable, "-c", NUMBA], {}, options.rounds))
        for title, programs in CASES.values():
            source = programs["fastdl"]
            # The wheel holds no benchmarks' data but those of fastdl_bench, which it has.
            wheel = [str(python), "-c", source]
            clone = [sys.executable, "-c", source]
            here = {"PYTHONPATH": os.pathsep.join(str(CHECKOUT / part) for part in ("", "kernels", "bench"))}
            with tempfile.TemporaryDirectory() as empty:
                fresh = {"FASTDL_CACHE_DIR": str(Path(empty) / "none")}
                run(wheel, fresh)  # Python's own cache of bytecode, which an installer fills
                show(f"wheel: {title}", measure(wheel, fresh, options.rounds))
            kept = {**here, "FASTDL_CACHE_DIR": str(folder / "kept" / title.replace(" ", ""))}
            times = []
            for i in range(options.clone_rounds):
                times.append(run(clone, {**kept, "FASTDL_CACHE_DIR": f"{kept['FASTDL_CACHE_DIR']}{i or ''}"}))
            show(f"clone, first time: {title}", least(times))
            show(f"clone, warm: {title}", measure(clone, kept, options.rounds))
            if "torch" in programs and util.find_spec("torch"):
                torch = [sys.executable, "-c", programs["torch"]]
                show(f"PyTorch: {title}", measure(torch, here, options.rounds))
    return 0


def build(folder: Path) -> Path:
    """A wheel for this machine."""
    from fastdl.engine import prepare
    from fastdl_kernels import prebuilt

    machine = next(name for name in prebuilt.machines() if set(prebuilt.targets_for(name)) & set(prebuilt.fitting()))
    targets = [name for name in prepare.targets_for(machine) if name in prebuilt.fitting()]
    settings = {"FASTDL_PREBUILT": machine, "FASTDL_PREBUILT_TARGETS": " ".join(targets)}
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], settings, CHECKOUT)
    (path,) = folder.glob("*.whl")
    return path


def environment(wheel: Path, folder: Path) -> Path:
    """The interpreter of an environment with the wheel; what it depends on is lent by this one."""
    venv.create(folder, with_pip=False)
    names = {"base": str(folder), "platbase": str(folder)}
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else sysconfig.get_default_scheme()
    site = Path(sysconfig.get_path("purelib", scheme, names))
    run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)], {}
    )
    (site / "lent.pth").write_text(str(Path(numba.__file__).parent.parent))
    return Path(sysconfig.get_path("scripts", scheme, names)) / "python"


def run(command: list[str], changes: dict[str, str], cwd: Path | None = None) -> tuple[float, float]:
    """Seconds (on the wall, of the processor) of one process that ends well."""
    variables = {**os.environ, "OMP_WAIT_POLICY": "passive", **changes}
    if "PYTHONPATH" not in changes and cwd is None:
        variables.pop("PYTHONPATH", None)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, env=variables, cwd=cwd or tempfile.gettempdir(), capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{done.stderr[-2000:]}")
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def least(times: list[tuple[float, float]]) -> tuple[float, float]:
    """The least of each."""
    return min(wall for wall, _ in times), min(cpu for _, cpu in times)


def measure(command: list[str], changes: dict[str, str], rounds: int) -> tuple[float, float]:
    """The least of several processes."""
    return least([run(command, changes) for _ in range(rounds)])


def show(title: str, times: tuple[float, float]) -> None:
    """One line."""
    print(f"{title:<44}{times[0]:7.2f} s{times[1]:10.2f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
