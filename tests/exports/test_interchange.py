"""Models to and from safetensors, PyTorch and scikit-learn."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from checking import DTYPES
from exporting import N_NETWORKS, expected, random_network
from safetensors import safe_open
from safetensors.numpy import save_file

import fastdl

pytestmark = pytest.mark.usefixtures("one_thread")


def same(a, b):
    assert a._description() == b._description()
    assert a.parameters.tobytes() == b.parameters.tobytes()


def close(actual, wanted, tolerance=1e-5):
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.shape == wanted.shape
    assert (np.abs(actual - wanted) <= tolerance * np.maximum(np.abs(wanted), 0.1 * np.abs(wanted).max())).all()


# --- safetensors ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(N_NETWORKS))
def test_safetensors_come_back_as_they_were(tmp_path, seed, dtype):
    model, X = random_network(seed, dtype)
    model.metadata = {"note": "π", "list": [1, 2.5, None]}
    path = tmp_path / ("m.safetensors" if seed else "m.SafeTensors")
    model.export(path)
    again = fastdl.load(path)
    same(model, again)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_names_and_shapes_are_those_of_a_sequential(tmp_path):
    model, _ = random_network(12)
    model.export(tmp_path / "m.safetensors")
    torch = pytest.importorskip("torch")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert json.loads(file.metadata()["fastdl"])["layers"] == list(model.layers)
    module = model.to_torch()
    module.load_state_dict(tensors)
    for i, weight in enumerate(model.weights):
        np.testing.assert_array_equal(module[2 * i].weight.detach().numpy(), weight.T)
        np.testing.assert_array_equal(module[2 * i].bias.detach().numpy(), model.biases[i])
    assert isinstance(module, torch.nn.Sequential)


def test_safetensors_that_are_none_are_refused(tmp_path):
    model, _ = random_network(1)
    path = tmp_path / "m.safetensors"
    with pytest.raises(fastdl.ModelFileError, match="found nothing there"):
        fastdl.load(path)
    model.export(path)
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 50, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(fastdl.ModelFileError, match="another kind, truncated or altered"):
            fastdl.load(path)
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(fastdl.ModelFileError, match="the checksum does not match"):
        fastdl.load(path)
    save_file({"0.weight": np.zeros((2, 3))}, path)
    with pytest.raises(fastdl.ModelFileError, match=r"without its description; .* fastdl.from_torch"):
        fastdl.load(path)
    model.save(path)  # fastdl's own format under that name
    same(fastdl.load(path), model)


# --- PyTorch ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(0, N_NETWORKS, 2))  # those without standardisation
def test_from_torch_is_the_inverse_of_to_torch(seed, dtype):
    pytest.importorskip("torch")
    model, X = random_network(seed, dtype)
    if model.input_stage is not None or any(a.parametric for a in model.activations):
        with pytest.raises(fastdl.InputError, match=r"(?s)module \d+ \((Inputs|Parametric|PReLU).*: expected Linear"):
            fastdl.from_torch(model.to_torch(), model.output)
        return
    again = fastdl.from_torch(model.to_torch(), model.output)
    assert again.parameters.tobytes() == model.parameters.tobytes()
    assert again.activations == model.activations
    assert again.dtype == model.dtype
    np.testing.assert_array_equal(again.forward(X), model.forward(X))


def test_standardisation_is_folded_in_and_float64_keeps_digits():
    torch = pytest.importorskip("torch")
    X = 1e5 + np.random.default_rng(0).normal(size=(30, 3))
    model = fastdl.MLP([3, 5, 2], "tanh", "softmax", seed=0).standardize(X)
    module = model.to_torch(dtype="float64")
    with torch.no_grad():
        close(module(torch.from_numpy(X)).numpy(), model.forward(X), 1e-6)
    module[0].weight.data[:] = 0  # a copy
    assert model.weights[0].any()
    with pytest.raises(fastdl.InputError, match="dtype: expected 'float32' or 'float64', got 'half'"):
        model.to_torch("half")


def test_modules_of_pytorch():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Sequential(nn.Linear(4, 6, bias=False), nn.Identity(), nn.LeakyReLU(0.2), nn.Dropout(0.5)),
        nn.Linear(6, 5), nn.Linear(5, 5), nn.Sigmoid(), nn.Linear(5, 3), nn.Softmax(dim=1),
    ).eval()  # fmt: skip
    model = fastdl.from_torch(module)
    assert (model.output, [a.name for a in model.activations]) == ("softmax", ["leaky_relu", "identity", "sigmoid"])
    X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    with torch.no_grad():
        close(model.predict_proba(X), module(torch.from_numpy(X)).numpy())
    same_unit = nn.Sigmoid()
    ours = type("ReLU", (nn.Module,), {"forward": lambda self, x: -x})()
    with pytest.raises(fastdl.InputError, match=r"module 1 .* got ReLU"):
        fastdl.from_torch(nn.Sequential(nn.Linear(4, 2), ours, nn.Linear(2, 1)))
    binary = nn.Sequential(nn.Linear(4, 2), same_unit, nn.Linear(2, 1), same_unit)
    model = fastdl.from_torch(binary)
    assert (model.output, [a.name for a in model.activations]) == ("sigmoid", ["sigmoid"])
    with torch.no_grad():
        close(model.predict_proba(X), binary(torch.from_numpy(X)).numpy())
    assert fastdl.from_torch(nn.Linear(4, 3)).output == "linear"
    assert fastdl.from_torch(nn.Linear(4, 3), output="softmax").output == "softmax"


def test_modules_that_are_refused():
    nn = pytest.importorskip("torch").nn
    first = nn.Linear(4, 3)
    for parts, says in {
        (nn.ReLU(), first): "module 0 .* expected a Linear layer in front",
        (first, nn.ReLU(), nn.Tanh(), nn.Linear(3, 2)): "module 2 .* got a second one",
        (first, nn.ReLU()): "at the end, got relu",
        (first, nn.BatchNorm1d(3), nn.Linear(3, 2)): "module 1 .* got BatchNorm1d",
        (first, nn.GELU(approximate="tanh"), nn.Linear(3, 2)): "expected approximate='none'",
        (first, nn.Softplus(beta=2), nn.Linear(3, 2)): "expected beta=1",
        (first, nn.Softmax(dim=0)): "expected dim=1",
        (first, nn.Softmax(dim=1), nn.Linear(3, 2)): "expected nothing behind",
        (first, nn.Linear(2, 2)): "got 3 outputs in front of 2 inputs",
        (nn.Linear(4, 1), nn.Softmax(dim=1)): "expected at least 2 outputs",
        (nn.Dropout(0.1),): "expected at least one Linear layer",
        (first, nn.PReLU(), nn.Linear(3, 2)): "got PReLU",
    }.items():
        with pytest.raises(fastdl.InputError, match=says):
            fastdl.from_torch(nn.Sequential(*parts))
    with pytest.raises(fastdl.InputError, match="whose forward may do anything"):
        fastdl.from_torch(nn.Sequential(nn.TransformerEncoderLayer(4, 1))[0])
    with pytest.raises(fastdl.InputError, match=r"expected an nn.Sequential of PyTorch, got list"):
        fastdl.from_torch([first])
    with pytest.raises(fastdl.InputError, match=r"output: expected 'softmax', as module 1 .* says, got 'linear'"):
        fastdl.from_torch(nn.Sequential(first, nn.Softmax(dim=1)), output="linear")
    with pytest.raises(fastdl.InputError, match="did you mean 'softmax'"):
        fastdl.from_torch(first, output="softmaks")


# --- scikit-learn ---


def data(seed=0, n=60):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)) * [1, 10, 0.1, 3] + [5, 0, 1, -2], rng


TARGETS = {
    "classes": lambda X, rng: rng.choice(["b", "a", "c"], len(X)),
    "binary": lambda X, rng: rng.choice([7, 3], len(X)),
    "several labels": lambda X, rng: rng.integers(0, 2, (len(X), 3)),
    "number": lambda X, rng: 100 + X[:, 0],
    "numbers": lambda X, rng: X[:, :2],
    "counts": lambda X, rng: rng.poisson(3, len(X)).astype(float),
}


def fitted(module, kind, activation="tanh"):
    X, rng = data()
    y = TARGETS[kind](X, rng)
    settings = {"hidden_layer_sizes": (5, 4), "max_iter": 20, "random_state": 0, "activation": activation}
    is_number = kind in ("number", "numbers", "counts")
    more = {"loss": "poisson"} if kind == "counts" else {}
    estimator = (module.MLPRegressor if is_number else module.MLPClassifier)(**settings, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in so few epochs
        return estimator.fit(X, y), X


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("package", ["sklearn", "fastdl"])
def test_from_sklearn(package, kind, activation):
    neural_network = pytest.importorskip("sklearn.neural_network")
    estimator, X = fitted(neural_network if package == "sklearn" else fastdl, kind, activation)
    model = fastdl.from_sklearn(estimator)
    assert model.dtype == np.float64
    labels, chances = expected(model, X)
    wanted = estimator.predict(X)
    if chances is None:
        close(labels, wanted, 1e-12)
        return
    np.testing.assert_array_equal(labels, wanted)
    assert labels.dtype == wanted.dtype
    close(chances, estimator.predict_proba(X), 1e-12)


@pytest.mark.parametrize("kind", TARGETS)
def test_to_sklearn_is_the_inverse(kind):
    neural_network = pytest.importorskip("sklearn.neural_network")
    estimator, X = fitted(neural_network, kind)
    again = fastdl.from_sklearn(estimator).to_sklearn()
    assert type(again) is type(estimator)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    for a, b in zip([*again.coefs_, *again.intercepts_], [*estimator.coefs_, *estimator.intercepts_], strict=True):
        np.testing.assert_array_equal(a, b)
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_array_equal(again.predict_proba(X), estimator.predict_proba(X))


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("n_outputs", [1, 2, 3])
def test_to_sklearn_takes_raw_inputs(output, n_outputs):
    pytest.importorskip("sklearn")
    if output == "softmax" and n_outputs == 1:
        return
    X, rng = data()
    model = fastdl.MLP([4, 6, n_outputs], "sigmoid", output, seed=0)
    model.standardize(X, 1e4 + rng.normal(size=(len(X), n_outputs)) if output == "linear" else None)
    if output != "linear" and (output == "softmax" or n_outputs == 1):
        model.classes = ["z", "b", "a"][: max(2, n_outputs)]  # not in order, as scikit-learn's are
    estimator = model.to_sklearn()
    labels, chances = expected(model, X)
    if chances is None:
        close(estimator.predict(X), labels)
        return
    assert estimator.predict(X).tolist() == labels.tolist()
    order = [list(model.classes).index(c) for c in estimator.classes_] if model.classes else slice(None)
    close(estimator.predict_proba(X), chances[:, order])


def test_pipelines_bring_their_statistics():
    pytest.importorskip("sklearn")
    from sklearn.decomposition import PCA
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pd = pytest.importorskip("pandas")
    X, _ = data()
    frame = pd.DataFrame(X, columns=list("abcd"))
    for scaler in (StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False)):
        pipeline = make_pipeline(
            scaler, MLPRegressor(hidden_layer_sizes=(4,), max_iter=2000, tol=0.1, random_state=0)
        ).fit(frame, X[:, 0])
        model = fastdl.from_sklearn(pipeline)
        assert model.feature_names == list("abcd")
        close(model.predict(frame[["d", "c", "b", "a"]]), pipeline.predict(frame), 1e-12)
    for estimator, says in {
        PCA(): "expected an MLPClassifier or MLPRegressor .* got PCA",
        MLPRegressor(): "expected a fitted MLPRegressor",
        make_pipeline(PCA(), MLPRegressor()): "got PCA and MLPRegressor",
        make_pipeline(StandardScaler(), MLPRegressor()): "expected a fitted pipeline",
    }.items():
        with pytest.raises(fastdl.InputError, match=says):
            fastdl.from_sklearn(estimator)


def test_what_scikit_learn_has_not():
    pytest.importorskip("sklearn")
    for units, says in {("gelu", "gelu"): "got gelu", ("relu", "tanh"): "got relu, tanh"}.items():
        with pytest.raises(fastdl.InputError, match=says):
            fastdl.MLP([3, 4, 4, 2], list(units)).to_sklearn()
    model = fastdl.MLP([3, 4, 3])
    for classes, says in {(0.5, 1.5, 2.5): "takes for labels", (1, "a", 2.0): "of one type"}.items():
        model.classes = list(classes)
        with pytest.raises(fastdl.InputError, match=says):
            model.to_sklearn()
