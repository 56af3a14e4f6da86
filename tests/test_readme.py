"""The Python code in the READMEs runs, and what the scripts section promises is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n", 1)[0])
def test_code_of_the_readme_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
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
