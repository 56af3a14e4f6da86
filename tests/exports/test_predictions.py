"""ONNX files, NumPy modules and PyTorch modules predict what the model predicts: every activation, output, scaling and label."""

from __future__ import annotations

import ast
import sys

import numpy as np
import pytest
from checking import DTYPES
from exporting import N_NETWORKS, OUTPUTS, covered, expected, load_module, random_network, run_onnx

import fastdl
from fastdl.activations import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("one_thread")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def close(actual, wanted, dtype="float32", tolerance=None):
    """Within 1e-5 of the larger of each number and a tenth of the largest one (1e-12 in float64)."""
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.shape == wanted.shape
    scale = np.maximum(np.abs(wanted), 0.1 * np.abs(wanted).max())
    error = np.abs(actual - wanted) / scale
    assert error.max() <= (tolerance or TOLERANCE[dtype])


def test_the_networks_have_every_activation_and_output():
    units, outputs = covered()
    assert units == set(ACTIVATIONS)
    assert outputs == set(OUTPUTS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(N_NETWORKS))
def test_numpy_module(tmp_path, seed, dtype):
    model, X = random_network(seed, dtype)
    model.export(tmp_path / "m.py")
    module = load_module(tmp_path / "m.py")
    labels, chances = expected(model, X)
    close(module.raw_outputs(X), model.forward(X), dtype)
    if chances is None:
        close(module.predict(X), labels, dtype)
        assert not hasattr(module, "predict_proba")
    else:
        np.testing.assert_array_equal(module.predict(X), labels)
        assert module.predict(X).dtype == labels.dtype
        close(module.predict_proba(X), chances, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(N_NETWORKS))
def test_onnx(tmp_path, seed, dtype):
    model, X = random_network(seed, dtype)
    model.export(tmp_path / "m.onnx")
    found = run_onnx(tmp_path / "m.onnx", {"X": X})
    labels, chances = expected(model, X)
    # onnxruntime has the error function in float32 alone.
    tolerance = 1e-6 if dtype == "float64" and "gelu" in {a.name for a in model.activations} else None
    if chances is None:
        assert list(found) == ["prediction"]
        close(found["prediction"], labels, dtype, tolerance)
        assert found["prediction"].dtype == labels.dtype
    else:
        assert list(found) == ["label", "probabilities"]
        assert found["label"].tolist() == labels.tolist()
        close(found["probabilities"], chances, dtype, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(N_NETWORKS))
def test_torch(seed, dtype):
    torch = pytest.importorskip("torch")
    model, X = random_network(seed, dtype)
    with torch.no_grad():
        close(
            model.to_torch()(torch.from_numpy(X)).numpy(), model.forward(X), dtype, 1e-8 if dtype == "float64" else None
        )


# --- the written module as a file ---


def imported(path):
    return {
        alias.name.split(".")[0] if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }


@pytest.mark.parametrize("seed", range(N_NETWORKS))
def test_the_numpy_module_needs_numpy_alone_and_holds_what_it_uses(tmp_path, seed):
    model, _ = random_network(seed)
    model.export(tmp_path / "m.py")
    assert imported(tmp_path / "m.py") - sys.stdlib_module_names == {"numpy"}
    tree = ast.parse((tmp_path / "m.py").read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert defined - used <= {"predict", "predict_proba"}
    assert max(map(len, (tmp_path / "m.py").read_text(encoding="utf-8").splitlines())) <= 130


def test_the_numpy_module_refuses_what_it_cannot_use(tmp_path):
    model = fastdl.MLP([3, 2])
    model.export(tmp_path / "m.py")
    module = load_module(tmp_path / "m.py")
    with pytest.raises(ValueError, match="expected a table of 3 columns, got an array of shape"):
        module.predict(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="expected finite numbers"):
        module.predict([[1.0, np.nan, 2.0]])
    assert module.predict(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize(
    "classes",
    [["cat", 'say "hi"\n', "Übel"], [3, 5, 7], [0.5, 1.5, 2.5], [-(2**62), 0, 2**62], ['"""', "\\", "'"]],
    ids=repr,
)  # fmt: skip
def test_labels_of_any_kind(tmp_path, classes):
    model = fastdl.MLP([2, 3])
    model.classes = classes
    X = np.random.default_rng(0).normal(size=(30, 2)).astype("float32")
    wanted = np.array(classes)[model.predict(X)]
    assert len(set(wanted.tolist())) > 1
    for name in ("m.py", "m.onnx"):
        model.export(tmp_path / name)
    found = load_module(tmp_path / "m.py").predict(X)
    assert found.dtype == wanted.dtype
    assert found.tolist() == wanted.tolist()
    assert run_onnx(tmp_path / "m.onnx", {"X": X})["label"].tolist() == wanted.tolist()


def test_mixed_labels(tmp_path):
    model = fastdl.MLP([2, 3])
    model.classes = [True, 1.5, "x"]
    model.export(tmp_path / "m.py")
    found = load_module(tmp_path / "m.py").predict(np.random.default_rng(0).normal(size=(30, 2)))
    assert {type(label) for label in found.tolist()} <= {bool, float, str}
    with pytest.raises(fastdl.InputError, match=r"ONNX: expected classes of one type .* got bool, float, str"):
        model.export(tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_large_offset_keeps_its_digits(tmp_path, rng):
    """Seconds since 1970 in float64 models; in float32 ones, what float32 holds of X is standardised in float64."""
    X = 1.7e9 + 1000 * rng.normal(size=(40, 2))
    model = fastdl.MLP([2, 8, 1], "tanh", "linear", dtype="float64")
    model.standardize(X, X[:, :1])
    for name in ("m.py", "m.onnx"):
        model.export(tmp_path / name)
    close(load_module(tmp_path / "m.py").predict(X), model.predict(X), "float64")
    close(run_onnx(tmp_path / "m.onnx", {"X": X})["prediction"], model.predict(X), "float64")


def test_the_onnx_file_says_what_it_is(tmp_path):
    onnx = pytest.importorskip("onnx")
    model, _ = random_network(0)
    model.feature_names = [f"größe {i}" for i in range(model.layers[0])]
    model.export(tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 17, "ai.onnx.ml": 3}
    assert [d.dim_value or d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        model.layers[0],
    ]
    assert "größe 0" in proto.metadata_props[0].value
