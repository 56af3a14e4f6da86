"""Fitted models go through scikit-learn's and joblib's tools, and predict the same bits behind them."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import make_classification
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastdl import MLPClassifier, MLPRegressor
from fastdl.engine import most_threads
from fastdl.estimators.threads import allowed_threads

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def data():
    return make_classification(120, 6, n_informative=5, n_redundant=0, n_classes=3, random_state=0)


def through(model, tmp_path):
    """The model after each way of copying it."""
    yield copy.deepcopy(model)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(model, protocol))
    joblib.dump(model, tmp_path / "model")
    yield joblib.load(tmp_path / "model")
    yield joblib.load(tmp_path / "model", mmap_mode="r")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
def test_copies_predict_the_same_bits_and_learn_on(Estimator, dtype, data, tmp_path):
    X, y = data[0].astype(dtype), data[1]
    model = Estimator(random_state=0, max_iter=5).fit(X, y)
    expected = model.predict(X).tobytes()
    copies = list(through(model, tmp_path))
    for other in copies:
        assert other.predict(X).tobytes() == expected
    learned = model.partial_fit(X, y).predict(X).tobytes()
    assert learned != expected or Estimator is MLPClassifier
    for other in copies:
        assert other.partial_fit(X, y).predict(X).tobytes() == learned
        assert other.coefs_[0].tobytes() == model.coefs_[0].tobytes()
    shallow = copy.copy(model)
    before = model.coefs_[0].copy()
    assert shallow.predict(X).tobytes() == learned
    shallow.partial_fit(X, y)
    assert model.coefs_[0].tobytes() == before.tobytes()


def test_clone_forgets_what_was_learned(data):
    model = MLPClassifier((5,), optimizer=None, dropout=0.1, max_iter=2).fit(*data)
    other = clone(model)
    assert other.get_params() == model.get_params()
    assert not hasattr(other, "coefs_")


def test_pipelines_and_what_goes_around_them(data):
    X, y = data
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=30, random_state=0)).fit(X, y)
    assert pipeline.score(X, y) > 0.6
    assert "MLPClassifier" in pipeline._repr_html_() if hasattr(pipeline, "_repr_html_") else True
    assert repr(MLPClassifier((3,), alpha=0.1)) == "MLPClassifier(alpha=0.1, hidden_layer_sizes=(3,))"
    columns = ColumnTransformer([("scaled", StandardScaler(), [0, 1, 2])], remainder="passthrough")
    make_pipeline(columns, MLPClassifier(max_iter=2)).fit(X, y)
    TransformedTargetRegressor(MLPRegressor(max_iter=2), transformer=StandardScaler()).fit(X, y).predict(X)
    calibrated = CalibratedClassifierCV(MLPClassifier(max_iter=10, random_state=0), cv=2).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    importances = permutation_importance(pipeline, X, y, n_repeats=2, random_state=0).importances_mean
    assert importances.shape == (6,)


def test_metadata_routing(data):
    X, y = data
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier(max_iter=2, random_state=0).set_fit_request(sample_weight=True)
        routed = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model).fit(
            X, y, sample_weight=np.arange(1.0, 121.0)
        )
    by_hand = MLPClassifier(max_iter=2, random_state=0).fit(StandardScaler().fit_transform(X), y, np.arange(1.0, 121.0))
    np.testing.assert_array_equal(routed[-1].coefs_[0], by_hand.coefs_[0])


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_workers_give_the_same_scores(backend, data):
    X, y = data
    model = MLPClassifier(max_iter=20, random_state=0)
    alone = cross_val_score(model, X, y, cv=4)
    with joblib.parallel_config(backend=backend):
        np.testing.assert_array_equal(cross_val_score(model, X, y, cv=4, n_jobs=2), alone)
        if backend == "loky":
            search = GridSearchCV(model, {"alpha": [1e-4, 1.0]}, cv=2, n_jobs=2).fit(X, y)
            assert search.best_estimator_.predict(X).shape == y.shape


def threads_here(_=None):
    """How many threads an estimator would use where this runs."""
    found = allowed_threads("auto")
    return most_threads() if found == "auto" else found


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_two_workers_share_the_cores(backend):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        threads = joblib.Parallel()(joblib.delayed(threads_here)(i) for i in range(2))
    assert max(threads) <= max(1, (os.cpu_count() or 1) // 2)
    assert allowed_threads("auto") == "auto"
    assert allowed_threads(3) == 3


WORKER = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from fastdl import MLPClassifier
X = np.random.default_rng(0).standard_normal((300, 4))
model = MLPClassifier((6,), random_state=0, max_iter=3).fit(X, (X[:, 0] > 0) + (X[:, 1] > 0))
print(model.coefs_[0].tobytes().hex(), model.loss_)
"""


def test_two_cold_workers_at_once(tmp_path):
    """Both compile into the same empty cache: none crashes, and both learn the same bits."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        for _ in range(2)
    ]
    results = [worker.communicate(timeout=500) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], results
    assert results[0][0] == results[1][0] != b""


def run_python(code):
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )  # fmt: skip


def test_scikit_learn_is_loaded_only_when_it_is_used():
    run_python("""
import sys, fastdl
fastdl.MLP([2, 2])
assert "sklearn" not in sys.modules
fastdl.MLPClassifier
assert "sklearn" in sys.modules
""")


def test_without_scikit_learn_one_sentence_says_what_to_install():
    run_python("""
import sys
sys.modules["sklearn"] = None
import fastdl
fastdl.MLP
try:
    from fastdl import MLPRegressor
except fastdl.MissingExtraError as error:
    assert 'pip install "fastdl[sklearn]"' in str(error), error
else:
    raise SystemExit("no error")
""")


def test_the_command_line_does_without_scikit_learn(tmp_path):
    """`scripts/train` does not install it."""
    (tmp_path / "table.csv").write_text("a,b\n" + "1,x\n2,y\n" * 40)
    run_python(f"""
import sys
sys.modules["sklearn"] = None
from fastdl.cli.app import main
assert main(["train", r"{tmp_path / "table.csv"}", "--target", "b", "--epochs", "1", "--out", r"{tmp_path / "run"}"]) == 0
import fastdl
fastdl.load(r"{tmp_path / "run"}").predict({{"a": [1, 2]}})
""")
