"""The number of active units, where it falls along a schedule."""

import keras
import numpy as np
import tensorflow as tf

from keras_es.distribution.collectives import assign_all


class ActiveUnits:
    """How many units of each weight are active, from many to the wanted number.

    Of a weight with d units, k of which are to stay in the end, and k_0 = (1 - s_i) d,

        k_t = round(k + (k_0 - k) remaining(t))

    are active, exactly; under `NByM` as many in each group, and each weight keeps its
    own final sparsity, so that every allocation works.

    Args:
        optimizer: The `MaskOptimizer`.
        schedule: A `keras_es.schedules.SparsitySchedule`.
    """

    def __init__(self, optimizer, schedule):
        self.optimizer, self.schedule = optimizer, schedule

    def build(self, scores):
        """Create the state, and begin with the masks of step 0.

        Args:
            scores: First scores of each masked weight.
        """
        refuse_block_sparse(
            self.optimizer,
            "begins dense by its schedule, and a block-sparse layer stores active "
            "blocks only",
        )
        with tf.init_scope():
            first = [int(count) for count in self.at(0)]
            self.counts = self.optimizer.add_variable(
                (len(first),),
                initializer=_Values(first),
                dtype="int64",
                name="unit_counts",
                aggregation="only_first_replica",
            )
            masked_weights = self.optimizer.masked_weights
            for masked, value, count in zip(masked_weights, scores, first):
                masked.mask_scores.assign(value)
                masked.kernel_mask.assign(masked.expand(masked.decode(value, count)))

    def at(self, step):
        """Return k_t of each weight, a list of int64 scalars."""
        left = self.schedule.remaining(step)
        density = 1.0 - self.schedule.initial_sparsity
        counts = []
        for masked in self.optimizer.masked_weights:
            last = masked.unit_count
            first = max(density * masked.units, last)
            wanted = last + (first - last) * left
            counts.append(masked.pattern.whole_count(wanted, masked.matrix_shape))
        return counts

    def now(self):
        """Return the number of active units of each weight, a list of int64 scalars."""
        return tf.unstack(tf.convert_to_tensor(self.counts.value))

    def follow(self, step, ok):
        """Go on to the numbers of a step, and return them.

        Args:
            step: Number of steps, int64 scalar.
            ok: Boolean scalar; if False nothing changes.
        """
        if not self.optimizer.masked_weights:
            return self.now()
        counts = tf.where(ok, tf.stack(self.at(step)), self.counts.value)
        assign_all([(self.counts, counts)])
        return tf.unstack(counts)

    def unfinished(self):
        """Tell whether a weight has more active units than it is to have."""
        last = [m.unit_count for m in self.optimizer.masked_weights]
        return tf.reduce_any(self.counts.value > np.array(last, "int64"))

    def nonzeros(self):
        """Return the number of non-zeros of the deployed masks, int64 scalar."""
        weights = [m.size // m.units for m in self.optimizer.masked_weights]
        return tf.reduce_sum(self.counts.value * np.array(weights, "int64"))


def begin(optimizer):
    """Return the `ActiveUnits` of an optimizer that is being built, or None.

    Raises:
        ValueError: If a layer cannot do what the optimizer's density wants.
    """
    active = None
    if optimizer.sparsity_schedule is not None:
        active = ActiveUnits(optimizer, optimizer.sparsity_schedule)
        active.build(optimizer.first_scores())
    if optimizer.magnitude_pull is not None:
        refuse_block_sparse(
            optimizer,
            "compares the magnitudes of all units (`Falling(..., pull=...)`), and a "
            "block-sparse layer stores active ones only",
        )
    return active


def unit_counts(optimizer):
    """Return how many units of each weight are active; None for the wanted."""
    if optimizer.active_units is None:
        return [None for _ in optimizer.masked_weights]
    return optimizer.active_units.now()


def refuse_block_sparse(optimizer, why):
    """Raise if a layer stores active blocks only.

    Args:
        optimizer: The `MaskOptimizer`.
        why: What of it the method cannot do with, for the message.
    """
    for masked in optimizer.masked_weights:
        if not masked.stores_inactive:
            raise ValueError(
                f"{type(optimizer).__name__} {why}. Use SET, or a masked layer with "
                f"pattern={masked.pattern}. Received: {masked.name!r} of "
                f"{type(masked.layer).__name__}"
            )


class _Values(keras.initializers.Initializer):
    """Initializer with given numbers."""

    def __init__(self, values):
        self.values = values

    def __call__(self, shape, dtype=None):
        return tf.reshape(tf.constant(self.values, dtype), shape)
