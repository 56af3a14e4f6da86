"""What the tests of exports share: random models of every kind, and what runs the files that they are written to."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np

import fastdl
from fastdl.activations import ACTIVATIONS, Activation
from fastdl.files.exports import EXPORTS

OUTPUTS = {  # name: (output unit, number of outputs, loss, classes)
    "softmax3": ("softmax", 3, None, ["red", "blue", "grün"]),
    "softmax2": ("softmax", 2, None, None),
    "sigmoid1": ("sigmoid", 1, None, [False, True]),
    "sigmoid3": ("sigmoid", 3, None, None),
    "linear1": ("linear", 1, None, None),
    "linear2": ("linear", 2, fastdl.Huber(1.0), None),
    "poisson1": ("linear", 1, "poisson", None),
    "quantiles": ("linear", 3, fastdl.Quantile((0.1, 0.5, 0.9)), None),
}
N_NETWORKS = 20


def random_network(seed, dtype="float32"):
    """(model, X): network `seed` of `N_NETWORKS`, which together have every activation and every output at least once."""
    rng = np.random.default_rng(seed)
    names = list(ACTIVATIONS)
    kind = list(OUTPUTS)[seed % len(OUTPUTS)]
    output, n_outputs, loss, classes = OUTPUTS[kind]
    depth = 1 + seed % 3
    units = [names[(seed + 3 * i) % len(names)] for i in range(depth)]
    units = [Activation(name, 0.3 if Activation(name).spec.alpha else None) for name in units]
    layers = [int(n) for n in rng.integers(1, 40, depth + 1)] + [n_outputs]
    columns = sorted(rng.choice(layers[0], 1 + layers[0] // 2, replace=False).tolist())
    columns = columns if seed % 5 else None
    embedding = [None, fastdl.PBLD(3 + seed % 2, 5, 0.3, columns), None][seed % 3]
    embedding = {5: fastdl.Periodic(2, 5, 0.3, columns), 8: fastdl.PiecewiseLinear(3, 4, columns)}.get(
        seed % 15, embedding
    )
    codes = [c for c in range(layers[0]) if embedding is None or (embedding.columns and c not in embedding.columns)][:2]
    categories = (
        fastdl.CategoryEmbedding({c: 4 + c for c in codes}, 3) if codes and (seed % 4 == 2 or seed == 4) else None
    )
    units = [unit.made_parametric() if (seed + i) % 4 == 3 else unit for i, unit in enumerate(units)]
    model = fastdl.MLP(
        layers,
        units,
        output,
        seed=seed,
        dtype=dtype,
        loss=loss,
        embedding=embedding,
        scale_inputs=seed % 4 == 1,
        categories=categories,
    )
    if model.scale_inputs:
        model.input_stage.scale[:] = rng.normal(size=model.input_stage.scale.size)
    for alphas in model.unit_alphas:
        alphas[:] = rng.uniform(-0.5, 1.5, alphas.size)
    for bias in model.biases:
        bias[:] = 0.3 * rng.normal(size=bias.size)
    model.classes = classes
    X = rng.normal(size=(50, layers[0])) * rng.uniform(0.1, 3, layers[0]) + rng.normal(size=layers[0])
    if categories is not None:  # some are no codes
        X[:, codes] = rng.integers(-1, 12, (50, len(codes))) + 0.5 * (rng.random((50, len(codes))) < 0.1)
    if seed % 2 or (categories is not None and seed % 8 == 2):
        y = 1e4 * rng.normal(size=(50, n_outputs)) + 1e5 if output == "linear" and loss != "poisson" else None
        model.standardize(X, y, robust=seed % 3 == 0, clip=None if categories is None else 2.0)
    return model, X.astype(dtype)


def expected(model, X):
    """(labels or numbers, probabilities or None) that the files should give."""
    found = model.predict(X)
    if model.output == "linear":
        return found, None
    chances = model.predict_proba(X)
    if model.layers[-1] == 1:
        chances = np.hstack([1 - chances, chances])
    elif model.output == "sigmoid":
        return found, chances
    classes = np.arange(chances.shape[1]) if model.classes is None else np.array(model.classes)
    return classes[found], chances


def load_module(path):
    """The module in a file, as `import` would load it."""
    spec = importlib.util.spec_from_file_location(f"written_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_onnx(path, inputs):
    """All outputs of a file by their names, from onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def covered():
    """(activations, outputs) of the random networks."""
    models = [random_network(seed)[0] for seed in range(N_NETWORKS)]
    units = set(itertools.chain.from_iterable((a.name for a in model.activations) for model in models))
    return units, {list(OUTPUTS)[seed % len(OUTPUTS)] for seed in range(N_NETWORKS)}


assert set(EXPORTS) == {".onnx", ".safetensors", ".py"}
