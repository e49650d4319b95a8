"""Gradual magnitude pruning: from dense to sparse along a schedule."""

import tensorflow as tf

from keras_es import schedules
from keras_es._arguments import Argument, Refused, optional
from keras_es.optimizers import magnitudes
from keras_es.optimizers.decoding import Decoding, NearLast
from keras_es.optimizers.gradient.scheduled import REST, ScheduledMasks
from keras_es.optimizers.registry import Tuned, register

LEARNT = 0.5
"""Share of a run after which the sparsity is final where pruned weights learn."""


@register(
    "gradual_magnitude",
    Tuned("end_share", (0.5, 0.75, 0.9), "sparsity_schedule", "end_step", of_run=True),
)
class GradualMagnitude(ScheduledMasks):
    """Gradual magnitude pruning: keep the units with the largest sum of |w|.

    Training begins dense (or at the schedule's `initial_sparsity`), whatever masks the
    model came with. Of a weight with d units, k of which are to stay in the end, and
    k_0 = (1 - s_i) d,

        k_t = round(k + (k_0 - k) remaining(t)),
        remaining(t) = (1 - (t - t_0)/(t_end - t_0))**3

    are active, exactly; under `NByM` as many in each group, and each weight keeps its
    own final sparsity, so that every allocation works. Weights that were pruned keep
    their value, rest, and are compared with the others each time; should they come
    back, their slots start anew. The scores are the sums of |w|.

    With `masked_out="learn"` pruned weights learn too, and the k_t largest units are
    chosen anew after every step, until training ends: a unit comes back, with a trained
    value, as soon as it is large enough. Masks that were held for some steps would let
    pruned weights overshoot together.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        end_step: Number of training steps after which the sparsity is final; short for
            `PolynomialSparsity(end_step)`, the schedule of the paper. 75 % of all
            steps is a good choice.
        sparsity_schedule: A `keras_es.schedules.SparsitySchedule` instead.
        seed: Not used by this method; kept so that methods exchange freely.
        name: Name of the optimizer.
        masked_out: "rest" or "learn" (see `MaskOptimizer`).

    Raises:
        ValueError: If neither or both of the schedules are given, or if a layer stores
            active blocks only, so that it cannot begin dense.

    Example:

    >>> schedule = GradualMagnitude("adam", end_step=1000).sparsity_schedule
    >>> round(float(schedule(500, 0.9)), 4)
    0.7875

    References:
        Zhu, Gupta 2017, To prune, or not to prune, arXiv 1710.01878; for weights that
        learn see `keras_es.optimizers.latents.Learning`.
    """

    schedule_argument = "sparsity_schedule"
    short = schedules.PolynomialSparsity

    sparsity_schedule = Argument(
        optional(lambda n, v: schedules.get(n, v, schedules.SparsitySchedule)), None
    )
    update_schedule = Refused("its masks follow `sparsity_schedule`")

    @property
    def scheduled(self):
        """Whether masks move at some steps only."""
        return self.masked_out == "rest"

    @property
    def deployed_by(self):
        """Near the last step's thresholds, if masks are decoded in every step."""
        return Decoding if self.scheduled else NearLast

    @classmethod
    def end_share(cls, run):
        """Return the share of a run after which the sparsity is final."""
        return LEARNT if run.given.get("masked_out") == "learn" else REST

    def first_scores(self):
        """Return the sums of |w|."""
        return magnitudes.sums(self.masked_weights)

    def pruning_scores(self):
        """Return the sums of |w|."""
        return magnitudes.sums(self.masked_weights)

    def move_is_due(self):
        """Ask the schedule; at its end, also if a step that was void missed it."""
        step, schedule = self.steps_done(), self.sparsity_schedule
        late = tf.logical_and(step > schedule.end_step, self.active_units.unfinished())
        return tf.logical_or(tf.cast(schedule.is_due(step), tf.bool), late)

    def update(self, estimate, ok):
        """Score units by their sizes after every step, if pruned weights learn."""
        if self.scheduled:
            return None, []
        return magnitudes.sums(self.masked_weights), []

    def moved_masks(self, guidance):
        """Keep the k_t largest units of each weight."""
        sizes = magnitudes.sums(self.masked_weights)
        counts = self.active_units.at(self.steps_done())
        units = [
            m.decode(size, count)
            for m, size, count in zip(self.masked_weights, sizes, counts)
        ]
        return sizes, units

    def move_masks(self, guidance, ok):
        """Deploy `moved_masks`, and count."""
        super().move_masks(guidance, ok)
        self.active_units.follow(self.steps_done(), ok)
