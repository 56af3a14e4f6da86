"""pytest's side of the benchmarks: when they are measured, which cases, and the table of what pytest-benchmark does not show."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from fastdl_bench.beside import SHORT, THOROUGH, Session

# Options of pytest-benchmark that say "measure"; pyproject.toml has --benchmark-disable, for the tests.
MEASURING = ("only", "autosave", "save", "save_data", "json", "compare", "compare_fail", "histogram")

PLUGIN_ROUND, ROUND = (
    Decimal("0.000005"),
    Decimal("0.0001"),
)  # seconds of a round at least: the plugin's default, and ours


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("benchmark").addoption(
        "--cases",
        choices=("small", "quick", "all"),
        help="shapes of fastdl's benchmarks: those of tests, few, or all. Default: all where they are measured, else small",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Comes before pytest-benchmark's own, which would refuse --benchmark-only beside --benchmark-disable."""
    option = config.option
    if any(getattr(option, f"benchmark_{name}", None) for name in MEASURING):
        option.benchmark_enable = True
    # Calls of 2 us: with the plugin's 5 us a round is a call or two, and the timer a tenth of it.
    if getattr(option, "benchmark_min_time", None) == PLUGIN_ROUND:
        option.benchmark_min_time = ROUND


def is_measured(config: pytest.Config) -> bool:
    """Whether benchmarks are timed in this session, by pytest-benchmark or by CodSpeed."""
    return bool(getattr(config.option, "benchmark_enable", False) or getattr(config.option, "codspeed", False))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument named like a table of `test_speed.CASES` runs once for each of its cases, in a group."""
    tables = getattr(metafunc.module, "CASES", {})
    config = metafunc.config
    which = config.getoption("--cases") or ("all" if is_measured(config) else "small")
    for argument in set(tables) & set(metafunc.fixturenames):
        metafunc.parametrize(
            argument,
            [
                pytest.param(name, id=name, marks=pytest.mark.benchmark(group=group))
                for name, group in tables[argument](which).items()
            ],
        )


@pytest.fixture(scope="session")
def beside(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The processor's limits and NumPy, in processes of their own."""
    with Session(SHORT if request.config.getoption("--cases") == "small" else THOROUGH) as session:
        yield session


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Vector instructions and cores; the clock of the moment goes, because it would make every run another machine's."""
    from fastdl_kernels.host import host, usable_cores

    machine_info |= {"isa": host().isa, "usable_cores": usable_cores()}
    for key in ("hz_actual", "hz_actual_friendly"):
        machine_info["cpu"].pop(key, None)


@pytest.hookimpl(trylast=True)  # behind the plugin's own tables
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """GFLOP/s, shares and ratios, which pytest-benchmark keeps in extra_info and does not show."""
    session = getattr(config, "_benchmarksession", None)
    measured = [b for b in getattr(session, "benchmarks", []) if "gflops" in b.extra_info and not b.has_error]
    if not measured:
        return
    rows = [["", "median", "GFLOP/s", "of peak", "of roofline", "NumPy takes"]]
    for bench in measured:
        info = bench.extra_info
        roofline = info.get("share_of_roofline")
        rows.append(
            [
                bench.name,
                f"{bench.stats.median * 1e6:,.1f} us",
                f"{info['gflops']:.1f}",
                f"{info['share_of_peak']:.0%}",
                "" if roofline is None else f"{roofline:.0%}",
                f"{info['numpy_ratio']:.2f} x ({info['numpy_ratio_low']:.2f} to {info['numpy_ratio_high']:.2f})",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    peak, threads = measured[0].extra_info["peak_gflops"], measured[0].extra_info["threads"]
    terminalreporter.section(f"{threads} threads, peak {peak:.0f} GFLOP/s")
    for first, *rest in rows:
        line = [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(rest, widths[1:]))]
        terminalreporter.write_line("  ".join(line).rstrip())
