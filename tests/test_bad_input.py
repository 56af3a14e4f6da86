"""What bad input gets: fastdl.InputError, in one sentence that says what was expected and what came."""

from __future__ import annotations

import numpy as np
import pytest

import fastdl

X = np.arange(24.0).reshape(6, 4) / 10
LABELS = np.array([0, 1, 0, 1, 0, 1])
NAN, INF = float("nan"), float("inf")


def mlp(layers=(4, 3, 2), *args, **options):
    return fastdl.MLP(layers, *args, **options)


def trainer(model=None, **options):
    return fastdl.Trainer(model or mlp(), **{"batch_size": 2, "epochs": 1, **options})


def fit(features=X, targets=LABELS, output="softmax", n_out=2, batch_size=2, **options):
    model = mlp((4, 3, n_out), output=output)
    return trainer(model, batch_size=batch_size).fit(features, targets, **options)


def with_value(array, value, place=(2, 1)):
    changed = np.array(array, dtype=float)
    changed[place[: changed.ndim]] = value
    return changed


CASES = [
    # --- MLP ---
    ("layers-empty", lambda: mlp([]), r"layers: expected at least the sizes of inputs and outputs"),
    ("layers-one", lambda: mlp([4]), r"layers: .* got \[4\]"),
    ("layers-number", lambda: mlp(4), r"layers: .* got 4"),
    ("layers-text", lambda: mlp("4,2"), r"layers: .* got '4,2'"),
    ("layers-none", lambda: mlp(None), r"layers: .* got None"),
    ("layers-set", lambda: mlp({4, 2}), r"layers: "),
    ("layers-zero", lambda: mlp([4, 0, 2]), r"layers\[1\]: expected .* at least 1, got 0"),
    ("layers-negative", lambda: mlp([4, 3, -2]), r"layers\[2\]: .* got -2"),
    ("layers-float", lambda: mlp([4.5, 2]), r"layers\[0\]: expected .*whole number.* got 4.5"),
    ("layers-bool", lambda: mlp([True, 2]), r"layers\[0\]: .* got True"),
    ("layers-nested", lambda: mlp([[4, 3], 2]), r"layers\[0\]: "),
    ("activation-typo", lambda: mlp(activation="rleu"), r"activation: .* got 'rleu'; did you mean 'relu'\?"),
    ("activation-case", lambda: mlp(activation="TanH"), r"did you mean 'tanh'\?"),
    ("activation-number", lambda: mlp(activation=1), r"activation: expected a name"),
    ("activation-none", lambda: mlp(activation=None), r"activation: .* got None"),
    ("activation-too-few", lambda: mlp([4, 3, 3, 2], ["relu"]), r"activation: expected one name, or 2 .* got 1"),
    ("activation-too-many", lambda: mlp([4, 2], ["relu"]), r"activation: expected one name, or 0 .* got 1"),
    ("activation-nested", lambda: mlp([4, 3, 2], [["relu"]]), r"activation: "),
    ("alpha-negative", lambda: fastdl.LeakyReLU(-0.1), r"alpha in \[0, 1\), got -0.1"),
    ("alpha-one", lambda: fastdl.LeakyReLU(1.0), r"got 1.0"),
    ("alpha-nan", lambda: fastdl.LeakyReLU(NAN), r"got nan"),
    ("alpha-text", lambda: fastdl.LeakyReLU("0.1"), r"got '0.1'"),
    ("alpha-bool", lambda: fastdl.LeakyReLU(True), r"got True"),
    ("output-typo", lambda: mlp(output="sofmax"), r"output: .* got 'sofmax'; did you mean 'softmax'\?"),
    ("output-none", lambda: mlp(output=None), r"output: .* got None"),
    ("output-list", lambda: mlp(output=["linear"]), r"output: "),
    ("softmax-of-one", lambda: mlp([4, 1]), r"softmax needs at least 2 outputs, got 1; use output='sigmoid'"),
    ("dtype-half", lambda: mlp(dtype="float16"), r"dtype: expected 'float32' or 'float64', got 'float16'"),
    ("dtype-unknown", lambda: mlp(dtype="real"), r"dtype: .* got 'real'"),
    ("dtype-int", lambda: mlp(dtype=int), r"dtype: "),
    ("dtype-none", lambda: mlp(dtype=None), r"dtype: "),
    ("dtype-byte-order", lambda: mlp(dtype=">f4" if np.little_endian else "<f4"), r"dtype: "),
    ("seed-negative", lambda: mlp(seed=-1), r"seed: .* got -1"),
    ("seed-none", lambda: mlp(seed=None), r"seed: .* got None"),
    ("seed-float", lambda: mlp(seed=1.0), r"seed: .* got 1.0"),
    ("init-typo", lambda: mlp(init="hee"), r"init: expected 'auto', 'he', 'glorot' or .* got 'hee'"),
    ("init-zero", lambda: mlp(init=0.0), r"init: .* got 0.0"),
    ("init-nan", lambda: mlp(init=NAN), r"init: .* got nan"),
    ("init-bool", lambda: mlp(init=True), r"init: .* got True"),
    # --- features ---
    ("X-nan", lambda: mlp().predict(with_value(X, NAN)), r"X: .*finite.* got nan in row 2, column 1"),
    ("X-inf", lambda: mlp().predict(with_value(X, -INF)), r"X: .*finite.* got -inf in row 2, column 1"),
    ("X-one-row", lambda: mlp().predict(X[0]), r"X: .* got \(4,\); a single row is X\[None, :\]"),
    ("X-columns", lambda: mlp().predict(X[:, :3]), r"X: expected shape \(rows, 4\), got \(6, 3\)"),
    ("X-transposed", lambda: mlp().predict(X.T), r"X: expected shape \(rows, 4\), got \(4, 6\)"),
    ("X-3d", lambda: mlp().predict(X[None]), r"X: expected shape \(rows, 4\), got \(1, 6, 4\)"),
    ("X-none", lambda: mlp().predict(None), r"X: "),
    ("X-text", lambda: mlp().predict([["a"] * 4]), r"X: .*numbers, got dtype <U1, such as 'a'; encode texts as numbers"),
    ("X-objects", lambda: mlp().predict(np.array([[1, 2, 3, "a"]], object)), r"X: expected numbers, got objects"),
    ("X-ragged", lambda: mlp().predict([[1, 2, 3, 4], [1]]), r"X: expected a rectangular array"),
    ("X-complex", lambda: mlp().predict(X * 1j), r"X: expected real numbers, got dtype complex128"),
    ("X-dates", lambda: mlp().predict(X.astype("datetime64[s]")), r"X: expected real numbers"),
    ("X-too-large", lambda: mlp().predict(X * 1e300), r"X as float32: expected finite numbers, got inf"),
    ("X-huge-integer", lambda: mlp().predict([[10**400, 1, 2, 3]]), r"X: "),
    ("fit-X-nan", lambda: fit(with_value(X, NAN)), r"X: .* got nan in row 2, column 1"),
    ("fit-X-empty", lambda: fit(X[:0], LABELS[:0]), r"X: expected at least one row .* empty"),
    ("fit-X-columns", lambda: fit(X[:, :2]), r"X: expected shape \(rows, 4\)"),
    ("gradient-empty", lambda: mlp().loss_and_gradient(X[:0], LABELS[:0]), r"X: expected at least one row"),
    # --- targets ---
    ("y-fraction", lambda: fit(targets=LABELS + 0.5), r"y: expected whole-number .* 0 to 1, got 0.5 in row 0"),
    ("y-too-large", lambda: fit(targets=LABELS * 2), r"y: expected class labels 0 to 1 .* got 2 in row 1"),
    ("y-negative", lambda: fit(targets=LABELS - 1), r"y: .* got -1 in row 0"),
    ("y-nan", lambda: fit(targets=with_value(LABELS, NAN)), r"y: .* got nan in row 2"),
    ("y-huge", lambda: fit(targets=with_value(LABELS, 1e300)), r"y: .*class labels 0 to 1.* got 1e\+300 in row 2"),
    ("y-huge-unsigned", lambda: fit(targets=np.full(6, 2**63, np.uint64)), r"y: "),
    ("y-text", lambda: fit(targets=["a"] * 6), r"y: expected real numbers"),
    ("y-short", lambda: fit(targets=LABELS[:5]), r"y: expected one entry for each of the 6 rows of X, got 5"),
    ("y-scores", lambda: fit(targets=np.eye(2)[LABELS] / 2), r"y: .*one-hot rows with a single 1, .*use y.argmax"),
    ("y-two-ones", lambda: fit(targets=np.ones((6, 2))), r"y: .*one-hot rows with a single 1"),
    ("y-wide", lambda: fit(targets=np.ones((6, 3))), r"y: expected shape \(rows,\), got \(6, 3\)"),
    ("y-none", lambda: fit(targets=None), r"y: "),
    ("y-label-2", lambda: fit(targets=LABELS * 2, output="sigmoid", n_out=1), r"y: expected labels in 0 .. 1 .* got 2"),
    ("y-label-shape", lambda: fit(output="sigmoid", n_out=3), r"y: expected shape \(rows, 3\).*got \(6,\)"),
    ("y-target-shape", lambda: fit(targets=X, output="linear"), r"y: expected shape \(rows, 2\).*got \(6, 4\)"),
    ("y-target-rows", lambda: fit(targets=X[:4, :2], output="linear"), r"y: .*each of the 6 rows of X, got 4"),
    ("y-target-inf", lambda: fit(targets=with_value(X, INF)[:, :2], output="linear"), r"y: .* inf in row 2, column 1"),
    ("y-target-size", lambda: fit(targets=X[:, :2] * 1e300, output="linear"), r"y as float32: expected finite"),
    # --- weights ---
    ("weight-negative", lambda: fit(sample_weight=-X[:, 0]), r"sample_weight: .* 0 or more, got -0.4 in row 1"),
    ("weight-zero", lambda: fit(sample_weight=np.zeros(6)), r"sample_weight: expected at least one weight above 0"),
    ("weight-nan", lambda: fit(sample_weight=with_value(LABELS, NAN)), r"sample_weight: .* got nan in row 2"),
    ("weight-short", lambda: fit(sample_weight=[1, 2]), r"sample_weight: .*each of the 6 rows of X, got 2"),
    ("weight-2d", lambda: fit(sample_weight=np.ones((6, 2))), r"sample_weight: expected shape \(rows,\)"),
    # --- validation data ---
    ("validation-no-pair", lambda: fit(validation_data=X), r"validation_data: expected a pair \(X, y\)"),
    ("validation-four", lambda: fit(validation_data=(X, LABELS, LABELS, 1)), r"validation_data: expected a pair .* got 4"),
    ("validation-weights", lambda: fit(validation_data=(X, LABELS, -X[:, 0])), r"validation weights: .*0 or more"),
    ("validation-empty", lambda: fit(validation_data=(X[:0], LABELS[:0])), r"validation X: expected at least one row"),
    ("validation-nan", lambda: fit(validation_data=(with_value(X, NAN), LABELS)), r"validation X: .* got nan"),
    ("validation-labels", lambda: fit(validation_data=(X, LABELS * 5)), r"validation y: .* got 5 in row 1"),
    # --- Trainer ---
    ("trainer-model", lambda: fastdl.Trainer([4, 2]), r"model: expected a fastdl.MLP, got list"),
    ("optimizer-name", lambda: trainer(optimizer="adam"), r"optimizer: expected an instance such as fastdl.Adam"),
    ("optimizer-class", lambda: trainer(optimizer=fastdl.Adam), r"optimizer: expected an instance"),
    ("batch-zero", lambda: trainer(batch_size=0), r"batch_size: .* at least 1, got 0"),
    ("batch-float", lambda: trainer(batch_size=2.5), r"batch_size: .* got 2.5"),
    ("batch-over", lambda: fit(batch_size=7), r"batch_size: expected at most the 6 rows .* got 7; pass"),
    ("epochs-zero", lambda: trainer(epochs=0), r"epochs: .* at least 1, got 0"),
    ("epochs-text", lambda: trainer(epochs="10"), r"epochs: .* got '10'"),
    ("l2-negative", lambda: trainer(l2=-1e-3), r"l2: .* 0 or more, got -0.001"),
    ("l2-nan", lambda: trainer(l2=NAN), r"l2: .* got nan"),
    ("l2-text", lambda: trainer(l2="0"), r"l2: .* got '0'"),
    ("l2-bool", lambda: trainer(l2=True), r"l2: .* got True"),
    ("trainer-seed", lambda: trainer(seed=-1), r"seed: .* got -1"),
    ("threads-zero", lambda: trainer(n_threads=0), r"n_threads: .* got 0"),
    ("threads-text", lambda: trainer(n_threads="all"), r"n_threads: .* got 'all'"),
    ("callbacks-one", lambda: trainer(callbacks=object()), r"callbacks: "),
    ("gradient-l2-negative", lambda: mlp().loss_and_gradient(X, LABELS, l2=-1.0), r"l2: .* got -1.0"),
    ("gradient-l2-nan", lambda: mlp().loss_and_gradient(X, LABELS, l2=NAN), r"l2: .* got nan"),
    # --- the rest of the model ---
    ("proba-linear", lambda: mlp(output="linear").predict_proba(X), r"predict_proba: .*softmax or.*use predict"),
    ("standardize-empty", lambda: mlp().standardize(X[:0]), r"X: expected at least one row"),
    ("standardize-nan", lambda: mlp().standardize(with_value(X, NAN)), r"X: .* got nan"),
    ("standardize-labels", lambda: mlp().standardize(X, LABELS), r"y: only the targets of a regression"),
    ("standardize-rows", lambda: mlp(output="linear").standardize(X, X[:3, :2]), r"y: .* got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input(call, message):
    with pytest.raises(fastdl.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, fastdl.ModelFileError)


def test_input_error_is_a_value_error():
    assert issubclass(fastdl.InputError, ValueError)


def test_refused_data_changes_nothing():
    """Checked before the first step: neither the parameters nor the state of the trainer move."""
    model, other = mlp(), mlp()
    training = trainer(model, epochs=2)
    for bad in (lambda: training.fit(X, LABELS * 9), lambda: training.fit(X, LABELS, validation_data=(X, LABELS * 9))):
        with pytest.raises(fastdl.InputError):
            bad()
        np.testing.assert_array_equal(model.parameters, other.parameters)
    training.fit(X, LABELS)
    trainer(other, epochs=2).fit(X, LABELS)
    np.testing.assert_array_equal(model.parameters, other.parameters)


@pytest.mark.parametrize("weight", [1e308, 1e-308, 5e-324])
def test_weights_of_any_size_will_do(weight):
    """Only their ratios count: their mean may neither overflow nor vanish."""
    models = mlp(dtype="float64"), mlp(dtype="float64")
    trainer(models[0]).fit(X, LABELS, sample_weight=np.full(6, weight))
    trainer(models[1]).fit(X, LABELS)
    np.testing.assert_allclose(models[0].parameters, models[1].parameters, rtol=1e-9)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_numpy_numbers_are_numbers(kind):
    assert fastdl.Adam(lr=kind(0.5)).lr == 0.5
    assert fastdl.LeakyReLU(kind(0.25)).alpha == 0.25
    assert trainer(l2=kind(0.5)).l2 == 0.5
    assert trainer(batch_size=np.int32(3)).batch_size == 3
    assert mlp(np.array([4, 3, 2]), init=kind(0.5), seed=np.int64(1)).layers == (4, 3, 2)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.ma.masked_array(X, X > 1), r"X: expected numbers, got masked cells; fill them first"),
        (None, "X: expected an array of numbers, got None"),
        (np.array([["1.5"] * 4]), r"X: expected real numbers, got dtype <U3, such as '1.5'; encode texts"),
    ],
)
def test_containers_that_are_no_plain_arrays(X, words):
    for call in (lambda: mlp().predict(X), lambda: mlp().standardize(X), lambda: fit(X)):
        with pytest.raises(fastdl.InputError, match=words):
            call()


