"""An optimizer of masks with the schedules that fit a run of known length."""

import keras

from keras_es import schedules
from keras_es.optimizers.gradual_magnitude import GradualMagnitude
from keras_es.optimizers.scheduled import DropAndGrow
from keras_es.optimizers.score_gradient import ScoreGradient

REST = 0.75
"""Share of a run after which scheduled masks rest, as in RigL."""

MOVES = 75
"""Moves of scheduled masks in a run, if that is not more often than every step."""


def for_run(cls, inner_optimizer, model, steps, **kwargs):
    """Make an optimizer of masks for a run of so many training steps.

    Masks have to settle before a run ends. What that takes depends on the method:

    - `RigL`, `SET`, `GradualMagnitude`: masks rest after 75 % of the steps, and move 75
      times until then, but not less often than every 100 steps;
    - `StraightThrough`, `GuidedES`, `OpenES`, `BernoulliNES`: the learning rate of the
      scores falls to 0 along a cosine, from three times its constant default;
    - others as they are by default.

    Args:
        cls: Class of the method, such as `keras_es.optimizers.RigL`.
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`), whose own
            schedule is not touched.
        model: The model that will be trained, with masked layers.
        steps: Integer, epochs * steps_per_epoch.
        **kwargs: Further arguments of the method; those here win.

    Returns:
        The optimizer.

    Example:

    >>> dense = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model = keras_es.sparsify(dense, 0.5)
    >>> optimizer = for_run(keras_es.optimizers.RigL, "adam", model, steps=8000)
    >>> schedule = optimizer.update_schedule
    >>> schedule.end_step, schedule.update_every
    (6000, 80)
    """
    return cls(inner_optimizer, **_arguments(cls, model, steps, kwargs), **kwargs)


def _arguments(cls, model, steps, given):
    """Return the arguments that follow from the length of a run."""
    end_step = max(1, int(REST * steps))
    update_every = min(100, max(1, end_step // MOVES))
    if issubclass(cls, DropAndGrow):
        schedule = schedules.CosineUpdates(end_step, update_every=update_every)
        arguments = {"update_schedule": schedule}
    elif issubclass(cls, GradualMagnitude):
        schedule = schedules.PolynomialSparsity(end_step, update_every=update_every)
        arguments = {"sparsity_schedule": schedule}
    elif issubclass(cls, ScoreGradient) and "score_optimizer" not in given:
        generation = cls("sgd", **given).steps_per_generation(model)
        # A decay from three times the constant rate moves scores about as far.
        rate = keras.optimizers.schedules.CosineDecay(
            3.0 * cls.default_score_learning_rate, -(-steps // generation)
        )
        arguments = {"score_optimizer": keras.optimizers.Adam(rate)}
    else:
        arguments = {}
    if {"end_step", *arguments} & set(given):
        return {}
    return arguments
