"""A training while it runs: the page on 127.0.0.1, and what notebooks show."""

from __future__ import annotations

import copy
import http.client
import json
import re
import sys
import threading
import types
from html.parser import HTMLParser
from urllib.parse import urlsplit

import numpy as np
import pytest

import fastdl
from fastdl import svg
from fastdl.report import live


def ask(url, path, host=None):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    return connection, connection.getresponse()


def small(epochs, callbacks, rng):
    X = rng.normal(size=(60, 3))
    trainer = fastdl.Trainer(fastdl.MLP([3, 4, 2]), epochs=epochs, batch_size=20, n_threads=1, callbacks=callbacks)
    trainer.fit(X, (X[:, 0] > 0).astype(int), validation_data=(X, (X[:, 0] > 0).astype(int)))
    return trainer


def test_the_page_follows_the_training(rng, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0.0)
    told, begun = [], threading.Event()

    def follow(url):
        connection, answer = ask(url, "/events")
        begun.set()
        told.extend(json.loads(line[6:]) for line in answer if line.startswith(b"data: "))
        connection.close()

    with live.LivePage("<b>name", "softmax") as page:
        assert page.url.startswith("http://127.0.0.1:")
        connection, answer = ask(page.url, "/")
        text = answer.read().decode()
        connection.close()
        assert answer.status == 200
        assert "&lt;b&gt;name" in text
        assert "connect-src 'self'" in text
        assert {"loss", "metric-accuracy"} == set(re.findall(r'data-chart="([^"]+)"', text))
        follower = threading.Thread(target=follow, args=(page.url,))
        follower.start()
        assert begun.wait(20)
        trainer = small(3, [page], rng)
    follower.join(20)
    assert told[-1]["ended"]
    assert "epoch 3 of 3 epochs: the training has ended" in told[-1]["status"]
    series = {s["name"]: s["y"] for s in told[-1]["charts"]["loss"]["series"]}
    np.testing.assert_allclose(series["training"], trainer.history.loss, rtol=1e-6)
    np.testing.assert_allclose(series["validation"], trainer.history.val_loss, rtol=1e-6)


def test_nobody_has_to_look_and_everybody_may_go(rng):
    with live.LivePage("data", "softmax") as page:
        connection, _ = ask(page.url, "/events")
        connection.close()
        small(2, [page], rng)
    with pytest.raises(OSError, match=r"."):
        ask(page.url, "/")


@pytest.mark.parametrize(("path", "host"), [("/", "evil.example"), ("/../../etc/passwd", None), ("/other", None)])
def test_nothing_else_is_served(path, host):
    with live.LivePage("data", "linear") as page:
        connection, answer = ask(page.url, path, host)
        assert answer.status == 404
        connection.close()


def test_train_tells_the_address(run):
    result = run("train", "digits", "--hidden", 8, "--epochs", 2, "--threads", 1, "--watch", "--out", "r")
    assert result.code == 0, result.err
    assert re.search(r"watch it on http://127\.0\.0\.1:\d+/\n", result.err)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.data = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.data += data


def test_what_notebooks_show(rng):
    trainer = small(3, [], rng)
    model = trainer.model
    model.feature_names = ["<script>alert(1)</script>", "a & b", "x" * 10_000]
    for shown in (trainer, trainer.history, model, trainer.health(), trainer.explain(0.01)):
        found = Tags(shown._repr_html_())
        assert "script" not in found.tags
        assert "table" in found.tags
        assert len(shown._repr_html_()) < 20_000
    assert "<script>alert(1)</script>" in Tags(model._repr_html_()).data
    assert "3 × 4" in Tags(model._repr_html_()).data
    found = Tags(trainer._repr_html_())
    assert found.tags.count("svg") == 2
    assert "3 epochs" in found.data
    assert "adam, lr 0.001" in found.data.replace("name ", "")
    assert fastdl.History()._repr_html_().count("<svg") == 0


def test_curves_have_gaps_and_few_points():
    drawn = svg.curves("t", {"a": [1.0, 2.0, float("nan"), 4.0], "b": [1.0] * 10_000})
    first, second = re.findall(r"d='([^']*)'", drawn)
    assert (first.count("M"), first.count("L")) == (2, 1)
    assert second.count("L") <= svg.MOST_POINTS
    assert "nan" not in drawn
    assert svg.curves("t", {"a": []}) == ""


def test_live_curves_in_a_notebook(rng, monkeypatch):
    shown = []

    class Handle:
        def update(self, value):
            shown.append(value)

    def display(value, display_id):
        shown.append(value)
        return Handle()

    fake = types.ModuleType("IPython")
    fake.display = types.SimpleNamespace(display=display, HTML=lambda text: text)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    small(3, [curves := fastdl.LiveCurves()], rng)
    assert shown[0] == "training …"
    assert "3 epochs" in shown[-1]
    assert copy.deepcopy(curves)._handle is None


def test_live_curves_need_ipython(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(fastdl.MissingExtraError, match="pip install ipython"):
        fastdl.LiveCurves()
