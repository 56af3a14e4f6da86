"""What can be wrong with the arguments of a kernel, and the sentence for it.

Types are judged before a kernel is compiled for them, for callers from Python and from compiled code alike; shapes and
overlaps by the compiled code at each call, which asks here for a sentence only when it has refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import typeof
from numba.core import types

from fastdl_kernels._units import array_type
from fastdl_kernels.activations import ACTIVATIONS, BY_CODE
from fastdl_kernels.precision import BF16, BF16_EMULATED, FLOAT32, HAS_BF16

DTYPES = ("float32", "float64")
# Numbers of these names must be whole; all others may be whole or float32 or float64.
WHOLE = frozenset({"activation", "step", "arithmetic"})


class Limits(Protocol):
    """What a number must lie between: lowest <= number < limit, or lowest < number where that end is `open`."""

    @property
    def meaning(self) -> str: ...
    @property
    def default(self) -> float: ...
    @property
    def lowest(self) -> float: ...
    @property
    def limit(self) -> float: ...
    @property
    def open(self) -> bool: ...


class Seen(NamedTuple):
    """One argument, as Python code or as compiled code shows it.

    what : its type in the words of the caller
    number : "integer", "float" or "" for something else
    dtype : of an array; None for something else
    """

    what: str
    number: str = ""
    dtype: str | None = None
    ndim: int = 0
    contiguous: bool = True
    writable: bool = True


def seen_value(value: Any) -> Seen:
    """A Python object."""
    what = type(value).__name__
    if isinstance(value, np.ndarray):
        flags = value.flags
        return Seen(what, "", str(value.dtype), value.ndim, flags.c_contiguous, flags.writeable)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return Seen(what, "integer") if -(2**63) <= value < 2**64 else Seen(f"one beyond 64 bits, {value}")
    return Seen(what, "float" if isinstance(value, (float, np.float32)) else "")


def seen_type(ty: types.Type) -> Seen:
    """A Numba type."""
    ty = typeof(ty.value) if isinstance(ty, types.Omitted) else types.unliteral(ty)
    if isinstance(ty, types.Array):
        return Seen(str(ty), "", str(ty.dtype), ty.ndim, ty.layout == "C", ty.mutable)
    number = "integer" if isinstance(ty, types.Integer) else "float" if ty in (types.float32, types.float64) else ""
    return Seen(str(ty), number)


class Rules:
    """What one kernel asks of its arguments.

    Parameters
    ----------
    kernel : its name, with which every sentence starts
    names : its arguments in order
    shapes : the dimensions of each array argument, such as {"x": ["B", "I"]}; the others are numbers
    outputs : the arrays that are written
    optional : arrays that may have no rows at all
    labels : arrays of int64 numbers
    limits : what numbers, and those of arrays, must lie between
    n_defaults : how many of the last arguments may be left out
    """

    def __init__(
        self,
        kernel: str,
        names: Sequence[str],
        shapes: Mapping[str, Sequence[str]],
        outputs: Iterable[str],
        optional: Iterable[str],
        labels: Iterable[str],
        limits: Mapping[str, Limits | None],
        n_defaults: int,
    ) -> None:
        self.kernel = kernel
        self.names = tuple(names)
        self.shapes = dict(shapes)
        self.outputs = tuple(outputs)
        self.optional = frozenset(optional)
        self.labels = frozenset(labels)
        self.limits = {name: limit for name, limit in limits.items() if limit is not None}
        self.fewest = len(self.names) - n_defaults

    def signature(self, element: types.Type) -> tuple[types.Type, ...]:
        """The types of all arguments, for arrays of an element type."""

        def type_of(name: str) -> types.Type:
            if name not in self.shapes:
                return types.int64 if name in WHOLE else types.float64
            return array_type(types.int64 if name in self.labels else element, len(self.shapes[name]))

        return tuple(map(type_of, self.names))

    def wrong_types(self, args: Sequence[Seen]) -> str | None:
        """One sentence about the first argument of a wrong type, or None."""
        if not self.fewest <= len(args) <= len(self.names):
            count = len(self.names) if self.fewest == len(self.names) else f"{self.fewest} to {len(self.names)}"
            return f"{self.kernel}: expected {count} arguments ({', '.join(self.names)}), got {len(args)}"
        first: tuple[str, str] | None = None  # the first array of floats and its dtype
        for key, seen in zip(self.names, args, strict=False):
            if key not in self.shapes:
                problem = self._wrong_number(key, seen)
            else:
                problem = self._wrong_array(key, seen)
                if problem is None and key not in self.labels and seen.dtype is not None:
                    first = first or (key, seen.dtype)
                    if seen.dtype != first[1]:
                        problem = (
                            f"one dtype for all arrays, got {first[1]} for {first[0]} and {seen.dtype} for {key}; "
                            f"use {key}.astype(np.{first[1]})"
                        )
            if problem is not None:
                return f"{self.kernel}: expected {problem}"
        return None

    def _wrong_number(self, key: str, seen: Seen) -> str | None:
        if seen.number == "":
            return f"a number for {key}, got {seen.what}"
        if key in WHOLE and seen.number != "integer":
            return f"a whole number for {key}, got {seen.what}"
        return None

    def _wrong_array(self, key: str, seen: Seen) -> str | None:
        dims = self.shapes[key]
        if seen.dtype is None:
            return f"a NumPy array for {key}, got {seen.what}; use np.asarray({key})"
        if key in self.labels and seen.dtype != "int64":
            return f"int64 for {key}, got {seen.dtype}; use {key}.astype(np.int64)"
        if key not in self.labels and seen.dtype not in DTYPES:
            return f"float32 or float64 for {key}, got {seen.dtype}; use {key}.astype(np.float32)"
        if seen.ndim != len(dims):
            return f"{len(dims)} dimension(s) [{', '.join(dims)}] for {key}, got {seen.ndim}; use {key}.reshape(...)"
        if not seen.contiguous:
            return f"{key} to be C-contiguous; use np.ascontiguousarray({key})"
        if key in self.outputs and not seen.writable:
            return self.read_only(key)
        return None

    def read_only(self, key: str) -> str:
        """What was expected of an output that cannot be written."""
        return f"{key} to be writable, got a read-only array; use {key}.copy()"

    def overlapping(self, given: Mapping[str, Any]) -> str | None:
        """One sentence about the first output that may share memory with another array, or None."""
        for key in self.outputs:
            for other in self.shapes:
                if other != key and np.may_share_memory(given[key], given[other]):
                    return (
                        f"{self.kernel}: expected {key} in memory of its own, but it overlaps {other}; "
                        f"pass a separate array"
                    )
        return None

    def wrong_values(self, args: Sequence[Any]) -> str | None:
        """One sentence about the first wrong shape, activation or overlap of Python objects of right types, or None."""
        given = dict(zip(self.names, args, strict=True))
        sizes: dict[str, tuple[int, str]] = {}
        for key, dims in self.shapes.items():
            value = given[key]
            if key in self.optional and value.shape[0] == 0:
                dims = [f"0 or {dims[0]}", *dims[1:]]
            for dim, size in zip(dims, value.shape, strict=True):
                known, where = sizes.setdefault(dim, (size, key))
                if known != size:
                    return (
                        f"{self.kernel}: expected {dim} = {known} (from {where}) in {key} [{', '.join(dims)}], "
                        f"got shape {value.shape}"
                    )
        if given.get("activation", 0) not in ACTIVATIONS.values():
            choice = ", ".join(f"{code} ({name})" for name, code in ACTIVATIONS.items())
            return f"{self.kernel}: expected activation to be one of {choice}, got {given['activation']}"
        arithmetic = given.get("arithmetic", FLOAT32)
        if arithmetic not in (FLOAT32, BF16, BF16_EMULATED) or (arithmetic == BF16 and not HAS_BF16):
            return (
                f"{self.kernel}: expected arithmetic to be FLOAT32 ({FLOAT32}), BF16 ({BF16}) or BF16_EMULATED "
                f"({BF16_EMULATED}), got {arithmetic}"
                + (", which this processor has not" if arithmetic == BF16 else "")
            )
        if arithmetic != FLOAT32 and given[self.outputs[0]].dtype != np.float32:
            return f"{self.kernel}: expected float32 arrays for bf16, got {given[self.outputs[0]].dtype}"
        limits, what = dict(self.limits), {key: key for key in self.limits}
        if "activation" in given and (spec := BY_CODE[given["activation"]]).alpha is not None:
            limits["alpha"] = spec.alpha
            what["alpha"] = f"alpha of {spec.name}"
        for key, limit in limits.items():
            for value in np.atleast_1d(given[key]):
                if not limit.lowest <= value < limit.limit or (limit.open and value == limit.lowest):
                    bounds = f"{'(' if limit.open else '['}{limit.lowest:g}, {limit.limit:g})"
                    return (
                        f"{self.kernel}: expected {what[key]} ({limit.meaning}) in {bounds}, got {value}; "
                        f"{limit.default:g} is usual"
                    )
        message = self.overlapping(given)
        if message is not None:
            return message
        for key in self.labels:
            wrong = given[key][(given[key] < 0) | (given[key] >= sizes["N"][0])]
            if wrong.size:
                return f"{self.kernel}: expected {key} from 0 to N - 1, with N = {sizes['N'][0]}, got {wrong[0]}"
        return None
