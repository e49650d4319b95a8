"""Rigged lottery tickets: drop small weights, grow where the gradient is large."""

import tensorflow as tf

from keras_es.optimizers.density import refuse_block_sparse
from keras_es.optimizers.gradient.scheduled import ScheduledMasks
from keras_es.optimizers.registry import Tuned, register


@register("rigl", Tuned("drop_fraction", (0.1, 0.3, 0.5), "update_schedule"))
class RigL(ScheduledMasks):
    """Rigged lottery tickets: drop the smallest units, grow by the dense gradient.

    Every Delta T steps a share alpha_t of the active units of each weight, those with
    the smallest sum of |w|, makes place for the units with the largest sum of |g|
    among all that are not kept; g = dL/d(effective weight) on the batch of that step,
    averaged over replicas. Grown weights and their slots start at zero. The step's
    update of the weights comes first.

    g is known at inactive weights because the backward pass goes through the effective
    kernel; it is looked at in steps in which masks move only.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        end_step: Number of training steps from which on masks rest, in the paper 75 %
            of all; short for `CosineUpdates(end_step)`.
        update_schedule: A `keras_es.schedules.UpdateSchedule` instead.
        seed: Not used by this method; kept so that methods exchange freely.
        name: Name of the optimizer.

    Raises:
        ValueError: If neither or both of the schedules are given, or if a layer stores
            active blocks only, so that nothing is known of the gradient elsewhere.

    Example:

    >>> float(RigL("adam", end_step=1000).update_schedule(0))
    0.3

    References:
        Evci et al. 2020, Rigging the lottery, arXiv 1911.11134, algorithm 1.
    """

    needs_guidance = True
    grows_from_zero = True

    def build_search(self):
        """Refuse layers that have no gradient at inactive units."""
        refuse_block_sparse(
            self,
            "grows by the gradient at inactive weights, and a block-sparse layer has "
            "none there",
        )

    def unit_guidance(self, masked, gradient, value, units):
        """Return the gradient itself: replicas have to be averaged before |.|."""
        return gradient

    def growth(self, masked, index, guidance):
        """Return the sum of |g| over each unit."""
        # Under float16 a gradient may overflow while the loss is finite.
        known = tf.where(tf.math.is_finite(guidance), guidance, 0.0)
        return masked.unit_magnitude(known)
