"""The functions that a written module of predictions consists of: they need NumPy and Python's own library alone.

`numpy_module` copies the source of those that a model uses; what they share is copied with them. They are tested here as they
are there. `MISSING_WORDS` and `MISSING_NUMBERS` are constants of the written module.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone

import numpy as np

MISSING_WORDS: set[str] = set()
MISSING_NUMBERS: set[float] = set()


def clipped(x, limit):
    """x / sqrt(1 + (x / limit)^2): x near 0, and never further than the limit from it."""
    return x / np.hypot(1.0, x / limit)


def embedded(x, columns, others, codes, starts, terms, passes, weights, biases, scale, tables, *numbers):
    """Embedded columns as linear maps of terms of them, and they themselves if that `passes`, the other columns behind, then rows
    of tables that codes belong to; all times a scale."""
    inputs = x[:, columns][:, :, None]
    made = np.einsum("nej,ekj->nek", terms(inputs, *numbers), weights) + biases
    made = np.concatenate([made, inputs], axis=2) if passes else made
    found = x[:, codes]
    known = (found >= 1) & (found < np.diff(starts)) & (found == np.floor(found))
    found = tables[np.where(known, found, 0).astype(int) + np.array(starts[:-1], int)]
    x = np.concatenate([made.reshape(len(x), -1), x[:, others], found.reshape(len(x), -1)], axis=1)
    return (x * scale if len(scale) else x).astype(weights.dtype)


def cosines(x, frequencies, phases):
    """Cosines of columns [N, E, 1], with phases."""
    return np.cos(2 * np.pi * frequencies.astype(np.float64) * x + phases)


def pieces(x, starts, slopes, least, most):
    """Pieces of columns [N, E, 1]: 0 before one, 1 behind it; the first and the last go on beyond."""
    return np.clip((x - starts) * slopes, least, most)


# Activations by their names: of z [N, O], and of alpha, which few have.


def identity(z, alpha):
    return z


def relu(z, alpha):
    return np.maximum(z, 0)


def leaky_relu(z, alpha):
    return np.maximum(z, 0) + alpha * np.minimum(z, 0)


def sigmoid(z, alpha=None):
    return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))


def tanh(z, alpha):
    return np.tanh(z)


def elu(z, alpha):
    return np.maximum(z, 0) + alpha * np.expm1(np.minimum(z, 0))


def selu(z, alpha):
    return 1.0507009873554805 * (np.maximum(z, 0) + 1.6732632423543772 * np.expm1(np.minimum(z, 0)))


def softplus(z, alpha=None):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def gelu(z, alpha):
    below = np.frompyfunc(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)), 1, 1)  # P(Z < x), Z normal
    return (z * below(z)).astype(z.dtype)


def silu(z, alpha):
    return z * sigmoid(z)


def mish(z, alpha):
    return z * np.tanh(softplus(z))


def parametric(z, of_units):
    """c act(z) + (1 - c) z, with a number c of each unit."""
    activation, alpha, c = of_units
    return c * activation(z, alpha) + (1 - c) * z


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# Columns of tables.


def cells_of(column):
    """The cells of a column as a list: None where a value is missing, texts without the spaces around them."""
    cells = list(column)
    texts = {cell: cell.strip() for cell in set(filter(is_text, cells))}
    words = MISSING_WORDS - {"-"} if "+" in texts.values() else MISSING_WORDS  # beside +, - is a value
    kept = {cell: None if text in words else text for cell, text in texts.items()}
    return [kept[cell] if is_text(cell) else None if is_missing(cell) else cell for cell in cells]


def is_text(cell):
    return isinstance(cell, str)


def is_missing(cell):
    """None, NaN, NaT, pandas' NA, and numbers that stand for a missing value."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, (bool, np.bool_)):
        return False
    if isinstance(cell, (int, float, np.number)):
        return cell != cell or float(cell) in MISSING_NUMBERS
    return bool(cell != cell)


def with_mark(rows, cells, marked):
    """The features [N, K] of the cells, and one more with a 1 where a value is missing, if the column has such a one."""
    if marked:
        rows = np.column_stack([rows, [cell is None for cell in cells]])
    return np.asarray(rows, float)


def number(column, fill, marked, decimal, grouped):
    """Numbers, with `fill` where one is missing."""
    cells = [read_number(cell, decimal, grouped) for cell in cells_of(column)]
    return with_mark([[fill if cell is None else cell] for cell in cells], cells, marked)


def read_number(cell, decimal, grouped):
    """A finite number, or None: texts may have currencies, per cent and separators of thousands; (3) is -3."""
    if isinstance(cell, str):
        if (decimal == "," and grouped and "." in cell) or not is_plain_number(cell):
            cell = re.sub(r"[\s\u00a0\u2007\u2009\u202f']", "", cell).replace("\u2212", "-")
            cell = re.sub(r"(?i)([$€£¥₹₩₽]|\b(usd|eur|gbp|chf|jpy|inr|cny|sek|nok|dkk|us\$))", "", cell, count=1)
            cell = re.sub(r"^\(([^()-][^()]*)\)$", r"-\1", cell[:-1] if cell.endswith("%") else cell)
            if decimal == "." and re.fullmatch(r"[+-]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d*)?", cell):
                cell = cell.replace(",", "")
            if decimal == "," and grouped and re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?", cell):
                cell = cell.replace(".", "")
            if decimal == ",":
                cell = cell.replace(",", ".", 1)
        if not is_plain_number(cell):
            return None
    if cell is None:
        return None
    value = float(cell)
    return value if math.isfinite(value) else None


