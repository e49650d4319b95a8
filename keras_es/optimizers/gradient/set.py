"""Sparse evolutionary training: drop small weights, grow at random."""

from keras_es import schedules
from keras_es.ops import noise
from keras_es.optimizers.gradient.scheduled import ScheduledMasks
from keras_es.optimizers.registry import Tuned, register


@register("set", Tuned("drop_fraction", (0.1, 0.3, 0.5), "update_schedule"))
class SET(ScheduledMasks):
    """Sparse evolutionary training: drop the smallest units, grow others at random.

    Every Delta T steps a share alpha_t of the active units of each weight, those with
    the smallest sum of |w|, makes place for units that are drawn with equal chance from
    all that are not kept. Grown weights and their slots start at zero. The draw is a
    function of (seed, step).

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        end_step: Number of training steps from which on masks rest; short for
            `CosineUpdates(end_step)`.
        update_schedule: A `keras_es.schedules.UpdateSchedule` instead. If neither is
            given `ConstantUpdates()`, as in the paper: 30 % every 100 steps, without
            an end.
        seed: Integer seed of the draws.
        name: Name of the optimizer.

    Raises:
        ValueError: If both or wrong schedules are given.

    Example:

    >>> SET("adam").update_schedule.drop_fraction
    0.3

    References:
        Mocanu et al. 2018, arXiv 1707.04780, algorithm 2.
    """

    grows_from_zero = True

    def check_arguments(self):
        """Take the schedule of the paper if none is given."""
        if self.end_step is None and self.update_schedule is None:
            self.update_schedule = schedules.ConstantUpdates()
        super().check_arguments()

    def growth(self, masked, index, guidance):
        """Return uniform noise, the same on all replicas."""
        key = noise.stream_key(self.seed, f"growth {index}")
        seed = noise.counter_seed(key, self.steps_done(), 0)
        return noise.uniform(tuple(masked.mask_scores.shape), seed)
