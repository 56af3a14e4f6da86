"""ONNX graphs: a thin builder, and the activations as nodes that onnxruntime has for float32 and float64 alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastdl.activations import Activation
from fastdl.errors import MissingExtraError

OPSET, OPSET_WITH_TEXT, ML_OPSET = 17, 20, 3
"""Operators of ai.onnx 17 and ai.onnx.ml 3: onnxruntime has them since 1.12 (2022), and those that search text since 1.17."""
IR_VERSIONS = {OPSET: 8, OPSET_WITH_TEXT: 9}


def onnx() -> Any:
    """The onnx module, or one sentence on how to get it."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(
            'writing ONNX files needs onnx, which is not installed: pip install "fastdl[export]"'
        ) from error
    return onnx


class Graph:
    """Nodes in the order of their work; each method gives the name of what it makes.

    Parameters
    ----------
    taken : names that nodes must not have: those of inputs and outputs
    """

    def __init__(self, taken: set[str]) -> None:
        self._taken = set(taken)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def name(self, wanted: str) -> str:
        """A name that nothing has so far."""
        found, n = wanted, 1
        while found in self._taken:
            n += 1
            found = f"{wanted}_{n}"
        self._taken.add(found)
        return found

    def constant(self, values: Any, name: str = "constant", dtype: Any = None) -> str:
        """An array that the file holds; texts are held as UTF-8."""
        name = self.name(name)
        array = np.asarray(values, dtype)
        helper, kinds = onnx().helper, onnx().TensorProto
        if array.dtype.kind in "UO":
            texts = [str(text).encode() for text in array.ravel().tolist()]
            self.constants.append(helper.make_tensor(name, kinds.STRING, array.shape, texts))
        else:
            self.constants.append(
                onnx().numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            )
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """One node with one output, which is called `output` where that is given."""
        result = self.name(operator.lower()) if output is None else output
        domain = "ai.onnx.ml" if operator == "LabelEncoder" else ""
        self.nodes.append(onnx().helper.make_node(operator, list(inputs), [result], domain=domain, **attributes))
        return result

    def cast(self, value: str, dtype: Any, output: str | None = None) -> str:
        """The value in another dtype of NumPy."""
        return self.add("Cast", value, output=output, to=kind_of(dtype))


def kind_of(dtype: Any) -> int:
    """ONNX's number for a dtype of NumPy; texts are STRING."""
    dtype = np.dtype(dtype)
    if dtype.kind in "UO":
        return int(onnx().TensorProto.STRING)
    return int(onnx().helper.np_dtype_to_tensor_dtype(dtype))


def activate(graph: Graph, activation: Activation, z: str, dtype: np.dtype, unit_alphas: Any = None) -> str:
    """The activation of z, element by element; `unit_alphas` are the units' own numbers of a parametric one.

    float32 takes ONNX's own operator where there is one. onnxruntime has most of them for float32 alone: float64 is put together
    of others, and erf, which there is no double of, keeps float32's accuracy (GELU errs by 1e-7).
    """
    if activation.parametric:
        formula, own = _Formula(graph, dtype), graph.constant(unit_alphas, "unit_alphas")
        if activation.name == "leaky_relu":
            return formula.Add(formula.Relu(z), formula.Mul(formula.Min(z, 0.0), own))
        plain = activate(graph, Activation(activation.name, activation.alpha or None), z, dtype)
        return formula.Add(formula.Mul(plain, own), formula.Mul(z, graph.constant(1 - unit_alphas, "rest")))
    operator = _OPERATORS.get(activation.name)
    if operator is not None and (dtype == np.float32 or operator in ("Identity", "Relu", "Sigmoid", "Tanh")):
        alpha: dict[str, Any] = {"alpha": float(activation.alpha or 0.0)} if activation.spec.alpha is not None else {}
        return graph.add(operator, z, **alpha)
    return _FORMULAS[activation.name](_Formula(graph, dtype), z, float(activation.alpha or 0.0))


class _Formula:
    """Formulas as nodes: methods take names of values, or numbers."""

    def __init__(self, graph: Graph, dtype: np.dtype) -> None:
        self._graph = graph
        self.dtype = dtype

    def __getattr__(self, operator: str) -> Callable[..., str]:
        def node(*inputs: str | float) -> str:
            names = [i if isinstance(i, str) else self._graph.constant(i, dtype=self.dtype) for i in inputs]
            return self._graph.add(operator, *names)

        return node

    def exp_minus_1_below(self, z: str, depth: float) -> str:
        """depth (e^z - 1) for z < 0, and 0 elsewhere."""
        return self.Mul(self.Sub(self.Exp(self.Min(z, 0.0)), 1.0), depth)

    def softplus(self, z: str) -> str:
        """max(0, z) + log(1 + e^-|z|)."""
        return self.Add(self.Relu(z), self.Log(self.Add(self.Exp(self.Neg(self.Abs(z))), 1.0)))

    def erf(self, z: str) -> str:
        """The error function, in float32."""
        return self._graph.cast(self._graph.add("Erf", self._graph.cast(z, np.float32)), self.dtype)


_OPERATORS = {
    "identity": "Identity", "relu": "Relu", "leaky_relu": "LeakyRelu", "sigmoid": "Sigmoid", "tanh": "Tanh", "elu": "Elu",
    "selu": "Selu", "softplus": "Softplus",
}  # fmt: skip
_FORMULAS: dict[str, Callable[[_Formula, str, float], str]] = {
    "leaky_relu": lambda f, z, alpha: f.Add(f.Relu(z), f.Mul(f.Min(z, 0.0), alpha)),
    "elu": lambda f, z, alpha: f.Add(f.Relu(z), f.exp_minus_1_below(z, alpha)),
    "selu": lambda f, z, alpha: f.Mul(f.Add(f.Relu(z), f.exp_minus_1_below(z, 1.6732632423543772)), 1.0507009873554805),
    "softplus": lambda f, z, alpha: f.softplus(z),
    "gelu": lambda f, z, alpha: f.Mul(f.Mul(z, 0.5), f.Add(f.erf(f.Mul(z, math.sqrt(0.5))), 1.0)),
    "silu": lambda f, z, alpha: f.Mul(z, f.Sigmoid(z)),
    "mish": lambda f, z, alpha: f.Mul(z, f.Tanh(f.softplus(z))),
}
"""By the names of `fastdl.activations`; those that onnxruntime has for both dtypes need none."""
