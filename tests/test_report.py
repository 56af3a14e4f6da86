"""What the command line shows: numbers, progress, and the picture of the curves."""

from __future__ import annotations

import io
import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from fastdl import svg
from fastdl.cli import wording
from fastdl.cli.progress import LINES, Progress
from fastdl.training.callbacks import EpochResult
from fastdl.training.history import History


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.042171, "0.04217"), (4.2174, "4.217"), (817.64, "817.6"), (4217.4, "4,217"),
        (123456789.0, "123,456,789"), (1.5e-7, "1.500e-07"), (3e12, "3.000e+12"), (-0.5, "-0.5000"),
        (float("nan"), "nan"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits(value, text):
    assert wording.number(value) == text


def test_metrics_in_words():
    values = {"accuracy": 0.97774, "rmse": 817.64, "r2": 0.98765, "loss": 0.04217, "val_loss": 0.00001234}
    assert wording.metrics(values) == "accuracy 97.77 %   RMSE 817.6   R² 0.9877   loss 0.0422   val loss 1.2e-05"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.421, "0.42 s"),
        (9.996, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (242, "4 min 02 s"),
        (3840, "1 h 04 min"),
    ],
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(812.4, "812"), (81234, "81.2 k"), (999, "999"), (1.234e6, "1.23 M"), (2.5e8, "250 M")]
)
def test_rates(rate, text):
    assert wording.rate(rate) == text


def test_plurals():
    assert [wording.plural(n, noun) for n, noun in [(1, "row"), (1797, "row"), (1, "class"), (2, "class")]] == [
        "1 row", "1,797 rows", "1 class", "2 classes"
    ]  # fmt: skip


