"""`fastdl` as a process: what it imports, how it ends, and that nothing is lost when it does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from processes import environment_of

from fastdl.report import page

ENDING = """
import atexit, sys, threading, time
from fastdl import __main__ as entry, cli

def command():
    def late():
        time.sleep(0.2)
        sys.stdout.write("thread ")
    atexit.register(lambda: sys.stdout.write("registered "))
    threading.Thread(target=late).start()
    sys.stdout.write("command ")
    {ends}

cli.main = command
entry.process()
"""


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ("return 0", 0, ""),
        ("return 3", 3, ""),
        ("sys.exit(4)", 4, ""),
        ("raise ValueError('oops')", 1, "ValueError: oops"),
    ],
)
def test_a_process_ends_with_everything_done(ends, code, said):
    """Threads joined, functions of others called, streams flushed though they are buffered."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(ends=ends)],
        env=environment_of(PYTHONUNBUFFERED=""),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "command thread registered "
    assert done.returncode == code
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)


def test_a_stream_that_cannot_be_written_is_no_success():
    code = "from fastdl import __main__ as entry, cli\ncli.main = lambda: print('data') or 0\nentry.process()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment_of(PYTHONUNBUFFERED=""),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 120
    assert "No space left" in done.stderr


def test_a_training_imports_what_it_needs_only(tmp_path):
    """Each of these costs 10 ms to half a second; SciPy itself is looked up by Numba."""
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{i % 7},{i % 3},{i % 2}\n" for i in range(80)))
    heavy = (
        "matplotlib",
        "pandas",
        "sklearn",
        "scipy.linalg",
        "pydantic",
        "http.server",
        "numba.np.arrayobj",
        "tensorboard",
    )
    code = (
        "import sys; from fastdl import cli; code = cli.main(['train', 't.csv', '--target', 'y']); "
        f"sys.exit(str([code, *(m for m in {heavy} if m in sys.modules)]))"
    )
    for _ in range(2):  # the first run may compile
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment_of(PYTHONUNBUFFERED=""),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.stderr.splitlines()[-1] == "[0]"


def test_the_template_of_pages_is_compiled_once(tmp_path, monkeypatch):
    """From a file beside the module's own; a damaged one, or none, gives the same page."""
    kept = tmp_path / "__pycache__"
    kept.mkdir()
    monkeypatch.setattr(page, "__file__", str(tmp_path / "page.py"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    values = {"title": "<b>", "subtitle": "", "runs": [], "comparison": []}
    pages = []
    for damage in (None, b"", None, b"j2\x05\x00garbage"):
        page._template.cache_clear()
        pages.append(page.render(values, {}))
        files = list(kept.iterdir())
        assert len(files) == 1
        if damage is not None:
            files[0].write_bytes(damage)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    page._template.cache_clear()
    pages.append(page.render(values, {}))
    page._template.cache_clear()
    assert len(set(pages)) == 1
    assert "&lt;b&gt;" in pages[0]
