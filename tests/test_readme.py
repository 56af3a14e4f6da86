"""The Python code in the READMEs runs, and what the scripts section promises is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

import fastdl

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n", 1)[0])
def test_code_of_the_readme_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = fastdl.load_digits()
    frame = pl.DataFrame({"colour": ["red", "blue", None] * 30, "size": range(90), "day": ["2026-01-02"] * 90})
    scope: dict = {"X": X[:300], "y": y[:300], "frame": frame, "labels": ["small"] * 45 + ["large"] * 45}
    scope["tomorrow"] = frame.head(3)
    if "Classifier" in block:
        pytest.importorskip("sklearn")
    exec(block, scope)  # the block is our own text
    if "history" in scope:
        assert scope["history"].metrics["accuracy"][-1] > 0.85
        assert (scope["again"].parameters == scope["model"].parameters).all()
    if "out" in scope:
        assert (scope["out"] == 8).all()


def test_commands_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"scripts/(\w+)", text)):
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111, name
    for target in re.findall(r"\]\(([\w./]+)\)", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], "digits"),
        (["--epochs", "5"], "digits --epochs 5"),
        (["my.csv", "--target", "price"], "my.csv --target price"),
    ],
)
def test_scripts_train_trains_the_digits_unless_data_are_named(given, wanted, tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"  # stands in for the environment: it says what it was asked to run
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\n[ "$2" = fastdl ] && echo "$@"\nexit 0\n')
    python.chmod(0o755)
    done = subprocess.run([tmp_path / "scripts" / "train", *given], capture_output=True, text=True, check=True)
    assert done.stdout == f"-m fastdl train {wanted}\n"
