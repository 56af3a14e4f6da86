"""Oracle of the input stage in naive float64 NumPy: columns that become linear maps of terms or rows of tables, and scales.

It imports nothing of ours. Terms are "cosines" (with phases, and x itself behind the maps), "waves" (cosines and sines) and
"pieces" (of which edges are given).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def f64(array):
    return np.asarray(array, dtype=np.float64)


@dataclass
class Stage:
    """What an input stage is; `count` is the number of frequencies or pieces."""

    n_inputs: int
    embedded: list[int]
    terms: str
    count: int
    size: int
    scaled: bool
    categories: list[tuple[int, int]] = field(default_factory=list)  # column, rows of its table
    category_size: int = 0

    @property
    def maps(self):
        return self.size - 1 if self.terms == "cosines" else self.size

    @property
    def n_terms(self):
        return 2 * self.count if self.terms == "waves" else self.count

    @property
    def n_outputs(self):
        return self.n_inputs + len(self.embedded) * (self.size - 1) + len(self.categories) * (self.category_size - 1)

    def split(self, flat):
        """(numbers of each embedded column: frequencies, phases, weights [maps, terms], biases; scale; edges of each; tables)."""
        rest, columns = f64(flat), []
        own = {"cosines": [self.count, self.count], "waves": [self.count, 0], "pieces": [0, 0]}[self.terms]
        sizes = [*own, self.maps * self.n_terms, self.maps]
        for _ in self.embedded:
            w, b, v, a = np.split(rest[: sum(sizes)], np.cumsum(sizes)[:-1])
            columns.append((w, b, v.reshape(self.maps, self.n_terms), a))
            rest = rest[sum(sizes) :]
        scale = rest[: self.n_outputs] if self.scaled else np.ones(self.n_outputs)
        rest = rest[self.n_outputs :] if self.scaled else rest
        tables = []
        for _, rows in self.categories:
            tables.append(rest[: rows * self.category_size].reshape(rows, self.category_size))
            rest = rest[rows * self.category_size :]
        edges = rest.reshape(len(self.embedded), self.count + 1) if self.terms == "pieces" and self.embedded else None
        assert edges is not None or rest.size == 0
        return columns, scale, edges, tables

    def codes(self, x, column, rows):
        """The row of a category's table for each row of X."""
        return [int(code) if code in range(1, rows) else 0 for code in x[:, column]]

    def terms_of(self, x, numbers, edges):
        """(terms [B, T], their derivatives by x) of a column [B, 1]."""
        if self.terms == "pieces":
            found, slopes = [], []
            for j in range(self.count):
                low, high = edges[j], edges[j + 1]
                t = (x[:, 0] - low) / (high - low) if high > low else np.zeros(len(x))
                t = np.maximum(t, 0) if j > 0 else t
                found.append(np.minimum(t, 1) if j < self.count - 1 else t)
                slopes.append(np.zeros(len(x)))
            return np.stack(found, axis=1), np.stack(slopes, axis=1)
        angle = 2 * np.pi * x * numbers[0]
        if self.terms == "cosines":
            angle = angle + numbers[1]
            return np.cos(angle), -np.sin(angle)
        return np.concatenate([np.cos(angle), np.sin(angle)], 1), np.concatenate([-np.sin(angle), np.cos(angle)], 1)

    def forward(self, x, flat):
        """(outputs before they are scaled, outputs): the numbers of each embedded column, then the other columns."""
        x = f64(x)
        columns, scale, edges, tables = self.split(flat)
        pieces = []
        for i, (column, numbers) in enumerate(zip(self.embedded, columns, strict=True)):
            own = x[:, [column]]
            t, _ = self.terms_of(own, numbers, None if edges is None else edges[i])
            pieces += [t @ numbers[2].T + numbers[3], *([own] if self.terms == "cosines" else [])]
        pieces.append(np.delete(x, [*self.embedded, *(column for column, _ in self.categories)], axis=1))
        pieces += [
            table[self.codes(x, column, rows)] for (column, rows), table in zip(self.categories, tables, strict=True)
        ]
        plain = np.concatenate(pieces, axis=1)
        return plain, plain * scale

    def backward(self, x, flat, d_out):
        """The gradient of the stage's numbers, flat; that of edges is 0."""
        x, found, at = f64(x), [], 0
        columns, scale, edges, tables = self.split(flat)
        plain, _ = self.forward(x, flat)
        for i, (column, numbers) in enumerate(zip(self.embedded, columns, strict=True)):
            d_maps = (d_out * scale)[:, at : at + self.maps]
            at += self.size
            own = x[:, [column]]
            t, slope = self.terms_of(own, numbers, None if edges is None else edges[i])
            d_angle = slope * (d_maps @ numbers[2])
            by_frequency = (d_angle * 2 * np.pi * own).sum(axis=0)
            if self.terms == "cosines":
                found += [by_frequency, d_angle.sum(axis=0)]
            elif self.terms == "waves":
                found += [by_frequency[: self.count] + by_frequency[self.count :]]
            found += [(d_maps.T @ t).ravel(), d_maps.sum(axis=0)]
        if self.scaled:
            found.append((d_out * plain).sum(axis=0))
        at = self.n_outputs - len(self.categories) * self.category_size
        for (column, rows), table in zip(self.categories, tables, strict=True):
            d_table = np.zeros(table.shape)
            for code, d in zip(
                self.codes(x, column, rows), (d_out * scale)[:, at : at + self.category_size], strict=True
            ):
                d_table[code] += d
            at += self.category_size
            found.append(d_table.ravel())
        if edges is not None:
            found.append(np.zeros(edges.size))
        return np.concatenate(found) if found else np.zeros(0)
