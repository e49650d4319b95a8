"""An optimizer of masks with the schedules that fit a run of known length."""

import keras

from keras_es import conversion, schedules
from keras_es.optimizers.evolution import EvolutionStrategy
from keras_es.optimizers.gradual_magnitude import GradualMagnitude
from keras_es.optimizers.open_es import OpenES
from keras_es.optimizers.scheduled import DropAndGrow
from keras_es.optimizers.score_gradient import BernoulliStrategy, ScoreGradient
from keras_es.optimizers.turns import sampling_is_cheap

REST = 0.75
"""Share of a run after which scheduled masks rest, as in RigL."""

SEARCHED, FALLING = 0.6, 0.4
"""Shares of a run in which losses alone move masks, and in which masks get sparse."""

PULL = 0.1
"""Share of the way to the magnitudes that scores go in each step, begun dense."""

MOVES = 75
"""Moves of scheduled masks in a run, if that is not more often than every step."""


def for_run(cls, inner_optimizer, model, steps, *, begin_dense=False, **kwargs):
    """Make an optimizer of masks for a run of so many training steps.

    Masks have to settle before a run ends. What that takes depends on the method:

    - `RigL`, `SET`, `GradualMagnitude`: masks rest after 75 % of the steps, and move 75
      times until then, but not less often than every 100 steps;
    - `StraightThrough`, `GuidedES`, `OpenES`, `BernoulliNES`: the learning rate of the
      scores falls to 0 along a cosine, from three times its constant default. Begun
      dense, it does so in 60 % of the steps, and then the temperature of `GuidedES` and
      `BernoulliNES` is 0: a step is one of `Static`;
    - `OpenES` with few units (one for 16 weights or more, as with blocks and channels)
      or begun dense: sigma falls in a straight line from 2, or begun dense from 0.5
      and with many units from 1, the learning rate of the scores from 0.05 along a
      cosine, and both end after 60 %, from when on a step is one of `Static`;
    - others as they are by default.

    Args:
        cls: Class of the method, such as `keras_es.optimizers.RigL`.
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`), whose own
            schedule is not touched.
        model: The model that will be trained, with masked layers.
        steps: Integer, epochs * steps_per_epoch.
        begin_dense: Whether an `EvolutionStrategy` may begin dense and be as sparse as
            wanted after 40 % of the steps only, so that the weights of every unit are
            trained before the search decides about it, and for 60 % draws its scores
            to the sizes of the units, a tenth of the way in each step at first and
            less and less then (`magnitude_pull`; `GuidedES` only with few units).
            More accurate at high sparsity, but until then no smaller. Models with
            block-sparse layers cannot, and other methods begin as they always do.
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
    masked = conversion.masked_weights(model)
    dense = begin_dense and issubclass(cls, EvolutionStrategy) and _may_be_dense(masked)
    few = sampling_is_cheap(masked)
    arguments = _arguments(cls, model, steps, dense, few, kwargs)
    if dense:
        arguments |= _from_dense(cls, model, steps, few, kwargs)
    arguments = {k: v for k, v in arguments.items() if k not in kwargs}
    return cls(inner_optimizer, **arguments, **kwargs)


def _may_be_dense(masked_weights):
    return all(m.kernel_mask is not None for m in masked_weights)


def _from_dense(cls, model, steps, few, given):
    """Return arguments of a search that begins dense and follows magnitudes."""
    generation, generations = _generations(cls, model, steps, given)
    falling = schedules.PolynomialSparsity(max(1, int(FALLING * steps)))
    arguments = {"sparsity_schedule": falling}
    # Of a single weight, the backward pass says more than its magnitude.
    if few or not cls.needs_guidance:
        share = 1.0 - (1.0 - PULL) ** generation
        decay = keras.optimizers.schedules.PolynomialDecay(
            share, _searched(generations), 0.0
        )
        arguments["magnitude_pull"] = decay
    return arguments


def _generations(cls, model, steps, given):
    """Return the steps in a generation, and the generations in the run."""
    generation = cls("sgd", **given).steps_per_generation(model)
    return generation, -(-steps // generation)


def _searched(generations):
    """Return the number of generations in which masks are searched."""
    return max(1, int(SEARCHED * generations))


def _arguments(cls, model, steps, dense, few, given):
    """Return the arguments that follow from the length of a run, given or not."""
    if "end_step" in given:
        return {}
    end_step = max(1, int(REST * steps))
    update_every = min(100, max(1, end_step // MOVES))
    if issubclass(cls, DropAndGrow):
        schedule = schedules.CosineUpdates(end_step, update_every=update_every)
        arguments = {"update_schedule": schedule}
    elif issubclass(cls, GradualMagnitude):
        schedule = schedules.PolynomialSparsity(end_step, update_every=update_every)
        arguments = {"sparsity_schedule": schedule}
    elif issubclass(cls, OpenES) and (dense or few):
        arguments = _search_that_ends(cls, model, steps, dense, few, given)
    elif issubclass(cls, ScoreGradient):
        arguments = _scores_that_settle(cls, model, steps, dense, given)
    else:
        arguments = {}
    return arguments


def _scores_that_settle(cls, model, steps, dense, given):
    """Return arguments of scores whose learning rate falls to 0."""
    schedule = keras.optimizers.schedules
    _, generations = _generations(cls, model, steps, given)
    arguments = {}
    if dense and issubclass(cls, BernoulliStrategy):
        generations = _searched(generations)
        if "sigma" not in given:
            # Not a slope: at a lower T a step of the scores would flip more units.
            temperatures = [cls("sgd", **given).sigma, 0.0]
            arguments["sigma"] = schedule.PiecewiseConstantDecay(
                [generations - 1], temperatures
            )
    # A decay from three times the constant rate moves scores about as far.
    rate = schedule.CosineDecay(3.0 * cls.default_score_learning_rate, generations)
    return {**arguments, "score_optimizer": keras.optimizers.Adam(rate)}


def _search_that_ends(cls, model, steps, dense, few, given):
    """Return arguments of a search that losses alone can finish before the run ends."""
    searched = _searched(_generations(cls, model, steps, given)[1])
    sigma = (0.5 if few else 1.0) if dense else 2.0
    schedule = keras.optimizers.schedules
    return {
        "sigma": schedule.PolynomialDecay(sigma, searched, 0.0),
        "score_optimizer": keras.optimizers.Adam(schedule.CosineDecay(0.05, searched)),
    }
