"""The multi-layer perceptron: its shape, its one flat parameter buffer, and prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, described, embeddings, frames, initialisation, inputs, network, precision, sparse, stored
from fastdl.activations import Activation, ActivationLike, resolve
from fastdl.embeddings import PBLD
from fastdl.engine import Engine
from fastdl.errors import InputError
from fastdl.exporting import Exports
from fastdl.files import native
from fastdl.inputs import PLAIN
from fastdl.losses import OUTPUTS, Loss, LossLike
from fastdl.losses import resolve as resolve_loss
from fastdl.network import Architecture, StageViews, Unit
from fastdl.scaling import Scaling
from fastdl.sparse import SparseRows
from fastdl.stored import Inputs, StoredRows
from fastdl.suggest import did_you_mean

DTYPES = ("float32", "float64")
MODEL_FILE = "model.fastdl"
"""The name of a model file in the folder of a run."""
# What a model is made of: changing it would not change the parameters and the compiled plan that go with it.
_VIEWS = ("weights", "biases", "input_stage")
_FIXED = ("layers", "activations", "output", "loss", "dtype", "seed", "embedding", "scale_inputs", *_VIEWS)
_LISTS = ("feature_names", "target_names", "classes")


class MLP(Exports):
    """A multi-layer perceptron: a[l] = act(a[l-1] @ weights[l] + biases[l]), and an output unit behind the last layer.

    Parameters
    ----------
    layers : sizes of all layers, inputs first and outputs last: [64, 128, 10]; [64, 10] is a linear model
    activation : a name ("relu", "leaky_relu", "sigmoid", "tanh", "identity", "elu", "selu", "softplus", "gelu", "silu",
        "mish") or an instance, `LeakyReLU(alpha)` or `ELU(alpha)`, for all hidden layers, or a list with one per hidden layer
    output : "linear" (regression), "sigmoid" (one binary label, or several independent ones), "softmax" (classes)
    seed : of the initial weights
    dtype : "float32" or "float64", of parameters and arithmetic
    init : "auto" (He for the ReLU family, LeCun for SELU, Glorot otherwise), "he", "lecun", "glorot", or the deviation of
        normal weights
    loss : what the outputs are trained for: None is the default of the output unit; or a name ("absolute_error", "poisson", ...)
        or an instance such as `fastdl.Huber(1.0)`, `fastdl.Quantile(0.9)`, `fastdl.CrossEntropy(label_smoothing=0.1)`. With
        "poisson" raw outputs are log rates, targets counts of 0 or more, and `predict` gives rates
    embedding : `fastdl.PBLD()` embeds the inputs before the first layer, which then has more of them
    scale_inputs : multiply each input of the first layer by a learnt scale, which starts as 1

    Attributes
    ----------
    parameters : the one flat buffer [P]: weights[0] row by row, biases[0], weights[1], ..., and what the input stage learns
    weights, biases : tuples of views of it, (in, out) and (out,)
    input_stage : views of what embedding and scale learn (see `fastdl.network.StageViews`); None without both
    scaling : the standardisation that is applied to every X (and to regression targets), or None; see `standardize`
    feature_names, target_names, classes : names that travel with the model file, or None
    precision : of predictions of 32 rows or more, "float32" or "bf16" (see `fastdl.precision.check`); settable, and not saved
    metadata : what travels with the model file besides: a dictionary of plain JSON values

    Raises
    ------
    InputError : a size, name or number is not as above
    """

    parameters: NDArray[Any]
    weights: tuple[NDArray[Any], ...]
    biases: tuple[NDArray[Any], ...]
    input_stage: StageViews | None
    embedding: PBLD | None = None
    scale_inputs: bool = False
    precision: str = "float32"
    engine: Engine

    def __init__(
        self,
        layers: Sequence[int],
        activation: ActivationLike | Sequence[ActivationLike] = "relu",
        output: str = "softmax",
        seed: int = 0,
        dtype: str = "float32",
        init: str | float = "auto",
        loss: LossLike | None = None,
        embedding: PBLD | None = None,
        scale_inputs: bool = False,
    ) -> None:
        if isinstance(layers, str) or not isinstance(layers, (Sequence, np.ndarray)) or len(layers) < 2:
            raise InputError(
                f"layers: expected at least the sizes of inputs and outputs, such as [64, 128, 10], got {layers!r}"
            )
        self.layers = tuple(checks.count(n, f"layers[{i}]", 1, "a layer's size") for i, n in enumerate(layers))
        if not isinstance(output, str) or output not in OUTPUTS:
            raise InputError(
                f"output: expected one of {', '.join(OUTPUTS)}, got {output!r}{did_you_mean(output, OUTPUTS)}"
            )
        if output == "softmax" and self.layers[-1] < 2:
            raise InputError(
                "output: softmax needs at least 2 outputs, got 1; use output='sigmoid' for one binary label"
            )
        if dtype not in DTYPES:
            raise InputError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        self.dtype = np.dtype(dtype)
        self.activations: tuple[Activation, ...] = tuple(resolve(activation, len(self.layers) - 2))
        self.output = output
        self.loss: Loss = resolve_loss(loss, output, self.layers[-1])
        self.seed = checks.count(seed, "seed", 0, "the seed of the initial weights")
        embeddings.stage_of(embedding, scale_inputs, self.layers[0])
        self.embedding, self.scale_inputs = embedding, bool(scale_inputs)
        self.scaling: Scaling | None = None
        self.feature_names: list[str] | None = None
        self.target_names: list[str] | None = None
        self.classes: list[Any] | None = None
        self.metadata: dict[str, Any] = {}

        self._allocate()
        rng = np.random.default_rng(self.seed)
        usual = [*(a.init for a in self.activations), "glorot"]
        for weight, scheme in zip(self.weights, usual):
            initialisation.fill(weight, rng, initialisation.deviation(init, len(weight), weight.shape[1], scheme))
        if self.input_stage is not None:
            self.input_stage.scale[:] = 1
            if embedding is not None:
                embedding.fill(self.input_stage, rng)

    def _allocate(self, values: NDArray | None = None) -> None:
        """The flat buffer, in memory of the model's own, with `values` or zeros; its views, and the engine on it."""
        architecture = self.architecture
        self.__dict__["parameters"] = network.aligned_zeros(architecture.n_parameters, self.dtype)
        if values is not None:
            self.parameters[:] = values
        self.weights, self.biases = self.views(self.parameters)
        self.input_stage = architecture.stage_views(self.parameters)
        # A view of the engine's own: predictions go on if the user makes the parameters read-only.
        self.engine = Engine(architecture, self.parameters[:], stored.refuse)
        self.engine.arithmetic = precision.arithmetic_of(self.precision)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "parameters":
            array = np.asarray(value)
            if array.shape != self.parameters.shape:
                raise InputError(
                    f"parameters: expected {self.n_parameters} numbers of shape {self.parameters.shape}, "
                    f"got shape {array.shape}"
                )
            self.parameters[:] = array  # the buffer stays: weights, biases and the engine are views of it
            return
        if name in _FIXED and "engine" in vars(self):
            mend = f"assign to its elements: model.{name}[0][:] = ..." if name in _VIEWS[:2] else "make a new MLP"
            raise InputError(f"{name}: expected a model to keep what it is made of, got a new value; {mend}")
        if name == "precision":
            value = precision.check(value, self.dtype)
            self.engine.arithmetic = precision.arithmetic_of(value)
        if name in _LISTS and value is not None:
            value = np.asarray(value).tolist() if isinstance(value, np.ndarray) else list(value)
        object.__setattr__(self, name, value)

    @property
    def architecture(self) -> Architecture:
        """What the engine must know of the model besides its parameters."""
        units = tuple(Unit(a.code, a.alpha or 0.0) for a in self.activations)
        n_in, *others = self.layers
        stage = embeddings.stage_of(self.embedding, self.scale_inputs, n_in)
        layers = self.layers if stage is None else (n_in, stage.n_outputs(n_in), *others)
        return Architecture(layers, units, self.loss.term(others[-1]), self.dtype, stage)

    @property
    def n_parameters(self) -> int:
        """How many numbers the model learns."""
        return self.parameters.size

    def views(self, flat: NDArray) -> tuple[tuple[NDArray, ...], tuple[NDArray, ...]]:
        """Weights (in, out) and biases (out,) of each layer as views of a buffer laid out like `parameters`."""
        return network.views(self.architecture.dense, flat)

    def check_writable(self) -> None:
        """Raise InputError if the parameters cannot be trained in place."""
        if not self.parameters.flags.writeable:
            raise InputError(
                "model.parameters: expected memory that may be written to, got a read-only array; "
                "set model.parameters.flags.writeable = True, or train copy.deepcopy(model)"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy holds: views and compiled plans are made anew."""
        return {name: value for name, value in vars(self).items() if name not in (*_VIEWS, "engine")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Parameters are copied into memory of the model's own: what comes may be a file, or another's buffer."""
        parameters = state["parameters"]
        vars(self).update({name: value for name, value in state.items() if name != "parameters"})
        self._allocate(parameters)

    def standardize(
        self, X: ArrayLike, y: ArrayLike | None = None, robust: bool = False, clip: float | None = None
    ) -> MLP:
        """Carry the statistics of X (and of a regression's targets y): from now on every X is standardised with them.

        X is an array, which is gone through block by block, a list of arrays, whose rows follow each other, or a frame. `predict`
        returns regression targets in the units of y. With `robust`, features are centred by their medians and scaled by the
        distance of their quartiles, so that a few values far out do not squeeze the others; `clip` brings those smoothly nearer
        than that (see `fastdl.scaling.Scaling`). Returns the model itself.
        """
        if sparse.is_sparse(X):
            raise InputError(
                f"X: expected a dense array, got a sparse {type(X).__name__}, which centring would make dense; scale it with "
                f"sklearn.preprocessing.MaxAbsScaler, or leave standardize out"
            )
        rows = stored.parts_of(X, self.layers[0])
        if rows is None:
            rows = [checks.table(frames.in_order(X, self.feature_names), self.layers[0], keep_half=True)]
        stored.check_finite(rows)
        if sum(map(len, rows)) == 0:
            raise InputError("X: expected at least one row to take the statistics of, got an empty array")
        if y is not None:
            if self.output != "linear":
                raise InputError(f"y: only the targets of a regression are standardised, and output is {self.output!r}")
            if self.loss.is_log_link:
                raise InputError(
                    "y: expected no targets to standardise with loss='poisson', whose outputs are e^z; leave y out"
                )
            y = self._numbers(stored.targets_of(X, y), sum(map(len, rows)), "y")
        clip = None if clip is None else checks.positive(clip, "clip", "how far features get at the most")
        self.scaling = replace(Scaling.robust(rows, y) if robust else Scaling.of(rows, y), clip=clip)
        self.note_names(X)
        return self

    def note_names(self, X: ArrayLike) -> None:
        """Remember the names of a frame's columns, unless the model has names already."""
        if self.feature_names is None and not isinstance(X, (np.ndarray, list, tuple)):
            self.feature_names = frames.names_of(X)

    def prepare_inputs(self, X: Any, name: str = "X") -> Inputs:
        """X checked, as the engine takes it; what is not small stays where it is, and is standardised when it is read."""
        rows, name = self._inputs(X, name)
        if isinstance(rows, StoredRows):
            self.engine.check_finite(rows, name)
        elif not isinstance(rows, SparseRows):
            checks.finite(rows, name)
        return rows

    def _inputs(self, X: Any, name: str = "X") -> tuple[Inputs, str]:
        """The same, before a last look for numbers that are not finite, and what to call it then."""
        staged = self.embedding is not None or self.scale_inputs
        form = inputs.Form(self.layers[0], self.dtype, self.scaling, self.feature_names, staged)
        return inputs.taken(X, form, name)

    def prepare_targets(self, y: ArrayLike, n_rows: int, name: str = "y") -> NDArray[Any]:
        """y checked and as the loss takes it: int64 [N] for softmax (one-hot rows too), else [N, O] in the model's dtype."""
        if self.output == "softmax":
            return np.require(checks.labels(y, n_rows, self.layers[-1], name), np.int64, PLAIN)
        array = self._numbers(y, n_rows, name)
        if self.loss.is_log_link and (array < 0).any():
            raise InputError(f"{name}: expected counts of 0 or more with loss='poisson', got {array.min():g}")
        if self.scaling is not None:
            array = self.scaling.targets(array, self.dtype)
        with np.errstate(over="ignore"):
            array = np.require(array, self.dtype, PLAIN)
        return checks.finite(array, f"{name} as {self.dtype}")

    def _numbers(self, y: ArrayLike, n_rows: int, name: str) -> NDArray[Any]:
        """y as numbers [N, O]; one target stands for several quantiles of it."""
        n_outputs = self.layers[-1]
        if isinstance(self.loss.parameter, tuple) and (np.ndim(y) == 1 or np.shape(y)[1:] == (1,)):
            column = checks.targets(y, n_rows, 1, False, name)
            return np.repeat(column, n_outputs, axis=1)
        return checks.targets(y, n_rows, n_outputs, self.output == "sigmoid", name)

    def forward(self, X: ArrayLike) -> NDArray[np.floating]:
        """The raw outputs [N, O], before the output unit (and before a regression's targets get their units back)."""
        rows, name = self._inputs(X)
        return self.engine.forward(rows, name=name)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Probabilities [N, O]: of each class (rows sum to 1) for softmax, of each label for sigmoid."""
        if self.output == "linear":
            raise InputError(
                "predict_proba: expected a model with softmax or sigmoid output, got 'linear'; use predict"
            )
        return self.engine.probabilities(self.forward(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class [N] as int64 for softmax; labels 0 or 1 for sigmoid, values for linear output.

        The last two have shape [N] for one output and [N, O] for several.
        """
        if self.output == "softmax":
            return self.engine.classes(*self._inputs(X))
        return self.decode(self.forward(X))

    def decode(self, raw: NDArray[np.floating]) -> NDArray[Any]:
        """What `predict` makes of the raw outputs [N, O] that `forward` gives.

        Standardised targets get their units back in float64: in float32 a target of 1.7e9 would be rounded to whole hundreds.
        """
        if self.output == "softmax":
            return raw.argmax(axis=1)
        if self.output == "sigmoid":
            predictions: NDArray[Any] = (raw > 0).astype(np.int64)
        else:
            predictions = np.exp(raw) if self.loss.is_log_link else raw
            predictions = predictions if self.scaling is None else self.scaling.untargets(predictions)
        return predictions[:, 0] if self.layers[-1] == 1 else predictions

    def loss_and_gradient(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, l2: float = 0.0
    ) -> tuple[float, NDArray[np.floating]]:
        """Mean loss over the rows, plus (l2/2) Σ w² over weights, and its gradient laid out like `parameters`.

        With `sample_weight` w the mean is Σ w loss / Σ w.
        """
        l2 = checks.number(l2, "l2", 0, "the weight of the L2 penalty")
        rows = self.prepare_inputs(X)
        if len(rows) == 0:
            raise InputError("X: expected at least one row, got an empty array")
        targets = self.prepare_targets(stored.targets_of(X, y), len(rows))
        weight = None if sample_weight is None else checks.weights(sample_weight, len(rows))
        return self.engine.loss_and_gradient(rows, targets, weight, l2)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file that `fastdl.load` reads; an existing file is replaced only when all is written."""
        native.write(path, self._description(), self.parameters)

    def _description(self) -> dict[str, Any]:
        """All but the parameters, as plain JSON values: what a model file holds beside them."""
        return {
            "layers": list(self.layers),
            "activations": [{"name": a.name, "alpha": a.alpha} for a in self.activations],
            "output": self.output,
            "loss": self.loss.to_json(),
            "dtype": self.dtype.name,
            "seed": self.seed,
            "scaling": None if self.scaling is None else self.scaling.to_json(),
            "feature_names": self.feature_names,
            "target_names": self.target_names,
            "classes": self.classes,
            "metadata": self.metadata,
            **({"embedding": self.embedding.to_json()} if self.embedding is not None else {}),
            **({"scale_inputs": True} if self.scale_inputs else {}),
        }

    @classmethod
    def _of_description(cls, description: dict[str, Any], parameters: NDArray) -> MLP:
        """The model that `_description` described."""
        layers = [checks.count(n, "layers", 1, "a layer's size") for n in description["layers"]]
        embedding = embeddings.from_json(description.get("embedding"))
        scale_inputs = description.get("scale_inputs", False)
        n = described.count(layers, embedding, scale_inputs) if len(layers) > 1 else -1
        if n != parameters.size:  # before memory is taken
            raise InputError(f"expected the parameters of {layers[:9]}, got {parameters.size} numbers")
        units = [Activation(a["name"], a["alpha"]) for a in description["activations"]]
        told = description.get("loss")  # version 1 has none: each output unit had one
        loss = None
        if told is not None:
            number = told["parameter"]
            loss = Loss(told["name"], tuple(number) if isinstance(number, list) else number)
        model = cls(
            layers, units, description["output"], description["seed"], description["dtype"], loss=loss,
            embedding=embedding, scale_inputs=scale_inputs,
        )  # fmt: skip
        if parameters.shape != model.parameters.shape or parameters.dtype != model.dtype:
            raise InputError(
                f"expected {model.n_parameters} parameters of {model.dtype}, "
                f"got {parameters.dtype} of shape {parameters.shape}"
            )
        model.parameters[:] = parameters
        model.scaling = Scaling.from_json(description["scaling"])
        described.check(model.layers, model.scaling, description)
        model.feature_names = description["feature_names"]
        model.target_names = description["target_names"]
        model.classes = description["classes"]
        model.metadata = description["metadata"]
        return model

    def _repr_html_(self) -> str:
        """What a notebook shows: the layers, and what goes in and comes out."""
        return described.as_html(self)

    def __repr__(self) -> str:
        names = [a.name for a in self.activations]
        activation = f", activation={names[0] if len(set(names)) == 1 else names!r}" if names else ""
        return f"MLP({list(self.layers)}{activation}, output={self.output!r}, dtype={self.dtype.name!r})"
