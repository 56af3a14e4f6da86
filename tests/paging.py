"""What tests of pages share: a small table, and a reader of pages."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl

FAST = ["--hidden", "8", "--epochs", "2", "--threads", "1"]


class Reader(HTMLParser):
    """What a browser makes of a page: its tags with attributes, its scripts, and its text outside of them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text, self._inside = [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, text):
        if self._inside == "script":
            self.scripts.append(text)
        elif self._inside is None:
            self.text.append(text)


def read(path):
    """The page, its text, and its charts."""
    text = Path(path).read_text(encoding="utf-8")
    reader = Reader(text)
    return text, reader, json.loads(reader.scripts[0])


def people(n=300, seed=0):
    rng = np.random.default_rng(seed)
    height = rng.normal(170, 10, n)
    town = rng.choice(["Ulm", "Rom", "Bonn"], n)
    return pl.DataFrame(
        {
            "id": np.arange(1, n + 1),
            "height": [None if i % 11 == 0 else round(h, 1) for i, h in enumerate(height)],
            "town": town,
            "member": rng.choice(["yes", "no"], n),
            "since": [f"20{10 + i % 9}-0{1 + i % 9}-1{i % 10}" for i in range(n)],
            "tall": ["tall" if h > 170 else "small" for h in height],
            "weight": height - 100 + 5 * (town == "Rom"),
        }
    )
