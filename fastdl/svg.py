"""Learning curves as SVG: pieces of a page, and a whole picture. Numbers are placed here, nothing else has to be installed.

All text is escaped; colours are readable on light and on dark paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from fastdl.wording import LABELS, PERCENT, metric

COLOURS = ("#3b82c4", "#d9822b", "#2f9e69", "#b0569c")
MOST_POINTS = 300
WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, WIDTH - 12, 26, HEIGHT - 24
_FEW_EPOCHS = 12
"""So many epochs are shown as points too: a single one would be invisible as a line."""
_WIDE = 20
"""A scale is logarithmic where all values are positive and the greatest is more than so many times the least."""


def text(value: object, most: int = 200) -> str:
    """A value as inert text of at most so many characters."""
    words = str(value)
    return escape(words if len(words) <= most else words[: most - 1] + "…")


def ticks(low: float, high: float, log: bool = False, most: int = 6) -> list[float]:
    """Round numbers from low to high (low < high): steps of 1, 2 or 5; on a logarithmic scale powers of ten and their like."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        digits = (1, 2, 5) if len(powers) < 4 else (1,)
        found = [digit * 10.0**power for power in powers for digit in digits]
        found = [value for value in found if 0.999 * low <= value <= 1.001 * high]
        return found[:: -(-len(found) // most) or 1]
    rough = (high - low) / most
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * base for digit in (1, 2, 5, 10) if digit * base >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{step * i:.12g}") for i in range(first, last + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:  # in the middle
        return low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return low, high


def curves(name: str, lines: Mapping[str, Sequence[float]]) -> str:
    """A loss or metric by epoch, from 1 on, as a picture: one line for each of `lines`, with its last value.

    The text is empty where there is no value.

    Values that are not finite leave gaps. The scale is logarithmic where values are positive and far from each other. Of many
    epochs at most `MOST_POINTS` are drawn.
    """
    finite = [v for values in lines.values() for v in values if math.isfinite(v)]
    if not finite:
        return ""
    log = 0 < _WIDE * min(finite) < max(finite)
    low, high = _range(finite)
    longest = max(len(values) for values in lines.values())
    first, last = (1.0, float(longest)) if longest > 1 else (0.5, 1.5)
    title = text(LABELS.get(name, name), 40)

    def x(epoch: float) -> float:
        return _LEFT + (epoch - first) / (last - first) * (_RIGHT - _LEFT)

    def y(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return _BOTTOM - share * (_BOTTOM - _TOP)

    parts = [f"<text x='0' y='12' font-weight='bold'>{title}</text>"]
    for value in ticks(low, high, log):
        label = f"{100 * value:.4g} %" if name in PERCENT else f"{value:,.6g}"
        parts.append(
            f"<line x1='{_LEFT}' x2='{_RIGHT}' y1='{y(value):.1f}' y2='{y(value):.1f}' stroke='currentColor' opacity='.15'/>"
        )
        parts.append(f"<text x='{_LEFT - 6}' y='{y(value) + 4:.1f}' text-anchor='end' opacity='.7'>{label}</text>")
    for epoch in ticks(first, last):
        if epoch == int(epoch):
            parts.append(
                f"<text x='{x(epoch):.1f}' y='{_BOTTOM + 14}' text-anchor='middle' opacity='.7'>{epoch:,.0f}</text>"
            )
    parts.append(f"<text x='{_RIGHT}' y='{HEIGHT}' text-anchor='end' opacity='.7'>epoch</text>")
    for k, (line, values) in enumerate(lines.items()):
        colour = COLOURS[k % len(COLOURS)]
        parts += _line(values, x, y, colour)
        ends = [value for value in values if math.isfinite(value)]
        words = f"{text(line, 30)}{f' {metric(name, ends[-1])}' if ends else ''}"
        parts.append(f"<text x='{_RIGHT}' y='{12 + 12 * k}' text-anchor='end' fill='{colour}'>{words}</text>")
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT + 4}' width='{WIDTH}' height='{HEIGHT + 4}' font-size='11' fill='currentColor' "
        f"font-family='system-ui, sans-serif' role='img' aria-label='{title}'>{''.join(parts)}</svg>"
    )


def _line(values: Sequence[float], x: Callable[[float], float], y: Callable[[float], float], colour: str) -> list[str]:
    """The path through the values, and their points where they are few."""
    path, pen, points = "", "M", []
    step = -(-len(values) // MOST_POINTS) or 1
    for k in sorted({*range(0, len(values), step), len(values) - 1} - {-1}):
        value = values[k]
        if not math.isfinite(value):
            pen = "M"
            continue
        path += f"{pen}{x(k + 1):.1f} {y(value):.1f}"
        pen = "L"
        if len(values) <= _FEW_EPOCHS:
            points.append(f"<circle cx='{x(k + 1):.1f}' cy='{y(value):.1f}' r='2.5' fill='{colour}'/>")
    return [f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='2' stroke-linecap='round'/>", *points]


def picture(title: str, panels: Sequence[str]) -> str:
    """A file of its own: pieces that `curves` has made, beside each other on white below a title."""
    edge, head = 16, 34
    width, height = edge + len(panels) * (WIDTH + edge), head + HEIGHT + 4 + edge
    placed = "".join(
        panel.replace("<svg ", f"<svg x='{edge + k * (WIDTH + edge)}' y='{head}' ", 1) for k, panel in enumerate(panels)
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        f"font-family='system-ui, sans-serif' color='#1f2933' role='img' aria-label='{text(title)}'>"
        f"<rect width='100%' height='100%' fill='white'/>"
        f"<text x='{edge}' y='22' font-size='14' font-weight='bold' fill='currentColor'>{text(title)}</text>{placed}</svg>\n"
    )