def test_a_masked_array_without_masked_cells_is_an_array():
    np.testing.assert_array_equal(mlp().forward(np.ma.masked_array(X, np.zeros_like(X, bool))), mlp().forward(X))


def test_one_hot_targets_are_classes():
    one, two = mlp(), mlp()
    trainer(one).fit(X, LABELS)
    trainer(two).fit(X, np.eye(2)[LABELS], validation_data=(X, np.eye(2, dtype=bool)[LABELS]))
    np.testing.assert_array_equal(one.parameters, two.parameters)


def test_numpy_values_are_saved(tmp_path):
    model = mlp()
    model.classes = np.unique(np.array([3, 7]))
    model.feature_names = np.array(list("abcd"))
    model.metadata = {"array": np.arange(3), "number": np.float32(0.5), "truth": np.bool_(True)}
    model.save(tmp_path / "m")
    loaded = fastdl.load(tmp_path / "m")
    assert (loaded.classes, loaded.feature_names) == ([3, 7], list("abcd"))
    assert loaded.metadata == {"array": [0, 1, 2], "number": 0.5, "truth": True}


def test_what_cannot_be_saved_is_said_and_nothing_is_written(tmp_path):
    model = mlp()
    model.metadata["trainer"] = object()
    with pytest.raises(fastdl.InputError, match=r"expected plain values .* got some that cannot be kept in a file"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
