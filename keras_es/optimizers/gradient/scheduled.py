"""Methods whose masks move at some steps, by weights and gradients."""

from keras import ops

from keras_es import schedules
from keras_es._arguments import Argument, integer, optional
from keras_es.distribution.collectives import assign_all
from keras_es.layers import groups
from keras_es.ops import drop_grow
from keras_es.optimizers import magnitudes
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.deployment import deploy, share_of_weights

REST = 0.75
"""Share of a run after which scheduled masks rest, as in RigL."""

MOVES = 75
"""Moves of scheduled masks in a run, if that is not more often than every step."""


class ScheduledMasks(MaskOptimizer):
    """Base of methods whose masks move at some steps, by weights and gradients.

    There is one member in each step, the deployed mask; the weights are trained first,
    then masks move if it is time. Slots of weights that come back start anew. Override
    `move_is_due` and `moved_masks`, or `growth` for `drop_and_grow` moves.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        end_step: Number of steps from which on masks rest; short for `short(end_step)`.
        update_schedule: A `keras_es.schedules.UpdateSchedule` instead.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
    """

    scheduled = True
    resets_slots = True

    schedule_argument = "update_schedule"
    """Name of the argument with the schedule."""

    short: type = schedules.CosineUpdates
    """What `end_step` is short for."""

    end_step = Argument(optional(integer(1)), None)
    update_schedule = Argument(
        optional(lambda n, v: schedules.get(n, v, schedules.UpdateSchedule)), None
    )

    def check_arguments(self):
        """Make the schedule; it must be given in one of two ways."""
        name, end_step = self.schedule_argument, self.end_step
        schedule = getattr(self, name)
        if (end_step is None) == (schedule is None):
            cls = type(self).__name__
            raise ValueError(
                f"{cls} has to know at which step masks come to rest: give either "
                f"`end_step`, such as {cls}(..., end_step=int(0.75 * epochs * "
                f"steps_per_epoch)), or `{name}`. "
                f"Received: end_step={end_step!r}, {name}={schedule!r}"
            )
        if schedule is None:
            setattr(self, name, self.short(end_step))

    @classmethod
    def settle(cls, run):
        """Let masks rest after three quarters of the steps."""
        if "end_step" in run.given:
            return {}
        end_step = max(1, int(cls.end_share(run) * run.steps))
        update_every = min(100, max(1, end_step // MOVES))
        return {cls.schedule_argument: cls.short(end_step, update_every=update_every)}

    @classmethod
    def end_share(cls, run):
        """Return the share of a run after which masks rest."""
        return REST

    def growth(self, masked, index, guidance):
        """Return how much each unit of a weight is wanted, float32, finite.

        Args:
            masked: The masked weight.
            index: Its place among the masked weights.
            guidance: Mean of its `unit_guidance`, or None.
        """
        raise NotImplementedError

    def move_is_due(self):
        """Ask the schedule."""
        # Of a user's schedule it may be a bool of Python, which `tf.cond` refuses.
        return ops.cast(self.update_schedule.is_due(self.steps_done()), "bool")

    def moved_masks(self, guidance):
        """Return new scores and boolean unit masks, two lists: drop and grow.

        Of the k active units of a weight, round(alpha_t k) with the smallest sum of
        |w| are dropped, and those with the largest `growth` come in. Afterwards scores
        are 1 where a unit is active, -1 elsewhere.

        Args:
            guidance: List of mean `unit_guidance`, or [].
        """
        share = self.update_schedule(self.steps_done())
        guidance = guidance or [None] * len(self.masked_weights)
        weights = self.masked_weights
        growths = [self.growth(m, i, guidance[i]) for i, m in enumerate(weights)]
        growths = groups.agreed(weights, growths)
        units = []
        for masked, size, growth in zip(weights, magnitudes.sums(weights), growths):
            count = masked.unit_count
            left = count - drop_grow.dropped_count(share, count)
            kept = drop_grow.kept_units(size, masked.stored_units(), left)
            units.append(masked.decode(drop_grow.growth_scores(kept, growth)))
        signs = [ops.where(chosen, 1.0, -1.0) for chosen in units]
        return [ops.cast(sign, "float32") for sign in signs], units

    def move_masks(self, guidance, ok):
        """Deploy `moved_masks`."""
        scores, units = self.moved_masks(guidance)
        scores = [
            ops.where(ok, new, m.mask_scores.value)
            for m, new in zip(self.masked_weights, scores)
        ]
        units = [
            ops.where(ok, new, m.stored_units())
            for m, new in zip(self.masked_weights, units)
        ]
        assignments, flipped = deploy(self, scores, units)
        share = share_of_weights(self.masked_weights, flipped)
        assign_all([*assignments, (self.mask_flip_ratio, share)])

    def get_config(self):
        """Return the arguments of the constructor, the schedule only if it was one."""
        config = super().get_config()
        if self.end_step is not None:
            config[self.schedule_argument] = None
        return config
