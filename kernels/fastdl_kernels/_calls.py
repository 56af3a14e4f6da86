"""Compiled functions as Python calls them: arrays, tuples and numbers in, with nothing of Numba in between.

Numba makes such a wrapper for every function and every combination of types, which takes it longer than the function. Here
it is written in LLVM's language: it looks at each argument where CPython and NumPy keep it, writes addresses, sizes and
numbers one after the other into words of 64 bits, gives up the GIL and calls the function, which finds its arguments there. It
refuses (TypeError) what it was not made for, and touches nothing then.

Where CPython and NumPy keep things is fixed by their binary interfaces (`PyArrayObject_fields`, `PyArray_Descr`), and tried
out before it is relied on: where an array looks different (`offsets_hold`), Numba's own wrappers are used.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

WORDS = types.CPointer(types.int64)
# Where things are, in bytes from the start of an object.
_TYPE, _DATA, _NDIM, _SHAPE, _DESCR, _FLAGS = 8, 16, 24, 32, 56, 64
_BYTE_ORDER, _NUMBER = 26, 28  # in a dtype
_CONTIGUOUS, _WRITEABLE = 1, 0x400
_FASTCALL = 0x80
_OBJECTS = {
    "ndarray": np.ndarray, "float": float, "int": int, "bool": bool, "None": None, "True": True, "False": False,
}  # fmt: skip
_DECLARED = """
declare ptr @PyTuple_GetItem(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare i64 @PyLong_AsLongLong(ptr)
declare double @PyFloat_AsDouble(ptr)
declare i32 @PyType_IsSubtype(ptr, ptr)
declare ptr @PyErr_Occurred()
declare void @PyErr_Clear()
declare void @PyErr_SetString(ptr, ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyFloat_FromDouble(double)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyBool_FromLong(i64)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare void @Py_IncRef(ptr)
@PyExc_TypeError = external global ptr
@PyExc_ValueError = external global ptr
@other = private constant [40 x i8] c"arguments that this code is not made of\\00"
@refused = private constant [8 x i8] c"refused\\00"
"""


@functools.cache
def offsets_hold() -> bool:
    """Whether arrays and their dtypes are laid out as the wrappers expect; makes known what they call."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return False
    if hasattr(sys, "_is_gil_enabled") and object.__basicsize__ != 16:  # free-threaded: other heads of objects
        return False
    if not (np.ndarray.__basicsize__ >= _FLAGS + 4 and object.__basicsize__ == 16):
        return False

    def at(place: int, kind: Any = ctypes.c_uint64) -> int:
        return kind.from_address(place).value

    for dtype in ("f4", "f8", "i8", "i4", ">f4"):
        array = np.zeros((2, 3, 5), dtype)[:, :2]
        for view in (array, array.copy()):
            here, of_dtype = id(view), id(view.dtype)
            sizes = [at(at(here + _SHAPE) + 8 * i) for i in range(3)]
            seen = (
                at(here + _TYPE), at(here + _DATA), at(here + _NDIM, ctypes.c_int), sizes, at(here + _DESCR),
                at(here + _FLAGS, ctypes.c_int) & _CONTIGUOUS, at(here + _FLAGS, ctypes.c_int) & _WRITEABLE,
                at(of_dtype + _BYTE_ORDER, ctypes.c_ubyte), at(of_dtype + _NUMBER, ctypes.c_int),
            )  # fmt: skip
            expected = (
                id(np.ndarray), view.ctypes.data, 3, [2, 2, 5], of_dtype, int(view.flags.c_contiguous), _WRITEABLE,
                ord(view.dtype.byteorder), view.dtype.num,
            )  # fmt: skip
            if seen != expected:
                return False
    for name, value in _OBJECTS.items():
        binding.add_symbol(f"fastdl_python_{name}", id(value))
    for line in _DECLARED.splitlines():
        if "@Py" in line:
            name = line.split("@")[1].split("(")[0].split(" ")[0]
            binding.add_symbol(name, ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, name)))
    return True


# --- what the function finds in the words ---


def leaves(ty: types.Type) -> Iterator[types.Type]:
    """The arrays and numbers of an argument, one after the other."""
    if isinstance(ty, types.BaseTuple):
        for member in ty.types:
            yield from leaves(member)
    else:
        yield ty


def n_words(ty: types.Type) -> int:
    """How many words an argument takes."""
    return sum(1 + (leaf.ndim if isinstance(leaf, types.Array) else 0) for leaf in leaves(ty))


