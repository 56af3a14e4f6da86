"""Numbers as people write them: `$1,234.50`, `45,06`, `12 %`, `(3.2)`, `1 234`, `+5`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdl.tables.text import polars, without

if TYPE_CHECKING:
    import polars as pl

_SPACES = r"[\s\u{00a0}\u{2007}\u{2009}\u{202f}']"
_CURRENCY = r"(?i)(?:[$€£¥₹₩₽]|\b(?:usd|eur|gbp|chf|jpy|inr|cny|sek|nok|dkk|us\$))"


@dataclass(frozen=True)
class Style:
    """How a column writes its numbers.

    decimal : "." or ",", the mark before the fraction
    grouped : with a decimal comma, whether points separate thousands (they do where a cell has both)
    """

    decimal: str = "."
    grouped: bool = False

    def parse(self, cells: pl.Series) -> pl.Series:
        """The numbers of text cells as Float64, null where there is none.

        Percent signs, currencies, spaces and separators of thousands do not count; parentheses make a number negative.
        `nan` and infinite numbers are none.
        """
        pl = polars()
        plain = cells.cast(pl.Float64, strict=False)
        # With a decimal comma a point may separate thousands: then what looks like a plain number is none.
        rest = plain.is_null() & cells.is_not_null()
        if self.grouped:
            rest |= cells.str.contains(".", literal=True).fill_null(False)
        if rest.any():
            rows = rest.arg_true()
            plain = plain.scatter(rows, self._parse(cells.gather(rows)))
        return without(plain, ~plain.is_finite())

    def _parse(self, cells: pl.Series) -> pl.Series:
        pl = polars()
        bare = undressed(cells)
        if self.decimal == ".":
            groups = bare.str.contains(r"^[+-]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d*)?$").fill_null(False)
            return bare.zip_with(~groups, bare.str.replace_all(",", "", literal=True)).cast(pl.Float64, strict=False)
        if self.grouped:
            groups = bare.str.contains(r"^[+-]?\d{1,3}(\.\d{3})+(,\d*)?$").fill_null(False)
            bare = bare.zip_with(~groups, bare.str.replace_all(".", "", literal=True))
        return bare.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)

    def to_json(self) -> dict[str, object]:
        """The style as plain values."""
        return {"decimal": self.decimal, "grouped": self.grouped}


def undressed(cells: pl.Series) -> pl.Series:
    """Cells without spaces, currency and percent signs; `(3)` becomes `-3`."""
    bare = cells.str.replace_all(_SPACES, "").str.replace_all("−", "-", literal=True)
    bare = bare.str.replace(_CURRENCY, "").str.strip_suffix("%")
    return bare.str.replace(r"^\(([^()-][^()]*)\)$", "-$1")


def style_of(cells: pl.Series, decimal: str | None = None) -> Style:
    """The style in which most cells of a column are numbers; a decimal comma only where a point explains fewer.

    `decimal` is what the user or the file (one of semicolons) says about the mark.
    """
    commas = cells.filter(cells.str.contains(",", literal=True)).drop_nulls()
    if len(commas) == 0 and decimal != ",":
        return Style()
    bare = undressed(commas)
    grouped = bool(bare.str.contains(r"\.\d{3}(\.\d{3})*,").any())
    if decimal is not None:
        return Style(decimal, grouped and decimal == ",")
    point, comma = (int(style.parse(commas).count()) for style in (Style(), Style(",", grouped)))
    return Style(",", grouped) if comma > point else Style()
