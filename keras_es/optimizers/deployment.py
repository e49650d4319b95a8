"""Deployment of new masks, and what becomes of weights that come back."""

import tensorflow as tf

from keras_es.optimizers.guarded import is_average


def deploy(optimizer, scores, units):
    """Return what sets new scores and masks of all masked weights.

    Args:
        optimizer: The `MaskOptimizer`.
        scores: List of new scores.
        units: List of boolean unit masks.

    Returns:
        List of (variable, tensor), and the number of weights that changed.
    """
    assignments, flipped = [], 0.0
    for masked, values, chosen in zip(optimizer.masked_weights, scores, units):
        slots = optimizer._slots.get(id(masked.kernel), [])
        deployed, changed = masked.deploy(values, chosen, slots)
        assignments += deployed
        flipped += changed
        if optimizer.resets_slots and masked.stores_inactive:
            assignments += _fresh(optimizer, masked, chosen, slots)
    return assignments, flipped


def _fresh(optimizer, masked, units, slots):
    """Return what lets weights that come back, and their slots, start anew."""
    grown = masked.grown(units)
    kernel, assignments = tf.convert_to_tensor(masked.kernel.value), []
    if optimizer.grows_from_zero:
        kernel = tf.where(grown, tf.zeros_like(kernel), kernel)
        assignments.append((masked.kernel, kernel))
    for slot in slots:
        old = tf.convert_to_tensor(slot.value)
        if is_average(slot):
            start = tf.cast(kernel, old.dtype)
        else:
            start = optimizer._slot_starts[id(slot)](old.shape, dtype=slot.dtype)
        assignments.append((slot, tf.where(grown, start, old)))
    return assignments