def in_words(function: Any, arguments: tuple[types.Type, ...]) -> Callable[..., Any]:
    """A function of words that calls the compiled `function` of `arguments`, and leaves its result in the first words."""
    whole = types.BaseTuple.from_types(arguments) if len(arguments) > 1 else types.UniTuple(arguments[0], 1)

    @intrinsic
    def read(typingctx, words):
        def codegen(context, builder, sig, args):
            place = iter(range(n_words(whole)))

            def word() -> ir.Value:
                return builder.load(builder.gep(args[0], [ir.Constant(ir.IntType(64), next(place))]))

            def build(ty: types.Type) -> ir.Value:
                if isinstance(ty, types.BaseTuple):
                    return context.make_tuple(builder, ty, [build(member) for member in ty.types])
                if isinstance(ty, types.Array):
                    return _array(context, builder, ty, word(), [word() for _ in range(ty.ndim)])
                number = word()
                if isinstance(ty, types.Float):
                    return context.cast(builder, builder.bitcast(number, ir.DoubleType()), types.float64, ty)
                return context.cast(builder, number, types.int64, ty)

            return build(whole)

        return whole(words), codegen

    @intrinsic
    def write(typingctx, words, result):
        def codegen(context, builder, sig, args):
            members = cgutils.unpack_tuple(builder, args[1]) if isinstance(result, types.BaseTuple) else [args[1]]
            for i, (ty, value) in enumerate(zip(leaves(result), members)):
                if isinstance(ty, types.NoneType):
                    continue
                if isinstance(ty, types.Float):
                    value = builder.bitcast(context.cast(builder, value, ty, types.float64), ir.IntType(64))
                else:
                    value = context.cast(builder, value, ty, types.int64)
                builder.store(value, builder.gep(args[0], [ir.Constant(ir.IntType(64), i)]))
            return context.get_dummy_value()

        return types.none(words, result), codegen

    def from_words(words):
        write(words, function(*read(words)))

    return from_words


