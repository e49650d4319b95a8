"""What a step reports: metrics of the members that did not fail, and the population."""

import tensorflow as tf

from keras_es import _compat


def population_logs(fitness, valid):
    """Return mean, best and spread (standard deviation) of the valid fitness values.

    NaN where no value is valid.
    """
    weight = tf.cast(valid, fitness.dtype)
    count = tf.reduce_sum(weight)  # the mean of nothing is 0 / 0
    safe = tf.where(valid, fitness, 0.0)
    mean = tf.reduce_sum(safe) / count
    variance = tf.reduce_sum(weight * tf.square(safe - mean)) / count
    best = tf.reduce_min(tf.where(valid, fitness, float("inf")))
    return {
        "population_loss": mean,
        "population_best": tf.where(count > 0.0, best, float("nan")),
        "population_spread": tf.sqrt(variance),
    }


def nan_of_nothing(model, results, unless=False):
    """Return results of metrics, NaN if no member was counted since their last reset.

    Keras takes 0 for the mean of nothing, which would be the best of all losses.

    Args:
        model: Compiled model whose optimizer is a `MaskOptimizer`.
        results: Dict from the name of a metric to its value.
        unless: Boolean scalar; where it is true, results stay.
    """
    tracker = _compat.loss_tracker(model)
    if tracker is None:
        return results
    nothing = tf.equal(tf.convert_to_tensor(tracker.count), 0.0)
    nothing = tf.logical_and(nothing, tf.logical_not(unless))
    names = set(results)
    if _samples(model.optimizer):
        # Other metrics are those of the mean, not of members.
        of_members = [tracker, *_compat.losses_of_outputs(model)]
        names &= {metric.name for metric in of_members}

    def known(name, value):
        value = tf.convert_to_tensor(value)
        if name not in names or not value.dtype.is_floating:
            return value
        return tf.where(nothing, tf.constant(float("nan"), value.dtype), value)

    return {name: known(name, value) for name, value in results.items()}


def _samples(optimizer):
    """Tell whether members see some of the examples, the mean all of them."""
    search = getattr(optimizer, "search", None)  # gradient methods have none
    return getattr(search, "sampled", None) is not None
