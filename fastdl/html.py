"""Small pieces of HTML: what notebooks show of histories, trainers, models and measurements, without scripts.

All text is escaped; colours are readable on light and on dark paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

COLOURS = ("#3b82c4", "#d9822b", "#2f9e69", "#b0569c")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 320, 170, 52, 20
MOST_POINTS = 300


def text(value: object, most: int = 200) -> str:
    """A value as inert text of at most so many characters."""
    words = str(value)
    return escape(words if len(words) <= most else words[: most - 1] + "…")


def table(heads: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table; the first cell of a row is its name."""
    head = "".join(f"<th style='text-align:left'>{text(h)}</th>" for h in heads)
    lines = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    title = f"<caption style='text-align:left'>{text(caption)}</caption>" if caption else ""
    return f"<table>{title}{f'<tr>{head}</tr>' if heads else ''}{lines}</table>"


def pairs(values: Mapping[str, object], caption: str = "") -> str:
    """A table of names and values."""
    return table((), values.items(), caption)


def curves(title: str, lines: Mapping[str, Sequence[float]]) -> str:
    """Values by epoch, from 1 on, as a picture: one line for each name. Values that are not finite leave gaps."""
    finite = [v for values in lines.values() for v in values if math.isfinite(v)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    longest = max(len(values) for values in lines.values())

    def place(epoch: int, value: float) -> str:
        x = _LEFT + (epoch / max(1, longest - 1)) * (_WIDTH - _LEFT - 8)
        y = 22 + (high - value) / (high - low) * (_HEIGHT - _BOTTOM - 30)
        return f"{x:.1f} {y:.1f}"

    parts = [f"<text x='{_LEFT}' y='12' font-weight='bold'>{text(title, 40)}</text>"]
    for value in (low, high):
        y = place(0, value).split()[1]
        parts.append(f"<text x='{_LEFT - 5}' y='{float(y) + 4:.1f}' text-anchor='end'>{value:.4g}</text>")
        parts.append(f"<line x1='{_LEFT}' x2='{_WIDTH - 8}' y1='{y}' y2='{y}' stroke='currentColor' opacity='.2'/>")
    for k, (name, values) in enumerate(lines.items()):
        path, pen = "", "M"
        step = -(-len(values) // MOST_POINTS)
        for epoch in sorted({*range(0, len(values), step or 1), len(values) - 1} - {-1}):
            value = values[epoch]
            if not math.isfinite(value):
                pen = "M"
                continue
            path += f"{pen}{place(epoch, value)}"
            pen = "L"
        colour = COLOURS[k % len(COLOURS)]
        parts.append(f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='2' stroke-linecap='round'/>")
        parts.append(
            f"<text x='{_WIDTH - 8}' y='{12 + 12 * k}' text-anchor='end' fill='{colour}'>{text(name, 30)}</text>"
        )
    parts.append(f"<text x='{_WIDTH - 8}' y='{_HEIGHT - 4}' text-anchor='end'>epoch {longest:,}</text>")
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' font-size='11' fill='currentColor' "
        f"font-family='system-ui, sans-serif' role='img' aria-label='{text(title, 40)}'>{''.join(parts)}</svg>"
    )


def row(*parts: str) -> str:
    """Pieces beside each other, below each other where there is no room."""
    return f"<div style='display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start'>{''.join(parts)}</div>"


def document(title: str, body: str) -> str:
    """A whole page that asks for nothing, of pieces that are HTML already."""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<link rel='icon' href='data:,'><title>{text(title)}</title><style>:root{{color-scheme:light dark}}"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:0 auto;padding:16px;overflow-wrap:anywhere}"
        "table{border-collapse:collapse;font-size:.9rem;margin:12px 0}td,th{padding:4px 14px 4px 0;vertical-align:top;"
        "border-bottom:1px solid #8884}caption{font-weight:600}div.scroll{overflow-x:auto}</style></head>"
        f"<body><h1>{text(title)}</h1><div class='scroll'>{body}</div></body></html>\n"
    )