def _array(context: Any, builder: ir.IRBuilder, ty: types.Array, data: ir.Value, shape: list[ir.Value]) -> ir.Value:
    """A C-contiguous array without a count of references: whoever called keeps it alive."""
    from numba.np.arrayobj import populate_array  # of Numba's compiler, which takes long to import

    array = context.make_array(ty)(context, builder)
    itemsize = context.get_constant(types.intp, ty.dtype.bitwidth // 8)
    strides = [itemsize]
    for size in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], size))
    address = builder.inttoptr(data, array.data.type)
    populate_array(array, data=address, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()


# --- the wrapper ---


class _Text:
    """LLVM's text of a wrapper as it is written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def new(self, text: str) -> str:
        """A new value."""
        self.count += 1
        self.lines.append(f"  %v{self.count} = {text}")
        return f"%v{self.count}"

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def field(self, kind: str, base: str, offset: int) -> str:
        return self.new(f"load {kind}, ptr {self.new(f'getelementptr i8, ptr {base}, i64 {offset}')}, align 4")

    def refuse_unless(self, condition: str) -> None:
        self.count += 1
        self.lines += [f"  br i1 {condition}, label %go{self.count}, label %bad", f"go{self.count}:"]

    def is_equal(self, kind: str, a: str, b: str) -> str:
        return self.new(f"icmp eq {kind} {a}, {b}")


def wrapper(
    symbol: str, arguments: tuple[types.Type, ...], written: frozenset[int], result: types.Type
) -> Callable[[str], str]:
    """The name of a function of words -> LLVM's text of its wrapper, `PyObject *symbol(self, arguments, their number)`.

    `written` are the places of arrays that must be writable.
    """
    total = max(1, sum(map(n_words, arguments)))
    text, words = _Text(), iter(range(total))

    def store(value: str) -> None:
        text.do(f"store i64 {value}, ptr {text.new(f'getelementptr i64, ptr %words, i64 {next(words)}')}")

    text.refuse_unless(text.is_equal("i64", "%n", str(len(arguments))))
    for i, ty in enumerate(arguments):
        value = text.new(f"load ptr, ptr {text.new(f'getelementptr ptr, ptr %args, i64 {i}')}")
        _read(text, store, ty, value, i in written)

    def build(name: str) -> str:
        objects = "\n".join(f"@fastdl_python_{name} = external global i8" for name in _OBJECTS)
        body = "\n".join(text.lines)
        return f"""{_DECLARED}{objects}
declare i32 @"{name}"(ptr, ptr, ptr)
define ptr @"{symbol}"(ptr %self, ptr %args, i64 %n) {{
  %words = alloca [{total} x i64], align 16
  %none = alloca ptr
  %error = alloca ptr
  store ptr null, ptr %none
  store ptr null, ptr %error
{body}
  %thread = call ptr @PyEval_SaveThread()
  %status = call i32 @"{name}"(ptr %none, ptr %error, ptr %words)
  call void @PyEval_RestoreThread(ptr %thread)
  %zero = icmp eq i32 %status, 0
  %void = icmp eq i32 %status, -2
  %fine = or i1 %zero, %void
  br i1 %fine, label %good, label %wrong
good:
{_result(result)}
bad:
  %type_error = load ptr, ptr @PyExc_TypeError
  call void @PyErr_SetString(ptr %type_error, ptr @other)
  ret ptr null
wrong:
  %value_error = load ptr, ptr @PyExc_ValueError
  call void @PyErr_SetString(ptr %value_error, ptr @refused)
  ret ptr null
}}
"""

    return build


def _read(text: _Text, store: Callable[[str], None], ty: types.Type, value: str, is_written: bool) -> None:
    """Write the words of one argument."""
    if isinstance(ty, types.BaseTuple):
        size = text.new(f"call i64 @PyTuple_Size(ptr {value})")
        text.refuse_unless(text.is_equal("i64", size, str(len(ty))))
        for i, member in enumerate(ty.types):
            item = text.new(f"call ptr @PyTuple_GetItem(ptr {value}, i64 {i})")
            _read(text, store, member, item, is_written)
        return
    if isinstance(ty, types.Boolean):
        yes, no = (text.is_equal("ptr", value, f"@fastdl_python_{name}") for name in ("True", "False"))
        text.refuse_unless(text.new(f"or i1 {yes}, {no}"))
        store(text.new(f"zext i1 {yes} to i64"))
        return
    kind = text.field("ptr", value, _TYPE)
    if isinstance(ty, types.Array):
        text.refuse_unless(text.is_equal("ptr", kind, "@fastdl_python_ndarray"))
        text.refuse_unless(text.is_equal("i32", text.field("i32", value, _NDIM), str(ty.ndim)))
        wanted = _CONTIGUOUS | (_WRITEABLE if is_written else 0)
        flags = text.new(f"and i32 {text.field('i32', value, _FLAGS)}, {wanted}")
        text.refuse_unless(text.is_equal("i32", flags, str(wanted)))
        dtype = text.field("ptr", value, _DESCR)
        number = text.field("i32", dtype, _NUMBER)
        text.refuse_unless(text.is_equal("i32", number, str(np.dtype(str(ty.dtype)).num)))
        text.refuse_unless(text.is_equal("i8", text.field("i8", dtype, _BYTE_ORDER), str(ord("="))))
        store(text.field("i64", value, _DATA))
        shape = text.field("ptr", value, _SHAPE)
        for i in range(ty.ndim):
            store(text.field("i64", shape, 8 * i))
        return
    not_bool = text.new(f"icmp ne ptr {kind}, @fastdl_python_bool")
    not_array = text.new(f"icmp ne ptr {kind}, @fastdl_python_ndarray")
    text.refuse_unless(text.new(f"and i1 {not_bool}, {not_array}"))
    if isinstance(ty, types.Float):
        whole = text.is_equal("ptr", kind, "@fastdl_python_int")
        fraction = text.new(f"call i32 @PyType_IsSubtype(ptr {kind}, ptr @fastdl_python_float)")
        text.refuse_unless(text.new(f"or i1 {whole}, {text.new(f'icmp ne i32 {fraction}, 0')}"))
        number = text.new(f"bitcast double {_float(text, value, whole)} to i64")
    else:
        number = text.new(f"call i64 @PyLong_AsLongLong(ptr {value})")
    error = text.new("call ptr @PyErr_Occurred()")
    text.refuse_unless(text.is_equal("ptr", error, "null"))
    store(number)


def _float(text: _Text, value: str, is_whole: str) -> str:
    """A float as it is, and a whole number of 64 bits as one."""
    text.count += 1
    mark = text.count
    text.do(f"br i1 {is_whole}, label %whole{mark}, label %fraction{mark}")
    text.lines.append(f"whole{mark}:")
    whole = text.new(f"sitofp i64 {text.new(f'call i64 @PyLong_AsLongLong(ptr {value})')} to double")
    text.do(f"br label %number{mark}")
    text.lines.append(f"fraction{mark}:")
    fraction = text.new(f"call double @PyFloat_AsDouble(ptr {value})")
    text.do(f"br label %number{mark}")
    text.lines.append(f"number{mark}:")
    return text.new(f"phi double [ {whole}, %whole{mark} ], [ {fraction}, %fraction{mark} ]")


def _result(ty: types.Type) -> str:
    """What is returned to Python."""
    text = _Text()

    def convert(member: types.Type, i: int) -> str:
        word = text.new(f"load i64, ptr {text.new(f'getelementptr i64, ptr %words, i64 {i}')}")
        if isinstance(member, types.Float):
            return text.new(f"call ptr @PyFloat_FromDouble(double {text.new(f'bitcast i64 {word} to double')})")
        function = "PyBool_FromLong" if isinstance(member, types.Boolean) else "PyLong_FromLongLong"
        return text.new(f"call ptr @{function}(i64 {word})")

    text.count = 1_000_000  # names of its own
    if isinstance(ty, types.NoneType):
        text.do("call void @Py_IncRef(ptr @fastdl_python_None)")
        text.do("ret ptr @fastdl_python_None")
    elif isinstance(ty, types.BaseTuple):
        result = text.new(f"call ptr @PyTuple_New(i64 {len(ty)})")
        for i, member in enumerate(ty.types):
            text.new(f"call i32 @PyTuple_SetItem(ptr {result}, i64 {i}, ptr {convert(member, i)})")
        text.do(f"ret ptr {result}")
    else:
        text.do(f"ret ptr {convert(ty, 0)}")
    return "\n".join(text.lines)


class _Method(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)
    )  # fmt: skip


def callable_at(address: int, name: str) -> Callable[..., Any]:
    """The wrapper at an address as a function of Python's.

    The function is a method of its own description: Python looks at that when it lets go of the function, at the very end too.
    """
    method = _Method(name.encode(), address, _FASTCALL, None)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    return make(ctypes.addressof(method), method, None)
