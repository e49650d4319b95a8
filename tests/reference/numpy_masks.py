"""Masks in NumPy, from the definitions of the patterns and not from the package."""

import numpy as np

from keras_es import patterns


def top_k(scores, k):
    """Mark the k largest; of equal ones the first."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.ravel().astype("float64"), kind="stable")[:k]] = True
    return mask.reshape(scores.shape)


def unit_mask(pattern, scores, sparsity):
    """Decode scores of units at a sparsity."""
    if isinstance(pattern, patterns.NByM):
        mask = np.zeros(scores.shape, bool)
        for top in range(0, scores.shape[0], pattern.m):
            for column in range(scores.shape[1]):
                group = (slice(top, top + pattern.m), column)
                mask[group] = top_k(scores[group], pattern.n)
        return mask
    return top_k(scores, max(1, round((1 - sparsity) * scores.size)))


def expand(pattern, units, matrix_shape):
    """Spread units over the matrix."""
    if isinstance(pattern, patterns.Block):
        return np.kron(units, np.ones((pattern.rows, pattern.cols), units.dtype))
    if isinstance(pattern, patterns.Channel):
        return np.stack([units] * matrix_shape[0])
    if isinstance(pattern, patterns.Rows):
        return np.stack([units] * matrix_shape[1], axis=1)
    return units


def weight_mask(pattern, scores, sparsity, matrix_shape):
    """Return the mask of the matrix."""
    units = unit_mask(pattern, scores, sparsity)
    return expand(pattern, units.astype("uint8"), matrix_shape).astype(bool)
