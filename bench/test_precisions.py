"""The comparison of precisions: the peers agree, quality is that of rounded products, and nothing is timed that is not there."""

from __future__ import annotations

import numpy as np
import pytest

from fastdl_bench import bf16, training
from fastdl_bench.cases import Workload
from fastdl_bench.protocol import Peer, closing_all
from fastdl_kernels.precision import HAS_BF16


def test_losses_of_the_peers_agree():
    workload = Workload("bf16", (64, 128, 10), 64, 256, "relu", "softmax")
    losses = {}
    asked = {"fastdl": (), "emulated": ("--precision", "bf16-emulated")}
    with closing_all({}) as peers:
        for name, arguments in asked.items():
            peers[name] = Peer("fastdl_bench.peers.fastdl", 1, arguments)
        if training.LIBRARIES["torch"].available:
            peers["torch"] = Peer("fastdl_bench.peers.torch", 1, ("--bf16",))
        for name, peer in peers.items():
            peer.request("setup", 120.0, workload=workload.as_dict())
            losses[name] = peer.request("run", 120.0, epochs=2)["loss"]
    assert losses["emulated"] != losses["fastdl"]
    for name, loss in losses.items():
        assert training.disagreement(training.LIBRARIES["fastdl-bf16"], loss, losses["fastdl"]) < 0.05, name


def test_it_is_measured_where_the_processor_has_it(capsys):
    for name in ("fastdl-bf16", "torch-bf16"):
        assert not training.LIBRARIES[name].available or HAS_BF16
    if not HAS_BF16:
        assert bf16.main([]) == 1
        assert "no bf16 instructions" in capsys.readouterr().out


def test_quality(capsys):
    assert bf16.main(["--quality", "--seeds", "3", "--epochs", "2"]) == 0
    assert "standard errors apart" in capsys.readouterr().out
    (name, scores), *others = bf16.quality(None, 2, 2)
    assert name == "digits"
    assert not others
    plain, rounded = scores.values()
    assert (plain > 0.6).all()
    assert (rounded > 0.6).all()


@pytest.mark.parametrize(("shift", "apart"), [(0.0, "0.00"), (1.0, "1.73")])
def test_the_verdict_counts_standard_errors(shift, apart):
    scores = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([1.0, 2.0, 3.0]) + shift * np.sqrt(2)}
    assert bf16.verdict(scores).endswith(f"{apart} standard errors apart")
