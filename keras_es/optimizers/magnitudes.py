"""Sizes of units by the magnitude of their weights, and scores that follow them."""

import tensorflow as tf
from keras import ops

from keras_es.layers import groups

SMALL = 1e-30


def sums(masked_weights):
    """Return u, the sum of |w| over each unit, for each masked weight.

    Weights of a group have the mean of theirs.
    """
    sizes = [
        m.unit_magnitude(tf.convert_to_tensor(m.kernel.value)) for m in masked_weights
    ]
    return groups.agreed(masked_weights, sizes)


def standardized(masked_weights):
    """Return z = (u - mean u) / std u of each masked weight, 0 where std u is 0."""
    centred = [u - ops.mean(u) for u in sums(masked_weights)]
    return [c * ops.rsqrt(ops.mean(ops.square(c)) + SMALL) for c in centred]


def pulled(optimizer, scores):
    """Return scores after `magnitude_pull` (see `EvolutionStrategy`).

    Args:
        optimizer: The `MaskOptimizer`.
        scores: List of new scores, or None if they stay where they are.
    """
    share = optimizer.magnitude_pull
    if share is None or not optimizer.masked_weights:
        return scores
    if scores is None:
        scores = [m.mask_scores.value for m in optimizer.masked_weights]
    share = ops.cast(optimizer.current(share), "float32")
    share = ops.where(optimizer.search_rests(), 0.0, share)
    sizes = standardized(optimizer.masked_weights)
    return [s + share * (z - s) for s, z in zip(scores, sizes)]
