"""Assigning values under `tf.distribute`: every replica's copy gets the same value."""

import keras
import tensorflow as tf


def assign_all(pairs):
    """Assign a value to each variable, on every replica.

    Args:
        pairs: List of (Keras variable, tensor). All replicas must have computed the
            same values; none are sent.
    """
    pairs = [
        (v.value if isinstance(v, keras.Variable) else v, value) for v, value in pairs
    ]
    if not tf.distribute.has_strategy():
        for variable, value in pairs:
            variable.assign(value)
        return
    variables, values = zip(*pairs)

    def update(strategy, values):
        for variable, value in zip(variables, values):
            strategy.extended.update(
                variable, lambda v, x: v.assign(x), args=(value,), group=False
            )

    tf.__internal__.distribute.interim.maybe_merge_call(
        update, tf.distribute.get_strategy(), values
    )
