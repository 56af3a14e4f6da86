"""scikit-learn's own tests of its MLP, read from the installed package and run on fastdl's classes."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path

import pytest

sklearn = pytest.importorskip("sklearn")

# These reach into private attributes of scikit-learn's implementation. `test_like_sklearn.py` and `test_gradient.py` check the
# same through public names.
PRIVATE = {
    "test_fit",
    "test_gradient",
    "test_learning_rate_warmstart",
    "test_adaptive_learning_rate",
    "test_n_iter_no_change",
    "test_n_iter_no_change_inf",
}
THEIRS = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"
OURS = "from fastdl import MLPClassifier, MLPRegressor\n"

pytestmark = [
    # Trainings of a few epochs warn that they have not converged: scikit-learn does not make that an error.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def source() -> Path | None:
    """The file of the tests, if this scikit-learn came with them."""
    spec = importlib.util.find_spec("sklearn.neural_network")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "tests" / "test_mlp.py"
    return path if path.is_file() else None


def collected(path: Path) -> dict[str, object]:
    text = path.read_text(encoding="utf-8")
    assert text.count(THEIRS) == 1, "scikit-learn imports its MLP in another way: see to it that fastdl's is tested"
    module = types.ModuleType("sklearn_test_mlp")
    module.__file__ = str(path)
    exec(compile(text.replace(THEIRS, OURS), str(path), "exec"), module.__dict__)
    assert module.MLPClassifier.__module__.startswith("fastdl.")
    return {name: value for name, value in vars(module).items() if name.startswith("test_")}


@pytest.fixture
def global_random_seed() -> int:
    """scikit-learn's fixture of the same name."""
    return 42


PATH = source()
if PATH is not None:
    FOUND = collected(PATH)
    for name, test in FOUND.items():
        if name not in PRIVATE:
            globals()[name] = test


@pytest.mark.skipif(PATH is None, reason="this scikit-learn was installed without its tests")
def test_the_tests_are_there():
    """A file that has been moved or emptied would pass."""
    assert len(FOUND) >= 35
    assert PRIVATE & set(FOUND) == PRIVATE
