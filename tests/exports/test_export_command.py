"""`fastdl export`: what it writes, what the files predict, and its sentences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from exporting import load_module, run_onnx

import fastdl
from fastdl.files.exports import EXPORTS

FAST = ["--hidden", "8", "--epochs", "2", "--threads", "1"]


@pytest.fixture
def trained(run):
    """A run in `r`, and its table with missing cells."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({
        "height": [None if i % 9 == 0 else i * 1.5 for i in range(90)],
        "town": [None if town == "none" else str(town) for town in rng.choice(["Ulm", "Rom", "none"], 90)],
        "kind": rng.choice(["oak", "ash", "fir"], 90),
    })  # fmt: skip
    frame.write_csv("trees.csv")
    code, _, err = run("train", "trees.csv", "--target", "kind", *FAST, "--out", "r")
    assert code == 0, err
    return frame.drop("kind")


def test_every_format_of_a_run(run, trained):
    model = fastdl.load("r")
    for suffix, export in EXPORTS.items():
        code, out, err = run("export", "r", f"m{suffix}")
        assert (code, out) == (0, "")
        assert err == f"wrote m{suffix}: {export.what}\n"
    assert load_module(Path("m.py")).predict(trained).tolist() == model.predict(trained).tolist()
    inputs = {"height": trained["height"].to_numpy(), "town": np.array(trained["town"].fill_null(""), dtype=object)}
    assert run_onnx("m.onnx", inputs)["label"].tolist() == model.predict(trained).tolist()
    np.testing.assert_array_equal(fastdl.load("m.safetensors").predict(trained), model.predict(trained))
    assert run("predict", "m.safetensors", "trees.csv").out == run("predict", "r", "trees.csv").out


def test_sentences(run, trained, monkeypatch):
    for arguments, says in {
        (
            "r",
            "m.pt",
        ): "m.pt: expected a file name that ends with one of .onnx (ONNX, the preprocessing inside), .safetensors "
        "(the parameters for PyTorch, and for fastdl.load), .py (a Python module that needs NumPy alone), got '.pt'",
        ("r", "model"): "that needs NumPy alone), got none",
        ("nothing", "m.py"): "expected a fastdl model file, found nothing there",
        (
            "r",
            "missing/m.py",
        ): "cannot write there (No such file or directory); name a folder that exists and is writable",
    }.items():
        code, out, err = run("export", *arguments)
        assert (code, out) == (1, "")
        assert says in err
    for package, suffix in {"onnx": ".onnx", "safetensors": ".safetensors"}.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            patch.setitem(sys.modules, f"{package}.numpy", None)
            code, _, err = run("export", "r", f"m{suffix}")
        assert code == 1
        assert f'{package}, which is not installed: pip install "fastdl[export]"' in err


def test_optional_packages_are_imported_where_they_are_used():
    code = (
        "import sys, fastdl; fastdl.MLP, fastdl.load, fastdl.from_torch; "
        "print([m for m in ('onnx', 'torch', 'safetensors', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
