"""Small pieces of HTML: what notebooks show of histories, trainers, models and measurements, without scripts.

All text is escaped. `svg` draws curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fastdl.svg import text


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