def watch(epochs, live=False, partial=False, clock=None, monkeypatch=None):
    """What a training of `epochs` epochs shows."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=live, width=100, soft_wrap=True, highlight=False)
    now = [0.0]
    monkeypatch.setattr("fastdl.cli.progress.time.monotonic", lambda: now[0])
    with Progress(console, live) as progress:
        progress.on_train_begin(epochs, 1000)
        for epoch in range(1, epochs + 1):
            if partial:
                now[0] += clock / 2
                progress.on_progress(epoch, 500)
            now[0] += clock / 2 if partial else clock
            progress.on_epoch_end(
                EpochResult(epoch, epochs, 1 / epoch, 2 / epoch, {"accuracy": 1 - 0.5 / epoch}, 0.5, 1000)
            )
    return text.getvalue()


def test_plain_lines_can_be_read_alone(monkeypatch):
    lines = watch(4, clock=2.0, monkeypatch=monkeypatch).splitlines()
    assert len(lines) == 4
    assert re.fullmatch(
        r"epoch 2/4 +loss 0\.5000 +val_loss 1\.0000 +accuracy 75\.00 % +2\.00 k rows/s +4\.00 s left", lines[1]
    )
    assert "left" not in lines[-1]


@pytest.mark.parametrize("epochs", [1, 19, 20, 21, 300, 5000])
def test_many_epochs_are_thinned(epochs, monkeypatch):
    lines = watch(epochs, clock=0.01, monkeypatch=monkeypatch).splitlines()
    shown = [int(re.match(r"epoch +(\d+)/", line)[1]) for line in lines]
    assert {shown[0], shown[-1]} == {1, epochs}
    assert min(epochs, LINES // 2) <= len(lines) <= LINES + 2
    assert max((b - a for a, b in itertools.pairwise(shown)), default=0) <= -(-epochs // LINES)


def test_slow_epochs_are_not_silent(monkeypatch):
    """Epochs of 20 s: a line at least each second one, however many there are."""
    assert len(watch(200, clock=20.0, monkeypatch=monkeypatch).splitlines()) >= 100


def test_the_live_bar(monkeypatch):
    text = watch(3, live=True, partial=True, clock=2.0, monkeypatch=monkeypatch)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "starting" in plain
    assert re.search(r"epoch 2/3 +━+[╸╺]━+ +50 % *\n *training +━+[╸╺]?━+ +3\.00 s left", plain)
    for words in ("loss", "val loss", "accuracy", "rows/s", "83.33 %", "2.00 k"):
        assert words in plain
    assert plain.count("val loss") == 1  # the header of the table comes once
    assert plain.count("3/3    ") == 1


def test_the_last_epoch_is_shown_when_training_is_interrupted(monkeypatch):
    """Also where it is none of those that have a line."""
    for live in (False, True):
        text = io.StringIO()
        with Progress(Console(file=text, width=100, force_terminal=live), live) as progress:
            progress.on_train_begin(1000, 10)
            for epoch in (1, 2, 3):
                progress.on_epoch_end(EpochResult(epoch, 1000, 0.5, None, {}, 0.1, 10))
        assert "3/1000" in text.getvalue().splitlines()[-1]


def test_no_validation_no_columns(monkeypatch):
    text = io.StringIO()
    with Progress(Console(file=text, width=100), live=False) as progress:
        progress.on_train_begin(1, 10)
        progress.on_epoch_end(EpochResult(1, 1, 0.5, None, {}, 0.1, 10))
    assert re.fullmatch(r"epoch 1/1 +loss 0\.5000 +100 rows/s\n", text.getvalue())


@pytest.mark.parametrize(
    ("history", "panels"),
    [
        (History([0.5, 0.25], [0.6, 0.4], {"accuracy": [0.8, 0.9]}, [1, 1]), 2),
        (History([2.0, 1.0, 0.001], [2.0, 1.5, 1.0], {"rmse": [2e3, 1.5e3, 1e3], "r2": [0, 0.5, 0.7]}, [1] * 3), 3),
        (History([0.5], [], {}, [1]), 1),
        (History([float(i) for i in range(1, 41)], [0.0] * 40, {"accuracy": [1.0] * 40}, [1] * 40), 2),
        (History([math.nan, math.inf], [], {}, [1, 1]), 0),
    ],
)
def test_curves_are_a_picture(history, panels):
    drawn = svg.picture("a <title>", history.pictures())
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.findtext("{*}text") == "a <title>"
    assert len(root.findall("{*}svg")) == panels
    assert "nan" not in drawn
    assert "inf" not in drawn
    inside = svg.WIDTH, svg.HEIGHT
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        places = re.findall(r"([\d.-]+) ([\d.-]+)", path.get("d"))
        assert all(0 <= float(v) <= most for place in places for v, most in zip(place, inside))


def test_curves_stand_where_their_values_are():
    """Against the labels at the axis, on both scales: the picture says what the numbers are."""
    for name, values, log in (("rmse", [1.0, 2.0, 5.0, 3.0], False), ("loss", [100.0, 10.0, 0.1, 1.0], True)):
        root = ElementTree.fromstring(svg.curves(name, {"a": values}))
        labels = {t.text: float(t.get("y")) - 4 for t in root.iter("text") if t.get("text-anchor") == "end"}
        path = re.findall(r"[ML]([\d.]+) ([\d.]+)", root.find("path").get("d"))
        for value, (_, y) in zip(values, path):
            assert float(y) == pytest.approx(labels[f"{value:g}"], abs=0.11)
        at = {float(t.text): float(t.get("x")) for t in root.iter("text") if t.get("text-anchor") == "middle"}
        assert [float(x) for x, _ in path] == pytest.approx([at[epoch] for epoch in (1, 2, 3, 4)], abs=0.11)
        assert len(path) == 4
        assert log == ("0.2" not in labels and "4" not in labels)


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.5), (1, 48), (-3e-5, 2e-5), (1e6, 1.00001e6), (0, 7e8), (1, 2)])
def test_ticks_are_round_and_within(low, high):
    found = svg.ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high) for value in found)
    assert len(svg.ticks(1e-8, 1e9, log=True)) <= 6
