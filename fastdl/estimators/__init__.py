"""Classes with scikit-learn's interface: `MLPClassifier` and `MLPRegressor` take the place of those in sklearn.neural_network.

scikit-learn is loaded when one of these names is used, and not before.
"""

from __future__ import annotations

from fastdl.errors import MissingExtraError

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        'MLPClassifier and MLPRegressor need scikit-learn, which is not installed: pip install "fastdl[sklearn]"'
    ) from error

from fastdl.estimators.mlp import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
