"""What a public kernel is: a compiled function with one clear sentence for every wrong argument.

Types are checked when Numba asks for a version that it does not have yet, which costs a call nothing: only right ones
are ever compiled or loaded from the cache, for callers from Python and from compiled code. The compiled code checks
shapes and overlaps in a few nanoseconds and refuses before it writes anything; only then is Python asked to find out
what was wrong and say it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numba.core import errors, types
from numba.core.sigutils import normalize_signature
from numba.extending import intrinsic, overload, typeof_impl

from fastdl_kernels._jit import entry, is_current, jit
from fastdl_kernels._units import ELEMENTS, Native
from fastdl_kernels.arguments import Limits, Rules, seen_type, seen_value
from fastdl_kernels.halves import called_with_halves, holds_halves

# Multiply-adds (or as many other steps) below which a call stays on its thread: 10 us of work. A parallel region costs
# 3 us under OpenMP and 100 us under Numba's own work queue.
SERIAL_WORK = 500_000

_RULES: dict[str, Rules] = {}  # of each kernel, by its name
_ELEMENTS = {str(element): element for element in ELEMENTS}


class Kernel:
    """A compiled function, callable from Python and from a user's own `@njit` code.

    Parameters
    ----------
    function : the Python function to compile
    shapes : the dimensions of each array argument, such as {"x": "B I", "weight": "I O"}
    outputs : the arrays that are written; they must not overlap any other argument
    optional : arrays that may have no rows at all, to leave them out
    integers : arrays of int64 labels
    limits : what numbers, and those of arrays, must lie between

    Arguments with a default come last.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        shapes: dict[str, str],
        outputs: Iterable[str],
        optional: Iterable[str] = (),
        integers: Iterable[str] = (),
        limits: Mapping[str, Limits | None] | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters
        defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        self._defaults, self._fewest = tuple(defaults.values()), len(parameters) - len(defaults)
        dims = {name: text.split() for name, text in shapes.items()}
        self.rules = Rules(
            self.__name__, list(parameters), dims, outputs, optional, integers, limits or {}, len(defaults)
        )  # fmt: skip
        _RULES[self.__name__] = self.rules
        # For compiled code, and for arguments of types that `native` was not made for.
        self.dispatcher = self._guarded(entry(function))
        written = frozenset(map(self.rules.names.index, self.rules.outputs))
        self.native = Native(function, self.rules.signature, written)
        self._floats = next(
            i for i, name in enumerate(self.rules.names) if name in dims and name not in self.rules.labels
        )
        self._call = self._first

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            args = self._positional(args, kwargs)
        if self._defaults and len(args) >= self._fewest:
            args += self._defaults[len(args) - self._fewest :]
        try:
            return self._call(*args)
        except (TypeError, ValueError):
            pass
        if holds_halves(self.rules.names, args):
            return called_with_halves(self.rules, args, self)
        # Why it was refused: wrong types, wrong values, or a version of the other dtype, and last of types that Numba takes.
        message = self.rules.wrong_types([seen_value(arg) for arg in args])
        if message is not None:
            raise TypeError(message)
        message = self.rules.wrong_values(args)
        if message is not None:
            raise ValueError(message)
        element = _ELEMENTS[args[self._floats].dtype.name]
        self._call = self.native.callable(element)
        try:
            return self._call(*args)
        except (TypeError, ValueError):
            return self.dispatcher(*args)

    def _first(self, *args: Any) -> Any:
        raise TypeError("no version of it is loaded yet")

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments in order."""
        try:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return bound.args
        except TypeError as error:
            expected = ", ".join(self.rules.names)
            raise TypeError(f"{self.__name__}: {error}; expected the arguments {expected}") from None

    def _guarded(self, dispatcher: Any) -> Any:
        """The dispatcher, made to refuse wrong types before it compiles a version for them or loads one."""
        compile_any = dispatcher.compile

        def compile_checked(sig: Any) -> Any:
            message = self.rules.wrong_types([seen_type(ty) for ty in normalize_signature(sig)[0]])
            if message is not None:
                raise errors.TypingError(message)
            return compile_any(sig)

        dispatcher.compile = compile_checked
        return dispatcher

    def __repr__(self) -> str:
        return f"<kernel {self.__name__}{self._signature}>"


@typeof_impl.register(Kernel)
def _typeof_kernel(value: Kernel, context: Any) -> types.Type:
    """Inside compiled code a kernel is its dispatcher."""
    return types.Dispatcher(value.dispatcher)


def kernel(
    shapes: dict[str, str],
    outputs: Iterable[str],
    optional: Iterable[str] = (),
    integers: Iterable[str] = (),
    limits: Mapping[str, Limits | None] | None = None,
) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorator form of `Kernel`."""
    return lambda function: Kernel(function, shapes, outputs, optional, integers, limits)


def require(name: str, agree: bool, apart: bool) -> None:
    """In a kernel: ValueError in its name unless the shapes `agree` and the outputs lie `apart` from all other arrays."""
    raise TypeError("require works inside compiled code only")


@overload(require, prefer_literal=True)
def _resolve_require(name, agree, apart):
    if not isinstance(name, types.StringLiteral):
        return None
    rules = _RULES[name.literal_value]
    arrays = ", ".join(f"{key} [{', '.join(dims)}]" for key, dims in rules.shapes.items())
    shapes = f"{rules.kernel}: expected {arrays}"
    memory = f"{rules.kernel}: expected {', '.join(rules.outputs)} in memory of their own"

    def check(name, agree, apart):
        if not agree:
            raise ValueError(shapes)
        if not apart:
            raise ValueError(memory)

    return check


@intrinsic
def _address(typingctx, array):
    if not isinstance(array, types.Array):
        return None

    def codegen(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(array), codegen


@jit
def overlap(a, b):
    """Whether two C-contiguous arrays share memory; empty ones do not.

    Every kernel asks this before it writes, so that it is also the place to notice that the kernel is an old copy.
    """
    if not is_current():
        raise RuntimeError(
            "a cached function holds kernels of another version of fastdl_kernels: delete its __pycache__"
        )
    a0, b0 = _address(a), _address(b)
    return a0 < b0 + b.size * b.itemsize and b0 < a0 + a.size * a.itemsize and a.size > 0 and b.size > 0