def is_plain_number(text):
    return re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) is not None


def text_of(cell):
    """A cell of any kind as text: whole numbers without a fraction, `True` and `False`."""
    if isinstance(cell, (float, np.floating)):
        value = float(cell)
        if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        return np.format_float_positional(cell) if 1e-5 <= abs(value) < 1e-4 else str(cell).replace("e-0", "e-")
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M:%S.%f}"
    if isinstance(cell, np.datetime64):
        return str(cell).replace("T", " ")
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", str(cell))


def codes_of(column, codes, unseen, missing, lower):
    """The code of each cell's text."""
    found = []
    for cell in cells_of(column):
        text = None if cell is None else text_of(cell)
        found.append(missing if text is None else codes.get(text.lower() if lower else text, unseen))
    return found


def category(column, codes, width, unseen, missing):
    """`width` features: a 1 at the category's code, and 0 elsewhere; nothing but 0 where the code is `width`."""
    return np.eye(width + 1, width)[codes_of(column, codes, unseen, missing, False)]


def lookup(column, codes, rows, unseen, missing, lower):
    """The row of numbers that each text stands for."""
    return np.array(rows)[codes_of(column, codes, unseen, missing, lower)]


def moment(column, parts, marked, pattern, prefix):
    """Numbers of calendar and clock, with those of `parts` where a moment is missing."""
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        times = column.astype("datetime64[us]")
        cells = [None if missing else True for missing in np.isnat(times)]
    else:
        cells = [read_moment(cell, pattern, prefix) for cell in cells_of(column)]
        times = np.array([np.datetime64("NaT") if cell is None else cell for cell in cells], "datetime64[us]")
    known = np.where(np.isnat(times), np.datetime64(0, "us"), times)
    days, months, years = (known.astype(f"datetime64[{unit}]") for unit in "DMY")
    minutes = (known - days).astype("timedelta64[m]").astype(int)
    numbers = {
        "days": known.astype(np.int64) / 86_400e6,
        "year": years.astype(int) + 1970,
        "month": (months - years).astype(int) + 1,
        "day of week": (days.astype(int) + 3) % 7 + 1,
        "day of year": (days - years).astype(int) + 1,
        "hour": minutes // 60 + minutes % 60 / 60,
    }
    rows = [np.where(np.isnat(times), fill, numbers[part]) for part, fill in parts.items()]
    return with_mark(np.array(rows).reshape(len(rows), len(times)).T, cells, marked)


def read_moment(cell, pattern, prefix):
    """A moment of UTC without a time zone, or None: texts as `pattern` says, after `prefix`."""
    if cell is None or isinstance(cell, np.datetime64):
        return cell
    if hasattr(cell, "hour") and not hasattr(cell, "year"):  # a time of day
        cell = datetime(1970, 1, 1, cell.hour, cell.minute, cell.second, cell.microsecond)
    if hasattr(cell, "year"):
        cell = datetime(*(getattr(cell, part, 0) for part in MOMENT_PARTS), tzinfo=getattr(cell, "tzinfo", None))
        return np.datetime64(cell.astimezone(timezone.utc).replace(tzinfo=None) if cell.tzinfo else cell)
    text = re.sub(r"(\.\d{6})\d+", r"\1", text_of(cell)) if "%.f" in pattern else text_of(cell)
    text = re.sub(r"([+-]\d\d)$", r"\g<1>00", text) if "%#z" in pattern else text
    usual = re.sub(r"^(\d{4}-\d{1,2}-\d{1,2})[Tt](\d)", r"\1 \2", text)
    usual = re.sub(r"\s+(Z|[+-]\d\d:?\d\d)$", r"\1", usual)
    forms = [pattern, pattern.replace("%B", "%b")]
    forms = [form.replace("%.f", part).replace("%#z", "%z") for form in forms for part in (".%f", "")]
    for written in (text, usual):
        for form in forms:
            try:
                found = datetime.strptime(prefix + written, form)
            except ValueError:
                continue
            if "%y" in form and found.year == 1969:  # two digits mean 1970 to 2069
                found = found.replace(year=2069)
            found = found.astimezone(timezone.utc).replace(tzinfo=None) if found.tzinfo else found
            return np.datetime64(found) if found.year >= 1000 else None
    return None


MOMENT_PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond")


def words(column, words):
    """For each of the words a 1 where the text has it, in any case."""
    found = [set(re.findall(r"[^\W_]+", "" if cell is None else text_of(cell).lower())) for cell in cells_of(column)]
    return np.array([[word in cell for word in words] for cell in found], float).reshape(len(found), len(words))
