"""The model of scaling over MPI ranks: its formula, its fit and its picture, on numbers whose answers are known."""

from __future__ import annotations

import pytest

from fastdl_bench import mpi_scaling
from fastdl_bench.cases import WORKLOADS
from fastdl_bench.mpi_scaling import LINKS, NODES, Link, fitted, modelled_efficiency


def test_a_ring_sends_nearly_twice_the_bytes_and_two_messages_for_each_step():
    link = Link("test", 1e-3, 1e-6)
    assert link.all_reduce(1000, 1) == 0
    assert link.all_reduce(1000, 2) == pytest.approx(2e-3 + 1e-3)
    assert link.all_reduce(1000, 4) == pytest.approx(6e-3 + 1.5e-3)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_fit_finds_what_times_were_made_of(ranks):
    link = Link("made", 5e-6, 1 / 8e9)
    times = [(4 * size, link.all_reduce(4 * size, ranks)) for size in mpi_scaling.SIZES]
    found = fitted(times, ranks)
    assert found.alpha == pytest.approx(link.alpha, rel=1e-6)
    assert found.beta == pytest.approx(link.beta, rel=1e-6)


def test_efficiency_and_its_picture(tmp_path):
    pytest.importorskip("matplotlib")
    workload, parts = WORKLOADS["medium"], {nodes: 0.01 / nodes for nodes in NODES}
    free = modelled_efficiency(workload, parts, Link("free", 0.0, 0.0), 64)
    assert free == {"strong": pytest.approx(1.0), "weak": pytest.approx(1.0)}
    entry = {"modelled": {l.name: {str(p): modelled_efficiency(workload, parts, l, p) for p in NODES} for l in LINKS}}
    for values in entry["modelled"].values():
        assert values["1"]["weak"] == values["1"]["strong"] == 1
        assert values["64"]["strong"] < values["64"]["weak"] < 1
    path = tmp_path / "scaling.png"
    mpi_scaling.draw({"workloads": {"medium": entry}}, path)
    assert path.stat().st_size > 10_000
