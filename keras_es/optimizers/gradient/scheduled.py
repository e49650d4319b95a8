"""Methods whose masks move at some steps, by weights and gradients."""

from keras import ops

from keras_es import schedules
from keras_es._arguments import Argument, integer, optional
from keras_es.distribution.collectives import assign_all
from keras_es.ops import drop_grow
from keras_es.optimizers import magnitudes
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.deployment import deploy


def _update_schedule(name, value):
    return schedules.get(name, value, schedules.UpdateSchedule)


class ScheduledMasks(MaskOptimizer):
    """Base of methods whose masks move at some steps, by weights and gradients.

    There is one member in each step, the deployed mask; the weights are trained first,
    then masks move if it is time. Slots of weights that come back start anew. Override
    `move_is_due` and `moved_masks`.
    """

    scheduled = True
    resets_slots = True
    schedule_argument = ""

    def check_arguments(self):
        """Make the schedule; it must be given in one of two ways."""
        super().check_arguments()
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
            setattr(self, name, self.make_schedule(end_step))

    def make_schedule(self, end_step):
        """Return what `end_step` is short for."""
        raise NotImplementedError

    def get_config(self):
        """Return the arguments of the constructor, the schedule only if it was one."""
        config = super().get_config()
        if self.end_step is not None:
            config[self.schedule_argument] = None
        return config

    def moved_masks(self, guidance):
        """Return new scores and boolean unit masks, two lists.

        Args:
            guidance: List of mean `unit_guidance`, or [].
        """
        raise NotImplementedError

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
        share = self.share_of_weights(flipped)
        assign_all([*assignments, (self.mask_flip_ratio, share)])


class DropAndGrow(ScheduledMasks):
    """Base of methods that drop the smallest units and grow as many others.

    Of the k active units of a weight, round(alpha_t k) with the smallest sum of |w|
    are dropped, and those with the largest `growth` come in. Grown weights and their
    slots start at zero. Afterwards scores are 1 where a unit is active, -1 elsewhere.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        end_step: Number of steps from which on masks rest; short for
            `CosineUpdates(end_step)`.
        update_schedule: A `keras_es.schedules.UpdateSchedule` instead.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
    """

    grows_from_zero = True

    end_step = Argument(optional(integer(1)), None)
    update_schedule = Argument(optional(_update_schedule), None)
    schedule_argument = "update_schedule"

    def make_schedule(self, end_step):
        """Return what `end_step` is short for."""
        return schedules.CosineUpdates(end_step)

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
        return self.update_schedule.is_due(self.steps_done())

    def moved_masks(self, guidance):
        """Drop and grow."""
        share = self.update_schedule(self.steps_done())
        guidance = guidance or [None] * len(self.masked_weights)
        sizes = magnitudes.sums(self.masked_weights)
        units = []
        for i, (masked, size) in enumerate(zip(self.masked_weights, sizes)):
            count = masked.unit_count
            left = count - drop_grow.dropped_count(share, count)
            kept = drop_grow.kept_units(size, masked.stored_units(), left)
            growth = self.growth(masked, i, guidance[i])
            units.append(masked.decode(drop_grow.growth_scores(kept, growth)))
        return [ops.where(chosen, 1.0, -1.0) for chosen in units], units
