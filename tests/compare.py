"""Comparison of whole pytrees relative to the largest magnitude of each array."""

from typing import Any

import chex
import jax
import numpy as np


def assert_close(actual: Any, expected: Any, relative: float, noise: float = 0.0) -> None:
    """Require equal structure, shapes, and |a - b| <= relative * max|b| for every array.

    `noise` adds that part of the largest magnitude of all arrays: some may be nothing but rounding errors, as the
    gradient of a bias in front of a batch normalisation.
    """
    chex.assert_trees_all_equal_structs(actual, expected)
    chex.assert_trees_all_equal_shapes(actual, expected)
    floor = noise * max(
        (np.max(np.abs(np.asarray(b, np.float64)), initial=0.0) for b in jax.tree.leaves(expected)), default=0.0
    )
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        bound = relative * np.max(np.abs(b), initial=0.0) + floor
        error = np.abs(a - b)
        assert np.all(error <= bound), f"|error| <= {bound:.3g} expected, got {np.max(error):.3g}"


def assert_finite(tree: Any) -> None:
    """Require every entry of every array to be finite."""
    for x in jax.tree.leaves(tree):
        assert np.all(np.isfinite(np.asarray(x, np.float64))), x
