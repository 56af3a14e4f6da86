"""Linear models with an L2 penalty, found to the end: ridge regression, and logistic regression by Newton's method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MOST_WORK = 2e6
"""Multiply-adds of a product of features and coefficients, at most: with more features than they allow, the leading principal
directions stand for them."""
INTERCEPT = 0.01
"""How much of the penalty the intercept has: enough for a class that no row has to stay possible."""
ROUNDS, TOLERANCE, SHORTEST = 50, 1e-13, 2.0**-10
PRODUCTS, ACCURACY = 200, 1e-3


def fit_linear(
    x: Floats, y: NDArray[Any], output: str, penalty: float = 1.0, weight: NDArray[Any] | None = None
) -> Floats:
    """Coefficients [D + 1, O], the last row the intercept, that minimise Σ w_r loss_r + penalty/2 Σ c² of standardised features.

    The features are standardised within, and the coefficients are for x as it came; the intercept has a hundredth of the penalty.
    Of a feature with two values these become 1 apart, so that a rare category counts no more than a common one.

    Cost: the eigenvectors of x's smaller matrix of products, and for classes about ten rounds of Newton's method, each some ten
    products of x and coefficients.

    Parameters
    ----------
    x [N, D] : features
    y [N, O] : numbers for "linear", whose loss is (p - y)² / 2; labels from 0 to 1 for "sigmoid"; rows of which one number is 1
        for "softmax"
    output : "linear", "sigmoid" or "softmax"
    penalty : above 0
    weight [N] : of the rows, not all 0; None: 1 each

    Raises
    ------
    numpy.linalg.LinAlgError : a number is not finite
    """
    w = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    learnt = w > 0
    x, targets, w = x[learnt], np.asarray(y, np.float64)[learnt], w[learnt]
    if not (np.isfinite(x).all() and np.isfinite(targets).all()):
        raise np.linalg.LinAlgError("expected finite numbers")
    mean = w @ x / w.sum()
    deviation = np.sqrt(w @ (x - mean) ** 2 / w.sum())
    low, high = x.min(axis=0), x.max(axis=0)
    deviation = np.where(((x == low) | (x == high)).all(axis=0), high - low, deviation)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    standard = (x - mean) * scale
    directions = _directions(standard, max(1, int(MOST_WORK / (len(x) * targets.shape[1]))))
    z = np.column_stack([standard @ directions, np.ones(len(x))])
    pull = np.full(z.shape[1], penalty)
    pull[-1] *= INTERCEPT
    if output == "linear":
        found = np.linalg.solve(z.T @ (z * w[:, None]) + np.diag(pull), z.T @ (targets * w[:, None]))
    else:
        found = _logistic(z, targets, w, pull, output == "softmax")
    by_feature = scale[:, None] * (directions @ found[:-1])
    return np.vstack([by_feature, found[-1] - mean @ by_feature])


def _directions(x: Floats, most: int) -> Floats:
    """Orthonormal columns [D, K] that span the rows of x: all, or the `most` along which they spread most."""
    n_rows, width = x.shape
    if width <= min(n_rows, most):
        return np.eye(width)
    values, vectors = np.linalg.eigh(x @ x.T if width > n_rows else x.T @ x)
    kept = values > 1e-10 * max(values[-1], 1e-300)
    values, vectors = values[kept][-most:], vectors[:, kept][:, -most:]
    return x.T @ vectors / np.sqrt(values) if width > n_rows else vectors


def _logistic(z: Floats, y: Floats, w: Floats, pull: Floats, exclusive: bool) -> Floats:
    """Newton's method: steps are solved for by conjugate gradients, and halved until they lead downward."""
    coefficients = np.zeros((z.shape[1], y.shape[1]))
    value, chances = _objective(z, y, w, pull, coefficients, exclusive)
    for _ in range(ROUNDS):
        gradient = z.T @ (w[:, None] * (chances - y)) + pull[:, None] * coefficients

        def bend(v: Floats, chances: Floats = chances) -> Floats:
            """The Hessian's product with v."""
            moved = z @ v
            rest = (chances * moved).sum(axis=1, keepdims=True) if exclusive else chances * moved
            return z.T @ (w[:, None] * chances * (moved - rest)) + pull[:, None] * v

        diagonal = (z**2).T @ (w[:, None] * chances * (1 - chances)) + pull[:, None]
        step, length, before = _solve(bend, gradient, diagonal), 1.0, value
        while length >= SHORTEST:
            tried = coefficients - length * step
            value, chances_there = _objective(z, y, w, pull, tried, exclusive)
            if value < before:
                coefficients, chances = tried, chances_there
                break
            length /= 2
        if not before - value > TOLERANCE * abs(before):
            break
    return coefficients


def _solve(apply: Callable[[Floats], Floats], right: Floats, diagonal: Floats) -> Floats:
    """v with apply(v) = right, to a thousandth, by conjugate gradients that are preconditioned with the diagonal."""
    scale = 1 / diagonal
    found, rest = np.zeros_like(right), right
    direction = scale * rest
    size = first = float((rest * direction).sum())
    for _ in range(PRODUCTS):
        if not size > ACCURACY**2 * first:
            break
        image = apply(direction)
        length = size / float((direction * image).sum())
        found, rest = found + length * direction, rest - length * image
        next_ = scale * rest
        before, size = size, float((rest * next_).sum())
        direction = next_ + size / before * direction
    return found


def _objective(
    z: Floats, y: Floats, w: Floats, pull: Floats, coefficients: Floats, exclusive: bool
) -> tuple[float, Floats]:
    """Σ w_r loss_r + 1/2 Σ pull c², and the probabilities."""
    raw = z @ coefficients
    penalty = float(pull @ (coefficients**2).sum(axis=1)) / 2
    if exclusive:
        raw = raw - raw.max(axis=1, keepdims=True)
        total = np.exp(raw).sum(axis=1, keepdims=True)
        return float(w @ (np.log(total[:, 0]) - (y * raw).sum(axis=1))) + penalty, np.exp(raw) / total
    return float(w @ (np.logaddexp(0, raw) - y * raw).sum(axis=1)) + penalty, (1 + np.tanh(raw / 2)) / 2
